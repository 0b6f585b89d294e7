//! How many submits are taken: so many at a time, and so many a second. More are refused with the time
//! after which they may come again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gapless_platform::clock::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::crowded;
use crate::limits::{SUBMIT_BURST, SUBMITS_AT_ONCE, SUBMITS_PER_SECOND};

/// Clones count together.
#[derive(Clone)]
pub struct Submits {
    clock: Clock,
    at_once: Arc<Semaphore>,
    bucket: Arc<Mutex<Bucket>>,
}

/// A token bucket: full after a pause, one token less with each submit.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// When tokens were last added, on the monotonic clock.
    filled: Duration,
}

impl Bucket {
    fn take(&mut self, now: Duration) -> bool {
        let since = now.saturating_sub(self.filled);
        self.filled = now;
        let more = since.as_secs_f64() * f64::from(SUBMITS_PER_SECOND);
        self.tokens = (self.tokens + more).min(f64::from(SUBMIT_BURST));
        let there = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(there));
        there
    }
}

impl Submits {
    pub fn new(clock: Clock) -> Submits {
        Submits {
            at_once: Arc::new(Semaphore::new(SUBMITS_AT_ONCE)),
            bucket: Arc::new(Mutex::new(Bucket {
                tokens: f64::from(SUBMIT_BURST),
                filled: clock.monotonic(),
            })),
            clock,
        }
    }

    /// A place for one submit, kept while its job file is read.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let at_once = || {
            crowded(format!(
                "{SUBMITS_AT_ONCE} job files are being read, which is the limit; submit again in a moment"
            ))
        };
        let permit = self.at_once.clone().try_acquire_owned().map_err(|_| at_once())?;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        match bucket.take(self.clock.monotonic()) {
            true => Ok(permit),
            false => Err(crowded(format!(
                "more than {SUBMITS_PER_SECOND} submits a second, which is the limit over longer times; submit again in a moment"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_submits_are_taken_at_a_time_and_a_second() {
        let clock = Clock::manual(0);
        let submits = Submits::new(clock.clone());
        let held: Vec<_> = (0..SUBMITS_AT_ONCE)
            .map(|_| submits.admit().expect("a place"))
            .collect();
        let refused = submits.admit().expect_err("one too many");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("8 job files are being read"), "{refused:?}");
        assert_eq!(
            refused
                .metadata()
                .get(gapless_proto::RETRY_KEY)
                .and_then(|it| it.to_str().ok()),
            Some("500")
        );
        drop(held);
        let taken = |most: usize| (0..most).take_while(|_| submits.admit().is_ok()).count();
        assert_eq!(
            taken(2 * SUBMIT_BURST as usize),
            SUBMIT_BURST as usize - SUBMITS_AT_ONCE
        );
        let refused = submits.admit().expect_err("too soon");
        assert!(refused.message().contains("50 submits a second"), "{refused:?}");
        clock.advance(Duration::from_millis(100));
        assert_eq!(taken(100), SUBMITS_PER_SECOND as usize / 10);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(taken(2 * SUBMIT_BURST as usize), SUBMIT_BURST as usize);
    }
}
