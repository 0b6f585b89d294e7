//! Scenario scripts: events in, the whole trace out. Each file of `testdata` states its claim in
//! the first line. `REWRITE=1` writes what happens now into the scripts, to be read as a diff.
//!
//! A line of a script is one event; what follows from it and what is granted then belongs to it, as
//! in the control loop; after `only` the loop ends with the event, as when the leader dies there.
//! Names: runs `r1`, sessions `s1`, workers `w1`; a task is `r1/0/execute/2`.
//! A worker acts under the attempt granted last, unless `attempt=1-3` says otherwise.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::Arc,
};

use gapless_common::{
    attempt::{Commit, Counters, Fence, RecordHash},
    error::{ErrorClass, TaskError},
    ids::{AttemptId, RunId, SessionId, Stage, TaskKey, Term},
    job::{Count, Job, OnError, Outside, Partition, PartitionFailed, Partitioning, Priority, Sink, Source, Step},
    labels::Labels,
    plan::{Column, Facts, PinnedFile, TransformFacts, TransformMode, Unit},
    range::UnitRange,
};
use gapless_core::{
    Answer, Change, Decision, Effect, Event, Refusal, Row, State, Timestamp, decide,
    decide::due,
    event::{Held, StageResult, Submit},
    invariants,
    row::{JobRow, ProgressRow, Publication},
};
use uuid::Uuid;

const LEASE_MILLIS: u64 = 10_000;
const STALL_MILLIS: u64 = 60_000;

#[test]
fn scripts_go_as_written() {
    datadriven::walk("tests/testdata", |file| {
        let mut script = Script::new();
        file.run(|case| script.play(&case.input));
    });
}

struct Script {
    state: State,
    now: Timestamp,
    /// Whether the loop goes on after the event itself.
    follows: bool,
    rows: BTreeMap<String, Row>,
    jobs: BTreeMap<String, (Job, Facts)>,
    /// The attempt granted last for each task, and every attempt there was.
    fences: BTreeMap<TaskKey, Fence>,
    attempts: BTreeMap<String, Fence>,
    names: BTreeMap<String, String>,
    out: String,
}

impl Script {
    fn new() -> Script {
        Script {
            state: State::new(Term(1), LEASE_MILLIS, STALL_MILLIS),
            now: Timestamp(0),
            follows: true,
            rows: BTreeMap::new(),
            jobs: BTreeMap::new(),
            fences: BTreeMap::new(),
            attempts: BTreeMap::new(),
            names: BTreeMap::new(),
            out: String::new(),
        }
    }

    fn play(&mut self, lines: &str) -> String {
        let mut all = String::new();
        for line in lines.lines() {
            let (quiet, command) = match line.strip_prefix("quiet ") {
                Some(command) => (true, command),
                None => (false, line),
            };
            let only = command.strip_prefix("only ");
            self.follows = only.is_none();
            let command = only.unwrap_or(command);
            self.out.clear();
            self.command(&Words::new(command));
            invariants::check(&self.state).unwrap_or_else(|what| panic!("after '{line}': {what}"));
            if !quiet {
                let _ = write!(all, "> {line}\n{}", self.out);
            }
        }
        for (id, name) in &self.names {
            all = all.replace(id, name);
        }
        if all.is_empty() { "ok\n".into() } else { all }
    }

