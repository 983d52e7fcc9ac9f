//! Reads rows out of Arrow batches: the inverse of the [builders](super::builders).

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, Utc};

use super::message::Message;
use super::schema::Kind;
use crate::error::{Error, Result};

/// A Rust value of one kind of column, read from the Arrow array of that kind.
pub(super) trait ReadColumn: Sized {
    /// Sets each cell to the value of its row. `None` if the array has another type.
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()>
    where
        Self: 'a;
}

/// Reads the column with this name into one field of each row. A column that the batch lacks leaves
/// the fields empty; one of another type is cast.
pub(super) fn fill<'a, V: ReadColumn + 'a>(
    batch: &RecordBatch,
    name: &str,
    kind: Kind,
    cells: impl Iterator<Item = &'a mut V>,
) -> Result<()> {
    let Some(column) = batch.column_by_name(name) else { return Ok(()) };
    let unreadable = || {
        let found = column.data_type();
        Error::internal(format!("column `{name}` of a batch to read has type {found}"))
    };
    let column =
        cast(column, &kind.data_type()).map_err(|cause| unreadable().with_source(cause))?;
    V::read(&column, cells).ok_or_else(unreadable)
}

fn read_primitive<'a, T: ArrowPrimitiveType, V: 'a>(
    column: &ArrayRef,
    cells: impl Iterator<Item = &'a mut Option<V>>,
    value: impl Fn(T::Native) -> Option<V>,
) -> Option<()> {
    let column = column.as_primitive_opt::<T>()?;
    for (cell, found) in cells.zip(column) {
        *cell = found.and_then(&value);
    }
    Some(())
}

fn read_text<'a>(column: &StringViewArray, cells: impl Iterator<Item = &'a mut Option<String>>) {
    for (cell, found) in cells.zip(column) {
        *cell = found.map(str::to_owned);
    }
}

impl ReadColumn for Option<String> {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        read_text(column.as_string_view_opt()?, cells);
        Some(())
    }
}

impl ReadColumn for Option<i64> {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        read_primitive::<Int64Type, _>(column, cells, Some)
    }
}

impl ReadColumn for Option<i32> {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        read_primitive::<Int32Type, _>(column, cells, Some)
    }
}

/// JSON has no infinity and no NaN, so a record has none either.
impl ReadColumn for Option<f64> {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        let finite = |number: f64| number.is_finite().then_some(number);
        read_primitive::<Float64Type, _>(column, cells, finite)
    }
}

impl ReadColumn for Option<DateTime<Utc>> {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        let time = DateTime::from_timestamp_micros;
        read_primitive::<TimestampMicrosecondType, _>(column, cells, time)
    }
}

impl ReadColumn for Option<bool> {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        for (cell, found) in cells.zip(column.as_boolean_opt()?) {
            *cell = found;
        }
        Some(())
    }
}

impl ReadColumn for Vec<(String, String)> {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        let map = column.as_map_opt()?;
        let keys = map.keys().as_string_opt::<i32>()?;
        let values = map.values().as_string_opt::<i32>()?;
        for (row, cell) in cells.enumerate().take(map.len()).filter(|(row, _)| map.is_valid(*row)) {
            let [start, end] = [row, row + 1].map(|at| map.value_offsets()[at] as usize);
            let pairs = (start..end).filter(|at| values.is_valid(*at));
            *cell =
                pairs.map(|at| (keys.value(at).to_owned(), values.value(at).to_owned())).collect();
        }
        Some(())
    }
}

impl ReadColumn for Message {
    fn read<'a>(column: &ArrayRef, cells: impl Iterator<Item = &'a mut Self>) -> Option<()> {
        let messages = column.as_struct_opt()?;
        let bodies = messages.column_by_name("body")?.as_string_view_opt()?;
        let headers = messages.column_by_name("headers")?.as_string_view_opt()?;
        for (row, cell) in cells.enumerate().take(messages.len()) {
            let text = |texts: &StringViewArray| {
                let is_there = messages.is_valid(row) && texts.is_valid(row);
                is_there.then(|| texts.value(row).to_owned())
            };
            *cell = Message { body: text(bodies), headers: text(headers) };
        }
        Some(())
    }
}

macro_rules! reader {
    ($row:ident; $($name:ident: $kind:ident;)*) => {
        impl $row {
            /// Reads the rows of a batch. Columns that the batch lacks are empty in each row, and
            /// `retention_days` is 0: the engine sets it from the plan.
            pub fn from_batch(batch: &RecordBatch) -> crate::error::Result<Vec<Self>> {
                let mut rows = vec![Self::default(); batch.num_rows()];
                $(read::fill(
                    batch,
                    stringify!($name),
                    Kind::$kind,
                    rows.iter_mut().map(|row| &mut row.$name),
                )?;)*
                Ok(rows)
            }
        }
    };
}
pub(super) use reader;
