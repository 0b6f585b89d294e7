//! Views: the state as clients see it. Reads only.

use std::collections::{BTreeMap, HashMap};

use gapless_common::{
    attempt::Counters,
    ids::{RunId, Stage, StepNo},
    key::KeyType,
    labels::Labels,
    plan::{BucketFn, StepFrame},
};
use gapless_core::{
    State, Timestamp,
    history::{self, Entry},
    load,
    row::{Phase, RunState},
    state::{Run, StageState, Step, Task},
};
use gapless_proto::v1;

use crate::{limits::NOTABLE_EVENTS, wire};

/// Finds a run by its id, by a unique beginning of it, or the newest of a job by name.
pub fn find(state: &State, wanted: &str) -> Result<RunId, String> {
    if let Ok(id) = wanted.parse::<RunId>()
        && state.runs.contains_key(&id)
    {
        return Ok(id);
    }
    let by_name = state.runs.iter().rev().find(|(_, run)| run.job.job.name == wanted);
    if let Some((id, _)) = by_name {
        return Ok(*id);
    }
    let matches: Vec<RunId> = state
        .runs
        .keys()
        .filter(|id| id.to_string().starts_with(wanted))
        .copied()
        .collect();
    match matches.as_slice() {
        [id] if !wanted.is_empty() => Ok(*id),
        [] => Err(format!("no run or job {wanted}; `gapless list` shows the runs")),
        _ => Err(format!(
            "{} runs begin with {wanted}; give more of the id",
            matches.len()
        )),
    }
}

pub fn run(state: &State, id: RunId) -> Option<v1::Run> {
    let run = state.run(id)?;
    let in_flight = in_flight(state, id);
    let steps = run.steps.iter().enumerate();
    Some(v1::Run {
        id: id.to_string(),
        job: run.job.job.name.clone(),
        parameters: run.job.parameters.clone().into_iter().collect(),
        state: run_state(run.row.state) as i32,
        submitted_micros: run.row.submitted.0,
        finished_micros: run.row.finished.map_or(0, |at| at.0),
        error: run.row.error.clone().unwrap_or_default(),
        steps: steps
            .map(|(number, step)| step_status(state, run, number as StepNo, step, &in_flight))
            .collect(),
        events: notable(run),
        priority: u32::from(run.row.priority.0),
        // Told to those who ask for it.
        job_text: String::new(),
        file_name: String::new(),
        base_dir: String::new(),
        redrive: String::new(),
    })
}

/// Why tasks of a step wait although slots may be free.
fn waits_for(state: &State, run: &Run, number: StepNo) -> String {
    match load::missing_labels(state, run, number) {
        Some(labels) => format!("no worker here has the labels {labels} (placement)"),
        None => String::new(),
    }
}

/// The last notable events, oldest first.
fn notable(run: &Run) -> Vec<v1::RunEvent> {
    let notable = history::notable(run, NOTABLE_EVENTS);
    notable.iter().map(|entry| event(run, entry)).collect()
}

fn event(run: &Run, entry: &Entry) -> v1::RunEvent {
    let step = entry.step.and_then(|step| run.job.job.steps.get(step as usize));
    v1::RunEvent {
        at_micros: entry.at.0,
        step: step.map(|step| step.name.clone()).unwrap_or_default(),
        text: entry.text.clone(),
        kind: entry.kind.name().to_string(),
    }
}

/// What happened to a run after a time, and whether it has ended.
pub fn events(state: &State, id: RunId, after_micros: i64) -> Option<(Vec<v1::RunEvent>, bool)> {
    let run = state.run(id)?;
    let entries = history::of_run(run, Timestamp(after_micros));
    let events = entries.iter().map(|entry| event(run, entry)).collect();
    Some((events, !run.row.state.is_live()))
}

fn run_state(state: RunState) -> v1::RunState {
    match state {
        RunState::Running | RunState::Failing => v1::RunState::Running,
        RunState::Stopping => v1::RunState::Stopping,
        RunState::Stopped => v1::RunState::Stopped,
        RunState::Failed => v1::RunState::Failed,
        RunState::Cancelling => v1::RunState::Cancelling,
        RunState::Cancelled => v1::RunState::Cancelled,
        RunState::Completed => v1::RunState::Completed,
    }
}

/// Units and rows that live attempts have read beyond their last commits, for each (step, stage).
fn in_flight(state: &State, id: RunId) -> BTreeMap<(StepNo, Stage), (u64, u64)> {
    let mut sums: BTreeMap<(StepNo, Stage), (u64, u64)> = BTreeMap::new();
    for key in state
        .sessions
        .values()
        .flat_map(|session| &session.leases)
        .filter(|key| key.run == id)
    {
        let Some(task) = state.task(key) else { continue };
        let Some(lease) = task.lease else { continue };
        let sum = sums.entry((key.step, key.stage)).or_default();
        sum.0 += lease.position.saturating_sub(task.position());
        sum.1 += lease.rows;
    }
    sums
}

