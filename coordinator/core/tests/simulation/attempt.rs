//! What a slot does with an attempt, one piece at a time. Whoever is slow, frozen or fenced does it
//! all the same: files and verdicts are written without asking the leader.

use gapless_common::{
    attempt::{Commit, Counters, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{AttemptId, RunId, Stage, StepNo, TaskKey},
};
use gapless_core::{
    State,
    event::StageResult,
    row::{Phase, Publication},
};

use crate::{
    jobs::{record, unit_of},
    output::{Chunk, Verdict},
    rng::mix,
    worker::{Context, Fate, Said, Stop},
    world::World,
};

/// One piece of work of an attempt. Answers whether the slot goes on by itself.
pub fn advance(world: &mut World, at: usize, attempt: AttemptId) -> Result<bool, String> {
    let now = world.now;
    let worker = &mut world.workers[at];
    if worker.suspect(now) && worker.obedient {
        return Ok(true);
    }
    let Some((key, entry)) = worker.attempt(attempt) else {
        return Ok(false);
    };
    if entry.offer.is_some() {
        return Ok(false);
    }
    match entry.fate {
        Fate::Fine => {}
        Fate::Hangs => return Ok(false),
        Fate::KillsItsWorker => {
            world.kill_worker(at);
            return Ok(false);
        }
        Fate::Fails(class) => {
            worker.end(key, Said::Failed(TaskError::new(class, "it was to fail")), now);
            return Ok(false);
        }
    }
    let edition = entry.grant.edition;
    if !matches!(key.stage, Stage::Survey | Stage::Abort) && entry.context.is_none() {
        let Some(context) = world.learn(key, edition) else {
            let error = TaskError::new(ErrorClass::Fenced, "the step is planned anew");
            world.workers[at].end(key, Said::Failed(error), now);
            return Ok(false);
        };
        if let Some((_, entry)) = world.workers[at].attempt(attempt) {
            entry.context = Some(context);
        }
    }
    let worker = &mut world.workers[at];
    match key.stage {
        Stage::Survey => {
            let facts = world.spec(key.run).steps[key.step as usize].content().facts.clone();
            world.workers[at].end(key, Said::Finished(StageResult::Facts(facts)), now);
            Ok(false)
        }
        Stage::Prepare => {
            let found = StageResult::Prepared("{}".into());
            worker.end(key, Said::Finished(found), now);
            Ok(false)
        }
        Stage::Scatter | Stage::Execute | Stage::Merge => chunk(world, at, key),
        Stage::Publish => publish(world, at, key),
        Stage::Abort => abort(world, at, key),
    }
}

/// Makes the next chunk durable and offers it.
fn chunk(world: &mut World, at: usize, key: TaskKey) -> Result<bool, String> {
    let now = world.now;
    let Some(entry) = world.workers[at].entries.get(&key) else {
        return Ok(false);
    };
    let Some(context) = entry.context else { return Ok(false) };
    let (from, seq, fence, high) = (entry.position, entry.seq, entry.grant.fence, entry.grant.units.high);
    if entry.stop != Stop::No {
        world.workers[at].end(key, Said::Released, now);
        return Ok(false);
    }
    let next = match high - from {
        0 => high,
        left if world.rng.per_mille(300) => from + world.rng.between(0, left),
        left => from + world.rng.between(left.div_ceil(2), left),
    };
    let content = match read(world, at, key, context, from, next) {
        Ok(content) => content,
        Err(Trouble::Away) => return Ok(true),
        Err(Trouble::Changed) => {
            let error = TaskError::new(ErrorClass::Config, "changed after planning");
            world.workers[at].end(key, Said::Failed(error), now);
            return Ok(false);
        }
        Err(Trouble::Gone(why)) => {
            world.workers[at].end(key, Said::Failed(TaskError::new(ErrorClass::Transient, why)), now);
            return Ok(false);
        }
        Err(Trouble::Broken(what)) => return Err(what),
    };
    // A worker that ends a partition with an empty commit is slow, not wrong.
    let last = next == high && world.rng.per_mille(900);
    let commit = commit(world, key, context, fence.id, seq, (from, next), &content, last);
    let chunk = (key.stage, key.partition, fence.id, seq);
    world
        .output
        .place(key.run, key.step, context.edition)
        .write(chunk, content)?;
    world.workers[at].offer(key, commit, now);
    Ok(false)
}

#[allow(clippy::too_many_arguments)]
fn commit(
    world: &World,
    key: TaskKey,
    context: Context,
    attempt: AttemptId,
    seq: u32,
    (previous, next): (u64, u64),
    content: &[u64],
    last: bool,
) -> Commit {
    let step = &world.spec(key.run).steps[key.step as usize];
    let bad = &step.versions[context.version].bad;
    let through_exchange = context.buckets.is_some();
    // Records are judged where they are read first.
    let judged = key.stage == Stage::Scatter || (key.stage == Stage::Execute && !through_exchange);
    let rejected = content
        .iter()
        .filter(|unit| judged && bad.contains(&unit_of(**unit)))
        .count() as u64;
    let read = content.len() as u64;
    let digest = [attempt.term.0, attempt.serial, u64::from(seq), u64::from(key.partition)];
    let digest = digest.into_iter().fold(0, |digest, word| mix(digest ^ mix(word + 1)));
    Commit {
        seq,
        previous,
        next,
        counters: Counters {
            read,
            written: read - rejected,
            rejected,
            ..Counters::default()
        },
        records: RecordHash(content.iter().map(|unit| u128::from(mix(*unit))).sum()),
        digest,
        last,
    }
}

enum Trouble {
    /// The leader cannot be asked now.
    Away,
    /// What the attempt needs is not there: it should not run.
    Gone(String),
    /// The source is not what the step was planned for.
    Changed,
    Broken(String),
}

/// The source units that a chunk over `from..next` holds.
fn read(
    world: &mut World,
    at: usize,
    key: TaskKey,
    context: Context,
    from: u64,
    next: u64,
) -> Result<Vec<u64>, Trouble> {
    let TaskKey { run, step, .. } = key;
    match key.stage {
        Stage::Merge => {
            let lists = committed(world, at, run, step, context, Stage::Execute)?;
            let chosen = lists.into_iter().skip(from as usize).take((next - from) as usize);
            contents(world, run, step, context, chosen.flatten())
        }
        Stage::Execute if context.buckets.is_some() => {
            let buckets = context.buckets.unwrap_or(1);
            let lists = committed(world, at, run, step, context, Stage::Scatter)?;
            let all = contents(world, run, step, context, lists.into_iter().flatten())?;
            let mine = |unit: &u64| (from..next).contains(&(mix(*unit) % buckets));
            Ok(all.into_iter().filter(mine).collect())
        }
        _ => match world.spec(run).steps[step as usize].now() {
            now if now == context.version => Ok((from..next).map(|unit| record(now, unit)).collect()),
            _ => Err(Trouble::Changed),
        },
    }
}

fn contents(
    world: &mut World,
    run: RunId,
    step: StepNo,
    context: Context,
    chunks: impl Iterator<Item = Chunk>,
) -> Result<Vec<u64>, Trouble> {
    let place = world.output.place(run, step, context.edition);
    let mut all = Vec::new();
    for chunk in chunks {
        let content = place.read(&chunk);
        if content.is_none() && place.swept {
            return Err(Trouble::Gone("what was staged is removed".into()));
        }
        all.extend(content.ok_or_else(|| Trouble::Broken(format!("I5: {chunk:?} is committed and not there")))?);
    }
    Ok(all)
}

/// The committed chunks of a finished stage, partition by partition, as the leader tells them.
fn committed(
    world: &World,
    at: usize,
    run: RunId,
    step: StepNo,
    context: Context,
    stage: Stage,
) -> Result<Vec<Vec<Chunk>>, Trouble> {
    if world.workers[at].link.is_none() {
        return Err(Trouble::Away);
    }
    let state: &State = world.state().ok_or(Trouble::Away)?;
    // Of another edition it is told files that lie elsewhere.
    let stages = state
        .run(run)
        .and_then(|run| run.step(step))
        .filter(|step| step.row.edition == context.edition)
        .and_then(|step| step.stage(stage));
    let tasks = stages.ok_or_else(|| Trouble::Gone("no such stage".into()))?;
    let mut lists = Vec::new();
    for (number, task) in tasks.tasks.iter().enumerate() {
        let progress = task.progress.as_ref().filter(|progress| progress.done);
        let progress = progress.ok_or_else(|| Trouble::Gone(format!("{stage} is not complete")))?;
        let chunks = progress.segments.iter().flat_map(|segment| {
            (segment.first_seq..segment.next_seq).map(|seq| (stage, number as u32, segment.attempt, seq))
        });
        lists.push(chunks.collect());
    }
    Ok(lists)
}

/// Reads the sealed list, then creates the verdict or adopts one, then exposes, then tells.
fn publish(world: &mut World, at: usize, key: TaskKey) -> Result<bool, String> {
    let now = world.now;
    let TaskKey { run, step, .. } = key;
    let Some(entry) = world.workers[at].entries.get(&key) else {
        return Ok(false);
    };
    let (done, Some(context)) = (entry.stage, entry.context) else {
        return Ok(false);
    };
    match done {
        0 => {
            let stage = if context.merges { Stage::Merge } else { Stage::Execute };
            let list = committed(world, at, run, step, context, stage)
                .and_then(|lists| contents(world, run, step, context, lists.into_iter().flatten()));
            match list {
                Ok(list) => world.workers[at].entries.get_mut(&key).into_iter().for_each(|entry| {
                    entry.list = list.clone();
                    entry.stage = 1;
                }),
                Err(Trouble::Away | Trouble::Changed) => {}
                Err(Trouble::Gone(why)) => {
                    let error = TaskError::new(ErrorClass::Transient, why);
                    world.workers[at].end(key, Said::Failed(error), now);
                    return Ok(false);
                }
                Err(Trouble::Broken(what)) => return Err(what),
            }
            Ok(true)
        }
        1 => {
            let Some(entry) = world.workers[at].entries.get_mut(&key) else {
                return Ok(false);
            };
            entry.stage = 2;
            let list = entry.list.clone();
            world.judge_verdict(run, step, context, &list)?;
            match world
                .output
                .place(run, step, context.edition)
                .settle(Verdict::Committed(list))
            {
                Verdict::Committed(_) => Ok(true),
                Verdict::Aborted => {
                    let error = TaskError::new(ErrorClass::Fenced, "the step was aborted");
                    world.workers[at].end(key, Said::Failed(error), now);
                    Ok(false)
                }
            }
        }
        _ => {
            let publication = world.expose(run, step, context.edition)?;
            world.workers[at].end(key, Said::Finished(StageResult::Published(publication)), now);
            Ok(false)
        }
    }
}

/// Settles the verdict; one that says committed is carried out first.
fn abort(world: &mut World, at: usize, key: TaskKey) -> Result<bool, String> {
    let now = world.now;
    let Some(edition) = world.workers[at].entries.get(&key).map(|it| it.grant.edition) else {
        return Ok(false);
    };
    let place = world.output.place(key.run, key.step, edition);
    let found = match place.settle(Verdict::Aborted) {
        Verdict::Aborted => {
            place.sweep();
            None
        }
        Verdict::Committed(_) => Some(world.expose(key.run, key.step, edition)?),
    };
    world.workers[at].end(key, Said::Finished(StageResult::Aborted(found)), now);
    Ok(false)
}

impl World {
    /// Makes visible what the verdict lists. Again is the same again.
    fn expose(&mut self, run: RunId, step: StepNo, edition: u32) -> Result<Publication, String> {
        let cancelled = self.watch.cancelled.contains(&run);
        let Some(Verdict::Committed(list)) = self.output.place(run, step, edition).verdict.clone() else {
            return Err(format!("I7: run {run} step {step} is exposed without a verdict"));
        };
        let rows = list.len() as u64;
        match self.output.visible.get(&(run, step)) {
            Some(visible) if *visible == list => {}
            Some(_) => return Err(format!("I7: run {run} step {step} becomes visible twice")),
            None if cancelled => {
                return Err(format!(
                    "I11: run {run} step {step} becomes visible after its cancel was confirmed"
                ));
            }
            None => {
                self.output.visible.insert((run, step), list);
            }
        }
        Ok(Publication {
            output: "out".into(),
            rows,
            ..Publication::default()
        })
    }

    /// What a publisher is about to promise must be each unit of the source that was planned for, once.
    fn judge_verdict(&self, run: RunId, step: StepNo, context: Context, list: &[u64]) -> Result<(), String> {
        let spec = &self.spec(run).steps[step as usize];
        let units = spec.versions[context.version].units();
        let mut sorted = list.to_vec();
        sorted.sort_unstable();
        if !sorted
            .iter()
            .copied()
            .eq((0..units).map(|unit| record(context.version, unit)))
        {
            return Err(format!(
                "I1: run {run} step {step} publishes {sorted:?} of {units} units of version {}",
                context.version
            ));
        }
        if spec.over_limit(context.version) {
            return Err(format!("run {run} step {step} is published over its reject limit"));
        }
        Ok(())
    }

    /// What an attempt at an edition of a step is told of it: `None` once there is another edition.
    fn learn(&self, key: TaskKey, edition: u32) -> Option<Context> {
        if self.step_row(key.run, key.step)?.edition != edition {
            return None;
        }
        let plan = self.plan(key.run, key.step);
        let facts = match self.store.row(&format!("facts/{}/{}", key.run, key.step))? {
            gapless_core::Row::Facts(_, _, facts) => facts,
            _ => return None,
        };
        let versions = &self.spec(key.run).steps[key.step as usize].versions;
        Some(Context {
            edition,
            version: versions.iter().position(|version| version.facts == *facts)?,
            buckets: plan.and_then(|plan| Some(u64::from(plan.exchange.as_ref()?.buckets))),
            merges: plan.is_some_and(|plan| plan.merge.is_some()),
        })
    }

    /// The plan as the store has it: workers learn it before they begin.
    fn plan(&self, run: RunId, step: StepNo) -> Option<&gapless_core::row::PlanHeader> {
        self.step_row(run, step)?.plan.as_deref()
    }

    pub fn phase(&self, run: RunId, step: StepNo) -> Phase {
        self.step_row(run, step).map_or(Phase::Waiting, |row| row.phase)
    }

    fn step_row(&self, run: RunId, step: StepNo) -> Option<&gapless_core::row::StepRow> {
        match self.store.row(&format!("step/{run}/{step}"))? {
            gapless_core::Row::Step(_, _, row) => Some(row),
            _ => None,
        }
    }
}
