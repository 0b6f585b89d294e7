//! A worker against a scripted leader, over the real wire.

use std::{
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gapless_common::{
    attempt::{Commit, Counters, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{RunId, Stage, TaskKey},
    plan::{Facts, Method, StepFrame, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use gapless_platform::{clock::Clock, shutdown::Shutdown};
use gapless_proto::{
    access::Access,
    v1::{self, worker_event::Event},
};
use uuid::Uuid;

use super::{WorkerConfig, WorkerError, fake_leader::*, run_worker};
use crate::{
    attempt::{Assignment, Leader, Outcome, Stop},
    metrics::Metrics,
    runner::{SlotState, Work},
};

type Ended = Result<Outcome, TaskError>;

fn task(stage: Stage, partition: u32) -> TaskKey {
    TaskKey {
        run: RunId(Uuid::from_u128(0x77)),
        step: 0,
        stage,
        partition,
    }
}

fn execute(partition: u32) -> TaskKey {
    task(Stage::Execute, partition)
}

fn commit(seq: u32, last: bool) -> Commit {
    Commit {
        seq,
        previous: u64::from(seq) * 5,
        next: if last { 10 } else { u64::from(seq + 1) * 5 },
        counters: Counters {
            read: 3,
            written: 3,
            ..Counters::default()
        },
        records: RecordHash(9),
        digest: 100 + u64::from(seq),
        last,
    }
}

/// Things that happened, in order, to be waited for.
#[derive(Clone, Default)]
struct Journal(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Journal {
    fn note(&self, line: impl Into<String>) {
        self.0.0.lock().expect("whole").push(line.into());
        self.0.1.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().expect("whole").clone()
    }

    /// Blocks until the line is there; also used as a gate by the work under test.
    fn wait(&self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().expect("whole");
        while !lines.iter().any(|other| other == line) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {line:?} among {lines:?}");
            lines = self.0.1.wait_timeout(lines, left).expect("whole").0;
        }
    }
}

struct Closure<F>(F);

impl<F> Work for Closure<F>
where
    F: Fn(&Assignment, &dyn Leader, &mut SlotState) -> Ended + Send + Sync,
{
    fn run(&self, assignment: Assignment, leader: &dyn Leader, slot: &mut SlotState) -> Ended {
        (self.0)(&assignment, leader, slot)
    }
}

const JOB: &str = "
job: numbers
steps:
  - name: count
    source: {sequence: {from: 0, to: 10}}
    sink: discard
";

fn step(with_frame: bool) -> v1::GetStepResponse {
    let frame = StepFrame {
        facts: Facts {
            unit: Unit::Number,
            files: Vec::new(),
            domain: UnitRange::new(0, 10),
            columns: Vec::new(),
            output: Vec::new(),
            read_columns: None,
            inputs: Vec::new(),
            transform: TransformFacts {
                mode: TransformMode::RowWise { expands: false },
                reason: String::new(),
            },
            rows: 10,
            bytes: 80,
            sample: None,
            warnings: Vec::new(),
            lookups: Vec::new(),
            standing: None,
        },
        method: Method::Sequence,
        exchange: None,
        merge: None,
    };
    let frame = if with_frame {
        serde_json::to_vec(&frame).expect("JSON")
    } else {
        Vec::new()
    };
    v1::GetStepResponse {
        job_text: JOB.to_string(),
        frame: frame.into(),
        ..Default::default()
    }
}

struct Worker {
    shutdown: Shutdown,
    thread: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl Worker {
    fn start<F>(endpoints: Vec<String>, slots: u32, clock: Clock, work: F) -> Self
    where
        F: Fn(&Assignment, &dyn Leader, &mut SlotState) -> Ended + Send + Sync + 'static,
    {
        let metrics = Metrics::new(slots, clock.clone());
        Self::start_with(endpoints, slots, clock, metrics, work)
    }

    fn start_with<F>(endpoints: Vec<String>, slots: u32, clock: Clock, metrics: Metrics, work: F) -> Self
    where
        F: Fn(&Assignment, &dyn Leader, &mut SlotState) -> Ended + Send + Sync + 'static,
    {
        let config = WorkerConfig {
            endpoints,
            name: "w1".to_string(),
            slots,
            labels: Default::default(),
            memory_per_slot_bytes: 1 << 20,
            access: Access::default(),
            metrics,
            clock,
        };
        let shutdown = Shutdown::new();
        let own = shutdown.clone();
        let thread = thread::spawn(move || run_worker(config, Arc::new(Closure(work)), &own));
        Self {
            shutdown,
            thread: Some(thread),
        }
    }

    fn end(&mut self) -> Result<(), WorkerError> {
        self.thread
            .take()
            .expect("ended once")
            .join()
            .expect("the worker itself does not panic")
    }

    fn stop(mut self) {
        self.shutdown.stop();
        self.end().expect("a stop is no error");
    }
}

/// A leader and a worker of one slot in session with it.
fn pair<F>(script: Script, work: F) -> (FakeLeader, Worker)
where
    F: Fn(&Assignment, &dyn Leader, &mut SlotState) -> Ended + Send + Sync + 'static,
{
    let leader = FakeLeader::start(script);
    leader.set_step(step(true));
    let worker = Worker::start(vec![leader.endpoint()], 1, Clock::system(), work);
    leader.wait_event("a hello", 1, |event| matches!(event, Event::Hello(_)).then_some(()));
    (leader, worker)
}

fn is_commit(event: &Event, seq: u32) -> Option<v1::CommitRequest> {
    match event {
        Event::Commit(commit) if commit.seq == seq => Some(commit.clone()),
        _ => None,
    }
}

fn failed(event: &Event) -> Option<v1::Failed> {
    match event {
        Event::Failed(failed) => Some(failed.clone()),
        _ => None,
    }
}

fn released(event: &Event, partition: u32) -> Option<()> {
    let Event::Released(released) = event else { return None };
    (released.task.as_ref()?.partition == partition).then_some(())
}

/// The last heartbeat of a session, if it holds so many attempts.
fn holds(heard: &[(u32, Event)], session: u32, count: usize) -> Option<()> {
    let held = heard.iter().rev().find_map(|(in_session, event)| match event {
        Event::Heartbeat(heartbeat) if *in_session == session => Some(heartbeat.held.len()),
        _ => None,
    })?;
    (held == count).then_some(())
}

#[test]
fn a_granted_task_is_run_committed_and_let_go() {
    let (leader, worker) = pair(accepting(), |assignment, leader, slot| {
        assert_eq!((assignment.position, assignment.units), (0, UnitRange::new(0, 10)));
        assert_eq!(assignment.context.step().name, "count");
        *slot.keep(|| 0u32) += 1;
        leader.progress(3, 3);
        leader.commit(commit(0, false))?;
        leader.commit(commit(1, true))?;
        Ok(Outcome::Committed)
    });
    leader.send(vec![grant(execute(4), 1, 1)]);
    let first = leader.wait_event("commit 0", 1, |event| is_commit(event, 0));
    let last = leader.wait_event("commit 1", 1, |event| is_commit(event, 1));
    assert_eq!(
        (first.previous, first.next, first.last, first.digest),
        (0, 5, false, 100)
    );
    assert_eq!((last.previous, last.next, last.last), (5, 10, true));
    assert_eq!(first.fence, Some(fence(1, 1)));
    assert_eq!(first.records[..], 9u128.to_be_bytes());
    leader.wait("an idle heartbeat", |heard| holds(heard, 1, 0));
    worker.stop();
}

#[test]
fn stages_without_commits_report_their_result() {
    let (leader, worker) = pair(accepting(), |assignment, _, _| {
        Ok(Outcome::Finished(assignment.task.stage.name().as_bytes().to_vec()))
    });
    leader.send(vec![grant(task(Stage::Survey, 0), 1, 1)]);
    let result = leader.wait_event("the result", 1, |event| match event {
        Event::Finished(finished) => Some(finished.result.clone()),
        _ => None,
    });
    assert_eq!(&result[..], b"survey");
    worker.stop();
}

#[test]
fn an_unanswered_commit_is_offered_again_in_the_next_session() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, worker) = pair(silent(), move |_, leader, _| {
        notes.note("begun");
        leader.commit(commit(0, false))?;
        notes.note("answered");
        leader.commit(commit(1, true))?;
        Ok(Outcome::Committed)
    });
    leader.send(vec![grant(execute(0), 1, 1)]);
    let before = leader.wait_event("commit 0", 1, |event| is_commit(event, 0));
    leader.cut_off(false);
    let held = leader.wait_event("a second hello", 2, |event| match event {
        Event::Hello(hello) => Some((hello.held.clone(), hello.cluster.clone())),
        _ => None,
    });
    assert_eq!(held.0.len(), 1);
    assert_eq!(&held.1[..], CLUSTER.as_bytes());
    let again = leader.wait_event("commit 0 again", 2, |event| is_commit(event, 0));
    assert_eq!(before, again);
    leader.send(vec![reply(&again, true, "")]);
    journal.wait("answered");
    // The last one is settled by the session, over another break.
    leader.wait_event("commit 1", 2, |event| is_commit(event, 1));
    leader.cut_off(false);
    let last = leader.wait_event("commit 1 again", 3, |event| is_commit(event, 1));
    leader.wait("it is still held", |heard| holds(heard, 3, 1));
    leader.send(vec![reply(&last, true, "")]);
    leader.wait("it is let go", |heard| holds(heard, 3, 0));
    assert_eq!(journal.lines(), ["begun", "answered"]);
    worker.stop();
}

#[test]
fn the_slot_goes_on_while_the_last_commit_is_unanswered() {
    let (leader, worker) = pair(silent(), |_, leader, _| {
        leader.commit(commit(0, true))?;
        Ok(Outcome::Committed)
    });
    leader.send(vec![grant(execute(0), 1, 1), grant(execute(1), 1, 2)]);
    for partition in 0..2 {
        leader.wait_event("its last commit", 1, |event| {
            is_commit(event, 0).filter(|commit| commit.task.as_ref().is_some_and(|task| task.partition == partition))
        });
    }
    leader.wait("both held", |heard| holds(heard, 1, 2));
    worker.stop();
}

#[test]
fn a_task_granted_twice_runs_once() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, worker) = pair(accepting(), move |assignment, leader, _| {
        notes.note(format!("run {}", assignment.task.partition));
        leader.commit(commit(0, true))?;
        Ok(Outcome::Committed)
    });
    leader.send(vec![grant(execute(0), 1, 1), grant(execute(0), 1, 1)]);
    leader.wait_event("its commit", 1, |event| is_commit(event, 0));
    leader.wait("it is let go", |heard| holds(heard, 1, 0));
    leader.send(vec![grant(execute(0), 1, 1), grant(execute(1), 1, 2)]);
    journal.wait("run 1");
    assert_eq!(journal.lines(), ["run 0", "run 1"]);
    worker.stop();
}

#[test]
fn a_lost_report_is_repeated_when_the_task_is_granted_again() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, worker) = pair(silent(), move |_, _, _| {
        notes.note("run");
        Err(TaskError::new(ErrorClass::Data, "bad"))
    });
    let reports = |heard: &[(u32, Event)]| heard.iter().filter_map(|(_, event)| failed(event)).count();
    leader.send(vec![grant(execute(0), 1, 1)]);
    leader.wait("the report", |heard| (reports(heard) == 1).then_some(()));
    leader.send(vec![grant(execute(0), 1, 1)]);
    leader.wait("its repetition", |heard| (reports(heard) == 2).then_some(()));
    leader.cut_off(false);
    leader.wait_event("its repetition in a new session", 2, failed);
    assert_eq!(journal.lines(), ["run"]);
    worker.stop();
}

