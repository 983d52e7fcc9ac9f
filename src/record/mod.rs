//! The rows that are stored, records of gateway calls and feedback on them, with one table of
//! columns for each.
//!
//! The table below is the only place that names the columns of records. The [`Record`] struct, the
//! Arrow schema, the builder of batches and the JSON form (in [`json`]) are generated from it, and
//! each column states its [`Limit`] there. Names and units are Portkey's, so SQL reads like
//! Portkey's documentation. A value that a source does not give is null, never a made-up 0.
//!
//! A batch within the engine has the columns of [`schema`]: those of the table, then the partition
//! columns `retention_days` and `date`. The partition columns become folders of the Delta table
//! instead of columns of its files ([`file_schema`]).
//!
//! [`Feedback`] from users has its own table of columns. [`Rows`] distinguishes the two kinds in
//! code that handles both.

pub(crate) mod attempt;
mod batch;
mod feedback;
pub mod json;
mod limits;
mod read;

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

pub use batch::{Defaults, ROW_OVERHEAD, normalize, own_text, tighten};
pub use feedback::{Feedback, FeedbackBuilder, HIGHEST_VALUE, LOWEST_VALUE};
pub use limits::{Limit, MAX_TAGS};
pub(crate) use limits::{TIME, is_storable};

/// Kind of stored rows. Each kind has its own Delta table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rows {
    /// [`Record`]s: table `logs`.
    Logs,
    /// [`Feedback`]. Each row is one state, and the state with the latest `updated_at` of an id is
    /// current.
    Feedback,
}

impl Rows {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Logs, Self::Feedback];

    /// Returns the name of the Delta table and of its folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Feedback => "feedback",
        }
    }

    /// Returns the SQL name of the rows as stored. `feedback` is a view of the current states.
    pub fn table(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Feedback => "feedback_history",
        }
    }

    /// Returns the columns without the partition columns.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Logs => COLUMNS,
            Self::Feedback => feedback::COLUMNS,
        }
    }

    /// Returns the schema of a batch within the engine: the columns, then the partition columns.
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 2]> = LazyLock::new(|| {
            Rows::ALL.map(|rows| {
                let fields = rows.columns().iter().map(field).chain(partition_fields());
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            })
        });
        Arc::clone(&SCHEMAS[self as usize])
    }

    /// Returns the schema of a Parquet file: the columns without the partition columns.
    pub fn file_schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 2]> = LazyLock::new(|| {
            Rows::ALL.map(|rows| {
                Arc::new(Schema::new(rows.columns().iter().map(field).collect::<Vec<_>>()))
            })
        });
        Arc::clone(&SCHEMAS[self as usize])
    }
}

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

/// The JSON texts of one side of a call. Each is valid JSON on one line, as the client sent it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The payload, usually an object.
    pub body: Option<String>,
    /// The headers, an object of strings.
    pub headers: Option<String>,
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

pub(crate) use rust_type;

macro_rules! columns {
    ($($name:ident: $kind:ident, $limit:ident, $doc:literal;)*) => {
        /// The table of columns, in the order of the schema, without the partition columns.
        pub const COLUMNS: &[Column] =
            &[$(Column {
                name: stringify!($name),
                kind: Kind::$kind,
                limit: Limit::$limit,
                doc: $doc,
            },)*];

        /// One gateway call. `None` means that the source did not say.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Record {
            $(#[doc = $doc] pub $name: rust_type!($kind),)*
            /// Days to keep the record. 0 means for ever. The engine sets it from the plan and
            /// ignores a client's value.
            pub retention_days: i32,
        }

        impl Record {
            /// Removes the value of a column.
            pub fn clear(&mut self, column: &str) {
                match column {
                    $(stringify!($name) => self.$name = Default::default(),)*
                    _ => {}
                }
            }
        }

        batch::builder!(Record, BatchBuilder, Rows::Logs; $($name: $kind;)*);
        json::fields!($($name: $kind;)*);
        limits::keep_limits!(Record; $($name: $limit;)*);
        read::reader!(Record; $($name: $kind;)*);
    };
}

