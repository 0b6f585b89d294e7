//! Which bucket a record belongs to, for whole batches: the plan's bucket function over Arrow
//! columns. What is computed here is specified in [`gapless_common::hash`] (hash) and
//! [`gapless_common::key`] (order); here are only the loops.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    buffer::NullBuffer,
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    hash,
    plan::{BucketFn, ExchangePlan},
};

use super::{
    carrier::{Carrier, Native, bytes_of, cells, nulls_of, to_travelling, travelling_type, with_bytes, with_native},
    key_ranges::KeyRanges,
    narrow::{Loop, vectorised},
};
use crate::type_names::type_name;

/// Bucket numbers are kept in 16 bits.
pub const MAX_BUCKETS: u32 = 1 << 16;

/// The bucket function of a plan, bound to the columns of a schema.
pub(super) enum Bucketing {
    Hash {
        columns: Vec<usize>,
        buckets: u32,
        hashes: Vec<u64>,
    },
    KeyRange {
        column: usize,
        ranges: KeyRanges,
        null_bucket: u16,
        /// Whether buckets of keys follow that of NULL.
        null_within: bool,
        /// The last bucket, where they are counted from the greatest keys down.
        falls_from: Option<u16>,
    },
}

impl Bucketing {
    /// Binds the plan's function to a schema.
    ///
    /// Errors: `Config` where a column is missing, its type has no hash or no order, or the number
    /// of buckets does not fit the function.
    pub(super) fn new(plan: &ExchangePlan, schema: &Schema) -> Result<Self, TaskError> {
        if plan.buckets == 0 || plan.buckets > MAX_BUCKETS {
            return Err(config(format!(
                "{} buckets: an exchange has 1 to {MAX_BUCKETS}",
                plan.buckets
            )));
        }
        match &plan.function {
            BucketFn::Hash { columns } => {
                let columns = columns
                    .iter()
                    .map(|name| {
                        let (index, field) = find(schema, name)?;
                        match Carrier::of(travelling_type(field.data_type())) {
                            Carrier::Other => Err(config(format!(
                                "column {name} of type {} cannot be hashed: partition by another column",
                                type_name(field.data_type())
                            ))),
                            _ => Ok(index),
                        }
                    })
                    .collect::<Result<_, _>>()?;
                Ok(Bucketing::Hash {
                    columns,
                    buckets: plan.buckets,
                    hashes: Vec::new(),
                })
            }
            BucketFn::KeyRange {
                column,
                key_type,
                bounds,
                null_bucket,
                descending,
            } => {
                let intervals_and_null = bounds.len() + 2;
                if plan.buckets as usize != intervals_and_null {
                    return Err(config(format!(
                        "{} bounds of {column} make {intervals_and_null} buckets with NULL, not {}",
                        bounds.len(),
                        plan.buckets
                    )));
                }
                let last = plan.buckets - 1;
                let null_bucket = null_bucket.unwrap_or(last);
                if null_bucket > last {
                    return Err(config(format!(
                        "bucket {null_bucket} for NULL in {column}: the exchange has {} buckets",
                        plan.buckets
                    )));
                }
                let (index, field) = find(schema, column)?;
                let ranges = KeyRanges::new(travelling_type(field.data_type()), *key_type, bounds)
                    .map_err(|words| config(format!("column {column}: {words}")))?;
                Ok(Bucketing::KeyRange {
                    column: index,
                    ranges,
                    null_bucket: null_bucket as u16,
                    null_within: null_bucket < last,
                    falls_from: descending.then_some(last as u16),
                })
            }
        }
    }

    /// Puts the bucket of each row in `out`. The columns are in their travelling types.
    pub(super) fn assign(&mut self, columns: &[ArrayRef], rows: usize, out: &mut Vec<u16>) {
        out.clear();
        match self {
            Bucketing::Hash {
                columns: keys,
                buckets,
                hashes,
            } => {
                hashes.clear();
                hashes.resize(rows, 0);
                for (position, &key) in keys.iter().enumerate() {
                    hash_column(&columns[key], hashes, position == 0);
                }
                let buckets = *buckets;
                out.extend(hashes.iter().map(|&hash| hash::bucket(hash, buckets) as u16));
            }
            Bucketing::KeyRange {
                column,
                ranges,
                null_bucket,
                null_within,
                falls_from,
            } => {
                let column = &columns[*column];
                ranges.assign(column, out);
                if *null_within {
                    for bucket in out.iter_mut() {
                        *bucket += u16::from(*bucket >= *null_bucket);
                    }
                }
                if let Some(nulls) = nulls_of(column) {
                    for (bucket, valid) in out.iter_mut().zip(nulls.iter()) {
                        if !valid {
                            *bucket = *null_bucket;
                        }
                    }
                }
                if let Some(last) = falls_from {
                    out.iter_mut().for_each(|bucket| *bucket = *last - *bucket);
                }
            }
        }
    }
}

/// The hash of columns, as the exchange has it, for rows that do not travel.
pub struct HashBuckets {
    bucketing: Bucketing,
    buckets: Vec<u16>,
}

impl HashBuckets {
    /// Errors: `Config` where a column is missing or has no hash.
    pub fn new(columns: &[String], buckets: u32, schema: &Schema) -> Result<Self, TaskError> {
        let plan = ExchangePlan {
            function: BucketFn::Hash {
                columns: columns.to_vec(),
            },
            buckets,
        };
        Ok(Self {
            bucketing: Bucketing::new(&plan, schema)?,
            buckets: Vec::new(),
        })
    }

