//! Metrics of a coordinator.
//!
//! The loop counts as it applies rows, and publishes gauges of its state from time to time; whoever
//! scrapes reads atomics and never the state. Counters begin at zero with the process.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use gapless_common::{
    attempt::Counters,
    error::ErrorClass,
    ids::{Stage, TaskKey, Term},
};
use gapless_core::{
    Change, Row, State,
    load::{self, Load},
    row::{ProgressRow, RunRow, RunState},
};
use gapless_platform::{
    clock::Clock,
    metrics::{self, Labels, add, begin_at_zero},
    monitor::Monitored,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tracing::{info, warn};

use crate::limits::{LOOP_SILENCE, METRICS_INTERVAL};

type Counts = Family<Labels<1>, Counter>;
type Gauges = Family<Labels<1>, Gauge>;

/// What this process is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Role {
    Starting,
    /// Ready to take the lead, and to say who has it.
    Standby,
    /// It does not lead although nobody does, for a reason that somebody has to look at.
    Refusing,
    Leading,
    Ended,
}

/// Handles to the metrics of one coordinator; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    clock: Clock,
    role: AtomicU8,
    /// Why it refuses to lead.
    refusal: Mutex<String>,
    /// When the loop last turned and when gauges were last published, on the monotonic clock.
    turned_micros: AtomicU64,
    published_micros: AtomicU64,
    /// Tasks that no worker here could take, when it was last looked.
    unplaceable: AtomicU64,
    leader: Gauge,
    term: Gauge,
    runs: Gauges,
    tasks_waiting: Gauges,
    tasks_delayed: Gauges,
    tasks_leased: Gauges,
    tasks_unplaceable: Gauges,
    workers: Gauges,
    slots: Gauge,
    slots_busy: Gauge,
    runs_submitted: Counter,
    runs_ended: Counts,
    attempts_started: Counts,
    attempts_failed: Counts,
    takeovers: Counter,
    commits: Counts,
    commits_refused: Counter,
    rows_read: Counts,
    rows_written: Counts,
    rows_filtered: Counts,
    rows_rejected: Counts,
    bytes_read: Counts,
    bytes_written: Counts,
    store_rows: Counter,
    store_retries: Counter,
    batch_seconds: Histogram,
    store_seconds: Histogram,
}

fn of_stage(stage: Stage) -> Labels<1> {
    [("stage", stage.name())]
}

fn of_state(state: RunState) -> Labels<1> {
    [("state", state.name())]
}

fn of_class(class: ErrorClass) -> Labels<1> {
    [("class", class.name())]
}

const LIVE: Labels<1> = [("state", "live")];
const DRAINING: Labels<1> = [("state", "draining")];

/// States in which a run is over, or rests until it is submitted again.
const ENDED: [RunState; 4] = [
    RunState::Stopped,
    RunState::Failed,
    RunState::Cancelled,
    RunState::Completed,
];

/// Stages that commit chunks of data.
const COMMITTING: [Stage; 3] = [Stage::Scatter, Stage::Execute, Stage::Merge];

