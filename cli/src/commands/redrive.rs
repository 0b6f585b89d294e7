//! `gapless redrive`: does a step again over the records that it had rejected, and adds to its output.
//!
//! The new run is the same job, its text as it is, and beside it what the redrive is of: what is resumed and what
//! conflicts is decided as for any other run. The records themselves never pass a coordinator.

use std::path::{Path, PathBuf};

use clap::Args;
use gapless_common::job::ColumnType;
use gapless_platform::config::{Origin, Setting};
use gapless_proto::v1::{Run, RunState, StepStatus};
use serde_json::json;

use super::{
    rejects::{named_run, steps},
    run::{Whole, do_here},
};
use crate::{
    app::{App, Flags, flag},
    arguments::{OutputArguments, RunArgument, TargetArguments, TimeoutArgument},
    client::{Client, Submitted},
    failure::{Failure, Kind, talk},
    follow::{Manner, follow},
    job_file::JobFile,
    local::{self, InputRecords, RedriveRecords},
    view,
    wording::{counted, short, word},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgument,
    /// Do again the records that the run rejected: what else there may be to redrive is done by submitting again
    #[arg(long, required = true)]
    rejects: bool,
    /// The step, where more than one has rejected records
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Take the records from here: `gapless rejects -o json` corrected, a corrected copy of the source
    /// file, or a folder of such copies [default: as they were rejected]
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// A mended job file, in place of the one that the run was made of
    #[arg(long, value_name = "JOB.yaml")]
    job: Option<PathBuf>,
    #[command(flatten)]
    timeout: TimeoutArgument,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    output: OutputArguments,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    debug_assert!(arguments.rejects, "clap asks for it");
    let mut client = Client::open(&arguments.target, app).await?;
    let named = named_run(&mut client, &arguments.run.run).await?;
    let found = client.get_with_job(&named.id).await?;
    let step = the_step(&found, arguments.step.as_deref(), &named.others, client.target())?;
    let job = mended(&found, arguments.job.as_deref())?;
    let parameters = found.parameters.clone().into_iter().collect();
    // What the file itself says of the source: a redrive that the run may have been says something else.
    let written = match &arguments.job {
        Some(_) => Some(local::bind(&plain(&job), &parameters)?.0),
        None => None,
    };
    let from = arguments.from.as_deref();
    let records = local::prepare_redrive(&step.rejects, &step.certificate, from, written.as_ref())?;
    let number = local::bind(&job, &parameters)?
        .0
        .redrive
        .map_or(0, |before| before.number)
        + 1;
    let job = with_redrive(job, &step.name, number, &records);
    local::bind(&job, &parameters)?;
    talk(format_args!(
        "redrive {number} of step {}: {}",
        step.name,
        counted(records.count as u64, "record")
    ));
    let again = again(&arguments, app);
    let manner = Manner {
        format: arguments.output.output,
        timeout: arguments.timeout.timeout,
        stream: false,
        embedded: arguments.target.state.is_some(),
        workers: None,
    };
    // A store in a folder is of one process at a time: that which has it open does the work.
    if let Some(state) = &arguments.target.state
        && client.owns_store()
    {
        client.close().await?;
        let config = settings(state, app)?;
        let whole = Whole {
            job: &job,
            parameters: &parameters,
            workers: 1,
            again: &again,
            redrive: Some(number),
        };
        return do_here(whole, config, manner, app).await;
    }
    let run = match client.submit(&job, &parameters, None).await? {
        Submitted::Accepted { run, .. } => run,
        Submitted::Exists { run } => return Err(conflict(&mut client, &run, number).await),
    };
    talk(format_args!("run {}", short(&run)));
    follow(&mut client, &run, manner, &again, app).await?;
    client.close().await
}

/// Whether a run is a redrive that has ended and added nothing: what it read is still to be redriven.
pub(super) fn is_void(run: &Run) -> bool {
    let published = run.steps.iter().any(|step| !step.certificate.is_empty());
    view::has_ended(run) && !published && !run.redrive.is_empty()
}

/// The command that goes on with a redrive.
fn again(arguments: &Arguments, app: &App) -> String {
    let mut again = format!("gapless redrive {} --rejects", arguments.run.run);
    let given = [
        ("--step", arguments.step.clone()),
        ("--from", arguments.from.as_ref().map(|path| path.display().to_string())),
        ("--job", arguments.job.as_ref().map(|path| path.display().to_string())),
        (
            "--state",
            arguments.target.state.as_ref().map(|path| path.display().to_string()),
        ),
        ("--endpoint", arguments.target.endpoint.clone()),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            again += &format!(" {name} {}", word(&value));
        }
    }
    again + &arguments.target.access.words() + &app.words()
}