/// The stage that a person follows in this phase: the one that runs, or the last that worked on data.
fn shown_stage(step: &Step) -> Option<(Stage, &StageState)> {
    match step.row.phase {
        Phase::Scatter => step.stage(Stage::Scatter).map(|it| (Stage::Scatter, it)),
        Phase::Merge => step.stage(Stage::Merge).map(|it| (Stage::Merge, it)),
        Phase::Waiting | Phase::Survey | Phase::Splitting | Phase::Prepare => None,
        Phase::Execute | Phase::Publish | Phase::Published | Phase::Abort | Phase::Aborted => {
            step.stage(Stage::Execute).map(|it| (Stage::Execute, it))
        }
    }
}

fn counts(stage: &StageState) -> v1::PartitionCounts {
    v1::PartitionCounts {
        total: stage.total(),
        done: stage.done,
        running: stage.leased,
        waiting: stage.total() - stage.done - stage.leased - stage.failed,
        failed: stage.failed,
    }
}

/// The counters of a step: read and rejected where the source is read, written where rows are written.
fn step_counters(step: &Step) -> Counters {
    let of = |stage| step.stage(stage).map(|it: &StageState| it.counters).unwrap_or_default();
    let (scatter, execute, merge) = (of(Stage::Scatter), of(Stage::Execute), of(Stage::Merge));
    let exchanged = step.row.plan.as_ref().is_some_and(|plan| plan.exchange.is_some());
    let mut counters = execute;
    if exchanged {
        counters.read = scatter.read;
        counters.bytes_read = scatter.bytes_read;
        counters.rejected += scatter.rejected;
    }
    if merge.bytes_written > 0 {
        counters.bytes_written = merge.bytes_written;
    }
    counters
}

fn step_status(
    state: &State,
    run: &Run,
    number: StepNo,
    step: &Step,
    in_flight: &BTreeMap<(StepNo, Stage), (u64, u64)>,
) -> v1::StepStatus {
    let shown = shown_stage(step);
    let (units, rows) = shown
        .and_then(|(stage, _)| in_flight.get(&(number, stage)))
        .copied()
        .unwrap_or_default();
    let publication = step.row.publication.clone().unwrap_or_default();
    let failed = run.row.state == RunState::Failed || run.row.state == RunState::Failing;
    let failure = step
        .stages()
        .flat_map(|(_, stage)| &stage.tasks)
        .find(|task| task.has_failed(run.row.restarts));
    let phase = match step.row.phase.stage() {
        Some(_) if failed && failure.is_some() => "failed",
        _ => step.row.phase.name(),
    };
    v1::StepStatus {
        name: run.definition(number).name.clone(),
        state: phase.to_string(),
        partitions: Some(shown.map(|(_, stage)| counts(stage)).unwrap_or_default()),
        counters: Some(wire::counters_out(step_counters(step))),
        units_total: shown.map_or(0, |(_, stage)| stage.tasks.iter().map(|task| task.units.len()).sum()),
        units_read: shown.map_or(0, |(_, stage)| stage.committed_units) + units,
        rows_read: shown.map_or(0, |(_, stage)| stage.counters.read) + rows,
        started_micros: step.row.started.map_or(0, |at| at.0),
        finished_micros: step.row.finished.map_or(0, |at| at.0),
        error: failure.map(failure_text).unwrap_or_default(),
        output: publication.output,
        certificate: publication.certificate,
        takeovers: step.stages().map(|(_, stage)| stage.losses).sum(),
        output_rows: publication.rows,
        output_files: publication.files,
        records: publication.records,
        source_rows: publication.source_rows,
        warnings: step
            .facts
            .as_ref()
            .map(|facts| facts.warnings.clone())
            .unwrap_or_default(),
        waits_for: waits_for(state, run, number),
        rejects: rejects_folder(run, number, step),
    }
}

/// Where the rejected records of a step lie. What is published has them beside its certificate.
fn rejects_folder(run: &Run, number: StepNo, step: &Step) -> String {
    match (&step.row.publication, step.row.phase) {
        (Some(publication), _) if !publication.certificate.is_empty() => {
            let folder = publication
                .certificate
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            format!("{folder}/rejects")
        }
        (_, Phase::Aborted) => String::new(),
        _ => gapless_core::fail::rejects_folder(run, number).unwrap_or_default(),
    }
}

fn failure_text(task: &Task) -> String {
    let failure = task.progress.as_ref().and_then(|progress| progress.failure.as_ref());
    failure.map(|failure| failure.message.clone()).unwrap_or_default()
}