impl Metrics {
    pub fn new(clock: Clock) -> Metrics {
        let mut registry = metrics::registry("coordinator", &clock);
        let r = &mut registry;
        let inner = Inner {
            role: AtomicU8::new(Role::Starting as u8),
            refusal: Mutex::default(),
            turned_micros: AtomicU64::new(0),
            published_micros: AtomicU64::new(0),
            unplaceable: AtomicU64::new(0),
            leader: add(
                r,
                "gapless_leader",
                "1 while this process leads the cluster, else 0",
                Gauge::default(),
            ),
            term: add(
                r,
                "gapless_term",
                "The term in which this process leads, or led last",
                Gauge::default(),
            ),
            runs: add(r, "gapless_runs", "Runs on record by state", Gauges::default()),
            tasks_waiting: add(
                r,
                "gapless_tasks_waiting",
                "Tasks that could be worked on now if there were a free slot: the queue depth",
                Gauges::default(),
            ),
            tasks_delayed: add(
                r,
                "gapless_tasks_delayed",
                "Tasks that failed in a way that may pass and wait before they are tried again",
                Gauges::default(),
            ),
            tasks_leased: add(
                r,
                "gapless_tasks_leased",
                "Tasks in the hands of workers",
                Gauges::default(),
            ),
            tasks_unplaceable: add(
                r,
                "gapless_tasks_unplaceable",
                "Of the tasks that wait, those whose step asks for labels that no worker here has",
                Gauges::default(),
            ),
            workers: add(r, "gapless_workers", "Workers connected by state", Gauges::default()),
            slots: add(
                r,
                "gapless_slots",
                "Slots of all workers that take work",
                Gauge::default(),
            ),
            slots_busy: add(r, "gapless_slots_busy", "Slots that have a task", Gauge::default()),
            runs_submitted: add(r, "gapless_runs_submitted", "Runs made by a submit", Counter::default()),
            runs_ended: add(
                r,
                "gapless_runs_ended",
                "Runs that came to an end, by state",
                Counts::default(),
            ),
            attempts_started: add(
                r,
                "gapless_attempts_started",
                "Leases granted: attempts at tasks",
                Counts::default(),
            ),
            attempts_failed: add(
                r,
                "gapless_attempts_failed",
                "Attempts that failed, by class of the error",
                Counts::default(),
            ),
            takeovers: add(
                r,
                "gapless_takeovers",
                "Tasks that were given to another worker because their own was lost",
                Counter::default(),
            ),
            commits: add(r, "gapless_commits", "Chunks committed", Counts::default()),
            commits_refused: add(
                r,
                "gapless_commits_refused",
                "Commits refused: fenced, sealed, out of order or cancelled",
                Counter::default(),
            ),
            rows_read: add(r, "gapless_rows_read", "Records read, as committed", Counts::default()),
            rows_written: add(
                r,
                "gapless_rows_written",
                "Rows written, as committed",
                Counts::default(),
            ),
            rows_filtered: add(
                r,
                "gapless_rows_filtered",
                "Rows filtered out, as committed",
                Counts::default(),
            ),
            rows_rejected: add(
                r,
                "gapless_rows_rejected",
                "Records rejected, as committed",
                Counts::default(),
            ),
            bytes_read: add(
                r,
                "gapless_bytes_read",
                "Bytes of input read, as committed",
                Counts::default(),
            ),
            bytes_written: add(
                r,
                "gapless_bytes_written",
                "Bytes of output made durable, as committed",
                Counts::default(),
            ),
            store_rows: add(r, "gapless_store_rows", "Rows written to the store", Counter::default()),
            store_retries: add(
                r,
                "gapless_store_retries",
                "Batches asked for again because their outcome was unknown",
                Counter::default(),
            ),
            batch_seconds: add(
                r,
                "gapless_batch_duration_seconds",
                "From the first event of a batch to its answers",
                Histogram::new(metrics::wait_buckets()),
            ),
            store_seconds: add(
                r,
                "gapless_store_write_duration_seconds",
                "Making a batch durable",
                Histogram::new(metrics::wait_buckets()),
            ),
            clock,
            registry,
        };
        inner.begin_at_zero();
        let metrics = Metrics(Arc::new(inner));
        metrics.publish_load(&Load::default());
        metrics
    }

    /// This process waits for its turn to lead.
    pub fn stands_by(&self) {
        self.0.set_role(Role::Standby);
    }

