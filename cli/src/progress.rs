//! Progress as text: what changed between two states of a run, and how fast a step goes. Pure: the
//! time is passed in, nothing is written.

use std::collections::{HashMap, VecDeque};

use gapless_proto::v1::{Run, RunState, StepStatus};

use crate::{
    view,
    wording::{count, counted, span},
};

/// Speed is measured over this stretch: long enough to smooth heartbeats, short enough to follow.
const WINDOW_MICROS: i64 = 10_000_000;
/// A speed from less than this is noise.
const LEAST_STRETCH_MICROS: i64 = 400_000;
/// Samples kept for each step: ten a second over the window, with room.
const MAX_SAMPLES: usize = 128;

/// How fast a step goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    pub rows_per_second: f64,
    pub units_per_second: f64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: i64,
    units: u64,
    rows: u64,
}

/// Measures the speed of each step from the states that are shown to it.
#[derive(Debug, Default)]
pub struct Meter {
    steps: HashMap<String, (String, VecDeque<Sample>)>,
}

impl Meter {
    /// Takes note of a state of the run at `now` (microseconds).
    pub fn observe(&mut self, run: &Run, now: i64) {
        for step in &run.steps {
            let (stage, samples) = self.steps.entry(step.name.clone()).or_default();
            // A new stage has other units; a take-over sets its rows back to the last commit.
            let went_back = samples.back().is_some_and(|last| step.units_read < last.units);
            if *stage != step.state || went_back {
                samples.clear();
                stage.clone_from(&step.state);
            }
            while samples.len() >= MAX_SAMPLES || samples.front().is_some_and(|first| now - first.at > WINDOW_MICROS) {
                samples.pop_front();
            }
            samples.push_back(Sample {
                at: now,
                units: step.units_read,
                rows: step.rows_read,
            });
        }
    }

    /// The speed of a step, once there is enough to tell.
    pub fn speed(&self, step: &str) -> Option<Speed> {
        let (_, samples) = self.steps.get(step)?;
        let (first, last) = (samples.front()?, samples.back()?);
        let stretch = last.at - first.at;
        if stretch < LEAST_STRETCH_MICROS {
            return None;
        }
        let seconds = stretch as f64 / 1e6;
        Some(Speed {
            rows_per_second: last.rows.saturating_sub(first.rows) as f64 / seconds,
            units_per_second: last.units.saturating_sub(first.units) as f64 / seconds,
        })
    }
}

/// What is worth a line of its own between two states: events, steps that went on, warnings.
/// `previous` is `None` for the first state seen.
pub fn changes(previous: Option<&Run>, run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if previous.is_some_and(|previous| previous.state() != run.state()) {
        lines.extend(run_line(run));
    }
    for event in &run.events {
        if previous.is_none_or(|previous| !previous.events.contains(event)) && !is_told_at_end(&event.text, run) {
            lines.push(match event.step.is_empty() {
                true => event.text.clone(),
                false => format!("{}: {}", event.step, event.text),
            });
        }
    }
    for (index, step) in run.steps.iter().enumerate() {
        let before = previous.and_then(|previous| previous.steps.get(index));
        for warning in &step.warnings {
            if before.is_none_or(|before| !before.warnings.contains(warning)) {
                lines.push(format!("{}: note: {warning}", step.name));
            }
        }
        if before.is_none_or(|before| before.state != step.state) {
            lines.extend(step_line(step, run));
        }
    }
    lines
}

/// Whether a step's error stands in an event of its own, or is told at the end.
fn is_told(error: &str, run: &Run) -> bool {
    is_told_at_end(error, run) || run.events.iter().any(|event| event.text.contains(error))
}

/// Whether a text is a part of why the run has failed, which its end tells in full.
fn is_told_at_end(text: &str, run: &Run) -> bool {
    run.error.contains(text)
}

fn run_line(run: &Run) -> Option<String> {
    match run.state() {
        RunState::Stopping => Some("stopping: each task goes on to its next checkpoint".to_string()),
        RunState::Cancelling => Some("cancelling: what was staged is removed".to_string()),
        RunState::Running => Some("running again".to_string()),
        _ => None,
    }
}