/// What a worker needs to know of a step; JSON parts are the workers' and the core's own shapes.
pub fn step_for_workers(
    state: &State,
    id: RunId,
    number: StepNo,
    scratch: &str,
    job_known: bool,
) -> Option<v1::GetStepResponse> {
    let run = state.run(id)?;
    let (job_text, redrive, parameters) = if job_known {
        Default::default()
    } else {
        let parameters = run.job.parameters.clone().into_iter().collect();
        (run.job.text.clone(), run.job.redrive.clone(), parameters)
    };
    let step = run.step(number)?;
    let frame = match (&step.facts, &step.row.plan) {
        (Some(facts), Some(plan)) => {
            let frame = StepFrame {
                facts: (**facts).clone(),
                method: plan.method,
                exchange: plan.exchange.clone(),
                merge: plan.merge,
            };
            serde_json::to_vec(&frame).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    Some(v1::GetStepResponse {
        job_text,
        redrive,
        parameters,
        base_dir: run.job.base_dir.clone(),
        started_micros: run.row.submitted.0,
        scratch: scratch.to_string(),
        frame: frame.into(),
        preparation: step.row.preparation.clone().unwrap_or_default().into_bytes().into(),
        seal: step.row.seal.unwrap_or_default(),
        edition: step.row.edition,
    })
}

/// One page of what is committed of a stage.
pub fn committed(
    state: &State,
    id: RunId,
    number: StepNo,
    stage: Stage,
    from: u32,
    page: usize,
) -> Option<v1::ListCommittedResponse> {
    let tasks = &state
        .run(id)?
        .step(number)?
        .stage(stage)
        .map_or(&[][..], |stage| stage.tasks.as_slice());
    let rows = tasks.iter().enumerate().skip(from as usize).take(page);
    let partitions: Vec<v1::CommittedPartition> = rows
        .map(|(partition, task)| {
            let progress = task.progress.as_deref().cloned().unwrap_or_default();
            v1::CommittedPartition {
                partition: partition as u32,
                low: task.units.low,
                high: task.units.high,
                position: task.position(),
                counters: Some(wire::counters_out(progress.counters)),
                records: progress.records.0.to_be_bytes().to_vec().into(),
                segments: progress
                    .segments
                    .iter()
                    .map(|segment| v1::Segment {
                        term: segment.attempt.term.0,
                        serial: segment.attempt.serial,
                        first_seq: segment.first_seq,
                        next_seq: segment.next_seq,
                    })
                    .collect(),
                done: progress.done,
            }
        })
        .collect();
    let next = from as usize + partitions.len();
    Some(v1::ListCommittedResponse {
        partitions,
        next: (next < tasks.len()).then_some(next as u32),
    })
}

/// The partition table of a step's stage with the state of each partition.
pub fn partitions(
    state: &State,
    id: RunId,
    number: StepNo,
    stage: Stage,
    from: u32,
    limit: usize,
) -> Option<v1::ListPartitionsResponse> {
    let run = state.run(id)?;
    let step = run.step(number)?;
    let tasks = step.stage(stage).map_or(&[][..], |stage| stage.tasks.as_slice());
    let key_type = match step
        .row
        .plan
        .as_ref()
        .and_then(|plan| plan.exchange.as_ref())
        .map(|it| &it.function)
    {
        Some(BucketFn::KeyRange { key_type, .. }) => *key_type,
        _ => KeyType::Int,
    };
    let name = &run.definition(number).name;
    let rows = tasks.iter().enumerate().skip(from as usize).take(limit);
    let partitions: Vec<v1::PartitionStatus> = rows
        .map(|(partition, task)| {
            let progress = task.progress.as_deref().cloned().unwrap_or_default();
            let lease = task.lease;
            let worker = lease.and_then(|lease| state.sessions.get(&lease.row.session));
            let status = match (task.is_done(), lease.is_some(), task.has_failed(run.row.restarts)) {
                (true, _, _) => "done",
                (_, true, _) => "running",
                (_, _, true) => "failed",
                _ => "waiting",
            };
            v1::PartitionStatus {
                step: name.clone(),
                stage: stage.name().to_string(),
                number: partition as u32,
                low: task.units.low,
                high: task.units.high,
                keys: task
                    .keys
                    .as_ref()
                    .map(|keys| keys.display(key_type))
                    .unwrap_or_default(),
                state: status.to_string(),
                attempt: lease.map_or(progress.attempt, |lease| lease.row.fence.number),
                worker: worker.map(|session| session.row.name.clone()).unwrap_or_default(),
                position: lease.map_or(task.position(), |lease| lease.position.max(task.position())),
                counters: Some(wire::counters_out(progress.counters)),
                error: failure_text(task),
            }
        })
        .collect();
    let next = from as usize + partitions.len();
    Some(v1::ListPartitionsResponse {
        partitions,
        next: (next < tasks.len()).then_some(next as u32),
    })
}

fn labels_out(labels: &Labels) -> HashMap<String, String> {
    let pair = |(name, value): (&str, &str)| (name.to_string(), value.to_string());
    labels.iter().map(pair).collect()
}

pub fn workers(state: &State, now_micros: i64) -> Vec<v1::WorkerInfo> {
    let live = state.sessions.iter().filter(|(_, session)| !session.row.void);
    live.map(|(id, session)| v1::WorkerInfo {
        session: id.to_string(),
        name: session.row.name.clone(),
        slots: session.row.slots,
        busy: session.leases.len() as u32,
        version: session.row.version.clone(),
        state: if session.row.draining { "draining" } else { "live" }.to_string(),
        silent_ms: now_micros.saturating_sub(session.heard.0).max(0) as u64 / 1000,
        resident_bytes: session.resident_bytes,
        tasks: session.leases.iter().map(ToString::to_string).collect(),
        labels: labels_out(&session.row.labels),
    })
    .collect()
}
