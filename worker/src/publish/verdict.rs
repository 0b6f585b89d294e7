//! The log of verdicts at an output: numbered records, each created once.

use gapless_common::{
    attempt::Fence,
    error::{ErrorClass, TaskError},
    manifest::{Verdict, VerdictKind},
};

use crate::storage::{Created, StepFolders, create_once, list_folder, read_if_present};

/// The numbers of the verdicts that exist, ascending.
pub(super) fn generations(folders: &StepFolders) -> Result<Vec<u64>, TaskError> {
    let names = list_folder(&folders.published())?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".json")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The verdicts from `generation` on, ascending.
pub(super) fn verdicts_from(folders: &StepFolders, generation: u64) -> Result<Vec<Verdict>, TaskError> {
    let mut verdicts = Vec::new();
    for number in generations(folders)?.into_iter().filter(|&number| number >= generation) {
        if let Some(content) = read_if_present(&folders.verdict_file(number))? {
            verdicts.push(parse(folders, number, &content)?);
        }
    }
    Ok(verdicts)
}

/// The last verdict that has published something. Those behind it were aborted, which changed nothing.
pub(super) fn last_committed(folders: &StepFolders) -> Result<Option<Verdict>, TaskError> {
    for number in generations(folders)?.into_iter().rev() {
        let Some(content) = read_if_present(&folders.verdict_file(number))? else {
            continue;
        };
        let verdict = parse(folders, number, &content)?;
        if verdict.verdict == VerdictKind::Committed {
            return Ok(Some(verdict));
        }
    }
    Ok(None)
}

/// Creates the verdict, or returns the one that another was first to create.
pub(super) fn create(folders: &StepFolders, fence: Fence, verdict: &Verdict) -> Result<Verdict, TaskError> {
    let content = serde_json::to_vec_pretty(verdict)
        .map_err(|error| TaskError::new(ErrorClass::Data, format!("a verdict has no JSON: {error}")))?;
    let unique = format!("{}-{}-{}", verdict.run, verdict.step, fence.id);
    match create_once(&folders.verdict_file(verdict.generation), &unique, &content)? {
        Created::Created => Ok(verdict.clone()),
        Created::Exists(content) => parse(folders, verdict.generation, &content),
    }
}

fn parse(folders: &StepFolders, generation: u64, content: &[u8]) -> Result<Verdict, TaskError> {
    serde_json::from_slice(content).map_err(|error| {
        TaskError::new(
            ErrorClass::Config,
            format!(
                "{} is not a verdict ({error}); it was written by a newer release or by hand: without it nobody can \
                 tell what is published",
                folders.verdict_file(generation).display()
            ),
        )
    })
}
