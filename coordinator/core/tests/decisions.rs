//! Decisions that no ordinary course of things shows: large jobs, states that only damage or
//! another release could leave behind, values at the edge of what a row can hold.

use std::{collections::BTreeMap, sync::Arc};

use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{AttemptId, RunId, SessionId, Stage, StepNo, TaskKey, Term},
    job::{Count, Job, OnError, Partition, Partitioning, Sink, Source, Step},
    key::{Key, KeyType},
    plan::{Column, Facts, KeySample, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use gapless_core::{
    Change, Decision, Effect, Event, Refusal, Row, RowKey, State, Timestamp, decide,
    event::{Continuation, Held, StageResult, Submit},
    history::{self, Entry, Kind},
    invariants,
    limits::{EVENTS_PER_RUN, MAX_ROWS, MAX_SESSIONS, MAX_SPEEDS},
    load::{StageLoad, load},
    row::{JobRow, Phase, Publication, RunState, SpeedRow},
};
use uuid::Uuid;

const RUN: RunId = RunId(Uuid::from_u128(1));
const SESSION: SessionId = SessionId(Uuid::from_u128(2));

/// A leader with its rows; each decision is checked for its size and applied.
struct Leader {
    state: State,
    rows: BTreeMap<String, Row>,
    now: Timestamp,
    granted: BTreeMap<TaskKey, Fence>,
}

impl Leader {
    fn new() -> Leader {
        Leader {
            state: State::new(Term(1), 10_000, 60_000),
            rows: BTreeMap::new(),
            now: Timestamp(1),
            granted: BTreeMap::new(),
        }
    }

    /// The event, what follows from it, and what is granted then.
    fn send(&mut self, event: Event) -> Result<Vec<Effect>, Refusal> {
        let mut effects = self.decide(event)?;
        loop {
            let next: Vec<Continuation> = effects
                .iter()
                .filter_map(|effect| match effect {
                    Effect::Continue(next) => Some(*next),
                    _ => None,
                })
                .collect();
            effects.retain(|effect| !matches!(effect, Effect::Continue(_)));
            if next.is_empty() {
                break;
            }
            for next in next {
                effects.extend(self.decide(Event::Continue(next))?);
            }
        }
        loop {
            let more = self.decide(Event::Assign)?;
            if more.is_empty() {
                break;
            }
            effects.extend(more);
        }
        invariants::check(&self.state).unwrap();
        Ok(effects)
    }

    fn decide(&mut self, event: Event) -> Result<Vec<Effect>, Refusal> {
        self.state.note(&event, self.now);
        let Decision { rows, effects, .. } = decide(&self.state, self.now, event)?;
        assert!(rows.len() <= MAX_ROWS, "{} rows", rows.len());
        for change in rows {
            match &change {
                Change::Put(row) | Change::Create(row) => {
                    if let Row::Lease(task, lease) = row {
                        self.granted.insert(*task, lease.fence);
                    }
                    self.rows.insert(row.key().to_string(), row.clone());
                }
                Change::Delete(key) => {
                    self.rows.remove(&key.to_string());
                }
            }
            let told = history::told_by(&self.state, &change, self.now);
            self.state.apply(change, self.now);
            if let Some((run, entry)) = told {
                self.state.remember(run, entry);
            }
        }
        Ok(effects)
    }

    fn submit(&mut self, steps: Vec<Step>) {
        let job = Job {
            name: "job".into(),
            parameters: BTreeMap::new(),
            priority: Default::default(),
            steps,
            redrive: None,
        };
        let row = JobRow {
            redrive: String::new(),
            text: String::new(),
            file_name: "job.yaml".into(),
            parameters: BTreeMap::new(),
            base_dir: "/".into(),
            job,
        };
        let submit = Submit {
            run: RUN,
            identity: "job".into(),
            text_digest: "1".into(),
            priority: None,
            job: Arc::new(row),
        };
        self.send(Event::Submit(submit)).unwrap();
    }

    fn connect(&mut self, slots: u32) {
        let event = Event::Connect {
            session: SESSION,
            worker: Uuid::from_u128(3),
            name: "w1".into(),
            version: String::new(),
            slots,
            labels: Default::default(),
            held: vec![],
        };
        self.send(event).unwrap();
    }

    fn finish(&mut self, step: StepNo, stage: Stage, result: StageResult) {
        let task = task(step, stage, 0);
        let fence = self.granted[&task];
        let event = Event::Finished {
            session: SESSION,
            task,
            fence,
            result,
        };
        self.send(event).unwrap();
    }

    fn commit(&mut self, task: TaskKey, commit: Commit) -> Result<Vec<Effect>, Refusal> {
        let fence = self.granted[&task];
        self.send(Event::Commit {
            session: SESSION,
            task,
            fence,
            commit,
        })
    }

    /// Surveys, prepares and commits a step of one partition, and publishes it.
    fn complete(&mut self, step: StepNo) {
        self.finish(step, Stage::Survey, StageResult::Facts(Arc::new(facts(1))));
        self.finish(step, Stage::Prepare, StageResult::Prepared("{}".into()));
        self.commit(task(step, Stage::Execute, 0), whole(0, 1)).unwrap();
        self.finish(step, Stage::Publish, StageResult::Published(Publication::default()));
    }

    fn phases(&self, phase: Phase) -> usize {
        let steps = &self.state.run(RUN).unwrap().steps;
        steps.iter().filter(|step| step.row.phase == phase).count()
    }

    fn run_state(&self) -> RunState {
        self.state.run(RUN).unwrap().row.state
    }
}

fn task(step: StepNo, stage: Stage, partition: u32) -> TaskKey {
    TaskKey {
        run: RUN,
        step,
        stage,
        partition,
    }
}

fn step(name: &str, after: &[&str], count: u32) -> Step {
    Step {
        name: name.into(),
        after: after.iter().map(|name| name.to_string()).collect(),
        source: Source::Sequence { from: 0, to: 1 },
        lookups: BTreeMap::new(),
        partition: Partitioning {
            method: Partition::Auto,
            count: Count::Fixed(count),
        },
        placement: Default::default(),
        checks: vec![],
        sql: None,
        command: None,
        sort: Vec::new(),
        sink: Sink::Discard,
        on_error: OnError::default(),
        if_unchanged: Default::default(),
    }
}

fn facts(units: u64) -> Facts {
    Facts {
        unit: Unit::Number,
        files: vec![],
        domain: UnitRange::new(0, units),
        columns: vec![],
        output: vec![],
        read_columns: None,
        inputs: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: "a projection".into(),
        },
        rows: units,
        bytes: units,
        sample: None,
        warnings: vec![],
        lookups: vec![],
        standing: None,
    }
}