/// The published step with rejected records.
fn the_step(run: &Run, wanted: Option<&str>, others: &str, target: &str) -> Result<StepStatus, Failure> {
    let id = short(&run.id);
    let rejected = |step: &&StepStatus| step.counters.is_some_and(|counters| counters.rejected > 0);
    let steps: Vec<_> = steps(run, wanted)?.into_iter().filter(rejected).collect();
    match steps.as_slice() {
        [] if run.state() == RunState::Completed || wanted.is_some() => {
            let what = wanted.map_or("the run".to_string(), |step| format!("step {step}"));
            let message = format!("{what} has rejected no records: there is nothing to redrive (run {id}){others}");
            Err(Failure::new(Kind::NotFound, message))
        }
        [step] if !step.certificate.is_empty() => Ok((*step).clone()),
        [] | [_] => Err(Failure::new(
            Kind::Conflict,
            format!(
                "run {id} is {}: what it rejected is not published, so there is nothing to add to. Mend the data or the \
                 job and submit it again; `gapless rejects {id}{target}` shows the records{others}",
                view::state_name(run)
            ),
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|step| step.name.as_str()).collect();
            let message = format!("{} have rejected records: choose one with --step", names.join(", "));
            Err(Failure::usage(message))
        }
    }
}

/// The job to be done: the run's own text, or the mended file.
fn mended(run: &Run, file: Option<&Path>) -> Result<JobFile, Failure> {
    let own = JobFile {
        name: run.file_name.clone(),
        text: run.job_text.clone(),
        redrive: run.redrive.clone(),
        base_dir: run.base_dir.clone(),
    };
    match file {
        None => Ok(own),
        // It may be a redrive already: that is told by the run, never by the file.
        Some(path) => Ok(JobFile {
            redrive: own.redrive,
            base_dir: own.base_dir,
            ..JobFile::read(path)?
        }),
    }
}

fn plain(job: &JobFile) -> JobFile {
    JobFile {
        redrive: String::new(),
        ..job.clone()
    }
}

/// Objects are written by hand: columns have an order.
fn with_redrive(job: JobFile, step: &str, number: u32, records: &RedriveRecords) -> JobFile {
    let mut members = vec![member("step", json!(step)), member("number", json!(number))];
    match records.of_merge {
        false => members.extend(records.inputs.iter().flat_map(input)),
        true => {
            let inputs = records.inputs.iter().map(|of| object(input(of)));
            members.push(member("inputs", format!("[{}]", inputs.collect::<Vec<_>>().join(", "))));
            if let Some(names) = &records.read_columns {
                let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
                members.push(member("read_columns", json!(names)));
            }
        }
    }
    if !records.lookups.is_empty() {
        let lookups = records.lookups.iter().map(|(name, paths)| {
            let paths: Vec<String> = paths.iter().map(|path| literal(path)).collect();
            member(name, json!({"path": paths}))
        });
        members.push(member("lookups", object(lookups.collect())));
    }
    JobFile {
        redrive: object(members),
        ..job
    }
}

fn input(input: &InputRecords) -> Vec<String> {
    let path = |path: &Path| json!(literal(&path.display().to_string()));
    let mut members = vec![
        member("records", path(&input.records)),
        member("places", path(&input.places)),
    ];
    if !input.columns.is_empty() {
        let columns = input.columns.iter();
        let columns = columns.map(|(name, ty)| member(name, json!(type_name(*ty))));
        members.push(member("columns", object(columns.collect())));
    }
    members
}

fn member(name: &str, json: impl std::fmt::Display) -> String {
    format!("{}: {json}", json!(name))
}

fn object(members: Vec<String>) -> String {
    format!("{{{}}}", members.join(", "))
}

/// Text in which nothing is a placeholder.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

fn type_name(ty: ColumnType) -> String {
    match ty {
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        // The model's names are those of the language.
        other => match serde_json::to_value(other) {
            Ok(serde_json::Value::String(name)) => name,
            _ => "string".to_string(),
        },
    }
}

fn settings(state: &Path, app: &App) -> Result<gapless_platform::config::Config, Failure> {
    let mut flags = Flags::new();
    flag(&mut flags, Setting::StateDir, Some(state.display()));
    let mut config = app.config(flags)?;
    if *config.origin(Setting::Scratch) == Origin::Default {
        config.scratch = config.state_dir.join("scratch");
    }
    Ok(config)
}

async fn conflict(client: &mut Client, run: &str, number: u32) -> Failure {
    let (id, target) = (short(run), client.target().to_string());
    let message = match client.get(run).await {
        Ok(found) if view::has_ended(&found) => redriven(id, number, &target),
        Ok(found) => format!(
            "redrive {number} is {} already: run {id}. `gapless watch {id}{target}` follows it.",
            view::state_name(&found)
        ),
        Err(_) => format!("redrive {number} is running or complete: run {id}"),
    };
    Failure::new(Kind::Conflict, message)
}

/// Why records are not redriven a second time.
pub fn redriven(id: &str, number: u32, target: &str) -> String {
    format!(
        "these records were redriven already: redrive {number} is run {id}, and each is done once. What that one \
         rejected again can be redriven: `gapless redrive {id} --rejects{target}`"
    )
}
