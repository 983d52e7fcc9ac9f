//! Feedback on a call: a value and a weight, attached to a trace or to one log of it.
//!
//! A row is one version. A change adds a row with the same `id` and `created_at` and a later
//! `updated_at`, and the latest version counts. So a table of feedback is append-only, as a table
//! of logs is.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::limits::Limit;
use super::schema::{Column, Kind, batch_schema, rust_type};
use super::{builders, limits, read};

/// Lowest value of feedback.
pub const LOWEST_VALUE: f64 = -10.0;
/// Highest value of feedback.
pub const HIGHEST_VALUE: f64 = 10.0;

macro_rules! columns {
    ($($name:ident: $kind:ident, $limit:ident, $doc:literal;)*) => {
        /// Columns of the feedback table, without the partition columns.
        pub(super) const COLUMNS: &[Column] =
            &[$(Column {
                name: stringify!($name),
                kind: Kind::$kind,
                limit: Limit::$limit,
                doc: $doc,
            },)*];

        /// Feedback on a call.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Feedback {
            $(#[doc = $doc] pub $name: rust_type!($kind),)*
            /// Days to keep the row. 0 means for ever. The engine sets it from the plan.
            pub retention_days: i32,
        }

        builders::builder!(Feedback, FeedbackBuilder, schema(); $($name: $kind;)*);
        limits::keep_limits!(Feedback; $($name: $limit;)*);
        read::reader!(Feedback; $($name: $kind;)*);
    };
}

columns! {
    id: Text, Id, "unique id of the feedback, a UUIDv7";
    organisation_id: Text, Id, "organisation that owns it";
    workspace_slug: Text, Id, "workspace of the logs that it applies to; null applies to every workspace";
    created_at: Time, Time, "time of the first version, UTC, microseconds";
    updated_at: Time, Time, "time of this version, UTC, microseconds";
    trace_id: Text, Id, "trace that it applies to: it is shown on every log of the trace except replays";
    log_id: Text, Id, "the one log of the trace that it applies to; null applies to all of them";
    value: Float, Code, "from -10 to 10";
    weight: Float, Code, "from 0 to 1: its weight in averages";
    user_id: Text, Id, "user who gave it: the `_user` of the metadata";
    source: Text, Name, "sender, such as `API`";
    metadata: Tags, Tags, "the caller's own keys and values";
}

/// Returns [`Rows::schema`](super::Rows::schema) of feedback.
pub(super) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| batch_schema(COLUMNS));
    Arc::clone(&SCHEMA)
}