    /// The bucket of each row of a batch of that schema.
    pub fn of(&mut self, batch: &RecordBatch) -> Result<&[u16], TaskError> {
        let columns = batch.columns().iter().map(to_travelling).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| config(error.to_string()))?;
        self.bucketing.assign(&columns, batch.num_rows(), &mut self.buckets);
        Ok(&self.buckets)
    }
}

fn find<'a>(schema: &'a Schema, name: &str) -> Result<(usize, &'a Field), TaskError> {
    schema
        .index_of(name)
        .map(|index| (index, schema.field(index)))
        .map_err(|_| {
            config(format!(
                "the exchange needs column {name}, which the source does not have"
            ))
        })
}

fn config(message: String) -> TaskError {
    TaskError::new(ErrorClass::Config, message)
}

/// Adds a column to the hashes of the rows.
fn hash_column(column: &ArrayRef, hashes: &mut [u64], first: bool) {
    const MICROS_PER_SECOND: i64 = 1_000_000;
    const MILLIS_PER_DAY: i64 = 86_400_000;
    match column.data_type() {
        DataType::Decimal32(_, scale) => {
            let scale = *scale;
            hash_cells::<i32>(column, hashes, first, |value| {
                hash::hash_decimal(i128::from(value), scale)
            });
        }
        DataType::Decimal64(_, scale) => {
            let scale = *scale;
            hash_cells::<i64>(column, hashes, first, |value| {
                hash::hash_decimal(i128::from(value), scale)
            });
        }
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            hash_cells::<i128>(column, hashes, first, |value| hash::hash_decimal(value, scale));
        }
        DataType::Float16 => hash_cells::<u16>(column, hashes, first, |bits| hash::hash_f64(half_to_f64(bits))),
        DataType::Float32 => {
            hash_cells::<u32>(column, hashes, first, |bits| {
                hash::hash_f64(f64::from(f32::from_bits(bits)))
            });
        }
        DataType::Float64 => hash_cells::<u64>(column, hashes, first, |bits| hash::hash_f64(f64::from_bits(bits))),
        DataType::Date32 => hash_cells::<i32>(column, hashes, first, |days| hash::hash_date(i64::from(days))),
        DataType::Date64 => {
            hash_cells::<i64>(column, hashes, first, |millis| {
                hash::hash_date(millis.div_euclid(MILLIS_PER_DAY))
            });
        }
        DataType::Timestamp(unit, _) => {
            let to_micros: fn(i64) -> i64 = match unit {
                TimeUnit::Second => |value| value.wrapping_mul(MICROS_PER_SECOND),
                TimeUnit::Millisecond => |value| value.wrapping_mul(1_000),
                TimeUnit::Microsecond => |value| value,
                TimeUnit::Nanosecond => |value| value.div_euclid(1_000),
            };
            hash_cells::<i64>(column, hashes, first, |value| hash::hash_timestamp(to_micros(value)));
        }
        DataType::Boolean => {
            let bools = column.as_boolean();
            fill(
                hashes,
                first,
                nulls_of(column),
                bools.values().iter().map(hash::hash_bool),
            );
        }
        ty => with_native!(Carrier::of(ty), N => hash_cells::<N>(column, hashes, first, |value| {
            // The compiler removes the wide case for types that fit 64 bits.
            match i64::try_from(value.widen()) {
                Ok(value) => hash::hash_i64(value),
                Err(_) => hash::hash_i128(value.widen()),
            }
        }), Bool => unreachable!("matched above"), Bytes => with_bytes!(column, texts => {
            let values = (0..texts.len()).map(|row| hash::hash_bytes(bytes_of(texts.value(row))));
            fill(hashes, first, nulls_of(column), values);
        }), Other => unreachable!("refused when the function was bound")),
    }
}

fn hash_cells<N: Native>(column: &ArrayRef, hashes: &mut [u64], first: bool, hash: impl Fn(N) -> u64) {
    let (cells, nulls) = cells::<N>(column);
    vectorised(HashCells {
        cells: cells.as_slice(),
        nulls,
        hashes,
        first,
        hash,
    });
}

struct HashCells<'a, N, H> {
    cells: &'a [N],
    nulls: Option<NullBuffer>,
    hashes: &'a mut [u64],
    first: bool,
    hash: H,
}

impl<N: Native, H: Fn(N) -> u64> Loop for HashCells<'_, N, H> {
    type Result = ();

    #[inline(always)]
    fn run(self) {
        let hash = self.hash;
        fill(
            self.hashes,
            self.first,
            self.nulls,
            self.cells.iter().map(|&cell| hash(cell)),
        );
    }
}

#[inline(always)]
fn fill(hashes: &mut [u64], first: bool, nulls: Option<NullBuffer>, values: impl Iterator<Item = u64>) {
    match (first, nulls) {
        (true, None) => {
            for (hash, value) in hashes.iter_mut().zip(values) {
                *hash = value;
            }
        }
        (false, None) => {
            for (hash, value) in hashes.iter_mut().zip(values) {
                *hash = hash::combine(*hash, value);
            }
        }
        (first, Some(nulls)) => {
            for ((hash, value), valid) in hashes.iter_mut().zip(values).zip(nulls.iter()) {
                let value = if valid { value } else { hash::hash_null() };
                *hash = if first { value } else { hash::combine(*hash, value) };
            }
        }
    }
}

/// Widens an IEEE 754 half, which is exact.
pub(super) fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => sign * f64::INFINITY,
        0x1f => f64::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}
