//! What somebody said of a call: a value and a weight, bound to a trace, or to one log of it.
//!
//! A row is one state. A change of feedback is a row more with the same `id` and `created_at` and a later `updated_at`; the
//! latest holds. So a table of feedback is only ever added to, as one of records is.

use super::{Column, Kind, Limit, Rows, batch, limits, rust_type};

/// The lowest value that feedback can give.
pub const LOWEST_VALUE: f64 = -10.0;
/// The highest value that feedback can give.
pub const HIGHEST_VALUE: f64 = 10.0;

macro_rules! columns {
    ($($name:ident: $kind:ident, $limit:ident, $doc:literal;)*) => {
        /// The table of columns of feedback, without the partition columns.
        pub(super) const COLUMNS: &[Column] =
            &[$(Column { name: stringify!($name), kind: Kind::$kind, limit: Limit::$limit, doc: $doc },)*];

        /// What somebody said of a call.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Feedback {
            $(#[doc = $doc] pub $name: rust_type!($kind),)*
            /// Days to keep it, 0 = for ever. The engine fills it in from the plan.
            pub retention_days: i32,
        }

        batch::builder!(Feedback, FeedbackBuilder, Rows::Feedback; $($name: $kind;)*);
        limits::keep_limits!(Feedback; $($name: $limit;)*);
    };
}

columns! {
    id: Text, Id, "unique id of the feedback, a UUIDv7";
    organisation_id: Text, Id, "organisation that it belongs to";
    workspace_slug: Text, Id, "workspace whose logs it speaks of; null = those of every workspace";
    created_at: Time, Time, "when it was first given, UTC, microseconds";
    updated_at: Time, Time, "when this state was given, UTC, microseconds";
    trace_id: Text, Id, "trace that it speaks of: it is shown on every log of the trace but replays";
    log_id: Text, Id, "the one log of the trace that it speaks of; null = all of them";
    value: Float, Code, "from -10 to 10";
    weight: Float, Code, "from 0 to 1: how much it counts in averages";
    user_id: Text, Id, "who gave it: the `_user` of the metadata";
    source: Text, Name, "what sent it, such as `API`";
    metadata: Tags, Tags, "the caller's own keys and values";
}
