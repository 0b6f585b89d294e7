//! Taking records in: the reader's batches, less those that cannot be parsed or break a rule, until
//! a chunk is full. The scatter and the execute stage take their records in the same way.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use gapless_common::{
    attempt::RecordHash,
    error::{ErrorClass, TaskError},
    manifest::{FileTotals, InputSpan},
    plural::counted,
};

use super::{Leader, Stop};
use crate::{
    engine::{Checks, Verdict},
    source::{InputBatch, Origin, Place, Reject, SourceReader, keys::KeyWriter},
};

/// When a chunk is full, and when there are too many rejects.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    pub age: Duration,
    /// Rows after which a run ends at the next unit, where it may ([`Runs::ByUnit`]).
    pub run_rows: u64,
    /// Rejected records held until the chunk is committed, in bytes.
    pub reject_bytes: usize,
    /// Rejected records over the step; an attempt that has more on its own need not go on.
    pub rejects: Option<u64>,
    pub now: fn() -> Instant,
}

/// How a program is run over a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Each chunk is a run: rows do not depend on each other.
    ByChunk,
    /// A run takes whole units of the range, and a chunk whole runs: rows that belong together are
    /// in one unit.
    ByUnit,
    /// The rest of the range is one run and one chunk.
    Whole,
}

/// What a chunk took from the source.
#[derive(Debug, Default)]
pub struct Taken {
    /// Records, rejected ones included.
    pub read: u64,
    pub bytes: u64,
    pub records: RecordHash,
    pub rejects: Vec<Reject>,
    pub totals: Vec<FileTotals>,
    pub spans: Vec<InputSpan>,
    /// Where the fingerprints of its keys are, if they are to be unique.
    pub keys: Option<KeyWriter>,
}

/// Adds what a reader counted for the control totals of its files.
///
/// Errors: `Data` where a sum leaves 128 bits.
pub fn add_totals(sum: &mut Vec<FileTotals>, more: Vec<FileTotals>) -> Result<(), TaskError> {
    FileTotals::add_all(sum, more)
        .ok_or_else(|| TaskError::new(ErrorClass::Data, "a control total of the source leaves 128 bits"))
}

/// Records that keep the rules.
pub struct Judged {
    pub batch: RecordBatch,
    origin: Arc<dyn Origin>,
    /// Which records of the source's batch these are; `None` for all.
    kept: Option<BooleanArray>,
}

impl Judged {
    /// Where a row of the batch comes from.
    pub fn locate(&self, row: usize) -> Place {
        let row = match &self.kept {
            None => row,
            Some(kept) => kept.values().set_indices().nth(row).unwrap_or(row),
        };
        self.origin.locate(row)
    }
}

/// Reads records, checks them, and tells when a chunk is full.
pub struct CheckedReader<'a> {
    reader: Box<dyn SourceReader>,
    checks: &'a Checks,
    leader: &'a dyn Leader,
    limits: Limits,
    taken: Taken,
    reject_bytes: usize,
    /// Rejects of this attempt, all chunks.
    rejected: u64,
    over_limit: bool,
    began: Instant,
    runs: Runs,
    /// Rows that the open run was given.
    run_rows: u64,
    ended: bool,
    stop: Stop,
    /// The file for fingerprints of keys of the open chunk.
    keys_file: PathBuf,
}

