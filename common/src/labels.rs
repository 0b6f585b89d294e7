//! Labels: what a worker says of itself, and what a step asks of the workers that may take its tasks.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Labels of one worker, or of one step: they stand in a row of each session.
pub const MAX_LABELS: usize = 32;
/// Bytes of a name and of a value.
pub const MAX_LABEL_BYTES: usize = 64;

/// Names with a value each, such as `gpu=yes,zone=a`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

/// What cannot be a set of labels, and what can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("`{0}` is no label: write NAME=VALUE, such as zone=a")]
    Form(String),
    #[error(
        "`{0}` in a label: names and values are letters, digits, `_`, `-`, `.` and `/`, at most {MAX_LABEL_BYTES} bytes, and not empty"
    )]
    Word(String),
    #[error("the label `{0}` stands twice")]
    Twice(String),
    #[error("{0} labels; at most {MAX_LABELS}")]
    TooMany(usize),
}

impl Labels {
    /// Checks each name and value.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Labels, LabelError> {
        let mut labels = BTreeMap::new();
        for (name, value) in pairs {
            for word in [&name, &value] {
                if !is_word(word) {
                    return Err(LabelError::Word(word.clone()));
                }
            }
            if labels.insert(name.clone(), value).is_some() {
                return Err(LabelError::Twice(name));
            }
        }
        match labels.len() {
            0..=MAX_LABELS => Ok(Labels(labels)),
            count => Err(LabelError::TooMany(count)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether a worker with the labels `of` has all of these. Nothing asked is had by all.
    pub fn are_met_by(&self, of: &Labels) -> bool {
        self.0.iter().all(|(name, value)| of.0.get(name) == Some(value))
    }
}

fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    !text.is_empty() && text.len() <= MAX_LABEL_BYTES && text.chars().all(fits)
}

impl FromStr for Labels {
    type Err = LabelError;

    /// Reads `NAME=VALUE` pairs joined by commas.
    fn from_str(text: &str) -> Result<Labels, LabelError> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let pairs: Result<Vec<_>, _> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').ok_or_else(|| LabelError::Form(pair.to_string()))?;
                Ok((name.trim().to_string(), value.trim().to_string()))
            })
            .collect();
        Labels::new(pairs?)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.parse().expect("labels")
    }

    #[test]
    fn labels_are_pairs_and_read_back_as_they_are_shown() {
        let some = labels(" zone=a, gpu=yes,");
        assert_eq!(some.to_string(), "gpu=yes,zone=a");
        assert_eq!(labels(&some.to_string()), some);
        assert!(labels("").is_empty());
        for (text, expected) in [
            ("gpu", LabelError::Form("gpu".into())),
            ("gpu=", LabelError::Word("".into())),
            ("a b=c", LabelError::Word("a b".into())),
            ("a=1,a=2", LabelError::Twice("a".into())),
        ] {
            assert_eq!(text.parse::<Labels>(), Err(expected));
        }
        let many = |count: usize| (0..count).map(|at| (format!("n{at}"), "v".to_string()));
        assert!(Labels::new(many(MAX_LABELS)).is_ok());
        assert_eq!(
            Labels::new(many(MAX_LABELS + 1)),
            Err(LabelError::TooMany(MAX_LABELS + 1))
        );
        let long = "x".repeat(MAX_LABEL_BYTES);
        assert!(Labels::new([(long.clone(), long.clone())]).is_ok());
        assert!(Labels::new([(long.clone() + "x", long)]).is_err());
    }

    #[test]
    fn a_worker_has_what_is_asked_or_more() {
        let worker = labels("gpu=yes,zone=a");
        for (asked, met) in [
            ("", true),
            ("zone=a", true),
            ("gpu=yes,zone=a", true),
            ("zone=b", false),
            ("zone=a,disk=ssd", false),
        ] {
            assert_eq!(labels(asked).are_met_by(&worker), met, "{asked}");
        }
        assert!(!labels("zone=a").are_met_by(&Labels::default()));
    }
}
