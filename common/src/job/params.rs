//! Parameters of a run: typed values, put into the job; and the identity that they give the run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::key::days_from_civil;

use super::{
    Job, Parameter, ParameterType, ParsedJob, Redrive,
    error::{Faults, JobErrors, Position, shown},
    parse::read_job,
};

/// A value travels in rows, file names and messages.
const MAX_VALUE_BYTES: usize = 1024;

/// The values of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundParameters {
    /// Every parameter of the job in its canonical text: `007` of an int64 is `7`.
    pub values: BTreeMap<String, String>,
    /// A digest of the job's name and its identifying parameters. Equal for submits that mean the
    /// same run, however the values were written. 32 hex digits.
    pub identity: String,
    /// A digest of the job's text. 32 hex digits.
    pub version: String,
}

impl ParsedJob {
    /// Puts values into the job. Errors stand at the place in the file that they are about; those
    /// of a value at the declaration of its parameter.
    pub fn bind(&self, given: &BTreeMap<String, String>) -> Result<(Job, BoundParameters), JobErrors> {
        let faults = Faults::new(&self.file_name);
        let values = self.values(given, &faults);
        if !faults.is_empty() {
            return Err(faults.into_errors());
        }
        let job = read_job(&self.root, self.redrive.as_ref(), &faults, Some(&values)).and_then(|(_, _, job)| job);
        if job.is_none() && faults.is_empty() {
            faults.add(Position::START, "the job could not be bound", "");
        }
        let job = faults.finish(job)?;
        let bound = BoundParameters {
            identity: identity(self.name(), self.parameters(), &values, job.redrive.as_ref()),
            version: self.version().to_string(),
            values,
        };
        Ok((job, bound))
    }

    fn values(&self, given: &BTreeMap<String, String>, faults: &Faults) -> BTreeMap<String, String> {
        let at = self
            .root
            .get("parameters")
            .map_or(Position::START, |entry| entry.key_at);
        for name in given.keys().filter(|name| !self.parameters().contains_key(*name)) {
            let found = format!("unknown parameter `{}` was given", shown(name));
            match self.parameters().is_empty() {
                true => faults.add(at, found, "none; this job has no parameters"),
                false => faults.unknown(at, found, name, self.parameters().keys().map(String::as_str)),
            }
        }
        let mut values = BTreeMap::new();
        for (name, parameter) in self.parameters() {
            let declared = self.root.get("parameters").and_then(|entry| entry.value.get(name));
            let at = declared.map_or(at, |entry| entry.key_at);
            match (given.get(name), &parameter.default) {
                (Some(text), _) => match canonical(parameter.ty, text) {
                    Ok(value) => {
                        values.insert(name.clone(), value);
                    }
                    Err(allowed) => faults.add(at, format!("parameter `{name}` is {}", quoted(text)), allowed),
                },
                (None, Some(default)) => {
                    values.insert(name.clone(), default.clone());
                }
                (None, None) => faults.add(
                    at,
                    format!("parameter `{name}` was not given and has no default"),
                    format!("-p {name}=VALUE with {}", allowed(parameter.ty)),
                ),
            }
        }
        values
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// The one text of a value, or what is allowed.
pub(super) fn canonical(ty: ParameterType, text: &str) -> Result<String, String> {
    let value = match ty {
        _ if text.len() > MAX_VALUE_BYTES => return Err(format!("at most {MAX_VALUE_BYTES} bytes")),
        ParameterType::String => Some(text.to_string()),
        ParameterType::Int64 => text.parse::<i64>().ok().map(|value| value.to_string()),
        ParameterType::Float64 => match text.parse::<f64>() {
            // Adding zero makes one of both zeros.
            Ok(value) if value.is_finite() => Some((value + 0.0).to_string()),
            _ => None,
        },
        ParameterType::Bool => matches!(text, "true" | "false").then(|| text.to_string()),
        ParameterType::Date => is_date(text).then(|| text.to_string()),
        ParameterType::Timestamp => timestamp(text),
    };
    value.ok_or_else(|| allowed(ty).to_string())
}

fn allowed(ty: ParameterType) -> &'static str {
    match ty {
        ParameterType::String => "text",
        ParameterType::Int64 => "a whole number of 64 bits",
        ParameterType::Float64 => "a finite number",
        ParameterType::Bool => "true, false",
        ParameterType::Date => "a date like 2026-11-20",
        ParameterType::Timestamp => "a time in UTC like 2026-11-20T07:30:00 or 2026-11-20T07:30:00.250",
    }
}

/// `YYYY-MM-DD`, a day that exists.
fn is_date(text: &str) -> bool {
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else {
        return false;
    };
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' || !(1..=12).contains(&month) || day == 0 {
        return false;
    }
    let first = days_from_civil(i64::from(year), month, 1);
    let next = match month {
        12 => days_from_civil(i64::from(year) + 1, 1, 1),
        _ => days_from_civil(i64::from(year), month + 1, 1),
    };
    i64::from(day) <= next - first
}

/// `YYYY-MM-DDTHH:MM:SS` with up to six digits of a fraction, shown with six or none. A space may
/// stand for the T, and a Z may follow.
fn timestamp(text: &str) -> Option<String> {
    let (date, clock) = (text.get(..10)?, text.get(11..)?);
    if !is_date(date) || !matches!(text.as_bytes().get(10), Some(b'T' | b' ')) {
        return None;
    }
    let clock = clock.strip_suffix('Z').unwrap_or(clock);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts: Vec<&str> = clock.split(':').collect();
    let below = |part: &str, limit: u8| {
        part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()) && part.parse().is_ok_and(|n: u8| n < limit)
    };
    let [hour, minute, second] = parts[..] else {
        return None;
    };
    let whole = below(hour, 24) && below(minute, 60) && below(second, 60);
    let sound = !fraction.is_empty() && fraction.len() <= 6 && fraction.bytes().all(|b| b.is_ascii_digit());
    match (whole && sound, fraction.trim_end_matches('0')) {
        (false, _) => None,
        (true, "") => Some(format!("{date}T{clock}")),
        (true, fraction) => Some(format!("{date}T{clock}.{fraction:0<6}")),
    }
}

/// XXH3-128 over name and value of each identifying parameter in the order of their names,
/// after the job's name, and which redrive it is; every text goes with its length, so that no two lists run
/// together.
fn identity(
    job: &str,
    parameters: &BTreeMap<String, Parameter>,
    values: &BTreeMap<String, String>,
    redrive: Option<&Redrive>,
) -> String {
    let mut hasher = Xxh3::new();
    let mut put = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    put("gapless run 1");
    put(job);
    for (name, _) in parameters.iter().filter(|(_, parameter)| parameter.identifying) {
        put(name);
        put(values.get(name).map_or("", String::as_str));
    }
    if let Some(redrive) = redrive {
        // No parameter has a name with a sign.
        put(&format!("+redrive-{}", redrive.number));
        put(&redrive.step);
    }
    format!("{:032x}", hasher.digest128())
}
