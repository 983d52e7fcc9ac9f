//! Converts foreign Arrow batches to ours.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Fields, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::FormatOptions;

use super::builders::with_date;
use super::columns::{self, schema};
use super::json::{FieldError, check_json, embeddable};
use super::limits::{self, Limit};
use super::schema::{Column, Kind};
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};

/// Casts that report a value that does not fit as an error rather than as null.
const STRICT: CastOptions<'_> = CastOptions { safe: false, format_options: FormatOptions::new() };
/// Values that the engine fills in if a foreign batch lacks them.
pub struct Defaults<'a> {
    /// Arrival time in µs since 1970, for rows without `created_at` or with one later than
    /// `latest_micros`.
    pub now_micros: i64,
    /// Latest `created_at` that a row may have, in µs since 1970.
    pub latest_micros: i64,
    /// Number of rows with a later `created_at`.
    pub redated: u64,
    /// Generator of ids for rows without one.
    pub new_id: &'a mut dyn FnMut() -> String,
    /// Days to keep rows, by organisation.
    pub retention_days: &'a dyn Fn(&str) -> i32,
}

impl std::fmt::Debug for Defaults<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Defaults").field("now_micros", &self.now_micros).finish_non_exhaustive()
    }
}

/// Converts an Arrow batch whose columns are a subset of ours (by name, with castable types) to
/// [`schema`].
///
/// Missing columns become null. `id`, `organisation_id`, `created_at` and the partition columns are
/// filled in if they are missing or null. An unknown column or a type that cannot be cast is an
/// error that names it.
pub fn normalize(batch: &RecordBatch, defaults: &mut Defaults<'_>) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let own = schema();
    if let Some(field) =
        batch.schema().fields().iter().find(|field| own.field_with_name(field.name()).is_err())
    {
        let known = own.fields().iter().map(|field| field.name().as_str());
        let hint = hint(field.name(), known, "columns", "`gatelog guide schema`");
        return Err(Error::invalid(format!("column `{}` is unknown; {hint}", clip(field.name()))));
    }
    let mut columns = Vec::with_capacity(own.fields().len());
    for field in &own.fields()[..own.fields().len() - 2] {
        let column = match batch.column_by_name(field.name()) {
            None => new_null_array(field.data_type(), rows),
            Some(column) => conform(column, field.data_type()).map_err(|cause| {
                Error::invalid(format!(
                    "column `{}` has type {}, which cannot become {}",
                    field.name(),
                    column.data_type(),
                    field.data_type()
                ))
                .with_source(cause)
            })?,
        };
        columns.push(match field.name().as_str() {
            "id" => fill_text(&column, || (defaults.new_id)()),
            "organisation_id" => fill_text(&column, || "default".to_owned()),
            "created_at" => fill_time(&column, defaults),
            "mode" | "cache_status" | "cache_type" => {
                map_text(&column, |text| Cow::Owned(text.to_uppercase()))
            }
            "request" | "response" => embeddable_message(&column),
            _ => column,
        });
        if let (Some(last), Some(known)) = (columns.last_mut(), columns::column(field.name())) {
            *last = within_limits(last, known)?;
        }
    }
    let organisation = columns[own.index_of("organisation_id").unwrap_or(1)].as_string_view();
    let retention: Int32Array = organisation
        .iter()
        .map(|name| Some((defaults.retention_days)(name.unwrap_or("default"))))
        .collect();
    columns.push(Arc::new(retention));
    Ok(with_date(own, columns))
}

