//! Every bound of the core, with its reason.

/// Rows of one decision. etcd allows 128 operations in a transaction; the batch adds its own
/// compares and puts.
pub const MAX_ROWS: usize = 96;

/// Grants of one assignment decision; each creates one row. Two such decisions fill a batch of etcd's.
pub const MAX_GRANTS: usize = 48;

/// Leases that one decision voids; each is two rows (the lease goes, the attempt is remembered).
pub const MAX_VOIDED: usize = 30;

/// Leases that move to a worker's new session; one row each. Of what it holds beyond, nothing is begun
/// yet as a rule, and it is granted anew.
pub const MAX_MOVED: usize = 64;

/// Steps that one decision begins or ends; a job may have ten times as many.
pub const MAX_STEPS: usize = 64;

/// Partitions in one plan row: about 40 KB of JSON, far below etcd's 1.5 MiB for a request.
pub const PARTITIONS_PER_ROW: usize = 256;

/// Plan rows of one decision: a request of about 1 MiB.
pub const PLAN_ROWS: usize = 24;

/// Partitions that one decision adds to a stage in cutting it anew; a larger growth takes several.
pub const MAX_RECUT: usize = 5 * PARTITIONS_PER_ROW;

/// What is left of a step is cut anew when there are so many times the slots that it was cut for: each
/// slot had several partitions, and workers that join one by one bring it about a few times only.
pub const SLOTS_GROWN: u32 = 2;

/// How often a step of one run can be planned anew; then the run has to be cancelled. Each time costs its plan rows,
/// which stay as long as the run is known.
pub const MAX_EDITIONS: u32 = 1000;

/// Runs that are not ended. More are refused at submit: state in memory is bounded.
pub const MAX_LIVE_RUNS: usize = 1000;

/// Workers in session. One more is refused: each costs a row, a stream and a look in every tick.
pub const MAX_SESSIONS: usize = 10_000;

/// Tasks queued at a worker beyond its slots while they take less than a message's round trip.
pub const MAX_PREFETCH: usize = 256;

/// Work queued ahead at a worker, by its own recent speed. Long enough to hide a durable batch and
/// a round trip, short enough that a lost worker holds little.
pub const PREFETCH_WINDOW_MICROS: u64 = 20_000;

/// Stages whose pace is kept for each worker: those that it works on in turn where runs share it.
pub const MAX_PACES: usize = 4;

/// Workers that are looked at for a task that would be granted ahead. The least busy come first and are
/// alike as a rule, so one of the first has room or none has; a miss costs a moment.
pub const LOOKS_AHEAD: usize = 16;

/// Steps of which it is remembered how fast they went; some hundred bytes each.
pub const MAX_SPEEDS: usize = 4096;

/// A task whose worker was lost so often runs alone on a worker from then on.
pub const LOSSES_BEFORE_ALONE: u32 = 2;

/// Lost so often, the last times while it was alone, it is taken to be what kills its workers.
pub const LOSSES_BEFORE_QUARANTINE: u32 = 4;

/// Wait before the second attempt at a task that failed in a way that may pass; doubles with each
/// further failure.
pub const RETRY_FIRST_MILLIS: u64 = 200;

/// The longest such wait.
pub const RETRY_LONGEST_MILLIS: u64 = 30_000;

/// Stages that tell no position (a survey of many files, a publication that links many) get so many
/// times the stall deadline: every wait ends, and none of them takes an hour and a half.
pub const STALLS_WITHOUT_POSITION: u64 = 6;

/// Entries kept of the history of each run: its whole life as a rule, and some 60 KB at most.
pub const EVENTS_PER_RUN: usize = 512;

const _: () = assert!(MAX_GRANTS < MAX_ROWS);
// Each partition that is added may narrow another, in both stages over data.
const _: () = assert!(2 * (2 * MAX_RECUT / PARTITIONS_PER_ROW + 1) <= PLAN_ROWS);
// The new session, and the former ones of the worker: one that lives and a few that are void.
const _: () = assert!(MAX_MOVED + 8 <= MAX_ROWS);
// A voided lease may also settle its run.
const _: () = assert!(3 * MAX_VOIDED + 4 <= MAX_ROWS);
// A step that is published, its task and its run are changed with those that it lets begin.
const _: () = assert!(MAX_STEPS + 8 <= MAX_ROWS);
const _: () = assert!(LOSSES_BEFORE_ALONE < LOSSES_BEFORE_QUARANTINE);