#[test]
fn a_higher_fence_takes_the_place_of_the_older_attempt() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, worker) = pair(silent(), move |assignment, leader, _| {
        let number = assignment.fence.number;
        let result = leader.commit(commit(0, number == 2));
        notes.note(format!("{number}: {:?}", result.as_ref().map_err(|error| error.class)));
        result.map(|()| Outcome::Committed)
    });
    leader.send(vec![grant(execute(0), 1, 1)]);
    leader.wait_event("the first commit", 1, |event| is_commit(event, 0));
    // An older one changes nothing.
    leader.send(vec![grant(execute(0), 0, 9), grant(execute(0), 2, 2)]);
    journal.wait("2: Ok(())");
    assert_eq!(journal.lines(), ["1: Err(Fenced)", "2: Ok(())"]);
    assert_eq!(
        leader.count(|event| failed(event).is_some()),
        0,
        "nobody asks how the fenced one ended"
    );
    worker.stop();
}

#[test]
fn refusals_keep_their_class() {
    for (reason, class) in [
        ("fenced: another holds it", "fenced"),
        ("cancelled: the run is ending", "cancelled"),
        ("sealed: no more", "fenced"),
        ("out of order: 3", "fenced"),
    ] {
        let script: Script = Box::new(move |event| match event {
            Event::Commit(commit) => vec![reply(commit, false, reason)],
            _ => Vec::new(),
        });
        let (leader, worker) = pair(script, |_, leader, _| {
            leader.commit(commit(0, false)).map(|()| Outcome::Committed)
        });
        leader.send(vec![grant(execute(0), 1, 1)]);
        let report = leader.wait_event("the report", 1, failed);
        assert_eq!(report.class, class);
        assert!(report.message.contains(reason), "{}", report.message);
        worker.stop();
    }
}

