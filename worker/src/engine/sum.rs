//! `sum` that fails where its type cannot hold the sum, in place of the engine's own, which wraps around. Whole
//! numbers and decimals are summed in 128 bits and checked at the end, so that the order of the rows does not matter;
//! other types are left to the engine.

use std::{mem::size_of_val, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, PrimitiveArray, UInt64Array},
    buffer::NullBuffer,
    datatypes::{
        ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type,
    },
};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue},
    functions_aggregate::sum::Sum,
    logical_expr::{
        Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};

use super::overflow::overflow;

#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CheckedSum {
    engine: Sum,
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.engine.return_type(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match Total::of(args.return_type()) {
            Some(total) if !args.is_distinct => {
                let name = format_state_name(args.name, "sum");
                Ok(vec![Arc::new(Field::new(name, total.state_type(), true))])
            }
            _ => self.engine.state_fields(args),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match Total::of(args.return_type()) {
            None => self.engine.accumulator(args)?,
            Some(total) if args.is_distinct => Box::new(DistinctSum {
                total,
                values: self.engine.accumulator(args)?,
            }),
            Some(total) => Box::new(OneSum::new(total)),
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match Total::of(args.return_type()) {
            Some(total) if !args.is_distinct => Box::new(OneSum::new(total)),
            _ => self.engine.create_sliding_accumulator(args)?,
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match Total::of(args.return_type()) {
            Some(total) => Box::new(Sums {
                total,
                sums: Vec::new(),
                seen: Vec::new(),
            }),
            None => self.engine.create_groups_accumulator(args)?,
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.engine.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.engine.order_sensitivity()
    }

    fn set_monotonicity(&self, ty: &DataType) -> SetMonotonicity {
        self.engine.set_monotonicity(ty)
    }
}

/// The type of a sum that is checked.
#[derive(Clone, Copy, Debug)]
enum Total {
    Int64,
    UInt64,
    Decimal { precision: u8, scale: i8 },
}

impl Total {
    fn of(ty: &DataType) -> Option<Total> {
        match *ty {
            DataType::Int64 => Some(Total::Int64),
            DataType::UInt64 => Some(Total::UInt64),
            DataType::Decimal128(precision, scale) => Some(Total::Decimal { precision, scale }),
            _ => None,
        }
    }

    fn ty(self) -> DataType {
        match self {
            Total::Int64 => DataType::Int64,
            Total::UInt64 => DataType::UInt64,
            Total::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
        }
    }

    fn state_type(self) -> DataType {
        match self {
            Total::Int64 | Total::UInt64 => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
            Total::Decimal { scale, .. } => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
        }
    }

    fn state(self, sums: Vec<i128>, seen: Vec<bool>) -> ArrayRef {
        let array = Decimal128Array::new(sums.into(), Some(NullBuffer::from(seen)));
        Arc::new(array.with_data_type(self.state_type()))
    }

    /// The sums of those that were `seen`, in the type.
    fn finish(self, sums: Vec<i128>, seen: Vec<bool>) -> Result<ArrayRef> {
        let too_large = |sum: i128| overflow(format_args!("the sum {}", self.shown(sum)), &self.ty());
        let nulls = Some(NullBuffer::from(seen));
        Ok(match self {
            Total::Int64 => {
                let narrow = |sum: i128| i64::try_from(sum).map_err(|_| too_large(sum));
                let values: Vec<i64> = sums.into_iter().map(narrow).collect::<Result<_>>()?;
                Arc::new(Int64Array::new(values.into(), nulls))
            }
            Total::UInt64 => {
                let narrow = |sum: i128| u64::try_from(sum).map_err(|_| too_large(sum));
                let values: Vec<u64> = sums.into_iter().map(narrow).collect::<Result<_>>()?;
                Arc::new(UInt64Array::new(values.into(), nulls))
            }
            Total::Decimal { precision, .. } => {
                let end = 10u128.pow(precision.into());
                if let Some(&sum) = sums.iter().find(|sum| sum.unsigned_abs() >= end) {
                    return Err(too_large(sum));
                }
                Arc::new(Decimal128Array::new(sums.into(), nulls).with_data_type(self.ty()))
            }
        })
    }

    fn one(self, sum: i128, seen: bool) -> Result<ScalarValue> {
        let array = self.finish(vec![sum], vec![seen])?;
        ScalarValue::try_from_array(array.as_ref(), 0)
    }

    fn shown(self, sum: i128) -> String {
        match self {
            Total::Decimal { precision, scale } => {
                use arrow::datatypes::DecimalType;
                Decimal128Type::format_decimal(sum, precision, scale)
            }
            _ => sum.to_string(),
        }
    }

    /// The error of a sum that 128 bits do not hold on the way.
    fn beyond(self) -> DataFusionError {
        overflow(format_args!("a sum"), &self.ty())
    }
}

/// Gives each value of an array, with its place; NULLs not. The array has the type of a [`Total`] or of its state.
fn each_value(array: &dyn Array, mut take: impl FnMut(usize, i128)) -> Result<()> {
    fn each<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, mut take: impl FnMut(usize, T::Native)) {
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => array
                .values()
                .iter()
                .enumerate()
                .for_each(|(at, value)| take(at, *value)),
            Some(nulls) => nulls.valid_indices().for_each(|at| take(at, array.value(at))),
        }
    }
    match array.data_type() {
        DataType::Int64 => each(array.as_primitive::<Int64Type>(), |at, value| take(at, value.into())),
        DataType::UInt64 => each(array.as_primitive::<UInt64Type>(), |at, value| take(at, value.into())),
        DataType::Decimal128(..) => each(array.as_primitive::<Decimal128Type>(), take),
        other => return Err(DataFusionError::Internal(format!("a sum of {other}"))),
    }
    Ok(())
}

/// A sum for each group.
struct Sums {
    total: Total,
    sums: Vec<i128>,
    /// Whether the group has a value.
    seen: Vec<bool>,
}

impl Sums {
    fn add(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.sums.resize(count, 0);
        self.seen.resize(count, false);
        let mut beyond = false;
        let (sums, seen) = (&mut self.sums, &mut self.seen);
        let mut add = |at: usize, value: i128| {
            let group = groups[at];
            let (sum, over) = sums[group].overflowing_add(value);
            sums[group] = sum;
            seen[group] = true;
            beyond |= over;
        };
        match filter {
            None => each_value(values[0].as_ref(), add)?,
            Some(filter) => each_value(values[0].as_ref(), |at, value| {
                if filter.is_valid(at) && filter.value(at) {
                    add(at, value);
                }
            })?,
        }
        match beyond {
            true => Err(self.total.beyond()),
            false => Ok(()),
        }
    }

    fn take(&mut self, emit_to: EmitTo) -> (Vec<i128>, Vec<bool>) {
        (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.seen))
    }
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.add(values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, seen) = self.take(emit_to);
        self.total.finish(sums, seen)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, seen) = self.take(emit_to);
        Ok(vec![self.total.state(sums, seen)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.add(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut apart = Sums {
            total: self.total,
            sums: Vec::new(),
            seen: Vec::new(),
        };
        apart.add(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        apart.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}

/// One sum, from which values may be taken away again.
#[derive(Debug)]
struct OneSum {
    total: Total,
    sum: i128,
    count: u64,
}

impl OneSum {
    fn new(total: Total) -> Self {
        Self {
            total,
            sum: 0,
            count: 0,
        }
    }

    /// The sum of an array and how many values it has.
    fn of(&self, array: &dyn Array) -> Result<(i128, u64)> {
        let (mut sum, mut beyond) = (0i128, false);
        each_value(array, |_, value| {
            let (more, over) = sum.overflowing_add(value);
            sum = more;
            beyond |= over;
        })?;
        match beyond {
            true => Err(self.total.beyond()),
            false => Ok((sum, (array.len() - array.null_count()) as u64)),
        }
    }
}

impl Accumulator for OneSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values[0].as_ref())?;
        self.sum = self.sum.checked_add(sum).ok_or_else(|| self.total.beyond())?;
        self.count += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values[0].as_ref())?;
        self.sum = self.sum.checked_sub(sum).ok_or_else(|| self.total.beyond())?;
        self.count -= count;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.total.state(vec![self.sum], vec![self.count > 0]);
        Ok(vec![ScalarValue::try_from_array(state.as_ref(), 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.total.one(self.sum, self.count > 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sum of the values that the engine's own `sum(DISTINCT …)` has collected.
#[derive(Debug)]
struct DistinctSum {
    total: Total,
    values: Box<dyn Accumulator>,
}

impl Accumulator for DistinctSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut sum = OneSum::new(self.total);
        for state in self.values.state()? {
            if let ScalarValue::List(lists) = state {
                sum.update_batch(std::slice::from_ref(lists.values()))?;
            }
        }
        sum.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }
}
