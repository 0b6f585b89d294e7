//! Every limit of a session, with its reason.

use std::time::Duration;

/// How long a TCP connection may take. Loopback and data centres need milliseconds; one that takes
/// longer is better tried at another endpoint.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// A worker without a leader looks for one so many times in a lease time, at least: one endpoint after
/// the other, each of which knows who leads.
pub const DIALS_PER_LEASE: u32 = 6;

/// From the opened stream to the leader's welcome, which waits for one store transaction.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(3);

/// One call beside the session. Listings are paged, so an answer takes milliseconds.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection is asked for life so often, and is given up when it does not answer for so long:
/// a leader that was paused or cut off is noticed without data to send.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Granted tasks that wait for a slot. The leader's own limit on tasks granted ahead is far lower;
/// what comes beyond is given back at once.
pub const MAX_QUEUED: usize = 4096;

/// What slots have said and the session has not taken up yet. A slot that finds it full waits.
pub const MAX_SAID: usize = 1024;

/// Events of one message to the leader. Some 100 bytes each: a message stays far below the
/// 4 MiB that gRPC servers accept unless told otherwise.
pub const MAX_EVENTS_PER_MESSAGE: usize = 1024;

/// Messages to the leader that the connection has not taken yet; more would only be latency.
pub const MAX_OUTBOUND_MESSAGES: usize = 4;

/// A message of the leader: a batch of grants and replies.
pub const MAX_SESSION_MESSAGE_BYTES: usize = 16 << 20;

/// A step's frame carries one entry for each input file, and the job file of up to 1 MiB.
pub const MAX_CALL_MESSAGE_BYTES: usize = 256 << 20;

/// Attempts that are over, as the leader knows, remembered so that a grant that was sent twice and
/// arrives late is not run again. Covers the grants that can be in flight between two heartbeats.
pub const MAX_OVER: usize = 16 * 1024;

/// Reports of ended attempts (finished, failed, released) remembered so that they can be repeated.
/// They are not confirmed by the leader, only by its silence.
pub const MAX_REPORTS: usize = 256;

/// Steps whose context is kept: those of the runs that a worker serves at one time.
pub const MAX_CONTEXTS: usize = 64;

/// Runs whose parsed job file is kept: as many as there can be contexts of.
pub const MAX_JOBS: usize = MAX_CONTEXTS;

/// Time from the wish to leave for what is open to come to a checkpoint. What has not by then (a partition
/// that must be read as a whole, a chunk on a slow disk) is given back at its last commit.
pub const DRAIN_GRACE: Duration = Duration::from_secs(4);

/// A worker that was asked to leave is gone after so long, whatever is open.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// How often the session looks whether a leader was heard within the lease time, in order to tell.
pub const SUSPECT_LOOK: Duration = Duration::from_millis(100);

/// Time for the last messages to reach the leader and for slots to notice the end.
pub const LEAVE_GRACE: Duration = Duration::from_millis(500);

/// A heartbeat interval is never shorter, whatever the leader asks for.
pub const MIN_HEARTBEAT: Duration = Duration::from_millis(10);

// The last words, and the slots' end. Process managers commonly give twice as much (10 s).
const _: () = assert!(DRAIN_GRACE.as_millis() + 2 * LEAVE_GRACE.as_millis() <= DRAIN_LIMIT.as_millis());

/// A commit is offered again when it was not answered for this part of a lease time: a leader with
/// many workers may drop a reply, and answers in milliseconds when it does not.
pub const OFFER_AGAIN_FRACTION: u32 = 4;
