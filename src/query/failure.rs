//! Converts errors of DataFusion to gatelog's: errors of the statement, or of the store.
//!
//! An error while a data file is fetched or decoded is the store's. Every other error of planning
//! or running a statement is the statement's own: its author can change it.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

use super::{functions, nearest};
use crate::datafile::checked::HARMED;
use crate::error::{Error, ErrorKind};

/// Start of an error for lack of memory.
pub(super) const OUT_OF_MEMORY: &str =
    "the query needs more memory than `query_memory_bytes` allows";
/// Text of the Parquet reader for a condition of the statement that failed on rows of a file.
const CONDITION: &str = "Error evaluating filter predicate: ";
/// Start of DataFusion's request to report a bug.
const BUG: &str = "\nThis issue was likely caused by a bug";

/// Converts an error of DataFusion.
pub(super) fn query_failed(cause: DataFusionError) -> Error {
    let kind = kind_of(&cause);
    let what = match kind {
        ErrorKind::Limit => OUT_OF_MEMORY,
        ErrorKind::Storage => "the query could not read the table",
        ErrorKind::Damaged => "a file of the table cannot be read; run `gatelog doctor`",
        ErrorKind::Internal => "the query failed inside the query engine",
        // The author of the statement sees the cause, so it is not logged.
        _ => return Error::new(kind, format!("the query cannot be run: {}", reason(&cause))),
    };
    Error::new(kind, what).with_source(cause)
}

fn kind_of(cause: &DataFusionError) -> ErrorKind {
    let mut next: Option<&(dyn StdError + 'static)> = Some(cause);
    while let Some(error) = next {
        if let Some(kind) = kind_by_itself(error) {
            return kind;
        }
        next = error.source();
    }
    ErrorKind::Invalid
}

/// Returns the kind of the whole error if one error of its chain determines it.
fn kind_by_itself(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    if let Some(error) = error.downcast_ref::<object_store::Error>() {
        return Some(store_error_kind(error));
    }
    if let Some(error) = error.downcast_ref::<ParquetError>() {
        return Some(parquet_error_kind(error));
    }
    match error.downcast_ref::<DataFusionError>() {
        Some(DataFusionError::ResourcesExhausted(_)) => return Some(ErrorKind::Limit),
        Some(DataFusionError::ExecutionJoin(_)) => return Some(ErrorKind::Internal),
        Some(DataFusionError::IoError(_)) => return Some(ErrorKind::Storage),
        Some(DataFusionError::ObjectStore(error)) => return Some(store_error_kind(error)),
        Some(DataFusionError::ParquetError(error)) => return Some(parquet_error_kind(error)),
        Some(DataFusionError::ArrowError(error, _)) => return arrow_error_kind(error),
        _ => {}
    }
    error.downcast_ref::<ArrowError>().and_then(arrow_error_kind)
}

fn arrow_error_kind(error: &ArrowError) -> Option<ErrorKind> {
    match error {
        // Spilled rows, or a file that was read with an ordinary system call.
        ArrowError::IoError(..) | ArrowError::IpcError(_) => Some(ErrorKind::Storage),
        ArrowError::ParquetError(text) => Some(parquet_message_kind(text)),
        ArrowError::ExternalError(cause) => kind_by_itself(cause.as_ref()),
        _ => None,
    }
}

/// A file that is missing, or whose checksum is wrong, counts as damage.
fn store_error_kind(error: &object_store::Error) -> ErrorKind {
    match error {
        error if error.to_string().contains(HARMED) => ErrorKind::Damaged,
        object_store::Error::NotFound { .. } => ErrorKind::Damaged,
        _ => ErrorKind::Storage,
    }
}

fn parquet_error_kind(error: &ParquetError) -> ErrorKind {
    if let ParquetError::External(cause) = error {
        if let Some(error) = cause.downcast_ref::<object_store::Error>() {
            return store_error_kind(error);
        }
        if cause.is::<std::io::Error>() && !cause.to_string().contains(HARMED) {
            return ErrorKind::Storage;
        }
    }
    parquet_message_kind(&error.to_string())
}

/// Classifies errors that the reader passes on only as text.
fn parquet_message_kind(text: &str) -> ErrorKind {
    if text.contains(HARMED) {
        ErrorKind::Damaged
    } else if text.contains(CONDITION) {
        ErrorKind::Invalid
    } else if text.contains("Object Store error: ") && !text.contains("Object at location") {
        ErrorKind::Storage
    } else {
        ErrorKind::Damaged
    }
}

/// Returns the error of a statement, without repetitions.
fn reason(cause: &DataFusionError) -> String {
    let text = match cause.find_root() {
        DataFusionError::SQL(error, _) => error.to_string(),
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                nearest::no_column(field, valid_fields)
            }
            other => other.to_string(),
        },
        DataFusionError::Internal(text) => format!("the query engine does not support it: {text}"),
        DataFusionError::Plan(text) => match no_function(text) {
            Some(name) => format!("there is no function `{name}`{}", functions::suggestion(name)),
            None => text.clone(),
        },
        root => root.strip_backtrace(),
    };
    let text = text.split(BUG).next().unwrap_or_default().to_owned();
    match text.split_once(CONDITION) {
        Some((_, failure)) => format!("a condition fails on some rows: {failure}"),
        None => text,
    }
}

/// Returns the name of the missing function, if that is the error.
fn no_function(text: &str) -> Option<&str> {
    text.strip_prefix("Invalid function '")?.split('\'').next()
}
