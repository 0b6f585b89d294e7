//! The place where readers look: chunks under names of their own, one verdict for each step, and
//! what is visible. Contents are source units, so that loss and doubling show.

use std::collections::BTreeMap;

use gapless_common::ids::{AttemptId, RunId, Stage, StepNo};

/// The name of a chunk's file.
pub type Chunk = (Stage, u32, AttemptId, u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Committed(Vec<u64>),
    Aborted,
}

#[derive(Default)]
pub struct Place {
    chunks: BTreeMap<Chunk, Vec<u64>>,
    pub verdict: Option<Verdict>,
    pub visible: Option<Vec<u64>>,
}

#[derive(Default)]
pub struct Output(pub BTreeMap<(RunId, StepNo), Place>);

impl Output {
    pub fn place(&mut self, run: RunId, step: StepNo) -> &mut Place {
        self.0.entry((run, step)).or_default()
    }
}

impl Place {
    /// A file is written once: its name carries the attempt and the sequence number.
    pub fn write(&mut self, chunk: Chunk, content: Vec<u64>) -> Result<(), String> {
        match self.chunks.insert(chunk, content) {
            None => Ok(()),
            Some(_) => Err(format!("I2: the file {chunk:?} was written twice")),
        }
    }

    pub fn read(&self, chunk: &Chunk) -> Option<&Vec<u64>> {
        self.chunks.get(chunk)
    }

    /// Creates the verdict, or finds the one that is there.
    pub fn settle(&mut self, verdict: Verdict) -> Verdict {
        self.verdict.get_or_insert(verdict).clone()
    }
}
