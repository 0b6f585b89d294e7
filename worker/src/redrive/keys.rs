//! Unique keys of a merge in a redrive. The run held the key of every record that it could read against all others, also
//! of those that it then rejected; a redrive holds its records against one another alone. So it takes those whose key is
//! what the run knew, and no others.

use std::path::Path;

use arrow::datatypes::DataType;
use gapless_common::{
    error::TaskError,
    job::{ColumnType, MergeSource},
};

use super::{Input, Kept, config};
use crate::source::csv::column_type;

/// `merge`: what is to be done; `columns`: those of its text, input by input.
///
/// Errors: `Config` where a record may have a key that was never held against those that are published.
pub(super) fn check_unique(
    former: &MergeSource,
    merge: &MergeSource,
    inputs: &[Input<'_>],
    columns: &[Vec<(String, ColumnType)>],
    kept: &[Kept],
    from: Option<&Path>,
) -> Result<(), TaskError> {
    if merge.unique.is_empty() {
        return Ok(());
    }
    let refused = |what: String| {
        Err(config(format!(
            "merge: unique: {what}, so keys ({}) would not be held against those that are published; mend the source and run \
             the job again, or leave `unique` out of the job that redrives (--job)",
            merge.unique.join(", ")
        )))
    };
    if former.unique != merge.unique {
        return refused("the run was not asked for these columns".into());
    }
    for (input, columns) in inputs.iter().zip(columns) {
        for (name, ty) in columns.iter().filter(|column| merge.unique.contains(&column.0)) {
            let read = input.columns.iter().find(|column| column.name == *name);
            let was = read.and_then(|column| column_type(&column.ty.parse::<DataType>().ok()?));
            if was != Some(*ty) {
                return refused(format!(
                    "column {name} of {} has another type now",
                    input.source.shown()
                ));
            }
        }
    }
    if let Some(kept) = kept.iter().find(|kept| !kept.was_read) {
        return refused(format!("the run could not read the record of {}", kept.place));
    }
    match from {
        None => Ok(()),
        Some(from) => refused(format!("{} may give other keys than the run read", from.display())),
    }
}
