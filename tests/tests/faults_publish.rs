//! The worker that publishes is killed or frozen at each of the moments that count, and a cancel comes
//! between them: an output is visible once and whole, or never.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, thread, time::Duration};

use gapless_tests::{
    Cluster, World,
    strace::{Fault, Faulty},
    wait_for,
};
use serde_json::Value;

const ROWS: u64 = 2000;
const LOAD: &str = "{key_range: {column: id}, count: 6}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 2}";

/// Moments of a publication, each of which is one system call on one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// It has looked for a verdict and found none.
    BeforeVerdict,
    /// It has created the verdict.
    AfterVerdict,
    /// It has made the output visible.
    AfterExposure,
}

impl Moment {
    /// The call at which a publisher is stopped: it has done it then.
    fn stops_at(self, world: &World, run: &str) -> (&'static str, PathBuf) {
        let verdict = world.path("out/.load.gapless/published/000001.json");
        match self {
            Self::BeforeVerdict => ("?open,openat", verdict),
            Self::AfterVerdict => ("?link,linkat", verdict),
            Self::AfterExposure => self.kills_at(world, run),
        }
    }

    /// The call at which a publisher is killed: it has not done it then.
    fn kills_at(self, world: &World, run: &str) -> (&'static str, PathBuf) {
        match self {
            Self::BeforeVerdict => Self::AfterVerdict.stops_at(world, run),
            // It looks whether another has exposed it.
            Self::AfterVerdict => (
                "?stat,?newfstatat,statx",
                world.path(&format!("out/load/_gapless/certificate-0-{run}.json")),
            ),
            // It moves aside what is staged.
            Self::AfterExposure => (
                "?rename,?renameat,renameat2",
                world.path(&format!("out/.load.gapless/run/{run}-0")),
            ),
        }
    }
}

const MOMENTS: [Moment; 3] = [Moment::BeforeVerdict, Moment::AfterVerdict, Moment::AfterExposure];

/// A cluster whose one worker is going to meet its fault when it publishes `load`.
fn doomed<'a>(world: &'a World, moment: Moment, action: &str) -> (Cluster<'a>, String, Faulty) {
    world.sales_job(LOAD, BY_SHOP);
    let cluster = Cluster::start(world, 0);
    // Nobody works yet, so that the paths are known before anything happens on them.
    let run = cluster.submit("job.yaml");
    let (calls, path) = match action {
        "signal=KILL" => moment.kills_at(world, &run),
        _ => moment.stops_at(world, &run),
    };
    let action = format!("{action}:when=1");
    let fault = Fault {
        calls,
        action: &action,
        path: &path,
    };
    let arguments = [
        "worker",
        "--endpoint",
        &cluster.endpoint,
        "--slots",
        "1",
        "--name",
        "doomed",
    ];
    let worker = world.start_with(&fault, "doomed", &arguments);
    (cluster, run, worker)
}

/// What is there of `load` while its publisher is dead or still.
fn check_moment(world: &World, moment: Moment) {
    let verdicts = world.verdicts("load");
    let expected: &[&str] = if moment == Moment::BeforeVerdict {
        &[]
    } else {
        &["COMMITTED"]
    };
    assert_eq!(verdicts, expected, "{moment:?}");
    assert_eq!(
        world.path("out/load").exists(),
        moment == Moment::AfterExposure,
        "{moment:?}"
    );
    assert!(!world.staged("load").is_empty(), "not yet swept at {moment:?}");
}

/// The verdict of `load` and its output, as files that cannot be the same when they were made anew.
fn identity(world: &World) -> Vec<Option<(u64, i64, i64)>> {
    let paths = ["out/.load.gapless/published/000001.json", "out/load"];
    let identity = |path: &&str| fs::metadata(world.path(path)).ok();
    let identity = |path| identity(path).map(|it| (it.ino(), it.mtime(), it.mtime_nsec()));
    paths.iter().map(identity).collect()
}

#[test]
fn a_publisher_that_is_killed_is_followed_by_another_which_publishes_once() {
    for moment in MOMENTS {
        let (world, sales) = World::with_sales(ROWS);
        let (mut cluster, run, mut worker) = doomed(&world, moment, "signal=KILL");
        worker.wait_killed();
        check_moment(&world, moment);
        let before = identity(&world);
        cluster.add_worker();
        let ended = cluster.ended(&run);
        assert_eq!(ended["state"], "completed", "{moment:?}: {ended:#}");
        world.check_sales(ROWS, &sales);
        for (before, after) in before.iter().zip(identity(&world)) {
            assert!(
                before.is_none() || *before == after,
                "{moment:?}: what was there is not made anew"
            );
        }
    }
}

