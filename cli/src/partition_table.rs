//! The partition table of a plan, as `gapless plan` shows it. Pure: facts and plan in, text out.

use clap::ValueEnum;
use gapless_common::{
    ids::RunId,
    job::{Exists, Sink, Step},
    plan::{Facts, Partition, StepPlan, TransformMode, Unit},
};
use serde::Serialize;

use crate::{
    failure::{Failure, Kind},
    output::{self, Table},
    wording::{bytes, count, counted},
};

/// The form of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    Table,
    /// A table that also shows how the exchange is fed
    Wide,
    Json,
    Yaml,
    /// The partition table alone
    Csv,
    /// The program id of each step, one a line
    Name,
}

/// A step and what is known of its cut.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    pub step: Step,
    pub cut: Cut,
    pub output: Target,
}

/// What is known of the place of a step's output.
#[derive(Clone, Debug)]
pub enum Target {
    /// Nothing is in the way.
    Free,
    /// What a run has published of this very step.
    Stands { run: RunId },
    /// A run would be refused, in these words.
    Refused { why: String },
}

impl Target {
    /// For people, where there is something to say.
    fn words(&self) -> Option<String> {
        match self {
            Target::Free => None,
            Target::Stands { run } => Some(format!(
                "stands already, as run {run} of this very step has published it: it is not done again"
            )),
            Target::Refused { why } => Some(format!("REFUSED: {why}")),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Cut {
    Planned {
        facts: Box<Facts>,
        plan: Box<StepPlan>,
        /// The verdict in words; as an error, the faults.
        coverage: Result<String, String>,
    },
    /// It reads what another step will have published.
    Later { step: String },
    /// It cannot be planned as it is written, or its source is not there.
    Impossible { why: String },
}

/// Shows a plan.
pub fn render(job: &str, steps: &[PlannedStep], format: PlanFormat) -> Result<String, Failure> {
    match format {
        PlanFormat::Table => Ok(sections(job, steps, false)),
        PlanFormat::Wide => Ok(sections(job, steps, true)),
        PlanFormat::Json => output::json(&view(job, steps)),
        PlanFormat::Yaml => output::yaml(&view(job, steps)),
        PlanFormat::Csv => Ok(csv(job, steps)),
        PlanFormat::Name => Ok(steps.iter().map(|step| format!("{job}/{}\n", step.step.name)).collect()),
    }
}

/// Whether every step that can be planned now is, covers its source, and could publish. Else the first fault: a job
/// that cannot be is [`Kind::Invalid`], an output that is taken fails as a run of it would.
pub fn verdict(steps: &[PlannedStep]) -> Result<(), (Kind, String)> {
    for PlannedStep { step, cut, .. } in steps {
        match cut {
            Cut::Planned {
                coverage: Err(fault), ..
            } => return Err((Kind::Invalid, format!("step {}: {fault}", step.name))),
            Cut::Impossible { why } => return Err((Kind::Invalid, format!("step {}: {why}", step.name))),
            Cut::Planned { .. } | Cut::Later { .. } => {}
        }
    }
    for PlannedStep { step, output, .. } in steps {
        if let Target::Refused { why } = output {
            return Err((Kind::Failed, format!("step {}, prepare: {why}", step.name)));
        }
    }
    Ok(())
}

/// The least, middle and greatest estimate of a table, in rows or, where those are unknown, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Skew {
    pub min: u64,
    pub median: u64,
    pub max: u64,
    pub of_rows: bool,
}

/// The skew of a partition table; `None` where nothing is known of sizes.
pub fn skew(partitions: &[Partition]) -> Option<Skew> {
    let of_rows = partitions.iter().any(|partition| partition.estimate.rows > 0);
    let size = |partition: &Partition| match of_rows {
        true => partition.estimate.rows,
        false => partition.estimate.bytes,
    };
    let mut sizes: Vec<u64> = partitions.iter().map(size).collect();
    sizes.sort_unstable();
    let max = *sizes.last().filter(|size| **size > 0)?;
    Some(Skew {
        min: sizes[0],
        median: sizes[sizes.len() / 2],
        max,
        of_rows,
    })
}

fn sections(job: &str, steps: &[PlannedStep], wide: bool) -> String {
    let mut text = String::new();
    for (index, planned) in steps.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text += &format!("{job}/{}\n", planned.step.name);
        match &planned.cut {
            Cut::Planned { facts, plan, coverage } => text += &section(job, planned, facts, plan, coverage, wide),
            Cut::Later { step } => {
                text += &format!(
                    "  planned when step {step} is published: it reads that output, whose size is not known yet\n"
                );
                if let Some(words) = planned.output.words() {
                    text += &line("output", &words);
                }
            }
            Cut::Impossible { why } => text += &format!("  cannot be planned: {why}\n"),
        }
    }
    text
}

fn line(name: &str, what: &str) -> String {
    format!("  {name:<10} {what}\n")
}

fn section(
    job: &str,
    planned: &PlannedStep,
    facts: &Facts,
    plan: &StepPlan,
    coverage: &Result<String, String>,
    wide: bool,
) -> String {
    let step = &planned.step;
    let mut text = String::new();
    let mut say = |name: &str, what: String| text += &line(name, &what);
    say("source", source_words(facts));
    say("method", format!("{}: {}", plan.method.name(), plan.reason));
    if let Some(exchange) = &plan.exchange {
        let fed = counted(plan.scatter.len() as u64, "scatter partition");
        say(
            "exchange",
            format!("{} fed by {fed}", counted(exchange.buckets.into(), "bucket")),
        );
    }
    say(
        "transform",
        format!("{}: {}", transform_name(&facts.transform.mode), facts.transform.reason),
    );
    say("sink", sink_words(&step.sink, plan.merge));
    if let Some(words) = planned.output.words() {
        say("output", words);
    }
    match coverage {
        Ok(verdict) => say("coverage", verdict.clone()),
        Err(faults) => say(
            "coverage",
            format!("REFUSED: {}", faults.replace('\n', "\n             ")),
        ),
    }
    if let Some(skew) = skew(&plan.execute) {
        say("skew", skew_words(skew));
    }
    for warning in &facts.warnings {
        say("note", warning.clone());
    }
    if wide && !plan.scatter.is_empty() {
        text += "\n  scatter\n";
        text += &table(job, step, facts, &plan.scatter);
        text += "\n  execute\n";
    } else {
        text.push('\n');
    }
    text + &table(job, step, facts, &plan.execute)
}

fn table(job: &str, step: &Step, facts: &Facts, partitions: &[Partition]) -> String {
    let mut table = Table::new(&["PROGRAM", ">PARTITION", ">LOW", ">HIGH", "KEYS", ">~ROWS", ">~BYTES"]);
    for partition in partitions {
        table.row([
            format!("{job}/{}", step.name),
            partition.number.to_string(),
            partition.units.low.to_string(),
            partition.units.high.to_string(),
            keys(facts, partition),
            count(partition.estimate.rows),
            bytes(partition.estimate.bytes),
        ]);
    }
    table.text().lines().map(|line| format!("  {line}\n")).collect()
}

fn keys(facts: &Facts, partition: &Partition) -> String {
    let key_type = facts.sample.as_ref().map(|sample| sample.key_type);
    match (&partition.keys, key_type) {
        (Some(keys), Some(key_type)) => keys.display(key_type),
        // Without a sample only whole numbers are sure to be shown right.
        (Some(keys), None) => keys.display(gapless_common::key::KeyType::Int),
        (None, _) => String::new(),
    }
}

fn source_words(facts: &Facts) -> String {
    let unit = match facts.unit {
        Unit::Byte => "cut by bytes",
        Unit::File => "read file by file",
        Unit::RowGroup => "cut by row groups",
        Unit::Bucket => "cut by buckets",
        Unit::Number => "numbers",
        Unit::Mixed => "each input cut as its format can be",
    };
    let files = match facts.files.len() {
        0 => String::new(),
        files => format!("{}, {}, ", counted(files as u64, "file"), bytes(facts.bytes)),
    };
    let inputs = match facts.inputs.len() {
        0 => String::new(),
        inputs => format!("{inputs} inputs merged, "),
    };
    format!("{inputs}{files}about {}, {unit}", counted(facts.rows, "row"))
}

fn transform_name(mode: &TransformMode) -> String {
    match mode {
        TransformMode::RowWise { expands: false } => "row-wise".to_string(),
        TransformMode::RowWise { expands: true } => "row-wise, may expand".to_string(),
        TransformMode::Whole { keys } if keys.is_empty() => "whole, in one partition".to_string(),
        TransformMode::Whole { keys } => format!("whole, by {}", keys.join(", ")),
    }
}

pub fn sink_words(sink: &Sink, merge: Option<u32>) -> String {
    let (kind, sink) = match sink {
        Sink::Csv(sink) => ("csv", sink),
        Sink::Ndjson(sink) => ("ndjson", sink),
        Sink::Parquet(sink) => ("parquet", sink),
        Sink::Avro(sink) => ("avro", sink),
        Sink::Records(sink) => ("records", &sink.file),
        Sink::Report(sink) => ("report", &sink.file),
        Sink::Discard => return "discard: rows are counted, none is written".to_string(),
    };
    let exists = match sink.exists {
        Exists::Fail => "refused if there is output already",
        Exists::Replace => "replaces what is there",
        Exists::Append => "beside what is there",
    };
    let merged = merge.map_or(String::new(), |files| {
        format!(", merged into {}", counted(files.into(), "file"))
    });
    format!("{kind} {}{merged}; published once, {exists}", sink.path)
}

fn skew_words(skew: Skew) -> String {
    let show = |size| if skew.of_rows { count(size) } else { bytes(size) };
    let unit = if skew.of_rows { " rows" } else { "" };
    format!(
        "min {}, median {}, max {}{unit} a partition (estimates)",
        show(skew.min),
        show(skew.median),
        show(skew.max)
    )
}

/// The partition table alone: program id, stage, partition number, low, high, keys, estimates.
fn csv(job: &str, steps: &[PlannedStep]) -> String {
    let mut text = "program,stage,partition,low,high,keys,estimated_rows,estimated_bytes\n".to_string();
    for PlannedStep { step, cut, .. } in steps {
        let Cut::Planned { facts, plan, .. } = cut else {
            continue;
        };
        for (stage, partitions) in [("scatter", &plan.scatter), ("execute", &plan.execute)] {
            for partition in partitions {
                let program = csv_field(&format!("{job}/{}", step.name));
                let keys = csv_field(&keys(facts, partition));
                text += &format!(
                    "{program},{stage},{},{},{},{keys},{},{}\n",
                    partition.number,
                    partition.units.low,
                    partition.units.high,
                    partition.estimate.rows,
                    partition.estimate.bytes
                );
            }
        }
    }
    text
}

fn csv_field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

#[derive(Serialize)]
struct PlanView<'a> {
    job: &'a str,
    steps: Vec<StepView<'a>>,
}