impl<'a> CheckedReader<'a> {
    pub fn new(
        reader: Box<dyn SourceReader>,
        checks: &'a Checks,
        leader: &'a dyn Leader,
        limits: Limits,
        runs: Runs,
    ) -> CheckedReader<'a> {
        CheckedReader {
            reader,
            checks,
            leader,
            limits,
            taken: Taken::default(),
            reject_bytes: 0,
            rejected: 0,
            over_limit: false,
            began: (limits.now)(),
            runs,
            run_rows: 0,
            ended: false,
            stop: Stop::No,
            keys_file: PathBuf::new(),
        }
    }

    /// Takes the open chunk in once more, from `reader`, which stands where the chunk began.
    pub fn reopen(&mut self, reader: Box<dyn SourceReader>) {
        self.reader = reader;
        self.rejected -= self.taken.rejects.len() as u64;
        self.take_chunk();
        self.run_rows = 0;
        self.ended = false;
    }

    /// Where the next chunk keeps fingerprints of keys.
    pub fn keep_keys_in(&mut self, file: PathBuf) {
        self.keys_file = file;
    }

    /// Starts a chunk.
    pub fn begin_chunk(&mut self) {
        self.began = (self.limits.now)();
    }

    /// Tells something for the run's history.
    pub fn tell(&self, text: String) {
        self.leader.tell(text);
    }

    /// What the open chunk has taken; a new one begins.
    pub fn take_chunk(&mut self) -> Taken {
        self.reject_bytes = 0;
        std::mem::take(&mut self.taken)
    }

    /// Whether the open chunk takes no more: it is full or the range has ended. Else only a run has
    /// ended when [`Self::next_batch`] gave `None`.
    pub fn is_chunk_done(&self) -> bool {
        self.ended || self.is_full()
    }

    /// Whether the range is read to its end.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// Whether reading ended because there were too many rejects. The open chunk still holds them.
    pub fn is_over_limit(&self) -> bool {
        self.over_limit
    }

    /// What the leader last asked for.
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// Tells that the attempt is at work on what it has read, and learns whether to stop.
    ///
    /// Errors: `Cancelled` when told to give up.
    pub fn keep_on(&mut self) -> Result<(), TaskError> {
        self.report()
    }

    /// The next records that go on, or `None` when the run, the chunk or the range has ended.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, TaskError> {
        Ok(self.next_judged()?.map(|judged| judged.batch))
    }

    /// As [`Self::next_batch`], with the way back to the origin of each row.
    pub fn next_judged(&mut self) -> Result<Option<Judged>, TaskError> {
        while !self.is_chunk_done() && !self.is_run_done() {
            let read = self.reader.next_batch()?;
            self.take_intake()?;
            self.report()?;
            let Some(input) = read else {
                self.ended = true;
                break;
            };
            let judged = self.judge(input)?;
            if judged.batch.num_rows() > 0 {
                self.run_rows += judged.batch.num_rows() as u64;
                return Ok(Some(judged));
            }
        }
        self.run_rows = 0;
        Ok(None)
    }

    fn is_run_done(&self) -> bool {
        self.runs == Runs::ByUnit && self.run_rows >= self.limits.run_rows && self.reader.may_stop()
    }

    fn is_full(&self) -> bool {
        if self.runs == Runs::Whole || !self.reader.may_stop() {
            return false;
        }
        // A chunk takes at least something, or an attempt could go on for ever without a step.
        if self.taken.read == 0 && self.taken.bytes == 0 {
            return self.stop == Stop::AtCheckpoint;
        }
        self.stop == Stop::AtCheckpoint
            || self.taken.bytes >= self.limits.bytes
            || self.reject_bytes >= self.limits.reject_bytes
            || (self.limits.now)().duration_since(self.began) >= self.limits.age
    }

    fn take_intake(&mut self) -> Result<(), TaskError> {
        let intake = self.reader.take_intake();
        self.taken.read += intake.read;
        self.taken.bytes += intake.bytes;
        self.taken.records += intake.records;
        add_totals(&mut self.taken.totals, intake.totals)?;
        InputSpan::add_all(&mut self.taken.spans, intake.spans);
        if !intake.keys.is_empty() {
            let keys = match &mut self.taken.keys {
                Some(keys) => keys,
                none => none.insert(KeyWriter::create(&self.keys_file)?),
            };
            keys.push(intake.keys)?;
        }
        intake.rejects.into_iter().try_for_each(|reject| self.reject(reject))
    }

    /// Tells the leader how far it is, and learns whether to stop.
    ///
    /// Errors: `Cancelled` when the attempt is to give up at once.
    pub fn report(&mut self) -> Result<(), TaskError> {
        self.stop = self
            .leader
            .progress(self.reader.position(), self.taken.read + self.reader.passed());
        if self.stop == Stop::Now {
            return Err(TaskError::new(
                ErrorClass::Cancelled,
                "the leader asked this attempt to give up",
            ));
        }
        Ok(())
    }

    fn judge(&mut self, input: InputBatch) -> Result<Judged, TaskError> {
        match self.checks.judge(&input.batch)? {
            Verdict::Right => Ok(Judged {
                batch: input.batch,
                origin: input.origin,
                kept: None,
            }),
            Verdict::Broken { keep, broken } => {
                for broken in broken {
                    self.reject(Reject {
                        place: input.origin.locate(broken.row),
                        // A step that is cut by a key checks its records in the scatter stage.
                        key: None,
                        rule: broken.rule,
                        reason: broken.reason,
                    })?;
                }
                let batch = filter_record_batch(&input.batch, &keep)
                    .map_err(|error| TaskError::new(ErrorClass::Data, format!("rejecting records failed: {error}")))?;
                Ok(Judged {
                    batch,
                    origin: input.origin,
                    kept: Some(keep),
                })
            }
        }
    }

    /// Counts a record as rejected that was given out.
    ///
    /// Errors: `Data` when there are more than the limit.
    pub fn reject(&mut self, reject: Reject) -> Result<(), TaskError> {
        self.rejected += 1;
        let over = self.limits.rejects.filter(|limit| self.rejected > *limit);
        let error = over.map(|limit| over_limit(limit, &reject));
        self.reject_bytes += reject.place.raw.len() + reject.reason.len() + size_of::<Reject>();
        self.taken.rejects.push(reject);
        match error {
            None => Ok(()),
            Some(error) => {
                self.over_limit = true;
                Err(error)
            }
        }
    }
}