#[test]
fn attempts_stop_when_told() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, worker) = pair(silent(), move |assignment, leader, _| {
        notes.note(format!("run {}", assignment.task.partition));
        if assignment.task.partition == 0 {
            // Reads on until the checkpoint is asked for.
            let deadline = Instant::now() + PATIENCE;
            while leader.progress(1, 1) != Stop::AtCheckpoint {
                assert!(Instant::now() < deadline, "never told");
                thread::yield_now();
            }
            return Ok(Outcome::Released);
        }
        leader.commit(commit(0, false)).map(|()| Outcome::Committed)
    });
    leader.send(
        (0..4)
            .map(|number| grant(execute(number), 1, 1 + u64::from(number)))
            .collect(),
    );
    journal.wait("run 0");
    // Not begun: given back at once.
    leader.send(vec![stop(execute(2), 1, 3, false, "cancelled")]);
    leader.wait_event("2 is given back", 1, |event| released(event, 2));
    leader.send(vec![stop(execute(0), 1, 1, true, "drained")]);
    leader.wait_event("0 is given back", 1, |event| released(event, 0));
    // In the middle of a commit.
    leader.wait_event("a commit of 1", 1, |event| is_commit(event, 0));
    leader.send(vec![stop(execute(1), 1, 2, false, "cancelled: by the user")]);
    assert_eq!(leader.wait_event("1 ends", 1, failed).class, "cancelled");
    journal.wait("run 3");
    assert_eq!(journal.lines(), ["run 0", "run 1", "run 3"]);
    worker.stop();
}

