//! Every bound of the shell, with its reason.

use std::time::Duration;

/// Events waiting for the control loop. A worker's stream is not read beyond it, which is the back-pressure
/// on workers; a client waits for [`QUEUE_WAIT`].
pub const EVENT_QUEUE: usize = 1024;

/// How long a call waits for a place in the queue. A loop that is so far behind has more than a second's
/// work before it; calling again later is better than waiting in a crowd.
pub const QUEUE_WAIT: Duration = Duration::from_secs(2);

/// When a call that was refused for a moment's crowd may be made again.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);

/// While so many events wait, workers that were not heard are not taken for lost: their words may be among
/// what waits, or behind it.
pub const BEHIND: usize = EVENT_QUEUE / 2;

/// Job files read at a time. Each may take a second of a processor and some hundred megabytes.
pub const SUBMITS_AT_ONCE: usize = 8;

/// Submits a second over longer times, and at once after a pause: all the runs that may live.
pub const SUBMITS_PER_SECOND: u32 = 50;
pub const SUBMIT_BURST: u32 = 1000;

/// From the opening of a worker's stream to its hello.
pub const HELLO_WAIT: Duration = Duration::from_secs(10);

/// A worker whose connection broke has this part of the lease time to come back and keep what it holds,
/// before it is taken for lost. It dials at once and then every few hundred milliseconds at first.
pub const RETURN_FRACTION: u32 = 10;
/// However long the lease time is: a killed worker's tasks wait for so long, and are to be elsewhere in 0.2 s.
/// A worker that dials at once is back within milliseconds.
pub const RETURN_MOST: Duration = Duration::from_millis(100);

/// How often the token of an open session is looked up again.
pub const TOKEN_LOOK: Duration = Duration::from_secs(1);

/// Messages of the queue taken into one batch, so that answers never wait for an endless batch.
pub const MESSAGES_PER_BATCH: usize = 256;

/// Messages waiting for one worker. When it is full they are dropped: each heartbeat brings them again.
pub const OUTBOX: usize = 256;

/// How often the loop looks at the clock: sessions, waits and stalls are noticed so much later at most.
pub const TICK: Duration = Duration::from_millis(50);

/// A loop that turns to its queue later than this has not listened to anybody in between: five ticks, which
/// a busy machine does not delay, and less than the shortest lease.
pub const HARD_OF_HEARING: Duration = Duration::from_millis(250);

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

/// A client's message is a job file of at most 1 MiB and its parameters.
pub const REQUEST_LIMIT: usize = 4 * 1024 * 1024;

/// Connections open at a time: one for each worker there may be and some thousands for clients, and below
/// what a process may open where limits are set for servers.
pub const CONNECTIONS: usize = 16_384;
const _: () = assert!(CONNECTIONS > gapless_core::limits::MAX_SESSIONS);
const _: () = assert!(SUBMIT_BURST as usize >= gapless_core::limits::MAX_LIVE_RUNS);

/// Connections that have not yet said what they want. More wait in the system's queue.
pub const HANDSHAKES: usize = 1024;

/// From a connection's opening to its first words: three round trips of a slow line and the handshake.
pub const OPENING: Duration = Duration::from_secs(10);

/// A connection that is closed is listened to for so long and so much, so that it hears why.
pub const LINGER: Duration = Duration::from_secs(1);
pub const LINGER_BYTES: usize = 64 * 1024;

/// After a connection could not be taken, such as for want of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Calls under way on one connection. A worker has one session, and one call for each slot.
pub const STREAMS: u32 = 1100;

/// A silent connection is asked for life so often, and closed when it does not answer for so long: a
/// machine that vanished gives its seat back.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes of one text in the audit log, such as a reason. What it cuts is in the caller's hands anyway.
pub const AUDIT_TEXT: usize = 512;

/// Bytes of one line of the audit file: seven texts, each sign of which may take six bytes, and the rest.
pub const AUDIT_LINE: usize = 24 * 1024;

const _: () = assert!(AUDIT_LINE >= 7 * 6 * AUDIT_TEXT + 512);

/// Partitions in one page of `ListCommitted`.
pub const COMMITTED_PAGE: usize = 2000;

/// An attempt whose position has not moved for so long is given to another worker.
pub const STALL: Duration = Duration::from_secs(600);

/// How often a leader writes down how far its cluster has come: what comes later is known to workers only.
pub const REMEMBER: Duration = Duration::from_secs(10);

/// An operator who accepts a restore waits for so long at most for a store that does not answer.
pub const ACCEPT_PATIENCE: Duration = Duration::from_secs(20);

/// An orderly end of the loop waits for the batch under way; beyond this the loop is told to give it up.
pub const LOOP_GRACE: Duration = Duration::from_secs(2);

/// A leader that has not confirmed its term for this part of the time after which others may lead
/// speaks to nobody until it has. The other parts are for what it said last to have its effect.
pub const CONFIRM_FRACTION: u32 = 3;
