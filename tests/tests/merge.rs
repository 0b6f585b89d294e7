//! Merges on real processes: inputs of several formats as one source, in order, whatever dies.

use std::fs;

use gapless_tests::{Cluster, World, wait_for};

/// Records of each input.
const EACH: u64 = 20_000;
/// Partitions: eight for each input, as the inputs have about the same size.
const PARTITIONS: usize = 24;

fn name(id: u64) -> String {
    format!("name {:>7}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44)
}

/// Three inputs of three formats, with numbered records.
fn inputs(world: &World) {
    let lines = |from: u64, line: &dyn Fn(u64) -> String| (from..from + EACH).map(line).collect::<String>();
    let one = lines(0, &|id| format!("{id},{},----------\n", name(id)));
    let two = lines(EACH, &|id| format!("{},{id},----------\n", name(id)));
    let three = lines(2 * EACH, &|id| format!("{id};{};----\n", name(id)));
    fs::write(world.path("one.csv"), one).expect("written");
    fs::write(world.path("two.csv"), format!("name,id,padding\n{two}")).expect("written");
    fs::write(world.path("three.txt"), three).expect("written");
}

fn job(world: &World, options: &str, sink: &str) {
    world.job(&format!(
        r#"job: merge
steps:
  - name: merge
    source:
      merge:
        {options}
        inputs:
          - csv: {{path: one.csv, header: false, columns: {{id: int64, name: string, padding: string}}}}
          - csv: {{path: two.csv, columns: {{id: int32}}}}
          - records: {{path: three.txt, delimiter: ";", fields: [{{name: id, type: int64}}, {{name: name}}, {{name: padding}}]}}
    partition: {{count: {PARTITIONS}}}
    sink: {{csv: {{path: out/merge, {sink}}}}}
"#
    ));
}

/// The lines of an output, its files in the order of their names.
fn lines(world: &World, output: &str) -> Vec<String> {
    let mut files = world.files(output);
    files.sort();
    let text = |file| fs::read_to_string(file).expect("readable");
    files
        .iter()
        .flat_map(|file| text(file).lines().skip(1).map(str::to_string).collect::<Vec<_>>())
        .collect()
}

fn check(world: &World) {
    let found = lines(world, "out/merge");
    assert_eq!(found.len() as u64, 3 * EACH);
    for (id, line) in (0..).zip(&found) {
        let padding = if id < 2 * EACH { "----------" } else { "----" };
        assert_eq!(*line, format!("{id},{},{padding}", name(id)));
    }
}

fn succeeds(world: &World, arguments: &[&str]) {
    let output = world.gapless(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const PLAIN: &str = "missing_columns: refuse";

#[test]
fn the_order_does_not_depend_on_the_cut() {
    for (workers, sink) in [("1", "exists: fail"), ("3", "exists: fail"), ("2", "files: 1")] {
        let world = World::empty();
        inputs(&world);
        job(&world, PLAIN, sink);
        succeeds(&world, &["run", "job.yaml", "--workers", workers, "--slots", "1"]);
        check(&world);
        succeeds(&world, &["verify", "merge", "--state", ".gapless"]);
    }
}

/// The partitions of the second input are numbers 8 to 15; with one slot they are worked off one by one.
#[test]
fn a_run_that_is_killed_in_the_second_input_goes_on_without_a_duplicate() {
    for chunks in [8, 10, 13] {
        let world = World::empty();
        inputs(&world);
        job(&world, PLAIN, "exists: fail");
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        wait_for("the chunks to kill at", || {
            (world.manifests("merge") >= chunks || !first.is_running()).then_some(())
        });
        assert!(first.kill(), "the kill at {chunks} chunks came before the end");
        let made = world.manifests("merge");
        assert!((8..16).contains(&made), "the kill came at {made} chunks");
        succeeds(&world, &["run", "job.yaml", "--slots", "1"]);
        check(&world);
        succeeds(&world, &["verify", "merge", "--state", ".gapless"]);
    }
}

#[test]
fn a_killed_worker_changes_nothing_of_the_order() {
    let world = World::empty();
    inputs(&world);
    job(&world, PLAIN, "exists: fail");
    let mut cluster = Cluster::start(&world, 2);
    let run = cluster.submit("job.yaml");
    let victim = wait_for("a worker at work", || cluster.busy_worker());
    assert!(cluster.workers[victim].kill(), "the worker was alive");
    assert_eq!(cluster.run(&run)["state"], "running", "the kill came before the end");
    let ended = cluster.ended(&run);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    check(&world);
}
