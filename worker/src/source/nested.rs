//! Nested columns as the engine takes them: a part of what is NULL is NULL itself.
//!
//! Arrow leaves open what stands in the parts of a NULL struct (files hold zeros there, or nothing at all), and the
//! engine's access to a field hands over the part as it stands.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, MapArray, StructArray, make_array,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Field, FieldRef},
    error::ArrowError,
};

/// The type with parts that may all be NULL, so that the same column of two files has one type.
pub fn open_type(ty: &DataType) -> DataType {
    let open = |part: &FieldRef| Arc::new(open_field(part, true));
    match ty {
        DataType::Struct(parts) => DataType::Struct(parts.iter().map(open).collect()),
        DataType::List(item) => DataType::List(open(item)),
        DataType::LargeList(item) => DataType::LargeList(open(item)),
        DataType::FixedSizeList(item, count) => DataType::FixedSizeList(open(item), *count),
        // A map's entries and keys are never NULL.
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(parts) if parts.len() == 2 => {
                let parts = [Arc::new(open_field(&parts[0], false)), open(&parts[1])];
                let entries = Field::new(entries.name(), DataType::Struct(parts.into_iter().collect()), false);
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => ty.clone(),
        },
        other => other.clone(),
    }
}

fn open_field(part: &Field, nullable: bool) -> Field {
    Field::new(part.name(), open_type(part.data_type()), nullable)
}

/// The column in its [`open_type`], with NULL in all parts of what is NULL.
///
/// Errors: none for arrays that are sound.
pub fn opened(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match (column.data_type(), open_type(column.data_type())) {
        (DataType::Struct(_), DataType::Struct(parts)) => {
            let column = column.as_struct();
            let below = |part: &ArrayRef| opened(&with_nulls(part, column.nulls())?);
            let columns = column.columns().iter().map(below).collect::<Result<_, _>>()?;
            Arc::new(StructArray::try_new_with_length(
                parts,
                columns,
                column.nulls().cloned(),
                column.len(),
            )?)
        }
        (DataType::List(_), DataType::List(item)) => {
            let (_, offsets, values, nulls) = column.as_list::<i32>().clone().into_parts();
            Arc::new(ListArray::try_new(item, offsets, opened(&values)?, nulls)?)
        }
        (DataType::LargeList(_), DataType::LargeList(item)) => {
            let (_, offsets, values, nulls) = column.as_list::<i64>().clone().into_parts();
            Arc::new(LargeListArray::try_new(item, offsets, opened(&values)?, nulls)?)
        }
        (DataType::FixedSizeList(_, count), DataType::FixedSizeList(item, _)) => {
            let (_, _, values, nulls) = column.as_fixed_size_list().clone().into_parts();
            Arc::new(FixedSizeListArray::try_new(item, *count, opened(&values)?, nulls)?)
        }
        (DataType::Map(_, _), DataType::Map(field, sorted)) => {
            let (_, offsets, entries, nulls, _) = column.as_map().clone().into_parts();
            let DataType::Struct(parts) = field.data_type().clone() else {
                return Ok(column.clone());
            };
            let columns = entries.columns().iter().map(opened).collect::<Result<_, _>>()?;
            let entries = StructArray::try_new(parts, columns, None)?;
            Arc::new(MapArray::try_new(field, offsets, entries, nulls, sorted)?)
        }
        _ => column.clone(),
    })
}

/// The array, NULL also where `above` is.
fn with_nulls(array: &ArrayRef, above: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    if above.is_none_or(|above| above.null_count() == 0) || array.data_type() == &DataType::Null {
        return Ok(array.clone());
    }
    let nulls = NullBuffer::union(array.nulls(), above);
    let data = array.to_data().into_builder().nulls(nulls).build()?;
    Ok(make_array(data))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray},
        buffer::OffsetBuffer,
        datatypes::{Fields, Int64Type},
    };

    use super::*;

    /// NULL, then 7; below the NULL there stands 5, which nobody may see.
    fn second_of_two() -> ArrayRef {
        let parts = Fields::from(vec![Field::new("n", DataType::Int64, false)]);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
        Arc::new(StructArray::new(
            parts,
            vec![column],
            Some(NullBuffer::from(vec![false, true])),
        ))
    }

    fn numbers(column: &ArrayRef) -> Vec<Option<i64>> {
        column
            .as_struct()
            .column(0)
            .as_primitive::<Int64Type>()
            .iter()
            .collect()
    }

    #[test]
    fn a_part_of_a_null_struct_is_null() {
        let found = opened(&second_of_two()).expect("sound");
        assert_eq!(numbers(&found), [None, Some(7)]);
        assert_eq!(found.data_type(), &open_type(second_of_two().data_type()));
    }

    #[test]
    fn structs_in_structs_lists_and_maps_are_looked_into() {
        let inner = second_of_two();
        let field = |nullable| Field::new("rec", inner.data_type().clone(), nullable);
        let outer: ArrayRef = Arc::new(StructArray::new(
            Fields::from(vec![field(true)]),
            vec![inner.clone()],
            Some(NullBuffer::from(vec![true, false])),
        ));
        let found = opened(&outer).expect("sound");
        assert_eq!(numbers(found.as_struct().column(0)), [None, None]);

        let offsets = OffsetBuffer::from_lengths([2]);
        let list: ArrayRef = Arc::new(ListArray::new(
            Arc::new(field(true)),
            offsets.clone(),
            inner.clone(),
            None,
        ));
        let found = opened(&list).expect("sound");
        assert_eq!(numbers(found.as_list::<i32>().values()), [None, Some(7)]);

        let parts = Fields::from(vec![Field::new("keys", DataType::Utf8, false), field(true)]);
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let entries = StructArray::new(parts.clone(), vec![keys, inner.clone()], None);
        let entry = Arc::new(Field::new("entries", DataType::Struct(parts), false));
        let map: ArrayRef = Arc::new(MapArray::new(entry, offsets, entries, None, false));
        let found = opened(&map).expect("sound");
        assert_eq!(numbers(found.as_map().values()), [None, Some(7)]);
        assert_eq!(found.data_type(), &open_type(map.data_type()));
    }
}
