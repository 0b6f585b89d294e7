//! `gapless tls init`: an authority and certificates for coordinator, worker and client, for trying
//! out. A company's own authority does as well.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::{
    app::App,
    failure::{Failure, Kind, talk},
    output,
};

/// Clocks of machines differ: a certificate is good a little before it was made.
const BACKDATED: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_DAYS: u32 = 365;
const MAX_DAYS: u32 = 3650;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an authority and certificates for a coordinator, a worker and a client
    Init(Init),
}

#[derive(Debug, Args)]
struct Init {
    /// Folder for the files; made where it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Name or address under which the coordinator is reached; may be given many times.
    /// localhost, 127.0.0.1 and ::1 are always there
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// How long all of it is good
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    days: u32,
}

pub fn run(arguments: Arguments, app: &App) -> Result<(), Failure> {
    let Verb::Init(init) = arguments.verb;
    let now = u64::try_from(app.clock.now_micros()).unwrap_or(0);
    let made = make(&init, Duration::from_micros(now)).map_err(|error| match error {
        rcgen::Error::InvalidAsn1String(_) => {
            Failure::usage(format!("--host {:?}: names are written in ASCII", init.hosts))
        }
        error => Failure::failed(format!("the certificates cannot be made: {error}")),
    })?;
    let there = made.iter().map(|file| init.folder.join(file.name));
    if let Some(there) = there.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        let message = format!(
            "{} is there already, and nothing is overwritten; give another folder, or remove it",
            there.display()
        );
        return Err(Failure::new(Kind::Conflict, message));
    }
    let mut listed = String::new();
    make_folder(&init.folder)?;
    for file in &made {
        let path = init.folder.join(file.name);
        write(&path, &file.pem, if file.secret { 0o600 } else { 0o644 })?;
        listed.push_str(&format!("{}\n", path.display()));
    }
    output::print(&listed)?;
    let folder = init.folder.display();
    talk(format_args!(
        "Good for {} days. ca.key makes more certificates: keep it off the machines of the cluster.\n\
         gapless coordinator --tls-ca {folder}/ca.pem --tls-cert {folder}/coordinator.pem --tls-key {folder}/coordinator.key\n\
         gapless worker      --tls-ca {folder}/ca.pem --tls-cert {folder}/worker.pem --tls-key {folder}/worker.key\n\
         gapless list        --tls-ca {folder}/ca.pem --tls-cert {folder}/client.pem --tls-key {folder}/client.key",
        init.days
    ));
    Ok(())
}

struct Made {
    name: &'static str,
    pem: String,
    secret: bool,
}

fn make(init: &Init, now: Duration) -> Result<Vec<Made>, rcgen::Error> {
    let dated = |mut params: CertificateParams| {
        params.not_before = (UNIX_EPOCH + now.saturating_sub(BACKDATED)).into();
        params.not_after = (UNIX_EPOCH + now + DAY * init.days).into();
        params
    };
    let mut authority = dated(CertificateParams::new(Vec::new())?);
    authority
        .distinguished_name
        .push(DnType::CommonName, "Gapless authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let mut made = pair(
        ["ca.pem", "ca.key"],
        authority.self_signed(&authority_key)?.pem(),
        &authority_key,
    );
    let issuer = Issuer::new(authority, authority_key);

    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_string);
    let hosts: BTreeSet<String> = own.into_iter().chain(init.hosts.iter().cloned()).collect();
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    for (names, hosts, usages) in [
        // A coordinator is also a client: of etcd, and of other coordinators.
        (
            ["coordinator.pem", "coordinator.key"],
            Vec::from_iter(hosts),
            vec![server, client.clone()],
        ),
        (["worker.pem", "worker.key"], Vec::new(), vec![client.clone()]),
        (["client.pem", "client.key"], Vec::new(), vec![client]),
    ] {
        let mut params = dated(CertificateParams::new(hosts)?);
        let name = names[0].trim_end_matches(".pem");
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        made.extend(pair(names, params.signed_by(&key, &issuer)?.pem(), &key));
    }
    Ok(made)
}

fn pair(names: [&'static str; 2], certificate: String, key: &KeyPair) -> Vec<Made> {
    let [certificate_name, key_name] = names;
    vec![
        Made {
            name: certificate_name,
            pem: certificate,
            secret: false,
        },
        Made {
            name: key_name,
            pem: key.serialize_pem(),
            secret: true,
        },
    ]
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::failed(format!("cannot make {}: {error}", path.display())))
}

/// A new file with these rights from its first moment on.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}
