//! Traces of runs, for an OpenTelemetry collector (OTLP over gRPC,
//! <https://opentelemetry.io/docs/specs/otlp/>).
//!
//! A trace is a run: its id is the run's. Its spans are the run, the steps, and each attempt at a task.
//! Their ids follow from what they are of ([`span_id`]), so that coordinator and workers, which each tell
//! what they know, tell one trace and pass no context to each other.
//!
//! Spans are made from what is logged anyway: the span named [`ATTEMPT`] of a worker's slot, and the events
//! with the target [`ENDED`] of the coordinator. Telling them never makes work wait: a span that finds the
//! queue full is dropped and counted.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use ring::digest;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    filter::filter_fn,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};
use uuid::Uuid;

/// Name of the `tracing` span of an attempt. Its fields: run, step, stage, partition, attempt, worker.
pub const ATTEMPT: &str = "task";

/// Target of the events that tell of a run or step that has ended. Their fields: run, step (of a step),
/// name, begun and ended (microseconds since 1970), outcome, and error where there is one.
pub const ENDED: &str = "gapless::ended";

/// Spans that wait to be sent. An attempt takes some 500 bytes, so at most a few MiB; at a thousand tasks a
/// second a collector may be away for four seconds.
const QUEUE: usize = 4096;

/// Spans of one message: below the 4 MiB that a collector takes unless told otherwise.
const SPANS_PER_MESSAGE: usize = 512;

/// How long a span waits for others to go with.
const GATHER: Duration = Duration::from_secs(1);

/// A collector that does not answer for so long has not taken the spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is still queued at the end of the process gets so long.
const FLUSH: Duration = Duration::from_secs(2);

/// A collector that is away is mentioned so often.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesConfig {
    /// `http://HOST:PORT`, or `https://`, which is checked against `ca`.
    pub endpoint: String,
    /// PEM text of the authority.
    pub ca: Option<Vec<u8>>,
    /// Which part of Gapless this is: `service.name` is `gapless-` and this.
    pub part: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    #[error("{endpoint:?} is no endpoint of a collector: {reason}; write http://HOST:PORT")]
    Endpoint { endpoint: String, reason: String },
    #[error("{endpoint} is to be reached with TLS, but no authority is known: give tls_ca (--tls-ca FILE)")]
    NoAuthority { endpoint: String },
}

/// Sends what the layer tells, as a task of the runtime.
pub struct Exporter {
    queue: mpsc::Sender<Message>,
    task: JoinHandle<()>,
}

enum Message {
    Span(Box<Span>),
    End,
}

/// Makes spans of what is logged.
pub struct TracesLayer {
    queue: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The id of a span by what it is of: a run (`[]`), a step (its number), an attempt (number, stage, partition,
/// attempt id). The first half of a SHA-256 of the parts.
pub fn span_id(run: Uuid, of: &[&str]) -> [u8; 8] {
    let mut text = run.to_string();
    for part in of {
        text.push('/');
        text.push_str(part);
    }
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&digest.as_ref()[..8]);
    id
}

/// Begins to export, on the present runtime. Connects when there is something to send.
///
/// Errors: [`TracesError`] where the endpoint is none. A collector that is away is no error: its spans
/// are dropped, with a warning.
pub fn start(config: TracesConfig) -> Result<(TracesLayer, Exporter), TracesError> {
    let endpoint = &config.endpoint;
    let wrong = |error: tonic::transport::Error| TracesError::Endpoint {
        endpoint: endpoint.clone(),
        reason: error.to_string(),
    };
    let mut to = Endpoint::from_shared(endpoint.clone())
        .map_err(wrong)?
        .connect_timeout(EXPORT_TIMEOUT)
        .timeout(EXPORT_TIMEOUT);
    if endpoint.starts_with("https:") {
        let ca = config.ca.as_ref().ok_or_else(|| TracesError::NoAuthority {
            endpoint: endpoint.clone(),
        })?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        to = to.tls_config(tls).map_err(wrong)?;
    }
    let (queue, spans) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let sender = Sender {
        client: TraceServiceClient::new(to.connect_lazy()),
        endpoint: config.endpoint,
        resource: resource(config.part),
        dropped: dropped.clone(),
        told: 0,
        complained: None,
    };
    let exporter = Exporter {
        queue: queue.clone(),
        task: tokio::spawn(sender.send_all(spans)),
    };
    Ok((TracesLayer { queue, dropped }, exporter))
}

impl Exporter {
    /// Sends what is queued, for as long as the end of a process may take.
    pub async fn end(self) {
        let flush = async {
            // It has ended already where this fails.
            self.queue.send(Message::End).await.ok();
            self.task.await.ok();
        };
        tokio::time::timeout(FLUSH, flush).await.ok();
    }
}

impl TracesLayer {
    /// With the filter that keeps all other places of the code as cheap as without it.
    pub fn filtered<S>(self) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        fn concerns(what: &Metadata) -> bool {
            match what.is_span() {
                true => what.name() == ATTEMPT,
                false => what.target() == ENDED || *what.level() <= Level::WARN,
            }
        }
        self.with_filter(filter_fn(concerns))
    }

