//! `gapless rejects`: the quarantined records of a run, for people, for programs, or to keep.
//!
//! They are read where the output lies, as `verify` reads certificates: no record passes a coordinator.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gapless_proto::v1::{Run, StepStatus};

use super::redrive::is_void;
use crate::{
    app::App,
    arguments::{RunArgument, TargetArguments},
    client::Client,
    failure::{Failure, Kind, talk},
    local::{self, Rejected},
    output::{self, Table},
    wording::{count, short},
};

/// So much of a record and of a reason is shown in a table.
const SHOWN: usize = 60;
/// Rows of a table, unless more are asked for.
const PAGE: u64 = 50;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgument,
    /// Only those of this step
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// At most so many records [default: 50 in a table, all as JSON or Parquet]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Keep them in this Parquet file, which must not exist
    #[arg(long, value_name = "FILE.parquet", conflicts_with = "output")]
    to: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArguments,
    /// Form of the result
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Form::Table)]
    output: Form,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A page of them, cut to the width of a line
    Table,
    /// One object a line, whole
    Json,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let mut client = Client::open(&arguments.target, app).await?;
    let named = named_run(&mut client, &arguments.run.run).await?;
    let run = client.get(&named.id).await?;
    client.close().await?;
    let steps = steps(&run, arguments.step.as_deref())?;
    match (&arguments.to, arguments.output) {
        (Some(path), _) => {
            let mut file = local::RejectsFile::create(path)?;
            each(&steps, arguments.limit, &mut |step, record| file.write(step, record))?;
            let rows = file.finish()?;
            talk(format_args!(
                "{} in {}",
                match rows {
                    1 => "1 rejected record is".to_string(),
                    rows => format!("{} rejected records are", count(rows)),
                },
                path.display()
            ));
            Ok(())
        }
        (None, Form::Json) => each(&steps, arguments.limit, &mut |step, record| {
            output::print(&output::json_line(&local::named(step, &record))?)
        }),
        (None, Form::Table) => table(&steps, arguments.limit.unwrap_or(PAGE), &named),
    }
}

/// Runs that are looked through for the one that a skipped run stands for.
const LOOKED_THROUGH: u32 = 100;

/// The run that a word of the command line names.
pub struct NamedRun {
    pub id: String,
    /// How others are named; empty where the word was a run's id.
    pub others: String,
}

/// A job's name is the newest run of it that did something: one whose steps were all skipped, as nothing had changed, is
/// the run whose output it left standing, and a redrive that failed has left its records to the run before it.
pub async fn named_run(client: &mut Client, word: &str) -> Result<NamedRun, Failure> {
    let newest = client.get(word).await?;
    if newest.id.starts_with(word) || newest.job != word {
        return Ok(NamedRun {
            id: newest.id,
            others: String::new(),
        });
    }
    let runs = client.list(word, LOOKED_THROUGH).await?;
    let id = newest.id;
    let mut newest = client.get_with_job(&id).await?;
    // Newest first.
    let mut earlier = runs.iter().skip_while(|run| run.id != id).skip(1);
    while is_void(&newest)
        && let Some(run) = earlier.next()
    {
        newest = client.get_with_job(&run.id).await?;
    }
    let run = runs.iter().rev().find(|run| has_certificates(run, &newest));
    Ok(NamedRun {
        id: run.unwrap_or(&newest).id.clone(),
        others: format!(
            ". `{word}` names the newest run; `gapless list {word}{}` shows the others, which go by their ids",
            client.target()
        ),
    })
}

/// Whether all steps of two runs have the same certificates.
fn has_certificates(run: &Run, other: &Run) -> bool {
    let same =
        |(one, two): (&StepStatus, &StepStatus)| !one.certificate.is_empty() && one.certificate == two.certificate;
    run.steps.len() == other.steps.len() && run.steps.iter().zip(&other.steps).all(same)
}

/// The steps that may have rejected records.
pub fn steps<'a>(run: &'a Run, wanted: Option<&str>) -> Result<Vec<&'a StepStatus>, Failure> {
    let steps: Vec<_> = run
        .steps
        .iter()
        .filter(|step| wanted.is_none_or(|name| step.name == name))
        .collect();
    if let (Some(name), true) = (wanted, steps.is_empty()) {
        let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
        let message = format!(
            "run {} of {} has no step {name}; it has {}",
            short(&run.id),
            run.job,
            names.join(", ")
        );
        return Err(Failure::new(Kind::NotFound, message));
    }
    Ok(steps.into_iter().filter(|step| !step.rejects.is_empty()).collect())
}

fn each(
    steps: &[&StepStatus],
    limit: Option<u64>,
    visit: &mut dyn FnMut(&str, Rejected) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(u64::MAX);
    for step in steps {
        local::rejects(&step.rejects, &step.certificate, &mut |record| {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            visit(&step.name, record)?;
            Ok(true)
        })?;
    }
    Ok(())
}

fn table(steps: &[&StepStatus], limit: u64, named: &NamedRun) -> Result<(), Failure> {
    let mut table = Table::new(&["STEP", "FILE", ">LINE", "RULE", "REASON", "RECORD"]);
    let mut shown = 0;
    // One more than is shown tells whether there are more.
    each(steps, Some(limit.saturating_add(1)), &mut |step, record| {
        shown += 1;
        if shown > limit {
            return Ok(());
        }
        let place = record.reject.place;
        let row = place.row.map(|row| match place.block {
            Some(block) => format!("row {row} of block {block}"),
            None => format!("row {row}"),
        });
        table.row([
            step.to_string(),
            place.file,
            place.line.map(|line| line.to_string()).or(row).unwrap_or_default(),
            record.reject.rule,
            cut(&record.reject.reason),
            cut(&place.raw),
        ]);
        Ok(())
    })?;
    if shown == 0 {
        talk(format_args!(
            "no records were rejected by run {}{}",
            short(&named.id),
            named.others
        ));
        return Ok(());
    }
    output::print(&table.text())?;
    if shown > limit {
        talk(format_args!(
            "these are the first {}; --limit shows more, -o json and --to give all",
            count(limit)
        ));
    }
    Ok(())
}

fn cut(text: &str) -> String {
    let line: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match text.chars().nth(SHOWN) {
        Some(_) => line + "…",
        None => line,
    }
}
