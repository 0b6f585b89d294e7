//! Runs, workers and partitions as programs read them: the shapes behind `-o json` and `-o yaml`.
//! Fields are only ever added.

use std::collections::BTreeMap;

use gapless_proto::v1::{
    ClusterInfo, Counters, PartitionCounts, PartitionStatus, Run, RunEvent, RunState, StepStatus, WorkerInfo,
};
use serde::Serialize;

use crate::wording;

#[derive(Debug, Serialize)]
pub struct RunView {
    pub run: String,
    pub job: String,
    pub parameters: BTreeMap<String, String>,
    pub state: &'static str,
    pub priority: u32,
    /// RFC 3339, UTC.
    pub submitted: Option<String>,
    pub finished: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub steps: Vec<StepView>,
    pub events: Vec<EventView>,
}

#[derive(Debug, Serialize)]
pub struct StepView {
    pub step: String,
    pub state: String,
    /// How much of the current stage has been read, 0 to 100.
    pub percent: u8,
    pub partitions: PartitionsView,
    pub counters: CountersView,
    pub rows_read: u64,
    pub units_read: u64,
    pub units_total: u64,
    pub takeovers: u32,
    pub started: Option<String>,
    pub finished: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why tasks of it wait although slots may be free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// A published output and what proves it.
#[derive(Debug, Serialize)]
pub struct OutputView {
    pub path: String,
    pub rows: u64,
    pub files: u64,
    pub source_rows: u64,
    pub fingerprint: String,
    pub certificate: String,
}

#[derive(Debug, Serialize)]
pub struct PartitionsView {
    pub total: u32,
    pub done: u32,
    pub running: u32,
    pub waiting: u32,
    pub failed: u32,
}

#[derive(Debug, Serialize)]
pub struct CountersView {
    pub read: u64,
    pub written: u64,
    pub filtered: u64,
    pub rejected: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

#[derive(Debug, Serialize)]
pub struct EventView {
    pub at: Option<String>,
    pub at_micros: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    pub text: String,
}

#[derive(Debug, Serialize)]
pub struct PartitionView {
    pub step: String,
    pub stage: String,
    pub partition: u32,
    pub low: u64,
    pub high: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub keys: String,
    pub state: String,
    pub attempt: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub worker: String,
    pub position: u64,
    pub counters: CountersView,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

#[derive(Debug, Serialize)]
pub struct WorkerView {
    pub name: String,
    pub session: String,
    pub state: String,
    pub slots: u32,
    pub busy: u32,
    pub silent_ms: u64,
    pub resident_bytes: u64,
    pub version: String,
    pub tasks: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub struct ClusterView {
    pub id: String,
    pub epoch: u32,
    pub term: u64,
    pub leader: String,
    pub version: String,
    /// leading, held
    pub state: &'static str,
    /// Why it is held; empty otherwise.
    pub held: String,
    pub workers: u32,
    pub slots: u32,
    pub live_runs: u32,
}

impl From<&ClusterInfo> for ClusterView {
    fn from(cluster: &ClusterInfo) -> ClusterView {
        ClusterView {
            id: cluster.id.clone(),
            epoch: cluster.epoch,
            term: cluster.term,
            leader: cluster.leader.clone(),
            version: cluster.version.clone(),
            state: match cluster.held.is_empty() {
                true => "leading",
                false => "held",
            },
            held: cluster.held.clone(),
            workers: cluster.live_workers,
            slots: cluster.slots,
            live_runs: cluster.live_runs,
        }
    }
}

/// The word for a run's state.
pub fn state_name(run: &Run) -> &'static str {
    match run.state() {
        RunState::Unspecified => "unknown",
        RunState::Running => "running",
        RunState::Stopping => "stopping",
        RunState::Stopped => "stopped",
        RunState::Cancelling => "cancelling",
        RunState::Cancelled => "cancelled",
        RunState::Completed => "completed",
        RunState::Failed => "failed",
        RunState::Interrupted => "interrupted",
    }
}

/// Whether nothing more happens in a run by itself.
pub fn has_ended(run: &Run) -> bool {
    matches!(
        run.state(),
        RunState::Stopped | RunState::Cancelled | RunState::Completed | RunState::Failed
    )
}

/// How much of its current stage a step has read, 0 to 100.
pub fn percent(step: &StepStatus) -> u8 {
    if step.state == "published" {
        return 100;
    }
    let share = u128::from(step.units_read) * 100 / u128::from(step.units_total.max(1));
    u8::try_from(share).unwrap_or(u8::MAX).min(100)
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        Self {
            run: run.id.clone(),
            job: run.job.clone(),
            parameters: run.parameters.clone().into_iter().collect(),
            state: state_name(run),
            priority: run.priority,
            submitted: wording::time(run.submitted_micros),
            finished: wording::time(run.finished_micros),
            error: given(&run.error),
            steps: run.steps.iter().map(StepView::from).collect(),
            events: run.events.iter().map(EventView::from).collect(),
        }
    }
}

impl From<&StepStatus> for StepView {
    fn from(step: &StepStatus) -> Self {
        Self {
            step: step.name.clone(),
            state: step.state.clone(),
            percent: percent(step),
            partitions: PartitionsView::from(&step.partitions.unwrap_or_default()),
            counters: CountersView::from(&step.counters.unwrap_or_default()),
            rows_read: step.rows_read,
            units_read: step.units_read,
            units_total: step.units_total,
            takeovers: step.takeovers,
            started: wording::time(step.started_micros),
            finished: wording::time(step.finished_micros),
            error: given(&step.error),
            output: (step.state == "published").then(|| OutputView {
                path: step.output.clone(),
                rows: step.output_rows,
                files: step.output_files,
                source_rows: step.source_rows,
                fingerprint: step.records.clone(),
                certificate: step.certificate.clone(),
            }),
            warnings: step.warnings.clone(),
            waits_for: given(&step.waits_for),
        }
    }
}

impl From<&PartitionCounts> for PartitionsView {
    fn from(counts: &PartitionCounts) -> Self {
        Self {
            total: counts.total,
            done: counts.done,
            running: counts.running,
            waiting: counts.waiting,
            failed: counts.failed,
        }
    }
}

impl From<&Counters> for CountersView {
    fn from(counters: &Counters) -> Self {
        Self {
            read: counters.read,
            written: counters.written,
            filtered: counters.filtered,
            rejected: counters.rejected,
            bytes_read: counters.bytes_read,
            bytes_written: counters.bytes_written,
        }
    }
}

impl From<&RunEvent> for EventView {
    fn from(event: &RunEvent) -> Self {
        Self {
            at: wording::time(event.at_micros),
            at_micros: event.at_micros,
            step: event.step.clone(),
            kind: event.kind.clone(),
            text: event.text.clone(),
        }
    }
}

impl From<&PartitionStatus> for PartitionView {
    fn from(partition: &PartitionStatus) -> Self {
        Self {
            step: partition.step.clone(),
            stage: partition.stage.clone(),
            partition: partition.number,
            low: partition.low,
            high: partition.high,
            keys: partition.keys.clone(),
            state: partition.state.clone(),
            attempt: partition.attempt,
            worker: partition.worker.clone(),
            position: partition.position,
            counters: CountersView::from(&partition.counters.unwrap_or_default()),
            error: partition.error.clone(),
        }
    }
}

impl From<&WorkerInfo> for WorkerView {
    fn from(worker: &WorkerInfo) -> Self {
        Self {
            name: worker.name.clone(),
            session: worker.session.clone(),
            state: worker.state.clone(),
            slots: worker.slots,
            busy: worker.busy,
            silent_ms: worker.silent_ms,
            resident_bytes: worker.resident_bytes,
            version: worker.version.clone(),
            tasks: worker.tasks.clone(),
            labels: worker.labels.clone().into_iter().collect(),
        }
    }
}
