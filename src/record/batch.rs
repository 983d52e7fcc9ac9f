//! Converts records to Arrow batches, and foreign Arrow batches to ours.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Date32Array, Float64Array, Float64Builder,
    Int32Array, Int32Builder, Int64Array, Int64Builder, MapBuilder, MapFieldNames, RecordBatch,
    StringBuilder, StringViewArray, StringViewBuilder, StructArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::FormatOptions;

use super::json::{check_json, embeddable};
use super::{Column, Kind, Limit, Message, Rows, limits, schema};
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};

/// Text bytes below which a batch releases the memory that its builders reserved but did not use.
pub(super) const TIGHT_BELOW_BYTES: usize = 256 << 10;
/// Memory of a row apart from its text, in bytes.
pub const ROW_OVERHEAD: usize = 900;
/// Shared text below this size is not worth copying.
const SHARED_BYTES: usize = 64 << 10;
/// Casts that report a value that does not fit as an error rather than as null.
const STRICT: CastOptions<'_> = CastOptions { safe: false, format_options: FormatOptions::new() };
const MICROS_A_DAY: i64 = 86_400_000_000;

/// Builder of one column: takes the Rust value of its kind, and produces the Arrow array.
pub(super) trait ColumnBuilder<V> {
    fn start() -> Self;
    /// Appends a value and returns the number of text bytes in it.
    fn append(&mut self, value: &V) -> usize;
    fn finish(&mut self) -> ArrayRef;
}

/// Returns the number of text bytes in a value.
pub(super) trait TextBytes {
    fn text_bytes(&self) -> usize {
        0
    }
}

