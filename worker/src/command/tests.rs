//! Programs of every kind of behaviour, run for real: `cat` is one that passes records on in either format.

use arrow::{
    array::{ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, StringArray, StringViewArray, UnionArray},
    buffer::ScalarBuffer,
    datatypes::{DataType, Float64Type, Int64Type, UnionFields},
};
use gapless_common::job::{ColumnType, CommandFormat};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Batches to give, and an answer to being asked.
struct Given {
    batches: std::vec::IntoIter<RecordBatch>,
    looks: u32,
    stop_after: u32,
}

impl Records for Given {
    fn next(&mut self) -> Result<Option<RecordBatch>, TaskError> {
        Ok(self.batches.next())
    }

    fn look(&mut self) -> Result<(), TaskError> {
        self.looks += 1;
        match self.looks >= self.stop_after {
            true => Err(TaskError::new(ErrorClass::Cancelled, "told to stop")),
            false => Ok(()),
        }
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("name", DataType::Utf8View, true),
    ]))
}

fn batches(count: usize, rows: usize) -> Vec<RecordBatch> {
    (0..count)
        .map(|at| {
            let from = (at * rows) as i64;
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows as i64));
            let names: ArrayRef = Arc::new(StringViewArray::from_iter(
                (0..rows).map(|row| (row % 3 > 0).then(|| format!("a \"name\" — {row}"))),
            ));
            RecordBatch::try_new(schema(), vec![numbers, names]).expect("two columns")
        })
        .collect()
}

fn command(run: &[&str], format: CommandFormat) -> Command {
    Command {
        run: run.iter().map(|part| part.to_string()).collect(),
        format,
        mode: CommandMode::Rows,
        columns: vec![
            ("n".to_string(), ColumnType::Int64),
            ("name".to_string(), ColumnType::String),
        ],
        timeout_s: 60,
        output_mib: 64,
    }
}

fn shell(script: &str) -> Command {
    command(&["sh", "-c", script], CommandFormat::Ndjson)
}

fn run_over(command: &Command, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, TaskError> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut external = External::new(command, folder.path().to_path_buf(), Inherited::default(), None)?;
    let mut made = Vec::new();
    let mut records = Given {
        batches: batches.into_iter(),
        looks: 0,
        stop_after: u32::MAX,
    };
    let environment = Environment::from([("GAPLESS_PARTITION", "7".to_string())]);
    external.run(&schema(), &environment, &mut records, &mut |batch| {
        made.push(batch);
        Ok(())
    })?;
    Ok(made)
}

fn run(command: &Command) -> Result<Vec<RecordBatch>, TaskError> {
    run_over(command, batches(3, 1000))
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(column).collect()
}

#[track_caller]
fn fails(command: &Command, class: ErrorClass, words: &[&str]) {
    let error = run(command).expect_err("fails");
    assert_eq!(error.class, class, "{error}");
    for words in words {
        assert!(error.message.contains(words), "{error}\nlacks {words}");
    }
}

#[test]
fn records_come_back_as_they_went() {
    for format in [CommandFormat::Arrow, CommandFormat::Ndjson] {
        // More than both pipes and all queues hold.
        for (count, rows) in [(1, 1), (3, 1000), (40, 8000)] {
            let given = batches(count, rows);
            let made = run_over(&command(&["cat"], format), given.clone()).expect("passes");
            let concat = |batches: &[RecordBatch]| arrow::compute::concat_batches(&schema(), batches).expect("fits");
            assert_eq!(concat(&made), concat(&given), "{format:?}, {count} times {rows}");
        }
    }
}