    fn command(&mut self, words: &Words) {
        let event = match words.at(0) {
            "job" => return self.job(words),
            "wait" => return self.wait(words.at(1).parse().expect("milliseconds")),
            "successor" => return self.successor(),
            "submit" => {
                let (job, _) = &self.jobs[&format!("{} {}", words.at(2), words.at(3))];
                let job = Arc::new(JobRow {
                    redrive: String::new(),
                    text: String::new(),
                    file_name: "job.yaml".into(),
                    parameters: BTreeMap::new(),
                    base_dir: "/".into(),
                    job: job.clone(),
                });
                Event::Submit(Submit {
                    run: self.run(words.at(1)),
                    identity: words.at(2).into(),
                    text_digest: words.at(3).into(),
                    priority: words
                        .value("priority")
                        .map(|it| Priority(it.parse().expect("a number"))),
                    job,
                })
            }
            "connect" => Event::Connect {
                session: self.session(words.at(1)),
                worker: self.id(words.at(2), 2000),
                name: words.at(2).into(),
                version: String::new(),
                slots: words.value("slots").map_or(1, |slots| slots.parse().expect("a number")),
                labels: words
                    .value("labels")
                    .map_or_else(Labels::default, |it| it.parse().expect("labels")),
                held: self.held(words, 3),
            },
            "beat" => Event::Heard {
                session: self.session(words.at(1)),
                held: self.held(words, 2),
                resident_bytes: 0,
            },
            "drain" => Event::Drain {
                session: self.session(words.at(1)),
            },
            "away" => Event::Away {
                session: self.session(words.at(1)),
            },
            "lost" => Event::Lost {
                session: self.session(words.at(1)),
            },
            "stop" => Event::Stop {
                run: self.run(words.at(1)),
            },
            "cancel" => Event::Cancel {
                run: self.run(words.at(1)),
            },
            _ => self.of_task(words),
        };
        self.event(event);
    }

    /// What a worker says of an attempt.
    fn of_task(&mut self, words: &Words) -> Event {
        let session = self.session(words.at(1));
        let task = self.task(words.at(2));
        let mut fence = self.fences.get(&task).copied().expect("a task that was granted");
        if let Some(attempt) = words.value("attempt") {
            fence = self.known(attempt);
        }
        match words.at(0) {
            "commit" => Event::Commit {
                session,
                task,
                fence,
                commit: commit(words),
            },
            "finish" => {
                let result = self.result(task, words.has("published"));
                Event::Finished {
                    session,
                    task,
                    fence,
                    result,
                }
            }
            "fail" => {
                let class = ErrorClass::from_name(words.at(3)).expect("an error class");
                let error = TaskError::new(class, "it went wrong");
                Event::Failed {
                    session,
                    task,
                    fence,
                    error,
                }
            }
            "release" => Event::Released { session, task, fence },
            other => panic!("no command '{other}'"),
        }
    }

    fn result(&self, task: TaskKey, published: bool) -> StageResult {
        let publication = Publication {
            output: "out".into(),
            ..Publication::default()
        };
        match task.stage {
            Stage::Survey => {
                let row = &self.state.run(task.run).expect("a run").row;
                let (_, facts) = &self.jobs[&format!("{} {}", row.identity, row.text_digest)];
                StageResult::Facts(Arc::new(facts.clone()))
            }
            Stage::Prepare => StageResult::Prepared("{}".into()),
            // Of a stage over data: the step was found published.
            Stage::Publish | Stage::Scatter | Stage::Execute | Stage::Merge => StageResult::Published(publication),
            Stage::Abort => StageResult::Aborted(published.then_some(publication)),
        }
    }

    /// `job NAME VERSION STEP…`, a step being `name,key=value,…`; with another `etag` the input has changed.
    fn job(&mut self, words: &Words) {
        let steps: Vec<(Step, u64)> = words.0[3..].iter().map(|word| step(word)).collect();
        let mut facts = facts(steps.first().map_or(10, |(_, units)| *units));
        if let Some(mib) = words.0[3].split(',').find_map(|word| word.strip_prefix("mib=")) {
            facts.bytes = mib.parse::<u64>().expect("a number") << 20;
        }
        if let Some(etag) = words.0[3].split(',').find_map(|word| word.strip_prefix("etag=")) {
            facts.files.push(PinnedFile {
                path: "in/a.csv".into(),
                size: 100,
                etag: etag.into(),
                units: facts.rows,
                rows: None,
            });
        }
        let job = Job {
            name: words.at(1).into(),
            parameters: BTreeMap::new(),
            priority: Default::default(),
            steps: steps.into_iter().map(|(step, _)| step).collect(),
            redrive: None,
        };
        self.jobs
            .insert(format!("{} {}", words.at(1), words.at(2)), (job, facts));
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
        self.state.note(&Event::Tick, self.now);
        let events = due(&self.state, self.now);
        self.follow(events.into());
    }

