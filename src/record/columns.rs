//! The table of columns of records, and what is generated from it.
//!
//! The table below is the only place that names the columns of records. The [`Record`] struct, the
//! Arrow schema, the builder of batches and the JSON form are generated from it, and each column
//! states its [`Limit`] there. Names and units are Portkey's, so SQL reads like Portkey's
//! documentation. A value that a source does not give is null, never a made-up 0.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::json::reader;
use super::limits::Limit;
use super::message::Message;
use super::schema::{Column, Kind, batch_schema, rust_type};
use super::{builders, limits, read};

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

        builders::builder!(Record, BatchBuilder, schema(); $($name: $kind;)*);
        reader::fields!($($name: $kind;)*);
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

/// Returns [`Rows::schema`](super::Rows::schema) of records.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| batch_schema(COLUMNS));
    Arc::clone(&SCHEMA)
}

/// Returns the column with this name.
pub fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}
