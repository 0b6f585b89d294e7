//! The watcher: says which promise was broken, from what was decided, stored and published. It
//! shares no code with the decisions it judges.

use std::collections::{BTreeMap, BTreeSet};

use gapless_common::{
    attempt::Commit,
    ids::{AttemptId, RunId, SessionId, StepNo, TaskKey},
};
use gapless_core::{
    Change, Decision, Effect, Event, Refusal, Row, RowKey, State,
    row::{ProgressRow, RunState},
    state::{Run, StageState, Step, Task},
};

#[derive(Default)]
pub struct Watch {
    attempts: BTreeSet<AttemptId>,
    numbers: BTreeMap<TaskKey, u32>,
    editions: BTreeMap<(RunId, StepNo), u32>,
    progress: BTreeMap<TaskKey, ProgressRow>,
    pub cancelled: BTreeSet<RunId>,
    /// What each accepted commit said, by task and number.
    commits: BTreeMap<(TaskKey, AttemptId, u32), Commit>,
}

impl Watch {
    /// Judges a decision before it is applied: to whom tasks go, and what becomes of a commit.
    pub fn decided(&self, state: &State, event: &Event, decision: &Result<Decision, Refusal>) -> Result<(), String> {
        placed(state, decision)?;
        let Event::Commit {
            session,
            task,
            fence,
            commit,
        } = event
        else {
            return Ok(());
        };
        let recorded = |key: &TaskKey, row: &ProgressRow| key == task && row.seq > seq_of(state, key);
        let rows = decision.iter().flat_map(|decision| &decision.rows);
        let records = rows
            .filter(|change| matches!(change, Change::Put(Row::Progress(key, row)) if recorded(key, row)))
            .count();
        if records == 0 {
            return self.again(state, task, fence.id, commit, decision);
        }
        let lease = state.task(task).and_then(|task| task.lease);
        if !lease.is_some_and(|lease| lease.row.fence == *fence && lease.row.session == *session) {
            return Err(format!(
                "I3: {task}: a commit of {fence} is accepted that holds no lease"
            ));
        }
        let position = state.task(task).map_or(0, Task::position);
        if commit.seq != seq_of(state, task) || commit.previous != position {
            return Err(format!("I4: {task}: commit {} does not follow {position}", commit.seq));
        }
        Ok(())
    }

    /// The last commit of a task, sent again, is answered as before.
    fn again(
        &self,
        state: &State,
        task: &TaskKey,
        attempt: AttemptId,
        commit: &Commit,
        decision: &Result<Decision, Refusal>,
    ) -> Result<(), String> {
        let is_last = self.commits.get(&(*task, attempt, commit.seq)) == Some(commit)
            && seq_of(state, task) == commit.seq + 1
            && state
                .task(task)
                .and_then(|task| task.progress.as_ref())
                .map(|it| it.digest)
                == Some(commit.digest);
        let accepts = decision.as_ref().is_ok_and(|decision| {
            decision
                .effects
                .iter()
                .any(|effect| matches!(effect, Effect::Committed { seq, .. } if *seq == commit.seq))
        });
        if is_last && !accepts {
            return Err(format!(
                "I4: {task}: commit {} is recorded, and refused when it is repeated",
                commit.seq
            ));
        }
        if accepts && !is_last && !self.pending(state, task, attempt, commit) {
            return Err(format!(
                "I4: {task}: commit {} is confirmed and not recorded",
                commit.seq
            ));
        }
        Ok(())
    }

    /// Recorded in memory, on its way to the store.
    fn pending(&self, state: &State, task: &TaskKey, attempt: AttemptId, commit: &Commit) -> bool {
        let Some(progress) = state.task(task).and_then(|task| task.progress.as_ref()) else {
            return false;
        };
        progress.seq == commit.seq + 1
            && progress.digest == commit.digest
            && progress.segments.last().map(|segment| segment.attempt) == Some(attempt)
    }

    /// Keeps what a commit said, once it is durable.
    pub fn recorded(&mut self, task: TaskKey, attempt: AttemptId, commit: Commit) {
        self.commits.insert((task, attempt, commit.seq), commit);
    }

