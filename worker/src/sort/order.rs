//! How the rows of a step compare.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch},
    compute::{SortOptions, cast},
    datatypes::{DataType, Field, Float32Type, Float64Type, Schema},
    row::{RowConverter, Rows, SortField},
};
use gapless_common::{
    error::{ErrorClass, TaskError},
    job::{Source, Step},
    order::{KeyRow, SortColumn},
};

use super::wrong_rows;
use crate::{
    engine::offer,
    source::types::{key_at, key_remedy, key_type},
    type_names::type_name,
};

/// An order bound to the columns of a schema.
pub struct Order {
    columns: Vec<Bound>,
    converter: RowConverter,
}

pub(super) struct Bound {
    pub index: usize,
    pub name: String,
    pub options: SortOptions,
}

/// The type in which the values of a column are compared; `None` where they have no order.
fn compared_type(ty: &DataType) -> Option<&DataType> {
    match ty {
        DataType::Dictionary(_, values) => compared_type(values),
        plain => key_type(plain).map(|_| plain),
    }
}

/// Checks the columns of an order against the rows that will be put in it; the error is in words.
pub fn check_order(by: &[SortColumn], schema: &Schema) -> Result<(), TaskError> {
    by.iter().try_for_each(|by| field_of(by, schema).map(drop))
}

/// As [`check_order`], told in the words of what gives the step its order: `sort`, or `by` of a merge.
pub fn check_step_order(step: &Step, by: &[SortColumn], schema: &Schema) -> Result<(), TaskError> {
    check_order(by, schema).map_err(|error| match &step.source {
        Source::Merge(merge) if !merge.by.is_empty() => TaskError::new(
            error.class,
            format!(
                "{}; the SQL has to pass on the columns of `by`",
                error.message.replacen("sort:", "merge: by:", 1)
            ),
        ),
        _ => error,
    })
}

fn field_of<'a>(by: &SortColumn, schema: &'a Schema) -> Result<(usize, &'a Field), TaskError> {
    let config = |message: String| TaskError::new(ErrorClass::Config, message);
    let name = &by.column;
    let Ok(index) = schema.index_of(name) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let offer = offer(name, &names, "columns");
        return Err(config(format!("sort: the output has no column «{name}»{offer}")));
    };
    let field = schema.field(index);
    match compared_type(field.data_type()) {
        Some(_) => Ok((index, field)),
        None => Err(config(format!(
            "sort: column {name} is {}, whose values have no order; sort by a number, text, date, timestamp or bool{}",
            type_name(field.data_type()),
            key_remedy(field.data_type())
        ))),
    }
}

impl Order {
    /// Errors: `Config` where a column is missing or its values have no order.
    pub fn new(by: &[SortColumn], schema: &Schema) -> Result<Order, TaskError> {
        let mut columns = Vec::with_capacity(by.len());
        let mut fields = Vec::with_capacity(by.len());
        for by in by {
            let (index, field) = field_of(by, schema)?;
            let options = SortOptions {
                descending: by.descending,
                nulls_first: by.nulls_first,
            };
            let ty = compared_type(field.data_type()).unwrap_or(field.data_type()).clone();
            fields.push(SortField::new_with_options(ty, options));
            columns.push(Bound {
                index,
                name: by.column.clone(),
                options,
            });
        }
        let converter = RowConverter::new(fields).map_err(|error| wrong_rows(&error))?;
        Ok(Order { columns, converter })
    }

    pub(super) fn columns(&self) -> &[Bound] {
        &self.columns
    }

    /// The columns of the order as they are compared: one zero and one NaN, dictionaries as their values.
    pub(crate) fn key_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, TaskError> {
        self.columns
            .iter()
            .map(|column| compared(batch.column(column.index)))
            .collect()
    }

    /// The rows' keys as bytes that compare like the rows.
    pub(crate) fn keys(&self, columns: &[ArrayRef]) -> Result<Rows, TaskError> {
        self.converter
            .convert_columns(columns)
            .map_err(|error| wrong_rows(&error))
    }

    /// The key of one row, to be kept.
    pub fn key_row(columns: &[ArrayRef], row: usize) -> KeyRow {
        columns.iter().map(|column| key_at(column, row)).collect()
    }
}

fn compared(column: &ArrayRef) -> Result<ArrayRef, TaskError> {
    Ok(match column.data_type() {
        DataType::Dictionary(_, values) => {
            return compared(&cast(column, values).map_err(|error| wrong_rows(&error))?);
        }
        DataType::Float32 => {
            let one: PrimitiveArray<Float32Type> = column
                .as_primitive::<Float32Type>()
                .unary(|value| if value.is_nan() { f32::NAN } else { value + 0.0 });
            Arc::new(one)
        }
        DataType::Float64 => {
            let one: PrimitiveArray<Float64Type> = column
                .as_primitive::<Float64Type>()
                .unary(|value| if value.is_nan() { f64::NAN } else { value + 0.0 });
            Arc::new(one)
        }
        _ => column.clone(),
    })
}