#[test]
fn a_publisher_that_thaws_after_another_has_published_changes_nothing() {
    for moment in MOMENTS {
        let (world, sales) = World::with_sales(ROWS);
        let (mut cluster, run, worker) = doomed(&world, moment, "signal=STOP");
        worker.wait_stopped();
        check_moment(&world, moment);
        cluster.add_worker();
        let ended = cluster.ended(&run);
        assert_eq!(ended["state"], "completed", "{moment:?}: {ended:#}");
        world.check_sales(ROWS, &sales);
        let before = identity(&world);
        assert!(worker.process.is_still(), "frozen until now");
        worker.process.thaw();
        wait_until_over(&cluster, &worker);
        world.check_sales(ROWS, &sales);
        assert_eq!(identity(&world), before, "{moment:?}");
    }
}

/// Waits until a thawed worker is in session again, and has done with all that it had in hand.
fn wait_until_over(cluster: &Cluster, worker: &Faulty) {
    wait_for("the thawed worker to have no task", || {
        let workers = cluster.ask(&["workers", "-o", "json"]);
        let is_idle = |it: &Value| it["name"] == "doomed" && it["busy"] == 0 && it["state"] == "live";
        let sessions = worker.process.log().matches("in session").count();
        (sessions >= 2 && workers.as_array()?.iter().any(is_idle) && worker.process.is_at_rest()).then_some(())
    });
}

/// Nothing of a step is to be seen.
fn check_nothing_visible(world: &World, step: &str) {
    assert!(!world.path(&format!("out/{step}")).exists(), "{step} is not visible");
    assert_eq!(
        world.staged(step),
        Vec::<PathBuf>::new(),
        "nothing of {step} stays staged"
    );
}

#[test]
fn a_cancel_while_the_publisher_is_frozen_is_in_time_before_the_verdict_and_too_late_after_it() {
    for moment in MOMENTS {
        let (world, _) = World::with_sales(ROWS);
        let (mut cluster, run, worker) = doomed(&world, moment, "signal=STOP");
        worker.wait_stopped();
        check_moment(&world, moment);
        let cancelled = world.gapless(&["cancel", &run, "--endpoint", &cluster.endpoint]);
        assert!(cancelled.status.success(), "{moment:?}: {cancelled:?}");
        assert_eq!(
            cluster.run(&run)["state"],
            "cancelling",
            "no worker is there to settle it"
        );
        cluster.add_worker();
        let ended = cluster.ended(&run);
        assert!(worker.process.is_still(), "frozen until now");
        let too_late = "too late to cancel step load: it is published";
        for thawed in [false, true] {
            if thawed {
                worker.process.thaw();
                wait_until_over(&cluster, &worker);
                assert_eq!(cluster.run(&run)["state"], ended["state"], "{moment:?}");
            }
            assert_eq!(ended["state"], "cancelled", "{moment:?}: {ended:#}");
            if moment == Moment::BeforeVerdict {
                check_nothing_visible(&world, "load");
                check_nothing_visible(&world, "by-shop");
                assert_eq!(world.verdicts("load"), ["ABORTED"]);
            } else {
                world.check_copy("load", ROWS);
                assert!(ended["events"].to_string().contains(too_late), "{ended:#}");
                assert_eq!(ended["steps"][0]["state"], "published", "{ended:#}");
            }
        }
    }
}

/// Cancels of runs of one step, of which about half come in time.
const CANCELS: u32 = 24;

#[test]
fn a_cancel_at_any_moment_leaves_all_or_nothing() {
    let (world, _) = World::with_sales(ROWS);
    let cluster = Cluster::start(&world, 2);
    let mut in_time = Vec::new();
    let mut too_late = 0;
    // It closes in on the moment of the verdict, from both sides.
    let mut delay = Duration::from_millis(100);
    for round in 0..CANCELS {
        let step = format!("load-{round}");
        world.job(&format!(
            r#"job: {step}
steps:
  - name: {step}
    source:
      csv: {{path: "data/sales-*.csv", columns: {{id: int64, shop: string, cents: int64, note: string}}}}
    partition: {LOAD}
    sink: {{csv: {{path: "out/{step}"}}}}
"#
        ));
        let run = cluster.submit("job.yaml");
        thread::sleep(delay);
        // One that comes after the end is refused; what counts is the state.
        world.gapless(&["cancel", &run, "--endpoint", &cluster.endpoint]);
        let ended = cluster.ended(&run);
        println!("cancelled after {delay:?}: {}", ended["state"]);
        if ended["state"] == "cancelled" {
            check_nothing_visible(&world, &step);
            in_time.push(step);
            delay += delay / 4;
        } else {
            assert_eq!(ended["state"], "completed", "{ended:#}");
            world.check_copy(&step, ROWS);
            too_late += 1;
            delay -= delay / 4;
        }
    }
    assert!(
        !in_time.is_empty() && too_late > 0,
        "the delay closes in on the verdict"
    );
    // Nor did any become visible afterwards.
    in_time.iter().for_each(|step| check_nothing_visible(&world, step));
}
