//! Reading a certificate's source again: the other half of `verify`.

use std::path::PathBuf;

use gapless_common::{
    attempt::RecordHash,
    certificate::{Certificate, RangeProof},
    error::TaskError,
    job::Step,
    plan::{Facts, PinnedFile, TransformFacts, TransformMode},
};

use crate::{
    source::{open, pins::look},
    verify::Reopen,
};

/// The source of a certificate on this machine.
pub struct Source<'a> {
    certificate: &'a Certificate,
    step: &'a Step,
    base_dir: PathBuf,
    facts: Facts,
    /// Records read so far.
    pub records: u64,
}

impl<'a> Source<'a> {
    /// `None` where the certificate does not hold the step that it speaks of.
    pub fn of(certificate: &'a Certificate) -> Option<Source<'a>> {
        let reading = &certificate.reading;
        let step = reading.job.steps.get(certificate.step as usize)?;
        let facts = Facts {
            unit: reading.unit,
            files: certificate.files.clone(),
            domain: certificate.domain,
            columns: reading.columns.clone(),
            read_columns: reading.read_columns.clone(),
            output: Vec::new(),
            transform: TransformFacts {
                mode: TransformMode::RowWise { expands: false },
                reason: String::new(),
            },
            rows: 0,
            bytes: 0,
            sample: None,
            warnings: Vec::new(),
        };
        Some(Source {
            certificate,
            step,
            base_dir: PathBuf::from(&reading.base_dir),
            facts,
            records: 0,
        })
    }
}

impl Reopen for Source<'_> {
    fn look(&mut self, file: &PinnedFile) -> Result<Option<PinnedFile>, TaskError> {
        let found = look(&self.base_dir, file)?;
        // A file that was touched is read all the same: its records tell whether it changed.
        if let Some(found) = &found
            && let Some(pinned) = self.facts.files.iter_mut().find(|pinned| pinned.path == file.path)
        {
            pinned.size = found.size;
            pinned.etag = found.etag.clone();
        }
        Ok(found)
    }

    fn read(&mut self, range: &RangeProof) -> Result<(u64, RecordHash), TaskError> {
        let job = &self.certificate.reading.job;
        let columns = self.facts.read_columns.as_deref();
        let mut reader = open::open(job, self.step, &self.base_dir, &self.facts, range.units, columns)?;
        let (mut count, mut records) = (0, RecordHash::default());
        loop {
            let batch = reader.next_batch()?;
            let intake = reader.take_intake();
            count += intake.read;
            records += intake.records;
            if batch.is_none() {
                self.records += count;
                return Ok((count, records));
            }
        }
    }
}