#[test]
fn a_suspect_worker_begins_nothing_new() {
    let clock = Clock::manual(0);
    let journal = Journal::default();
    let notes = journal.clone();
    let leader = FakeLeader::start(accepting());
    leader.set_step(step(true));
    let worker = Worker::start(
        vec![leader.endpoint()],
        1,
        clock.clone(),
        move |assignment, leader, _| {
            notes.note(format!("run {}", assignment.task.partition));
            if assignment.task.partition == 0 {
                notes.wait("finish 0");
            }
            leader.commit(commit(0, true)).map(|()| Outcome::Committed)
        },
    );
    leader.wait_event("a hello", 1, |event| matches!(event, Event::Hello(_)).then_some(()));
    leader.send(vec![grant(execute(0), 1, 1), grant(execute(1), 1, 2)]);
    journal.wait("run 0");
    leader.cut_off(true);
    // Nothing of the old session is under way any more.
    leader.wait_until_refused(1);
    clock.advance(LEASE + Duration::from_millis(1));
    journal.note("finish 0");
    leader.wait_until_refused(3);
    journal.note("back");
    leader.accept_again();
    journal.wait("run 1");
    let held = leader.wait_event("a second hello", 2, |event| match event {
        Event::Hello(hello) => Some(hello.held.len()),
        _ => None,
    });
    assert_eq!(held, 2, "what is finished but not acknowledged, and what is queued");
    assert_eq!(journal.lines(), ["run 0", "finish 0", "back", "run 1"]);
    worker.stop();
}

#[test]
fn a_leader_that_does_not_answer_is_left_when_tasks_wait() {
    let clock = Clock::manual(0);
    let journal = Journal::default();
    let notes = journal.clone();
    let leader = FakeLeader::start(accepting());
    leader.set_step(step(true));
    leader.set_mute();
    let worker = Worker::start(vec![leader.endpoint()], 1, clock.clone(), move |assignment, _, _| {
        notes.note(format!("run {}", assignment.task.partition));
        if assignment.task.partition == 0 {
            notes.wait("finish 0");
        }
        Err(TaskError::new(ErrorClass::Data, "bad"))
    });
    leader.wait_event("a hello", 1, |event| matches!(event, Event::Hello(_)).then_some(()));
    leader.send(vec![grant(execute(0), 1, 1), grant(execute(1), 1, 2)]);
    journal.wait("run 0");
    clock.advance(LEASE + Duration::from_millis(1));
    journal.note("finish 0");
    leader.wait_event("a second hello", 2, |event| {
        matches!(event, Event::Hello(_)).then_some(())
    });
    journal.wait("run 1");
    worker.stop();
}