/// A process that has left the program's group holds its output open when the program is done.
#[test]
fn an_output_that_a_process_outside_of_the_group_holds_open_is_taken_only_where_it_is_complete() {
    let lasting = "setsid sh -c 'echo $$ > pid; exec sleep 1000' & while ! test -s pid; do :; done";
    let program = |script: &str, format| command(&["sh", "-c", &script.replace("LASTING", lasting)], format);
    let run = |script: &str, format| {
        let folder = tempfile::tempdir().expect("a folder");
        let command = program(script, format);
        let mut external = External::new(&command, folder.path().to_path_buf(), Inherited::default(), None)?;
        let mut records = Given {
            batches: batches(3, 1000).into_iter(),
            looks: 0,
            stop_after: u32::MAX,
        };
        let mut made = Vec::new();
        let ran = external.run(&schema(), &Environment::new(), &mut records, &mut |batch| {
            made.push(batch);
            Ok(())
        });
        // It has outlived the program: else nothing was held open.
        let pid = std::fs::read_to_string(folder.path().join("pid")).expect("it was started");
        let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("one");
        kill_process(pid, Signal::KILL).expect("it is there still");
        ran.map(|()| numbers(&made).len())
    };
    assert_eq!(
        run("cat; LASTING", CommandFormat::Arrow),
        Ok(3000),
        "the mark of the end is there"
    );
    let held = "a process that it started still holds its standard output";
    for (script, format, class, says) in [
        // Whether there is more to come nobody can tell.
        ("cat; LASTING", CommandFormat::Ndjson, ErrorClass::Data, held),
        (
            "head -c 2000; cat > rest; LASTING",
            CommandFormat::Arrow,
            ErrorClass::Data,
            held,
        ),
        (
            "cat; LASTING; exit 75",
            CommandFormat::Ndjson,
            ErrorClass::Transient,
            "ended with exit code 75",
        ),
    ] {
        let error = run(script, format).expect_err(script);
        assert_eq!(error.class, class, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
}

/// What a program makes of one batch.
fn run_over_columns(command: &Command, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, TaskError> {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let folder = tempfile::tempdir().expect("a folder");
    let mut external = External::new(command, folder.path().to_path_buf(), Inherited::default(), None)?;
    let mut records = Given {
        batches: vec![batch.clone()].into_iter(),
        looks: 0,
        stop_after: u32::MAX,
    };
    let mut made = Vec::new();
    external.run(&batch.schema(), &Environment::new(), &mut records, &mut |batch| {
        made.push(batch);
        Ok(())
    })?;
    Ok(made.remove(0))
}

#[test]
fn what_json_has_no_number_for_comes_back_as_it_went() {
    let given = [1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300];
    let cat = Command {
        columns: vec![
            ("f".to_string(), ColumnType::Float64),
            ("b".to_string(), ColumnType::String),
        ],
        ..command(&["cat"], CommandFormat::Ndjson)
    };
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"\x00\xff"; 6]));
    let columns = vec![
        ("f", Arc::new(Float64Array::from(given.to_vec())) as ArrayRef),
        ("b", bytes),
    ];
    let made = run_over_columns(&cat, columns).expect("passes");
    assert_eq!(made.column(0).null_count(), 0);
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let found = made.column(0).as_primitive::<Float64Type>().values();
    assert_eq!(bits(found), bits(&given));
    assert_eq!(made.column(1).as_string_view().value(5), "00ff");
}

#[test]
fn a_column_that_has_no_json_is_told() {
    let fields = UnionFields::from_fields([Field::new("a", DataType::Int64, true)]);
    let values: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
    let union = UnionArray::try_new(fields, ScalarBuffer::from(vec![0i8]), None, values).expect("a union");
    let cat = command(&["cat"], CommandFormat::Ndjson);
    let error = run_over_columns(&cat, vec![("u", Arc::new(union) as ArrayRef)]).expect_err("has no JSON");
    assert_eq!(error.class, ErrorClass::Config, "{error}");
    assert!(
        error.message.contains("cannot be given its records: column u is"),
        "{error}"
    );
}

#[test]
fn a_program_that_reads_everything_before_it_writes_holds_up_nothing() {
    let tac = command(&["tac"], CommandFormat::Ndjson);
    let mut made = numbers(&run_over(&tac, batches(40, 8000)).expect("passes"));
    made.reverse();
    assert_eq!(made, (0..320_000).collect::<Vec<_>>());
}

#[test]
fn without_declared_columns_they_are_those_of_the_stream() {
    let undeclared = Command {
        columns: Vec::new(),
        ..command(&["cat"], CommandFormat::Arrow)
    };
    let folder = tempfile::tempdir().expect("a folder");
    let output = output_of(
        &undeclared,
        folder.path().to_path_buf(),
        &Inherited::default(),
        &schema(),
    )
    .expect("told");
    assert_eq!(shown(&output), "n int64, name string");
    let made = run(&undeclared).expect("passes");
    assert_eq!(made[0].column(1).as_string::<i32>().value(1), "a \"name\" — 1");

    // A plan that was made of other columns is not filled with these.
    let planned = Arc::new(Schema::new(vec![Field::new("m", DataType::Int64, true)]));
    let mut external = External::new(
        &undeclared,
        folder.path().to_path_buf(),
        Inherited::default(),
        Some(planned),
    )
    .expect("made");
    let mut records = Given {
        batches: batches(1, 1).into_iter(),
        looks: 0,
        stop_after: u32::MAX,
    };
    let error = external
        .run(&schema(), &Environment::new(), &mut records, &mut |_| Ok(()))
        .expect_err("other columns");
    assert!(
        error.message.contains("(n int64, name string) instead of (m int64)"),
        "{error}"
    );
}

