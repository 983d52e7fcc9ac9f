//! Converts the columns of a result to types that a format and its readers support.
//!
//! Arrow and Parquet get plain `Utf8` and `Binary` instead of view types, which many readers do not
//! support and which would keep whole text blocks alive for a few rows. CSV has no nesting:
//! structs, maps and lists become JSON text. The union that `json_get` returns becomes a JSON value
//! in JSON and its text elsewhere. JSON needs no other change.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringBuilder, UnionArray,
};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{NullableEncoder, WriterBuilder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};

use super::format::Format;

/// Converts batches of one schema to the schema that a format takes.
#[derive(Debug)]
pub(super) struct OutputSchema {
    source: SchemaRef,
    target: SchemaRef,
}

impl OutputSchema {
    pub(super) fn new(schema: &SchemaRef, format: Format) -> Self {
        let change: fn(&DataType) -> DataType = match format {
            Format::Jsonl | Format::Json => DataType::clone,
            Format::Csv => flat,
            Format::Arrow | Format::Parquet => plain,
        };
        let fields: Fields =
            schema.fields().iter().map(|field| retyped(field, change(field.data_type()))).collect();
        Self { source: Arc::clone(schema), target: Arc::new(Schema::new(fields)) }
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.target
    }

    pub(super) fn source(&self) -> &SchemaRef {
        &self.source
    }

    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = batch
            .columns()
            .iter()
            .zip(self.target.fields())
            .map(|(column, field)| change(column, field));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.target), columns, &options)
    }
}

/// Returns the JSON writer for results. It writes nulls, so that every line has every column.
pub(super) fn json_writer() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Unions))
}

fn retyped(field: &FieldRef, data_type: DataType) -> FieldRef {
    if field.data_type() == &data_type {
        return Arc::clone(field);
    }
    Arc::new(Field::new(field.name(), data_type, true))
}

/// Returns a type without views, unions, dictionaries and intervals, at any depth.
fn plain(data_type: &DataType) -> DataType {
    let inner = |field: &FieldRef| {
        Arc::new(field.as_ref().clone().with_data_type(plain(field.data_type())))
    };
    match data_type {
        DataType::Utf8View | DataType::Union(..) | DataType::Interval(_) => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => plain(value),
        DataType::List(field) | DataType::ListView(field) => DataType::List(inner(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => {
            DataType::LargeList(inner(field))
        }
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(inner(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    }
}

/// Returns the type of a column in CSV.
fn flat(data_type: &DataType) -> DataType {
    if data_type.is_nested() { DataType::Utf8 } else { data_type.clone() }
}

fn change(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let from = column.data_type();
    let to = field.data_type();
    if from == to {
        return Ok(Arc::clone(column));
    }
    if from.is_nested() && (to == &DataType::Utf8 || !can_cast_types(from, to)) {
        return json_text(column, field);
    }
    cast(column, to)
}

/// Converts a column to JSON text, null where it is null. A text within a union is not quoted.
fn json_text(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let options =
        EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Unions));
    let source: FieldRef = Arc::new(Field::new(field.name(), column.data_type().clone(), true));
    let bare = matches!(column.data_type(), DataType::Union(..));
    let mut encoder = make_encoder(&source, column, &options)?;
    let mut builder = StringBuilder::new();
    let mut json = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            builder.append_null();
            continue;
        }
        json.clear();
        encoder.encode(row, &mut json);
        if bare && json.first() == Some(&b'"') {
            builder.append_value(serde_json::from_slice::<String>(&json).map_err(unencodable)?);
        } else {
            builder.append_value(std::str::from_utf8(&json).map_err(unencodable)?);
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn unencodable(cause: impl std::fmt::Display) -> ArrowError {
    ArrowError::JsonError(cause.to_string())
}

/// Adds unions to Arrow's JSON encoder, which does not support them.
#[derive(Debug)]
struct Unions;

impl EncoderFactory for Unions {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let DataType::Union(fields, _) = array.data_type() else { return Ok(None) };
        let union = array.as_union();
        let mut members = Vec::with_capacity(fields.len());
        for (type_id, field) in fields.iter() {
            let child = union.child(type_id);
            // `datafusion-functions-json` marks the members that hold JSON text by their names and
            // by Arrow's `arrow.json`.
            let is_json = matches!(field.name().as_str(), "array" | "object")
                && child.data_type() == &DataType::Utf8;
            let encoder = if is_json {
                NullableEncoder::new(Box::new(RawJson(child)), child.logical_nulls())
            } else {
                make_encoder(field, child, options)?
            };
            members.push((type_id, encoder));
        }
        Ok(Some(NullableEncoder::new(
            Box::new(UnionEncoder { union, members }),
            array.logical_nulls(),
        )))
    }
}

struct UnionEncoder<'a> {
    union: &'a UnionArray,
    members: Vec<(i8, NullableEncoder<'a>)>,
}

impl Encoder for UnionEncoder<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let type_id = self.union.type_id(row);
        let at = self.union.value_offset(row);
        match self.members.iter_mut().find(|(member, _)| *member == type_id) {
            Some((_, encoder)) if !encoder.is_null(at) => encoder.encode(at, out),
            _ => out.extend_from_slice(b"null"),
        }
    }
}

/// Text that is JSON already. Line breaks in it can only stand between tokens. They are replaced by
/// spaces, since they would end the line.
struct RawJson<'a>(&'a ArrayRef);

impl Encoder for RawJson<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let text = self.0.as_string::<i32>().value(row);
        out.extend(
            text.bytes().map(|byte| if byte == b'\n' || byte == b'\r' { b' ' } else { byte }),
        );
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
