//! `gapless verify`: reads the source and the output again and says whether the certificates still hold.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use crate::{
    app::App,
    arguments::TargetArguments,
    client::Client,
    failure::{Failure, Kind, talk},
    local::{self, Difference, Unread},
    output::{self, Format, Table},
    wording::count,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// A run: its id, a unique beginning of its id, or a job's name for the newest run of it
    #[arg(
        value_name = "RUN",
        required_unless_present = "certificate",
        conflicts_with = "certificate"
    )]
    run: Option<String>,
    /// Check this certificate, or that of this output folder, without a cluster
    #[arg(long, value_name = "PATH")]
    certificate: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArguments,
    /// Form of the result
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Format::Table)]
    output: Format,
}

const NO_RECORD: &str = "no record of the publication lies beside the output, so its files were not compared";

/// What was found about one certificate.
#[derive(Serialize)]
struct Finding {
    step: String,
    certificate: String,
    holds: bool,
    records: u64,
    differences: Vec<String>,
    /// The same as `differences`, in parts.
    details: Vec<Difference>,
    /// Worth a word, while the certificate holds.
    notices: Vec<String>,
    /// Files that the job's paths match by now and the run did not read.
    unread: Vec<Unread>,
}

pub async fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let certificates = match (&arguments.certificate, &arguments.run) {
        (Some(path), _) if path.is_dir() => of_output(path)?,
        (Some(path), _) if local::is_object(path) && path.extension().is_none_or(|end| end != "json") => {
            of_object_output(path)?
        }
        (Some(path), _) => vec![path.clone()],
        (None, Some(run)) => published(run, &arguments.target, app).await?,
        (None, None) => return Err(Failure::usage("name a run, or a certificate with --certificate")),
    };
    let mut findings = Vec::new();
    for path in &certificates {
        let certificate = local::certificate_at(path)?;
        let found = local::verify(&certificate)?;
        let unknown = found.output_unknown.then(|| NO_RECORD.to_string());
        findings.push(Finding {
            step: certificate.step_name,
            certificate: path.display().to_string(),
            holds: found.differences.is_empty(),
            records: found.records,
            differences: found.differences.iter().map(ToString::to_string).collect(),
            details: found.differences,
            notices: found.unread.iter().map(ToString::to_string).chain(unknown).collect(),
            unread: found.unread,
        });
    }
    output::print(&show(&findings, arguments.output)?)?;
    verdict(&findings)
}

/// The certificates that lie in an output folder, in the order of their names.
fn of_output(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let certificates = folder.join("_gapless");
    let listed = fs::read_dir(&certificates).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let listed = listed.map_err(|error| {
        let message = format!(
            "cannot list {}: {error}; is {} an output?",
            certificates.display(),
            folder.display()
        );
        Failure::new(Kind::NotFound, message)
    })?;
    let mut paths: Vec<PathBuf> = listed
        .iter()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("certificate-"))
        .map(fs::DirEntry::path)
        .collect();
    paths.sort_unstable();
    match paths.is_empty() {
        true => Err(Failure::new(
            Kind::NotFound,
            format!("no certificate in {}", certificates.display()),
        )),
        false => Ok(paths),
    }
}

/// The same for an output in an object store.
fn of_object_output(output: &Path) -> Result<Vec<PathBuf>, Failure> {
    let certificates = output.join("_gapless");
    let names = local::object_names(&certificates)?;
    let ours = names.iter().filter(|name| name.starts_with("certificate-"));
    let paths: Vec<PathBuf> = ours.map(|name| certificates.join(name)).collect();
    match paths.is_empty() {
        true => Err(Failure::new(
            Kind::NotFound,
            format!("no certificate in {}", certificates.display()),
        )),
        false => Ok(paths),
    }
}

/// The certificates that a run has published.
async fn published(run: &str, target: &TargetArguments, app: &App) -> Result<Vec<PathBuf>, Failure> {
    let mut client = Client::open(target, app).await?;
    let run = client.get(run).await?;
    client.close().await?;
    let published = run.steps.iter().filter(|step| !step.certificate.is_empty());
    let certificates: Vec<_> = published.map(|step| PathBuf::from(&step.certificate)).collect();
    if certificates.is_empty() {
        let message = format!(
            "run {} has published nothing, so there is no certificate to verify",
            run.id
        );
        return Err(Failure::new(Kind::NotFound, message));
    }
    Ok(certificates)
}

fn show(findings: &[Finding], format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => output::json(&findings),
        Format::Yaml => output::yaml(&findings),
        Format::Name => {
            let broken = findings.iter().filter(|finding| !finding.holds);
            Ok(broken.map(|finding| format!("{}\n", finding.step)).collect())
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["STEP", "CERTIFICATE", ">RECORDS", "FILE"]);
            for finding in findings {
                let holds = if finding.holds { "holds" } else { "BROKEN" };
                table.row([
                    finding.step.clone(),
                    holds.to_string(),
                    count(finding.records),
                    finding.certificate.clone(),
                ]);
            }
            Ok(table.text())
        }
    }
}

fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings {
        for notice in &finding.notices {
            talk(format_args!("{}: {notice}", finding.step));
        }
    }
    let broken: Vec<_> = findings.iter().filter(|finding| !finding.holds).collect();
    for finding in &broken {
        for difference in &finding.differences {
            talk(format_args!("{}: {difference}", finding.step));
        }
    }
    match broken.len() {
        0 => Ok(()),
        some => Err(Failure::failed(format!(
            "{some} of {} certificates do not hold: source, look-ups or output are not what they were",
            findings.len()
        ))),
    }
}
