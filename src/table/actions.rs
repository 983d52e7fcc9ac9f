//! Converts between [`DataFile`] and the kernel's rows of actions. Pure: no I/O.
//!
//! Removed files are described from the index, so a removal costs as much as the files that it
//! removes and needs no scan of the table. Statistics hold times as text with microseconds: the
//! kernel's own encoding truncates a maximum to the millisecond, below the file's rows. Values that
//! other writers omit are read as unknown. Properties that would make an answer wrong (no row
//! count, a deletion vector, a foreign partition) are refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use chrono::DateTime;
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::scan::scan_row_schema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::index::{DataFile, lower_bound, upper_bound};
use crate::error::{Error, Result};
use crate::record::{DATE, RETENTION_DAYS};
use crate::store;

/// Columns whose minimum and maximum each file's log entry carries.
pub(crate) const STATISTICS: [&str; 3] = ["created_at", "organisation_id", "id"];

/// Returns the rows that add files.
pub(crate) fn added(files: &[DataFile]) -> Result<RecordBatch> {
    let rows: Vec<Value> = files.iter().map(added_row).collect();
    batch(added_schema(), &rows)
}

/// Returns the rows that remove files, in the form of a scan of the table.
pub(crate) fn removed<'a>(files: impl Iterator<Item = &'a DataFile>) -> Result<RecordBatch> {
    let rows: Vec<Value> = files
        .map(|file| {
            json!({
                "path": file.path, "size": file.bytes, "modificationTime": file.modified_ms,
                "fileConstantValues": { "partitionValues": partition(file) },
            })
        })
        .collect();
    let schema: Schema = scan_row_schema().as_ref().try_into_arrow().map_err(|e| {
        Error::internal("cannot convert the schema of removed files").with_source(e)
    })?;
    batch(Arc::new(schema), &rows)
}

/// Reads the files of a batch from a table scan, already filtered to the selected rows.
pub(crate) fn scanned(batch: &RecordBatch) -> Result<Vec<DataFile>> {
    let root = StructArray::from(batch.clone());
    let constants = child(&root, "fileConstantValues")?;
    let constants = constants.as_struct_opt().ok_or_else(|| malformed("fileConstantValues"))?;
    Rows::new(&root, constants)?.files()
}

/// Reads the files of a batch of log entries, already filtered to rows that add a file.
pub(crate) fn logged(batch: &RecordBatch) -> Result<Vec<DataFile>> {
    let root = StructArray::from(batch.clone());
    let add = child(&root, "add")?;
    let add = add.as_struct_opt().ok_or_else(|| malformed("add"))?;
    Rows::new(add, add)?.files()
}

fn added_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let bounds = Fields::from(STATISTICS.map(text).to_vec());
    let statistics = Fields::from(vec![
        Field::new("numRecords", DataType::Int64, true),
        Field::new("minValues", DataType::Struct(bounds.clone()), true),
        Field::new("maxValues", DataType::Struct(bounds), true),
    ]);
    let entry = Fields::from(vec![Field::new("key", DataType::Utf8, false), text("value")]);
    let entries = Field::new("key_value", DataType::Struct(entry), false);
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("partitionValues", DataType::Map(Arc::new(entries), false), false),
        Field::new("size", DataType::Int64, false),
        Field::new("modificationTime", DataType::Int64, false),
        Field::new("stats", DataType::Struct(statistics), true),
    ]))
}

fn added_row(file: &DataFile) -> Value {
    json!({
        "path": file.path, "partitionValues": partition(file), "size": file.bytes, "modificationTime": file.modified_ms,
        "stats": {
            "numRecords": file.rows,
            "minValues": bounds(file.min_created_at, &file.min_organisation, &file.min_id),
            "maxValues": bounds(file.max_created_at, &file.max_organisation, &file.max_id),
        },
    })
}

fn bounds(time: i64, organisation: &Option<String>, id: &Option<String>) -> Value {
    json!({ "created_at": time_text(time), "organisation_id": organisation, "id": id })
}

fn partition(file: &DataFile) -> Value {
    json!({ RETENTION_DAYS: file.retention_days.to_string(), DATE: store::date_text(file.date) })
}

fn batch(schema: SchemaRef, rows: &[Value]) -> Result<RecordBatch> {
    let failed = |e| Error::internal("cannot write file entries").with_source(e);
    let mut decoder =
        ReaderBuilder::new(schema).with_batch_size(rows.len()).build_decoder().map_err(failed)?;
    decoder.serialize(rows).map_err(failed)?;
    decoder.flush().map_err(failed)?.ok_or_else(|| Error::internal("no file entries to write"))
}

/// Formats a time so that every reader accepts it. Returns `None` for an unknown bound or a year
/// beyond four digits.
fn time_text(micros: i64) -> Option<String> {
    let year_10000 = 253_402_300_800_000_000;
    let year_0 = -62_167_219_200_000_000;
    let time = (year_0..year_10000)
        .contains(&micros)
        .then(|| DateTime::from_timestamp_micros(micros))??;
    Some(crate::time::micros(time))
}

