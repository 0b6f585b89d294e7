//! The invariants that can be read off the state, for tests: checked after every step of a
//! simulation, and trusted only because planted bugs make them fail.

use std::collections::BTreeSet;

use gapless_common::{coverage::unit_faults, ids::Stage, range::UnitRange};

use crate::state::{State, Step};

/// Says which invariant does not hold, if any.
pub fn check(state: &State) -> Result<(), String> {
    let mut attempts = BTreeSet::new();
    for (id, run) in &state.runs {
        let mut leases = 0;
        for (number, step) in run.steps.iter().enumerate() {
            tiles(step).map_err(|what| format!("I1: {id}/{number}: {what}"))?;
            for (stage, tasks) in step.stages() {
                let place = |partition: usize| format!("{id}/{number}/{stage}/{partition}");
                let (mut done, mut failed, mut leased) = (0, 0, 0);
                for (partition, task) in tasks.tasks.iter().enumerate() {
                    let position = task.position();
                    if position < task.units.low || position > task.units.high {
                        return Err(format!(
                            "I1: {} is at {position}, outside {}",
                            place(partition),
                            task.units
                        ));
                    }
                    done += u32::from(task.is_done());
                    failed += u32::from(task.has_failed(run.row.restarts));
                    leased += u32::from(task.lease.is_some());
                    if let Some(progress) = &task.progress {
                        check_segments(progress).map_err(|what| format!("I4: {}: {what}", place(partition)))?;
                    }
                    let Some(lease) = task.lease else { continue };
                    if task.is_done() {
                        return Err(format!("I2: {} is done and leased", place(partition)));
                    }
                    if !attempts.insert(lease.row.fence.id) {
                        return Err(format!("I2: attempt {} holds two leases", lease.row.fence.id));
                    }
                    if task
                        .progress
                        .as_ref()
                        .is_some_and(|progress| progress.attempt >= lease.row.fence.number)
                    {
                        return Err(format!("I2: the attempt number of {} did not rise", place(partition)));
                    }
                    let holder = state.sessions.get(&lease.row.session);
                    if !holder.is_some_and(|session| session.leases.contains(&crate_key(*id, number, stage, partition)))
                    {
                        return Err(format!(
                            "I2: {} is leased to a session that does not know it",
                            place(partition)
                        ));
                    }
                }
                if (done, failed, leased) != (tasks.done, tasks.failed, tasks.leased) {
                    return Err(format!("the counts of {id}/{number}/{stage} are off"));
                }
                leases += leased as usize;
            }
        }
        let active = |at: &usize| run.steps[*at].row.phase.stage().is_some();
        if !(0..run.steps.len())
            .filter(active)
            .eq(run.active().iter().map(|at| *at as usize))
        {
            return Err(format!("the active steps of run {id} are off"));
        }
        if run.row.state.is_live() != state.live().contains(id) {
            return Err(format!("whether run {id} is live is off"));
        }
        if leases != run.leases {
            return Err(format!("run {id} counts {} leases and has {leases}", run.leases));
        }
    }
    if !state.seats.fits(state) {
        return Err("what is known of free seats is off".into());
    }
    Ok(())
}

/// Whether the tables of a step whose plan is whole tile what they are of.
fn tiles(step: &Step) -> Result<(), String> {
    let (Some(plan), Some(facts)) = (&step.row.plan, &step.facts) else {
        return Ok(());
    };
    let buckets = plan
        .exchange
        .as_ref()
        .map(|it| UnitRange::new(0, u64::from(it.buckets)));
    let scatter = buckets
        .is_some()
        .then_some((Stage::Scatter, facts.domain, plan.scatter));
    let execute = (Stage::Execute, buckets.unwrap_or(facts.domain), plan.execute);
    for (stage, domain, count) in scatter.into_iter().chain([execute]) {
        let tasks = step.stage(stage).map_or(&[][..], |stage| &stage.tasks);
        if tasks.len() != count as usize {
            return Err(format!("{stage} has {} partitions, its plan {count}", tasks.len()));
        }
        let parts: Vec<_> = (0..).zip(tasks).map(|(number, task)| (number, task.units)).collect();
        if let Some(fault) = unit_faults(domain, &parts).first() {
            return Err(format!("{stage} does not tile {domain}: {fault:?}"));
        }
    }
    Ok(())
}

fn crate_key(
    run: gapless_common::ids::RunId,
    step: usize,
    stage: Stage,
    partition: usize,
) -> gapless_common::ids::TaskKey {
    gapless_common::ids::TaskKey {
        run,
        step: step as u16,
        stage,
        partition: partition as u32,
    }
}

fn check_segments(progress: &crate::row::ProgressRow) -> Result<(), String> {
    let mut next = 0;
    for segment in &progress.segments {
        if segment.first_seq != next || segment.next_seq <= segment.first_seq {
            return Err(format!(
                "commits {}..{} follow {next}",
                segment.first_seq, segment.next_seq
            ));
        }
        next = segment.next_seq;
    }
    if next != progress.seq {
        Err(format!("{next} commits in segments, {} in all", progress.seq))
    } else {
        Ok(())
    }
}