fn step_line(step: &StepStatus, run: &Run) -> Option<String> {
    let name = &step.name;
    let partitions = step.partitions.unwrap_or_default().total;
    match step.state.as_str() {
        "waiting" | "" => None,
        "published" => Some(format!(
            "{name}: published {} in {}",
            counted(step.output_rows, "row"),
            counted(step.output_files, "file")
        )),
        "failed" | "aborted" if !step.error.is_empty() && !is_told(&step.error, run) => {
            Some(format!("{name}: {}: {}", step.state, step.error))
        }
        "scatter" | "execute" | "merge" if partitions > 0 => Some(format!(
            "{name}: {} of {}",
            step.state,
            counted(partitions.into(), "partition")
        )),
        other => Some(format!("{name}: {other}")),
    }
}

/// Whether a step is at work on partitions, so that a bar says something.
pub fn is_working(step: &StepStatus) -> bool {
    matches!(step.state.as_str(), "scatter" | "execute" | "merge") && step.partitions.is_some()
}

/// One line on where a step is: percent, partitions, rows, speed, time left.
pub fn status(step: &StepStatus, speed: Option<Speed>) -> String {
    if !is_working(step) {
        return step.state.clone();
    }
    let partitions = step.partitions.unwrap_or_default();
    let mut parts = vec![format!("{} {:>3} %", step.state, view::percent(step))];
    let failed = match partitions.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    parts.push(format!(
        "{} of {} done, {} running, {} waiting{failed}",
        partitions.done, partitions.total, partitions.running, partitions.waiting
    ));
    parts.push(counted(step.rows_read, "row"));
    if let Some(speed) = speed {
        parts.push(format!("{} rows/s", count(speed.rows_per_second as u64)));
        parts.extend(time_left(step, speed).map(|left| format!("ETA {}", span(left))));
    }
    if step.takeovers > 0 {
        parts.push(counted(step.takeovers.into(), "take-over"));
    }
    parts.join("  ")
}

fn time_left(step: &StepStatus, speed: Speed) -> Option<i64> {
    let left = step.units_total.saturating_sub(step.units_read) as f64;
    (speed.units_per_second > 0.0).then(|| (left / speed.units_per_second * 1e6) as i64)
}

/// Lines for a stream that is no terminal: each change as it comes, and now and then a status.
#[derive(Debug, Default)]
pub struct Plain {
    previous: Option<Run>,
    meter: Meter,
    last_status: Option<i64>,
}

impl Plain {
    /// At most one status in this time for each step.
    pub const EVERY_MICROS: i64 = 2_000_000;

    /// The lines to write for a state of the run at `now` (microseconds).
    pub fn lines(&mut self, run: &Run, now: i64) -> Vec<String> {
        self.meter.observe(run, now);
        let clock = clock(run, now);
        let mut lines: Vec<String> = changes(self.previous.as_ref(), run)
            .into_iter()
            .map(|line| format!("{clock}  {line}"))
            .collect();
        let last = *self.last_status.get_or_insert(now);
        if now - last >= Self::EVERY_MICROS {
            self.last_status = Some(now);
            let working = run.steps.iter().filter(|step| is_working(step));
            lines.extend(working.map(|step| {
                let status = status(step, self.meter.speed(&step.name));
                format!("{clock}  {}: {status}", step.name)
            }));
        }
        self.previous = Some(run.clone());
        lines
    }
}

