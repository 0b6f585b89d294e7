//! `Jobs`: for clients.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use gapless_common::{
    ids::{RunId, Stage},
    job,
};
use gapless_core::{Answer, Event, Refusal, State, event::Submit, row::JobRow};
use gapless_proto::v1::{self, jobs_server::Jobs};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Submits, events};
use crate::{
    control::{Changes, Control},
    guard::Subject,
    limits::WATCH_INTERVAL,
    seat::{Lead, Seat, not_leader},
    view,
};

/// The metadata key that names the run a submit conflicts with.
const RUN_KEY: &str = "gapless-run";

/// Bounds of listings.
const DEFAULT_RUNS: u32 = 50;
const MAX_RUNS: u32 = 1000;
const DEFAULT_PARTITIONS: u32 = 1000;
const MAX_PARTITIONS: u32 = 10_000;

pub struct JobsService {
    pub seat: Seat,
    pub submits: Submits,
}

fn refused(refusal: Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::AlreadyRunning { run } | Refusal::AlreadyComplete { run } | Refusal::BeingCancelled { run } => {
            let mut status = Status::already_exists(message);
            if let Ok(value) = run.to_string().parse() {
                status.metadata_mut().insert(RUN_KEY, value);
            }
            status
        }
        Refusal::NoSuchRun { .. } => Status::not_found(message),
        Refusal::TooManyRuns { .. } => Status::resource_exhausted(message),
        _ => Status::failed_precondition(message),
    }
}

/// Reads and checks a job text as the command line does, so every client gets the same errors.
fn prepare(request: v1::SubmitRequest) -> Result<Submit, Status> {
    let invalid = |errors: job::JobErrors| Status::invalid_argument(errors.to_string());
    let name = if request.file_name.is_empty() {
        "job.yaml"
    } else {
        &request.file_name
    };
    let parsed = job::parse_redrive(&request.job_text, &request.redrive, name).map_err(invalid)?;
    let priority = request.priority.map(|given| {
        let (least, most) = (job::Priority::LOWEST.0, job::Priority::HIGHEST.0);
        let refused = || Status::invalid_argument(format!("priority is {given}; allowed: {least} to {most}"));
        job::Priority::new(given).ok_or_else(refused)
    });
    let (job, bound) = parsed
        .bind(&request.parameters.into_iter().collect())
        .map_err(invalid)?;
    if !request.base_dir.starts_with('/') {
        return Err(Status::invalid_argument("base_dir must be an absolute path"));
    }
    Ok(Submit {
        run: RunId(Uuid::now_v7()),
        identity: bound.identity,
        text_digest: bound.version,
        priority: priority.transpose()?,
        job: Arc::new(JobRow {
            text: request.job_text,
            redrive: request.redrive,
            file_name: request.file_name,
            parameters: bound.values,
            base_dir: request.base_dir,
            job,
        }),
    })
}

async fn find(control: &Control, wanted: String) -> Result<RunId, Status> {
    control
        .read(move |state| view::find(state, &wanted))
        .await?
        .map_err(Status::not_found)
}

async fn status(control: &Control, id: RunId) -> Result<v1::Run, Status> {
    let run = control.read(move |state| view::run(state, id)).await?;
    run.ok_or_else(|| Status::not_found(format!("no run {id}")))
}

impl JobsService {
    async fn act(
        &self,
        subject: Subject,
        wanted: String,
        event: impl FnOnce(RunId) -> Event,
    ) -> Result<Response<v1::Run>, Status> {
        let control = self.seat.lead()?.control;
        let found = find(&control, wanted.clone()).await;
        subject.note(|about| about.run = found.as_ref().map_or(wanted, RunId::to_string));
        let id = found?;
        control.ask(event(id)).await?.map_err(refused)?;
        Ok(Response::new(status(&control, id).await?))
    }
}

