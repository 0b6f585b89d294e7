//! Every bound towards etcd, with its reason.

use std::time::Duration;

use gapless_platform::retry::Policy;

/// Operations of a transaction that etcd allows unless it is told otherwise (`--max-txn-ops`). Its
/// compares, what it does on success and what it reads on failure are counted apart. A transaction in a
/// transaction may have so many less as its parent has: the depth is bounded, the breadth is not.
const ETCD_OPERATIONS: usize = 128;

/// Rows that one batch may create: each is a compare, and all compares stand in the one transaction that
/// decides. Beside them a batch compares the leader's key and the number of the batch before. Of neighbours one
/// compare does for all.
pub const CREATES_PER_BATCH: usize = 96;

/// Leases that one batch creates as a rule, since those of a step are neighbours: as many as two workers have
/// ahead of them. It keeps them busy while etcd writes, at 30 µs a lease.
pub const LEASES_PER_BATCH: usize = 2 * gapless_core::limits::MAX_PREFETCH;

/// Writes of a batch go in groups, each a transaction within that of the batch, so that a batch may hold
/// more of them than a transaction has operations. Large batches are what makes etcd fast: on one machine
/// 47,000 keys/s in transactions of 90 puts, 130,000 in transactions of 30 times 90.
pub const ROWS_PER_GROUP: usize = 28;
const GROUPS: usize = 80;
pub const ROWS_PER_BATCH: usize = ROWS_PER_GROUP * GROUPS;

/// A decision is one batch, whatever the store.
const _: () = assert!(CREATES_PER_BATCH >= gapless_core::limits::MAX_ROWS);
const _: () = assert!(CREATES_PER_BATCH >= 2 * gapless_core::limits::MAX_GRANTS);
const _: () = assert!(CREATES_PER_BATCH + 2 + ROWS_PER_GROUP <= ETCD_OPERATIONS);
const _: () = assert!(GROUPS + 1 + ROWS_PER_GROUP <= ETCD_OPERATIONS);

/// Values of one transaction, in bytes. etcd takes requests of 1.5 MiB (`--max-request-bytes`); the
/// rest is for keys, each of which takes about a hundred bytes.
pub const BATCH_BYTES: usize = 1 << 20;

/// Leases whose keys the leader keeps in mind, at some hundred bytes each: ten for each of the most workers there
/// may be. With more, each lease is an operation of its own.
pub const MAX_KNOWN: usize = 100_000;

/// A value above this is written in parts before the batch that refers to it. Most rows take a few
/// hundred bytes, a slice of a plan 40 KB; job texts and facts of many files are larger.
pub const INLINE_BYTES: usize = 128 << 10;

/// One part, far enough below a request.
pub const PART_BYTES: usize = 512 << 10;

/// Rows and parts of one page of a listing.
pub const ROWS_PER_PAGE: usize = 256;
pub const PARTS_PER_PAGE: usize = 32;

/// Keys alone of one page: some 60 bytes each.
pub const PART_KEYS_PER_PAGE: usize = 4096;

/// How often parts that no row refers to are looked for. They come of batches that were cut off and of rows
/// that were replaced: a few in a day.
pub const COLLECT: Duration = Duration::from_secs(3600);

/// Parts removed at a time: half a GiB of them, in a dozen transactions. The rest waits for the next time.
pub const MAX_COLLECTED: usize = 1024;

/// An answer: a page of the largest rows, with their keys.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
const _: () = assert!(2 * ROWS_PER_PAGE * INLINE_BYTES <= MAX_ANSWER_BYTES);
const _: () = assert!(2 * PARTS_PER_PAGE * PART_BYTES <= MAX_ANSWER_BYTES);
const _: () = assert!(PART_BYTES <= BATCH_BYTES);

/// How long a connection to a member may take. A data centre needs milliseconds; another member is
/// the better way.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// One call. etcd answers in milliseconds; while its members choose a leader, not for two seconds,
/// and asking another one costs nothing.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Signing in. etcd takes a tenth of a second of a processor to check a password, on purpose.
pub const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(5);

/// One page of a listing, which may be tens of MiB.
pub const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is asked for life so often. etcd cuts those that ask more often than every 5 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Asking again where that is harmless. Longer than etcd needs to replace a dead leader (2 to 3 s).
pub const ASK_AGAIN: Policy = Policy {
    first_delay: Duration::from_millis(20),
    longest_delay: Duration::from_millis(500),
    give_up_after: Some(Duration::from_secs(10)),
};

/// Asking for the outcome of a batch: until it is known or the term is lost. Nothing else would be
/// right, and nobody is answered meanwhile.
pub const UNKNOWN: Policy = Policy {
    first_delay: Duration::from_millis(20),
    longest_delay: Duration::from_secs(1),
    give_up_after: None,
};

/// A standby's pause after a watch that failed, so that a broken member is not asked without end.
pub const WATCH_AGAIN: Policy = Policy {
    first_delay: Duration::from_millis(50),
    longest_delay: Duration::from_secs(1),
    give_up_after: None,
};

/// A standby reads the leader's key again so often, whatever its watch says: a watch can fall silent.
pub const REREAD: Duration = Duration::from_secs(5);

/// The leader confirms its term so many times in the time to live of its key: three times in the part
/// of it after which it would close its sessions.
pub const CONFIRMS_PER_TTL: u32 = 9;

/// How often the leader compacts, and looks how full etcd is. What is older than two such times is
/// compacted; nobody reads it: a listing takes seconds, and a watch that is too late lists again. At
/// etcd's full speed (37,000 keys/s of 330 bytes here) that keeps below 400 MB.
pub const UPKEEP: Duration = Duration::from_secs(15);

/// How often a listing begins anew because the moment it shows was compacted meanwhile.
pub const LISTINGS: u32 = 5;

/// Full to this part, in percent, etcd takes no new jobs: those that run need the rest.
pub const FULL_PERCENT: u64 = 70;

/// A store that cannot be reached for so long at the start is taken to be named wrongly.
pub const START: Policy = Policy {
    first_delay: Duration::from_millis(50),
    longest_delay: Duration::from_secs(1),
    give_up_after: Some(Duration::from_secs(15)),
};
