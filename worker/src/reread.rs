//! Reading a certificate's source again: the other half of `verify`.

use std::{collections::HashSet, path::PathBuf};

use gapless_common::{
    attempt::RecordHash,
    certificate::{Certificate, RangeProof},
    error::TaskError,
    job::Step,
    plan::{Facts, LookupFile, PinnedFile, TransformFacts, TransformMode},
};

use crate::{
    source::{
        lookup::look_again,
        open,
        pins::{expand, look},
    },
    verify::{Reopen, Unread},
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
            inputs: reading.inputs.clone(),
            output: Vec::new(),
            transform: TransformFacts {
                mode: TransformMode::RowWise { expands: false },
                reason: String::new(),
            },
            rows: 0,
            bytes: 0,
            sample: None,
            warnings: Vec::new(),
            lookups: certificate.lookups.clone(),
            standing: None,
        };
        Some(Source {
            certificate,
            step,
            base_dir: PathBuf::from(&reading.base_dir),
            facts,
            records: 0,
        })
    }

    /// Files that the job's paths match now and the run did not read.
    pub fn unread(&self) -> Vec<Unread> {
        // What a run has published to itself does not grow.
        let inputs = self.step.source.inputs().iter();
        let patterns: Vec<String> = inputs.flat_map(|input| input.paths().iter().cloned()).collect();
        let read = self.certificate.files.iter().map(|file| file.path.clone()).collect();
        let source = self.beside(None, &patterns, read);
        let lookups = self.certificate.lookups.iter().filter_map(|pinned| {
            let patterns = self.step.lookups.get(&pinned.name)?.paths();
            let read = pinned.files.iter().map(|file| file.path.clone()).collect();
            self.beside(Some(&pinned.name), patterns, read)
        });
        source.into_iter().chain(lookups).collect()
    }

    /// What `patterns` match beside `known`.
    fn beside(&self, lookup: Option<&str>, patterns: &[String], mut known: HashSet<String>) -> Option<Unread> {
        let mut unread = Unread {
            lookup: lookup.map(str::to_string),
            patterns: Vec::new(),
            files: Vec::new(),
        };
        for pattern in patterns {
            // A pattern that matches nothing any more: the missing files are told of as such.
            let found = expand(&self.base_dir, std::slice::from_ref(pattern)).unwrap_or_default();
            let before = unread.files.len();
            unread
                .files
                .extend(found.into_iter().filter(|path| known.insert(path.clone())));
            if unread.files.len() > before {
                unread.patterns.push(pattern.clone());
            }
        }
        (!unread.files.is_empty()).then_some(unread)
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

    fn look_up(&mut self, file: &LookupFile) -> Result<Option<LookupFile>, TaskError> {
        look_again(&self.base_dir, file)
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