#[test]
fn messages_of_a_former_leader_are_dropped() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, worker) = pair(accepting(), move |assignment, leader, _| {
        notes.note(format!("run {}", assignment.task.partition));
        leader.commit(commit(0, true)).map(|()| Outcome::Committed)
    });
    leader.send_in_term(4, vec![grant(execute(0), 1, 1)]);
    leader.send_in_term(6, vec![grant(execute(1), 1, 2)]);
    leader.send_in_term(5, vec![grant(execute(2), 1, 3)]);
    leader.send_in_term(6, vec![grant(execute(3), 1, 4)]);
    journal.wait("run 3");
    assert_eq!(journal.lines(), ["run 1", "run 3"]);
    // Nor does the worker stay with one: its welcome is refused until it leads again.
    leader.cut_off(false);
    leader.wait_event("a refused hello", 2, |event| {
        matches!(event, Event::Hello(_)).then_some(())
    });
    leader.wait_event("another", 3, |event| matches!(event, Event::Hello(_)).then_some(()));
    assert_eq!(leader.count_in(2, |event| matches!(event, Event::Heartbeat(_))), 0);
    leader.set_term(7);
    leader.wait("in session again", |heard| {
        heard
            .iter()
            .find_map(|(session, event)| (*session > 2 && matches!(event, Event::Heartbeat(_))).then_some(()))
    });
    worker.stop();
}

#[test]
fn a_panic_is_a_failed_task_and_not_a_lost_worker() {
    let (leader, worker) = pair(accepting(), |assignment, leader, slot| {
        *slot.keep(|| 0u32) += 1;
        if assignment.task.partition == 0 {
            panic!("partition {} is cursed", assignment.task.partition);
        }
        assert_eq!(*slot.keep(|| 0u32), 1, "what a panic left behind is not used again");
        leader.commit(commit(0, true)).map(|()| Outcome::Committed)
    });
    leader.send(vec![grant(execute(0), 1, 1), grant(execute(1), 1, 2)]);
    let report = leader.wait_event("the report", 1, failed);
    assert_eq!(report.class, "transient");
    assert!(
        report.message.contains("worker panic") && report.message.contains("partition 0 is cursed"),
        "{report:?}"
    );
    leader.wait_event("the other task", 1, |event| is_commit(event, 0));
    worker.stop();
}

#[test]
fn an_attempt_that_forgets_its_last_commit_has_failed() {
    let (leader, worker) = pair(accepting(), |_, _, _| Ok(Outcome::Committed));
    leader.send(vec![grant(execute(0), 1, 1)]);
    assert!(
        leader
            .wait_event("the report", 1, failed)
            .message
            .contains("without a last commit")
    );
    worker.stop();
}

#[test]
fn a_draining_worker_gives_back_what_it_holds_and_leaves() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, mut worker) = pair(accepting(), move |_, leader, _| {
        notes.note("begun");
        let deadline = Instant::now() + PATIENCE;
        while leader.progress(1, 1) == Stop::No {
            assert!(Instant::now() < deadline, "never told");
            thread::yield_now();
        }
        leader.commit(commit(0, false))?;
        Ok(Outcome::Released)
    });
    leader.send(vec![grant(execute(0), 1, 1), grant(execute(1), 1, 2)]);
    journal.wait("begun");
    worker.shutdown.drain();
    worker.end().expect("an orderly end");
    let story: Vec<&str> = leader.wait("the end of it", |heard| {
        let story: Vec<&str> = heard
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Drain(_) => Some("drain"),
                Event::Commit(_) => Some("commit"),
                Event::Released(released) => {
                    Some(["release 0", "release 1"][released.task.as_ref()?.partition as usize])
                }
                _ => None,
            })
            .collect();
        (story.len() == 4).then_some(story)
    });
    assert_eq!(story, ["drain", "release 1", "commit", "release 0"]);
}