    /// Another coordinator reads the rows and leads.
    fn successor(&mut self) {
        let term = Term(self.state.term.0 + 1);
        let rows = self.rows.iter().map(|(key, row)| {
            let stored = row.encode();
            Row::decode(key, &stored).expect("a row is read back")
        });
        self.state = State::recover(term, LEASE_MILLIS, STALL_MILLIS, rows.collect(), self.now);
        let _ = writeln!(self.out, "  term {term}");
        self.follow(VecDeque::new());
    }

    fn event(&mut self, event: Event) {
        let commit = match &event {
            Event::Commit { commit, .. } => Some(commit.seq),
            _ => None,
        };
        let mut follow = VecDeque::new();
        if let Err(refusal) = self.decide(event, &mut follow) {
            let what = commit.map_or("refused".into(), |seq| format!("commit {seq} refused"));
            let _ = writeln!(self.out, "  {what}: {refusal}");
        }
        if self.follows {
            self.follow(follow);
        }
    }

    fn follow(&mut self, mut events: VecDeque<Event>) {
        loop {
            while let Some(event) = events.pop_front() {
                if let Err(refusal) = self.decide(event, &mut events) {
                    let _ = writeln!(self.out, "  refused: {refusal}");
                }
            }
            let before = self.out.len();
            self.decide(Event::Assign, &mut events)
                .expect("assigning is not refused");
            if self.out.len() == before && events.is_empty() {
                return;
            }
        }
    }

    fn decide(&mut self, event: Event, follow: &mut VecDeque<Event>) -> Result<(), Refusal> {
        self.state.note(&event, self.now);
        let Decision { rows, answer, effects } = decide(&self.state, self.now, event)?;
        for change in rows {
            let _ = writeln!(self.out, "  {}", show_change(&change));
            match &change {
                Change::Put(row) | Change::Create(row) => {
                    if let Row::Lease(task, lease) = row {
                        self.fences.insert(*task, lease.fence);
                        self.attempts.insert(lease.fence.id.to_string(), lease.fence);
                    }
                    self.rows.insert(row.key().to_string(), row.clone());
                }
                Change::Delete(key) => {
                    self.rows.remove(&key.to_string());
                }
            }
            self.state.apply(change, self.now);
        }
        match answer {
            Some(Answer::Submitted { run, resumed: true }) => {
                let _ = writeln!(self.out, "  answer: {run} goes on");
            }
            Some(Answer::Submitted { run, resumed: false }) => {
                let _ = writeln!(self.out, "  answer: {run} is submitted");
            }
            Some(Answer::Done) => self.out.push_str("  answer: done\n"),
            None => {}
        }
        for effect in effects {
            match effect {
                Effect::Continue(next) => follow.push_back(Event::Continue(next)),
                effect => {
                    let _ = writeln!(self.out, "  {}", show_effect(&effect));
                }
            }
        }
        Ok(())
    }

    /// An attempt by its id; one that never was has a number of its own.
    fn known(&self, attempt: &str) -> Fence {
        let never = || {
            let (term, serial) = attempt.split_once('-').expect("an attempt id");
            let id = AttemptId {
                term: Term(term.parse().expect("a term")),
                serial: serial.parse().expect("a serial number"),
            };
            Fence { number: 99, id }
        };
        self.attempts.get(attempt).copied().unwrap_or_else(never)
    }

    fn id(&mut self, name: &str, base: u128) -> Uuid {
        let number: u128 = name[1..].parse().expect("a letter and a number");
        let id = Uuid::from_u128(base + number);
        self.names.insert(id.to_string(), name.to_string());
        id
    }

    fn run(&mut self, name: &str) -> RunId {
        RunId(self.id(name, 0))
    }

    fn session(&mut self, name: &str) -> SessionId {
        SessionId(self.id(name, 1000))
    }