#[tonic::async_trait]
impl Jobs for JobsService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let subject = Subject::of(&request);
        let lead = self.seat.lead()?;
        let request = request.into_inner();
        if let Some(full) = lead.full.borrow().as_ref() {
            return Err(Status::resource_exhausted(full.to_string()));
        }
        let place = self.submits.admit()?;
        // A hostile text can take seconds to refuse: not on a thread that serves others.
        let submit = tokio::task::spawn_blocking(move || prepare(request)).await;
        let submit = submit.map_err(|error| Status::internal(format!("reading the job failed: {error}")))??;
        drop(place);
        subject.note(|about| about.job = submit.job.job.name.clone());
        match lead.control.ask(Event::Submit(submit)).await?.map_err(refused)? {
            Answer::Submitted { run, resumed } => {
                subject.note(|about| about.run = run.to_string());
                Ok(Response::new(v1::SubmitResponse {
                    run: run.to_string(),
                    resumed,
                }))
            }
            Answer::Done => Err(Status::internal("a submit was answered without a run")),
        }
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<v1::Run>, Status> {
        let control = self.seat.lead()?.control;
        let request = request.into_inner();
        let id = find(&control, request.run).await?;
        let mut run = status(&control, id).await?;
        if request.with_job
            && let Some(job) = control
                .read(move |state| state.run(id).map(|run| run.job.clone()))
                .await?
        {
            run.job_text = job.text.clone();
            run.redrive = job.redrive.clone();
            run.file_name = job.file_name.clone();
            run.base_dir = job.base_dir.clone();
        }
        Ok(Response::new(run))
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsResponse>, Status> {
        let request = request.into_inner();
        let limit = if request.limit == 0 {
            DEFAULT_RUNS
        } else {
            request.limit.min(MAX_RUNS)
        } as usize;
        let list = move |state: &State| {
            let runs = state.runs.iter().rev();
            let wanted = runs.filter(|(_, run)| request.job.is_empty() || run.job.job.name == request.job);
            wanted.take(limit).filter_map(|(id, _)| view::run(state, *id)).collect()
        };
        Ok(Response::new(v1::ListRunsResponse {
            runs: self.seat.lead()?.control.read(list).await?,
        }))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<v1::Run, Status>> + Send>>;

    async fn watch_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let lead = self.seat.lead()?;
        let watch = Watch {
            run: find(&lead.control, request.into_inner().run).await?,
            changes: lead.control.changes(),
            lead,
            ends: 0,
            last: None,
            over: false,
        };
        let watched = futures::stream::unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Some((next, watch))
        });
        Ok(Response::new(Box::pin(watched)))
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::ListPartitionsResponse>, Status> {
        let request = request.into_inner();
        let control = self.seat.lead()?.control;
        let id = find(&control, request.run.clone()).await?;
        let stage = match request.stage.as_str() {
            "" => Stage::Execute,
            name => Stage::from_name(name).ok_or_else(|| Status::invalid_argument(format!("no stage {name}")))?,
        };
        let limit = if request.limit == 0 {
            DEFAULT_PARTITIONS
        } else {
            request.limit.min(MAX_PARTITIONS)
        } as usize;
        let list = move |state: &State| -> Result<v1::ListPartitionsResponse, Status> {
            let run = state.run(id).ok_or_else(|| Status::not_found(format!("no run {id}")))?;
            let steps = &run.job.job.steps;
            if !request.step.is_empty() && !steps.iter().any(|step| step.name == request.step) {
                return Err(Status::not_found(format!("run {id} has no step {}", request.step)));
            }
            let wanted = (0..steps.len()).filter(|&at| request.step.is_empty() || steps[at].name == request.step);
            let mut page = v1::ListPartitionsResponse::default();
            for step in wanted {
                if let Some(rows) = view::partitions(state, id, step as u16, stage, request.from, limit) {
                    page.partitions.extend(rows.partitions);
                    page.next = page.next.or(rows.next);
                }
            }
            Ok(page)
        };
        Ok(Response::new(control.read(list).await??))
    }

    type ListEventsStream = Pin<Box<dyn Stream<Item = Result<v1::RunEvent, Status>> + Send>>;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let request = request.into_inner();
        let lead = self.seat.lead()?;
        let run = find(&lead.control, request.run).await?;
        let events = events::stream(lead, run, request.after_micros, request.follow);
        Ok(Response::new(Box::pin(events)))
    }

    async fn stop_run(&self, request: Request<v1::StopRunRequest>) -> Result<Response<v1::Run>, Status> {
        let subject = Subject::of(&request);
        self.act(subject, request.into_inner().run, |run| Event::Stop { run })
            .await
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Result<Response<v1::Run>, Status> {
        let subject = Subject::of(&request);
        self.act(subject, request.into_inner().run, |run| Event::Cancel { run })
            .await
    }
}

/// What one watcher of a run has been told.
struct Watch {
    lead: Lead,
    run: RunId,
    changes: watch::Receiver<Changes>,
    /// Ends of runs that were known when it was last told.
    ends: u64,
    last: Option<v1::Run>,
    over: bool,
}

impl Watch {
    /// The run, at once at first and then whenever it looks different: at most once in
    /// [`WATCH_INTERVAL`], but its end without delay.
    async fn next(&mut self) -> Option<Result<v1::Run, Status>> {
        while !self.over {
            if self.last.is_some() && !self.changed().await {
                self.over = true;
                return Some(Err(not_leader("")));
            }
            self.ends = self.changes.borrow_and_update().ends;
            match status(&self.lead.control, self.run).await {
                Ok(run) if self.last.as_ref() != Some(&run) => {
                    self.over = run.finished_micros != 0;
                    self.last = Some(run.clone());
                    return Some(Ok(run));
                }
                Ok(_) => {}
                Err(status) => {
                    self.over = true;
                    return Some(Err(status));
                }
            }
        }
        None
    }

    /// Waits until it is time to look at the run again. False: the lead is over.
    async fn changed(&mut self) -> bool {
        let over = self.lead.over.stopping();
        tokio::select! {
            changed = self.changes.changed() => if changed.is_err() { return false },
            () = over.cancelled() => return false,
        }
        let end = self.changes.wait_for(|changes| changes.ends != self.ends);
        // Whatever ends the pause, the run is looked at.
        let _ = tokio::time::timeout(WATCH_INTERVAL, end).await;
        true
    }
}
