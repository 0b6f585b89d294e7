//! Narrowing: rows that fail together are halved until those that cannot go on stand alone. The rest goes on.
//!
//! A bad row among `n` costs about 2·log2(n) trials more than none.

use std::ops::Range;

use gapless_common::error::{ErrorClass, TaskError};

/// Trials of one chunk. A trial of a few rows costs about 30 µs, so this is some seconds; who has more rows
/// that fail has SQL that does not fit its data.
pub const MAX_TRIALS: u64 = 200_000;

/// How a trial of some rows ended.
pub enum Trial {
    /// They have gone on.
    Passed,
    /// One of them fails, or they are too many at once; none has gone on. In words, what is wrong.
    Failed(String),
}

/// Tries some rows.
pub type Attempt<'a, S> = dyn FnMut(&mut S, Range<usize>) -> Result<Trial, TaskError> + 'a;
/// Takes a row that fails, with the reason.
pub type Rejecting<'a, S> = dyn FnMut(&mut S, usize, String) -> Result<(), TaskError> + 'a;

/// Counts the trials of a chunk.
#[derive(Debug, Default)]
pub struct Narrowing {
    pub trials: u64,
}

impl Narrowing {
    /// Tries `rows` rows in order, each of them in one trial that passes, or alone in one that fails: that
    /// row is given to `reject` with the reason.
    ///
    /// Errors: those of `attempt` and `reject`; `Data` after [`MAX_TRIALS`].
    pub fn run<S>(
        &mut self,
        rows: usize,
        state: &mut S,
        attempt: &mut Attempt<'_, S>,
        reject: &mut Rejecting<'_, S>,
    ) -> Result<(), TaskError> {
        let mut waiting: Vec<Range<usize>> = std::iter::once(0..rows).collect();
        while let Some(range) = waiting.pop() {
            if range.is_empty() {
                continue;
            }
            self.trials += 1;
            let Trial::Failed(reason) = attempt(state, range.clone())? else {
                continue;
            };
            if range.len() == 1 {
                reject(state, range.start, reason)?;
                continue;
            }
            if self.trials >= MAX_TRIALS {
                return Err(TaskError::new(
                    ErrorClass::Data,
                    format!(
                        "so many records fail that they are not looked for one by one (more than {MAX_TRIALS} trials \
                         in a chunk); the last: {reason}; mend the SQL, or write a check that rejects them"
                    ),
                ));
            }
            let middle = range.start + range.len() / 2;
            waiting.push(middle..range.end);
            waiting.push(range.start..middle);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        passed: Vec<usize>,
        rejected: Vec<usize>,
    }

    fn narrow(rows: usize, bad: &[usize]) -> (Seen, u64, Result<(), TaskError>) {
        let mut narrowing = Narrowing::default();
        let mut seen = Seen::default();
        let result = narrowing.run(
            rows,
            &mut seen,
            &mut |seen, range| {
                if bad.iter().any(|row| range.contains(row)) {
                    return Ok(Trial::Failed("bad".to_string()));
                }
                seen.passed.extend(range);
                Ok(Trial::Passed)
            },
            &mut |seen, row, _| {
                seen.rejected.push(row);
                Ok(())
            },
        );
        (seen, narrowing.trials, result)
    }

    #[test]
    fn bad_rows_are_found_in_order_and_cost_two_trials_for_each_halving() {
        for (rows, bad) in [
            (0, vec![]),
            (1, vec![]),
            (1, vec![0]),
            (6, vec![2]),
            (8192, vec![0]),
            (8192, vec![8191]),
            (8192, vec![77, 5000, 5001]),
            (1000, (0..1000).collect()),
        ] {
            let (seen, trials, result) = narrow(rows, &bad);
            result.expect("within the limit");
            assert_eq!(seen.rejected, bad);
            let good: Vec<usize> = (0..rows).filter(|row| !bad.contains(row)).collect();
            assert_eq!(seen.passed, good);
            let halvings = rows.next_power_of_two().ilog2() as u64;
            let most = 1 + bad.len() as u64 * 2 * halvings;
            assert!(
                trials <= most,
                "{rows} rows, {} bad: {trials} trials, at most {most}",
                bad.len()
            );
        }
    }

    #[test]
    fn a_chunk_in_which_everything_fails_is_given_up() {
        let rows = MAX_TRIALS as usize;
        let mut narrowing = Narrowing::default();
        let error = narrowing
            .run(
                2 * rows,
                &mut (),
                &mut |(), _| Ok(Trial::Failed("Divide by zero".to_string())),
                &mut |(), _, _| Ok(()),
            )
            .expect_err("given up");
        assert_eq!(error.class, ErrorClass::Data);
        assert!(error.message.contains("Divide by zero"), "{error}");
        // Rows alone are still tried until the next that are together.
        assert!((MAX_TRIALS..MAX_TRIALS + 4).contains(&narrowing.trials));
    }
}
