//! Lines of JSON that lie in no file, such as those that a program writes: read as the lines of an NDJSON source are, each
//! value as it is written or not at all.

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};
use gapless_common::{
    error::TaskError,
    job::{ColumnType, Compression},
};

use super::{
    block::{PAD, Pool, Text},
    json::Fields,
    layout::{Format, Layout},
};

/// Reads lines, each an object with these columns and no others; one that lacks is NULL.
pub(crate) struct ObjectLines {
    layout: Layout,
    pool: Pool,
    fields: Fields,
}

/// A line that is no record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Counted from 0 among the lines given.
    pub at: usize,
    pub reason: String,
}

impl ObjectLines {
    /// Errors: `Config` without columns, or with one of an unusable type.
    pub fn new(columns: Vec<(String, ColumnType)>) -> Result<ObjectLines, TaskError> {
        let format = Format::ndjson(Compression::None, Vec::new(), true);
        Ok(ObjectLines {
            layout: Layout::new(format, columns, None)?,
            pool: Pool::default(),
            fields: Fields::default(),
        })
    }

    pub fn schema(&self) -> SchemaRef {
        self.layout.schema()
    }

    /// The records of lines, of which each is one. `bytes`: about those of all lines.
    ///
    /// Errors: the first line that is none.
    pub fn decode<'a>(&mut self, bytes: usize, lines: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch, BadLine> {
        let shape = self.layout.objects.as_ref().expect("lines of JSON");
        self.fields.clear(self.pool.take(bytes + 2 * PAD));
        let mut bad = None;
        for (at, line) in lines.enumerate() {
            if let Err(fault) = self.fields.add(line, shape) {
                bad = Some(BadLine { at, reason: fault.0 });
                // A value of an earlier line may still be none of its type.
                break;
            }
        }
        let buffer = self.pool.share(self.fields.finish());
        let text = Text::new(&buffer);
        let rows = self.layout.rows_of_objects(&self.fields, text);
        let mut flaws = Vec::new();
        let decoded = self.layout.decode(&rows, &buffer, true, &mut flaws);
        if let Some(flaw) = flaws.iter().min_by_key(|flaw| flaw.row) {
            return Err(BadLine {
                at: flaw.row as usize,
                reason: self.layout.describe(text, flaw),
            });
        }
        if let Some(bad) = bad {
            return Err(bad);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(self.layout.schema(), decoded, &options).map_err(|error| BadLine {
            at: 0,
            reason: format!("a batch of columns does not fit together: {error}"),
        })
    }
}
