//! Between the wire and the core: messages in, typed events out, and back. Nothing is decided here.

use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{AttemptId, RunId, SessionId, Stage, TaskKey, Term},
};
use gapless_core::{
    event::{Event, Grant, Held, StageResult},
    row::Publication,
};
use gapless_proto::v1;
use uuid::Uuid;

/// A message that does not follow the protocol. The sender's session ends.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} does not hold what it should")]
    Invalid { field: &'static str },
}

fn need<T>(value: Option<T>, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { field })
}

pub fn uuid(bytes: &[u8], field: &'static str) -> Result<Uuid, WireError> {
    Uuid::from_slice(bytes).map_err(|_| WireError::Invalid { field })
}

pub fn stage(stage: i32) -> Result<Stage, WireError> {
    match v1::Stage::try_from(stage) {
        Ok(v1::Stage::Survey) => Ok(Stage::Survey),
        Ok(v1::Stage::Prepare) => Ok(Stage::Prepare),
        Ok(v1::Stage::Scatter) => Ok(Stage::Scatter),
        Ok(v1::Stage::Execute) => Ok(Stage::Execute),
        Ok(v1::Stage::Merge) => Ok(Stage::Merge),
        Ok(v1::Stage::Publish) => Ok(Stage::Publish),
        Ok(v1::Stage::Abort) => Ok(Stage::Abort),
        Ok(v1::Stage::Unspecified) | Err(_) => Err(WireError::Invalid { field: "stage" }),
    }
}

pub fn stage_out(stage: Stage) -> v1::Stage {
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

pub fn task(task: Option<v1::TaskKey>) -> Result<TaskKey, WireError> {
    let task = need(task, "task")?;
    Ok(TaskKey {
        run: RunId(uuid(&task.run, "task.run")?),
        step: u16::try_from(task.step).map_err(|_| WireError::Invalid { field: "task.step" })?,
        stage: stage(task.stage)?,
        partition: task.partition,
    })
}

pub fn task_out(task: TaskKey) -> v1::TaskKey {
    v1::TaskKey {
        run: task.run.0.as_bytes().to_vec().into(),
        step: u32::from(task.step),
        stage: stage_out(task.stage) as i32,
        partition: task.partition,
    }
}

pub fn fence(fence: Option<v1::Fence>) -> Result<Fence, WireError> {
    let fence = need(fence, "fence")?;
    Ok(Fence {
        number: fence.number,
        id: AttemptId {
            term: Term(fence.term),
            serial: fence.serial,
        },
    })
}

pub fn fence_out(fence: Fence) -> v1::Fence {
    v1::Fence {
        number: fence.number,
        term: fence.id.term.0,
        serial: fence.id.serial,
    }
}

pub fn counters_out(counters: Counters) -> v1::Counters {
    v1::Counters {
        read: counters.read,
        written: counters.written,
        filtered: counters.filtered,
        rejected: counters.rejected,
        bytes_read: counters.bytes_read,
        bytes_written: counters.bytes_written,
    }
}

fn counters(counters: Option<v1::Counters>) -> Counters {
    let counters = counters.unwrap_or_default();
    Counters {
        read: counters.read,
        written: counters.written,
        filtered: counters.filtered,
        rejected: counters.rejected,
        bytes_read: counters.bytes_read,
        bytes_written: counters.bytes_written,
    }
}

fn records(bytes: &[u8]) -> Result<RecordHash, WireError> {
    match bytes.len() {
        0 => Ok(RecordHash::default()),
        _ => {
            let bytes: [u8; 16] = bytes.try_into().map_err(|_| WireError::Invalid { field: "records" })?;
            Ok(RecordHash(u128::from_be_bytes(bytes)))
        }
    }
}

pub fn held(held: Vec<v1::HeldAttempt>) -> Result<Vec<Held>, WireError> {
    held.into_iter()
        .map(|held| {
            let (task, fence) = (task(held.task)?, fence(held.fence)?);
            Ok(Held {
                task,
                fence,
                position: held.position,
                rows: held.rows,
            })
        })
        .collect()
}

/// A worker's event after its hello.
pub fn event(session: SessionId, event: v1::WorkerEvent) -> Result<Event, WireError> {
    use v1::worker_event::Event as Wire;
    Ok(match need(event.event, "event")? {
        Wire::Hello(_) => {
            return Err(WireError::Invalid {
                field: "hello, which comes once",
            });
        }
        Wire::Heartbeat(it) => Event::Heard {
            session,
            held: held(it.held)?,
            resident_bytes: it.resident_bytes,
        },
        Wire::Commit(it) => Event::Commit {
            session,
            task: task(it.task)?,
            fence: fence(it.fence)?,
            commit: Commit {
                seq: it.seq,
                previous: it.previous,
                next: it.next,
                counters: counters(it.counters),
                records: records(&it.records)?,
                digest: it.digest,
                last: it.last,
            },
        },
        Wire::Finished(it) => {
            let key = task(it.task)?;
            Event::Finished {
                session,
                task: key,
                fence: fence(it.fence)?,
                result: result(key.stage, &it.result)?,
            }
        }
        Wire::Failed(it) => {
            let class = ErrorClass::from_name(&it.class).ok_or(WireError::Invalid { field: "failed.class" })?;
            let error = TaskError::new(class, it.message);
            Event::Failed {
                session,
                task: task(it.task)?,
                fence: fence(it.fence)?,
                error,
            }
        }
        Wire::Drain(_) => Event::Drain { session },
        Wire::Said(it) => Event::Said {
            session,
            task: task(it.task)?,
            fence: fence(it.fence)?,
            text: it.text,
        },
        Wire::Released(it) => Event::Released {
            session,
            task: task(it.task)?,
            fence: fence(it.fence)?,
        },
    })
}

/// What an abort task reports.
#[derive(serde::Deserialize)]
struct Abortion {
    /// Present where the step had been published before.
    #[serde(default)]
    publication: Option<Publication>,
}

fn result(stage: Stage, json: &[u8]) -> Result<StageResult, WireError> {
    let invalid = |_| WireError::Invalid {
        field: "finished.result",
    };
    Ok(match stage {
        Stage::Survey => StageResult::Facts(serde_json::from_slice(json).map_err(invalid)?),
        Stage::Prepare => {
            let text = std::str::from_utf8(json).map_err(|_| WireError::Invalid {
                field: "finished.result",
            })?;
            StageResult::Prepared(text.to_string())
        }
        // Those over data end with a commit, or find that their step is published.
        Stage::Publish | Stage::Scatter | Stage::Execute | Stage::Merge => {
            StageResult::Published(serde_json::from_slice(json).map_err(invalid)?)
        }
        Stage::Abort => {
            let abortion: Abortion = serde_json::from_slice(json).map_err(invalid)?;
            StageResult::Aborted(abortion.publication)
        }
    })
}

pub fn grant_out(grant: Grant) -> v1::leader_command::Command {
    v1::leader_command::Command::Grant(v1::Grant {
        task: Some(task_out(grant.task)),
        fence: Some(fence_out(grant.fence)),
        low: grant.units.low,
        high: grant.units.high,
        position: grant.position,
        seq: grant.seq,
        edition: grant.edition,
    })
}
