//! History: what happened to a run, in words, for those who ask. Volatile and bounded.
//!
//! Most of it follows from rows as they change; decisions add notes of what no row shows (a lost worker,
//! a take-over, a retry). After a recovery the rows still tell the outline.

use std::{cmp::Ordering, collections::VecDeque};

use gapless_common::{
    attempt::Fence,
    ids::{RunId, SessionId, Stage, StepNo, TaskKey},
    plural::counted,
};

use crate::{
    decide::Draft,
    event::Refusal,
    limits::EVENTS_PER_RUN,
    row::{Change, Phase, Publication, Row, RunRow, RunState, StepRow},
    state::{Run, State, Step},
    time::Timestamp,
};

/// What an entry is about; the name is the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Submitted,
    /// A stopped or failed run was taken up again.
    Resumed,
    /// A stage of a step begins.
    Stage,
    Planned,
    /// The step takes no more commits; it is being published.
    Sealed,
    Published,
    /// Of a step whose run is cancelled.
    Aborted,
    WorkerLost,
    TakeOver,
    /// An attempt failed and its task is tried again.
    Retry,
    /// A task or a step has failed for good.
    Failure,
    Stopping,
    Stopped,
    Failing,
    Failed,
    Cancelling,
    Cancelled,
    Completed,
    /// A program of the job, on its standard error.
    Said,
    /// Something that no other kind says.
    Note,
    /// Earlier entries are not kept.
    Gap,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Submitted => "submitted",
            Kind::Resumed => "resumed",
            Kind::Stage => "stage",
            Kind::Planned => "planned",
            Kind::Sealed => "sealed",
            Kind::Published => "published",
            Kind::Aborted => "aborted",
            Kind::WorkerLost => "worker-lost",
            Kind::TakeOver => "take-over",
            Kind::Retry => "retry",
            Kind::Failure => "failure",
            Kind::Stopping => "stopping",
            Kind::Stopped => "stopped",
            Kind::Failing => "failing",
            Kind::Failed => "failed",
            Kind::Cancelling => "cancelling",
            Kind::Cancelled => "cancelled",
            Kind::Completed => "completed",
            Kind::Said => "said",
            Kind::Note => "note",
            Kind::Gap => "gap",
        }
    }

    /// Whether it is out of the ordinary: worth a word to whoever watches the run's progress.
    pub fn is_notable(self) -> bool {
        match self {
            Kind::Resumed
            | Kind::WorkerLost
            | Kind::TakeOver
            | Kind::Retry
            | Kind::Failure
            | Kind::Said
            | Kind::Note => true,
            Kind::Submitted
            | Kind::Stage
            | Kind::Planned
            | Kind::Sealed
            | Kind::Published
            | Kind::Aborted
            | Kind::Stopping
            | Kind::Stopped
            | Kind::Failing
            | Kind::Failed
            | Kind::Cancelling
            | Kind::Cancelled
            | Kind::Completed
            | Kind::Gap => false,
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Timestamp,
    /// `None` for the run as a whole.
    pub step: Option<StepNo>,
    pub kind: Kind,
    pub text: String,
}

/// The latest entries of a run, oldest first, no two at the same time.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: VecDeque<Entry>,
}

