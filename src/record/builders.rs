//! Builders of Arrow batches, and the buffers of their text.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Date32Array, Float64Builder, Int32Builder,
    Int64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, StringViewBuilder,
    StructArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, SchemaRef, TimestampMicrosecondType};

use super::message::Message;
use super::schema::Kind;

/// Text bytes below which a batch releases the memory that its builders reserved but did not use.
pub(super) const TIGHT_BELOW_BYTES: usize = 256 << 10;
/// Memory of a row apart from its text, in bytes.
pub const ROW_OVERHEAD: usize = 900;
/// Shared text below this size is not worth copying.
const SHARED_BYTES: usize = 64 << 10;
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
    (Message) => { builders::MessageBuilder };
}
pub(super) use builder_type;

macro_rules! builder {
    ($row:ident, $builder:ident, $schema:expr; $($name:ident: $kind:ident;)*) => {
        /// Collects rows into one batch of their schema.
        #[derive(Debug)]
        pub struct $builder {
            $($name: builders::builder_type!($kind),)*
            retention_days: arrow::array::Int32Builder,
            rows: usize,
            text_bytes: usize,
        }

        impl $row {
            /// Returns the bytes of the row's text.
            pub fn text_bytes(&self) -> usize {
                0 $(+ builders::TextBytes::text_bytes(&self.$name))*
            }

            /// Estimates the row's memory in bytes.
            pub fn held_bytes(&self) -> usize {
                self.text_bytes() + builders::ROW_OVERHEAD
            }
        }

        impl $builder {
            /// Creates an empty builder.
            pub fn new() -> Self {
                Self {
                    $($name: builders::ColumnBuilder::start(),)*
                    retention_days: arrow::array::Int32Builder::new(),
                    rows: 0,
                    text_bytes: 0,
                }
            }

            /// Appends one row.
            pub fn append(&mut self, row: &$row) {
                $(self.text_bytes += builders::ColumnBuilder::append(&mut self.$name, &row.$name);)*
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
                let roomy = self.text_bytes < builders::TIGHT_BELOW_BYTES;
                self.rows = 0;
                self.text_bytes = 0;
                let columns = vec![
                    $(builders::ColumnBuilder::finish(&mut self.$name),)*
                    std::sync::Arc::new(self.retention_days.finish()),
                ];
                let finished = builders::with_date($schema, columns);
                if roomy { builders::tighten(&finished) } else { finished }
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
pub(super) fn with_date(schema: SchemaRef, mut columns: Vec<ArrayRef>) -> RecordBatch {
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
