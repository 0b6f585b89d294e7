//! Stage Survey: puts what the source told and what the SQL told into [`Facts`].

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use gapless_common::{
    key::KeyType,
    plan::{Column, Facts, InputFacts},
};

use crate::{engine::Analysis, survey::SourceFacts};

/// The survey's answer.
pub fn facts(source: SourceFacts, analysis: &Analysis) -> Facts {
    let input = |input: SourceFacts| InputFacts {
        unit: input.unit,
        files: input.files.len(),
        columns: columns(&input.schema),
    };
    Facts {
        unit: source.unit,
        files: source.files,
        domain: source.domain,
        columns: columns(&source.schema),
        read_columns: None,
        output: columns(&analysis.output),
        transform: analysis.transform.clone(),
        rows: source.rows,
        bytes: source.bytes,
        sample: source.sample,
        warnings: source.warnings,
        lookups: Vec::new(),
        inputs: source.inputs.into_iter().map(input).collect(),
        standing: None,
    }
}

/// The columns of a schema in the words of a plan.
pub fn columns(schema: &Schema) -> Vec<Column> {
    schema.fields().iter().map(|field| column(field)).collect()
}

fn column(field: &Field) -> Column {
    Column {
        name: field.name().clone(),
        ty: field.data_type().to_string(),
        nullable: field.is_nullable(),
        key_type: key_type(field.data_type()),
    }
}

/// The key order of a type; `None` where it has none.
pub fn key_type(ty: &DataType) -> Option<KeyType> {
    use DataType::*;
    Some(match ty {
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => KeyType::Int,
        Decimal32(_, scale) | Decimal64(_, scale) | Decimal128(_, scale) => KeyType::Decimal { scale: *scale },
        Float16 | Float32 | Float64 => KeyType::Float,
        Utf8 | LargeUtf8 | Utf8View => KeyType::Text,
        Boolean => KeyType::Bool,
        Date32 => KeyType::Date,
        // Finer units do not fit a key of microseconds.
        Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _) => KeyType::Timestamp,
        Dictionary(_, values) => key_type(values)?,
        _ => return None,
    })
}