#[test]
fn text_may_come_in_any_of_its_forms_and_other_types_must_be_those_declared() {
    let stream = |columns: Vec<(&str, ArrayRef)>| {
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let mut bytes = Vec::new();
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).expect("a writer");
        writer.write(&batch).expect("written");
        writer.finish().expect("finished");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        file
    };
    let answer = |file: &tempfile::NamedTempFile| {
        let script = format!("cat > /dev/null; cat {}", file.path().display());
        run(&command(&["sh", "-c", &script], CommandFormat::Arrow))
    };
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let made = answer(&stream(vec![("n", n.clone()), ("name", text.clone())])).expect("fits");
    assert_eq!(made[0].schema(), schema());
    for columns in [
        vec![("n", text.clone()), ("name", text.clone())],
        vec![("name", text.clone()), ("n", n.clone())],
        vec![("n", n.clone())],
    ] {
        let error = answer(&stream(columns)).expect_err("does not fit");
        assert_eq!(error.class, ErrorClass::Data);
        assert!(error.message.contains("instead of (n int64, name string)"), "{error}");
    }
}

#[test]
fn it_knows_what_it_works_for_and_none_of_the_workers_secrets() {
    // SAFETY: no other test reads or writes this variable.
    unsafe { std::env::set_var("GAPLESS_TOKEN", "secret") };
    let script = r#"cat > /dev/null; echo "{\"n\": $GAPLESS_PARTITION, \"name\": \"[$GAPLESS_TOKEN]\"}""#;
    let made = run(&shell(script)).expect("passes");
    assert_eq!(numbers(&made), [7]);
    assert_eq!(made[0].column(1).as_string_view().value(0), "[]");

    // SAFETY: as above.
    unsafe { std::env::set_var("AWS_SECRET_ACCESS_KEY", "secret") };
    let script = r#"cat > /dev/null; echo "{\"name\": \"[$AWS_SECRET_ACCESS_KEY]\"}""#;
    let made = run(&shell(script)).expect("passes");
    assert_eq!(made[0].column(1).as_string_view().value(0), "[]");
}

#[test]
fn an_end_is_judged_by_its_exit_code() {
    for (code, class) in [
        (1, ErrorClass::Data),
        (2, ErrorClass::Data),
        (65, ErrorClass::Data),
        (69, ErrorClass::Transient),
        (71, ErrorClass::Resource),
        (75, ErrorClass::Transient),
        (78, ErrorClass::Config),
        (127, ErrorClass::Config),
    ] {
        let script = format!("cat > /dev/null; echo some words >&2; exit {code}");
        fails(&shell(&script), class, &[&format!("exit code {code}"), "some words"]);
        // It need not read anything for that.
        fails(&shell(&format!("exit {code}")), class, &[&format!("exit code {code}")]);
    }
    fails(&shell("kill -9 $$"), ErrorClass::Transient, &["signal 9"]);
    // Half a record, and then it dies: its end is what went wrong.
    fails(&shell("printf '{\"n\": 1, '; exit 3"), ErrorClass::Data, &["line 1"]);
    let stream = command(&["sh", "-c", "head -c 200; echo no >&2; exit 75"], CommandFormat::Arrow);
    fails(&stream, ErrorClass::Transient, &["exit code 75", "no"]);
}

#[test]
fn a_program_that_cannot_be_started_is_told_with_what_it_takes() {
    for run in [["no-such-program"], ["./no-such-program"], ["/etc/passwd"], ["/"]] {
        let words = [run[0], "cannot be started", "PATH of the worker"];
        fails(&command(&run, CommandFormat::Arrow), ErrorClass::Config, &words);
    }
}

