//! A bounded sample of the keys of a column, by which a plan cuts key ranges of equal size: some records at many
//! places, never the data.

use std::{path::Path, thread};

use arrow::array::{Array, RecordBatch};
use gapless_common::{
    address::is_url,
    error::TaskError,
    job::{Job, RecordLayout, Source, Step},
    key::{Key, KeyType},
    plan::{KeySample, Unit},
    range::UnitRange,
};

use super::{MAX_CONTENT, SourceFacts, WHOLE, places};
use crate::{
    source::{
        open::{Stored, open_files, stored_of},
        parquet::sample_column,
        pins::config,
        records::PASS,
        types::{columns_of, key_at, key_remedy, key_type},
    },
    type_names::type_name,
};

/// Places of a larger CSV source at which records are drawn; with four records each they fill
/// [`KeySample::MAX`]. In sorted data a place is one draw, so many small ones beat a few large ones.
const PLACES: u64 = 1024;

/// Bytes read at one place.
const PLACE: u64 = 4096;

/// Places of objects that are read at the same time: each costs the time of two requests, some 40 ms, so one after
/// the other the places of a sample would take most of a minute.
const PLACES_AT_ONCE: usize = 32;

/// Compressed files that are read for a sample, each from its beginning.
const STREAMS: usize = 64;

/// Row groups of a Parquet source, and places of an Avro source, that are read for a sample of one column.
const GROUPS: usize = 64;

/// Draws keys of a column, evenly over the source; all of them where the source is small.
///
/// Errors: `Config` when the column does not exist or its type has no key order; else as reading.
pub fn sample_keys(
    job: &Job,
    step: &Step,
    base_dir: &Path,
    facts: &SourceFacts,
    column: &str,
) -> Result<KeySample, TaskError> {
    let field = facts.schema.field_with_name(column).map_err(|_| {
        let names: Vec<&str> = facts
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        config(format!(
            "step {}: the source has no column {column} to partition by; it has {}",
            step.name,
            names.join(", ")
        ))
    })?;
    let ty = key_type(field.data_type()).ok_or_else(|| {
        config(format!(
            "step {}: column {column} is {}, whose values have no key order; partition by another column{}",
            step.name,
            type_name(field.data_type()),
            key_remedy(field.data_type())
        ))
    })?;
    let mut draws = Vec::new();
    for (source, own) in step.source.inputs().iter().zip(match facts.inputs.is_empty() {
        true => std::slice::from_ref(facts),
        false => &facts.inputs,
    }) {
        let mut draw = draw(job, step, source, base_dir, own, column)?;
        if let (Some(KeyType::Decimal { scale }), Ok(field)) = (Some(ty), own.schema.field_with_name(column)) {
            draw.raise_to(scale, key_type(field.data_type()));
        }
        draws.push(draw);
    }
    let (keys, nulls, complete) = joined(draws);
    Ok(KeySample {
        column: column.to_string(),
        key_type: ty,
        keys,
        nulls,
        complete,
    })
}

/// Keys drawn from one input.
struct Draw {
    keys: Vec<Key>,
    nulls: u64,
    complete: bool,
    /// Of the input, exact or estimated.
    rows: u64,
}

impl Draw {
    /// Decimals of fewer digits behind the point, as those of a merge are.
    fn raise_to(&mut self, scale: i8, own: Option<KeyType>) {
        let Some(KeyType::Decimal { scale: own }) = own else {
            return;
        };
        let factor = 10i128.saturating_pow(u32::from((scale - own).max(0).unsigned_abs()));
        for key in &mut self.keys {
            if let Key::Int(value) = key {
                *value = value.saturating_mul(factor);
            }
        }
    }

    /// Every so many-th key, so that `most` are left.
    fn thin(&mut self, most: usize) {
        let drawn = self.keys.len() + self.nulls as usize;
        if drawn <= most {
            return;
        }
        let (most, drawn) = (most as u64, drawn as u64);
        let mut at = 0;
        self.keys.retain(|_| {
            at += 1;
            at * most / drawn > (at - 1) * most / drawn
        });
        self.nulls = self.nulls * most / drawn;
        self.complete = false;
    }
}

