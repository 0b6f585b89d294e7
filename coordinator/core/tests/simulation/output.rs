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

/// What an edition of a step has staged, and how it was settled.
#[derive(Default)]
pub struct Place {
    chunks: BTreeMap<Chunk, Vec<u64>>,
    pub verdict: Option<Verdict>,
    /// Everything staged was removed.
    pub swept: bool,
}

#[derive(Default)]
pub struct Output {
    places: BTreeMap<(RunId, StepNo, u32), Place>,
    pub visible: BTreeMap<(RunId, StepNo), Vec<u64>>,
}

impl Output {
    pub fn place(&mut self, run: RunId, step: StepNo, edition: u32) -> &mut Place {
        self.places.entry((run, step, edition)).or_default()
    }

    /// Whether any edition of a step was settled as committed.
    pub fn is_committed(&self, run: RunId, step: StepNo) -> bool {
        let own = self.places.range((run, step, 0)..=(run, step, u32::MAX));
        own.into_iter()
            .any(|(_, place)| matches!(place.verdict, Some(Verdict::Committed(_))))
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

    /// Removes what is staged; who is late still writes.
    pub fn sweep(&mut self) {
        self.chunks.clear();
        self.swept = true;
    }

    pub fn read(&self, chunk: &Chunk) -> Option<&Vec<u64>> {
        self.chunks.get(chunk)
    }

    /// Creates the verdict, or finds the one that is there.
    pub fn settle(&mut self, verdict: Verdict) -> Verdict {
        self.verdict.get_or_insert(verdict).clone()
    }
}
