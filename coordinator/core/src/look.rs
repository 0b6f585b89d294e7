//! Look: a run that is taken up again finds out whether its inputs are those that it was planned for.
//!
//! A step that was planned and not published goes back to its survey and keeps its tables meanwhile. Where the
//! survey finds what is pinned, the step goes on where it was. Where it does not, the step is settled as aborted, as
//! that of a cancelled run is: from the verdict on nobody can publish by its old plan, however late he comes. Then
//! its next **edition** begins, in folders of its own, and of the rows of earlier ones nothing counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use gapless_common::{
    error::ErrorClass,
    ids::{RunId, Stage, StepNo, TaskKey},
    plan::{Facts, PinnedFile, PinnedLookup},
};

use crate::{
    decide::{Draft, Holding},
    fail,
    history::Kind,
    limits::MAX_EDITIONS,
    row::{Anew, Phase, RunState, StepRow},
    state::{Run, Step},
};

/// Whether the inputs of a step are to be looked at before anything else of it is done, in this restart of its run.
pub(crate) fn is_due(run: &Run, number: StepNo) -> bool {
    let waits = |step: &Step| step.row.looked < run.row.restarts;
    run.step(number).is_some_and(waits) && looks_again(run, number)
}

/// Whether a step is one whose inputs are looked at when its run is taken up again.
///
/// What is sealed needs its source no more, unless what was read is at fault.
pub(crate) fn looks_again(run: &Run, number: StepNo) -> bool {
    let Some(step) = run.step(number) else { return false };
    match step.row.phase {
        Phase::Splitting | Phase::Prepare | Phase::Scatter | Phase::Execute | Phase::Merge => true,
        Phase::Publish => does_not_add_up(step) || fail::exceeded_limit(run, number).is_some(),
        Phase::Waiting | Phase::Survey | Phase::Published | Phase::Abort | Phase::Aborted => false,
    }
}

/// Whether a step could not be published because of the records that it has read.
fn does_not_add_up(step: &Step) -> bool {
    let tasks = step.stage(Stage::Publish).into_iter().flat_map(|stage| &stage.tasks);
    let mut failures = tasks.filter_map(|task| task.progress.as_ref()?.failure.as_ref());
    failures.any(|failure| failure.class == ErrorClass::Data)
}

/// Puts a step back to its survey.
pub(crate) fn look(draft: &mut Draft, id: RunId, number: StepNo) {
    let Some(run) = draft.state.run(id) else { return };
    let Some(step) = run.step(number) else { return };
    let held = step.stages().any(|(_, stage)| stage.leased > 0);
    if held || run.row.state != RunState::Running || !is_due(run, number) {
        return;
    }
    if step.row.phase == Phase::Splitting {
        if step.row.edition >= MAX_EDITIONS {
            fail::fail_run(draft, id, run, too_often(run, number));
            return;
        }
        // Nothing was staged, but part of its tables may be written.
        begin_anew(draft, id, number, run, step, 0);
        return;
    }
    let restart = run.row.restarts;
    draft.change_step(id, number, step, |row| {
        row.back_to = Some(row.phase);
        row.phase = Phase::Survey;
        row.looked = restart;
    });
}

/// A planned step was surveyed again: it goes on in `phase` where it was, or is settled to begin anew.
pub(crate) fn looked(draft: &mut Draft, key: TaskKey, holding: &Holding, phase: Phase, found: &Facts) {
    let Holding { run, step, .. } = *holding;
    let changed = step.facts.as_deref().map(|known| Changed::between(known, found));
    let changed = changed.unwrap_or_default();
    let same = changed.0.is_empty();
    let is_last = step.row.edition >= MAX_EDITIONS;
    let told = format!("{changed} since the run was planned: the step begins anew");
    let (at, restart) = (draft.now, run.row.restarts);
    draft.change_step(key.run, key.step, step, |row| {
        row.back_to = None;
        // It may have taken several restarts to look.
        row.looked = restart;
        if same || is_last {
            row.phase = phase;
        } else {
            row.phase = Phase::Abort;
            row.anew = Some(Box::new(Anew { at, told: told.clone() }));
        }
    });
    if !same && is_last {
        fail::fail_run(draft, key.run, run, too_often(run, key.step));
        return;
    }
    if !same {
        draft.note(key.run, key.step, Kind::Note, told);
        return;
    }
    match fail::broken_limit(run, key.step, None) {
        Some(broken) => {
            let message = format!(
                "{}; no input of the step has changed since the run was planned: mend the records in it and run the job \
                 again, then the step begins anew",
                fail::over_limit(run, key.step, &broken)
            );
            draft.note(key.run, key.step, Kind::Failure, message.clone());
            fail::fail_run(draft, key.run, run, message);
        }
        None => {
            let text = "no input has changed since the run was planned: what is committed stays";
            draft.note(key.run, key.step, Kind::Note, text.to_string());
        }
    }
}