#[derive(Serialize)]
struct StepView<'a> {
    step: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    planned: Option<PlannedView<'a>>,
}

#[derive(Serialize)]
struct PlannedView<'a> {
    method: &'static str,
    reason: &'a str,
    transform: String,
    transform_reason: &'a str,
    covered: bool,
    coverage: &'a str,
    skew: Option<Skew>,
    rows: u64,
    bytes: u64,
    files: usize,
    buckets: Option<u32>,
    merge: Option<u32>,
    warnings: &'a [String],
    scatter: Vec<PartitionView>,
    partitions: Vec<PartitionView>,
}

#[derive(Serialize)]
struct PartitionView {
    program: String,
    partition: u32,
    low: u64,
    high: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    keys: String,
    estimated_rows: u64,
    estimated_bytes: u64,
}

/// The steps that have to be published before a step can be planned, `first` among them.
fn waits_for<'a>(step: &'a Step, first: &'a str) -> Vec<&'a str> {
    let read = step.source.steps().chain(step.after.iter().map(String::as_str));
    let mut names = vec![first];
    for name in read {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn view<'a>(job: &'a str, steps: &'a [PlannedStep]) -> PlanView<'a> {
    let steps = steps.iter().map(|PlannedStep { step, cut, output }| StepView {
        step: &step.name,
        after: match cut {
            Cut::Later { step: first } => waits_for(step, first),
            Cut::Planned { .. } | Cut::Impossible { .. } => Vec::new(),
        },
        error: match cut {
            Cut::Impossible { why } => Some(why),
            Cut::Planned { .. } | Cut::Later { .. } => match output {
                Target::Refused { why } => Some(why),
                Target::Free | Target::Stands { .. } => None,
            },
        },
        planned: match cut {
            Cut::Planned { facts, plan, coverage } => Some(planned_view(job, step, facts, plan, coverage)),
            Cut::Later { .. } | Cut::Impossible { .. } => None,
        },
    });
    PlanView {
        job,
        steps: steps.collect(),
    }
}

fn planned_view<'a>(
    job: &str,
    step: &Step,
    facts: &'a Facts,
    plan: &'a StepPlan,
    coverage: &'a Result<String, String>,
) -> PlannedView<'a> {
    let rows = |partitions: &[Partition]| {
        let rows = partitions.iter().map(|partition| PartitionView {
            program: format!("{job}/{}", step.name),
            partition: partition.number,
            low: partition.units.low,
            high: partition.units.high,
            keys: keys(facts, partition),
            estimated_rows: partition.estimate.rows,
            estimated_bytes: partition.estimate.bytes,
        });
        rows.collect()
    };
    PlannedView {
        method: plan.method.name(),
        reason: &plan.reason,
        transform: transform_name(&facts.transform.mode),
        transform_reason: &facts.transform.reason,
        covered: coverage.is_ok(),
        coverage: match coverage {
            Ok(words) | Err(words) => words,
        },
        skew: skew(&plan.execute),
        rows: facts.rows,
        bytes: facts.bytes,
        files: facts.files.len(),
        buckets: plan.exchange.as_ref().map(|exchange| exchange.buckets),
        merge: plan.merge,
        warnings: &facts.warnings,
        scatter: rows(&plan.scatter),
        partitions: rows(&plan.execute),
    }
}

