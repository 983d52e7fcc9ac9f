//! Columns of stored rows: their types, their Arrow schema, and the order of the rows.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::limits::Limit;

/// Type of a column, which determines its Arrow type, its Rust type and its JSON form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// A signed 64-bit integer.
    Int,
    /// A signed 32-bit integer.
    Short,
    /// A 64-bit float.
    Float,
    /// `true` or `false`.
    Bool,
    /// A time in UTC, in microseconds. In JSON it is RFC 3339 with milliseconds, or microseconds if
    /// needed.
    Time,
    /// A map of text to text.
    Tags,
    /// Two JSON texts, `body` and `headers`: stored unchanged, and embedded as raw JSON in the JSON
    /// form.
    Message,
}

/// One row of the table of columns.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name in SQL, Parquet and JSON.
    pub name: &'static str,
    /// Type of the values.
    pub kind: Kind,
    /// Limit of the values.
    pub limit: Limit,
    /// Meaning of the values, with their unit.
    pub doc: &'static str,
}

impl Kind {
    /// Returns the Arrow type of a column of this kind.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8View,
            Self::Int => DataType::Int64,
            Self::Short => DataType::Int32,
            Self::Float => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Tags => {
                let entry = Fields::from(vec![
                    Field::new("key", DataType::Utf8, false),
                    Field::new("value", DataType::Utf8, true),
                ]);
                DataType::Map(
                    Arc::new(Field::new("key_value", DataType::Struct(entry), false)),
                    false,
                )
            }
            Self::Message => DataType::Struct(Fields::from(vec![
                Field::new("body", DataType::Utf8View, true),
                Field::new("headers", DataType::Utf8View, true),
            ])),
        }
    }
}

macro_rules! rust_type {
    (Text) => { Option<String> };
    (Int) => { Option<i64> };
    (Short) => { Option<i32> };
    (Float) => { Option<f64> };
    (Bool) => { Option<bool> };
    (Time) => { Option<chrono::DateTime<chrono::Utc>> };
    (Tags) => { Vec<(String, String)> };
    (Message) => { Message };
}

pub(super) use rust_type;

/// Partition column: days to keep the rows. 0 means for ever.
pub const RETENTION_DAYS: &str = "retention_days";
/// Partition column: UTC day of `created_at`.
pub const DATE: &str = "date";

/// Columns by which files are sorted, in order, ascending.
pub const SORT_KEY: [&str; 3] = ["organisation_id", "created_at", "id"];
/// Sort options: the defaults of SQL, so that `order by` of these columns does not sort the files
/// again.
pub const SORT_OPTIONS: SortOptions = SortOptions { descending: false, nulls_first: false };

/// Returns the partition columns, in the order of the folders.
pub fn partition_fields() -> [Field; 2] {
    [Field::new(RETENTION_DAYS, DataType::Int32, true), Field::new(DATE, DataType::Date32, true)]
}

/// Returns the schema of a batch within the engine: the columns, then the partition columns.
pub(super) fn batch_schema(columns: &[Column]) -> SchemaRef {
    let fields = columns.iter().map(field).chain(partition_fields());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Returns the schema of a Parquet file: the columns without the partition columns.
pub(super) fn file_schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn field(column: &Column) -> Field {
    Field::new(column.name, column.kind.data_type(), true)
}
