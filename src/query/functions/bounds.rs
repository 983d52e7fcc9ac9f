//! Upper bounds of the bytes and steps of functions, for one row.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit, TimestampNanosecondType,
};
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;

/// Computes the bound of one row.
pub(in super::super) type Bound = fn(&[Arg], usize) -> u64;

/// Resource of a function that is bounded.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Measure {
    /// Bytes of the result.
    Bytes(Bound),
    /// Steps of the evaluation.
    Steps(Bound),
}

/// Bytes of a list element beside its value: its offset, or its view.
const ELEMENT: u64 = 16;
const DAY_NANOS: i128 = 86_400_000_000_000;

/// Argument of a function, for all rows of a batch.
#[derive(Debug)]
pub(in super::super) struct Arg {
    values: ArrayRef,
    /// True if all rows have the same value.
    is_one: bool,
    /// Values as whole numbers, if they are numbers.
    whole: Option<ArrayRef>,
}

impl Arg {
    pub(super) fn from_value(value: &ColumnarValue) -> Result<Self> {
        let (values, is_one) = match value {
            ColumnarValue::Array(array) => (ArrayRef::clone(array), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
        };
        let whole = if values.data_type().is_numeric() {
            cast_with_options(&values, &DataType::Int64, &CastOptions::default()).ok()
        } else {
            None
        };
        Ok(Self { values, is_one, whole })
    }

    fn row(&self, row: usize) -> usize {
        if self.is_one { 0 } else { row }
    }

    /// Returns the bytes of the value.
    fn bytes(&self, row: usize) -> u64 {
        bytes(&self.values, self.row(row))
    }

    /// Returns the number of elements of a list, including those of nested lists.
    fn elements(&self, row: usize) -> u64 {
        elements(&self.values, self.row(row))
    }

    /// Returns a whole number: 0 for null, and the maximum if it does not fit.
    fn whole(&self, row: usize) -> i64 {
        let row = self.row(row);
        if self.values.is_null(row) {
            return 0;
        }
        match &self.whole {
            Some(whole) if whole.is_valid(row) => whole.as_primitive::<Int64Type>().value(row),
            _ => i64::MAX,
        }
    }

    fn count(&self, row: usize) -> u64 {
        u64::try_from(self.whole(row)).unwrap_or(0)
    }
}

fn bytes(array: &dyn Array, row: usize) -> u64 {
    if array.is_null(row) {
        return 0;
    }
    let length = match array.data_type() {
        DataType::Null => 0,
        DataType::Utf8 => array.as_string::<i32>().value(row).len(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).len(),
        DataType::Utf8View => array.as_string_view().value(row).len(),
        DataType::Binary => array.as_binary::<i32>().value(row).len(),
        DataType::LargeBinary => array.as_binary::<i64>().value(row).len(),
        DataType::BinaryView => array.as_binary_view().value(row).len(),
        DataType::Struct(_) => {
            return array.as_struct().columns().iter().map(|column| bytes(column, row)).sum();
        }
        DataType::Dictionary(..) => {
            return bytes(array.as_any_dictionary().values(), 0).max(ELEMENT);
        }
        kind => match items(array, row) {
            Some(items) => return (0..items.len()).map(|item| bytes(&items, item) + ELEMENT).sum(),
            None => kind.primitive_width().unwrap_or(16),
        },
    };
    length as u64
}

fn elements(array: &dyn Array, row: usize) -> u64 {
    match items(array, row) {
        Some(items) => (0..items.len()).map(|item| elements(&items, item).max(1)).sum(),
        None => 1,
    }
}

/// Returns the elements of a list. `None` for other types.
fn items(array: &dyn Array, row: usize) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(row)),
        DataType::Map(..) => {
            Some(ArrayRef::from(Box::new(array.as_map().value(row)) as Box<dyn Array>))
        }
        _ => None,
    }
}

fn at(args: &[Arg], place: usize, row: usize) -> u64 {
    args.get(place).map_or(0, |arg| arg.bytes(row))
}

fn count(args: &[Arg], place: usize, row: usize) -> u64 {
    args.get(place).map_or(0, |arg| arg.count(row))
}

