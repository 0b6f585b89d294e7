//! Between the wire's types and ours. Nothing else in the worker builds or reads identities on the wire.

use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash, Segment},
    ids::{AttemptId, ClusterId, RunId, Stage, TaskKey, Term},
    range::UnitRange,
};
use gapless_proto::v1;
use prost::bytes::Bytes;
use uuid::Uuid;

use crate::attempt::CommittedPartition;

/// A message that this version cannot read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{what} has {len} bytes where {expected} belong")]
    Length {
        what: &'static str,
        len: usize,
        expected: usize,
    },
    #[error("{what} is {value}, which this version does not know")]
    Unknown { what: &'static str, value: i64 },
    #[error("the range {low}..{high} runs downwards")]
    Range { low: u64, high: u64 },
}

pub fn uuid(what: &'static str, bytes: &[u8]) -> Result<Uuid, WireError> {
    Uuid::from_slice(bytes).map_err(|_| WireError::Length {
        what,
        len: bytes.len(),
        expected: 16,
    })
}

pub fn cluster(bytes: &[u8]) -> Result<ClusterId, WireError> {
    uuid("the cluster id", bytes).map(ClusterId)
}

pub fn bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn stage(value: i32) -> Result<Stage, WireError> {
    let unknown = WireError::Unknown {
        what: "the stage",
        value: i64::from(value),
    };
    match v1::Stage::try_from(value) {
        Ok(v1::Stage::Survey) => Ok(Stage::Survey),
        Ok(v1::Stage::Prepare) => Ok(Stage::Prepare),
        Ok(v1::Stage::Scatter) => Ok(Stage::Scatter),
        Ok(v1::Stage::Execute) => Ok(Stage::Execute),
        Ok(v1::Stage::Merge) => Ok(Stage::Merge),
        Ok(v1::Stage::Publish) => Ok(Stage::Publish),
        Ok(v1::Stage::Abort) => Ok(Stage::Abort),
        Ok(v1::Stage::Unspecified) | Err(_) => Err(unknown),
    }
}

pub fn stage_to_wire(stage: Stage) -> v1::Stage {
    match stage {
        Stage::Survey => v1::Stage::Survey,
        Stage::Prepare => v1::Stage::Prepare,
        Stage::Scatter => v1::Stage::Scatter,
        Stage::Execute => v1::Stage::Execute,
        Stage::Merge => v1::Stage::Merge,
        Stage::Publish => v1::Stage::Publish,
        Stage::Abort => v1::Stage::Abort,
    }
}

pub fn task(wire: Option<&v1::TaskKey>) -> Result<TaskKey, WireError> {
    let wire = wire.ok_or(WireError::Missing("the task"))?;
    Ok(TaskKey {
        run: RunId(uuid("the run id", &wire.run)?),
        step: u16::try_from(wire.step).map_err(|_| WireError::Unknown {
            what: "the step number",
            value: i64::from(wire.step),
        })?,
        stage: stage(wire.stage)?,
        partition: wire.partition,
    })
}

/// `run` is the run id's bytes, shared by all tasks of the run.
pub fn task_to_wire(task: TaskKey, run: Bytes) -> v1::TaskKey {
    v1::TaskKey {
        run,
        step: u32::from(task.step),
        stage: stage_to_wire(task.stage).into(),
        partition: task.partition,
    }
}

pub fn fence(wire: Option<&v1::Fence>) -> Result<Fence, WireError> {
    let wire = wire.ok_or(WireError::Missing("the fence"))?;
    Ok(Fence {
        number: wire.number,
        id: AttemptId {
            term: Term(wire.term),
            serial: wire.serial,
        },
    })
}

pub fn fence_to_wire(fence: Fence) -> v1::Fence {
    v1::Fence {
        number: fence.number,
        term: fence.id.term.0,
        serial: fence.id.serial,
    }
}

pub fn units(low: u64, high: u64) -> Result<UnitRange, WireError> {
    if low <= high {
        Ok(UnitRange::new(low, high))
    } else {
        Err(WireError::Range { low, high })
    }
}

