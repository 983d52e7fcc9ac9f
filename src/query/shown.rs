//! Visible parts of each column of the records, and the arrays that replace withheld ones.
//!
//! Bodies are withheld from keys without `logs.read`, and the denied fields of an organisation from
//! all its keys. A column that is wholly withheld is null. One side of a message can be null, and
//! single keys of the metadata can be missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, MapArray, StructArray, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::filter;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result};

use super::read_scope::ReadScope;
use crate::record::{COLUMNS, Kind, Rows, column};

/// Column whose keys can be denied individually.
const METADATA: &str = "metadata";

/// Visible part of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The whole column.
    All,
    /// The headers of a message.
    Headers,
    /// The body of a message.
    Body,
    /// The metadata without [`ReadScope::withheld_keys`].
    OtherKeys,
    /// Nothing: it is null.
    Nothing,
}

impl ReadScope {
    /// Returns the visible part of a column. Only records have columns that can be withheld.
    pub(super) fn shows(&self, rows: Rows, name: &str) -> Shown {
        if rows != Rows::Logs {
            return Shown::All;
        }
        let whole = |part: &str| self.denied.is_whole(&format!("{name}.{part}"));
        match column(name).map(|column| column.kind) {
            Some(Kind::Message) => match (self.bodies && !whole("body"), !whole("headers")) {
                (true, true) => Shown::All,
                (false, true) => Shown::Headers,
                (true, false) => Shown::Body,
                (false, false) => Shown::Nothing,
            },
            Some(Kind::Tags) if whole("key") || whole("value") => Shown::Nothing,
            Some(Kind::Tags) if self.withheld_keys().is_empty() => Shown::All,
            Some(Kind::Tags) => Shown::OtherKeys,
            _ if self.denied.covers(name) => Shown::Nothing,
            _ => Shown::All,
        }
    }

    /// Returns the withheld parts of a column, as clients see them: `cost`, `request.body`,
    /// `metadata.value._user`.
    pub(super) fn withheld_names(&self, rows: Rows, name: &str) -> BTreeSet<String> {
        let of = |parts: &[&str]| parts.iter().map(|part| format!("{name}.{part}")).collect();
        match self.shows(rows, name) {
            Shown::All => BTreeSet::new(),
            Shown::Headers => of(&["body"]),
            Shown::Body => of(&["headers"]),
            Shown::OtherKeys => {
                self.withheld_keys().iter().map(|key| format!("{METADATA}.value.{key}")).collect()
            }
            Shown::Nothing => BTreeSet::from([name.to_owned()]),
        }
    }

    /// Returns all withheld columns of the records, or their withheld parts, as clients see them.
    pub(crate) fn withheld(&self) -> Vec<String> {
        let columns =
            COLUMNS.iter().flat_map(|column| self.withheld_names(Rows::Logs, column.name));
        columns.collect()
    }

    /// Returns the withheld keys of the metadata.
    pub(super) fn withheld_keys(&self) -> BTreeSet<String> {
        self.denied.metadata_keys()
    }
}

/// Returns messages with one given side and the other null.
pub(super) fn message(side: &ArrayRef, is_body: bool) -> Result<ArrayRef> {
    let DataType::Struct(fields) = Kind::Message.data_type() else { return Err(wrong_columns()) };
    let null = new_null_array(&DataType::Utf8View, side.len());
    let sides = if is_body { vec![Arc::clone(side), null] } else { vec![null, Arc::clone(side)] };
    Ok(Arc::new(StructArray::try_new(fields, sides, None)?))
}

/// Returns metadata without some keys.
pub(super) fn without_keys(metadata: &ArrayRef, keys: &BTreeSet<String>) -> Result<ArrayRef> {
    let map = metadata.as_map_opt().ok_or_else(wrong_columns)?;
    let names = map.keys().as_string_opt::<i32>().ok_or_else(wrong_columns)?;
    let mut kept = vec![false; names.len()];
    let mut lengths = Vec::with_capacity(map.len());
    for ends in map.value_offsets().windows(2) {
        let [start, end] = [ends[0], ends[1]].map(|end| usize::try_from(end).unwrap_or(0));
        let mut length = 0;
        for (place, keep) in kept.iter_mut().enumerate().take(end).skip(start) {
            *keep = !keys.contains(names.value(place));
            length += usize::from(*keep);
        }
        lengths.push(length);
    }
    let entries = filter(map.entries(), &BooleanArray::from(kept))?;
    let DataType::Map(entry, is_sorted) = map.data_type() else { return Err(wrong_columns()) };
    let entry = Arc::clone(entry);
    let offsets = OffsetBuffer::from_lengths(lengths);
    let entries = entries.as_struct_opt().ok_or_else(wrong_columns)?.clone();
    Ok(Arc::new(MapArray::try_new(entry, offsets, entries, map.nulls().cloned(), *is_sorted)?))
}

fn wrong_columns() -> DataFusionError {
    DataFusionError::Internal("a column that is withheld in part is of another type".to_owned())
}

#[cfg(test)]
mod tests {
    use arrow::array::{MapBuilder, MapFieldNames, StringBuilder};

    use super::*;

    #[test]
    fn metadata_loses_its_withheld_keys_in_slices_too() {
        let names = MapFieldNames {
            entry: "key_value".to_owned(),
            key: "key".to_owned(),
            value: "value".to_owned(),
        };
        let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
        for row in [&["_user", "team"][..], &[], &["_user"], &["team", "env", "_user"]] {
            for key in row {
                builder.keys().append_value(key);
                builder.values().append_value(format!("{key}!"));
            }
            builder.append(true).unwrap();
        }
        builder.append(false).unwrap();
        let map: ArrayRef = Arc::new(builder.finish());
        let keys_of = |array: &ArrayRef| {
            let map = array.as_map();
            let row = |row: usize| {
                let entries = map.value(row);
                let keys = entries.column(0).as_string::<i32>();
                (map.is_valid(row), keys.iter().flatten().map(str::to_owned).collect::<Vec<_>>())
            };
            (0..map.len()).map(row).collect::<Vec<_>>()
        };
        let hidden = BTreeSet::from(["_user".to_owned()]);
        let whole = without_keys(&map, &hidden).unwrap();
        let expected: Vec<(bool, Vec<String>)> = [(true, &["team"][..]), (true, &[]), (true, &[])]
            .into_iter()
            .chain([(true, &["team", "env"][..]), (false, &[])])
            .map(|(valid, keys)| (valid, keys.iter().map(|key| (*key).to_owned()).collect()))
            .collect();
        assert_eq!(keys_of(&whole), expected);
        let slice = without_keys(&map.slice(1, 3), &hidden).unwrap();
        assert_eq!(keys_of(&slice), expected[1..4]);
        assert_eq!(slice.data_type(), map.data_type());
    }
}
