//! Abort: settles a step's verdict as aborted and removes what was staged, unless it came too late.

use gapless_common::{
    attempt::Fence,
    error::{ErrorClass, TaskError},
    manifest::{Verdict, VerdictKind, Version},
};

use super::{
    Abortion, Action, Gate, Sealed, exists_mode,
    expose::{Exposure, sweep},
    is_own,
    settle::complete,
    verdict::create,
};
use crate::{
    attempt::StepContext,
    storage::{StepFolders, is_object},
};

/// Aborts the step. `sealed` tells what would be published: the seal and the committed partitions, or
/// zero and none where the step was not sealed. A step found published is made visible with them
/// before the answer.
///
/// After `ABORTED` nothing of this step becomes visible, whoever may still be at work on it.
pub fn abort(sealed: &Sealed<'_>, gate: &mut Gate<'_>) -> Result<Abortion, TaskError> {
    let folders = StepFolders::of(sealed.context)?;
    let verdict = settle(sealed.context, sealed.fence, &folders, sealed.generation)?;
    gate(Action::Decided)?;
    if verdict.verdict == VerdictKind::Committed {
        let exposure = Exposure {
            folders: &folders,
            fence: sealed.fence,
            exists: exists_mode(sealed.context),
        };
        let publication = complete(sealed, &exposure, &verdict, None, gate)?;
        return Ok(Abortion {
            verdict: VerdictKind::Committed,
            publication: Some(publication),
        });
    }
    sweep(&folders, sealed.fence, gate)?;
    Ok(Abortion {
        verdict: VerdictKind::Aborted,
        publication: None,
    })
}

/// Aborts a step that was not prepared: nobody can be publishing it, so there is nothing to settle.
pub fn abort_unprepared(context: &StepContext, fence: Fence, gate: &mut Gate<'_>) -> Result<Abortion, TaskError> {
    let folders = StepFolders::of(context)?;
    match sweep(&folders, fence, gate) {
        // What keeps this worker out of the store kept prepare out: there is nothing of ours.
        Err(error)
            if error.class == ErrorClass::Config
                && [folders.staged(), folders.scratch()].into_iter().any(is_object) => {}
        swept => swept?,
    }
    Ok(Abortion {
        verdict: VerdictKind::Aborted,
        publication: None,
    })
}

/// Takes the same places in the same order as a publisher, so that one of them finds the other.
fn settle(context: &StepContext, fence: Fence, folders: &StepFolders, first: u64) -> Result<Verdict, TaskError> {
    let mut generation = first;
    loop {
        let proposed = Verdict {
            version: Version::default(),
            verdict: VerdictKind::Aborted,
            run: context.run,
            step: context.step_no,
            edition: context.edition,
            step_name: context.step().name.clone(),
            generation,
            seal: 0,
            replaces: false,
            rows: 0,
            bytes: 0,
            files: Vec::new(),
        };
        let verdict = create(folders, fence, &proposed)?;
        if is_own(&verdict, context) {
            return Ok(verdict);
        }
        generation += 1;
    }
}