columns! {
    id: Text, Id, "unique id of the record; a UUIDv7 if the client sends none";
    organisation_id: Text, Id, "organisation that the record belongs to; `default` if there is none";
    workspace_slug: Text, Id, "workspace within the organisation";
    created_at: Time, Time, "time of the call, UTC, microseconds; arrival time if the client does not give one";
    is_success: Short, Code, "1 if the response status is 200 to 299, else 0";
    ai_org: Text, Name, "provider, such as `openai`";
    ai_model: Text, Name, "model that answered, or the requested model if the source gives only that";
    req_units: Int, Figure, "tokens of the request";
    res_units: Int, Figure, "tokens of the response";
    total_units: Int, Figure, "tokens of both";
    cost: Float, Money, "cost in cents of `cost_currency`";
    cost_currency: Text, Name, "currency of the cost, `USD`";
    request_url: Text, Url, "URL of the provider that was called";
    request_method: Text, Name, "HTTP method of the call";
    response_status_code: Short, Code, "HTTP status of the response";
    response_time: Int, Figure, "time to the response, ms, retries included; to the first token of a stream";
    time_to_last_token: Int, Figure, "time to the last token of a stream, ms";
    upstream_response_time: Int, Figure, "time that the provider took, ms";
    cache_status: Text, Name, "HIT, SEMANTIC HIT, MISS, SEMANTIC MISS, REFRESH or DISABLED";
    cache_type: Text, Name, "SIMPLE or SEMANTIC";
    stream_mode: Bool, Code, "true if the response was streamed";
    retry_success_count: Short, Code, "number of the retry that succeeded; 0 if none was needed, -1 if all failed";
    mode: Text, Name, "SINGLE, FALLBACK, LOADBALANCE or CONDITIONAL";
    last_used_option: Text, Name, "JSON path of the target that answered, such as `config.targets[1]`";
    virtual_key: Text, Name, "slug of the provider key that was used";
    config: Text, Url, "slug of the gateway config";
    prompt_slug: Text, Name, "slug of the prompt template";
    prompt_version_id: Text, Name, "version of the prompt template";
    runtime: Text, Name, "runtime of the client, such as `node`";
    runtime_version: Text, Name, "version of the runtime";
    sdk_version: Text, Name, "client library with its version";
    trace_id: Text, Id, "trace that the call belongs to";
    span_id: Text, Id, "span of the call";
    parent_span_id: Text, Id, "span that caused it";
    span_name: Text, Name, "name of the span";
    internal_trace_id: Text, Id, "groups the attempts of one call to the gateway";
    user_id: Text, Id, "end user: the `_user` of the metadata";
    api_key_id: Text, Name, "id of the API key that made the call";
    source: Text, Name, "sender of the record";
    do_not_track: Bool, Code, "true if the client asked that no content be kept";
    metadata: Tags, Tags, "the caller's own keys and values";
    request: Message, Message, "request of the call: `request.body` and `request.headers`, JSON";
    response: Message, Message, "response of the call: `response.body` and `response.headers`, JSON";
}

/// Partition column: days to keep the rows. 0 means for ever.
pub const RETENTION_DAYS: &str = "retention_days";
/// Partition column: UTC day of `created_at`.
pub const DATE: &str = "date";

/// Columns by which files are sorted, in order, ascending.
pub const SORT_KEY: [&str; 3] = ["organisation_id", "created_at", "id"];
/// Sort options: the defaults of SQL, so that `order by` of these columns does not sort the files
/// again.
pub const SORT_OPTIONS: SortOptions = SortOptions { descending: false, nulls_first: false };

/// Returns [`Rows::schema`] of records.
pub fn schema() -> SchemaRef {
    Rows::Logs.schema()
}

/// Returns the partition columns, in the order of the folders.
pub fn partition_fields() -> [Field; 2] {
    [Field::new(RETENTION_DAYS, DataType::Int32, true), Field::new(DATE, DataType::Date32, true)]
}

/// Returns the column with this name.
pub fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}

fn field(column: &Column) -> Field {
    Field::new(column.name, column.kind.data_type(), true)
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