    fn tell(&self, span: Span) {
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Fields by their names, as text.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn run(&self) -> Option<Uuid> {
        self.get("run")?.parse().ok()
    }

    /// Attributes in the names of this project, whatever is there.
    fn attributes(&self) -> Vec<KeyValue> {
        let shown = self
            .0
            .iter()
            .filter(|(name, _)| !matches!(**name, "begun" | "ended" | "error" | "message"));
        shown
            .map(|(name, value)| attribute(&format!("gapless.{name}"), value))
            .collect()
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to memory does not fail.
        write!(text, "{value:?}").ok();
        self.0.insert(field.name(), text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_string());
    }
}

/// An attempt under way.
struct Attempt {
    begun: SystemTime,
    fields: Fields,
    error: Option<String>,
}

impl<S> Layer<S> for TracesLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(Attempt {
            begun: SystemTime::now(),
            fields,
            error: None,
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if event.metadata().target() == ENDED {
            if let Some(span) = ended(&fields) {
                self.tell(span);
            }
            return;
        }
        // A warning within an attempt that names an error is what it failed of.
        let Some(error) = fields.get("error") else { return };
        let attempt = |span: SpanRef<'_, S>| {
            if let Some(attempt) = span.extensions_mut().get_mut::<Attempt>() {
                attempt.error = Some(error.to_string());
            }
        };
        context.event_scope(event).into_iter().flatten().for_each(attempt);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(attempt) = span.extensions_mut().remove::<Attempt>() else {
            return;
        };
        if let Some(span) = attempted(&attempt, SystemTime::now()) {
            self.tell(span);
        }
    }
}

/// The span of an attempt; `None` where a field is missing.
fn attempted(attempt: &Attempt, now: SystemTime) -> Option<Span> {
    let fields = &attempt.fields;
    let run = fields.run()?;
    let [step, stage, partition, id] = ["step", "stage", "partition", "attempt"].map(|name| fields.get(name));
    let (step, stage, partition, id) = (step?, stage?, partition?, id?);
    Some(Span {
        trace_id: run.as_bytes().to_vec(),
        span_id: span_id(run, &[step, stage, partition, id]).to_vec(),
        parent_span_id: span_id(run, &[step]).to_vec(),
        name: format!("{stage} {partition}"),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanos(attempt.begun),
        end_time_unix_nano: nanos(now),
        attributes: fields.attributes(),
        status: Some(status(attempt.error.as_deref())),
        ..Span::default()
    })
}

/// The span of a run or step that has ended; `None` where a field is missing.
fn ended(fields: &Fields) -> Option<Span> {
    let run = fields.run()?;
    let micros = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let (id, parent) = match fields.get("step") {
        Some(step) => (span_id(run, &[step]), span_id(run, &[]).to_vec()),
        None => (span_id(run, &[]), Vec::new()),
    };
    Some(Span {
        trace_id: run.as_bytes().to_vec(),
        span_id: id.to_vec(),
        parent_span_id: parent,
        name: fields.get("name")?.to_string(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: micros("begun")?.saturating_mul(1000),
        end_time_unix_nano: micros("ended")?.saturating_mul(1000),
        attributes: fields.attributes(),
        status: Some(status(fields.get("error"))),
        ..Span::default()
    })
}

fn status(error: Option<&str>) -> Status {
    match error {
        Some(error) => Status {
            code: StatusCode::Error.into(),
            message: error.to_string(),
        },
        None => Status {
            code: StatusCode::Ok.into(),
            message: String::new(),
        },
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue {
        key: name.to_string(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_string())),
        }),
        ..KeyValue::default()
    }
}

fn resource(part: &str) -> Resource {
    Resource {
        attributes: vec![
            attribute("service.name", &format!("gapless-{part}")),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("process.pid", &std::process::id().to_string()),
        ],
        ..Resource::default()
    }
}

/// Takes spans off the queue and sends them.
struct Sender {
    client: TraceServiceClient<Channel>,
    endpoint: String,
    resource: Resource,
    dropped: Arc<AtomicU64>,
    /// How many of the dropped ones were told of.
    told: u64,
    complained: Option<tokio::time::Instant>,
}

