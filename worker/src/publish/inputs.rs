//! What a merge promises of its inputs, over all chunks that were read of them: that each is in its order, and that no
//! key stands twice. Records are read again only where something is wrong, to tell which they are.

use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{MergeSource, Source},
    manifest::{ChunkManifest, InputSpan},
    order,
    plan::{Facts, StepFrame},
    range::UnitRange,
};

use super::{Action, Gate};
use crate::{
    attempt::StepContext,
    source::{
        keys::{Prints, duplicates},
        merge::{Held, input_name, look_again, not_sorted},
    },
    storage::{ChunkName, StepFolders},
};

/// `read`: the manifests of those who read the source, in the order of its units.
///
/// Errors: `Data` in words, with both places; then nothing is published.
pub(super) fn check_inputs(
    context: &StepContext,
    folders: &StepFolders,
    frame: &StepFrame,
    read: &[(ChunkName, ChunkManifest)],
    gate: &mut Gate<'_>,
) -> Result<(), TaskError> {
    let Source::Merge(merge) = &context.step().source else {
        return Ok(());
    };
    if !merge.by.is_empty() {
        check_order(context, &frame.facts, merge, read)?;
    }
    match merge.unique.is_empty() {
        true => Ok(()),
        false => check_unique(context, folders, &frame.facts, merge, read, gate),
    }
}

fn units(manifest: &ChunkManifest) -> UnitRange {
    UnitRange::new(manifest.previous, manifest.next)
}

/// Each reader has looked at the order of what it read; here the end of each chunk is held against the next.
fn check_order(
    context: &StepContext,
    facts: &Facts,
    merge: &MergeSource,
    read: &[(ChunkName, ChunkManifest)],
) -> Result<(), TaskError> {
    let mut before: Option<(&InputSpan, UnitRange)> = None;
    for (_, manifest) in read {
        for span in &manifest.inputs {
            if let Some((last, before)) = before
                && last.input == span.input
                && order::compare(&merge.by, &last.span.last, &span.span.first).is_gt()
            {
                return Err(misplaced(context, facts, merge, span.input, before, units(manifest)));
            }
            before = Some((span, units(manifest)));
        }
    }
    Ok(())
}

/// Tells the last record of an input in one chunk, and the first of it in another.
fn misplaced(
    context: &StepContext,
    facts: &Facts,
    merge: &MergeSource,
    input: u32,
    before: UnitRange,
    after: UnitRange,
) -> TaskError {
    let number = input as usize;
    let name = merge
        .inputs
        .get(number)
        .map_or_else(String::new, |source| input_name(number, source));
    let (mut last, mut first) = (None, None);
    let told = look_again(context, facts, merge, before, &mut |of, read| {
        if of == number {
            last = Some(Held::of(read, read.batch.num_rows() - 1));
        }
        Ok(true)
    })
    .and_then(|()| {
        look_again(context, facts, merge, after, &mut |of, read| {
            if of == number {
                first = Some(Held::of(read, 0));
            }
            Ok(first.is_none())
        })
    });
    match (told, last, first) {
        (Err(error), ..) => error,
        (Ok(()), Some(last), Some(first)) => not_sorted(&name, &merge.by, &last, &first),
        _ => TaskError::new(
            ErrorClass::Data,
            format!(
                "merge: {name} is not sorted by {} between units {before} and {after} of the source; nothing is published",
                order::display(&merge.by)
            ),
        ),
    }
}

fn check_unique(
    context: &StepContext,
    folders: &StepFolders,
    facts: &Facts,
    merge: &MergeSource,
    read: &[(ChunkName, ChunkManifest)],
    gate: &mut Gate<'_>,
) -> Result<(), TaskError> {
    let keyed: Vec<&ChunkManifest> = read
        .iter()
        .map(|(_, manifest)| manifest)
        .filter(|manifest| manifest.keys.is_some())
        .collect();
    let files: Vec<_> = keyed.iter().filter_map(|manifest| manifest.keys.as_ref()).collect();
    let Some(found) = duplicates(&folders.keys(), &files, &mut |keys| gate(Action::Compared(keys)))? else {
        return Ok(());
    };
    let mut places: Vec<(String, Held)> = Vec::new();
    let mut chunks = vec![units(keyed[found.first])];
    if found.second != found.first {
        chunks.push(units(keyed[found.second]));
    }
    for (at, units) in chunks.iter().enumerate() {
        // Both in one chunk, or one in each.
        let wanted = if chunks.len() == 1 { 2 } else { at + 1 };
        let mut prints: Option<Prints> = None;
        look_again(context, facts, merge, *units, &mut |input, read| {
            let prints = match &mut prints {
                Some(prints) => prints,
                none => none.insert(Prints::new(&merge.unique, &read.batch.schema())?),
            };
            let rows = prints.of(&read.batch)?.into_iter().enumerate();
            for (row, _) in rows.filter(|(_, print)| *print == Some(found.print)) {
                if places.len() < wanted {
                    places.push((input_name(input, &merge.inputs[input]), Held::of(read, row)));
                }
            }
            Ok(places.len() < wanted)
        })?;
    }
    let others = match found.count {
        1 => String::new(),
        count => format!("; {count} records have a key that stands before them"),
    };
    let columns = merge.unique.join(", ");
    let remedy = "nothing is published: mend the inputs, or leave `unique` out";
    Err(TaskError::new(
        ErrorClass::Data,
        match places.as_slice() {
            [(one, first), (other, second), ..] => format!(
                "merge: the key ({columns}) = {} stands twice: in {one}, {}, and in {other}, {}{others}; {remedy}",
                first.shown(&merge.unique),
                first.place(),
                second.place()
            ),
            _ => {
                format!("merge: a key ({columns}) stands twice, and its records were not found again{others}; {remedy}")
            }
        },
    ))
}