    fn task(&mut self, text: &str) -> TaskKey {
        let parts: Vec<&str> = text.split('/').collect();
        let [run, step, stage, partition] = parts[..] else {
            panic!("'{text}' is no task")
        };
        TaskKey {
            run: self.run(run),
            step: step.parse().expect("a step"),
            stage: Stage::from_name(stage).expect("a stage"),
            partition: partition.parse().expect("a partition"),
        }
    }

    /// Tasks held, each with an attempt of its own if it says so: `r1/0/execute/0@1-3`.
    fn held(&mut self, words: &Words, from: usize) -> Vec<Held> {
        let tasks: Vec<String> = words
            .0
            .iter()
            .skip(from)
            .filter(|word| word.contains('/'))
            .cloned()
            .collect();
        let mut held = Vec::new();
        for word in tasks {
            let (task, attempt) = word.split_once('@').unwrap_or((&word, ""));
            let task = self.task(task);
            let mut fence = self.fences.get(&task).copied().expect("a task that was granted");
            if !attempt.is_empty() {
                fence = self.known(attempt);
            }
            held.push(Held {
                task,
                fence,
                position: 0,
                rows: 0,
            });
        }
        held
    }
}

/// A command by its words.
struct Words(Vec<String>);

impl Words {
    fn new(line: &str) -> Words {
        Words(line.split_whitespace().map(String::from).collect())
    }

    fn at(&self, at: usize) -> &str {
        self.0.get(at).map_or("", String::as_str)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|word| word == flag)
    }
}

/// `commit SESSION TASK FROM..TO seq=N [last] [rejected=N] [digest=N]`
fn commit(words: &Words) -> Commit {
    let (previous, next) = words.at(3).split_once("..").expect("FROM..TO");
    let (previous, next): (u64, u64) = (previous.parse().expect("a unit"), next.parse().expect("a unit"));
    let number = |name: &str, or: u64| words.value(name).map_or(or, |value| value.parse().expect("a number"));
    let (read, rejected) = (next.saturating_sub(previous), number("rejected", 0));
    Commit {
        seq: number("seq", 0) as u32,
        previous,
        next,
        counters: Counters {
            read,
            written: read - rejected,
            rejected,
            ..Counters::default()
        },
        records: RecordHash(u128::from(next)),
        digest: number("digest", next),
        last: words.has("last"),
    }
}

fn step(word: &str) -> (Step, u64) {
    let words = Words(word.split(',').map(String::from).collect());
    let number = |name: &str| words.value(name).map(|value| value.parse::<u64>().expect("a number"));
    let units = number("units").unwrap_or(10);
    let hash = Partition::Hash {
        columns: vec!["n".into()],
    };
    let nowhere = Partition::KeyRange {
        column: "nowhere".into(),
        ranges: vec![],
        outside: Outside::Refuse,
    };
    let step = Step {
        name: words.at(0).into(),
        after: words.value("after").map(String::from).into_iter().collect(),
        source: Source::Sequence {
            from: 0,
            to: units as i64,
        },
        lookups: BTreeMap::new(),
        partition: Partitioning {
            method: match () {
                () if words.has("hash") => hash,
                () if words.has("nowhere") => nowhere,
                () => Partition::Auto,
            },
            count: match words.has("auto") {
                true => Count::Auto,
                false => Count::Fixed(number("count").unwrap_or(1) as u32),
            },
        },
        placement: words
            .value("placement")
            .map_or_else(Labels::default, |it| it.parse().expect("labels")),
        checks: vec![],
        sql: None,
        command: None,
        sort: Vec::new(),
        sink: Sink::Discard,
        on_error: OnError {
            attempts: number("attempts").unwrap_or(3) as u32,
            attempts_written: true,
            reject_limit: number("limit"),
            reject_share: number("share").map(|share| share as u32),
            partition_failed: match words.has("continue") {
                true => PartitionFailed::Continue,
                false => PartitionFailed::Stop,
            },
        },
        if_unchanged: Default::default(),
    };
    (step, units)
}