    /// This process will not lead although nobody does.
    pub(crate) fn refuses(&self, reason: &str) {
        *self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner) = reason.to_string();
        self.0.set_role(Role::Refusing);
    }

    pub fn leads(&self, term: Term) {
        self.0.term.set(gauge(term.0));
        self.turned();
        self.0.set_role(Role::Leading);
    }

    /// The term is in doubt: another may lead, so this process says no more that it does.
    pub(crate) fn falls_silent(&self) {
        self.0.turn(Role::Leading, Role::Standby);
    }

    /// The term was its own all the time.
    pub(crate) fn speaks_again(&self) {
        self.0.turn(Role::Standby, Role::Leading);
    }

    /// The lead is lost or given up: what is known of the cluster now belongs to another.
    pub fn leads_no_more(&self) {
        self.0.set_role(Role::Ended);
        self.publish_load(&Load::default());
    }

    /// Tells that the loop goes on. Answers whether it is time to publish the state's gauges.
    pub(crate) fn turned(&self) -> bool {
        let now = micros(self.0.clock.monotonic());
        self.0.turned_micros.store(now, Ordering::Relaxed);
        let published = self.0.published_micros.load(Ordering::Relaxed);
        now.saturating_sub(published) >= micros(METRICS_INTERVAL)
    }

    /// Publishes gauges of the state.
    pub(crate) fn publish(&self, state: &State) {
        let now = micros(self.0.clock.monotonic());
        self.0.published_micros.store(now, Ordering::Relaxed);
        let load = load::load(state);
        self.warn_of_unplaceable(&load);
        self.publish_load(&load);
    }

    /// Says once that tasks ask for labels that nobody has, and once that this is over.
    fn warn_of_unplaceable(&self, load: &Load) {
        let tasks: u64 = load.stages.values().map(|stage| stage.unplaceable).sum();
        let before = self.0.unplaceable.swap(tasks, Ordering::Relaxed);
        if tasks > 0 && before == 0 {
            warn!(
                tasks,
                "tasks wait for a worker with the labels of their step; `gapless describe RUN` names them"
            );
        } else if tasks == 0 && before > 0 {
            info!("no task waits for a worker with labels any more");
        }
    }

    fn publish_load(&self, load: &Load) {
        let inner = &*self.0;
        for state in RunState::ALL {
            let count = load.runs.get(&state).copied().unwrap_or(0);
            inner.runs.get_or_create(&of_state(state)).set(gauge(count));
        }
        for stage in Stage::ALL {
            let tasks = load.stages.get(&stage).copied().unwrap_or_default();
            let set = |gauges: &Gauges, count| gauges.get_or_create(&of_stage(stage)).set(gauge(count));
            set(&inner.tasks_waiting, tasks.waiting);
            set(&inner.tasks_delayed, tasks.delayed);
            set(&inner.tasks_leased, tasks.leased);
            set(&inner.tasks_unplaceable, tasks.unplaceable);
        }
        inner.workers.get_or_create(&LIVE).set(gauge(load.workers));
        inner.workers.get_or_create(&DRAINING).set(gauge(load.draining));
        inner.slots.set(gauge(load.slots));
        inner.slots_busy.set(gauge(load.busy));
    }

    /// Counts what a change means, by the state before it is applied.
    pub(crate) fn count(&self, state: &State, change: &Change) {
        match change {
            Change::Create(Row::Lease(key, _)) => self.count_grant(state, key),
            Change::Put(Row::Progress(key, row)) | Change::Create(Row::Progress(key, row)) => {
                self.count_progress(state, key, row);
            }
            Change::Put(Row::Run(id, row)) | Change::Create(Row::Run(id, row)) => {
                if let Some(run) = state.run(*id) {
                    self.count_run(&run.row, row);
                }
            }
            Change::Put(_) | Change::Create(_) | Change::Delete(_) => {}
        }
    }

    fn count_grant(&self, state: &State, key: &TaskKey) {
        self.0.attempts_started.get_or_create(&of_stage(key.stage)).inc();
        let progress = state.task(key).and_then(|task| task.progress.as_ref());
        if progress.is_some_and(|progress| progress.losses > 0) {
            self.0.takeovers.inc();
        }
    }

    fn count_progress(&self, state: &State, key: &TaskKey, after: &ProgressRow) {
        let inner = &*self.0;
        let before = state.task(key).and_then(|task| task.progress.as_deref());
        let (seq, losses, counters) = before.map_or((0, 0, Counters::default()), |before| {
            (before.seq, before.losses, before.counters)
        });
        let lost = after.losses.saturating_sub(losses);
        let lost_class = of_class(ErrorClass::WorkerLost);
        inner.attempts_failed.get_or_create(&lost_class).inc_by(u64::from(lost));
        if after.seq <= seq {
            return;
        }
        let stage = of_stage(key.stage);
        let add = |counts: &Counts, before: u64, after: u64| {
            counts.get_or_create(&stage).inc_by(after.saturating_sub(before));
        };
        add(&inner.commits, u64::from(seq), u64::from(after.seq));
        add(&inner.rows_read, counters.read, after.counters.read);
        add(&inner.rows_written, counters.written, after.counters.written);
        add(&inner.rows_filtered, counters.filtered, after.counters.filtered);
        add(&inner.rows_rejected, counters.rejected, after.counters.rejected);
        add(&inner.bytes_read, counters.bytes_read, after.counters.bytes_read);
        add(
            &inner.bytes_written,
            counters.bytes_written,
            after.counters.bytes_written,
        );
    }

    fn count_run(&self, before: &RunRow, after: &RunRow) {
        // The row that stands in until the first one is written.
        if *before == RunRow::NEW {
            self.0.runs_submitted.inc();
        }
        if before.state != after.state && ENDED.contains(&after.state) {
            self.0.runs_ended.get_or_create(&of_state(after.state)).inc();
        }
    }

    pub(crate) fn attempt_failed(&self, class: ErrorClass) {
        self.0.attempts_failed.get_or_create(&of_class(class)).inc();
    }

    pub(crate) fn commit_refused(&self) {
        self.0.commits_refused.inc();
    }

    pub(crate) fn store_asked_again(&self) {
        self.0.store_retries.inc();
    }

    pub(crate) fn stored(&self, rows: usize, took: Duration) {
        self.0.store_rows.inc_by(rows as u64);
        self.0.store_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn batch_done(&self, took: Duration) {
        self.0.batch_seconds.observe(took.as_secs_f64());
    }
}