#[test]
fn what_comes_to_no_checkpoint_is_given_back_when_the_drain_ends() {
    let journal = Journal::default();
    let notes = journal.clone();
    let (leader, mut worker) = pair(accepting(), move |_, leader, _| {
        leader.commit(commit(0, false))?;
        notes.note("committed");
        // Hears of nothing any more, as in the middle of a long aggregate.
        notes.wait("let go");
        Ok(Outcome::Released)
    });
    leader.send(vec![grant(execute(0), 1, 1)]);
    journal.wait("committed");
    worker.shutdown.drain();
    worker.end().expect("a slot that is still busy is no error");
    leader.wait_event("it is given back", 1, |event| released(event, 0));
    assert_eq!(leader.count(|event| failed(event).is_some()), 0);
    assert_eq!(leader.count(|event| matches!(event, Event::Commit(_))), 1);
    journal.note("let go");
}

/// A worker that is suspect while its slot reads on, and what its leader says then.
fn suspect_in_mid_chunk(answer: impl FnOnce(&FakeLeader, &v1::CommitRequest)) -> Vec<String> {
    let clock = Clock::manual(0);
    let journal = Journal::default();
    let notes = journal.clone();
    let leader = FakeLeader::start(silent());
    leader.set_step(step(true));
    let metrics = Metrics::new(1, clock.clone());
    let worker = Worker::start_with(
        vec![leader.endpoint()],
        1,
        clock.clone(),
        metrics.clone(),
        move |_, leader, _| {
            notes.note("begun");
            notes.wait("read on");
            // The chunk is sealed here; the commit waits for a leader.
            let first = leader.commit(commit(0, false));
            notes.note(format!("answered {:?}", first.as_ref().map_err(|error| error.class)));
            first?;
            leader.commit(commit(1, true)).map(|()| Outcome::Committed)
        },
    );
    leader.wait_event("a hello", 1, |event| matches!(event, Event::Hello(_)).then_some(()));
    leader.send(vec![grant(execute(0), 1, 1)]);
    journal.wait("begun");
    leader.cut_off(true);
    leader.wait_until_refused(1);
    let suspect = |yes: bool| {
        let line = format!("gapless_worker_suspect {}", u8::from(yes));
        let deadline = Instant::now() + PATIENCE;
        while !gapless_platform::monitor::Monitored::metrics(&metrics)
            .lines()
            .any(|it| it == line)
        {
            assert!(Instant::now() < deadline, "never {line}");
            thread::yield_now();
        }
    };
    suspect(false);
    clock.advance(LEASE + Duration::from_millis(1));
    suspect(true);
    journal.note("read on");
    leader.accept_again();
    let held = leader.wait_event("a second hello", 2, |event| match event {
        Event::Hello(hello) => Some(hello.held.len()),
        _ => None,
    });
    assert_eq!(held, 1, "nothing is let go");
    suspect(false);
    let offered = leader.wait_event("the sealed chunk", 2, |event| is_commit(event, 0));
    assert_eq!(leader.count_in(1, |event| matches!(event, Event::Commit(_))), 0);
    answer(&leader, &offered);
    journal.wait("begun");
    leader.wait("the end of the attempt", |heard| {
        heard.iter().find_map(|(_, event)| match event {
            Event::Commit(commit) if commit.seq == 1 => Some(()),
            Event::Failed(_) => Some(()),
            _ => None,
        })
    });
    worker.stop();
    journal.lines()
}

#[test]
fn a_suspect_worker_seals_its_open_chunk_and_goes_on_where_the_leader_still_knows_it() {
    let lines = suspect_in_mid_chunk(|leader, offered| leader.send(vec![reply(offered, true, "")]));
    assert_eq!(lines, ["begun", "read on", "answered Ok(())"]);
}

#[test]
fn a_suspect_worker_lets_go_where_its_attempt_is_fenced() {
    let lines = suspect_in_mid_chunk(|leader, offered| {
        leader.send(vec![reply(offered, false, "fenced: the partition has another attempt")]);
    });
    assert_eq!(lines, ["begun", "read on", "answered Err(Fenced)"]);
}

#[test]
fn a_worker_without_a_leader_drains_at_once() {
    let mut worker = Worker::start(vec![nobody()], 1, Clock::system(), |_, _, _| Ok(Outcome::Released));
    worker.shutdown.drain();
    worker.end().expect("an orderly end");
}

/// An endpoint on which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("bound"))
}