fn whole(low: u64, high: u64) -> Commit {
    Commit {
        seq: 0,
        previous: low,
        next: high,
        counters: Counters::default(),
        records: RecordHash::default(),
        digest: 1,
        last: true,
    }
}

/// As many steps as a job may have.
const MANY: usize = 1000;

#[test]
fn a_job_of_many_independent_steps_begins_and_is_cancelled_in_decisions_of_bounded_size() {
    let mut leader = Leader::new();
    leader.submit((0..MANY).map(|at| step(&format!("s{at}"), &[], 1)).collect());
    assert_eq!(leader.phases(Phase::Survey), MANY);
    leader.send(Event::Cancel { run: RUN }).unwrap();
    assert_eq!(leader.phases(Phase::Aborted), MANY);
    assert_eq!(leader.run_state(), RunState::Cancelled);
}

#[test]
fn steps_that_waited_for_one_step_begin_when_it_is_published_however_many() {
    let mut leader = Leader::new();
    let first = step("first", &[], 1);
    let rest = (1..MANY).map(|at| step(&format!("s{at}"), &["first"], 1));
    leader.submit([first].into_iter().chain(rest).collect());
    leader.connect(1);
    leader.complete(0);
    assert_eq!(leader.phases(Phase::Survey), MANY - 1);
}

#[test]
fn steps_begin_also_when_the_leader_died_before_all_had_begun() {
    let mut leader = Leader::new();
    leader.submit((0..MANY).map(|at| step(&format!("s{at}"), &[], 1)).collect());
    // All but the first decision were lost.
    let late = |key: &String| {
        key.strip_prefix(&format!("step/{RUN}/"))
            .is_some_and(|at| at.parse::<usize>().unwrap() >= 64)
    };
    leader.rows.retain(|key, _| !late(key));
    leader.state = State::recover(
        Term(2),
        10_000,
        60_000,
        leader.rows.values().cloned().collect(),
        leader.now,
    );
    assert_eq!(leader.phases(Phase::Survey), 64);
    for event in gapless_core::decide::due(&leader.state, leader.now) {
        leader.send(event).unwrap();
    }
    assert_eq!(leader.phases(Phase::Survey), MANY);
}