/// Minutes and seconds since the run was submitted.
pub fn clock(run: &Run, now: i64) -> String {
    let seconds = (now - run.submitted_micros).max(0) / 1_000_000;
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use gapless_proto::v1::{PartitionCounts, RunEvent};

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn step(state: &str, units: u64, rows: u64) -> StepStatus {
        StepStatus {
            name: "load".into(),
            state: state.into(),
            partitions: Some(PartitionCounts {
                total: 12,
                done: 5,
                running: 4,
                waiting: 3,
                failed: 0,
            }),
            units_total: 1000,
            units_read: units,
            rows_read: rows,
            ..Default::default()
        }
    }

    fn run(step: StepStatus, events: &[(i64, &str)]) -> Run {
        Run {
            id: "0192".into(),
            state: RunState::Running.into(),
            submitted_micros: 100 * SECOND,
            steps: vec![step],
            events: events
                .iter()
                .map(|(at, text)| RunEvent {
                    at_micros: *at,
                    step: "load".into(),
                    text: text.to_string(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_whole_run_in_lines() {
        let mut plain = Plain::default();
        let mut trace = Vec::new();
        let mut warned = run(step("prepare", 0, 0), &[]);
        warned.steps[0].warnings = vec!["2 files are empty".into()];
        let mut published = run(step("published", 1000, 90_000), &[(2, "worker b lost"), (3, "retried")]);
        published.steps[0].warnings = vec!["2 files are empty".into()];
        published.steps[0].output_rows = 89_990;
        published.steps[0].output_files = 1;
        let states = [
            (100, run(step("waiting", 0, 0), &[])),
            (100, run(step("survey", 0, 0), &[])),
            (101, warned),
            (101, run(step("execute", 0, 0), &[])),
            (102, run(step("execute", 100, 9_000), &[])),
            (103, run(step("execute", 300, 27_000), &[(2, "worker b lost")])),
            (103, run(step("execute", 310, 27_900), &[(2, "worker b lost")])),
            (
                105,
                run(step("execute", 500, 45_000), &[(2, "worker b lost"), (3, "retried")]),
            ),
            (109, published),
        ];
        for (at, state) in states {
            trace.extend(plain.lines(&state, at * SECOND));
        }
        let expected = "\
00:00  load: survey
00:01  load: note: 2 files are empty
00:01  load: prepare
00:01  load: execute of 12 partitions
00:02  load: execute  10 %  5 of 12 done, 4 running, 3 waiting  9,000 rows  9,000 rows/s  ETA 9.0 s
00:03  load: worker b lost
00:05  load: retried
00:05  load: execute  50 %  5 of 12 done, 4 running, 3 waiting  45,000 rows  11,250 rows/s  ETA 4.0 s
00:09  load: note: 2 files are empty
00:09  load: published 89,990 rows in 1 file";
        assert_eq!(trace.join("\n"), expected);
    }

    #[test]
    fn speed_forgets_what_is_old_and_what_was_taken_back() {
        let mut meter = Meter::default();
        for second in 0..=20 {
            let units = if second <= 10 { 0 } else { (second - 10) * 10 };
            meter.observe(
                &run(step("execute", units as u64, units as u64 * 2), &[]),
                second * SECOND,
            );
        }
        let speed = meter.speed("load").expect("measured");
        assert_eq!((speed.units_per_second, speed.rows_per_second), (10.0, 20.0));
        meter.observe(&run(step("execute", 40, 80), &[]), 21 * SECOND);
        assert_eq!(meter.speed("load"), None, "one sample after a take-over tells nothing");
        meter.observe(&run(step("merge", 0, 0), &[]), 22 * SECOND);
        assert_eq!(meter.speed("load"), None);
        assert_eq!(meter.speed("other"), None);
    }

    #[test]
    fn a_status_tells_take_overs_and_failures_and_a_step_without_units_is_no_error() {
        let mut state = step("execute", 0, 1);
        state.units_total = 0;
        state.takeovers = 1;
        state.partitions.as_mut().expect("counts").failed = 1;
        assert_eq!(
            status(&state, Some(Speed::default())),
            "execute   0 %  5 of 12 done, 4 running, 3 waiting, 1 failed  1 row  0 rows/s  1 take-over"
        );
        assert_eq!(status(&step("publish", 0, 0), None), "publish");
    }

    #[test]
    fn what_the_end_tells_is_not_told_before() {
        let before = run(step("execute", 1, 1), &[(1, "tried again: no room")]);
        let mut after = run(
            step("failed", 1, 1),
            &[(1, "tried again: no room"), (2, "step load: no room")],
        );
        after.steps[0].error = "step load: no room".into();
        let told = changes(Some(&before), &after);
        assert_eq!(
            told,
            ["load: step load: no room", "load: failed"],
            "a failure of a run that goes on"
        );
        after.events.pop();
        assert_eq!(
            changes(Some(&before), &after),
            ["load: failed: step load: no room"],
            "where the event is gone"
        );
        after.error = "step load: no room".into();
        assert_eq!(changes(Some(&before), &after), ["load: failed"]);
        assert_eq!(changes(None, &before)[0], "load: tried again: no room");
    }

    #[test]
    fn a_run_that_stops_says_so() {
        let before = run(step("execute", 1, 1), &[]);
        let mut after = before.clone();
        after.state = RunState::Stopping.into();
        assert_eq!(
            changes(Some(&before), &after),
            ["stopping: each task goes on to its next checkpoint"]
        );
        assert_eq!(changes(Some(&after), &after), Vec::<String>::new());
    }
}
