//! Outputs divided over named folders: each row in one of them, whatever dies.

use std::{collections::BTreeMap, fs};

use gapless_tests::{World, wait_for};
use serde_json::Value;

/// The lines of each sub-folder of an output, files in the order of their names, without headers.
fn outputs(world: &World, output: &str, header: usize) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(world.path(output)).expect("the output is there") {
        let folder = entry.expect("listed").path();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        if !folder.is_dir() || name == "_gapless" {
            continue;
        }
        let mut files = world.files(folder.to_str().expect("text"));
        files.sort();
        let mut lines = Vec::new();
        for file in files {
            let text = fs::read_to_string(file).expect("readable");
            lines.extend(text.lines().skip(header).map(str::to_string));
        }
        found.insert(name, lines);
    }
    found
}

fn certified(world: &World, output: &str) -> Value {
    let folder = fs::read_dir(world.path(output).join("_gapless")).expect("there");
    let path = folder
        .map(|entry| entry.expect("listed").path())
        .find(|path| path.extension().is_some_and(|it| it == "json"))
        .expect("a certificate");
    serde_json::from_str(&fs::read_to_string(path).expect("readable")).expect("JSON")
}

fn run(world: &World, source: &str, split: &str) -> std::process::Output {
    world.job(&format!(
        "job: split\nsteps:\n  - name: split\n    source: {{csv: {{{source}}}}}\n    sink: {{csv: {{path: out/split, \
         delimiter: tab, header: false, split: {split}}}}}\n"
    ));
    world.gapless(&["run", "job.yaml", "--slots", "1"])
}

const LINES: &str = "path: lines.txt, header: false, delimiter: tab, quote: none, columns: {line: string}";

/// Lines of two kinds, in turn, as a file of several record types has them.
#[test]
fn lines_go_where_their_prefix_says_in_the_order_in_which_they_came() {
    let world = World::empty();
    let lines: Vec<String> = (0..12)
        .map(|n| match n % 3 {
            0 => format!("CUST{n:05}customer {n:<4}{:08}", n * 1000),
            _ => format!("TRADXYZ{n:09}{:03}  {:06.2}customer  ", n * 7, f64::from(n) * 1.5),
        })
        .collect();
    fs::write(world.path("lines.txt"), lines.join("\n") + "\n").expect("written");
    let when = "{when: [{name: CUST, that: \"starts_with(line, 'CUST')\"}, {name: TRAD, that: \"starts_with(line, 'TRAD')\"}, \
                {name: NONE, that: \"false\"}]}";
    let output = run(&world, LINES, when);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let of = |prefix: &str| {
        lines
            .iter()
            .filter(|line| line.starts_with(prefix))
            .cloned()
            .collect::<Vec<_>>()
    };
    let expected: BTreeMap<String, Vec<String>> =
        [("CUST".to_string(), of("CUST")), ("TRAD".to_string(), of("TRAD"))].into();
    assert_eq!(outputs(&world, "out/split", 0), expected);
    assert_eq!(
        certified(&world, "out/split")["outputs"],
        serde_json::json!({"CUST": 4, "NONE": 0, "TRAD": 8})
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("rows of each output: CUST 4, NONE 0, TRAD 8"), "{said}");
}

#[test]
fn a_row_that_no_output_takes_fails_the_step_or_goes_where_it_is_told() {
    let world = World::empty();
    fs::write(world.path("lines.txt"), "CUST1\nwhat is this\nCUST2\n").expect("written");
    let when = |otherwise: &str| format!("{{when: [{{name: CUST, that: \"starts_with(line, 'CUST')\"}}]{otherwise}}}");
    let output = run(&world, LINES, &when(""));
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("split: no output takes the row (line: what is this)"),
        "{told}"
    );
    assert!(!world.path("out/split").exists(), "nothing is published");

    let output = run(&world, LINES, &when(", otherwise: rest"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(outputs(&world, "out/split", 0)["rest"], ["what is this"]);
}

/// As with a check, a rule that cannot be asked of a record rejects that record; it does not go where rows go of which it is
/// not true.
#[test]
fn a_rule_that_cannot_be_evaluated_rejects_the_record() {
    let write = |world: &World| fs::write(world.path("in.csv"), "id,v\n1,a\n5,b\n0,c\n5,d\n9,e\n").expect("written");
    let run = |more: &str, limit: u32| {
        let world = World::empty();
        write(&world);
        world.job(&format!(
            "job: split\nsteps:\n  - name: split\n    source: {{csv: {{path: in.csv, columns: {{id: int64, v: string}}}}}}\n    \
             {more}\n    sink: {{csv: {{path: out/split, exists: replace, partition_column: p, split: {{when: [{{name: none, that: \"id = 0\"}}, \
             {{name: more, that: \"p = 0 AND 8 / (id - 5) >= 1\"}}], otherwise: less}}}}}}\n    on_error: {{reject: {{limit: {limit}}}}}\n"
        ));
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (world, output.status.code(), told)
    };
    for more in [
        "",
        "sort: [{column: v, order: desc}]",
        "transform: {sql: \"SELECT id, unnest([v]) AS v FROM input\"}",
    ] {
        let (world, code, told) = run(more, 2);
        assert_eq!(code, Some(0), "{told}");
        let ids: BTreeMap<String, Vec<String>> = outputs(&world, "out/split", 1);
        let ids: Vec<_> = ids
            .iter()
            .map(|(name, rows)| format!("{name} {}", rows.concat()))
            .collect();
        // Where another rule has taken a record first, the rest is not asked.
        assert_eq!(ids, ["less 1,a,0", "more 9,e,0", "none 0,c,0"], "{more}");
        let told = world.gapless(&["rejects", "split", "-o", "json", "--state", ".gapless"]);
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let told: Vec<Value> = told
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let lines: Vec<_> = told.iter().map(|reject| (&reject["line"], &reject["rule"])).collect();
        assert_eq!(
            lines,
            [
                (&Value::from(3), &Value::from("split")),
                (&Value::from(5), &Value::from("split"))
            ]
        );
    }
    let (_world, code, told) = run("", 1);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("in.csv, line 5: split"), "{told}");
    assert!(
        told.contains("split «more»: «p = 0 AND 8 / (id - 5) >= 1» cannot be evaluated: Divide by zero"),
        "{told}"
    );
    // No record can be blamed for what several have given.
    let (_world, code, told) = run("transform: {sql: \"SELECT id, max(v) AS v FROM input GROUP BY id\"}", 9);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("split «more»: "), "{told}");
}