impl Inner {
    fn set_role(&self, role: Role) {
        self.role.store(role as u8, Ordering::Release);
        self.leader.set(i64::from(role == Role::Leading));
    }

    /// From one role to another, unless it has another by now: the loop may have ended meanwhile.
    fn turn(&self, from: Role, to: Role) {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let turned = self.role.compare_exchange(from as u8, to as u8, order.0, order.1);
        if turned.is_ok() {
            self.leader.set(i64::from(to == Role::Leading));
        }
    }

    fn is(&self, role: Role) -> bool {
        self.role.load(Ordering::Acquire) == role as u8
    }

    /// Every series is there from the start.
    fn begin_at_zero(&self) {
        begin_at_zero(&self.attempts_started, Stage::ALL.map(of_stage));
        for counts in [
            &self.commits,
            &self.rows_read,
            &self.rows_written,
            &self.rows_filtered,
            &self.rows_rejected,
            &self.bytes_read,
            &self.bytes_written,
        ] {
            begin_at_zero(counts, COMMITTING.map(of_stage));
        }
        begin_at_zero(&self.attempts_failed, ErrorClass::ALL.map(of_class));
        begin_at_zero(&self.runs_ended, ENDED.map(of_state));
    }
}

impl Monitored for Metrics {
    fn metrics(&self) -> String {
        metrics::encode(&self.0.registry)
    }

    fn health(&self) -> Result<(), String> {
        if self.0.is(Role::Ended) {
            return Err("this coordinator leads no more".to_string());
        }
        let silent = micros(self.0.clock.monotonic()).saturating_sub(self.0.turned_micros.load(Ordering::Relaxed));
        if self.0.is(Role::Leading) && silent > micros(LOOP_SILENCE) {
            return Err(format!("the control loop has not moved for {} s", silent / 1_000_000));
        }
        Ok(())
    }

    fn ready(&self) -> Result<&'static str, String> {
        self.health()?;
        if self.0.is(Role::Leading) {
            Ok("leading")
        } else if self.0.is(Role::Standby) {
            Ok("standing by")
        } else if self.0.is(Role::Refusing) {
            let reason = self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner);
            Err(format!("not leading: {reason}"))
        } else {
            Err("starting".to_string())
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_gauges_follow_the_lead() {
        let clock = Clock::manual(1);
        let metrics = Metrics::new(clock.clone());
        let has = |line: &str| {
            let text = metrics.metrics();
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in\n{text}");
        };
        assert!(metrics.health().is_ok() && metrics.ready().is_err());
        has("gapless_leader 0");
        metrics.stands_by();
        assert_eq!(metrics.ready(), Ok("standing by"));
        clock.advance(2 * LOOP_SILENCE);
        assert!(metrics.health().is_ok(), "whoever stands by has no loop");

        metrics.leads(Term(3));
        assert_eq!(metrics.ready(), Ok("leading"));
        has("gapless_leader 1");
        has("gapless_term 3");
        metrics.publish_load(&Load {
            slots: 4,
            ..Load::default()
        });
        has("gapless_slots 4");
        assert!(metrics.turned(), "nothing was published by the loop yet");
        clock.advance(LOOP_SILENCE + Duration::from_secs(1));
        assert!(metrics.health().is_err() && metrics.ready().is_err());
        metrics.turned();
        assert!(metrics.health().is_ok());

        metrics.falls_silent();
        assert_eq!(metrics.ready(), Ok("standing by"));
        has("gapless_leader 0");
        clock.advance(2 * LOOP_SILENCE);
        assert!(metrics.health().is_ok(), "its loop may wait for the store");
        metrics.turned();
        metrics.speaks_again();
        assert_eq!(metrics.ready(), Ok("leading"));
        has("gapless_leader 1");

        metrics.leads_no_more();
        assert!(metrics.health().is_err());
        has("gapless_leader 0");
        has("gapless_slots 0");
        metrics.speaks_again();
        assert!(metrics.ready().is_err(), "what has ended does not speak again");
    }
}
