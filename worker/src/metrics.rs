//! Metrics of a worker: its slots and its session count and time what they do; whoever scrapes reads
//! atomics and never waits for either.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use gapless_common::{
    attempt::Counters,
    error::{ErrorClass, TaskError},
    ids::Stage,
};
use gapless_platform::{
    clock::Clock,
    metrics::{self, Labels, add, begin_at_zero},
    monitor::Monitored,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The session's loop turns with every heartbeat and every try to connect, both of which take seconds
/// at most. One that has not turned for so long is stuck.
const LOOP_SILENCE: Duration = Duration::from_secs(60);

type Counts = Family<Labels<1>, Counter>;

/// Where the worker is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Connecting,
    InSession,
    /// Takes nothing new.
    Draining,
    Ended,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its last commit was offered, or its result reported.
    Done,
    /// Given back at a checkpoint.
    Released,
    Failed,
}

impl Ended {
    const ALL: [Ended; 3] = [Ended::Done, Ended::Released, Ended::Failed];

    fn name(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::Released => "released",
            Ended::Failed => "failed",
        }
    }
}

/// Handles to the metrics of one worker; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    clock: Clock,
    state: AtomicU8,
    /// When the session's loop last turned, on the monotonic clock.
    turned_micros: AtomicU64,
    connected: Gauge,
    suspect: Gauge,
    sessions: Counter,
    slots: Gauge,
    slots_busy: Gauge,
    tasks_queued: Gauge,
    attempts: Family<Labels<2>, Counter>,
    attempt_failures: Counts,
    attempt_seconds: Family<Labels<1>, Histogram>,
    rows_read: Counts,
    rows_written: Counts,
    bytes_read: Counts,
    bytes_written: Counts,
    heartbeat_seconds: Histogram,
}

fn of_stage(stage: Stage) -> Labels<1> {
    [("stage", stage.name())]
}

fn of_class(class: ErrorClass) -> Labels<1> {
    [("class", class.name())]
}

/// Stages that commit chunks of data.
const COMMITTING: [Stage; 3] = [Stage::Scatter, Stage::Execute, Stage::Merge];

impl Metrics {
    pub fn new(slots: u32, clock: Clock) -> Metrics {
        let mut registry = metrics::registry("worker", &clock);
        let r = &mut registry;
        let attempt_histogram: fn() -> Histogram = || Histogram::new(metrics::task_buckets());
        let inner = Inner {
            state: AtomicU8::new(State::Connecting as u8),
            turned_micros: AtomicU64::new(micros(clock.monotonic())),
            connected: add(
                r,
                "gapless_worker_connected",
                "1 while there is a session with a coordinator, else 0",
                Gauge::default(),
            ),
            suspect: add(
                r,
                "gapless_worker_suspect",
                "1 while no coordinator was heard for a lease time, so that nothing new is begun; else 0",
                Gauge::default(),
            ),
            sessions: add(r, "gapless_worker_sessions", "Sessions opened", Counter::default()),
            slots: add(r, "gapless_worker_slots", "Tasks worked on at a time", Gauge::default()),
            slots_busy: add(
                r,
                "gapless_worker_slots_busy",
                "Slots that have a task",
                Gauge::default(),
            ),
            tasks_queued: add(
                r,
                "gapless_worker_tasks_queued",
                "Tasks granted that wait for a slot",
                Gauge::default(),
            ),
            attempts: add(
                r,
                "gapless_worker_attempts",
                "Attempts ended, by outcome",
                Family::default(),
            ),
            attempt_failures: add(
                r,
                "gapless_worker_attempt_failures",
                "Attempts that failed, by class of the error",
                Counts::default(),
            ),
            attempt_seconds: add(
                r,
                "gapless_worker_attempt_duration_seconds",
                "From the begin of an attempt to its end",
                Family::new_with_constructor(attempt_histogram),
            ),
            rows_read: add(
                r,
                "gapless_worker_rows_read",
                "Records read in chunks made durable",
                Counts::default(),
            ),
            rows_written: add(
                r,
                "gapless_worker_rows_written",
                "Rows written in chunks made durable",
                Counts::default(),
            ),
            bytes_read: add(
                r,
                "gapless_worker_bytes_read",
                "Bytes of input read in chunks made durable",
                Counts::default(),
            ),
            bytes_written: add(
                r,
                "gapless_worker_bytes_written",
                "Bytes of output made durable",
                Counts::default(),
            ),
            heartbeat_seconds: add(
                r,
                "gapless_worker_heartbeat_duration_seconds",
                "From a heartbeat to the next word of the coordinator",
                Histogram::new(metrics::wait_buckets()),
            ),
            clock,
            registry,
        };
        inner.slots.set(i64::from(slots));
        inner.begin_at_zero();
        Metrics(Arc::new(inner))
    }

