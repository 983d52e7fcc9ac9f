//! The rows that are stored, records of gateway calls and feedback on them, with one table of
//! columns for each.
//!
//! The table of [`COLUMNS`] is the only place that names the columns of records; everything else,
//! such as the Arrow schema, is generated from it.
//!
//! A batch within the engine has the columns of [`schema`]: those of the table, then the partition
//! columns `retention_days` and `date`. The partition columns become folders of the Delta table
//! instead of columns of its files ([`Rows::file_schema`]).
//!
//! [`Feedback`] from users has its own table of columns. [`Rows`] distinguishes the two kinds in
//! code that handles both.

pub(crate) mod attempt;
mod batch;
mod builders;
mod columns;
mod feedback;
pub mod json;
mod limits;
mod message;
mod read;
mod rows;
mod schema;

pub use batch::{Defaults, normalize};
pub use builders::{ROW_OVERHEAD, own_text, tighten};
pub use columns::{BatchBuilder, COLUMNS, Record, column, schema};
pub use feedback::{Feedback, FeedbackBuilder, HIGHEST_VALUE, LOWEST_VALUE};
pub use limits::{Limit, MAX_TAGS};
pub(crate) use limits::{TIME, is_storable};
pub use message::Message;
pub use rows::Rows;
pub use schema::{Column, DATE, Kind, RETENTION_DAYS, SORT_KEY, SORT_OPTIONS, partition_fields};
