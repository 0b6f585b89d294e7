//! `sum` that fails where its type cannot hold the sum, in place of the engine's own, which wraps around. Whole
//! numbers and decimals are summed in 128 bits and checked at the end, so that the order of the rows does not matter;
//! other types are left to the engine.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    marker::PhantomData,
    mem::size_of_val,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray},
    buffer::NullBuffer,
    datatypes::{
        ArrowNativeType, ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
        Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef, Int64Type,
        UInt64Type, i256,
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
        let Some(total) = Total::of(args.return_type()) else {
            return self.engine.accumulator(args);
        };
        Ok(match (args.is_distinct, total.is_widest()) {
            (false, false) => Box::new(OneSum::<i128>::new(total)),
            (false, true) => Box::new(OneSum::<i256>::new(total)),
            (true, false) => Box::new(DistinctSum::<i128>::of(total, self.engine.accumulator(args)?)),
            (true, true) => Box::new(DistinctSum::<i256>::of(total, self.engine.accumulator(args)?)),
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let Some(total) = Total::of(args.return_type()) else {
            return self.engine.create_sliding_accumulator(args);
        };
        Ok(match (args.is_distinct, total.is_widest()) {
            (false, false) => Box::new(OneSum::<i128>::new(total)),
            (false, true) => Box::new(OneSum::<i256>::new(total)),
            (true, false) => Box::new(SlidingDistinctSum::<i128>::of(total)),
            (true, true) => Box::new(SlidingDistinctSum::<i256>::of(total)),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.engine.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match Total::of(args.return_type()) {
            Some(total) if total.is_widest() => Box::new(Sums::<i256>::of(total)),
            Some(total) => Box::new(Sums::<i128>::of(total)),
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
#[derive(Clone, Debug)]
struct Total(DataType);

impl Total {
    fn of(ty: &DataType) -> Option<Total> {
        let is_known = matches!(ty, DataType::Int64 | DataType::UInt64) || ty.is_decimal();
        is_known.then(|| Total(ty.clone()))
    }

    /// Whether 128 bits do not hold all that the type does.
    fn is_widest(&self) -> bool {
        matches!(self.0, DataType::Decimal256(..))
    }

    fn state_type(&self) -> DataType {
        match self.0 {
            DataType::Decimal256(_, scale) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale)
            }
            _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
        }
    }

    /// The error of a sum that is calculated with too few bits on the way.
    fn beyond(&self) -> DataFusionError {
        overflow(format_args!("a sum"), &self.0)
    }

    fn too_large(&self, shown: &str) -> DataFusionError {
        overflow(format_args!("the sum {shown}"), &self.0)
    }

    fn unknown(&self) -> DataFusionError {
        DataFusionError::Internal(format!("a sum of {}", self.0))
    }
}

/// What sums are calculated in.
trait Wide: ArrowNativeType + Eq + Hash {
    /// The type of sums on the way.
    type State: DecimalType<Native = Self> + ArrowPrimitiveType;

    /// The sum, and whether it has left the bits.
    fn adding(self, other: Self) -> (Self, bool);

    fn less(self, other: Self) -> Option<Self>;

    /// Gives each value of an array, with its place; NULLs not. The array has the type of a [`Total`] or of its state.
    fn each(array: &dyn Array, take: impl FnMut(usize, Self)) -> Result<()>;

    /// The sums of those that were `seen`, in the type.
    fn finish(total: &Total, sums: Vec<Self>, seen: Vec<bool>) -> Result<ArrayRef>;

    /// One sum, in the type; `None` is NULL.
    fn one(total: &Total, sum: Option<Self>) -> Result<ScalarValue>;

    fn state(total: &Total, sums: Vec<Self>, seen: Vec<bool>) -> ArrayRef {
        let array = PrimitiveArray::<Self::State>::new(sums.into(), Some(NullBuffer::from(seen)));
        Arc::new(array.with_data_type(total.state_type()))
    }
}

fn each<T: ArrowPrimitiveType>(array: &dyn Array, mut take: impl FnMut(usize, T::Native)) {
    let array = array.as_primitive::<T>();
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => array
            .values()
            .iter()
            .enumerate()
            .for_each(|(at, value)| take(at, *value)),
        Some(nulls) => nulls.valid_indices().for_each(|at| take(at, array.value(at))),
    }
}

/// The sums in a type of fewer bits, as `narrow` makes each.
fn narrowed<W: Wide, T: ArrowPrimitiveType>(
    total: &Total,
    sums: Vec<W>,
    seen: Vec<bool>,
    narrow: impl Fn(W) -> Result<T::Native>,
) -> Result<ArrayRef> {
    let values: Vec<T::Native> = sums.into_iter().map(narrow).collect::<Result<_>>()?;
    let array = PrimitiveArray::<T>::new(values.into(), Some(NullBuffer::from(seen)));
    Ok(Arc::new(array.with_data_type(total.0.clone())))
}

fn whole<N: TryFrom<i128>>(total: &Total, sum: i128) -> Result<N> {
    N::try_from(sum).map_err(|_| total.too_large(&sum.to_string()))
}

/// A number of so many digits.
fn digits<N: TryFrom<i128>>(total: &Total, precision: u8, scale: i8, sum: i128) -> Result<N> {
    let fits = sum.unsigned_abs() < 10u128.pow(precision.into());
    let number = N::try_from(sum).ok().filter(|_| fits);
    number.ok_or_else(|| total.too_large(&Decimal128Type::format_decimal(sum, precision, scale)))
}

impl Wide for i128 {
    type State = Decimal128Type;

    fn adding(self, other: Self) -> (Self, bool) {
        self.overflowing_add(other)
    }

    fn less(self, other: Self) -> Option<Self> {
        self.checked_sub(other)
    }

    fn each(array: &dyn Array, mut take: impl FnMut(usize, Self)) -> Result<()> {
        match array.data_type() {
            DataType::Int64 => each::<Int64Type>(array, |at, value| take(at, value.into())),
            DataType::UInt64 => each::<UInt64Type>(array, |at, value| take(at, value.into())),
            DataType::Decimal32(..) => each::<Decimal32Type>(array, |at, value| take(at, value.into())),
            DataType::Decimal64(..) => each::<Decimal64Type>(array, |at, value| take(at, value.into())),
            DataType::Decimal128(..) => each::<Decimal128Type>(array, take),
            other => return Err(Total(other.clone()).unknown()),
        }
        Ok(())
    }

    fn finish(total: &Total, sums: Vec<Self>, seen: Vec<bool>) -> Result<ArrayRef> {
        match total.0 {
            DataType::Int64 => narrowed::<_, Int64Type>(total, sums, seen, |sum| whole(total, sum)),
            DataType::UInt64 => narrowed::<_, UInt64Type>(total, sums, seen, |sum| whole(total, sum)),
            DataType::Decimal32(p, s) => narrowed::<_, Decimal32Type>(total, sums, seen, |it| digits(total, p, s, it)),
            DataType::Decimal64(p, s) => narrowed::<_, Decimal64Type>(total, sums, seen, |it| digits(total, p, s, it)),
            DataType::Decimal128(p, s) => {
                narrowed::<_, Decimal128Type>(total, sums, seen, |it| digits(total, p, s, it))
            }
            _ => Err(total.unknown()),
        }
    }

    fn one(total: &Total, sum: Option<Self>) -> Result<ScalarValue> {
        Ok(match total.0 {
            DataType::Int64 => ScalarValue::Int64(sum.map(|sum| whole(total, sum)).transpose()?),
            DataType::UInt64 => ScalarValue::UInt64(sum.map(|sum| whole(total, sum)).transpose()?),
            DataType::Decimal32(p, s) => {
                ScalarValue::Decimal32(sum.map(|sum| digits(total, p, s, sum)).transpose()?, p, s)
            }
            DataType::Decimal64(p, s) => {
                ScalarValue::Decimal64(sum.map(|sum| digits(total, p, s, sum)).transpose()?, p, s)
            }
            DataType::Decimal128(p, s) => {
                ScalarValue::Decimal128(sum.map(|sum| digits(total, p, s, sum)).transpose()?, p, s)
            }
            _ => return Err(total.unknown()),
        })
    }
}

impl Wide for i256 {
    type State = Decimal256Type;

    fn adding(self, other: Self) -> (Self, bool) {
        match self.checked_add(other) {
            Some(sum) => (sum, false),
            None => (self.wrapping_add(other), true),
        }
    }

    fn less(self, other: Self) -> Option<Self> {
        self.checked_sub(other)
    }

    fn each(array: &dyn Array, take: impl FnMut(usize, Self)) -> Result<()> {
        match array.data_type() {
            DataType::Decimal256(..) => each::<Decimal256Type>(array, take),
            other => return Err(Total(other.clone()).unknown()),
        }
        Ok(())
    }

    fn finish(total: &Total, sums: Vec<Self>, seen: Vec<bool>) -> Result<ArrayRef> {
        narrowed::<_, Decimal256Type>(total, sums, seen, |sum| total.widest(sum))
    }

    fn one(total: &Total, sum: Option<Self>) -> Result<ScalarValue> {
        let sum = sum.map(|sum| total.widest(sum)).transpose()?;
        match total.0 {
            DataType::Decimal256(precision, scale) => Ok(ScalarValue::Decimal256(sum, precision, scale)),
            _ => Err(total.unknown()),
        }
    }
}

impl Total {
    fn widest(&self, sum: i256) -> Result<i256> {
        let DataType::Decimal256(precision, scale) = self.0 else {
            return Err(self.unknown());
        };
        match Decimal256Type::is_valid_decimal_precision(sum, precision) {
            true => Ok(sum),
            false => Err(self.too_large(&Decimal256Type::format_decimal(sum, precision, scale))),
        }
    }
}

/// A sum for each group.
struct Sums<W> {
    total: Total,
    sums: Vec<W>,
    /// Whether the group has a value.
    seen: Vec<bool>,
}

impl<W: Wide> Sums<W> {
    fn of(total: Total) -> Self {
        Self {
            total,
            sums: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn add(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.sums.resize(count, W::default());
        self.seen.resize(count, false);
        let mut beyond = false;
        let (sums, seen) = (&mut self.sums, &mut self.seen);
        let mut add = |at: usize, value: W| {
            let group = groups[at];
            let (sum, over) = sums[group].adding(value);
            sums[group] = sum;
            seen[group] = true;
            beyond |= over;
        };
        match filter {
            None => W::each(values[0].as_ref(), add)?,
            Some(filter) => W::each(values[0].as_ref(), |at, value| {
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

    fn take(&mut self, emit_to: EmitTo) -> (Vec<W>, Vec<bool>) {
        (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.seen))
    }
}

impl<W: Wide> GroupsAccumulator for Sums<W> {
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
        W::finish(&self.total, sums, seen)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, seen) = self.take(emit_to);
        Ok(vec![W::state(&self.total, sums, seen)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.add(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut apart = Sums::<W>::of(self.total.clone());
        apart.add(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        apart.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<W>() + self.seen.capacity()
    }
}

/// One sum, from which values may be taken away again.
#[derive(Debug)]
struct OneSum<W> {
    total: Total,
    sum: W,
    count: u64,
}

impl<W: Wide> OneSum<W> {
    fn new(total: Total) -> Self {
        Self {
            total,
            sum: W::default(),
            count: 0,
        }
    }

    fn add(&mut self, value: W) -> Result<()> {
        let (sum, over) = self.sum.adding(value);
        if over {
            return Err(self.total.beyond());
        }
        self.sum = sum;
        Ok(())
    }

    fn take(&mut self, value: W) -> Result<()> {
        self.sum = self.sum.less(value).ok_or_else(|| self.total.beyond())?;
        Ok(())
    }

    /// The sum of an array and how many values it has.
    fn of(&self, array: &dyn Array) -> Result<(W, u64)> {
        let (mut sum, mut beyond) = (W::default(), false);
        W::each(array, |_, value| {
            let (more, over) = sum.adding(value);
            sum = more;
            beyond |= over;
        })?;
        match beyond {
            true => Err(self.total.beyond()),
            false => Ok((sum, (array.len() - array.null_count()) as u64)),
        }
    }
}

impl<W: Wide> Accumulator for OneSum<W> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values[0].as_ref())?;
        self.add(sum)?;
        self.count += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (sum, count) = self.of(values[0].as_ref())?;
        self.take(sum)?;
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
        let state = W::state(&self.total, vec![self.sum], vec![self.count > 0]);
        Ok(vec![ScalarValue::try_from_array(state.as_ref(), 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        W::one(&self.total, (self.count > 0).then_some(self.sum))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sum of the values that the engine's own `sum(DISTINCT …)` has collected.
#[derive(Debug)]
struct DistinctSum<W> {
    total: Total,
    values: Box<dyn Accumulator>,
    wide: PhantomData<W>,
}

impl<W> DistinctSum<W> {
    fn of(total: Total, values: Box<dyn Accumulator>) -> Self {
        Self {
            total,
            values,
            wide: PhantomData,
        }
    }
}

impl<W: Wide> Accumulator for DistinctSum<W> {
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
        let mut sum = OneSum::<W>::new(self.total.clone());
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

/// The sum of the different values in a frame that moves over the rows.
#[derive(Debug)]
struct SlidingDistinctSum<W> {
    sum: OneSum<W>,
    /// How often each is in the frame.
    counts: HashMap<W, u64>,
}

impl<W: Wide> SlidingDistinctSum<W> {
    fn of(total: Total) -> Self {
        Self {
            sum: OneSum::new(total),
            counts: HashMap::new(),
        }
    }
}

impl<W: Wide> Accumulator for SlidingDistinctSum<W> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut added = Ok(());
        W::each(values[0].as_ref(), |_, value| {
            let count = self.counts.entry(value).or_default();
            *count += 1;
            if *count == 1 && added.is_ok() {
                added = self.sum.add(value);
            }
        })?;
        added
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut taken = Ok(());
        W::each(values[0].as_ref(), |_, value| {
            if let Entry::Occupied(mut count) = self.counts.entry(value) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                    if taken.is_ok() {
                        taken = self.sum.take(value);
                    }
                }
            }
        })?;
        taken
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(no_parts())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(no_parts())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = (!self.counts.is_empty()).then_some(self.sum.sum);
        W::one(&self.sum.total, sum)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.capacity() * (size_of::<(W, u64)>() + 1)
    }
}

/// A frame is never calculated in parts.
fn no_parts() -> DataFusionError {
    DataFusionError::Internal("a part of a sum over a moving frame".to_string())
}