/// A run with `count` partitions of one unit each, all leased to one worker.
fn executing(count: u32) -> Leader {
    let mut leader = Leader::new();
    leader.submit(vec![step("load", &[], count)]);
    leader.connect(count);
    leader.finish(0, Stage::Survey, StageResult::Facts(Arc::new(facts(u64::from(count)))));
    leader.finish(0, Stage::Prepare, StageResult::Prepared("{}".into()));
    assert_eq!(leader.state.sessions[&SESSION].leases.len(), count as usize);
    leader
}

#[test]
fn a_run_over_its_reject_limit_tells_where_the_rejected_records_lie() {
    for (prepared, place) in [
        (
            r#"{"generation":1,"output":"/out","rejects":"/.out.gapless/run/r-0/rejects"}"#,
            true,
        ),
        // As earlier releases reported.
        (r#"{"generation":1,"output":"/out"}"#, false),
    ] {
        let mut leader = Leader::new();
        leader.submit(vec![step("load", &[], 1)]);
        leader.connect(1);
        leader.finish(0, Stage::Survey, StageResult::Facts(Arc::new(facts(1))));
        leader.finish(0, Stage::Prepare, StageResult::Prepared(prepared.into()));
        let mut commit = whole(0, 1);
        (commit.counters.read, commit.counters.rejected) = (1, 1);
        (commit.counters.written, commit.counters.filtered) = (0, 0);
        leader.commit(task(0, Stage::Execute, 0), commit).unwrap();
        assert_eq!(leader.run_state(), RunState::Failed);
        let error = leader.state.run(RUN).unwrap().row.error.clone().unwrap();
        assert!(error.contains("1 record rejected, the limit is 0"), "{error}");
        let told = error.contains("the rejected records are in /.out.gapless/run/r-0/rejects until");
        assert_eq!(told, place, "{error}");
    }
}

#[test]
fn facts_of_a_release_that_did_not_pin_look_ups_are_read() {
    let row = Row::Facts(RUN, 0, Arc::new(facts(1)));
    let stored = String::from_utf8(row.encode()).unwrap();
    assert!(!stored.contains("lookups"), "{stored}");
    assert_eq!(Row::decode(&row.key().to_string(), stored.as_bytes()).unwrap(), row);
}

#[test]
fn leases_of_a_stopped_run_that_the_worker_does_not_hold_come_back_with_few_heartbeats() {
    let mut leader = executing(100);
    leader.send(Event::Stop { run: RUN }).unwrap();
    let mut beats = 0;
    while leader.run_state() != RunState::Stopped {
        beats += 1;
        assert!(beats < 10, "{} leases left", leader.state.run(RUN).unwrap().leases);
        let event = Event::Heard {
            session: SESSION,
            held: vec![],
            resident_bytes: 0,
        };
        leader.send(event).unwrap();
    }
}

#[test]
fn a_lost_worker_with_many_tasks_is_cleared_up_in_decisions_of_bounded_size() {
    let mut leader = executing(200);
    leader.send(Event::Lost { session: SESSION }).unwrap();
    assert!(leader.state.sessions.is_empty());
    assert_eq!(leader.state.run(RUN).unwrap().leases, 0);
}

#[test]
fn what_a_leader_left_of_a_lost_worker_its_successor_clears_up() {
    let mut leader = executing(200);
    // It dies after the first decision of several.
    leader.decide(Event::Lost { session: SESSION }).unwrap();
    leader.state = State::recover(
        Term(2),
        10_000,
        60_000,
        leader.rows.values().cloned().collect(),
        leader.now,
    );
    assert!(leader.state.run(RUN).unwrap().leases > 100);
    leader.now = leader.now.plus_millis(10_001);
    for event in gapless_core::decide::due(&leader.state, leader.now) {
        leader.send(event).unwrap();
    }
    assert_eq!(leader.state.run(RUN).unwrap().leases, 0);
    assert!(leader.state.sessions.is_empty());
}

#[test]
fn a_worker_that_holds_many_tasks_reconnects_in_decisions_of_bounded_size() {
    let mut leader = executing(200);
    let held: Vec<Held> = leader
        .granted
        .iter()
        .filter(|(task, _)| task.stage == Stage::Execute)
        .map(|(task, fence)| Held {
            task: *task,
            fence: *fence,
            position: 0,
            rows: 0,
        })
        .collect();
    let session = SessionId(Uuid::from_u128(9));
    let event = Event::Connect {
        session,
        worker: Uuid::from_u128(3),
        name: "w1".into(),
        version: String::new(),
        slots: 200,
        labels: Default::default(),
        held: held.clone(),
    };
    leader.send(event).unwrap();
    let kept = held
        .iter()
        .filter(|held| leader.state.task(&held.task).unwrap().lease.unwrap().row.fence == held.fence)
        .count();
    assert!(kept >= 60, "{kept} of {} went on", held.len());
    assert_eq!(leader.state.sessions[&session].leases.len(), 200);
}

#[test]
fn a_sealed_step_takes_no_commit_even_under_a_lease() {
    let mut leader = executing(2);
    // No course of events leaves a lease in a sealed step. The guard stands all the same: what is
    // published is what was sealed.
    let key = RowKey::Step(RUN, 0).to_string();
    let Some(Row::Step(_, _, row)) = leader.rows.get_mut(&key) else {
        panic!("no step")
    };
    row.phase = Phase::Publish;
    row.seal = Some(7);
    leader.state = State::recover(
        Term(2),
        10_000,
        60_000,
        leader.rows.values().cloned().collect(),
        leader.now,
    );
    let first = task(0, Stage::Execute, 0);
    assert_eq!(leader.commit(first, whole(0, 1)), Err(Refusal::Sealed { task: first }));
}

#[test]
fn stages_that_report_a_result_take_no_commit() {
    let mut leader = Leader::new();
    leader.submit(vec![step("load", &[], 1)]);
    leader.connect(1);
    let survey = task(0, Stage::Survey, 0);
    assert_eq!(
        leader.commit(survey, whole(0, 1)),
        Err(Refusal::WrongStage { task: survey })
    );
}

#[test]
fn an_attempt_that_does_not_move_for_the_stall_time_goes_to_another() {
    let mut leader = executing(1);
    let (only, before) = (task(0, Stage::Execute, 0), leader.granted[&task(0, Stage::Execute, 0)]);
    let beat = |leader: &mut Leader, position| {
        leader.now = leader.now.plus_millis(9_000);
        let held = vec![Held {
            task: only,
            fence: before,
            position,
            rows: 0,
        }];
        leader
            .send(Event::Heard {
                session: SESSION,
                held,
                resident_bytes: 0,
            })
            .unwrap();
        gapless_core::decide::due(&leader.state, leader.now)
    };
    // It moves, so it may take as long as it likes.
    for position in 1..20 {
        assert_eq!(beat(&mut leader, position), vec![]);
    }
    let stalled = (0..10)
        .find_map(|_| beat(&mut leader, 19).pop())
        .expect("a stall is noticed");
    leader.send(stalled).unwrap();
    assert_eq!(
        leader.granted[&only], before,
        "a stalled task waits before it is tried again"
    );
    leader.now = leader.now.plus_millis(1_000);
    leader.send(Event::Tick).unwrap();
    assert_eq!(leader.granted[&only].number, before.number + 1);
}

#[test]
fn an_abort_that_loses_its_worker_again_and_again_is_still_tried() {
    let mut leader = executing(1);
    leader.send(Event::Cancel { run: RUN }).unwrap();
    let abort = task(0, Stage::Abort, 0);
    for life in 0..6 {
        let session = leader.state.task(&abort).unwrap().lease.unwrap().row.session;
        leader.now = leader.now.plus_millis(60_000);
        leader.send(Event::Lost { session }).unwrap();
        let event = Event::Connect {
            session: SessionId(Uuid::from_u128(100 + life)),
            worker: Uuid::from_u128(200 + life),
            name: "another".into(),
            version: String::new(),
            slots: 1,
            labels: Default::default(),
            held: vec![],
        };
        leader.send(event).unwrap();
    }
    assert_eq!(leader.granted[&abort].number, 7);
}

#[test]
fn failures_that_are_nobodys_fault_use_no_budget() {
    let mut leader = executing(1);
    let only = task(0, Stage::Execute, 0);
    for class in [ErrorClass::Fenced, ErrorClass::Cancelled, ErrorClass::WorkerLost].repeat(3) {
        let event = Event::Failed {
            session: SESSION,
            task: only,
            fence: leader.granted[&only],
            error: TaskError::new(class, "not its fault"),
        };
        leader.send(event).unwrap();
    }
    assert_eq!(leader.granted[&only].number, 10);
    assert_eq!(leader.state.task(&only).unwrap().progress.as_ref().unwrap().failures, 0);
}

#[test]
fn any_row_is_read_back_as_it_was_written() {
    let keys = [
        Key::Int(i128::MAX),
        Key::Int(i128::MIN),
        Key::Int(i128::from(u64::MAX) + 1),
        Key::Float(f64::NAN),
        Key::Float(f64::INFINITY),
        Key::Float(f64::NEG_INFINITY),
        Key::Float(-0.0),
        Key::Float(5e-324),
        Key::Float(3.0),
        Key::Text("\u{0}\"/".into()),
    ];
    let column = Column {
        name: "k".into(),
        ty: "Float64".into(),
        nullable: true,
        key_type: Some(KeyType::Float),
    };
    for key in keys {
        let facts = Facts {
            columns: vec![column.clone()],
            sample: Some(KeySample {
                column: "k".into(),
                key_type: KeyType::Float,
                keys: vec![key],
                nulls: 0,
                complete: true,
            }),
            ..facts(1)
        };
        reads_back(Row::Facts(RUN, 0, Arc::new(facts)));
    }
    for identity in ["a/b", "", "день 1", "run"] {
        reads_back(Row::Identity(identity.into(), RUN));
    }
    let fence = Fence {
        number: u32::MAX,
        id: AttemptId {
            term: Term(u64::MAX),
            serial: u64::MAX,
        },
    };
    for stage in Stage::ALL {
        let lease = gapless_core::row::LeaseRow {
            session: SESSION,
            fence,
        };
        reads_back(Row::Lease(task(u16::MAX, stage, u32::MAX), lease));
    }
}

fn reads_back(row: Row) {
    let (key, value) = (row.key().to_string(), row.encode());
    match Row::decode(&key, &value) {
        Ok(again) => assert_eq!(again, row),
        Err(error) => panic!("{key} {}: {error}", String::from_utf8_lossy(&value)),
    }
}

fn kinds(leader: &Leader) -> Vec<Kind> {
    let entries = history::of_run(leader.state.run(RUN).unwrap(), Timestamp(0));
    assert!(entries.is_sorted_by(|one, next| one.at < next.at), "{entries:?}");
    entries.iter().map(|entry| entry.kind).collect()
}

#[test]
fn a_history_tells_a_run_in_order_and_rows_tell_its_outline() {
    let mut leader = Leader::new();
    leader.submit(vec![step("load", &[], 1)]);
    leader.connect(1);
    leader.complete(0);
    let expected = [
        Kind::Submitted,
        Kind::Stage,
        Kind::Planned,
        Kind::Stage,
        Kind::Sealed,
        Kind::Published,
        Kind::Completed,
    ];
    assert_eq!(kinds(&leader), expected);
    let run = leader.state.run(RUN).unwrap();
    let last = run.history.iter().next_back().unwrap().at;
    assert_eq!(history::of_run(run, last), [], "nothing has happened since");

    let rows = leader.rows.values().cloned().collect();
    leader.state = State::recover(Term(2), 10_000, 60_000, rows, leader.now);
    let outline = [
        Kind::Submitted,
        Kind::Stage,
        Kind::Published,
        Kind::Completed,
        Kind::Gap,
    ];
    assert_eq!(kinds(&leader), outline);
}

#[test]
fn a_history_is_bounded_and_says_what_it_has_lost() {
    let mut leader = Leader::new();
    leader.submit(vec![step("load", &[], 1)]);
    for number in 0..2 * EVENTS_PER_RUN {
        let entry = Entry {
            at: Timestamp(1000),
            step: Some(0),
            kind: Kind::Retry,
            text: number.to_string(),
        };
        leader.state.remember(RUN, entry);
    }
    let run = leader.state.run(RUN).unwrap();
    assert_eq!(run.history.iter().count(), EVENTS_PER_RUN);
    let last = (2 * EVENTS_PER_RUN - 1).to_string();
    assert_eq!(run.history.iter().next_back().unwrap().text, last);
    assert_eq!(kinds(&leader)[..3], [Kind::Submitted, Kind::Stage, Kind::Gap]);
}

#[test]
fn the_load_tells_tasks_that_wait_are_delayed_and_are_held() {
    let mut leader = executing(3);
    let execute = |leader: &Leader| load(&leader.state).stages.get(&Stage::Execute).copied();
    let (waiting, delayed, leased) = (0, 0, 3);
    let held = StageLoad {
        waiting,
        delayed,
        leased,
        unplaceable: 0,
    };
    assert_eq!(execute(&leader), Some(held));
    let now = load(&leader.state);
    assert_eq!((now.workers, now.slots, now.busy), (1, 3, 3));
    assert_eq!(now.runs, BTreeMap::from([(RunState::Running, 1)]));

    let first = task(0, Stage::Execute, 0);
    let failed = Event::Failed {
        session: SESSION,
        task: first,
        fence: leader.granted[&first],
        error: TaskError::new(ErrorClass::Transient, "a disk was away"),
    };
    leader.send(failed).unwrap();
    let failed = StageLoad {
        delayed: 1,
        leased: 2,
        ..held
    };
    assert_eq!(execute(&leader), Some(failed));

    leader.send(Event::Lost { session: SESSION }).unwrap();
    let alone = StageLoad {
        waiting: 2,
        delayed: 1,
        leased: 0,
        unplaceable: 0,
    };
    assert_eq!(execute(&leader), Some(alone));
    assert_eq!((load(&leader.state).workers, load(&leader.state).slots), (0, 0));

    leader.send(Event::Cancel { run: RUN }).unwrap();
    let abort = load(&leader.state).stages;
    assert_eq!(
        abort.keys().collect::<Vec<_>>(),
        [&Stage::Abort],
        "only the abort is left to do"
    );
}

fn another_worker(number: usize) -> Event {
    Event::Connect {
        session: SessionId(Uuid::from_u128(0x5000_0000 + number as u128)),
        worker: Uuid::from_u128(0x6000_0000 + number as u128),
        name: format!("w{number}"),
        version: String::new(),
        slots: 1,
        labels: Default::default(),
        held: vec![],
    }
}

#[test]
fn one_worker_too_many_is_refused_and_one_that_comes_back_is_not() {
    let mut leader = Leader::new();
    for number in 0..MAX_SESSIONS {
        leader.decide(another_worker(number)).unwrap();
    }
    let refused = leader.decide(another_worker(MAX_SESSIONS)).unwrap_err();
    assert_eq!(refused, Refusal::TooManySessions { limit: MAX_SESSIONS });
    assert!(
        refused.to_string().contains("10000 workers are in session"),
        "{refused}"
    );
    let Event::Connect { worker, .. } = another_worker(7) else {
        panic!("a connect")
    };
    let back = Event::Connect {
        session: SESSION,
        worker,
        name: "w7".into(),
        version: String::new(),
        slots: 1,
        labels: Default::default(),
        held: vec![],
    };
    leader.decide(back).unwrap();
    assert_eq!(leader.state.sessions.len(), MAX_SESSIONS);
    leader.decide(Event::Lost { session: SESSION }).unwrap();
    leader.decide(another_worker(MAX_SESSIONS)).unwrap();
    invariants::check(&leader.state).unwrap();
}

#[test]
fn how_fast_a_step_went_is_kept_for_its_next_run_within_bounds() {
    let mut leader = Leader::new();
    for number in 0..MAX_SPEEDS {
        let row = SpeedRow {
            bytes_per_second: 1,
            at: Timestamp(number as i64 + 1),
        };
        let row = Row::Speed("other".into(), format!("s{number}"), row);
        leader.rows.insert(row.key().to_string(), row.clone());
        leader.state.apply(Change::Put(row), leader.now);
    }
    leader.now = Timestamp(1_000_000_000);
    leader.submit(vec![step("load", &[], 1)]);
    leader.connect(1);
    leader.finish(0, Stage::Survey, StageResult::Facts(Arc::new(facts(3_000_000))));
    leader.finish(0, Stage::Prepare, StageResult::Prepared("{}".into()));
    leader.now = leader.now.plus_millis(2_000);
    leader.commit(task(0, Stage::Execute, 0), whole(0, 3_000_000)).unwrap();
    leader.finish(0, Stage::Publish, StageResult::Published(Publication::default()));
    let kept = |state: &State, job: &str, step: &str| {
        let row = state.speeds.get(&(job.to_string(), step.to_string()));
        row.map(|row| row.bytes_per_second)
    };
    let recovered = State::recover(
        Term(2),
        10_000,
        60_000,
        leader.rows.values().cloned().collect(),
        leader.now,
    );
    for state in [&leader.state, &recovered] {
        assert_eq!(kept(state, "job", "load"), Some(1_500_000));
        assert_eq!(state.speeds.len(), MAX_SPEEDS);
        assert_eq!(
            (kept(state, "other", "s0"), kept(state, "other", "s1")),
            (None, Some(1))
        );
    }
}