#[cfg(test)]
mod tests {
    use gapless_common::{
        job::{Compression, Count, Delimiter, FileSink, OnError, Partition as Way, Partitioning, Source},
        key::{Key, KeyType},
        plan::{BucketFn, Estimate, ExchangePlan, KeySample, Method, PinnedFile, TransformFacts},
        range::{KeyInterval, KeyRange, UnitRange},
    };

    use super::*;

    fn step(name: &str) -> Step {
        Step {
            name: name.into(),
            after: vec![],
            source: Source::Step("none".into()),
            lookups: Default::default(),
            partition: Partitioning {
                method: Way::Auto,
                count: Count::Auto,
            },
            placement: Default::default(),
            checks: vec![],
            sql: None,
            command: None,
            sort: Vec::new(),
            sink: Sink::Parquet(FileSink {
                path: "out/a".into(),
                exists: Exists::Replace,
                compression: Compression::Zstd,
                files: Some(1),
                partition_by: vec![],
                split: None,
                partition_column: None,
                header: true,
                delimiter: Delimiter::COMMA,
                null: String::new(),
                encoding: Default::default(),
                crlf: false,
            }),
            on_error: OnError::default(),
            if_unchanged: Default::default(),
        }
    }

    fn facts() -> Facts {
        Facts {
            unit: Unit::Byte,
            files: vec![PinnedFile {
                path: "a.csv".into(),
                size: 2_000_000,
                etag: String::new(),
                units: 2_000_000,
                rows: None,
            }],
            domain: UnitRange::new(0, 2_000_000),
            columns: vec![],
            output: vec![],
            read_columns: None,
            inputs: Vec::new(),
            transform: TransformFacts {
                mode: TransformMode::RowWise { expands: false },
                reason: "a projection".into(),
            },
            rows: 30_000,
            bytes: 2_000_000,
            sample: Some(KeySample {
                column: "name".into(),
                key_type: KeyType::Text,
                keys: vec![],
                nulls: 0,
                complete: false,
            }),
            warnings: vec!["1 file is empty".into()],
            lookups: vec![],
            standing: None,
        }
    }