/// All arguments concatenated: `concat`, `make_array`.
pub(super) fn sum(args: &[Arg], row: usize) -> u64 {
    args.iter().map(|arg| arg.bytes(row) + ELEMENT).sum()
}

/// The first argument between all others: `concat_ws`.
pub(super) fn separated(args: &[Arg], row: usize) -> u64 {
    let separators = at(args, 0, row).saturating_mul(args.len() as u64);
    sum(args, row).saturating_add(separators)
}

/// The first argument repeated, with the count in the second: `repeat`.
pub(super) fn repeated(args: &[Arg], row: usize) -> u64 {
    at(args, 0, row).saturating_mul(count(args, 1, row))
}

/// A list that repeats the first argument, with the count in the second: `array_repeat`.
pub(super) fn list_repeated(args: &[Arg], row: usize) -> u64 {
    (at(args, 0, row) + ELEMENT).saturating_mul(count(args, 1, row))
}

/// A list whose length is the second argument: `array_resize`.
pub(super) fn list_resized(args: &[Arg], row: usize) -> u64 {
    let filled = (at(args, 2, row) + ELEMENT).saturating_mul(count(args, 1, row));
    at(args, 0, row).saturating_add(filled)
}

/// A text whose length is the second argument: `lpad`.
pub(super) fn padded(args: &[Arg], row: usize) -> u64 {
    at(args, 0, row).saturating_add(count(args, 1, row).saturating_mul(4))
}

/// The first argument, with each occurrence of the second replaced by the third: `replace`.
pub(super) fn replaced(args: &[Arg], row: usize) -> u64 {
    let text = at(args, 0, row);
    let from = at(args, 1, row);
    let to = at(args, 2, row);
    let places = text.checked_div(from).unwrap_or(text + 1);
    text.saturating_add(places.saturating_mul(to))
}

/// The first argument, with each match of the second replaced by the third, which may refer to
/// groups: `regexp_replace`.
pub(super) fn matches_replaced(args: &[Arg], row: usize) -> u64 {
    let text = at(args, 0, row);
    let to = at(args, 2, row);
    // A match may be empty, and the matches of one group together are no longer than the text.
    let groups = to / 2;
    let all = args.get(3).is_some_and(|flags| flags.bytes(row) > 0);
    let places = if all { text + 1 } else { 1 };
    text.saturating_add(places.saturating_mul(to)).saturating_add(groups.saturating_mul(text))
}

/// A list of the pieces of a text: `string_to_array`.
pub(super) fn pieces(args: &[Arg], row: usize) -> u64 {
    let text = at(args, 0, row);
    let separator = at(args, 1, row);
    text.saturating_add((text / separator.max(1) + 1).saturating_mul(ELEMENT))
}

/// The elements of a list as one text, with the second argument between them: `array_to_string`.
pub(super) fn as_text(args: &[Arg], row: usize) -> u64 {
    let Some(list) = args.first() else { return 0 };
    let each = at(args, 1, row).saturating_add(at(args, 2, row)).saturating_add(32);
    list.bytes(row).saturating_add(list.elements(row).saturating_mul(each))
}

/// A list in which elements are replaced by the third argument: `array_replace_all`.
pub(super) fn elements_replaced(args: &[Arg], row: usize) -> u64 {
    let Some(list) = args.first() else { return 0 };
    list.bytes(row).saturating_add(list.elements(row).saturating_mul(at(args, 2, row) + ELEMENT))
}

/// A list of numbers or times: `range`, `generate_series`.
pub(super) fn series(args: &[Arg], row: usize) -> u64 {
    let numbers = args.iter().all(|arg| arg.whole.is_some() || arg.values.data_type().is_null());
    let values = if numbers {
        let (start, stop, step) = match args {
            [stop] => (0, stop.whole(row), 1),
            [start, stop] => (start.whole(row), stop.whole(row), 1),
            [start, stop, step, ..] => (start.whole(row), stop.whole(row), step.whole(row)),
            [] => (0, 0, 1),
        };
        steps_between(i128::from(start), i128::from(stop), i128::from(step))
    } else {
        times(args, row).unwrap_or(u64::MAX)
    };
    values.saturating_mul(8)
}

