//! Speed: how fast a step went, so that the next run of it is cut into partitions of some seconds.

use gapless_common::ids::{Stage, StepNo};

use crate::{
    decide::Draft,
    limits::MAX_SPEEDS,
    row::{Row, RowKey, SpeedRow},
    state::{Run, State},
};

/// What an earlier run told of this step: bytes of its source that one slot works off in a second.
pub(crate) fn of(state: &State, run: &Run, number: StepNo) -> Option<u64> {
    let name = (run.job.job.name.clone(), run.definition(number).name.clone());
    state.speeds.get(&name).map(|row| row.bytes_per_second)
}

/// Keeps how fast a step went that is published now. The oldest speed makes room for a new one.
pub(crate) fn keep(draft: &mut Draft, run: &Run, number: StepNo) {
    let Some(bytes_per_second) = measured(run, number) else {
        return;
    };
    let name = (run.job.job.name.clone(), run.definition(number).name.clone());
    let speeds = &draft.state.speeds;
    if speeds.len() >= MAX_SPEEDS
        && !speeds.contains_key(&name)
        && let Some(((job, step), _)) = speeds.iter().min_by_key(|(_, row)| row.at)
    {
        draft.delete(RowKey::Speed(job.clone(), step.clone()));
    }
    let row = SpeedRow {
        bytes_per_second,
        at: draft.now,
    };
    draft.put(Row::Speed(name.0, name.1, row));
}

/// From the partitions whose whole life this leader has seen, if they are most of them.
fn measured(run: &Run, number: StepNo) -> Option<u64> {
    let step = run.step(number)?;
    let stage = step.stage(Stage::Execute)?;
    let total: u128 = stage.tasks.iter().map(|task| u128::from(task.units.len())).sum();
    let timed = u128::from(stage.timed_units);
    if 2 * timed < total || stage.timed_micros == 0 {
        return None;
    }
    let bytes = u128::from(step.facts.as_ref()?.bytes) * timed / total.max(1);
    let speed = bytes * 1_000_000 / u128::from(stage.timed_micros);
    u64::try_from(speed).ok().filter(|speed| *speed > 0)
}