    fn partition(number: u32, rows: u64, low: Option<&str>, high: Option<&str>, null: bool) -> Partition {
        let key = |text: Option<&str>| text.map(|text| Key::Text(text.into()));
        Partition {
            number,
            units: UnitRange::new(u64::from(number) * 2, u64::from(number) * 2 + 2),
            keys: Some(KeyRange {
                interval: (!null).then(|| KeyInterval {
                    low: key(low),
                    high: key(high),
                }),
                null,
            }),
            estimate: Estimate { rows, bytes: rows * 66 },
        }
    }

    fn planned(coverage: Result<&str, &str>) -> PlannedStep {
        let scattered = Partition {
            number: 0,
            units: UnitRange::new(0, 2_000_000),
            keys: None,
            estimate: Estimate {
                rows: 30_000,
                bytes: 2_000_000,
            },
        };
        PlannedStep {
            step: step("load"),
            output: Target::Free,
            cut: Cut::Planned {
                facts: Box::new(facts()),
                plan: Box::new(StepPlan {
                    method: Method::KeyRange,
                    reason: "as the job says".into(),
                    exchange: Some(ExchangePlan {
                        function: BucketFn::Hash { columns: vec![] },
                        buckets: 6,
                    }),
                    scatter: vec![scattered],
                    execute: vec![
                        partition(0, 20_000, None, Some("M"), false),
                        partition(1, 10_000, Some("M"), None, false),
                        partition(2, 0, None, None, true),
                    ],
                    merge: Some(1),
                }),
                coverage: coverage.map(str::to_string).map_err(str::to_string),
            },
        }
    }