/// Columns of a batch of file entries.
struct Rows<'a> {
    path: &'a StringArray,
    size: ArrayRef,
    modified: ArrayRef,
    statistics: &'a StringArray,
    partition: &'a MapArray,
    deletion_vector: ArrayRef,
}

impl<'a> Rows<'a> {
    fn new(files: &'a StructArray, constants: &'a StructArray) -> Result<Self> {
        let text = |name| {
            files
                .column_by_name(name)
                .and_then(|column| column.as_string_opt::<i32>())
                .ok_or_else(|| malformed(name))
        };
        let partition =
            constants.column_by_name("partitionValues").and_then(|column| column.as_map_opt());
        Ok(Self {
            path: text("path")?,
            size: child(files, "size")?,
            modified: child(files, "modificationTime")?,
            statistics: text("stats")?,
            partition: partition.ok_or_else(|| malformed("partitionValues"))?,
            deletion_vector: child(files, "deletionVector")?,
        })
    }

    fn files(&self) -> Result<Vec<DataFile>> {
        (0..self.path.len()).map(|row| self.file(row)).collect()
    }

    fn file(&self, row: usize) -> Result<DataFile> {
        let path = self.path.value(row).to_owned();
        let refuse = |why: &str| {
            Error::damaged(format!("file `{path}` {why}: another program changed the table"))
        };
        if self.path.is_null(row) || path.contains("://") {
            return Err(refuse("is outside the table"));
        }
        if self.deletion_vector.is_valid(row) {
            return Err(refuse("has a deletion vector"));
        }
        let retention_days = self.value(row, RETENTION_DAYS).and_then(|text| text.parse().ok());
        let date = self.value(row, DATE).and_then(store::parse_date);
        let (Some(retention_days), Some(date)) = (retention_days, date) else {
            return Err(refuse("has no partition"));
        };
        let text = if self.statistics.is_valid(row) { self.statistics.value(row) } else { "{}" };
        let statistics: Statistics = serde_json::from_str(text)
            .map_err(|e| refuse("has malformed statistics").with_source(e))?;
        let rows = statistics.num_records.ok_or_else(|| refuse("has no row count"))?;
        let min = statistics.min_values;
        let max = statistics.max_values;
        Ok(DataFile {
            bytes: u64::try_from(integer(&self.size, row, "size")?)
                .map_err(|_| refuse("has a negative size"))?,
            rows,
            retention_days,
            date,
            modified_ms: integer(&self.modified, row, "modificationTime")?,
            min_created_at: min.created_at.as_deref().and_then(earliest).unwrap_or(i64::MIN),
            max_created_at: max.created_at.as_deref().and_then(latest).unwrap_or(i64::MAX),
            min_organisation: min.organisation_id.map(lower_bound),
            max_organisation: max.organisation_id.map(upper_bound),
            min_id: min.id.map(lower_bound),
            max_id: max.id.map(upper_bound),
            path,
        })
    }

    fn value(&self, row: usize, column: &str) -> Option<&str> {
        let first = *self.partition.offsets().get(row)?;
        let end = *self.partition.offsets().get(row + 1)?;
        let keys = self.partition.keys().as_string_opt::<i32>()?;
        let values = self.partition.values().as_string_opt::<i32>()?;
        let at = (first as usize..end as usize).find(|at| keys.value(*at) == column)?;
        values.is_valid(at).then(|| values.value(at))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    num_records: Option<u64>,
    #[serde(default)]
    min_values: Bounds,
    #[serde(default)]
    max_values: Bounds,
}

#[derive(Default, Deserialize)]
struct Bounds {
    created_at: Option<String>,
    organisation_id: Option<String>,
    id: Option<String>,
}

fn earliest(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

/// Returns the latest time that a maximum may stand for. Other writers truncate times to the
/// millisecond, so a maximum of fewer than six digits may be below its rows.
fn latest(text: &str) -> Option<i64> {
    let digits = text
        .split_once('.')
        .map_or(0, |(_, tail)| tail.bytes().take_while(u8::is_ascii_digit).count());
    let cut = match digits {
        0..3 => 999_999,
        3..6 => 999,
        _ => 0,
    };
    earliest(text).map(|micros| micros.saturating_add(cut))
}

fn integer(column: &ArrayRef, row: usize, name: &str) -> Result<i64> {
    let column = column.as_primitive_opt::<Int64Type>().ok_or_else(|| malformed(name))?;
    if column.is_null(row) { Err(malformed(name)) } else { Ok(column.value(row)) }
}

fn child(parent: &StructArray, name: &str) -> Result<ArrayRef> {
    parent.column_by_name(name).cloned().ok_or_else(|| malformed(name))
}

fn malformed(name: &str) -> Error {
    Error::damaged(format!("file entries of the log have no `{name}`"))
}
