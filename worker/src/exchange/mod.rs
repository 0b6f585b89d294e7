//! The exchange: records of a step, sorted by bucket between the stages Scatter and Execute, durable
//! and exact.
//!
//! A scatter attempt reads a part of the source, rejects what breaks a rule while the record's file
//! and line are still known, and writes one file for each chunk, sorted by bucket, with an index of
//! rows and hashes ([`scatter`]). An execute attempt reads its buckets out of all committed files and
//! no others ([`GatherReader`]). Hashes read add up to hashes scattered ([`scattered`]): that is what
//! the certificate shows.
//!
//! The file format is in `layout`, the counting sort in `split`, the way back in `restore`, the bucket
//! functions in `bucket` and `key_ranges`. Only `durable` and `file` touch the disk for writing.

#[cfg(test)]
mod bench;
mod bucket;
mod carrier;
mod durable;
mod file;
mod gather;
mod index;
mod key_ranges;
mod layout;
mod narrow;
mod restore;
mod scatter;
mod sorted;
mod split;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use gapless_common::{
    attempt::Counters,
    error::{ErrorClass, TaskError},
    ids::{AttemptId, PartitionNo},
    range::UnitRange,
};

use self::index::{Indexed, Indexes, damaged};
pub use self::{
    bucket::{HashBuckets, MAX_BUCKETS},
    gather::GatherReader,
    layout::Scattered,
    scatter::{Checked, ScatterFolders, scatter},
};
use crate::{
    attempt::{CommittedPartition, StepContext},
    storage::staged_below,
};

/// Rows of a block: enough that each of 256 buckets gets a few thousand, which lie together in the
/// file. They wait narrowed, in some 15 MB for a table of six columns.
const BLOCK_ROWS: usize = 1_000_000;
/// Bytes of a block, for wide rows.
const BLOCK_BYTES: usize = 64 * 1024 * 1024;

/// The scratch folder of a step, of what it is planned for now.
pub fn scratch_folder(context: &StepContext) -> PathBuf {
    staged_below(&context.scratch, context.run, context.step_no, context.edition)
}

/// The folder of a step's exchange files.
pub fn exchange_folder(context: &StepContext) -> PathBuf {
    scratch_folder(context).join("exchange")
}

/// The name of what a scatter attempt wrote for one commit, without its extension.
pub fn chunk_name(partition: PartitionNo, attempt: AttemptId, seq: u32) -> String {
    format!("scatter-{partition:05}-{attempt}-{seq}")
}

/// The exchange files of a sealed scatter stage: one for each commit that the leader has recorded.
pub fn committed_files(folder: &Path, committed: &[CommittedPartition]) -> Vec<PathBuf> {
    let names = committed.iter().flat_map(|partition| {
        partition.segments.iter().flat_map(move |segment| {
            (segment.first_seq..segment.next_seq)
                .map(move |seq| chunk_name(partition.partition, segment.attempt, seq) + ".gx")
        })
    });
    names.map(|name| folder.join(name)).collect()
}

/// Rows and fingerprint that were scattered into a range of buckets, from the files' indexes.
///
/// Errors: as [`GatherReader::open`].
pub fn scattered(files: &[PathBuf], buckets: UnitRange) -> Result<Scattered, TaskError> {
    let mut sum = Scattered::default();
    for index in Indexes::of(files) {
        let (path, Indexed { footer, .. }) = index?;
        if buckets.high > u64::from(footer.buckets) {
            return Err(damaged(
                path,
                format!("it has {} buckets, not {buckets}", footer.buckets),
            ));
        }
        sum += footer.scattered(buckets);
    }
    Ok(sum)
}

/// Opens the buckets of an execute partition (or what is left of them) over a sealed scatter stage,
/// once the files are known to hold as many rows as their commits say.
///
/// Errors: as [`GatherReader::open`]; `Data` where rows are missing or too many.
pub fn gather(
    context: &StepContext,
    committed: &[CommittedPartition],
    buckets: UnitRange,
) -> Result<GatherReader, TaskError> {
    let folder = exchange_folder(context);
    for partition in committed {
        let Counters { written, .. } = partition.counters;
        let files = committed_files(&folder, std::slice::from_ref(partition));
        let mut rows = 0;
        for index in Indexes::of(&files) {
            rows += index?.1.footer.rows();
        }
        if rows != written {
            let message = format!(
                "the exchange files of scatter partition {} hold {rows} rows, its commits say {written}: restart the run",
                partition.partition
            );
            return Err(TaskError::new(ErrorClass::Data, message));
        }
    }
    GatherReader::open(&committed_files(&folder, committed), buckets)
}
