//! Converts rows to Portkey's JSON: a summary, and a point for each bucket of the time frame.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::graphs::{Empty, Field, Graph, Points};
use super::time_range::{TimeRange, text};
use crate::error::{Error, Result};

/// Figures in a response that are computed from withheld columns, with these columns.
pub type Figures = BTreeMap<String, BTreeSet<String>>;

/// A row, by column name.
pub(super) type Row = Map<String, Value>;

/// Converts batches to rows.
pub(super) fn rows(batches: &[RecordBatch]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        for place in 0..batch.num_rows() {
            let mut row = Row::new();
            for (field, column) in schema.fields().iter().zip(batch.columns()) {
                row.insert(field.name().clone(), cell(column, place)?);
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

fn cell(column: &dyn Array, place: usize) -> Result<Value> {
    if column.is_null(place) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(place)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(place)),
        // A float that JSON cannot write becomes null.
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(place)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(place)),
        DataType::Utf8View => json!(column.as_string_view().value(place)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(place);
            DateTime::from_timestamp_micros(micros)
                .map_or(Value::Null, |at| Value::String(text(at)))
        }
        other => {
            return Err(Error::internal(format!(
                "analytics do not support a column of type {other}"
            )));
        }
    })
}

/// Replaces withheld figures by null.
pub(super) fn withhold(rows: &mut [Row], withheld: &Figures) {
    for row in rows {
        for (_, value) in row.iter_mut().filter(|(name, _)| withheld.contains_key(*name)) {
            *value = Value::Null;
        }
    }
}

/// Returns a graph: its summary, its points, and the width of a bucket.
pub(super) fn graph(graph: &Graph, frame: &TimeRange, rows: &[Row], withheld: &Figures) -> Value {
    let is_whole = |row: &&Row| row.get("whole").and_then(Value::as_i64) == Some(1);
    let whole = rows.iter().find(is_whole);
    let parts: Vec<&Row> = rows.iter().filter(|row| !is_whole(row)).collect();
    let fields =
        |names: &[Field], row: Option<&Row>, last: &Row| fields(names, row, last, withheld);
    let summary = fields(graph.summary, whole, &Map::new());
    let (points, bucket) = match &graph.points {
        Points::Rows(names) => (
            parts.iter().map(|row| Value::Object(fields(names, Some(row), &Map::new()))).collect(),
            None,
        ),
        Points::Buckets(names) => (
            buckets(frame, &parts, |of, last| fields(names, of.first().copied(), last)),
            Some(frame.width()),
        ),
        Points::Lists(name, items, beside) => {
            let point = |of: &[&Row], last: &Row| {
                let mut point = fields(beside, of.first().copied(), last);
                let items = of.iter().map(|row| fields(items, Some(row), &Map::new()));
                // A row without a count only carries the figures beside the list.
                let items = items.filter(|item| item.get("count") != Some(&json!(0)));
                point.insert((*name).to_owned(), items.map(Value::Object).collect());
                point
            };
            (buckets(frame, &parts, point), Some(frame.width()))
        }
    };
    let mut answer = json!({ "object": "analytics-graph", "summary": summary, "data_points": Value::Array(points) });
    if let Some(width) = bucket {
        answer["bucket"] = json!(width.word());
    }
    answer
}

/// Returns the only row, which is the summary.
pub(super) fn summary(rows: Vec<Row>) -> Value {
    json!({ "object": "analytics-summary", "summary": rows.into_iter().next().unwrap_or_default() })
}

/// Returns a point for each bucket, computed from its rows and the previous point.
fn buckets(frame: &TimeRange, rows: &[&Row], point: impl Fn(&[&Row], &Row) -> Row) -> Vec<Value> {
    let mut by_start: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        if let Some(start) = row.get("bucket").and_then(Value::as_str) {
            by_start.entry(start).or_default().push(row);
        }
    }
    let mut last = Row::new();
    let mut points = Vec::new();
    for start in frame.buckets() {
        let start = text(start);
        let mut next = point(by_start.get(start.as_str()).map_or(&[][..], Vec::as_slice), &last);
        next.insert("timestamp".to_owned(), Value::String(start));
        points.push(Value::Object(next.clone()));
        last = next;
    }
    points
}

/// Returns the fields of a row, or their values without a row.
fn fields(names: &[Field], row: Option<&Row>, last: &Row, withheld: &Figures) -> Row {
    let value = |field: &Field| match (row, field.empty) {
        (None, _) if withheld.contains_key(field.column) => Value::Null,
        (Some(row), _) => row.get(field.column).cloned().unwrap_or(Value::Null),
        (None, Empty::Zero) => json!(0),
        (None, Empty::Null) => Value::Null,
        (None, Empty::Carried) => last.get(field.name).cloned().unwrap_or_else(|| json!(0)),
    };
    names.iter().map(|field| (field.name.to_owned(), value(field))).collect()
}
