//! Abort: settles a step's verdict as aborted and removes what was staged, unless it came too late.

use gapless_common::{
    attempt::Fence,
    error::TaskError,
    manifest::{Verdict, VerdictKind},
};

use super::{
    Abortion, Action, Committed, Gate, Sealed, exists_mode,
    expose::{Exposure, sweep},
    is_own,
    settle::complete,
    verdict::create,
};
use crate::{attempt::StepContext, storage::StepFolders};

/// Aborts a step. `generation` is what prepare reported, `None` where the step was not prepared:
/// then nobody can be publishing it. `seal` and `committed` are those of the sealed step, or zero
/// and empty; a step found published is made visible with them before the answer.
///
/// After `ABORTED` nothing of this step becomes visible, whoever may still be at work on it.
pub fn abort(
    context: &StepContext,
    fence: Fence,
    generation: Option<u64>,
    seal: u64,
    committed: Committed<'_>,
    gate: &mut Gate<'_>,
) -> Result<Abortion, TaskError> {
    let folders = StepFolders::of(context)?;
    if let Some(generation) = generation {
        let verdict = settle(context, fence, &folders, generation)?;
        gate(Action::Decided)?;
        if verdict.verdict == VerdictKind::Committed {
            let sealed = Sealed {
                context,
                fence,
                generation,
                seal,
                committed,
            };
            let exposure = Exposure {
                folders: &folders,
                fence,
                exists: exists_mode(context),
            };
            let publication = complete(&sealed, &exposure, &verdict, None, gate)?;
            return Ok(Abortion {
                verdict: VerdictKind::Committed,
                publication: Some(publication),
            });
        }
    }
    sweep(&folders, fence, gate)?;
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
            verdict: VerdictKind::Aborted,
            run: context.run,
            step: context.step_no,
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
