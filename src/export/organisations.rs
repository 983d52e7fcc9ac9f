//! Notes the organisations whose records an export wrote, so that an erasure withdraws only the
//! files that contain their records.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, RecordBatch};
use parking_lot::Mutex;

/// Maximum bytes of the names. They are stored in the catalog, which is rewritten as a whole.
const MAX_NAME_BYTES: usize = 16 << 10;

/// Organisations whose records were written so far.
#[derive(Debug, Default)]
pub(crate) struct Organisations(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    names: BTreeSet<String>,
    bytes: usize,
    /// True if the names exceed the limit, or a batch has no organisation column.
    is_incomplete: bool,
}

impl Organisations {
    /// Returns the names, or `None` if they are incomplete.
    pub(crate) fn names(&self) -> Option<BTreeSet<String>> {
        let noted = self.0.lock();
        (!noted.is_incomplete).then(|| noted.names.clone())
    }

    /// Notes the organisations in the given column of a batch.
    pub(super) fn note(&self, batch: &RecordBatch, column: &str) {
        let mut noted = self.0.lock();
        let Some(names) = batch.column_by_name(column).and_then(|names| names.as_string_view_opt())
        else {
            noted.is_incomplete = true;
            return;
        };
        let mut last = None;
        for row in (0..names.len()).filter(|row| names.is_valid(*row)) {
            // Rows of one organisation are adjacent.
            let name = names.value(row);
            if last.replace(name) != Some(name) {
                noted.add(name);
            }
        }
    }
}

impl Noted {
    fn add(&mut self, name: &str) {
        if self.is_incomplete || self.names.contains(name) {
            return;
        }
        self.bytes += name.len();
        self.is_incomplete = self.bytes > MAX_NAME_BYTES;
        if self.is_incomplete {
            self.names.clear();
        } else {
            self.names.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringViewArray;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(names: &[&str]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("of", DataType::Utf8View, true)]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(StringViewArray::from(names.to_vec()))],
        )
        .unwrap()
    }

    #[test]
    fn all_names_are_noted_or_none() {
        let noted = Organisations::default();
        assert_eq!(noted.names(), Some(BTreeSet::new()));
        noted.note(&batch(&["a", "a", "b"]), "of");
        noted.note(&batch(&["c", "a"]), "of");
        assert_eq!(noted.names(), Some(["a", "b", "c"].map(str::to_owned).into()));
        noted.note(&batch(&["d"]), "whose");
        assert_eq!(noted.names(), None);

        let many = Organisations::default();
        let names: Vec<String> = (0..MAX_NAME_BYTES).map(|number| format!("{number:08}")).collect();
        many.note(&batch(&names.iter().map(String::as_str).collect::<Vec<_>>()), "of");
        assert_eq!(many.names(), None);
    }
}
