//! The verbs at their boundary: the real program, its exit codes, what it writes on which stream.
//! Client verbs speak to a coordinator that plays a script.

mod fake;
mod program;

use std::{collections::HashMap, fs, io::Read, process::Stdio};

use fake::{Events, Fake, Watch, run, step};
use gapless_proto::v1::{Counters, PartitionStatus, RunEvent, RunState, WorkerInfo};
use program::{Program, lines, read_until};
use tonic::{Code, Status};

const JOB: &str = "\
job: nightly
parameters:
  date: {type: date}
steps:
  - name: load
    source: {csv: {path: in.csv, columns: {k: int64}}}
    sink: {csv: {path: out}}
";

/// A folder with a job file.
fn job() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("job.yaml");
    fs::write(&path, JOB).expect("written");
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn usage_is_2_and_says_what_is_allowed() {
    let (_folder, job) = job();
    for (arguments, words) in [
        (vec!["fly"], "unrecognized subcommand 'fly'"),
        (vec!["submit", &job, "-p", "date"], "a parameter is written NAME=VALUE"),
        (
            vec!["submit", &job, "-p", "date=1", "-p", "date=2"],
            "the parameter `date` is given twice",
        ),
        (vec!["submit", &job, "--timeout", "5s"], "give --wait with it"),
        (vec!["watch", "r", "--timeout", "5"], "a number and a unit"),
        (
            vec!["list", "-o", "xml"],
            "[possible values: table, wide, json, yaml, name]",
        ),
        (vec!["list", "--endpoint", "not a url"], "not a url"),
        (
            vec!["list", "--endpoint", "http://h", "--state", "d"],
            "cannot be used with",
        ),
        (vec!["list", "--config", "/nowhere/config.yaml"], "/nowhere/config.yaml"),
        (vec!["verify"], "required arguments were not provided"),
    ] {
        let ended = Program::new(&arguments).end();
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "talk goes to stderr");
    }
}

#[test]
fn help_and_version_are_data() {
    let help = Program::new(&["--help"]).end();
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("124 --timeout passed   130 Ctrl-C"));
    assert_eq!(
        Program::new(&["--version"]).end().stdout,
        format!("gapless {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_job_file_is_checked_without_a_cluster() {
    let (folder, job) = job();
    let good = Program::new(&["validate", &job, "-p", "date=2026-11-20"]).end();
    assert_eq!(good.code, 0, "{}", good.stderr);
    assert_eq!(
        good.stdout,
        format!("{job}: job nightly is valid: 1 step date=2026-11-20\n")
    );

    let missing = Program::new(&["validate", &job]).end();
    assert_eq!(missing.code, 3);
    assert!(missing.stderr.contains("job.yaml:3:"), "{}", missing.stderr);

    let misspelt = folder.path().join("misspelt.yaml");
    fs::write(&misspelt, JOB.replace("sink", "sunk")).expect("written");
    let misspelt = misspelt.display().to_string();
    for verb in ["validate", "plan", "run"] {
        let ended = Program::new(&[verb, &misspelt, "-p", "date=2026-11-20"]).end();
        assert_eq!(ended.code, 3, "{verb}: {}", ended.stderr);
        assert!(ended.stderr.contains("misspelt.yaml:7:5: "), "{verb}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("did you mean `sink`?"),
            "{verb}: {}",
            ended.stderr
        );
    }

    let binary = folder.path().join("binary.yaml");
    fs::write(&binary, [b'j', 0xff]).expect("written");
    assert_eq!(Program::new(&["validate", &binary.display().to_string()]).end().code, 3);
    assert_eq!(Program::new(&["validate", "/nowhere/job.yaml"]).end().code, 4);
}

#[test]
fn sql_checks_and_key_columns_are_checked_without_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("job.yaml");
    let validate = |text: &str| {
        fs::write(&path, text).expect("written");
        Program::new(&["validate", &path.display().to_string()]).end()
    };
    let job = "\
job: words
steps:
  - name: load
    source: {csv: {path: none.csv, header: false, columns: {id: int64, amount: int64}}}
    check: [{name: positive, that: \"amuont > 0\"}]
    transform:
      sql: |
        SELECT id,
               uper(id) AS u FROM input
    sink: {csv: {path: out}}
";
    let wrong = validate(job);
    assert_eq!(wrong.code, 3, "{}", wrong.stderr);
    assert_eq!(wrong.stdout, "");
    for words in [
        "job.yaml:5:37: step load: check «positive»: there is no column «amuont»; did you mean «amount»?",
        "job.yaml:9:16: step load: the SQL: there is no function «uper»",
    ] {
        assert!(wrong.stderr.contains(words), "{}\nlacks: {words}", wrong.stderr);
    }
    // A header may name what is not declared: said, and no fault.
    let open = validate(
        &job.replace("header: false", "header: true")
            .replace("uper(id)", "upper(shop)"),
    );
    assert_eq!(open.code, 0, "{}", open.stderr);
    assert!(
        open.stderr.contains("note: ")
            && open
                .stderr
                .contains("job.yaml:5:37: step load: column «amuont» is not declared"),
        "{}",
        open.stderr
    );
    assert!(open.stdout.contains("job words is valid"), "{}", open.stdout);
}

#[test]
fn a_job_travels_as_text_with_its_folder() {
    let fake = Fake::start();
    let (folder, job) = job();
    let ended = Program::new(&["submit", &job, "-p", "date=2026-11-20", "-o", "name"])
        .at(&fake)
        .end();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "run-1\n"), "{}", ended.stderr);
    let request = fake.submitted().pop().expect("a submit");
    assert_eq!(request.job_text, JOB);
    assert_eq!(request.file_name, job);
    assert_eq!(
        request.parameters,
        HashMap::from([("date".to_string(), "2026-11-20".to_string())])
    );
    let absolute = folder.path().canonicalize().expect("a folder");
    assert_eq!(request.base_dir, absolute.display().to_string());

    let ended = Program::new(&["submit", "-", "-o", "json"]).at(&fake).stdin(JOB).end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.json()["run"], "run-1");
    assert_eq!(fake.submitted().pop().expect("a submit").job_text, JOB);
}