    pub(crate) fn enter(&self, state: State) {
        self.0.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn connected(&self) {
        self.0.connected.set(1);
        self.0.sessions.inc();
    }

    pub(crate) fn disconnected(&self) {
        self.0.connected.set(0);
    }

    /// The session's loop goes on, with so many tasks before the slots.
    pub(crate) fn turned(&self, queued: usize) {
        let now = micros(self.0.clock.monotonic());
        self.0.turned_micros.store(now, Ordering::Relaxed);
        self.0.tasks_queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
    }

    /// Whether no leader was heard for a lease time.
    pub(crate) fn suspect(&self, suspect: bool) {
        self.0.suspect.set(i64::from(suspect));
    }

    pub(crate) fn heartbeat_answered(&self, took: Duration) {
        self.0.heartbeat_seconds.observe(took.as_secs_f64());
    }

    /// A slot begins an attempt. Gives the time on the clock, for [`Metrics::ended`].
    pub(crate) fn begun(&self) -> Duration {
        self.0.slots_busy.inc();
        self.0.clock.monotonic()
    }

    pub(crate) fn ended(&self, stage: Stage, begun: Duration, how: Ended, error: Option<&TaskError>) {
        let inner = &*self.0;
        inner.slots_busy.dec();
        let took = inner.clock.monotonic().saturating_sub(begun);
        inner
            .attempt_seconds
            .get_or_create(&of_stage(stage))
            .observe(took.as_secs_f64());
        inner.attempts.get_or_create(&of_outcome(stage, how)).inc();
        if let Some(error) = error {
            inner.attempt_failures.get_or_create(&of_class(error.class)).inc();
        }
    }

    /// A chunk is durable and is being offered.
    pub(crate) fn chunk(&self, stage: Stage, counters: &Counters) {
        let stage = of_stage(stage);
        let add = |counts: &Counts, count| counts.get_or_create(&stage).inc_by(count);
        add(&self.0.rows_read, counters.read);
        add(&self.0.rows_written, counters.written);
        add(&self.0.bytes_read, counters.bytes_read);
        add(&self.0.bytes_written, counters.bytes_written);
    }
}

fn of_outcome(stage: Stage, how: Ended) -> Labels<2> {
    [("stage", stage.name()), ("outcome", how.name())]
}

impl Inner {
    fn state(&self) -> State {
        let state = self.state.load(Ordering::Acquire);
        [State::Connecting, State::InSession, State::Draining]
            .into_iter()
            .find(|it| *it as u8 == state)
            .unwrap_or(State::Ended)
    }

    /// Every series is there from the start.
    fn begin_at_zero(&self) {
        begin_at_zero(&self.attempt_seconds, Stage::ALL.map(of_stage));
        for stage in Stage::ALL {
            begin_at_zero(&self.attempts, Ended::ALL.map(|how| of_outcome(stage, how)));
        }
        for counts in [
            &self.rows_read,
            &self.rows_written,
            &self.bytes_read,
            &self.bytes_written,
        ] {
            begin_at_zero(counts, COMMITTING.map(of_stage));
        }
        begin_at_zero(&self.attempt_failures, ErrorClass::ALL.map(of_class));
    }
}

impl Monitored for Metrics {
    fn metrics(&self) -> String {
        metrics::encode(&self.0.registry)
    }

    fn health(&self) -> Result<(), String> {
        let silent = micros(self.0.clock.monotonic()).saturating_sub(self.0.turned_micros.load(Ordering::Relaxed));
        match self.0.state() {
            State::Ended => Err("this worker has ended".to_string()),
            _ if silent > micros(LOOP_SILENCE) => {
                Err(format!("the session has not moved for {} s", silent / 1_000_000))
            }
            State::Connecting | State::InSession | State::Draining => Ok(()),
        }
    }

    fn ready(&self) -> Result<&'static str, String> {
        self.health()?;
        match self.0.state() {
            State::InSession => Ok("in session"),
            State::Connecting => Err("no session with a coordinator yet".to_string()),
            State::Draining => Err("draining".to_string()),
            State::Ended => Err("ended".to_string()),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.metrics();
        assert!(text.contains(line), "{line} is not in\n{text}");
    }

    #[test]
    fn an_attempt_is_counted_by_how_it_ended() {
        let clock = Clock::manual(1);
        let metrics = Metrics::new(2, clock.clone());
        let begun = metrics.begun();
        has(&metrics, "gapless_worker_slots_busy 1");
        let counters = Counters {
            read: 7,
            bytes_written: 90,
            ..Counters::default()
        };
        metrics.chunk(Stage::Scatter, &counters);
        clock.advance(Duration::from_secs(3));
        let error = TaskError::new(ErrorClass::Data, "no");
        metrics.ended(Stage::Scatter, begun, Ended::Failed, Some(&error));
        for line in [
            "gapless_worker_slots 2",
            "gapless_worker_slots_busy 0",
            "gapless_worker_rows_read_total{stage=\"scatter\"} 7",
            "gapless_worker_bytes_written_total{stage=\"scatter\"} 90",
            "gapless_worker_attempts_total{stage=\"scatter\",outcome=\"failed\"} 1",
            "gapless_worker_attempts_total{stage=\"scatter\",outcome=\"done\"} 0",
            "gapless_worker_attempt_failures_total{class=\"data\"} 1",
            "gapless_worker_attempt_duration_seconds_sum{stage=\"scatter\"} 3",
        ] {
            has(&metrics, line);
        }
    }

    #[test]
    fn a_worker_is_ready_in_session_and_ill_when_its_loop_stands_still() {
        let clock = Clock::manual(1);
        let metrics = Metrics::new(1, clock.clone());
        assert!(metrics.health().is_ok() && metrics.ready().is_err());
        metrics.enter(State::InSession);
        assert_eq!(metrics.ready(), Ok("in session"));
        clock.advance(LOOP_SILENCE + Duration::from_secs(1));
        assert!(metrics.health().is_err() && metrics.ready().is_err());
        metrics.turned(0);
        assert!(metrics.health().is_ok());
        metrics.enter(State::Draining);
        assert!(metrics.health().is_ok() && metrics.ready().is_err());
        metrics.enter(State::Ended);
        assert!(metrics.health().is_err());
    }
}