fn too_often(run: &Run, number: StepNo) -> String {
    let name = &run.definition(number).name;
    format!(
        "step {name}: an input has changed again, and it was planned anew {MAX_EDITIONS} times, which is the limit; \
         cancel the run, then submit the job"
    )
}

/// Begins the next edition of a step of which nobody holds anything: what was committed counts no more.
///
/// `attempt`: the number of the one that this decision ends.
pub(crate) fn begin_anew(draft: &mut Draft, id: RunId, number: StepNo, run: &Run, step: &Step, attempt: u32) {
    debug_assert!(step.row.edition < MAX_EDITIONS);
    let tasks = step.stages().flat_map(|(_, stage)| &stage.tasks);
    let ended = tasks.filter_map(|task| Some(task.progress.as_ref()?.attempt));
    let attempts = ended.fold(attempt.max(step.row.attempts), u32::max);
    let restart = run.row.restarts;
    let (started, anew) = (step.row.started, step.row.anew.clone());
    draft.change_step(id, number, step, |row| {
        *row = StepRow {
            phase: Phase::Survey,
            restart,
            edition: step.row.edition + 1,
            attempts,
            looked: restart,
            anew,
            started,
            ..StepRow::WAITING
        };
    });
}

/// What differs between what a step was planned for and what is there, one phrase each.
#[derive(Debug, Default)]
struct Changed(Vec<String>);

impl Changed {
    fn between(known: &Facts, found: &Facts) -> Changed {
        let mut changed = Changed::default();
        changed.files("", &known.files, &found.files, |file: &PinnedFile| {
            (file.path.as_str(), (file.size, file.etag.as_str()))
        });
        let names = known.lookups.iter().chain(&found.lookups).map(|it| it.name.as_str());
        let names: BTreeSet<&str> = names.collect();
        for name in names {
            let of = |facts: &[PinnedLookup]| {
                let files = facts
                    .iter()
                    .filter(|it| it.name == name)
                    .flat_map(|it| it.files.clone());
                files.collect::<Vec<_>>()
            };
            let place = format!("look-up {name}: ");
            changed.files(&place, &of(&known.lookups), &of(&found.lookups), |file| {
                (file.path.as_str(), (file.size, file.digest.as_str()))
            });
        }
        if changed.0.is_empty() && known.columns != found.columns {
            changed.0.push("the columns of its source changed".to_string());
        }
        let order = |facts: &Facts| facts.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        if changed.0.is_empty() && (known.domain != found.domain || order(known) != order(found)) {
            changed.0.push("its source changed".to_string());
        }
        changed
    }

    /// `of`: the path of a file, and what is as it was while its content is.
    fn files<'a, T>(
        &mut self,
        place: &str,
        known: &'a [T],
        found: &'a [T],
        of: impl Fn(&'a T) -> (&'a str, (u64, &'a str)),
    ) {
        let known: BTreeMap<_, _> = known.iter().map(&of).collect();
        let found: BTreeMap<_, _> = found.iter().map(&of).collect();
        for (path, was) in &known {
            match found.get(path) {
                None => self.0.push(format!("{place}{path} was removed")),
                Some(is) if is != was => self.0.push(format!("{place}{path} changed")),
                Some(_) => {}
            }
        }
        let added = found.keys().filter(|path| !known.contains_key(*path));
        self.0.extend(added.map(|path| format!("{place}{path} was added")));
    }
}

/// How many changes are told one by one.
const TOLD: usize = 3;

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (told, rest) = self.0.split_at(self.0.len().min(TOLD));
        f.write_str(&told.join(", "))?;
        match rest.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
