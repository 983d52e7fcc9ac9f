//! Arrow values as the text of an answer.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sqllogictest::ColumnType;

/// The kind of a column, in the letters that a file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// B: boolean.
    Boolean,
    /// D: day.
    Date,
    /// I: whole number.
    Integer,
    /// P: point in time.
    Time,
    /// R: floating point.
    Real,
    /// T: text.
    Text,
    /// ?: a struct, a map or a list.
    Other,
}

const LETTERS: [(char, Type); 7] = [
    ('B', Type::Boolean),
    ('D', Type::Date),
    ('I', Type::Integer),
    ('P', Type::Time),
    ('R', Type::Real),
    ('T', Type::Text),
    ('?', Type::Other),
];

impl ColumnType for Type {
    fn from_char(letter: char) -> Option<Self> {
        LETTERS.iter().find(|(of, _)| *of == letter).map(|(_, kind)| kind.clone())
    }

    fn to_char(&self) -> char {
        LETTERS.iter().find(|(_, kind)| kind == self).map_or('?', |(letter, _)| *letter)
    }
}

impl Type {
    pub(crate) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(..) => Self::Time,
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Self::Text,
            integer if integer.is_integer() => Self::Integer,
            real if real.is_floating() => Self::Real,
            _ => Self::Other,
        }
    }
}

/// The rows of a batch.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| value(column, row)).collect())
        .collect()
}

fn value(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    if let Some(reals) = column.as_primitive_opt::<Float64Type>() {
        return real(reals.value(row));
    }
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::new().with_null("NULL"))
        .expect("a type with a text");
    match formatter.value(row).to_string() {
        empty if empty.is_empty() => "(empty)".to_owned(),
        // A file is read line by line.
        text => text.replace('\n', "\\n").replace('\t', "\\t"),
    }
}

/// Rounded, since sums of floats differ in the last digits with the order of their parts.
fn real(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