impl TextBytes for Option<String> {
    fn text_bytes(&self) -> usize {
        self.as_ref().map_or(0, String::len)
    }
}
impl TextBytes for Vec<(String, String)> {
    fn text_bytes(&self) -> usize {
        self.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}
impl TextBytes for Message {
    fn text_bytes(&self) -> usize {
        self.body.text_bytes() + self.headers.text_bytes()
    }
}
impl TextBytes for Option<i64> {}
impl TextBytes for Option<i32> {}
impl TextBytes for Option<f64> {}
impl TextBytes for Option<bool> {}
impl TextBytes for Option<chrono::DateTime<chrono::Utc>> {}

macro_rules! primitive_builder {
    ($builder:ty, $value:ty) => {
        impl ColumnBuilder<Option<$value>> for $builder {
            fn start() -> Self {
                Self::new()
            }
            fn append(&mut self, value: &Option<$value>) -> usize {
                self.append_option(*value);
                0
            }
            fn finish(&mut self) -> ArrayRef {
                Arc::new(Self::finish(self))
            }
        }
    };
}
primitive_builder!(Int64Builder, i64);
primitive_builder!(Int32Builder, i32);
primitive_builder!(Float64Builder, f64);
primitive_builder!(BooleanBuilder, bool);

impl ColumnBuilder<Option<String>> for StringViewBuilder {
    fn start() -> Self {
        Self::new()
    }
    fn append(&mut self, value: &Option<String>) -> usize {
        self.append_option(value.as_deref());
        value.text_bytes()
    }
    fn finish(&mut self) -> ArrayRef {
        Arc::new(Self::finish(self))
    }
}

impl ColumnBuilder<Option<chrono::DateTime<chrono::Utc>>> for TimestampMicrosecondBuilder {
    fn start() -> Self {
        Self::new().with_timezone("UTC")
    }
    fn append(&mut self, value: &Option<chrono::DateTime<chrono::Utc>>) -> usize {
        self.append_option(value.map(|at| at.timestamp_micros()));
        0
    }
    fn finish(&mut self) -> ArrayRef {
        Arc::new(Self::finish(self))
    }
}

impl ColumnBuilder<Vec<(String, String)>> for MapBuilder<StringBuilder, StringBuilder> {
    fn start() -> Self {
        let names =
            MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
        Self::new(Some(names), StringBuilder::new(), StringBuilder::new())
            .with_keys_field(Field::new("key", DataType::Utf8, false))
            .with_values_field(Field::new("value", DataType::Utf8, true))
    }
    fn append(&mut self, value: &Vec<(String, String)>) -> usize {
        for (key, value) in value {
            self.keys().append_value(key);
            self.values().append_value(value);
        }
        let present = !value.is_empty();
        #[expect(clippy::expect_used, reason = "keys and values are appended in pairs just above")]
        MapBuilder::append(self, present).expect("as many keys as values");
        value.text_bytes()
    }
    fn finish(&mut self) -> ArrayRef {
        Arc::new(Self::finish(self))
    }
}

/// Builder of the two texts of a [`Message`].
#[derive(Debug)]
pub(super) struct MessageBuilder {
    body: StringViewBuilder,
    headers: StringViewBuilder,
}

impl ColumnBuilder<Message> for MessageBuilder {
    fn start() -> Self {
        Self { body: ColumnBuilder::start(), headers: ColumnBuilder::start() }
    }
    fn append(&mut self, value: &Message) -> usize {
        ColumnBuilder::append(&mut self.body, &value.body)
            + ColumnBuilder::append(&mut self.headers, &value.headers)
    }
    fn finish(&mut self) -> ArrayRef {
        let columns =
            vec![ColumnBuilder::finish(&mut self.body), ColumnBuilder::finish(&mut self.headers)];
        let DataType::Struct(fields) = Kind::Message.data_type() else {
            unreachable!("a message is a struct")
        };
        Arc::new(StructArray::new(fields, columns, None))
    }
}

macro_rules! builder_type {
    (Text) => { arrow::array::StringViewBuilder };
    (Int) => { arrow::array::Int64Builder };
    (Short) => { arrow::array::Int32Builder };
    (Float) => { arrow::array::Float64Builder };
    (Bool) => { arrow::array::BooleanBuilder };
    (Time) => { arrow::array::TimestampMicrosecondBuilder };
    (Tags) => {
        arrow::array::MapBuilder<arrow::array::StringBuilder, arrow::array::StringBuilder>
    };
    (Message) => { batch::MessageBuilder };
}
pub(super) use builder_type;

macro_rules! builder {
    ($row:ident, $builder:ident, $rows:expr; $($name:ident: $kind:ident;)*) => {
        /// Collects rows into one batch of their schema.
        #[derive(Debug)]
        pub struct $builder {
            $($name: batch::builder_type!($kind),)*
            retention_days: arrow::array::Int32Builder,
            rows: usize,
            text_bytes: usize,
        }

        impl $row {
            /// Returns the bytes of the row's text.
            pub fn text_bytes(&self) -> usize {
                0 $(+ batch::TextBytes::text_bytes(&self.$name))*
            }

            /// Estimates the row's memory in bytes.
            pub fn held_bytes(&self) -> usize {
                self.text_bytes() + batch::ROW_OVERHEAD
            }
        }

        impl $builder {
            /// Creates an empty builder.
            pub fn new() -> Self {
                Self {
                    $($name: batch::ColumnBuilder::start(),)*
                    retention_days: arrow::array::Int32Builder::new(),
                    rows: 0,
                    text_bytes: 0,
                }
            }

            /// Appends one row.
            pub fn append(&mut self, row: &$row) {
                $(self.text_bytes += batch::ColumnBuilder::append(&mut self.$name, &row.$name);)*
                self.retention_days.append_value(row.retention_days);
                self.rows += 1;
            }

            /// Returns the number of rows appended since the last [`finish`](Self::finish).
            pub fn rows(&self) -> usize {
                self.rows
            }

            /// Returns the bytes of text appended since the last [`finish`](Self::finish).
            pub fn text_bytes(&self) -> usize {
                self.text_bytes
            }

            /// Returns the batch of everything appended, and resets the builder.
            pub fn finish(&mut self) -> arrow::array::RecordBatch {
                let roomy = self.text_bytes < batch::TIGHT_BELOW_BYTES;
                self.rows = 0;
                self.text_bytes = 0;
                let columns = vec![
                    $(batch::ColumnBuilder::finish(&mut self.$name),)*
                    std::sync::Arc::new(self.retention_days.finish()),
                ];
                let finished = batch::with_date($rows, columns);
                if roomy { batch::tighten(&finished) } else { finished }
            }
        }

        impl Default for $builder {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}
pub(super) use builder;

/// Returns the same rows with text buffers that hold only the text of these rows.
///
/// Text views share the buffers of the batches that they were cut from, so a filtered or
/// concatenated batch can keep far more memory alive, and write far more to the log, than its rows
/// need.
pub fn tighten(batch: &RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(tighten_column).collect();
    #[expect(clippy::expect_used, reason = "neither types nor lengths change")]
    RecordBatch::try_new(batch.schema(), columns).expect("the same schema")
}

fn tighten_column(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::Struct(fields) => {
            let inner = column.as_struct();
            let children = inner.columns().iter().map(tighten_column).collect();
            Arc::new(StructArray::new(fields.clone(), children, inner.nulls().cloned()))
        }
        _ => Arc::clone(column),
    }
}

/// Copies the text of a column into its own buffers if it is a small part of shared ones: a slice
/// of a big batch would count, and keep alive, all of them.
pub fn own_text(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => {
            let texts = column.as_string_view();
            let held: usize = texts.data_buffers().iter().map(|buffer| buffer.len()).sum();
            if held > texts.total_buffer_bytes_used().saturating_mul(2).max(SHARED_BYTES) {
                Arc::new(texts.gc())
            } else {
                Arc::clone(column)
            }
        }
        DataType::Struct(fields) => {
            let structs = column.as_struct();
            let children = structs.columns().iter().map(own_text).collect();
            Arc::new(StructArray::new(fields.clone(), children, structs.nulls().cloned()))
        }
        _ => Arc::clone(column),
    }
}

/// Appends a column with the `date` of each row's `created_at`.
pub(super) fn with_date(rows: Rows, mut columns: Vec<ArrayRef>) -> RecordBatch {
    let schema = rows.schema();
    #[expect(
        clippy::expect_used,
        reason = "the columns come from the table of columns, in its order"
    )]
    {
        let at = schema.index_of("created_at").expect("created_at is a column");
        let dates: Date32Array = columns[at]
            .as_primitive::<TimestampMicrosecondType>()
            .unary_opt(|micros| i32::try_from(micros.div_euclid(MICROS_A_DAY)).ok());
        columns.push(Arc::new(dates));
        RecordBatch::try_new(schema, columns).expect("the columns of the schema")
    }
}

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
        if let (Some(last), Some(known)) = (columns.last_mut(), super::column(field.name())) {
            *last = within_limits(last, known)?;
        }
    }
    let organisation = columns[own.index_of("organisation_id").unwrap_or(1)].as_string_view();
    let retention: Int32Array = organisation
        .iter()
        .map(|name| Some((defaults.retention_days)(name.unwrap_or("default"))))
        .collect();
    columns.push(Arc::new(retention));
    Ok(with_date(Rows::Logs, columns))
}

/// Applies the limit of a column: names and figures beyond it become null; ids and times refuse the
/// batch.
fn within_limits(column: &ArrayRef, of: &Column) -> Result<ArrayRef> {
    let refused = |error: super::json::FieldError| Error::invalid(error.to_string());
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
                if !time.is_some_and(super::is_storable) {
                    return Err(Error::invalid(format!(
                        "column `{}` has {micros} µs; expected {}",
                        of.name,
                        super::TIME
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
