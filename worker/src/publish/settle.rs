//! Publish: reconcile, lay out, settle the verdict, expose, sweep. Any part may be cut off, and
//! any number of publishers may be at it at the same time: each does what is left.

use gapless_common::{
    certificate::Certificate,
    error::{ErrorClass, TaskError},
    job::Exists,
    manifest::{DataFile, Verdict, VerdictKind, Version},
};

use super::{
    Action, Gate, Preparation, Publication, Sealed, aborted,
    added::check_added,
    exists_mode,
    expose::{Exposure, appended_name, sweep, sweep_objects},
    is_own,
    reconcile::{Accounts, frame, reconcile, source_totals},
    verdict::{create, verdicts_from},
};
use crate::{
    attempt::StepContext,
    storage::{StepFolders, file_exists, folder_exists, is_object, read_if_present},
};

/// Publishes a sealed step once.
///
/// Errors: `Data` where it does not add up, `Config` where another run has published to the output
/// meanwhile, or where the step was aborted, and those of storage.
pub fn publish(sealed: &Sealed<'_>, gate: &mut Gate<'_>) -> Result<Publication, TaskError> {
    let folders = StepFolders::of(sealed.context)?;
    let exposure = Exposure {
        folders: &folders,
        fence: sealed.fence,
        exists: exists_mode(sealed.context),
    };
    let standing = match own_verdict(sealed, &folders)? {
        Some(verdict) => (verdict, None),
        None => match decide(sealed, &exposure, gate) {
            Ok((verdict, accounts)) => (verdict, Some(accounts)),
            // Another attempt may have settled and swept the step meanwhile: then its word counts.
            Err(error) => (own_verdict(sealed, &folders)?.ok_or(error)?, None),
        },
    };
    gate(Action::Decided)?;
    match standing {
        (verdict, laid_out) if verdict.verdict == VerdictKind::Committed => {
            complete(sealed, &exposure, &verdict, laid_out, gate)
        }
        _ => Err(aborted(sealed.context)),
    }
}

fn decide(sealed: &Sealed<'_>, exposure: &Exposure<'_>, gate: &mut Gate<'_>) -> Result<(Verdict, Accounts), TaskError> {
    let accounts = lay_out(sealed, exposure, gate)?;
    Ok((settle(sealed, exposure.folders, &accounts)?, accounts))
}

/// Does what is left after a step's verdict: exposes its output and sweeps.
pub(super) fn complete(
    sealed: &Sealed<'_>,
    exposure: &Exposure<'_>,
    verdict: &Verdict,
    laid_out: Option<Accounts>,
    gate: &mut Gate<'_>,
) -> Result<Publication, TaskError> {
    let folders = exposure.folders;
    if verdict.seal != sealed.seal {
        return Err(TaskError::new(
            ErrorClass::Data,
            format!(
                "{} was made for the seal {:016x}, this step is sealed as {:016x}; was the cluster's store restored \
                 from an old copy?",
                folders.verdict_file(verdict.generation).display(),
                verdict.seal,
                sealed.seal
            ),
        ));
    }
    if is_pending(exposure, verdict)? {
        match show(sealed, exposure, verdict, laid_out, gate) {
            // Another publisher may have done it and swept under our hands.
            Err(error) if is_pending(exposure, verdict)? => return Err(error),
            _ => gate(Action::Exposed)?,
        }
    }
    sweep(folders, sealed.fence, gate)?;
    let (source_rows, records) = source_totals(frame(sealed.context)?, sealed.committed);
    Ok(Publication {
        verdict: verdict.verdict,
        output: folders.output().display().to_string(),
        certificate: folders.certificate().display().to_string(),
        rows: verdict.rows,
        files: verdict.files.len() as u64,
        bytes: verdict.bytes,
        records: records.to_string(),
        source_rows,
    })
}

/// Whether a committed output is still to be made visible. Nothing staged means that another
/// publisher has done so and swept; a later verdict that replaces it means that it must not come back.
fn is_pending(exposure: &Exposure<'_>, verdict: &Verdict) -> Result<bool, TaskError> {
    let folders = exposure.folders;
    Ok(!exposure.is_exposed()? && folder_exists(folders.staged())? && !is_superseded(folders, verdict)?)
}

fn show(
    sealed: &Sealed<'_>,
    exposure: &Exposure<'_>,
    verdict: &Verdict,
    laid_out: Option<Accounts>,
    gate: &mut Gate<'_>,
) -> Result<(), TaskError> {
    let accounts = match laid_out {
        Some(accounts) => accounts,
        None => lay_out(sealed, exposure, gate)?,
    };
    exposure.expose(&accounts, &verdict.files, verdict.generation, gate)
}

/// The verdict of this very step, where there is one. It stands at the generation read at prepare,
/// or later where others were first.
pub(super) fn own_verdict(sealed: &Sealed<'_>, folders: &StepFolders) -> Result<Option<Verdict>, TaskError> {
    let verdicts = verdicts_from(folders, sealed.generation)?;
    Ok(verdicts.into_iter().find(|verdict| is_own(verdict, sealed.context)))
}