#[test]
fn each_refusal_has_its_exit_code() {
    let (_folder, job) = job();
    for (status, code, words) in [
        (
            Status::invalid_argument("job.yaml:3:3: unknown key `x`"),
            3,
            "gapless: job.yaml:3:3: unknown key `x`\n",
        ),
        (Status::permission_denied("not yours"), 5, "not yours"),
        (Status::unavailable("no leader"), 6, "no leader"),
        (Status::failed_precondition("sealed"), 7, "sealed"),
        (Status::internal("store lost"), 1, "store lost"),
    ] {
        let fake = Fake::start();
        fake.refuse_submit(status);
        let ended = Program::new(&["submit", &job]).at(&fake).end();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    let fake = Fake::start();
    for verb in ["get", "describe", "watch", "stop", "cancel", "verify"] {
        let ended = Program::new(&[verb, "nothing"]).at(&fake).end();
        assert_eq!(ended.code, 4, "{verb}: {}", ended.stderr);
        assert!(
            ended
                .stderr
                .contains(&format!("`gapless list --endpoint {}` shows", fake.endpoint())),
            "{verb}: {}",
            ended.stderr
        );
    }
    let ended = Program::new(&["list", "--endpoint", "http://127.0.0.1:1"]).end();
    assert_eq!(ended.code, 6);
    assert!(
        ended.stderr.contains("Start one with `gapless coordinator`"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_standby_sends_a_client_to_the_leader() {
    let (_folder, job) = job();
    let (standby, leader) = (Fake::start(), Fake::start());
    standby.refuse_submit(Fake::not_leader(&leader.endpoint()));
    let ended = Program::new(&["submit", &job, "-o", "name"]).at(&standby).end();
    assert_eq!((ended.code, ended.stdout.trim()), (0, "run-1"), "{}", ended.stderr);
    assert_eq!((standby.submitted().len(), leader.submitted().len()), (1, 1));
}

#[test]
fn a_client_waits_for_a_new_leader_while_coordinators_answer() {
    let (_folder, job) = job();
    let (one, other) = (Fake::start(), Fake::start());
    // The former leader is gone, and nobody knows of a new one.
    one.refuse_submit(Fake::not_leader("http://127.0.0.1:1"));
    other.refuse_submit(Fake::not_leader(""));
    let endpoints = format!("{},{}", one.endpoint(), other.endpoint());
    let ended = std::thread::scope(|scope| {
        let program = scope.spawn(|| Program::new(&["submit", &job, "-o", "name", "--endpoints", &endpoints]).end());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while one.submitted().is_empty() || other.submitted().is_empty() {
            assert!(std::time::Instant::now() < deadline, "both are asked");
            std::thread::yield_now();
        }
        other.accept_submit();
        program.join().expect("no panic")
    });
    assert_eq!((ended.code, ended.stdout.trim()), (0, "run-1"), "{}", ended.stderr);
}

#[test]
fn a_coordinator_on_etcd_must_be_told_where_scratch_is() {
    let ended = Program::new(&["coordinator", "--store", "etcd"]).end();
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--scratch"), "{}", ended.stderr);
}

#[test]
fn a_coordinator_prints_where_it_is_reached() {
    let start = |advertise: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state").display().to_string();
        let fixed = ["coordinator", "--listen", "0.0.0.0:0", "--insecure", "--state", &state];
        let mut child = Program::new(&[&fixed, advertise].concat()).start();
        let said = read_until(child.stderr.as_mut().expect("piped"), "joins it");
        program::interrupt(&child);
        let ended = program::end(child);
        assert_eq!(ended.code, 0, "{said}{}", ended.stderr);
        (ended.stdout, said + &ended.stderr)
    };
    let (printed, said) = start(&["--advertise", "coordinator.example:7070"]);
    assert_eq!(printed, "http://coordinator.example:7070\n", "{said}");
    let joins = "`gapless worker --endpoint http://coordinator.example:7070` joins it";
    assert!(said.contains(joins) && !said.contains("all addresses"), "{said}");
    let (printed, said) = start(&[]);
    assert!(printed.starts_with("http://127.0.0.1:"), "{printed}");
    assert!(
        said.contains("it listens on all addresses: from other machines write this one's name"),
        "{said}"
    );
}

#[test]
fn the_same_run_twice_is_a_conflict_that_names_the_first() {
    let (_folder, job) = job();
    for (state, words) in [
        (RunState::Running, "already running: run run-1. `gapless watch run-1"),
        (RunState::Completed, "is complete: run run-1; each is done once"),
    ] {
        let fake = Fake::start();
        fake.know(run("run-1", state, vec![]));
        fake.refuse_submit(Fake::exists("run-1"));
        let ended = Program::new(&["submit", &job, "--wait"]).at(&fake).end();
        assert_eq!(ended.code, 7, "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn waiting_shows_progress_on_stderr_and_the_result_on_stdout() {
    let fake = Fake::start();
    let mut working = run("run-1", RunState::Running, vec![step("load", "execute", 500)]);
    working.events = vec![RunEvent {
        at_micros: 1,
        step: "load".into(),
        text: "partition 3 taken over from worker-2, which was lost".into(),
        kind: "take-over".into(),
    }];
    let mut published = step("load", "published", 1000);
    published.output_rows = 990;
    published.output_files = 2;
    published.output = "/data/out".into();
    published.source_rows = 1000;
    published.records = "00ff".into();
    published.certificate = "/nowhere/certificate.json".into();
    let mut done = working.clone();
    done.steps = vec![published];
    done.state = RunState::Completed.into();
    fake.watches(vec![Watch::Then(working.clone()), Watch::Then(done.clone())]);
    let (_folder, job) = job();
    let ended = Program::new(&["submit", &job, "--wait"]).at(&fake).end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for words in [
        "load: execute of 4 partitions",
        "load: partition 3 taken over from worker-2, which was lost",
        "load: published 990 rows in 2 files",
        "Where to look next:",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        assert!(!ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    for words in [
        "load  published  1,000      990         0        10   990      2  2.0 s  /data/out",
        "load: 1,000 records read once",
        "fingerprint of the records: 00ff",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }

    fake.watches(vec![Watch::Then(working), Watch::Then(done)]);
    let ended = Program::new(&["submit", &job, "--wait", "-o", "json"]).at(&fake).end();
    assert_eq!(ended.json()["steps"][0]["output"]["rows"], 990);
}

#[test]
fn a_run_that_does_not_complete_is_1() {
    let (_folder, job) = job();
    for (state, words) in [
        (RunState::Failed, "failed: disk full"),
        (RunState::Stopped, "was stopped"),
        (RunState::Cancelled, "was cancelled"),
    ] {
        let fake = Fake::start();
        let mut ended = run("run-1", state, vec![step("load", "failed", 0)]);
        ended.error = "disk full".into();
        fake.watches(vec![Watch::Then(ended)]);
        let ended = Program::new(&["submit", &job, "--wait", "-p", "date=2026-11-20"])
            .at(&fake)
            .end();
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        if state == RunState::Failed {
            let again = format!(
                "`gapless submit {job} -p date=2026-11-20 --endpoint {}`",
                fake.endpoint()
            );
            assert!(ended.stderr.contains(&again), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_timeout_is_124_and_the_job_goes_on() {
    let fake = Fake::start();
    let working = run("run-1", RunState::Running, vec![step("load", "execute", 0)]);
    fake.know(working.clone());
    fake.watches(vec![Watch::Then(working), Watch::Hang]);
    let ended = Program::new(&["watch", "run-1", "--timeout", "50ms"]).at(&fake).end();
    assert_eq!(ended.code, 124, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("run run-1 goes on. `gapless watch run-1"),
        "{}",
        ended.stderr
    );
    assert_eq!(fake.stopped(), Vec::<String>::new());
}

#[test]
fn ctrl_c_is_130_and_says_how_to_come_back() {
    let fake = Fake::start();
    let working = run("run-1", RunState::Running, vec![step("load", "execute", 0)]);
    fake.know(working.clone());
    fake.watches(vec![Watch::Then(working), Watch::Hang]);
    let mut child = Program::new(&["watch", "run-1"]).at(&fake).start();
    let mut stderr = child.stderr.take().expect("stderr");
    let mut said = read_until(&mut stderr, "load: execute");
    program::interrupt(&child);
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("ended").code(), Some(130), "{said}");
    assert!(
        said.contains("interrupted; run run-1 goes on. `gapless watch run-1"),
        "{said}"
    );
}

#[test]
fn a_coordinator_that_comes_back_is_watched_on() {
    let fake = Fake::start();
    let working = run("run-1", RunState::Running, vec![step("load", "execute", 0)]);
    let done = run("run-1", RunState::Completed, vec![step("load", "published", 1000)]);
    fake.know(working.clone());
    fake.watches(vec![
        Watch::Then(working.clone()),
        Watch::Break(Code::Unavailable),
        Watch::Then(working),
        Watch::Close,
        Watch::Then(done),
    ]);
    let ended = Program::new(&["watch", "run-1", "-o", "json"]).at(&fake).end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let states: Vec<_> = lines(&ended.stdout).iter().map(|line| line["state"].clone()).collect();
    assert_eq!(
        states,
        ["running", "running", "completed"],
        "each state is a line of JSON"
    );
    assert_eq!(
        ended.stderr.matches("lost the coordinator").count(),
        2,
        "{}",
        ended.stderr
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::start();
    let working = run("run-1", RunState::Running, vec![step("load", "execute", 0)]);
    fake.know(working.clone());
    fake.watches(vec![Watch::Then(working.clone()), Watch::Then(working), Watch::Hang]);
    let mut child = Program::new(&["watch", "run-1", "-o", "json"])
        .at(&fake)
        .stdout(Stdio::piped())
        .start();
    drop(child.stdout.take());
    let ended = program::end(child);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[test]
fn lists_are_for_people_and_for_programs() {
    let fake = Fake::start();
    fake.know(run("run-1", RunState::Completed, vec![step("load", "published", 1000)]));
    fake.know(run("run-2", RunState::Running, vec![step("load", "execute", 10)]));
    fake.work(WorkerInfo {
        name: "worker-1".into(),
        state: "live".into(),
        slots: 2,
        busy: 1,
        silent_ms: 1500,
        resident_bytes: 52_000_000,
        tasks: vec!["run-2/0/execute/3".into()],
        ..Default::default()
    });
    let show = |arguments: &[&str]| {
        let ended = Program::new(arguments).at(&fake).end();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{arguments:?}");
        ended
    };
    assert_eq!(show(&["list", "-o", "name"]).stdout, "run-2\nrun-1\n");
    assert_eq!(show(&["list", "-o", "json"]).json()[1]["state"], "completed");
    assert!(
        show(&["list"])
            .stdout
            .starts_with("RUN    JOB      STATE      STEPS  ROWS")
    );
    assert_eq!(show(&["get", "run-2", "-o", "json"]).json()["steps"][0]["percent"], 1);
    assert!(
        show(&["get", "run-1", "-o", "yaml"])
            .stdout
            .contains("state: completed")
    );
    assert_eq!(
        show(&["workers"]).stdout,
        "NAME      STATE  SLOTS  BUSY      HEARD   MEMORY\n\
         worker-1  live       2     1  1.5 s ago  52.0 MB\n"
    );
    assert_eq!(
        show(&["workers", "-o", "json"]).json()[0]["tasks"][0],
        "run-2/0/execute/3"
    );
}

#[test]
fn a_description_has_all_partitions() {
    let fake = Fake::start();
    fake.know(run("run-1", RunState::Completed, vec![step("load", "published", 1000)]));
    fake.partitions((0..4500).map(|number| PartitionStatus {
        step: "load".into(),
        stage: "execute".into(),
        number,
        state: "done".into(),
        counters: Some(Counters::default()),
        ..Default::default()
    }));
    let json = Program::new(&["describe", "run-1", "-o", "json"])
        .at(&fake)
        .end()
        .json();
    let table = json["partition_table"].as_array().expect("a table");
    assert_eq!(table.len(), 4500);
    assert!(table.iter().enumerate().all(|(index, row)| row["partition"] == index));
    let text = Program::new(&["describe", "run-1"]).at(&fake).end().stdout;
    assert!(text.contains("Parameters   date=2026-11-20"), "{text}");
    assert!(text.ends_with("more are shown by -o wide\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("  done  ")).count(), 100);
}

#[test]
fn stop_and_cancel_say_what_became_of_the_run() {
    let fake = Fake::start();
    fake.know(run(
        "run-1",
        RunState::Running,
        vec![step("load", "published", 1000), step("sum", "execute", 1)],
    ));
    let ended = Program::new(&["stop", "run-1"]).at(&fake).end();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
    assert!(
        ended
            .stderr
            .contains("run run-1 of nightly is stopping; submit the job again"),
        "{}",
        ended.stderr
    );
    assert_eq!(fake.stopped(), ["run-1"]);
    let ended = Program::new(&["cancel", "run-1"]).at(&fake).end();
    assert_eq!(ended.code, 0);
    assert!(
        ended
            .stderr
            .contains("is cancelling; already published, and staying: load"),
        "{}",
        ended.stderr
    );
}

#[test]
fn settings_are_shown_with_their_origin() {
    let show = |arguments: &[&str]| {
        let ended = Program::new(arguments).env("GAPLESS_SLOTS", "7").end();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    };
    let shown = show(&["config", "show", "--origin", "--endpoint", "http://h:1", "-o", "json"]).json();
    let origin = |name: &str| {
        let settings = shown.as_array().expect("settings");
        let found = settings
            .iter()
            .find(|setting| setting["setting"] == name)
            .expect("the setting");
        (
            found["value"].as_str().expect("text").to_string(),
            found["origin"].clone(),
        )
    };
    assert_eq!(origin("slots"), ("7".to_string(), "variable GAPLESS_SLOTS".into()));
    assert_eq!(
        origin("endpoints"),
        ("http://h:1".to_string(), "flag --endpoints".into())
    );
    assert_eq!(origin("log_level").1, "default");
    assert!(show(&["config", "show"]).stdout.starts_with("SETTING"));
    let wrong = Program::new(&["config", "show"]).env("GAPLESS_SLOTS", "many").end();
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("GAPLESS_SLOTS"), "{}", wrong.stderr);
}

#[test]
fn a_history_is_printed_and_a_break_is_survived_where_it_is_followed() {
    let fake = Fake::start();
    fake.know(run("run-1", RunState::Completed, vec![step("load", "published", 1000)]));
    let event = |seconds: i64, step: &str, kind: &str, text: &str| RunEvent {
        at_micros: 1_795_171_200_000_000 + seconds * 1_000_000,
        step: step.into(),
        kind: kind.into(),
        text: text.into(),
    };
    let first = event(0, "", "submitted", "submitted");
    let second = event(1, "load", "stage", "execute of 4 partitions");
    let whole = |events: &[&RunEvent]| Events {
        events: events.iter().map(|event| (*event).clone()).collect(),
        then: None,
    };
    fake.events(vec![whole(&[&first, &second])]);
    let shown = Program::new(&["logs", "run-1"]).at(&fake).end();
    assert_eq!(
        (shown.code, shown.stdout.as_str()),
        (
            0,
            "2026-11-20T10:40:00Z  submitted\n2026-11-20T10:40:01Z  load: execute of 4 partitions\n"
        ),
        "{}",
        shown.stderr
    );

    let broken = Events {
        then: Some(Code::Unavailable),
        ..whole(&[&first])
    };
    fake.events(vec![broken.clone(), whole(&[&second])]);
    let followed = Program::new(&["logs", "run-1", "--follow", "-o", "json"])
        .at(&fake)
        .end();
    assert_eq!(followed.code, 0, "{}", followed.stderr);
    let kinds: Vec<_> = lines(&followed.stdout)
        .iter()
        .map(|line| line["kind"].clone())
        .collect();
    assert_eq!(kinds, ["submitted", "stage"]);
    let asked: Vec<(i64, bool)> = fake.listed().iter().map(|it| (it.after_micros, it.follow)).collect();
    assert_eq!(
        asked,
        [(0, false), (0, true), (first.at_micros, true)],
        "it goes on after the last line"
    );

    // Without it nothing is waited for.
    fake.events(vec![broken]);
    assert_eq!(Program::new(&["logs", "run-1"]).at(&fake).end().code, 6);
}