impl History {
    /// Adds an entry, a microsecond after the last one if need be: the time names it. The oldest makes
    /// room.
    pub fn push(&mut self, mut entry: Entry) {
        if let Some(last) = self.entries.back() {
            entry.at = entry.at.max(next_moment(last.at));
        }
        if self.entries.len() == EVENTS_PER_RUN {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }
}

/// Words of programs that a run's history keeps: the rest is in the workers' logs.
const SAID_PER_RUN: usize = 50;
/// And bytes of each.
const SAID_BYTES: usize = 2000;

/// A worker tells what a program of the job said. Only whoever holds the task is listened to, and not for ever.
pub(crate) fn said(
    draft: &mut Draft,
    session: SessionId,
    key: TaskKey,
    fence: Fence,
    text: &str,
) -> Result<(), Refusal> {
    let holding = draft.holding(session, key, fence)?;
    let kept = holding
        .run
        .history
        .iter()
        .filter(|entry| entry.kind == Kind::Said)
        .count();
    let text = &text[..text.floor_char_boundary(SAID_BYTES)];
    match kept.cmp(&SAID_PER_RUN) {
        Ordering::Less => {
            let text = format!("partition {}: {text}", key.partition);
            draft.note(key.run, key.step, Kind::Said, text);
        }
        Ordering::Equal => {
            let text = "more that programs say stands in the logs of the workers alone".to_string();
            draft.note(key.run, key.step, Kind::Said, text);
        }
        Ordering::Greater => {}
    }
    Ok(())
}

/// What a change of a row means to the run it belongs to, by the state before the change.
pub fn told_by(state: &State, change: &Change, now: Timestamp) -> Option<(RunId, Entry)> {
    let (Change::Put(row) | Change::Create(row)) = change else {
        return None;
    };
    let (run, step, (kind, text)) = match row {
        Row::Run(id, row) => (*id, None, run_told(&state.run(*id)?.row, row)?),
        Row::Step(id, number, row) => {
            let step = state.run(*id)?.step(*number)?;
            (*id, Some(*number), step_told(step, row)?)
        }
        Row::Cluster(_)
        | Row::Session(..)
        | Row::Job(..)
        | Row::Identity(..)
        | Row::Facts(..)
        | Row::Plan(..)
        | Row::Lease(..)
        | Row::Progress(..)
        | Row::Speed(..) => return None,
    };
    let entry = Entry {
        at: now,
        step,
        kind,
        text,
    };
    Some((run, entry))
}

fn run_told(before: &RunRow, after: &RunRow) -> Option<(Kind, String)> {
    if before.submitted == Timestamp(0) {
        return Some((Kind::Submitted, "submitted".to_string()));
    }
    if before.state == after.state {
        return None;
    }
    run_state_told(after)
}

/// The words for a state that a run has come to.
fn run_state_told(row: &RunRow) -> Option<(Kind, String)> {
    let error = row.error.as_deref().unwrap_or_default();
    Some(match row.state {
        // Said by the decision that took it up again.
        RunState::Running => return None,
        RunState::Stopping => (Kind::Stopping, "stopping at the next checkpoints".to_string()),
        RunState::Stopped => (Kind::Stopped, "stopped".to_string()),
        RunState::Failing => (Kind::Failing, format!("failing: {error}")),
        RunState::Failed => (Kind::Failed, format!("failed: {error}")),
        RunState::Cancelling => (Kind::Cancelling, "cancelling: no commit counts any more".to_string()),
        RunState::Cancelled => (Kind::Cancelled, "cancelled".to_string()),
        RunState::Completed => (Kind::Completed, "completed".to_string()),
    })
}

fn step_told(step: &Step, after: &StepRow) -> Option<(Kind, String)> {
    // A plan that is refused is no new survey: that comes when the run is taken up again.
    if step.row.phase == after.phase || (step.row.phase, after.phase) == (Phase::Splitting, Phase::Survey) {
        return None;
    }
    let tasks = |stage| step.stage(stage).map_or(0, |stage| stage.total());
    Some(match after.phase {
        Phase::Waiting | Phase::Splitting => return None,
        Phase::Survey => (Kind::Stage, "survey".to_string()),
        Phase::Prepare => (Kind::Planned, planned(after)),
        Phase::Scatter => (Kind::Stage, format!("scatter of {}", partitions(tasks(Stage::Scatter)))),
        Phase::Execute => (Kind::Stage, format!("execute of {}", partitions(tasks(Stage::Execute)))),
        Phase::Merge => (
            Kind::Stage,
            format!("merge into {}", files(u64::from(tasks(Stage::Merge)))),
        ),
        Phase::Publish => (
            Kind::Sealed,
            format!("sealed as {:016x}", after.seal.unwrap_or_default()),
        ),
        Phase::Published => (Kind::Published, published(after.publication.as_ref())),
        Phase::Abort => (Kind::Stage, "abort: removing what was staged".to_string()),
        Phase::Aborted => (Kind::Aborted, "aborted".to_string()),
    })
}

fn planned(row: &StepRow) -> String {
    let Some(plan) = &row.plan else {
        return "planned".to_string();
    };
    let mut text = format!("planned: {}", partitions(plan.execute));
    if plan.scatter > 0 {
        text += &format!(", fed by a scatter of {}", plan.scatter);
    }
    if let Some(merged) = plan.merge {
        text += &format!(", merged into {}", files(u64::from(merged)));
    }
    if !plan.reason.is_empty() {
        text += &format!(" ({})", plan.reason);
    }
    text
}

fn published(publication: Option<&Publication>) -> String {
    match publication {
        Some(it) => {
            let files = files(it.files);
            format!("published {} in {files} at {}", counted(it.rows, "row"), it.output)
        }
        None => "published".to_string(),
    }
}

fn partitions(count: u32) -> String {
    counted(count.into(), "partition")
}

fn files(count: u64) -> String {
    counted(count, "file")
}

/// A run's history after `after`. Where its beginning is not kept (a coordinator that was started anew,
/// more entries than the bound), the outline that the rows tell stands in for it.
pub fn of_run(run: &Run, after: Timestamp) -> Vec<Entry> {
    let kept = || run.history.iter().cloned();
    let mut entries: Vec<Entry> = match run.history.iter().next() {
        Some(first) if first.kind == Kind::Submitted => kept().collect(),
        first => {
            let mut outline = outline(run);
            outline.retain(|entry| first.is_none_or(|first| entry.at < first.at));
            let last = outline.last().map_or(Timestamp(0), |entry| entry.at);
            let gap = Entry {
                at: next_moment(last),
                step: None,
                kind: Kind::Gap,
                text: "events up to here are not kept, but for this outline".to_string(),
            };
            outline.into_iter().chain([gap]).chain(kept()).collect()
        }
    };
    entries.retain(|entry| entry.at > after);
    entries
}

/// What rows alone tell, in order.
fn outline(run: &Run) -> Vec<Entry> {
    let entry = |at: Timestamp, step, (kind, text): (Kind, String)| Entry { at, step, kind, text };
    let mut entries = vec![entry(
        run.row.submitted,
        None,
        (Kind::Submitted, "submitted".to_string()),
    )];
    for (number, step) in (0..).zip(&run.steps) {
        if let Some(at) = step.row.started {
            entries.push(entry(at, Some(number), (Kind::Stage, "begun".to_string())));
        }
        entries.extend(begun_anew(number, step));
        let ended = match step.row.phase {
            Phase::Published => Some((Kind::Published, published(step.row.publication.as_ref()))),
            Phase::Aborted => Some((Kind::Aborted, "aborted".to_string())),
            _ => None,
        };
        if let Some((at, told)) = step.row.finished.zip(ended) {
            entries.push(entry(at, Some(number), told));
        }
    }
    if let Some((at, told)) = run.row.finished.zip(run_state_told(&run.row)) {
        entries.push(entry(at, None, told));
    }
    // Stable: what happened at one moment stays in the order of a run's life.
    entries.sort_by_key(|entry| entry.at);
    let mut last = None;
    for entry in &mut entries {
        entry.at = last.map_or(entry.at, |last| entry.at.max(next_moment(last)));
        last = Some(entry.at);
    }
    entries
}

fn begun_anew(number: StepNo, step: &Step) -> Option<Entry> {
    let anew = step.row.anew.as_deref()?;
    Some(Entry {
        at: anew.at,
        step: Some(number),
        kind: Kind::Note,
        text: anew.told.clone(),
    })
}

/// The last `count` notable entries, oldest first; what rows tell of those that are not kept too.
pub fn notable(run: &Run, count: usize) -> Vec<Entry> {
    let first = run.history.iter().next().map(|entry| entry.at);
    let kept = run.history.iter().filter(|entry| entry.kind.is_notable());
    let mut entries: Vec<Entry> = kept.rev().take(count).cloned().collect();
    entries.reverse();
    let of_rows = (0..)
        .zip(&run.steps)
        .filter_map(|(number, step)| begun_anew(number, step));
    let mut earlier: Vec<Entry> = of_rows
        .filter(|entry| first.is_none_or(|first| entry.at < first))
        .collect();
    earlier.sort_by_key(|entry| entry.at);
    earlier.truncate(count - entries.len());
    earlier.extend(entries);
    earlier
}

/// The next moment: no two entries have the same.
fn next_moment(at: Timestamp) -> Timestamp {
    Timestamp(at.0.saturating_add(1))
}
