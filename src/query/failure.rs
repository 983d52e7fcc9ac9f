//! Errors of DataFusion as ours: which are the statement's, and which are the store's.
//!
//! What fails while a data file is fetched or decoded is the store's. Everything else that planning
//! or running a statement brings up is the statement's own: its author can change it.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

use super::resources::OUT_OF_MEMORY;
use super::{functions, nearest};
use crate::datafile::checked::HARMED;
use crate::error::{Error, ErrorKind};

/// How the Parquet reader says that a condition of the statement failed on rows of a file.
const CONDITION: &str = "Error evaluating filter predicate: ";
/// How DataFusion begins to ask for a report.
const BUG: &str = "\nThis issue was likely caused by a bug";

/// An error of DataFusion as one of ours.
pub(super) fn query_failed(cause: DataFusionError) -> Error {
    let kind = kind_of(&cause);
    let what = match kind {
        ErrorKind::Limit => OUT_OF_MEMORY,
        ErrorKind::Storage => "the query could not read the table",
        ErrorKind::Damaged => "a file of the table cannot be read; run `gatelog doctor`",
        ErrorKind::Internal => "the query failed inside the query engine",
        // What is wrong with the statement is for its author to see, not a cause to be logged.
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

/// What one error of a chain says about all of it.
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
        // Rows that were spilled, or a file that was read with an ordinary call.
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

/// The reader hands on some errors as no more than their text.
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

/// What is wrong with a statement, said once.
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

/// The name of the function that does not exist, if that is what is wrong.
fn no_function(text: &str) -> Option<&str> {
    text.strip_prefix("Invalid function '")?.split('\'').next()
}