#[test]
fn endpoints_are_tried_in_turn() {
    let leader = FakeLeader::start(accepting());
    let worker = Worker::start(vec![nobody(), leader.endpoint()], 1, Clock::system(), |_, _, _| {
        Ok(Outcome::Released)
    });
    let hello = leader.wait_event("a hello", 1, |event| match event {
        Event::Hello(hello) => Some(hello.clone()),
        _ => None,
    });
    assert_eq!(
        (
            hello.name.as_str(),
            hello.slots,
            hello.cluster.len(),
            hello.worker.len()
        ),
        ("w1", 1, 0, 16)
    );
    worker.stop();
}

#[test]
fn a_worker_follows_to_the_leader_that_a_standby_names_and_keeps_its_attempts() {
    let (old, new) = (FakeLeader::start(accepting()), FakeLeader::start(accepting()));
    new.set_term(6);
    // The new leader's address is not among its endpoints.
    let (go_on, waits) = std::sync::mpsc::channel();
    let waits = std::sync::Mutex::new(waits);
    for leader in [&old, &new] {
        leader.set_step(step(true));
    }
    let worker = Worker::start(vec![old.endpoint()], 1, Clock::system(), move |_, leader, _| {
        waits.lock().expect("one slot").recv().expect("the test goes on");
        leader.commit(commit(0, true))?;
        Ok(Outcome::Committed)
    });
    old.wait_event("a hello", 1, |event| matches!(event, Event::Hello(_)).then_some(()));
    old.send(vec![grant(execute(3), 1, 7)]);
    old.wait("the attempt", |heard| holds(heard, 1, 1));
    old.stand_by(&new.endpoint());
    new.wait_event("a hello with the attempt", 1, |event| match event {
        Event::Hello(hello) => (hello.held.len() == 1).then_some(()),
        _ => None,
    });
    go_on.send(()).expect("the slot waits");
    new.wait_event("the commit", 1, |event| is_commit(event, 0));
    assert!(old.refused() >= 1);
    worker.stop();
}

#[test]
fn two_that_name_each_other_are_not_asked_without_a_pause() {
    let (one, other) = (FakeLeader::start(accepting()), FakeLeader::start(accepting()));
    one.stand_by(&other.endpoint());
    other.stand_by(&one.endpoint());
    let worker = Worker::start(vec![one.endpoint(), other.endpoint()], 1, Clock::system(), |_, _, _| {
        Ok(Outcome::Released)
    });
    let begun = std::time::Instant::now();
    one.wait_until_refused(8);
    // Two refusals for each pause, of which eight come to a second and more.
    assert!(begun.elapsed() > Duration::from_millis(100), "{:?}", begun.elapsed());
    one.accept_again();
    one.wait_event("a hello", 1, |event| matches!(event, Event::Hello(_)).then_some(()));
    worker.stop();
}

