//! Time, as a value that is handed down: a test moves its own clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Tells the time. Clones of a manual clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System { started: Instant },
    Manual { micros: Arc<AtomicU64> },
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Clock(Kind::System {
            started: Instant::now(),
        })
    }

    /// A clock that stands at `epoch_micros` until it is moved by [`Clock::advance`].
    pub fn manual(epoch_micros: u64) -> Self {
        Clock(Kind::Manual {
            micros: Arc::new(AtomicU64::new(epoch_micros)),
        })
    }

    /// Microseconds since 1970-01-01T00:00:00Z. May jump when the machine's clock is set: for
    /// people and for records, not for measuring.
    pub fn now_micros(&self) -> i64 {
        match &self.0 {
            Kind::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
            Kind::Manual { micros } => i64::try_from(micros.load(Ordering::SeqCst)).unwrap_or(i64::MAX),
        }
    }

    /// Time since some fixed moment of this process; never runs backwards.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Kind::System { started } => started.elapsed(),
            Kind::Manual { micros } => Duration::from_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward. The machine's clock is not moved by anyone.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual { micros } = &self.0 {
            let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
            micros.fetch_add(by, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_manual_clock_move_together() {
        let clock = Clock::manual(5);
        let other = clock.clone();
        other.advance(Duration::from_millis(1));
        assert_eq!(
            (clock.now_micros(), clock.monotonic()),
            (1005, Duration::from_micros(1005))
        );
    }

    #[test]
    fn the_system_clock_tells_this_century_and_does_not_run_backwards() {
        let clock = Clock::system();
        let first = clock.monotonic();
        assert!(clock.now_micros() > 1_700_000_000_000_000);
        assert!(clock.monotonic() >= first);
    }
}