/// The draws of all inputs, each by its share of the records.
fn joined(mut draws: Vec<Draw>) -> (Vec<Key>, u64, bool) {
    let drawn: usize = draws.iter().map(|draw| draw.keys.len() + draw.nulls as usize).sum();
    let rows: u64 = draws.iter().map(|draw| draw.rows).sum::<u64>().max(1);
    let complete = drawn <= KeySample::MAX && draws.iter().all(|draw| draw.complete);
    if draws.len() > 1 && !complete {
        for draw in &mut draws {
            let share = u128::from(draw.rows) * KeySample::MAX as u128 / u128::from(rows);
            draw.thin((share as usize).max(1));
        }
    }
    let nulls = draws.iter().map(|draw| draw.nulls).sum();
    let mut keys: Vec<Key> = draws.into_iter().flat_map(|draw| draw.keys).collect();
    keys.sort_unstable();
    // Inputs without a share have one key each.
    keys.truncate(KeySample::MAX);
    (keys, nulls, complete)
}

fn draw(
    job: &Job,
    step: &Step,
    source: &Source,
    base_dir: &Path,
    facts: &SourceFacts,
    column: &str,
) -> Result<Draw, TaskError> {
    let rows = facts.rows;
    if facts.schema.field_with_name(column).is_err() {
        // An input without the column, which is NULL then.
        return Ok(Draw {
            keys: Vec::new(),
            nulls: rows.min(KeySample::MAX as u64),
            complete: rows <= KeySample::MAX as u64,
            rows,
        });
    }
    let mut drawn = Drawn::default();
    let complete = match stored_of(job, &step.name, source)? {
        Stored::Sequence { from } => draw_numbers(from, facts.domain, &mut drawn),
        Stored::Parquet => {
            let draw = sample_column(base_dir, &facts.files, &facts.schema, column, KeySample::MAX, GROUPS)?;
            draw.0.iter().for_each(|array| drawn.add(array, 0..array.len()));
            draw.1
        }
        csv => draw_csv(&csv, base_dir, facts, column, &mut drawn)?,
    };
    let complete = complete && drawn.stride <= 1 && drawn.keys.len() <= KeySample::MAX;
    let (keys, nulls) = drawn.finish();
    Ok(Draw {
        keys,
        nulls,
        complete,
        rows,
    })
}

fn draw_numbers(from: i64, domain: UnitRange, drawn: &mut Drawn) -> bool {
    let picks = domain.len().min(KeySample::MAX as u64);
    for at in 0..picks {
        let unit = u128::from(domain.len()) * u128::from(at) / u128::from(picks);
        drawn.push(Some(Key::Int(i128::from(from) + unit as i128)));
    }
    picks == domain.len()
}

