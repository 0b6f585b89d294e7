//! Full disks: a small file system as the folder of the outputs, or as scratch. The run says what is full
//! and waits or fails, nothing of it is to be seen, and with room again it ends as it should.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::PathBuf,
    process::Command,
};

use gapless_tests::{Cluster, World, strace::Fault, wait_for};

const ROWS: u64 = 6000;
const LOAD: &str = "{key_range: {column: id}, count: 12}";
const BY_SHOP: &str = "{hash: {columns: [shop]}, count: 4}";

/// Twice what prepare wants to see free.
const MIB: usize = 128;

/// A file system in memory, mounted on a folder of a world, which must outlive it.
struct Disk(PathBuf);

impl Disk {
    /// None, with a word why, where nobody may mount anything.
    fn mount(world: &World, folder: &str) -> Option<Disk> {
        let path = world.path(folder);
        fs::create_dir(&path).expect("made");
        let size = format!("size={MIB}m");
        let mut mount = Command::new("mount");
        let output = mount
            .args(["-t", "tmpfs", "-o", &size, "gapless-test"])
            .arg(&path)
            .output();
        let output = output.expect("mount starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Some(Disk(path));
        }
        let denied = ["must be superuser", "permission denied", "not permitted"];
        assert!(denied.iter().any(|words| said.contains(words)), "{said}");
        eprintln!("SKIPPED: a full disk needs a mount, which is for root: {said}");
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("made");
        for size in [1 << 20, 1 << 12, 1] {
            let zeros = vec![0; size];
            let error = loop {
                if let Err(error) = file.write_all(&zeros) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "the disk is full: {error}");
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: processes that the test started may still be there.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

/// What the history of a run tells of attempts that are tried again.
fn retries(cluster: &Cluster, run: &str) -> String {
    let events = cluster.run(run)["events"].as_array().cloned().unwrap_or_default();
    let retries = events.iter().filter(|event| event["kind"] == "retry");
    retries.map(|event| format!("{}\n", event["text"])).collect()
}

/// The words of an error that names the full folder, and what to do.
fn check_words(text: &str, folder: &str) {
    for words in [
        folder,
        "No space left on device",
        "free space or inodes there, then the run goes on",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

fn check_nothing_published(world: &World) {
    assert!(!world.path("out/load").exists(), "nothing is visible by half");
    assert_eq!(world.verdicts("load"), Vec::<String>::new());
}

#[test]
fn a_full_output_disk_fails_the_run_in_words_and_with_room_it_goes_on() {
    let (world, sales) = World::with_sales(ROWS);
    let Some(disk) = Disk::mount(&world, "out") else { return };
    world.slow_sales_job(LOAD, BY_SHOP);
    let cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    wait_for("a chunk", || (world.manifests("load") >= 1).then_some(()));
    disk.fill();
    let failed = cluster.ended(&run);
    assert_eq!(failed["state"], "failed", "{failed:#}");
    let folder = world.path("out").display().to_string();
    check_words(failed["error"].as_str().expect("an error"), &folder);
    check_words(&retries(&cluster, &run), &folder);
    check_nothing_published(&world);

    disk.make_room();
    assert_eq!(cluster.submit("job.yaml"), run, "the same run goes on");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
}

#[test]
fn room_that_is_made_in_time_is_all_that_a_run_with_a_full_output_disk_waits_for() {
    let (world, sales) = World::with_sales(ROWS);
    let Some(disk) = Disk::mount(&world, "out") else { return };
    world.slow_sales_job(LOAD, BY_SHOP);
    let cluster = Cluster::start(&world, 1);
    let run = cluster.submit("job.yaml");
    wait_for("a chunk", || (world.manifests("load") >= 1).then_some(()));
    disk.fill();
    let told = wait_for("the full disk to be told", || {
        Some(retries(&cluster, &run)).filter(|told| !told.is_empty())
    });
    disk.make_room();
    check_words(&told, &world.path("out").display().to_string());
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
}

#[test]
fn a_full_scratch_disk_fails_the_run_in_words_and_with_room_it_goes_on() {
    let (world, sales) = World::with_sales(ROWS);
    let Some(disk) = Disk::mount(&world, "scratch") else {
        return;
    };
    world.sales_job(LOAD, BY_SHOP);
    let cluster = Cluster::start(&world, 0);
    let run = cluster.submit("job.yaml");
    // Prepare has looked how much is free, and the scatter has not begun.
    let fault = Fault {
        calls: "statfs",
        action: "signal=STOP:when=1",
        path: &world.path(&format!("scratch/{run}-0")),
    };
    let arguments = [
        "worker",
        "--endpoint",
        &cluster.endpoint,
        "--slots",
        "1",
        "--name",
        "halted",
    ];
    let worker = world.start_with(&fault, "halted", &arguments);
    worker.wait_stopped();
    disk.fill();
    worker.process.thaw();
    let failed = cluster.ended(&run);
    assert_eq!(failed["state"], "failed", "{failed:#}");
    check_words(
        failed["error"].as_str().expect("an error"),
        &world.path("scratch").display().to_string(),
    );
    check_nothing_published(&world);

    disk.make_room();
    assert_eq!(cluster.submit("job.yaml"), run, "the same run goes on");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    world.check_sales(ROWS, &sales);
}