fn facts(units: u64) -> Facts {
    let column = Column {
        name: "n".into(),
        ty: "Int64".into(),
        nullable: false,
        key_type: Some(gapless_common::key::KeyType::Int),
    };
    Facts {
        unit: Unit::Number,
        files: vec![],
        domain: UnitRange::new(0, units),
        columns: vec![column.clone()],
        output: vec![column],
        read_columns: None,
        inputs: Vec::new(),
        transform: TransformFacts {
            mode: TransformMode::RowWise { expands: false },
            reason: "a projection".into(),
        },
        rows: units,
        bytes: 8 * units,
        sample: None,
        warnings: vec![],
        lookups: vec![],
        standing: None,
    }
}

fn show_change(change: &Change) -> String {
    match change {
        Change::Put(row) => format!("put {}{}", row.key(), show_row(row)),
        Change::Create(row) => format!("create {}{}", row.key(), show_row(row)),
        Change::Delete(key) => format!("delete {key}"),
    }
}

fn show_row(row: &Row) -> String {
    match row {
        Row::Cluster(_) | Row::Job(..) | Row::Facts(..) => String::new(),
        Row::Session(_, row) => match (row.void, row.draining) {
            (true, _) => format!(" {} void", row.name),
            (false, true) => format!(" {} draining", row.name),
            (false, false) => format!(" {}", row.name),
        },
        Row::Run(_, row) => {
            let restarts = match row.restarts {
                0 => String::new(),
                count => format!(" restart {count}"),
            };
            let error = row.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
            format!(" {:?}{restarts}{error}", row.state)
        }
        Row::Identity(_, run) => format!(" {run}"),
        Row::Step(_, _, row) => {
            let mut text = format!(" {}", row.phase.name());
            if row.seal.is_some() {
                text.push_str(" sealed");
            }
            if row.edition > 0 {
                let _ = write!(text, ", edition {}", row.edition);
            }
            if let Some(phase) = row.back_to {
                let _ = write!(text, ", then {} again", phase.name());
            }
            text
        }
        Row::Plan(_, _, _, _, partitions) => {
            let range = |it: &gapless_common::plan::Partition| format!("{}:{}", it.number, it.units);
            let ranges: Vec<String> = partitions.iter().map(range).collect();
            format!(" {}", ranges.join(" "))
        }
        Row::Lease(_, row) => format!(" {} {}", row.session, row.fence),
        Row::Progress(_, row) => show_progress(row),
        Row::Speed(_, _, row) => format!(" {} bytes/s", row.bytes_per_second),
    }
}

fn show_progress(row: &ProgressRow) -> String {
    let mut text = format!(" attempt {}", row.attempt);
    if row.seq > 0 {
        let _ = write!(text, ", {} commits to {}", row.seq, row.position);
    }
    for (what, count) in [
        ("rejected", row.counters.rejected),
        ("failures", u64::from(row.failures)),
        ("losses", u64::from(row.losses)),
    ] {
        if count > 0 {
            let _ = write!(text, ", {what} {count}");
        }
    }
    if row.done {
        text.push_str(", done");
    }
    if let Some(failure) = &row.failure {
        let _ = write!(text, ", failed: {}", failure.class);
    }
    text
}

fn show_effect(effect: &Effect) -> String {
    match effect {
        Effect::Grant { session, grant } => format!(
            "to {session}: grant {} {} {} at {} seq {}",
            grant.task, grant.fence, grant.units, grant.position, grant.seq
        ),
        Effect::Committed { session, task, seq, .. } => format!("to {session}: commit {seq} of {task} is recorded"),
        Effect::Refused {
            session,
            task,
            seq,
            refusal,
            ..
        } => format!("to {session}: commit {seq} of {task} refused: {refusal}"),
        Effect::StopAttempt {
            session,
            task,
            fence,
            at_checkpoint,
            reason,
        } => {
            let how = if *at_checkpoint { "at a checkpoint" } else { "now" };
            format!("to {session}: stop {task} {fence} {how}: {reason}")
        }
        Effect::Close { session } => format!("to {session}: closed"),
        Effect::Continue(_) => String::new(),
        Effect::Note { run, text, .. } => format!("note of {run}: {text}"),
    }
}