/// Removes what an attempt has added to a step after its sweep: it was held up for so long. In a file system the
/// folder that it would have added to is gone. Nobody's work depends on it.
pub fn sweep_late(context: &StepContext) {
    let swept = || -> Result<bool, TaskError> {
        let folders = StepFolders::of(context)?;
        if !is_object(folders.staged()) && !is_object(folders.scratch()) {
            return Ok(false);
        }
        let preparation = context.preparation.as_ref();
        let Some(Preparation { generation, .. }) = preparation.and_then(|json| serde_json::from_slice(json).ok())
        else {
            return Ok(false);
        };
        let verdicts = verdicts_from(&folders, generation)?;
        let settled = match verdicts.iter().find(|verdict| is_own(verdict, context)) {
            None => false,
            Some(own) if own.verdict == VerdictKind::Aborted => true,
            // Until its output is whole, all that is staged is needed.
            Some(own) => file_exists(&folders.certificate())? || is_superseded(&folders, own)?,
        };
        if settled {
            sweep_objects(&folders)?;
        }
        Ok(settled)
    };
    match swept() {
        Ok(true) => tracing::info!("removed what this attempt has written after its step was settled"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "what this attempt has written may stay"),
    }
}

/// The publication of a step that whoever gave the task out does not know to be published: the cluster's store was
/// restored from an older copy. `None` where that is not so, or cannot be told.
///
/// Errors: `Config` where the verdict stands and the output is not whole.
pub fn published_already(context: &StepContext) -> Option<Result<Publication, TaskError>> {
    let preparation: Preparation = serde_json::from_slice(context.preparation.as_ref()?).ok()?;
    let folders = StepFolders::of(context).ok()?;
    let verdicts = verdicts_from(&folders, preparation.generation).ok()?;
    // Behind that of an edition which was aborted there may be that of the next.
    let is_published = |verdict: &Verdict| is_own(verdict, context) && verdict.verdict == VerdictKind::Committed;
    let own = verdicts.into_iter().find(is_published)?;
    Some(adopted(&folders, own))
}

fn adopted(folders: &StepFolders, verdict: Verdict) -> Result<Publication, TaskError> {
    let path = folders.certificate();
    let certificate: Option<Certificate> = read_if_present(&path)?.and_then(|json| serde_json::from_slice(&json).ok());
    let Some(certificate) = certificate else {
        return Err(TaskError::new(
            ErrorClass::Config,
            format!(
                "{} says that this step is published, and {} is missing: it was not made visible to its end before the \
                 cluster's store was restored from an older copy. Move {} and {} away, then submit the job again",
                folders.verdict_file(verdict.generation).display(),
                path.display(),
                folders.output().display(),
                folders.control().display()
            ),
        ));
    };
    Ok(Publication {
        verdict: verdict.verdict,
        output: folders.output().display().to_string(),
        certificate: path.display().to_string(),
        rows: verdict.rows,
        files: verdict.files.len() as u64,
        bytes: verdict.bytes,
        records: certificate.records.to_string(),
        source_rows: certificate.counters.read,
    })
}

fn lay_out(sealed: &Sealed<'_>, exposure: &Exposure<'_>, gate: &mut Gate<'_>) -> Result<Accounts, TaskError> {
    let accounts = reconcile(sealed, gate)?;
    gate(Action::Reconciled)?;
    exposure.lay_out(&accounts)?;
    gate(Action::LaidOut)?;
    Ok(accounts)
}

/// A later verdict whose output is its own files alone: this one's must not come back.
fn is_superseded(folders: &StepFolders, verdict: &Verdict) -> Result<bool, TaskError> {
    let later = verdicts_from(folders, verdict.generation + 1)?;
    Ok(later
        .iter()
        .any(|later| later.verdict == VerdictKind::Committed && later.replaces))
}

/// Creates this step's verdict at the first free generation, or finds it.
///
/// A record of another run stands in the way unless it changed nothing (aborted) or both only add.
fn settle(sealed: &Sealed<'_>, folders: &StepFolders, accounts: &Accounts) -> Result<Verdict, TaskError> {
    let exists = exists_mode(sealed.context);
    let mut generation = sealed.generation;
    loop {
        let proposed = proposal(sealed, folders, accounts, generation);
        let verdict = create(folders, sealed.fence, &proposed)?;
        if is_own(&verdict, sealed.context) {
            return Ok(verdict);
        }
        if verdict.verdict == VerdictKind::Committed && exists != Exists::Append {
            return Err(TaskError::new(
                ErrorClass::Config,
                format!(
                    "run {} has published to {} since this step began; nothing of this one is published: let only \
                     one job write there, or write `exists: append`",
                    verdict.run,
                    folders.output().display()
                ),
            ));
        }
        // What it has published may be other than what stood there when this step began.
        if verdict.verdict == VerdictKind::Committed {
            let context = sealed.context;
            check_added(&context.job, context.step(), &frame(context)?.facts, folders)?;
        }
        generation += 1;
    }
}

fn proposal(sealed: &Sealed<'_>, folders: &StepFolders, accounts: &Accounts, generation: u64) -> Verdict {
    let appends = exists_mode(sealed.context) == Exists::Append;
    let shown = |file: &DataFile| match appends || is_object(folders.output()) {
        true => DataFile {
            path: appended_name(&file.path, generation),
            ..file.clone()
        },
        false => file.clone(),
    };
    Verdict {
        version: Version::default(),
        verdict: VerdictKind::Committed,
        run: sealed.context.run,
        step: sealed.context.step_no,
        edition: sealed.context.edition,
        step_name: sealed.context.step().name.clone(),
        generation,
        seal: sealed.seal,
        replaces: !appends,
        rows: accounts.rows,
        bytes: accounts.files.iter().map(|file| file.bytes).sum(),
        files: accounts.files.iter().map(shown).collect(),
    }
}
