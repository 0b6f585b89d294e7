//! Records that are read a second time: a redrive reads them from a file of their own and tells where they stood at
//! first.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use arrow::datatypes::SchemaRef;
use gapless_common::error::TaskError;
use serde::{Deserialize, Serialize};

use super::{InputBatch, Intake, Origin, Place, SourceReader, pins::data};
use crate::storage::{StoredFile, io_error};

/// Where a record of a redrive stands, and where it stood at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerPlace {
    /// The line of the redrive's file at which it begins, from 1; of a Parquet file the row, from 0.
    pub at: u64,
    pub file: String,
    pub line: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
}

impl FormerPlace {
    /// Reads a file of places.
    ///
    /// Errors: those of reading; `Data` for a line that is none.
    pub fn read(path: &Path) -> Result<Vec<FormerPlace>, TaskError> {
        let file = StoredFile::open(path).map_err(|error| io_error("open", path, &error))?;
        let lines = BufReader::new(file.into_reader()).lines();
        lines
            .map(|line| {
                let line = line.map_err(|error| io_error("read", path, &error))?;
                serde_json::from_str(&line)
                    .map_err(|error| data(format!("{}: not the place of a record: {error}", path.display())))
            })
            .collect()
    }
}

/// In the order of `at`.
type FormerPlaces = Arc<Vec<FormerPlace>>;

/// A reader whose records are told by their former places.
pub(super) struct Redriven {
    inner: Box<dyn SourceReader>,
    places: FormerPlaces,
}

struct FormerOrigin {
    inner: Arc<dyn Origin>,
    places: FormerPlaces,
}

impl Redriven {
    /// Errors: those of reading the file with the places.
    pub fn open(inner: Box<dyn SourceReader>, path: &Path) -> Result<Redriven, TaskError> {
        Ok(Redriven {
            inner,
            places: Arc::new(FormerPlace::read(path)?),
        })
    }
}

/// The place with what it was at first; itself where that is not known.
fn former(places: &[FormerPlace], place: Place) -> Place {
    let Some(at) = place.line.or(place.row) else {
        return place;
    };
    let after = places.partition_point(|known| known.at <= at);
    match after.checked_sub(1).and_then(|index| places.get(index)) {
        Some(known) => Place {
            file: known.file.clone(),
            line: known.line,
            row: known.row,
            block: known.block,
            raw: place.raw,
        },
        None => place,
    }
}

impl Origin for FormerOrigin {
    fn locate(&self, row: usize) -> Place {
        former(&self.places, self.inner.locate(row))
    }
}

impl SourceReader for Redriven {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        let read = self.inner.next_batch()?;
        Ok(read.map(|input| InputBatch {
            batch: input.batch,
            origin: Arc::new(FormerOrigin {
                inner: input.origin,
                places: self.places.clone(),
            }),
        }))
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }

    fn may_stop(&self) -> bool {
        self.inner.may_stop()
    }

    fn passed(&self) -> u64 {
        self.inner.passed()
    }

    fn take_intake(&mut self) -> Intake {
        let mut intake = self.inner.take_intake();
        for reject in &mut intake.rejects {
            let place = reject.place.clone();
            reject.place = former(&self.places, place);
        }
        intake
    }
}