/// Rows of a value must not be mixed with those that no output takes.
#[test]
fn a_value_that_is_the_name_for_other_rows_has_a_folder_of_its_own() {
    let world = World::empty();
    let source = "path: in.csv, columns: {id: int64, v: string}";
    fs::write(
        world.path("in.csv"),
        "id,v\n1,rest\n2,\n3,a\n4,rest\n5,%72est\n6,\"\"\n",
    )
    .expect("written");
    let output = run(&world, source, "{by: v, otherwise: rest}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = outputs(&world, "out/split", 0);
    let ids: Vec<(&str, Vec<&str>)> = (found.iter())
        .map(|(folder, rows)| (folder.as_str(), rows.iter().map(|row| &row[..1]).collect()))
        .collect();
    assert_eq!(
        ids,
        [
            ("%2572est", vec!["5"]),
            ("%72est", vec!["1", "4"]),
            ("a", vec!["3"]),
            ("rest", vec!["2", "6"])
        ]
    );
    assert_eq!(
        certified(&world, "out/split")["outputs"],
        serde_json::json!({"%2572est": 1, "%72est": 2, "a": 1, "rest": 2})
    );
}

#[test]
fn values_and_hashes_and_sizes_divide_every_row_once_also_when_killed() {
    const SOURCE: &str = "path: \"data/sales-*.csv\", columns: {id: int64, shop: string, cents: int64, note: string}";
    const ROWS: u64 = 60_000;
    for split in [
        "{by: shop, otherwise: none}",
        "{hash: {columns: [id]  , into: 5}}",
        "{rows: 700}",
    ] {
        let (world, sales) = World::with_sales(ROWS);
        world.job(&format!(
            "job: split\nsteps:\n  - name: split\n    source: {{csv: {{{SOURCE}}}}}\n    partition: {{count: 24}}\n    \
             sink: {{csv: {{path: out/split, split: {split}}}}}\n"
        ));
        let mut first = world.start(&["run", "job.yaml", "--slots", "1"]);
        wait_for("the chunks to kill at", || {
            (world.manifests("split") >= 7 || !first.is_running()).then_some(())
        });
        assert!(first.kill(), "the kill came before the end");
        let output = world.gapless(&["run", "job.yaml", "--slots", "1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = match split.starts_with("{rows") {
            false => outputs(&world, "out/split", 1),
            true => {
                for file in world.files("out/split") {
                    let rows = fs::read_to_string(&file).expect("readable").lines().count() - 1;
                    assert!((1..=700).contains(&rows), "{} has {rows} rows", file.display());
                }
                [("all".to_string(), world.rows("out/split"))].into()
            }
        };
        let mut ids: Vec<u64> = found
            .values()
            .flatten()
            .map(|row| row.split(',').next().unwrap_or_default().parse().expect("an id"))
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..ROWS).collect::<Vec<_>>(), "{split}");
        let counted: BTreeMap<&str, u64> = found
            .iter()
            .map(|(name, rows)| (name.as_str(), rows.len() as u64))
            .collect();
        if split.starts_with("{by") {
            let expected: BTreeMap<&str, u64> = sales.iter().map(|(shop, (rows, _))| (shop.as_str(), *rows)).collect();
            assert_eq!(counted, expected);
        }
        if split.starts_with("{hash") {
            assert_eq!(
                counted.keys().copied().collect::<Vec<_>>(),
                ["00000", "00001", "00002", "00003", "00004"]
            );
            assert!(
                counted.values().all(|rows| (11_000..13_000).contains(rows)),
                "{counted:?}"
            );
        }
    }
}
