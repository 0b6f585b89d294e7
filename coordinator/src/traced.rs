//! What a collector of traces is told of runs and steps when they end; see `gapless_platform::traces`.

use gapless_common::ids::{RunId, StepNo};
use gapless_core::{
    State, Timestamp,
    history::{Entry, Kind},
    row::Phase,
    state::Run,
};
use gapless_platform::traces::ENDED;
use tracing::debug;

/// Tells of the run or step that has ended with this entry of its history; of nothing where none has.
pub fn told(state: &State, id: RunId, entry: &Entry) {
    let Some(run) = state.run(id) else { return };
    match (entry.kind, entry.step) {
        (Kind::Published | Kind::Aborted, Some(number)) => step_ended(id, run, number, entry.at),
        (Kind::Completed | Kind::Failed | Kind::Stopped | Kind::Cancelled, None) => {
            // Steps that were begun end with it, as far as this run came.
            for (number, step) in (0..).zip(&run.steps) {
                if step.row.started.is_some() && !matches!(step.row.phase, Phase::Published | Phase::Aborted) {
                    step_ended(id, run, number, entry.at);
                }
            }
            let (begun, ended) = (run.row.submitted.0, entry.at.0);
            let (name, outcome) = (run.job.job.name.as_str(), run.row.state.name());
            match &run.row.error {
                Some(error) => {
                    debug!(target: ENDED, run = %id, name, begun, ended, outcome, error, "the run has ended")
                }
                None => debug!(target: ENDED, run = %id, name, begun, ended, outcome, "the run has ended"),
            }
        }
        _ => {}
    }
}

fn step_ended(id: RunId, run: &Run, number: StepNo, at: Timestamp) {
    let row = &run.steps[number as usize].row;
    let (Some(begun), ended) = (row.started.map(|begun| begun.0), at.0) else {
        return;
    };
    let (name, outcome) = (run.definition(number).name.as_str(), row.phase.name());
    debug!(target: ENDED, run = %id, step = number, name, begun, ended, outcome, "the step has ended");
}
