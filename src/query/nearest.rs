//! Errors of SQL about names that do not exist.

use datafusion::common::Column;

use crate::nearest::{clip, nearest};

/// Says that no column has that name.
pub(super) fn no_column(wanted: &Column, known: &[Column]) -> String {
    let names: Vec<&str> = known.iter().map(|column| column.name.as_str()).collect();
    format!(
        "there is no column `{}`{}",
        clip(&wanted.flat_name()),
        suggestion(&wanted.name, &names)
    )
}

/// Names what was meant, maybe.
pub(super) fn suggestion(wanted: &str, known: &[&str]) -> String {
    let near = nearest(wanted, known.iter().copied());
    match near.is_empty() {
        true => String::new(),
        false => format!("; nearest names: `{}`", near.join("`, `")),
    }
}