    fn later() -> PlannedStep {
        PlannedStep {
            step: step("sum"),
            output: Target::Free,
            cut: Cut::Later { step: "load".into() },
        }
    }

    #[test]
    fn a_plan_for_people() {
        let steps = [planned(Ok("complete: 3 partitions tile the keys")), later()];
        let expected = "\
nightly/load
  source     1 file, 2.0 MB, about 30,000 rows, cut by bytes
  method     key_range: as the job says
  exchange   6 buckets fed by 1 scatter partition
  transform  row-wise: a projection
  sink       parquet out/a, merged into 1 file; published once, replaces what is there
  coverage   complete: 3 partitions tile the keys
  skew       min 0, median 10,000, max 20,000 rows a partition (estimates)
  note       1 file is empty

  PROGRAM       PARTITION  LOW  HIGH  KEYS          ~ROWS   ~BYTES
  nightly/load          0    0     2  (-inf, 'M')  20,000   1.3 MB
  nightly/load          1    2     4  ['M', +inf)  10,000 660.0 kB
  nightly/load          2    4     6  NULL              0      0 B

nightly/sum
  planned when step load is published: it reads that output, whose size is not known yet
";
        let text = render("nightly", &steps, PlanFormat::Table).expect("text");
        let blanks = |text: &str| {
            text.lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(blanks(&text), blanks(expected));
        let wide = render("nightly", &steps, PlanFormat::Wide).expect("text");
        assert!(wide.contains("scatter\n  PROGRAM"), "{wide}");
        assert_eq!(verdict(&steps), Ok(()));
    }

    #[test]
    fn a_plan_for_programs() {
        let steps = [planned(Ok("complete")), later()];
        let csv = render("nightly", &steps, PlanFormat::Csv).expect("text");
        assert_eq!(
            csv,
            "program,stage,partition,low,high,keys,estimated_rows,estimated_bytes\n\
             nightly/load,scatter,0,0,2000000,,30000,2000000\n\
             nightly/load,execute,0,0,2,\"(-inf, 'M')\",20000,1320000\n\
             nightly/load,execute,1,2,4,\"['M', +inf)\",10000,660000\n\
             nightly/load,execute,2,4,6,NULL,0,0\n"
        );
        let json = render("nightly", &steps, PlanFormat::Json).expect("text");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["steps"][0]["covered"], true);
        assert_eq!(json["steps"][0]["skew"]["max"], 20_000);
        assert_eq!(json["steps"][0]["partitions"][2]["keys"], "NULL");
        assert_eq!(json["steps"][1]["after"], serde_json::json!(["load", "none"]));
        assert!(json["steps"][1].get("covered").is_none());
    }

    #[test]
    fn a_hole_is_refused_in_the_words_of_the_proof() {
        let steps = [planned(Err(
            "gap ['K', 'M') of column 'name'\nNULL keys are in no range",
        ))];
        let text = render("nightly", &steps, PlanFormat::Table).expect("text");
        assert!(
            text.contains(
                "  coverage   REFUSED: gap ['K', 'M') of column 'name'\n             NULL keys are in no range\n"
            ),
            "{text}"
        );
        let (kind, verdict) = verdict(&steps).expect_err("refused");
        assert_eq!(kind, Kind::Invalid);
        assert!(verdict.starts_with("step load: gap ['K', 'M')"), "{verdict}");
    }

    #[test]
    fn skew_is_of_rows_or_else_of_bytes() {
        let sized = |rows, bytes| Partition {
            estimate: Estimate { rows, bytes },
            ..partition(0, 0, None, None, false)
        };
        let of = |sizes: &[(u64, u64)]| {
            let table: Vec<_> = sizes.iter().map(|(rows, bytes)| sized(*rows, *bytes)).collect();
            skew(&table).map(|skew| (skew.min, skew.median, skew.max, skew.of_rows))
        };
        assert_eq!(of(&[(3, 1), (1, 9), (2, 5)]), Some((1, 2, 3, true)));
        assert_eq!(of(&[(0, 7), (0, 1)]), Some((1, 7, 7, false)));
        assert_eq!(of(&[(0, 0)]), None);
        assert_eq!(of(&[]), None);
    }
}