/// Applies the limit of a column: names and figures beyond it become null; ids and times refuse the
/// batch.
fn within_limits(column: &ArrayRef, of: &Column) -> Result<ArrayRef> {
    let refused = |error: FieldError| Error::invalid(error.to_string());
    match of.kind {
        Kind::Text => {
            let most = of.limit.text_bytes();
            let texts = column.as_string_view();
            let Some(long) =
                texts.lengths().map(|bytes| bytes as usize).find(|bytes| *bytes > most)
            else {
                return Ok(Arc::clone(column));
            };
            if of.limit == Limit::Id {
                return Err(refused(limits::too_long(of.name, long, of.limit)));
            }
            let kept = texts.iter().map(|text| text.filter(|text| text.len() <= most));
            Ok(Arc::new(kept.collect::<StringViewArray>()))
        }
        Kind::Int => {
            let figures = column.as_primitive::<Int64Type>().iter();
            let kept: Int64Array =
                figures.map(|figure| kept_value(figure, of)).collect::<Result<_>>()?;
            Ok(Arc::new(kept))
        }
        Kind::Float => {
            let numbers = column.as_primitive::<Float64Type>().iter();
            let kept: Float64Array =
                numbers.map(|number| kept_value(number, of)).collect::<Result<_>>()?;
            Ok(Arc::new(kept))
        }
        Kind::Time => {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            for micros in times.iter().flatten() {
                let time = chrono::DateTime::from_timestamp_micros(micros);
                if !time.is_some_and(limits::is_storable) {
                    return Err(Error::invalid(format!(
                        "column `{}` has {micros} µs; expected {}",
                        of.name,
                        limits::TIME
                    )));
                }
            }
            Ok(Arc::clone(column))
        }
        // The ingest policy checks metadata and messages row by row.
        Kind::Short | Kind::Bool | Kind::Tags | Kind::Message => Ok(Arc::clone(column)),
    }
}

fn kept_value<T>(mut value: Option<T>, of: &Column) -> Result<Option<T>>
where
    Option<T>: limits::Limited,
{
    let kept = limits::Limited::keep(&mut value, of.name, of.limit, &mut 0);
    kept.map_err(|error| Error::invalid(error.to_string()))?;
    Ok(value)
}

/// Casts a column to our type. Struct and map children are matched by name and position.
fn conform(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    if let (DataType::Struct(fields), Some(from)) = (to, column.as_struct_opt()) {
        return conform_struct(from, fields);
    }
    cast_with_options(column, to, &STRICT)
}

fn conform_struct(
    from: &StructArray,
    fields: &Fields,
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let children = fields
        .iter()
        .map(|field| match from.column_by_name(field.name()) {
            Some(child) => cast_with_options(child, field.data_type(), &STRICT),
            None => Ok(new_null_array(field.data_type(), from.len())),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(StructArray::try_new(fields.clone(), children, from.nulls().cloned())?))
}

/// Replaces texts that are null or empty.
fn fill_text(column: &ArrayRef, mut value: impl FnMut() -> String) -> ArrayRef {
    let filled = column.as_string_view().iter();
    let filled = filled.map(|text| {
        Some(text.filter(|text| !text.is_empty()).map_or_else(&mut value, str::to_owned))
    });
    Arc::new(filled.collect::<StringViewArray>())
}

fn map_text(column: &ArrayRef, change: impl Fn(&str) -> Cow<'_, str>) -> ArrayRef {
    Arc::new(
        column.as_string_view().iter().map(|text| text.map(&change)).collect::<StringViewArray>(),
    )
}

/// Makes every body and header text embeddable in a JSON line. Text that is not JSON becomes a JSON
/// string.
fn embeddable_message(column: &ArrayRef) -> ArrayRef {
    let message = column.as_struct();
    let part = |part: &ArrayRef| {
        if part.as_string_view().iter().flatten().all(check_json) {
            Arc::clone(part)
        } else {
            map_text(part, embeddable)
        }
    };
    let parts = message.columns().iter().map(part).collect();
    Arc::new(StructArray::new(message.fields().clone(), parts, message.nulls().cloned()))
}

fn fill_time(column: &ArrayRef, defaults: &mut Defaults<'_>) -> ArrayRef {
    let given = column.as_primitive::<TimestampMicrosecondType>();
    let is_ahead = |at: &i64| *at > defaults.latest_micros;
    let ahead = given.iter().flatten().filter(is_ahead).count() as u64;
    if column.null_count() == 0 && ahead == 0 {
        return Arc::clone(column);
    }
    let time = |at: Option<i64>| at.filter(|at| !is_ahead(at)).unwrap_or(defaults.now_micros);
    let filled: TimestampMicrosecondArray = given.iter().map(|at| Some(time(at))).collect();
    defaults.redated += ahead;
    Arc::new(filled.with_timezone("UTC"))
}