#[test]
fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    for script in [
        "sleep 1000",
        // Reads, and never ends.
        "cat > /dev/null; sleep 1000",
        // Closes its output, and stays.
        "exec 1>&-; sleep 1000",
        // Ignores what it can.
        "trap '' TERM INT HUP; sleep 1000 & wait",
    ] {
        let hangs = Command {
            timeout_s: 1,
            ..shell(script)
        };
        let began = Instant::now();
        fails(&hangs, ErrorClass::TimedOut, &["longer than 1 s", "timeout_s"]);
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{script}: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn what_a_program_leaves_running_does_not_hold_up_its_end() {
    let began = Instant::now();
    let made = run(&shell("sleep 1000 & cat")).expect("passes");
    assert_eq!(numbers(&made).len(), 3000);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_program_is_killed_when_the_attempt_is_to_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let command = shell("echo $$ > pid; exec sleep 1000");
    let mut external = External::new(&command, folder.path().to_path_buf(), Inherited::default(), None).expect("made");
    let mut records = Given {
        batches: batches(3, 10).into_iter(),
        looks: 0,
        stop_after: 3,
    };
    let error = external
        .run(&schema(), &Environment::new(), &mut records, &mut |_| Ok(()))
        .expect_err("told to stop");
    assert_eq!(error.class, ErrorClass::Cancelled);
    let pid = std::fs::read_to_string(folder.path().join("pid")).expect("it had begun");
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[test]
fn rubbish_is_shown_where_it_stands() {
    let json = |script: &str, words: &[&str]| fails(&shell(script), ErrorClass::Data, words);
    json("echo hello", &["line 1", "«hello»"]);
    json("cat; echo 5", &["line 3001", "«5»"]);
    json("cat; echo '[]'", &["line 3001"]);
    json(
        "cat; echo '{\"n\": 1} {\"n\": 2}'",
        &["line 3001", "trailing characters"],
    );
    json("cat; echo '{\"n\": \"x\"}'", &["line 3001", "«{\"n\": \"x\"}»"]);
    json("cat; echo '{\"m\": 1}'", &["line 3001", "m"]);
    json("cat; printf '{\"n\": 1'", &["line 3001"]);
    json("cat; printf '\\377\\n'", &["line 3001"]);
    json(
        "cat > /dev/null; head -c 20000000 /dev/zero",
        &["a line of more than 16 MiB", "line 1"],
    );
    let arrow = |script: &str, words: &[&str]| {
        fails(
            &command(&["sh", "-c", script], CommandFormat::Arrow),
            ErrorClass::Data,
            words,
        );
    };
    arrow("cat > /dev/null", &["no Arrow stream, but nothing"]);
    arrow(
        "echo hello world",
        &["no Arrow IPC stream", "hello wo", "format: ndjson"],
    );
    arrow("cat; echo bye", &["bytes more after the end"]);
    arrow(
        "cat | head -c -8; echo 'a word in between'",
        &["between the batches", "a word i"],
    );
    arrow("cat | head -c -100", &["breaks off"]);
    // Well begun, with lengths that nobody has.
    arrow(
        "printf '\\377\\377\\377\\377\\377\\377\\377\\177'",
        &["no Arrow IPC stream"],
    );
    arrow(
        "printf '\\377\\377\\377\\377\\020\\000\\000\\000xxxxxxxxxxxxxxxx'",
        &["no Arrow IPC"],
    );
}

#[test]
fn lines_of_json_are_read_as_those_of_a_source_and_nothing_is_guessed() {
    let types = [
        ("n", ColumnType::Int64),
        (
            "amount",
            ColumnType::Decimal {
                precision: 20,
                scale: 2,
            },
        ),
        ("real", ColumnType::Float64),
        ("at", ColumnType::Timestamp),
        ("day", ColumnType::Date),
        ("ok", ColumnType::Bool),
        ("name", ColumnType::String),
    ];
    let writes = |line: &str| Command {
        columns: types.map(|(name, ty)| (name.to_string(), ty)).to_vec(),
        ..shell(&format!("cat > /dev/null; printf '\\n{{}}\\n%s\\n' '{line}'"))
    };
    let taken = [
        r#"{"n":7,"amount":12.34,"real":1e3,"at":"2026-01-02T03:04:05.5","day":"2026-01-02","ok":true,"name":1}"#,
        r#" {"name":"a\u00e9","n":"7","amount":"12.340","real":null} "#,
    ];
    let made = taken.map(|line| run(&writes(line)).expect("passes"));
    let shown = |batch: &RecordBatch| {
        let row = batch.slice(1, 1);
        let columns = row
            .columns()
            .iter()
            .map(|column| arrow::util::display::array_value_to_string(column, 0));
        columns.collect::<Result<Vec<_>, _>>().expect("shown")
    };
    assert_eq!(
        shown(&made[0][0]),
        [
            "7",
            "12.34",
            "1000.0",
            "2026-01-02T03:04:05.500",
            "2026-01-02",
            "true",
            "1"
        ]
    );
    assert_eq!(shown(&made[1][0]), ["7", "12.34", "", "", "", "", "aé"]);
    let refused = [
        (r#"{"n":7.9}"#, "column n: «7.9» is not a whole number"),
        (r#"{"n":1e2}"#, "column n: «1e2» is not a whole number"),
        (r#"{"n":9223372036854775808}"#, "column n: «9223372036854775808»"),
        (r#"{"amount":12.349}"#, "column amount: «12.349» is not a decimal(20,2)"),
        (
            r#"{"real":1e999}"#,
            "column real: «1e999» is not a number that a float64 holds",
        ),
        (r#"{"at":1700000000}"#, "column at: «1700000000» is not a timestamp"),
        (r#"{"day":20000}"#, "column day: «20000» is not a date"),
        (r#"{"ok":1}"#, "column ok: «1» is not true or false"),
        (r#"{"n":1,"n":2}"#, "«n» stands twice"),
        (r#"{"m":1}"#, "«m» is no column: there are n, amount, real"),
    ];
    for (line, words) in refused {
        fails(
            &writes(line),
            ErrorClass::Data,
            &["the program `sh -c …` wrote", "line 3: ", words, line],
        );
    }
    // The first of several lines that are none.
    let several = r#"{"day":1}
{"#;
    fails(&writes(several), ErrorClass::Data, &["line 3: column day"]);
}

#[test]
fn a_program_that_writes_without_end_is_stopped_at_its_limit() {
    let endless = |script: &str| Command {
        output_mib: 3,
        ..shell(script)
    };
    fails(
        &endless("yes '{\"n\": 1}'"),
        ErrorClass::Data,
        &["more than 3 MiB", "output_mib"],
    );
    // And one that has not read a thing.
    fails(
        &endless("yes '{\"n\": 1}' & wait"),
        ErrorClass::Data,
        &["more than 3 MiB"],
    );
}

#[test]
fn a_program_must_read_all_of_its_records() {
    let words = ["before it had read all"];
    fails(&shell("head -n 1"), ErrorClass::Data, &words);
    let answers = "echo '{\"n\": 1}'";
    // Few records fit into the pipe, where nobody has to read them.
    for rows in [1, 3, 8000] {
        for ends in ["true", answers, &format!("exec 0<&-; {answers}")] {
            for count in [1, 40] {
                let error = run_over(&shell(ends), batches(count, rows)).expect_err("nothing was read");
                assert!(error.message.contains(words[0]), "{ends}: {error}");
            }
        }
    }
    // The mark of the end is no record.
    let copy = tempfile::NamedTempFile::new().expect("a file");
    let tee = command(&["tee", &copy.path().display().to_string()], CommandFormat::Arrow);
    run_over(&tee, batches(1, 3)).expect("passes");
    let length = std::fs::metadata(copy.path()).expect("written").len();
    let head = |bytes: u64| command(&["head", "-c", &bytes.to_string()], CommandFormat::Arrow);
    let made = run_over(&head(length - 8), batches(1, 3)).expect("passes");
    assert_eq!(numbers(&made), [0, 1, 2]);
    fails(&head(length - 9), ErrorClass::Data, &[]);
}

#[test]
fn errors_of_source_and_sink_come_back_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut external = External::new(
        &command(&["cat"], CommandFormat::Arrow),
        folder.path().to_path_buf(),
        Inherited::default(),
        None,
    )
    .expect("made");
    let full = TaskError::new(ErrorClass::Resource, "the disk is full");
    let mut records = Given {
        batches: batches(3, 10).into_iter(),
        looks: 0,
        stop_after: u32::MAX,
    };
    let error = external
        .run(&schema(), &Environment::new(), &mut records, &mut |_| Err(full.clone()))
        .expect_err("full");
    assert_eq!(error, full);
}

#[test]
fn no_records_start_no_program_unless_it_takes_partitions_whole() {
    let marks = |mode: CommandMode| {
        let folder = tempfile::tempdir().expect("a folder");
        let command = Command {
            mode,
            ..shell("touch began; echo '{\"n\": 1}'")
        };
        let mut external =
            External::new(&command, folder.path().to_path_buf(), Inherited::default(), None).expect("made");
        let mut records = Given {
            batches: Vec::new().into_iter(),
            looks: 0,
            stop_after: u32::MAX,
        };
        let mut rows = 0;
        external
            .run(&schema(), &Environment::new(), &mut records, &mut |batch| {
                rows += batch.num_rows();
                Ok(())
            })
            .expect("passes");
        (folder.path().join("began").exists(), rows)
    };
    assert_eq!(marks(CommandMode::Rows), (false, 0));
    assert_eq!(marks(CommandMode::Whole), (true, 1));
}