/// What an attempt fails with that has rejected more than the step may; `reject` is the first beyond.
pub fn over_limit(limit: u64, reject: &Reject) -> TaskError {
    TaskError::new(
        ErrorClass::Data,
        format!(
            "more than {} {} rejected (reject: limit); the last: {}: {}: {}",
            counted(limit, "record"),
            if limit == 1 { "was" } else { "were" },
            reject.place,
            reject.rule,
            short(&reject.reason)
        ),
    )
}

/// A reason quotes the value, which may be long; what follows it in a message must not be cut off.
const SHOWN_REASON: usize = 400;

fn short(reason: &str) -> String {
    match reason.char_indices().nth(SHOWN_REASON) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::OnceLock};

    use arrow::{
        array::Int64Array,
        datatypes::{DataType, Field, Schema, SchemaRef},
    };
    use gapless_common::{attempt::Commit, ids::Stage};

    use super::*;
    use crate::{attempt::CommittedPartition, source::Intake};

    thread_local! {
        static SECONDS: Cell<u64> = const { Cell::new(0) };
    }

    /// A clock that goes on by ten seconds with each batch.
    fn now() -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(SECONDS.get())
    }

    struct Slow {
        at: u64,
        resumable: u64,
    }

    struct Nowhere;

    impl Origin for Nowhere {
        fn locate(&self, row: usize) -> Place {
            Place {
                file: "slow".to_string(),
                line: None,
                row: Some(row as u64),
                block: None,
                raw: String::new(),
            }
        }
    }

    impl SourceReader for Slow {
        fn schema(&self) -> SchemaRef {
            Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
        }

        fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
            self.at += 1;
            SECONDS.set(SECONDS.get() + 10);
            let column = Arc::new(Int64Array::from(vec![self.at as i64]));
            Ok((self.at <= 20).then(|| InputBatch {
                batch: RecordBatch::try_new(self.schema(), vec![column]).expect("one column"),
                origin: Arc::new(Nowhere),
            }))
        }

        fn position(&self) -> u64 {
            self.at
        }

        fn may_stop(&self) -> bool {
            self.at.is_multiple_of(self.resumable)
        }

        fn take_intake(&mut self) -> Intake {
            Intake {
                read: 1,
                ..Intake::default()
            }
        }
    }

    struct Quiet;

    impl Leader for Quiet {
        fn commit(&self, _: Commit) -> Result<(), TaskError> {
            Ok(())
        }

        fn progress(&self, _: u64, _: u64) -> Stop {
            Stop::No
        }

        fn committed(&self, _: Stage) -> Result<Vec<CommittedPartition>, TaskError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_chunk_grows_no_older_than_its_limit_where_it_may_stop() {
        // (batches between places to stop, batches of the chunks): six make a minute.
        for (resumable, expected) in [(1, vec![6, 6, 6, 2]), (4, vec![8, 8, 4]), (100, vec![20])] {
            let reader = Slow { at: 0, resumable };
            let checks = Checks::none();
            let limits = Limits {
                bytes: u64::MAX,
                age: Duration::from_secs(60),
                run_rows: 0,
                reject_bytes: usize::MAX,
                rejects: None,
                now,
            };
            let mut records = CheckedReader::new(Box::new(reader), &checks, &Quiet, limits, Runs::ByChunk);
            let mut chunks = Vec::new();
            while !records.is_ended() {
                records.begin_chunk();
                let mut batches = 0;
                while records.next_batch().expect("reads").is_some() {
                    batches += 1;
                }
                chunks.push(batches);
            }
            assert_eq!(chunks, expected, "may stop after {resumable}");
        }
    }
}