/// Answers whether every record was drawn.
fn draw_csv(
    stored: &Stored<'_>,
    base_dir: &Path,
    facts: &SourceFacts,
    column: &str,
    drawn: &mut Drawn,
) -> Result<bool, TaskError> {
    let columns = columns_of(&facts.schema);
    let projection = [column.to_string()];
    let open = |stored: &Stored<'_>, units| {
        open_files(
            stored,
            base_dir,
            facts.unit,
            &facts.files,
            &columns,
            units,
            Some(&projection),
        )
    };
    if facts.bytes <= WHOLE {
        let mut reader = open(stored, facts.domain)?;
        let mut rejects = 0;
        let mut content = 0;
        while let Some(input) = reader.next_batch()? {
            drawn.add(input.batch.column(0), 0..input.batch.num_rows());
            rejects += reader.take_intake().rejects.len();
            content += match input.batch.num_rows() {
                0 => PASS,
                _ => input.batch.get_array_memory_size() as u64,
            };
            if content > MAX_CONTENT {
                break;
            }
        }
        if content <= MAX_CONTENT {
            return Ok(rejects == 0);
        }
        if !drawn.keys.is_empty() || facts.unit == Unit::Byte {
            return Ok(false);
        }
    }
    // Without looking for the ends of packed files: a trailer among the records of a sample does no harm.
    let open_ended;
    let stored = match stored {
        Stored::Records(layout) if facts.unit == Unit::File => {
            open_ended = RecordLayout {
                trailer: None,
                ..(*layout).clone()
            };
            &Stored::Records(&open_ended)
        }
        stored => stored,
    };
    let (units, wanted) = match facts.unit {
        // Most places of a few bytes have no block that begins there.
        Unit::Byte if matches!(stored, Stored::Avro) => (GROUPS as u64, KeySample::MAX / GROUPS),
        Unit::Byte => (PLACES, KeySample::MAX / PLACES as usize),
        _ => {
            let files = facts.domain.high.min(STREAMS as u64);
            (files, KeySample::MAX / files.max(1) as usize)
        }
    };
    let len = match (stored, facts.unit) {
        (Stored::Avro, _) => facts.domain.len().div_ceil(units),
        (_, Unit::Byte) => PLACE,
        _ => 1,
    };
    let places: Vec<UnitRange> = places(facts.domain.high, units, len).collect();
    let read = |place: &UnitRange| -> Result<Option<RecordBatch>, TaskError> {
        let mut reader = open(stored, *place)?;
        // What is passed over may be without bounds.
        for _ in 0..MAX_CONTENT / PASS {
            match reader.next_batch()? {
                Some(input) if input.batch.num_rows() > 0 => return Ok(Some(input.batch)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    };
    let remote = facts.files.iter().any(|file| is_url(&file.path));
    for stretch in places.chunks(if remote { PLACES_AT_ONCE } else { 1 }) {
        for batch in at_once(stretch, &read)? {
            let rows = batch.num_rows();
            let share = wanted.min(rows);
            drawn.add(batch.column(0), (0..share).map(|at| at * rows / share));
        }
    }
    Ok(false)
}

/// Reads places at the same time; what they hold comes in their order.
fn at_once(
    places: &[UnitRange],
    read: &(impl Fn(&UnitRange) -> Result<Option<RecordBatch>, TaskError> + Sync),
) -> Result<Vec<RecordBatch>, TaskError> {
    let batches: Result<Vec<_>, _> = match places {
        [place] => read(place).map(|batch| vec![batch]),
        places => thread::scope(|scope| {
            let reading: Vec<_> = places.iter().map(|place| scope.spawn(move || read(place))).collect();
            let read = reading.into_iter().map(|reading| match reading.join() {
                Ok(batch) => batch,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            read.collect()
        }),
    };
    Ok(batches?.into_iter().flatten().collect())
}

/// Keys drawn so far: every `stride`-th of those offered, so that the number stays bounded and the
/// draw even.
#[derive(Default)]
struct Drawn {
    keys: Vec<Option<Key>>,
    stride: usize,
    offered: usize,
}

impl Drawn {
    fn add(&mut self, array: &dyn Array, rows: impl Iterator<Item = usize>) {
        for row in rows {
            if self.takes_next() {
                self.keep(key_at(array, row));
            }
        }
    }

    fn push(&mut self, key: Option<Key>) {
        if self.takes_next() {
            self.keep(key);
        }
    }

    fn takes_next(&mut self) -> bool {
        self.stride = self.stride.max(1);
        self.offered += 1;
        (self.offered - 1).is_multiple_of(self.stride)
    }

    fn keep(&mut self, key: Option<Key>) {
        self.keys.push(key);
        if self.keys.len() > 2 * KeySample::MAX {
            let mut even = false;
            self.keys.retain(|_| {
                even = !even;
                even
            });
            self.stride *= 2;
        }
    }

    /// At most [`KeySample::MAX`] keys in order, and the NULLs among them.
    fn finish(self) -> (Vec<Key>, u64) {
        let (count, max) = (self.keys.len(), KeySample::MAX);
        let mut kept = self.keys;
        if count > max {
            let mut at = 0;
            kept.retain(|_| {
                at += 1;
                // Keeps `max` of `count`, evenly.
                at * max / count > (at - 1) * max / count
            });
        }
        let taken = kept.len();
        let mut keys: Vec<Key> = kept.into_iter().flatten().collect();
        keys.sort_unstable();
        let nulls = (taken - keys.len()) as u64;
        (keys, nulls)
    }
}
