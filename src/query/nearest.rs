//! Errors of SQL about names that do not exist.

use datafusion::common::Column;

use crate::nearest::{clip, nearest};

/// Returns the error for a missing column.
pub(super) fn no_column(wanted: &Column, known: &[Column]) -> String {
    let names: Vec<&str> = known.iter().map(|column| column.name.as_str()).collect();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    // Other databases take a text in double quotes.
    let hint = if wanted.name.chars().all(is_name) {
        suggestion(&wanted.name, &names)
    } else {
        format!("; a text is written in single quotes: '{}'", clip(&wanted.name))
    };
    format!("there is no column `{}`{hint}", clip(&wanted.flat_name()))
}

/// Returns a suggestion of similar names, or an empty text.
pub(super) fn suggestion(wanted: &str, known: &[&str]) -> String {
    let near = nearest(wanted, known.iter().copied());
    if near.is_empty() {
        String::new()
    } else {
        format!("; nearest names: `{}`", near.join("`, `"))
    }
}
