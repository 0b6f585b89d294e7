//! Re-cut: what is left of a step is cut finer when there are many more slots than it was cut for, and
//! whenever its run is taken up again.
//!
//! A partition that nobody holds keeps its number and what it has committed, and gives the end of its
//! range away to new partitions. Nothing that is done or leased is touched, so every moment before and
//! after has a table that tiles the same universe; it is proved again before it is written.

use gapless_common::{
    ids::{RunId, Stage, StepNo},
    plan::{Partition, StepPlan},
};

use crate::{
    decide::Draft,
    history::Kind,
    limits::{MAX_RECUT, PARTITIONS_PER_ROW, SLOTS_GROWN},
    row::{Phase, Row, RunState},
    split::{Capacity, Left, recut},
    state::{Run, StageState, State, Step},
    validate::validate,
};

/// Whether a step that could be granted should be cut anew first.
pub(crate) fn is_due(state: &State, run: &Run, step: &Step) -> bool {
    let open = matches!(step.row.phase, Phase::Scatter | Phase::Execute);
    let grown = state.slots() >= step.row.slots.saturating_mul(SLOTS_GROWN);
    open && run.row.state == RunState::Running && (grown || step.row.restart < run.row.restarts)
}

/// Cuts what is left of a step for the slots there are now.
pub(crate) fn recut_step(draft: &mut Draft, id: RunId, number: StepNo) {
    let state = draft.state;
    let Some(run) = state.run(id) else { return };
    let Some(step) = run.step(number) else { return };
    let (Some(facts), Some(header)) = (step.facts.as_deref(), step.row.plan.as_deref()) else {
        return;
    };
    if !is_due(state, run, step) {
        return;
    }
    let definition = run.definition(number);
    let slots = state.slots().max(1);
    let capacity = Capacity {
        slots,
        bytes_per_second: None,
    };
    let mut plan = StepPlan {
        method: header.method,
        reason: header.reason.clone(),
        exchange: header.exchange.clone(),
        scatter: table(step, Stage::Scatter),
        execute: table(step, Stage::Execute),
        merge: header.merge,
    };
    let (mut rows, mut added, mut is_enough) = (Vec::new(), 0, true);
    for stage in [Stage::Scatter, Stage::Execute] {
        let Some(tasks) = step.stage(stage) else { continue };
        let finer = recut(definition, facts, &plan, stage, &left(tasks), capacity);
        let table = match stage {
            Stage::Scatter => &mut plan.scatter,
            _ => &mut plan.execute,
        };
        let before = table.len();
        for partition in &finer {
            match table.get_mut(partition.number as usize) {
                Some(narrowed) => *narrowed = partition.clone(),
                None => table.push(partition.clone()),
            }
        }
        let more = table.len() - before;
        added += more;
        is_enough &= more < MAX_RECUT;
        let slices = (tasks.slices..).zip(finer.chunks(PARTITIONS_PER_ROW));
        rows.extend(slices.map(|(slice, partitions)| Row::Plan(id, number, stage, slice, partitions.to_vec())));
    }
    let is_covered = validate(definition, facts, &plan).is_ok();
    debug_assert!(is_covered, "a table that is cut anew covers what it covered");
    let (scatter, execute) = (plan.scatter.len() as u32, plan.execute.len() as u32);
    let finer = is_covered && added > 0;
    if finer {
        rows.into_iter().for_each(|row| draft.put(row));
        let text = format!("cut anew for the slots there are now, {slots}: {added} more partitions, {execute} in all");
        draft.note(id, number, Kind::Planned, text);
    }
    let restart = run.row.restarts;
    draft.change_step(id, number, step, |row| {
        // Else it is still due.
        if is_enough || !finer {
            (row.slots, row.restart) = (slots, restart);
        }
        if let Some(header) = row.plan.as_mut().filter(|_| finer) {
            (header.scatter, header.execute) = (scatter, execute);
        }
    });
}

/// The partition table of a stage as it stands.
fn table(step: &Step, stage: Stage) -> Vec<Partition> {
    let tasks = step.stage(stage).map_or(&[][..], |stage| &stage.tasks);
    let row = |(number, task): (u32, &crate::state::Task)| Partition {
        number,
        units: task.units,
        keys: task.keys.as_deref().cloned(),
        estimate: Default::default(),
    };
    (0..).zip(tasks).map(row).collect()
}

fn left(tasks: &StageState) -> Vec<Left> {
    let open = (0..).zip(&tasks.tasks).filter(|(_, task)| !task.is_done());
    open.map(|(number, task)| Left {
        number,
        units: task.units.after(task.position()),
        is_held: task.lease.is_some(),
    })
    .collect()
}