#[test]
fn another_cluster_is_refused_in_words() {
    let (leader, mut worker) = pair(accepting(), |_, _, _| Ok(Outcome::Released));
    leader.wait("in session", |heard| holds(heard, 1, 0));
    leader.set_cluster(Uuid::from_u128(0xbad));
    leader.cut_off(false);
    let error = worker.end().expect_err("another cluster").to_string();
    for words in [
        &Uuid::from_u128(0xbad).to_string(),
        &CLUSTER.to_string(),
        "two clusters must not share workers",
    ] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn steps_are_asked_for_once_and_again_when_they_have_grown() {
    let (leader, worker) = pair(accepting(), |assignment, leader, _| {
        if assignment.task.stage == Stage::Survey {
            return Ok(Outcome::Finished(Vec::new()));
        }
        assert!(assignment.context.frame.is_some());
        leader.commit(commit(0, true)).map(|()| Outcome::Committed)
    });
    leader.set_step(step(false));
    let finished = |heard: &[(u32, Event)], count: usize| {
        (heard
            .iter()
            .filter(|(_, event)| matches!(event, Event::Finished(_)))
            .count()
            == count)
            .then_some(())
    };
    let committed = |heard: &[(u32, Event)], count: usize| {
        (heard
            .iter()
            .filter(|(_, event)| matches!(event, Event::Commit(_)))
            .count()
            == count)
            .then_some(())
    };
    leader.send(vec![
        grant(task(Stage::Survey, 0), 1, 1),
        grant(task(Stage::Survey, 1), 1, 2),
    ]);
    leader.wait("two surveys", |heard| finished(heard, 2));
    assert_eq!(leader.steps_asked(), 1);
    // Not split yet: the task fails and may be tried again.
    leader.send(vec![grant(execute(0), 1, 3)]);
    assert_eq!(leader.wait_event("no frame", 1, failed).class, "transient");
    leader.set_step(step(true));
    leader.send(
        (1..4)
            .map(|number| grant(execute(number), 1, 10 + u64::from(number)))
            .collect(),
    );
    leader.wait("three partitions", |heard| committed(heard, 3));
    assert_eq!(leader.steps_asked(), 3);
    worker.stop();
}

#[test]
fn a_job_that_cannot_be_read_is_a_config_error() {
    let (leader, worker) = pair(accepting(), |_, _, _| Ok(Outcome::Released));
    leader.set_step(v1::GetStepResponse {
        job_text: "job: numbers\nstep: none".to_string(),
        ..Default::default()
    });
    leader.send(vec![grant(task(Stage::Survey, 0), 1, 1)]);
    let report = leader.wait_event("the report", 1, failed);
    assert_eq!(report.class, "config");
    assert!(report.message.contains("the job file:2"), "{report:?}");
    worker.stop();
}

#[test]
fn committed_partitions_come_page_by_page_even_inside_a_runtime_of_the_engine() {
    let (leader, worker) = pair(accepting(), |_, leader, _| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let partitions = leader.committed(Stage::Scatter)?;
            leader.commit(commit(0, false))?;
            let text: Vec<String> = partitions
                .iter()
                .map(|one| format!("{} {} {:?}", one.partition, one.units, one.segments))
                .collect();
            Ok(Outcome::Finished(text.join("\n").into_bytes()))
        })
    });
    let page = |partition: u32, next: Option<u32>| v1::ListCommittedResponse {
        partitions: vec![v1::CommittedPartition {
            partition,
            low: 0,
            high: 5,
            done: true,
            ..Default::default()
        }],
        next,
    };
    leader.set_page(0, page(0, Some(1)));
    leader.set_page(1, page(1, None));
    leader.send(vec![grant(execute(0), 1, 1)]);
    let result = leader.wait_event("the result", 1, |event| match event {
        Event::Finished(finished) => Some(finished.result.clone()),
        _ => None,
    });
    assert_eq!(std::str::from_utf8(&result), Ok("0 [0, 5) []\n1 [0, 5) []"));
    worker.stop();
}

/// `cargo test --release -p gapless-worker -- --ignored --nocapture --test-threads 1 tiny_tasks`
#[test]
#[ignore = "measures: tasks a second over one stream"]
fn tiny_tasks_many_ahead() {
    measure(200_000, 512);
}

#[test]
#[ignore = "measures: the way of one task from grant to answer"]
fn tiny_tasks_one_by_one() {
    measure(2_000, 1);
}

/// Works off so many empty tasks, `ahead` of them granted at a time, and prints what it took.
fn measure(tasks: u32, ahead: u32) {
    let journal = Journal::default();
    let done = journal.clone();
    let (mut granted, mut confirmed) = (ahead, 0);
    let script: Script = Box::new(move |event| {
        let Event::Commit(commit) = event else {
            return Vec::new();
        };
        confirmed += 1;
        if confirmed == tasks {
            done.note("done");
        }
        let mut answers = vec![reply(commit, true, "")];
        if granted < tasks {
            answers.push(grant(execute(granted), 1, u64::from(granted)));
            granted += 1;
        }
        answers
    });
    let (leader, worker) = pair(script, |_, leader, _| {
        leader.commit(commit(0, true)).map(|()| Outcome::Committed)
    });
    leader.keep_no_log();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    leader.send(
        (0..ahead)
            .map(|number| grant(execute(number), 1, u64::from(number)))
            .collect(),
    );
    journal.wait("done");
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{tasks} tasks, {ahead} ahead, in {wall:.2} s: {:.0} a second, {:.0} µs each; {:.1} µs of processor each, leader included",
        f64::from(tasks) / wall,
        wall * 1e6 / f64::from(tasks),
        cpu * 1e6 / f64::from(tasks)
    );
    worker.stop();
}

/// Processor time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc(5)");
    // After the name in parentheses; utime and stime are the 12th and 13th of those, in 1/100 s.
    let after = stat.rsplit_once(')').expect("a name").1;
    let ticks: u64 = after
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    ticks as f64 / 100.0
}
