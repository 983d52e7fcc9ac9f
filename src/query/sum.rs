//! The aggregate `sum` over whole numbers, checked: a sum beyond 64 bits is an error.
//!
//! DataFusion's own function wraps around silently. This one adds up 128 bits, which no number of
//! rows overflows, and narrows the final result. All other types use the original.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator,
    ReversedUDAF, Signature,
};

/// Digits of a decimal of 128 bits.
const DIGITS: u8 = 38;

/// Creates the function.
pub(super) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(CheckedSum { original: sum_udaf() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    original: Arc<AggregateUDF>,
}

fn is_whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.original.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.original.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let to = args.return_field.data_type().clone();
        match (is_whole(&to), args.is_distinct) {
            (true, false) => Ok(Box::new(Sum { to, sum: 0, rows: 0 })),
            (true, true) => {
                Ok(Box::new(DistinctSum { to, inner: self.original.accumulator(args)? }))
            }
            _ => self.original.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        if args.is_distinct || !is_whole(args.return_field.data_type()) {
            return self.original.state_fields(args);
        }
        let name = format_state_name(args.name, "sum");
        Ok(vec![Arc::new(Field::new(name, DataType::Decimal128(DIGITS, 0), true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.original.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let to = args.return_field.data_type().clone();
        if is_whole(&to) {
            Ok(Box::new(Sums { to, sums: Vec::new(), any: Vec::new() }))
        } else {
            self.original.create_groups_accumulator(args)
        }
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        if is_whole(args.return_field.data_type()) && !args.is_distinct {
            self.accumulator(args)
        } else {
            self.original.create_sliding_accumulator(args)
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.original.documentation()
    }
}

/// Calls `take` with each whole number, or sum of them, and its position.
fn each(values: &ArrayRef, mut take: impl FnMut(usize, i128)) {
    fn of<T: ArrowPrimitiveType>(values: &ArrayRef, mut take: impl FnMut(usize, i128))
    where
        i128: From<T::Native>,
    {
        let values = values.as_primitive::<T>();
        for (at, value) in values.values().iter().enumerate() {
            if values.is_valid(at) {
                take(at, i128::from(*value));
            }
        }
    }
    match values.data_type() {
        DataType::Int64 => of::<Int64Type>(values, &mut take),
        DataType::UInt64 => of::<UInt64Type>(values, &mut take),
        _ => of::<Decimal128Type>(values, &mut take),
    }
}

fn overflow(sum: i128) -> datafusion::error::DataFusionError {
    exec_datafusion_err!(
        "sum is {sum}, which does not fit 64 bits; add up numbers of another type, such as `sum(cast(x as double))`"
    )
}

/// Converts sums to 64 bits.
fn narrowed(to: &DataType, sums: impl Iterator<Item = Option<i128>>) -> Result<ArrayRef> {
    fn of<T: ArrowPrimitiveType>(sums: impl Iterator<Item = Option<i128>>) -> Result<ArrayRef>
    where
        T::Native: TryFrom<i128>,
    {
        let narrow = |sum: Option<i128>| {
            sum.map(|sum| T::Native::try_from(sum).map_err(|_| overflow(sum))).transpose()
        };
        Ok(Arc::new(sums.map(narrow).collect::<Result<PrimitiveArray<T>>>()?))
    }
    if *to == DataType::UInt64 { of::<UInt64Type>(sums) } else { of::<Int64Type>(sums) }
}

fn wide(sums: impl Iterator<Item = Option<i128>>) -> Result<ArrayRef> {
    Ok(Arc::new(sums.collect::<Decimal128Array>().with_precision_and_scale(DIGITS, 0)?))
}

/// A single sum.
#[derive(Debug)]
struct Sum {
    to: DataType,
    sum: i128,
    /// Number of values in the sum. The sum of none is null.
    rows: u64,
}

impl Sum {
    fn known(&self) -> Option<i128> {
        (self.rows > 0).then_some(self.sum)
    }
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |_, value| {
            (self.sum, self.rows) = (self.sum.saturating_add(value), self.rows + 1)
        });
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |_, value| {
            (self.sum, self.rows) = (self.sum.saturating_sub(value), self.rows.saturating_sub(1));
        });
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&narrowed(&self.to, std::iter::once(self.known()))?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128(self.known(), DIGITS, 0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Sum of distinct values, which the original keeps as its state.
#[derive(Debug)]
struct DistinctSum {
    to: DataType,
    inner: Box<dyn Accumulator>,
}

impl Accumulator for DistinctSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut sum = Sum { to: self.to.clone(), sum: 0, rows: 0 };
        for state in self.inner.state()? {
            if let ScalarValue::List(values) = state {
                sum.update_batch(&[values.value(0)])?;
            }
        }
        sum.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

/// Sums by group.
#[derive(Debug)]
struct Sums {
    to: DataType,
    sums: Vec<i128>,
    /// True for each group with any value.
    any: Vec<bool>,
}

impl Sums {
    fn take(&mut self, emit_to: EmitTo) -> impl Iterator<Item = Option<i128>> {
        let sums = emit_to.take_needed(&mut self.sums);
        let any = emit_to.take_needed(&mut self.any);
        sums.into_iter().zip(any).map(|(sum, any)| any.then_some(sum))
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
        self.sums.resize(total_num_groups, 0);
        self.any.resize(total_num_groups, false);
        let passes = |at| opt_filter.is_none_or(|filter| filter.is_valid(at) && filter.value(at));
        each(&values[0], |at, value| {
            if passes(at) {
                let group = group_indices[at];
                self.sums[group] = self.sums[group].saturating_add(value);
                self.any[group] = true;
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let to = self.to.clone();
        narrowed(&to, self.take(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![wide(self.take(emit_to))?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let passes = |at| {
            opt_filter.is_none_or(|filter: &BooleanArray| filter.is_valid(at) && filter.value(at))
        };
        let mut states = vec![None; values[0].len()];
        each(&values[0], |at, value| states[at] = passes(at).then_some(value));
        Ok(vec![wide(states.into_iter())?])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.capacity() * size_of::<i128>() + self.any.capacity()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn ask(statement: &str) -> Result<String> {
        let session = SessionContext::new();
        session.register_udaf(AggregateUDF::clone(&function()));
        let rows = session.sql(statement).await?.collect().await?;
        Ok(arrow::util::pretty::pretty_format_batches(&rows)?.to_string())
    }

    const ROWS: &str = "(values (1, 9223372036854775807, null), (1, 1, null), (2, 5, null), (2, null, null)) t(g, x, n)";

    #[tokio::test]
    async fn a_sum_beyond_64_bits_is_an_error_in_every_form() {
        for statement in [
            "select sum(x) from {}",
            "select g, sum(x) from {} group by g",
            "select sum(distinct x) from {}",
            "select g, sum(distinct x), count(*) from {} group by g",
            "select sum(x) filter (where g = 1) from {}",
            "select sum(x) over () from {}",
            "select sum(x) over (order by x rows between 1 preceding and current row) from {}",
        ] {
            let statement = statement.replace("{}", ROWS);
            let error = ask(&statement).await.expect_err(&statement).to_string();
            assert!(error.contains("does not fit 64 bits"), "{statement}: {error}");
        }
    }

    #[tokio::test]
    async fn other_sums_are_as_they_were() {
        for (statement, sums) in [
            ("select sum(x) from {} where g = 2", "5"),
            ("select sum(x) from {} where g > 9", ""),
            ("select sum(cast(n as bigint)) from {}", ""),
            ("select sum(g) from {}", "6"),
            ("select sum(distinct g) from {}", "3"),
            ("select sum(cast(g as double)) from {}", "6.0"),
            ("select sum(cast(g as decimal(5, 2))) from {}", "6.00"),
            ("select sum(x - 1) from {} where g = 1", "9223372036854775806"),
            ("select g, sum(g) from {} group by g order by g", "1 2 2 4"),
            (
                "select sum(g) over (order by x rows between 1 preceding and current row) s from {} order by s",
                "1 3 3 3",
            ),
        ] {
            let answer = ask(&statement.replace("{}", ROWS)).await.unwrap();
            let cells: Vec<&str> =
                answer.lines().skip(3).flat_map(|line| line.split(['|', '+', '-', ' '])).collect();
            let cells: Vec<&str> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
            assert_eq!(cells.join(" "), sums, "{statement}\n{answer}");
        }
    }
}