pub fn counters(wire: Option<&v1::Counters>) -> Counters {
    wire.map_or_else(Counters::default, |wire| Counters {
        read: wire.read,
        written: wire.written,
        filtered: wire.filtered,
        rejected: wire.rejected,
        bytes_read: wire.bytes_read,
        bytes_written: wire.bytes_written,
    })
}

fn counters_to_wire(counters: Counters) -> v1::Counters {
    v1::Counters {
        read: counters.read,
        written: counters.written,
        filtered: counters.filtered,
        rejected: counters.rejected,
        bytes_read: counters.bytes_read,
        bytes_written: counters.bytes_written,
    }
}

/// An empty text is the fingerprint of nothing.
fn records(wire: &[u8]) -> Result<RecordHash, WireError> {
    if wire.is_empty() {
        return Ok(RecordHash::default());
    }
    let bytes = wire.try_into().map_err(|_| WireError::Length {
        what: "the fingerprint",
        len: wire.len(),
        expected: 16,
    })?;
    Ok(RecordHash(u128::from_be_bytes(bytes)))
}

fn records_to_wire(records: RecordHash) -> Bytes {
    if records == RecordHash::default() {
        // Saves an allocation for each empty partition; reads back as the same.
        return Bytes::from_static(&[0; 16]);
    }
    Bytes::copy_from_slice(&records.0.to_be_bytes())
}

pub fn commit_to_wire(task: v1::TaskKey, fence: v1::Fence, commit: &Commit) -> v1::CommitRequest {
    v1::CommitRequest {
        task: Some(task),
        fence: Some(fence),
        seq: commit.seq,
        previous: commit.previous,
        next: commit.next,
        counters: Some(counters_to_wire(commit.counters)),
        records: records_to_wire(commit.records),
        digest: commit.digest,
        last: commit.last,
    }
}

pub fn committed(wire: v1::CommittedPartition) -> Result<CommittedPartition, WireError> {
    Ok(CommittedPartition {
        partition: wire.partition,
        units: units(wire.low, wire.high)?,
        position: wire.position,
        counters: counters(wire.counters.as_ref()),
        records: records(&wire.records)?,
        segments: wire
            .segments
            .iter()
            .map(|segment| Segment {
                attempt: AttemptId {
                    term: Term(segment.term),
                    serial: segment.serial,
                },
                first_seq: segment.first_seq,
                next_seq: segment.next_seq,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_the_wire() {
        let run = RunId(Uuid::from_u128(7));
        for stage in Stage::ALL {
            let key = TaskKey {
                run,
                step: 3,
                stage,
                partition: 9,
            };
            assert_eq!(task(Some(&task_to_wire(key, bytes(run.0)))), Ok(key));
        }
        let right = Fence {
            number: 4,
            id: AttemptId {
                term: Term(5),
                serial: 6,
            },
        };
        assert_eq!(fence(Some(&fence_to_wire(right))), Ok(right));
        for hash in [RecordHash(0), RecordHash(1), RecordHash(u128::MAX - 5)] {
            assert_eq!(records(&records_to_wire(hash)), Ok(hash));
        }
    }

    #[test]
    fn what_is_malformed_is_told_and_not_guessed() {
        let mut wire = task_to_wire(
            TaskKey {
                run: RunId(Uuid::nil()),
                step: 0,
                stage: Stage::Survey,
                partition: 0,
            },
            bytes(Uuid::nil()),
        );
        assert_eq!(task(None), Err(WireError::Missing("the task")));
        wire.stage = 99;
        assert_eq!(
            task(Some(&wire)),
            Err(WireError::Unknown {
                what: "the stage",
                value: 99
            })
        );
        wire.run = Bytes::from_static(b"short");
        assert_eq!(
            task(Some(&wire)),
            Err(WireError::Length {
                what: "the run id",
                len: 5,
                expected: 16
            })
        );
        assert_eq!(units(2, 1), Err(WireError::Range { low: 2, high: 1 }));
    }
}
