//! The kinds of stored rows.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;

use super::schema::{Column, file_schema};
use super::{columns, feedback};

/// Kind of stored rows. Each kind has its own Delta table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rows {
    /// [`Record`](super::Record)s: table `logs`.
    Logs,
    /// [`Feedback`](super::Feedback). Each row is one state, and the state with the latest `updated_at` of an id is
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
            Self::Logs => columns::COLUMNS,
            Self::Feedback => feedback::COLUMNS,
        }
    }

    /// Returns the schema of a batch within the engine: the columns, then the partition columns.
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Logs => columns::schema(),
            Self::Feedback => feedback::schema(),
        }
    }

    /// Returns the schema of a Parquet file: the columns without the partition columns.
    pub fn file_schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 2]> =
            LazyLock::new(|| Rows::ALL.map(|rows| file_schema(rows.columns())));
        Arc::clone(&SCHEMAS[self as usize])
    }
}
