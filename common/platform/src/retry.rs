//! Trying again: exponential delays with jitter, and a cap of our own on each.
//!
//! The one place that touches the crate `backoff`, whose defaults (half a second at first, giving
//! up silently after a quarter of an hour) are never used.

use std::{fmt, future::Future, time::Duration};

use backoff::{SystemClock, backoff::Backoff, exponential::ExponentialBackoff};
use tokio_util::sync::CancellationToken;

/// Each delay is this times the one before, until the longest is reached.
const MULTIPLIER: f64 = 2.0;

/// Each delay is spread evenly over ±50 %, so that those who failed together do not return together.
const JITTER: f64 = 0.5;

/// How long to wait between tries, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub first_delay: Duration,
    pub longest_delay: Duration,
    /// No try is begun later than this after the first. `None`: go on until told to stop.
    pub give_up_after: Option<Duration>,
}

/// Reaching a coordinator. Forever: a fail-over may take as long as it takes. A first delay well
/// below a lease, so that a restarted coordinator finds its workers back before their leases end;
/// a longest that keeps 1,000 waiting workers at 500 connections a second.
pub const CONNECT: Policy = Policy {
    first_delay: Duration::from_millis(50),
    longest_delay: Duration::from_secs(2),
    give_up_after: None,
};

/// One call to a coordinator that is known to be there.
pub const CALL: Policy = Policy {
    first_delay: Duration::from_millis(20),
    longest_delay: Duration::from_secs(1),
    give_up_after: Some(Duration::from_secs(60)),
};

/// The delays of one [`Policy`], in turn.
#[derive(Debug)]
pub struct Delays(ExponentialBackoff<SystemClock>);

impl Delays {
    pub fn new(policy: Policy) -> Self {
        let mut delays = ExponentialBackoff::<SystemClock> {
            initial_interval: policy.first_delay,
            multiplier: MULTIPLIER,
            randomization_factor: JITTER,
            max_interval: policy.longest_delay,
            max_elapsed_time: policy.give_up_after,
            ..Default::default()
        };
        delays.reset();
        Delays(delays)
    }

    /// How long to wait before the next try, or `None` when it is time to give up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        self.0.next_backoff()
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

/// Why [`retry`] ended without a success.
#[derive(Debug, PartialEq, Eq)]
pub enum GaveUp<E> {
    /// This error is not one to try again after.
    Permanent(E),
    /// The policy's time is over; this was the last error.
    TimeOver(E),
    /// Told to stop, after this error if there was one.
    Stopped(Option<E>),
}

impl<E: fmt::Display> fmt::Display for GaveUp<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GaveUp::Permanent(error) => error.fmt(f),
            GaveUp::TimeOver(error) => write!(f, "gave up trying again: {error}"),
            GaveUp::Stopped(Some(error)) => write!(f, "stopped while trying again after: {error}"),
            GaveUp::Stopped(None) => f.write_str("stopped"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for GaveUp<E> {}

/// Calls `operation` until it succeeds, fails in a way that is not `transient`, runs out of the
/// policy's time, or `stop` is cancelled (which also drops an operation under way).
pub async fn retry<T, E, F>(
    policy: Policy,
    stop: &CancellationToken,
    transient: impl Fn(&E) -> bool,
    mut operation: impl FnMut() -> F,
) -> Result<T, GaveUp<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut delays = Delays::new(policy);
    let mut last = None;
    loop {
        let outcome = match stop.run_until_cancelled(operation()).await {
            None => return Err(GaveUp::Stopped(last)),
            Some(outcome) => outcome,
        };
        let error = match outcome {
            Ok(value) => return Ok(value),
            Err(error) if !transient(&error) => return Err(GaveUp::Permanent(error)),
            Err(error) => error,
        };
        let Some(delay) = delays.next_delay() else {
            return Err(GaveUp::TimeOver(error));
        };
        if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return Err(GaveUp::Stopped(Some(error)));
        }
        last = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const QUICK: Policy = Policy {
        first_delay: Duration::from_micros(10),
        longest_delay: Duration::from_micros(100),
        give_up_after: Some(Duration::from_secs(30)),
    };

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn delays_grow_to_the_longest_and_stay_within_their_jitter() {
        let mut delays = Delays::new(CONNECT);
        let mut expected = CONNECT.first_delay;
        for _ in 0..12 {
            let delay = delays.next_delay().expect("this policy never gives up");
            assert!(
                delay >= expected.mul_f64(0.49) && delay <= expected.mul_f64(1.51),
                "{delay:?} of {expected:?}"
            );
            expected = (expected * 2).min(CONNECT.longest_delay);
        }
        delays.reset();
        assert!(delays.next_delay().expect("a delay") <= CONNECT.first_delay.mul_f64(1.51));
    }

    #[test]
    fn transient_errors_are_tried_again() {
        let tries = Cell::new(0);
        let result = run(retry(
            QUICK,
            &CancellationToken::new(),
            |_| true,
            || {
                tries.set(tries.get() + 1);
                let tries = tries.get();
                async move { if tries < 4 { Err("away") } else { Ok(tries) } }
            },
        ));
        assert_eq!(result, Ok(4));
    }

    #[test]
    fn permanent_errors_are_not() {
        let tries = Cell::new(0);
        let result: Result<(), _> = run(retry(
            QUICK,
            &CancellationToken::new(),
            |_| false,
            || {
                tries.set(tries.get() + 1);
                async { Err("wrong") }
            },
        ));
        assert_eq!((result, tries.get()), (Err(GaveUp::Permanent("wrong")), 1));
    }

    #[test]
    fn time_runs_out() {
        let policy = Policy {
            give_up_after: Some(Duration::ZERO),
            ..QUICK
        };
        let result: Result<(), _> = run(retry(
            policy,
            &CancellationToken::new(),
            |_| true,
            || async { Err("away") },
        ));
        assert_eq!(result, Err(GaveUp::TimeOver("away")));
    }

    #[test]
    fn a_stop_ends_an_operation_that_never_returns() {
        let stop = CancellationToken::new();
        let result: Result<(), GaveUp<&str>> = run(async {
            let never = retry(QUICK, &stop, |_| true, std::future::pending);
            tokio::join!(never, async { stop.cancel() }).0
        });
        assert_eq!(result, Err(GaveUp::Stopped(None)));
    }
}