fn steps_between(start: i128, stop: i128, step: i128) -> u64 {
    if step == 0 {
        return 1;
    }
    let steps = (stop - start) / step;
    u64::try_from(steps.max(0) + 1).unwrap_or(u64::MAX)
}

/// Returns the number of elements in a series of times. `None` if it cannot be determined.
fn times(args: &[Arg], row: usize) -> Option<u64> {
    let [start, stop, step] = args else { return None };
    if [start, stop, step].iter().any(|arg| arg.values.is_null(arg.row(row))) {
        return Some(1);
    }
    Some(steps_between(nanos(start, row)?, nanos(stop, row)?, least_nanos(step, row)?))
}

fn nanos(arg: &Arg, row: usize) -> Option<i128> {
    let row = arg.row(row);
    match arg.values.data_type() {
        DataType::Date32 => {
            Some(i128::from(arg.values.as_primitive::<Date32Type>().value(row)) * DAY_NANOS)
        }
        DataType::Timestamp(unit, _) => {
            let whole =
                cast_with_options(&arg.values, &DataType::Int64, &CastOptions::default()).ok()?;
            let value = i128::from(whole.as_primitive::<Int64Type>().value(row));
            Some(match unit {
                TimeUnit::Second => value * 1_000_000_000,
                TimeUnit::Millisecond => value * 1_000_000,
                TimeUnit::Microsecond => value * 1_000,
                TimeUnit::Nanosecond => value,
            })
        }
        kind => {
            let to = DataType::Timestamp(TimeUnit::Nanosecond, None);
            let times = arrow::compute::cast(&arg.values, &to).ok().filter(|_| !kind.is_null())?;
            Some(i128::from(times.as_primitive::<TimestampNanosecondType>().value(row)))
        }
    }
}

/// Returns the shortest duration of an interval. `None` if its parts have different signs.
fn least_nanos(arg: &Arg, row: usize) -> Option<i128> {
    let row = arg.row(row);
    let DataType::Interval(unit) = arg.values.data_type() else { return None };
    let (months, days, nanos) = match unit {
        IntervalUnit::YearMonth => {
            (arg.values.as_primitive::<IntervalYearMonthType>().value(row), 0, 0)
        }
        IntervalUnit::DayTime => {
            let value = arg.values.as_primitive::<IntervalDayTimeType>().value(row);
            (0, value.days, i64::from(value.milliseconds) * 1_000_000)
        }
        IntervalUnit::MonthDayNano => {
            let value = arg.values.as_primitive::<IntervalMonthDayNanoType>().value(row);
            (value.months, value.days, value.nanoseconds)
        }
    };
    let signs = [i64::from(months).signum(), i64::from(days).signum(), nanos.signum()];
    if signs.contains(&1) && signs.contains(&-1) {
        return None;
    }
    Some(i128::from(months) * 28 * DAY_NANOS + i128::from(days) * DAY_NANOS + i128::from(nanos))
}

/// The product of the lengths of two texts: `levenshtein`.
pub(super) fn each_with_each(args: &[Arg], row: usize) -> u64 {
    at(args, 0, row).saturating_mul(at(args, 1, row))
}

/// The product of the lengths of two lists: `array_has_all`.
pub(super) fn elements_with_each(args: &[Arg], row: usize) -> u64 {
    let [one, other, ..] = args else { return 0 };
    let first = one.elements(row);
    let second = other.elements(row);
    let longest = one.bytes(row).max(other.bytes(row));
    first.saturating_mul(second).saturating_add(longest)
}

/// A few steps for each byte of the arguments: regular expressions.
pub(super) fn each(args: &[Arg], row: usize) -> u64 {
    sum(args, row)
}

/// A text that is searched for in another one: `strpos`.
pub(super) fn searched(args: &[Arg], row: usize) -> u64 {
    match args {
        // A pattern that is the same for all rows takes a single pass.
        [_, wanted, ..] if !wanted.is_one => each_with_each(args, row) / 16,
        _ => sum(args, row),
    }
}
