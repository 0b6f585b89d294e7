//! Every bound of the shell, with its reason.

use std::time::Duration;

/// Events waiting for the control loop. A sender waits beyond it, which is the back-pressure on
/// workers and clients.
pub const EVENT_QUEUE: usize = 1024;

/// Messages of the queue taken into one batch, so that answers never wait for an endless batch.
pub const MESSAGES_PER_BATCH: usize = 256;

/// Messages waiting for one worker. When it is full they are dropped: each heartbeat brings them again.
pub const OUTBOX: usize = 256;

/// How often the loop looks at the clock: sessions, waits and stalls are noticed so much later at most.
pub const TICK: Duration = Duration::from_millis(50);

/// How often gauges of the state are published: far more often than anyone scrapes, far more seldom than
/// a look over all live runs would cost anything.
pub const METRICS_INTERVAL: Duration = Duration::from_millis(500);

/// A leading loop that has not turned for so long is stuck: it turns with every tick, and no store
/// transaction may take so long.
pub const LOOP_SILENCE: Duration = Duration::from_secs(60);

/// Notable events that travel with each state of a run; the whole history is asked for apart.
pub const NOTABLE_EVENTS: usize = 64;

/// How often one watcher is told of changes at most.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// A commit or heartbeat is a few hundred bytes; facts of 10,000 files are about 2 MiB.
pub const MESSAGE_LIMIT: usize = 64 * 1024 * 1024;

/// Partitions in one page of `ListCommitted`.
pub const COMMITTED_PAGE: usize = 2000;

/// An attempt whose position has not moved for so long is given to another worker.
pub const STALL: Duration = Duration::from_secs(600);

/// An orderly end of the loop waits for the batch under way; beyond this the loop is told to give it up.
pub const LOOP_GRACE: Duration = Duration::from_secs(2);

/// A leader that has not confirmed its term for this part of the time after which others may lead
/// speaks to nobody until it has. The other parts are for what it said last to have its effect.
pub const CONFIRM_FRACTION: u32 = 3;
