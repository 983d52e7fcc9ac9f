//! Quotes CSV cells that a spreadsheet would run as a formula: those that start with `=`, `+`, `-`,
//! `@`, a tab or a line break.
//!
//! The texts of a record come from its sender, so a file that a person opens must not execute them.
//! Such a text gets a leading `'`, which makes spreadsheets treat it as text. Numbers stay numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// Quotes every text of a batch that begins a formula.
pub(super) fn quote(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(quote_column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(batch.schema(), columns)
}

fn quote_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let data_type = column.data_type();
    let is_text = matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    if !is_text {
        return Ok(Arc::clone(column));
    }
    let texts = cast(column, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    if !texts.iter().flatten().any(is_formula) {
        return Ok(Arc::clone(column));
    }
    let mut quoted =
        StringBuilder::with_capacity(texts.len(), texts.value_data().len() + texts.len());
    for text in texts {
        match text {
            Some(text) if is_formula(text) => quoted.append_value(format!("'{text}")),
            other => quoted.append_option(other),
        }
    }
    let quoted: ArrayRef = Arc::new(quoted.finish());
    cast(&quoted, data_type)
}

fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && text.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, StringViewArray};

    use super::*;

    #[test]
    fn texts_that_begin_a_formula_are_quoted_and_numbers_are_not() {
        let texts = [
            Some("=1+1"),
            Some("@a"),
            Some("-5"),
            Some("-5+a"),
            Some("+49 30"),
            Some("a=b"),
            Some("\t=1"),
            None,
        ];
        let batch = RecordBatch::try_from_iter([
            ("view", Arc::new(StringViewArray::from_iter(texts)) as ArrayRef),
            ("plain", Arc::new(StringArray::from_iter(texts))),
            ("number", Arc::new(Int64Array::from_iter_values(-8..0))),
        ])
        .unwrap();
        let quoted = quote(&batch).unwrap();
        let wanted = [
            Some("'=1+1"),
            Some("'@a"),
            Some("-5"),
            Some("'-5+a"),
            Some("'+49 30"),
            Some("a=b"),
            Some("'\t=1"),
            None,
        ];
        assert_eq!(quoted.column(0).as_string_view(), &StringViewArray::from_iter(wanted));
        assert_eq!(quoted.column(1).as_string::<i32>(), &StringArray::from_iter(wanted));
        assert_eq!(quoted.column(2), batch.column(2));
    }
}
