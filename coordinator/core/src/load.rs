//! Load: how much there is to do and who is there to do it, for metrics and for whoever decides how many
//! workers there should be.

use std::collections::BTreeMap;

use gapless_common::ids::Stage;

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
}

/// Measures the load. Ended runs cost one look each.
pub fn load(state: &State) -> Load {
    let mut load = Load::default();
    for run in state.runs.values() {
        *load.runs.entry(run.row.state).or_default() += 1;
        if run.row.state.is_live() {
            add_tasks(&mut load.stages, run);
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

fn add_tasks(stages: &mut BTreeMap<Stage, StageLoad>, run: &Run) {
    for (_, stage, tasks) in lease::open_stages(run) {
        let ready = tasks.ready.len() as u64;
        let settled = u64::from(tasks.done) + u64::from(tasks.leased) + u64::from(tasks.failed);
        let load = stages.entry(stage).or_default();
        load.waiting += ready;
        load.delayed += u64::from(tasks.total()).saturating_sub(settled + ready);
    }
    // Also those of runs that take no more work.
    for (stage, tasks) in run.steps.iter().flat_map(|step| step.stages()) {
        if tasks.leased > 0 {
            stages.entry(stage).or_default().leased += u64::from(tasks.leased);
        }
    }
}