    /// Judges what has become durable.
    pub fn stored(&mut self, changes: &[Change]) -> Result<(), String> {
        for change in changes {
            match change {
                Change::Create(Row::Lease(key, lease)) => {
                    if !self.attempts.insert(lease.fence.id) {
                        return Err(format!("I2: the attempt id {} is used again", lease.fence.id));
                    }
                    let before = self.numbers.insert(*key, lease.fence.number);
                    if before.is_some_and(|before| before >= lease.fence.number) {
                        return Err(format!("I2: {key}: attempt {} follows {before:?}", lease.fence.number));
                    }
                }
                Change::Put(Row::Progress(key, row)) => {
                    let edition = self.editions.get(&(key.run, key.step)).copied().unwrap_or(0);
                    if row.edition != edition {
                        return Err(format!(
                            "I4: {key} makes progress in edition {}, the step is in {edition}",
                            row.edition
                        ));
                    }
                    if let Some(before) = self.progress.insert(*key, row.clone()) {
                        grows(&before, row).map_err(|what| format!("I4: {key}: {what}"))?;
                    }
                }
                Change::Put(Row::Step(run, step, row)) => {
                    let before = self.editions.insert((*run, *step), row.edition).unwrap_or(0);
                    match row.edition {
                        same if same == before => {}
                        // From here on its commits are those of the new data.
                        next if next == before + 1 => {
                            self.progress.retain(|key, _| (key.run, key.step) != (*run, *step));
                        }
                        other => return Err(format!("run {run} step {step}: edition {other} follows {before}")),
                    }
                }
                Change::Put(Row::Run(run, row)) => {
                    if row.state == RunState::Cancelled {
                        self.cancelled.insert(*run);
                    } else if self.cancelled.contains(run) {
                        return Err(format!("I11: run {run} is cancelled and then {:?}", row.state));
                    }
                }
                Change::Delete(RowKey::Progress(_) | RowKey::Run(_) | RowKey::Plan(..)) => {
                    return Err(format!("{:?} is deleted", change.key()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether each new lease goes to a worker with the labels that its step asks for.
fn placed(state: &State, decision: &Result<Decision, Refusal>) -> Result<(), String> {
    let rows = decision.iter().flat_map(|decision| &decision.rows);
    for change in rows {
        let Change::Create(Row::Lease(key, lease)) = change else {
            continue;
        };
        let asked = state.run(key.run).map(|run| &run.definition(key.step).placement);
        let session = state.sessions.get(&lease.session);
        let met = asked
            .zip(session)
            .is_some_and(|(asked, it)| asked.are_met_by(&it.row.labels));
        if !met {
            return Err(format!("{key} is granted to a worker without the labels of its step"));
        }
    }
    Ok(())
}

fn seq_of(state: &State, task: &TaskKey) -> u32 {
    let progress = state.task(task).and_then(|task| task.progress.as_ref());
    progress.map_or(0, |progress| progress.seq)
}

/// Whether a progress row keeps all that was committed.
fn grows(before: &ProgressRow, after: &ProgressRow) -> Result<(), String> {
    if after.seq < before.seq || after.attempt < before.attempt || (before.seq > 0 && after.position < before.position)
    {
        return Err("its progress goes back".into());
    }
    if after.seq > before.seq + 1 || (after.seq == before.seq && after.counters != before.counters) {
        return Err("its counters do not follow its commits".into());
    }
    let kept = before.segments.iter().enumerate().all(|(at, segment)| {
        after.segments.get(at).is_some_and(|now| {
            now.attempt == segment.attempt && now.first_seq == segment.first_seq && now.next_seq >= segment.next_seq
        })
    });
    match kept && (!before.done || after.done) {
        true => Ok(()),
        false => Err("a commit is lost".into()),
    }
}

/// I8: what the leader holds in memory is what its successor would read.
pub fn same(live: &State, recovered: &State) -> Result<(), String> {
    let differs = |what: String| Err(format!("I8: {what} differs from the rows"));
    let sessions = |state: &State| -> Vec<(SessionId, String, Vec<TaskKey>)> {
        let session = |(id, it): (&SessionId, &gapless_core::state::Session)| {
            (*id, format!("{:?}", it.row), it.leases.iter().copied().collect())
        };
        state.sessions.iter().map(session).collect()
    };
    if sessions(live) != sessions(recovered) {
        return differs("the set of sessions".into());
    }
    if live.speeds != recovered.speeds {
        return differs("a speed".into());
    }
    if live.identities != recovered.identities || live.cluster != recovered.cluster {
        return differs("an identity".into());
    }
    if live.runs.len() != recovered.runs.len() {
        return differs("the set of runs".into());
    }
    for ((id, run), (other, again)) in live.runs.iter().zip(&recovered.runs) {
        if id != other || run.row != again.row || run.leases != again.leases || run.job != again.job {
            return differs(format!("run {id}"));
        }
        for (at, (step, again)) in run.steps.iter().zip(&again.steps).enumerate() {
            same_step(run, step, again).or_else(|what| differs(format!("run {id} step {at}: {what}")))?;
        }
    }
    Ok(())
}

fn same_step(run: &Run, live: &Step, recovered: &Step) -> Result<(), String> {
    if live.row != recovered.row || live.facts != recovered.facts {
        return Err("its row".into());
    }
    if live.stages().count() != recovered.stages().count() {
        return Err("the set of stages".into());
    }
    for ((stage, live), (_, recovered)) in live.stages().zip(recovered.stages()) {
        same_stage(run.row.restarts, live, recovered).map_err(|what| format!("{stage}: {what}"))?;
    }
    Ok(())
}

fn same_stage(restart: u32, live: &StageState, recovered: &StageState) -> Result<(), String> {
    let counts = |stage: &StageState| {
        (
            stage.leased,
            stage.done,
            stage.failed,
            stage.losses,
            stage.counters,
            stage.records,
            stage.committed_units,
        )
    };
    if counts(live) != counts(recovered) {
        return Err(format!("counts {:?}, again {:?}", counts(live), counts(recovered)));
    }
    if live.tasks.len() != recovered.tasks.len() {
        return Err("the number of tasks".into());
    }
    for (number, (task, again)) in live.tasks.iter().zip(&recovered.tasks).enumerate() {
        let durable = |task: &Task| {
            (
                task.units,
                task.keys.clone(),
                task.progress.clone(),
                task.lease.map(|it| it.row),
            )
        };
        if durable(task) != durable(again) {
            return Err(format!("task {number}"));
        }
        // A wait begins anew with each leader.
        let open = task.lease.is_none() && !task.is_done() && !task.has_failed(restart);
        for stage in [live, recovered] {
            let task = &stage.tasks[number];
            if stage.ready.contains(&(number as u32)) != (open && task.not_before.is_none()) {
                return Err(format!("whether task {number} is ready"));
            }
        }
    }
    Ok(())
}
