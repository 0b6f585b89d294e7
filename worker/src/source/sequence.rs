//! The numbers `from..to` as records of one column `n`: for generated data and for measuring.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use gapless_common::{attempt::RecordHash, error::TaskError, range::UnitRange};
use xxhash_rust::xxh3::xxh3_128;

use super::{InputBatch, Intake, Origin, Place, SourceReader, pins::data};

/// Rows of a batch: 64 KiB of numbers.
const BATCH: u64 = 8192;

static SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])));

/// The schema of every sequence: `n`, a number, never NULL.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Reads one stretch of a sequence. Unit u is the number `from + u`.
pub struct SequenceReader {
    from: i64,
    range: UnitRange,
    position: u64,
    read: u64,
    records: RecordHash,
}

impl SequenceReader {
    pub fn new(from: i64, range: UnitRange) -> Self {
        Self {
            from,
            range,
            position: range.low,
            read: 0,
            records: RecordHash::default(),
        }
    }
}

impl SourceReader for SequenceReader {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn next_batch(&mut self) -> Result<Option<InputBatch>, TaskError> {
        let rows = BATCH.min(self.range.high - self.position);
        if rows == 0 {
            return Ok(None);
        }
        let position = self.position;
        let first = self.from.wrapping_add_unsigned(position);
        let numbers: Vec<i64> = (0..rows as i64).map(|at| first.wrapping_add(at)).collect();
        for number in &numbers {
            self.records.add(xxh3_128(&number.to_le_bytes()));
        }
        self.position += rows;
        self.read += rows;
        let batch = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(numbers))])
            .map_err(|error| data(format!("a batch of the sequence does not fit its schema: {error}")))?;
        Ok(Some(InputBatch {
            batch,
            origin: Arc::new(SequenceOrigin { first, position }),
        }))
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn may_stop(&self) -> bool {
        true
    }

    fn take_intake(&mut self) -> Intake {
        Intake {
            bytes: self.read * size_of::<i64>() as u64,
            read: std::mem::take(&mut self.read),
            records: std::mem::take(&mut self.records),
            ..Intake::default()
        }
    }
}

struct SequenceOrigin {
    first: i64,
    position: u64,
}

impl Origin for SequenceOrigin {
    fn locate(&self, row: usize) -> Place {
        let number = self.first.wrapping_add(row as i64);
        Place {
            file: "sequence".to_string(),
            line: None,
            row: Some(self.position + row as u64),
            block: None,
            raw: format!("{{\"n\":{number}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let read = |low, high| {
            let mut reader = SequenceReader::new(-5, UnitRange::new(low, high));
            let mut numbers = Vec::new();
            while let Some(batch) = reader.next_batch().unwrap() {
                let column = batch.batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
                let last = batch.origin.locate(column.len() - 1);
                assert_eq!(last.raw, format!("{{\"n\":{}}}", column.values().last().unwrap()));
                numbers.extend_from_slice(column.values());
            }
            assert_eq!(reader.position(), high);
            let intake = reader.take_intake();
            assert_eq!(intake.read, high - low);
            (numbers, intake.records)
        };
        let (whole, hash) = read(0, 20_000);
        assert_eq!(whole, (-5..19_995).collect::<Vec<_>>());
        let (mut left, mut sum) = read(0, 9_999);
        let (right, rest) = read(9_999, 20_000);
        left.extend(right);
        sum += rest;
        assert_eq!((left, sum), (whole, hash));
        assert!(read(7, 7).0.is_empty());
    }
}
