//! Load: how much there is to do and who is there to do it, for metrics and for whoever decides how many
//! workers there should be.

use std::collections::{BTreeMap, BTreeSet};

use gapless_common::{
    ids::{Stage, StepNo},
    labels::Labels,
};

use crate::{
    lease,
    row::RunState,
    state::{Run, State},
};

/// A cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub runs: BTreeMap<RunState, u64>,
    /// Only stages that have tasks open.
    pub stages: BTreeMap<Stage, StageLoad>,
    /// Workers that take work, and those that leave.
    pub workers: u64,
    pub draining: u64,
    /// Slots of workers that take work, and how many of them have a task.
    pub slots: u64,
    pub busy: u64,
}

/// The open tasks of one stage, over all live runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageLoad {
    /// Could be worked on now if there were a free slot.
    pub waiting: u64,
    /// Failed in a way that may pass; not tried again yet.
    pub delayed: u64,
    /// In the hands of a worker.
    pub leased: u64,
    /// Of those that wait, tasks whose step asks for labels that no worker here has.
    pub unplaceable: u64,
}

/// Measures the load. Ended runs cost one look each.
pub fn load(state: &State) -> Load {
    let mut load = Load::default();
    let present = present_labels(state);
    for run in state.runs.values() {
        *load.runs.entry(run.row.state).or_default() += 1;
        if run.row.state.is_live() {
            add_tasks(&mut load.stages, run, &present);
        }
    }
    for session in state.sessions.values().filter(|session| !session.row.void) {
        if session.row.draining {
            load.draining += 1;
            continue;
        }
        let slots = u64::from(session.row.slots);
        load.workers += 1;
        load.slots += slots;
        // Short tasks are granted ahead: a worker may hold more of them than it has slots.
        load.busy += slots.min(session.leases.len() as u64);
    }
    load
}

/// The sets of labels that workers here have which take work.
fn present_labels(state: &State) -> BTreeSet<&Labels> {
    let takes = state.sessions.values().filter(|session| session.takes_work());
    takes.map(|session| &session.row.labels).collect()
}

/// What a step asks for and no worker here has, while tasks of it wait.
pub fn missing_labels<'a>(state: &State, run: &'a Run, number: StepNo) -> Option<&'a Labels> {
    let labels = &run.definition(number).placement;
    if labels.is_empty() {
        return None;
    }
    let mut open = lease::open_stages(run);
    let waits = open.any(|(step, _, tasks)| step == number && !tasks.ready.is_empty());
    let placed = || present_labels(state).iter().any(|present| labels.are_met_by(present));
    (waits && !placed()).then_some(labels)
}

fn add_tasks(stages: &mut BTreeMap<Stage, StageLoad>, run: &Run, present: &BTreeSet<&Labels>) {
    for (step, stage, tasks) in lease::open_stages(run) {
        let ready = tasks.ready.len() as u64;
        let settled = u64::from(tasks.done) + u64::from(tasks.leased) + u64::from(tasks.failed);
        let load = stages.entry(stage).or_default();
        load.waiting += ready;
        let labels = &run.definition(step).placement;
        if !labels.is_empty() && !present.iter().any(|present| labels.are_met_by(present)) {
            load.unplaceable += ready;
        }
        load.delayed += u64::from(tasks.total()).saturating_sub(settled + ready);
    }
    // Also those of runs that take no more work.
    for (stage, tasks) in run.steps.iter().flat_map(|step| step.stages()) {
        if tasks.leased > 0 {
            stages.entry(stage).or_default().leased += u64::from(tasks.leased);
        }
    }
}