impl Sender {
    async fn send_all(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut ends = false;
        while !ends {
            let Some(first) = queue.recv().await else { return };
            let mut spans = Vec::new();
            ends = !take(first, &mut spans);
            let until = tokio::time::Instant::now() + GATHER;
            while !ends && spans.len() < SPANS_PER_MESSAGE {
                match tokio::time::timeout_at(until, queue.recv()).await {
                    Ok(Some(message)) => ends = !take(message, &mut spans),
                    Ok(None) => ends = true,
                    Err(_) => break,
                }
            }
            if !spans.is_empty() {
                self.send(spans).await;
            }
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let scope = ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "gapless".to_string(),
                ..InstrumentationScope::default()
            }),
            spans,
            ..ScopeSpans::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![scope],
                ..ResourceSpans::default()
            }],
        };
        let sent = tokio::time::timeout(EXPORT_TIMEOUT, self.client.export(request)).await;
        let reason = match sent {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(status.message().to_string()),
            Err(_) => Some(format!("no answer for {} s", EXPORT_TIMEOUT.as_secs())),
        };
        if reason.is_some() {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        let quiet = self.complained.is_some_and(|at| at.elapsed() < COMPLAIN);
        if dropped > self.told && !quiet {
            self.complained = Some(tokio::time::Instant::now());
            let lost = dropped - self.told;
            self.told = dropped;
            let reason = reason.as_deref().unwrap_or("more came than it takes");
            tracing::warn!(spans = lost, endpoint = %self.endpoint, reason, "spans were dropped; the work goes on");
        }
    }
}

/// Keeps a span; false at the end.
fn take(message: Message, spans: &mut Vec<Span>) -> bool {
    match message {
        Message::Span(span) => {
            spans.push(*span);
            true
        }
        Message::End => false,
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const RUN: &str = "0193b1f2-7b7a-7ccc-8ccc-0123456789ab";

    fn told(what: impl FnOnce()) -> Vec<Span> {
        let (queue, mut spans) = mpsc::channel(QUEUE);
        let layer = TracesLayer {
            queue,
            dropped: Arc::default(),
        };
        let subscriber = tracing_subscriber::registry().with(layer.filtered());
        tracing::subscriber::with_default(subscriber, what);
        let mut told = Vec::new();
        while let Ok(message) = spans.try_recv() {
            take(message, &mut told);
        }
        told
    }

    #[test]
    fn attempts_steps_and_the_run_are_one_trace() {
        let spans = told(|| {
            let attempt = |id: &str, fails: bool| {
                let span = tracing::info_span!(
                    ATTEMPT,
                    run = %RUN,
                    step = 1,
                    stage = "execute",
                    partition = 7,
                    attempt = %id,
                    worker = "worker-1"
                );
                let _entered = span.enter();
                tracing::info_span!("inner").in_scope(|| {
                    if fails {
                        tracing::warn!(error = "the disk is full", "the attempt failed");
                    }
                });
            };
            attempt("3-1", true);
            attempt("3-2", false);
            tracing::debug!(target: ENDED, run = %RUN, step = 1, name = "load", begun = 1_000_000, ended = 3_000_000, outcome = "published");
            tracing::debug!(target: ENDED, run = %RUN, name = "sales", begun = 500_000, ended = 4_000_000, outcome = "completed");
            tracing::info!(run = %RUN, "not of this");
        });
        let run: Uuid = RUN.parse().expect("an id");
        assert_eq!(spans.len(), 4);
        assert!(spans.iter().all(|span| span.trace_id == run.as_bytes()));
        let [failed, fine, step, root] = &spans[..] else {
            unreachable!()
        };
        assert_eq!(root.parent_span_id, Vec::<u8>::new());
        assert_eq!(step.parent_span_id, root.span_id);
        assert_eq!([&failed.parent_span_id, &fine.parent_span_id], [&step.span_id; 2]);
        assert_ne!(failed.span_id, fine.span_id);
        assert_eq!(failed.name, "execute 7");
        assert_eq!(
            (step.start_time_unix_nano, step.end_time_unix_nano),
            (1_000_000_000, 3_000_000_000)
        );
        let status = |span: &Span| span.status.clone().expect("a status");
        assert_eq!(status(failed).message, "the disk is full");
        assert_eq!(status(failed).code, i32::from(StatusCode::Error));
        assert_eq!(status(fine).code, i32::from(StatusCode::Ok));
        let named = |span: &Span, name: &str| span.attributes.iter().any(|it| it.key == name);
        assert!(named(fine, "gapless.worker") && named(root, "gapless.outcome"));
        assert!(!named(root, "gapless.begun"));
    }

    #[test]
    fn a_full_queue_drops_spans_and_counts_them() {
        let (queue, _kept) = mpsc::channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let layer = TracesLayer {
            queue,
            dropped: dropped.clone(),
        };
        (0..3).for_each(|_| layer.tell(Span::default()));
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_place_that_is_none_is_refused_in_words() {
        let refused = |endpoint: &str| {
            let config = TracesConfig {
                endpoint: endpoint.to_string(),
                ca: None,
                part: "worker",
            };
            start(config).err().expect("it is none").to_string()
        };
        assert!(
            refused("no place").contains("write http://HOST:PORT"),
            "{}",
            refused("no place")
        );
        assert!(refused("https://collector:4317").contains("--tls-ca"));
    }
}
