//! Who did what: an event of the log with the target `gapless::audit`, and a line of JSON in a file
//! where one is named. A line is one write of at most [`AUDIT_LINE`] bytes at the end of the file, so
//! that several coordinators may share it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use gapless_platform::{clock::Clock, tokens::Role};
use serde::Serialize;
use tracing::{error, info, warn};

use crate::limits::{AUDIT_LINE, AUDIT_TEXT};

/// The log target of these events, also for `log_level`.
const TARGET: &str = "gapless::audit";

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// Allowed, but it could not be: no such run, a conflict, a faulty job.
    Refused,
    /// Not let in, or not allowed.
    Denied,
    /// Allowed; the caller left before there was an answer, so it may have been done.
    Unanswered,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Denied => "denied",
            Outcome::Unanswered => "unanswered",
        }
    }
}

/// Who calls, as far as that is known.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    pub peer: Option<SocketAddr>,
    /// Common name of the client's certificate.
    pub certificate: Option<Arc<str>>,
    /// Name of the token.
    pub token: Option<String>,
    pub role: Option<Role>,
}

impl Caller {
    pub fn name(&self) -> &str {
        let name = self.token.as_deref().or(self.certificate.as_deref());
        name.unwrap_or("anonymous")
    }
}

/// What a call is about: the handler, which knows, writes it down here.
#[derive(Clone, Debug, Default)]
pub struct Subject(Arc<Mutex<About>>);

/// Texts that are not known are empty.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub job: String,
    pub run: String,
    pub worker: String,
}

impl Subject {
    /// The slip that belongs to a request, if it is on the record.
    pub fn of<T>(request: &tonic::Request<T>) -> Subject {
        request.extensions().get::<Subject>().cloned().unwrap_or_default()
    }

    pub fn note(&self, write: impl FnOnce(&mut About)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> About {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    who: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
    peer: String,
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    job: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    run: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    worker: &'a str,
    outcome: Outcome,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

/// The record. Clones write to the same file.
#[derive(Clone, Debug)]
pub struct Audit {
    clock: Clock,
    file: Option<Arc<File>>,
}

impl Audit {
    /// Opens the file for appending; made readable by its owner alone.
    pub fn open(file: Option<&Path>, clock: Clock) -> io::Result<Audit> {
        let open = |path| OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = file.map(open).transpose()?.map(Arc::new);
        Ok(Audit { clock, file })
    }

    pub fn tell(&self, caller: &Caller, method: &str, subject: &Subject, outcome: Outcome, reason: &str) {
        let who = cut(caller.name());
        let role = caller.role.map(Role::name);
        let certificate = caller.certificate.as_deref().map(cut);
        let peer = caller.peer.map_or("unknown".to_string(), |peer| peer.to_string());
        let method = cut(method.trim_start_matches('/'));
        let about = subject.read();
        let (job, run, worker) = (cut(&about.job), cut(&about.run), cut(&about.worker));
        let reason = cut(reason);
        let name = outcome.name();
        if outcome == Outcome::Denied {
            warn!(target: TARGET, who, role, certificate, peer, method, job, run, worker, outcome = name, reason, "audit");
        } else {
            info!(target: TARGET, who, role, certificate, peer, method, job, run, worker, outcome = name, reason, "audit");
        }
        let line = Line {
            at: time(self.clock.now_micros()),
            who,
            role,
            certificate,
            peer,
            method,
            job,
            run,
            worker,
            outcome,
            reason,
        };
        if let Err(error) = self.append(&line) {
            error!(target: TARGET, %error, "the audit file cannot be written; the log has what it lacks");
        }
    }

    fn append(&self, line: &Line<'_>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        debug_assert!(text.len() <= AUDIT_LINE);
        file.as_ref().write_all(&text)
    }
}

/// A call on the record: told when it is answered, or when it is given up.
pub struct Record {
    pub audit: Audit,
    pub caller: Caller,
    pub method: String,
    pub subject: Subject,
    told: bool,
}

impl Record {
    pub fn new(audit: Audit, caller: Caller, method: String) -> Record {
        Record {
            audit,
            caller,
            method,
            subject: Subject::default(),
            told: false,
        }
    }

    pub fn tell(mut self, outcome: Outcome, reason: &str) {
        self.told = true;
        self.audit
            .tell(&self.caller, &self.method, &self.subject, outcome, reason);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.told {
            let outcome = Outcome::Unanswered;
            self.audit
                .tell(&self.caller, &self.method, &self.subject, outcome, "the caller left");
        }
    }
}

/// Microseconds since the epoch as RFC 3339.
fn time(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// At most so many bytes, at the border of a sign.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(AUDIT_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_did_what_and_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(Some(&path), Clock::manual(1_795_171_200_000_001)).expect("opened");
        let caller = Caller {
            peer: Some(([127, 0, 0, 1], 4711).into()),
            certificate: Some("client".into()),
            token: Some("alice".to_string()),
            role: Some(Role::Submit),
        };
        let subject = Subject::default();
        subject.note(|about| about.run = "run-1".to_string());
        audit.tell(&caller, "/gapless.v1.Jobs/CancelRun", &subject, Outcome::Denied, "no");
        // Each sign of this takes six bytes in JSON, which is the worst there is.
        let long = "\u{1}".repeat(1_000_000);
        let stranger = Caller {
            token: Some(long.clone()),
            certificate: Some(long.as_str().into()),
            ..caller
        };
        let subject = Subject::default();
        subject.note(|about| {
            *about = About {
                job: long.clone(),
                run: long.clone(),
                worker: long.clone(),
            }
        });
        audit.tell(&stranger, &long, &subject, Outcome::Done, &long);
        Record::new(audit, Caller::default(), "/m".to_string());

        let text = std::fs::read_to_string(&path).expect("written");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"at":"2026-11-20T10:40:00.000001Z","who":"alice","role":"submit","certificate":"client","peer":"127.0.0.1:4711","method":"gapless.v1.Jobs/CancelRun","run":"run-1","outcome":"denied","reason":"no"}"#
        );
        assert!(lines[1].len() < AUDIT_LINE, "{} bytes", lines[1].len());
        assert!(lines[2].contains(r#""who":"anonymous","peer":"unknown","method":"m","outcome":"unanswered""#));
        assert_eq!(lines.len(), 3);
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
