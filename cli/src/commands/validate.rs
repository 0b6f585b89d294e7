//! `gapless validate`: checks a job file without touching data, and without a cluster. What only data can tell is
//! said on stderr.

use clap::Args;

use crate::{
    arguments::{JobArguments, OutputArguments},
    failure::{Failure, talk},
    job_file::JobFile,
    local::{self, Sound},
    output::{self, Format},
    wording::counted,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    job: JobArguments,
    /// `json` and `yaml` print the job as it was understood
    #[command(flatten)]
    output: OutputArguments,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let parameters = arguments.job.parameters()?;
    let file = JobFile::read(&arguments.job.file)?;
    let Sound { job, bound, open } = local::check(&file, &parameters)?;
    for line in open {
        talk(format_args!("note: {line}"));
    }
    let text = match arguments.output.output {
        Format::Json => output::json(&job)?,
        Format::Yaml => output::yaml(&job)?,
        Format::Name => format!("{}\n", job.name),
        Format::Table | Format::Wide => {
            let values: String = bound
                .values
                .iter()
                .map(|(name, value)| format!(" {name}={value}"))
                .collect();
            let steps = counted(job.steps.len() as u64, "step");
            format!("{}: job {} is valid: {steps}{values}\n", file.name, job.name)
        }
    };
    output::print(&text)
}
