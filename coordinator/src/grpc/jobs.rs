//! `Jobs`: for clients.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use gapless_common::{
    ids::{RunId, Stage},
    job,
};
use gapless_core::{Answer, Event, Refusal, State, event::Submit, row::JobRow};
use gapless_proto::v1::{self, jobs_server::Jobs};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{control::Control, guard::Subject, limits::WATCH_INTERVAL, view};

/// The metadata key that names the run a submit conflicts with.
const RUN_KEY: &str = "gapless-run";

/// Bounds of listings.
const DEFAULT_RUNS: u32 = 50;
const MAX_RUNS: u32 = 1000;
const DEFAULT_PARTITIONS: u32 = 1000;
const MAX_PARTITIONS: u32 = 10_000;

pub struct JobsService {
    pub control: Control,
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
    let parsed = job::parse(&request.job_text, name).map_err(invalid)?;
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
        job: Arc::new(JobRow {
            text: request.job_text,
            file_name: request.file_name,
            parameters: bound.values,
            base_dir: request.base_dir,
            job,
        }),
    })
}

impl JobsService {
    async fn find(&self, wanted: String) -> Result<RunId, Status> {
        self.control
            .read(move |state| view::find(state, &wanted))
            .await?
            .map_err(Status::not_found)
    }

    async fn status(&self, id: RunId) -> Result<v1::Run, Status> {
        let run = self.control.read(move |state| view::run(state, id)).await?;
        run.ok_or_else(|| Status::not_found(format!("no run {id}")))
    }

    async fn act(
        &self,
        subject: Subject,
        wanted: String,
        event: impl FnOnce(RunId) -> Event,
    ) -> Result<Response<v1::Run>, Status> {
        let found = self.find(wanted.clone()).await;
        subject.note(|about| about.run = found.as_ref().map_or(wanted, RunId::to_string));
        let id = found?;
        self.control.ask(event(id)).await?.map_err(refused)?;
        Ok(Response::new(self.status(id).await?))
    }
}

#[tonic::async_trait]
impl Jobs for JobsService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let subject = Subject::of(&request);
        let request = request.into_inner();
        // A hostile text can take seconds to refuse: not on a thread that serves others.
        let submit = tokio::task::spawn_blocking(move || prepare(request)).await;
        let submit = submit.map_err(|error| Status::internal(format!("reading the job failed: {error}")))??;
        subject.note(|about| about.job = submit.job.job.name.clone());
        match self.control.ask(Event::Submit(submit)).await?.map_err(refused)? {
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
        let id = self.find(request.into_inner().run).await?;
        Ok(Response::new(self.status(id).await?))
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
            runs: self.control.read(list).await?,
        }))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<v1::Run, Status>> + Send>>;

    async fn watch_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let id = self.find(request.into_inner().run).await?;
        let (control, changes) = (self.control.clone(), self.control.changes());
        let service = JobsService { control };
        let watched = futures::stream::unfold((false, None::<v1::Run>, changes), move |(ended, last, mut changes)| {
            let service = JobsService {
                control: service.control.clone(),
            };
            async move {
                if ended {
                    return None;
                }
                loop {
                    if last.is_some() {
                        if changes.changed().await.is_err() {
                            let lost = Status::unavailable("this coordinator leads no more");
                            return Some((Err(lost), (true, None, changes)));
                        }
                        tokio::time::sleep(WATCH_INTERVAL).await;
                        changes.mark_unchanged();
                    }
                    match service.status(id).await {
                        Ok(run) if last.as_ref() != Some(&run) => {
                            let over = run.finished_micros != 0;
                            return Some((Ok(run.clone()), (over, Some(run), changes)));
                        }
                        Ok(_) => {}
                        Err(status) => return Some((Err(status), (true, None, changes))),
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(watched)))
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::ListPartitionsResponse>, Status> {
        let request = request.into_inner();
        let id = self.find(request.run.clone()).await?;
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
        Ok(Response::new(self.control.read(list).await??))
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
