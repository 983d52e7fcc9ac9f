//! Response formats: selection for a request, and encoding.
//!
//! Every format carries the same table: JSON lines (the default), one JSON array, CSV, an Arrow IPC
//! stream, Parquet. A format named by `format` takes precedence over `Accept`. A response without
//! rows is still a complete file: `[]`, a CSV header, a schema. [`Writer`] turns batches into bytes
//! without I/O. Between two calls it holds at most one Parquet row group.

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited, Writer as JsonWriter};
use axum::http::StatusCode;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::error::Failure;
use super::formulas;
use super::shape::{Shape, json_writer};
use crate::error::{Error, Result};

/// Encoded size at which a row group is closed. Until then it is held in memory.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// A response format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// One JSON array of objects.
    Json,
    /// Comma-separated values with a header line; nested values are JSON text.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// Every format: its name, the media type of its response, and other media types that select it.
const FORMATS: [(Format, &str, &str, &[&str]); 5] = [
    (
        Format::Jsonl,
        "jsonl",
        "application/x-ndjson",
        &["application/jsonl", "application/x-jsonlines", "application/ndjson"],
    ),
    (Format::Json, "json", "application/json", &[]),
    (Format::Csv, "csv", "text/csv; charset=utf-8", &["text/csv"]),
    (Format::Arrow, "arrow", "application/vnd.apache.arrow.stream", &[]),
    (Format::Parquet, "parquet", "application/vnd.apache.parquet", &["application/x-parquet", "application/parquet"]),
];

impl Format {
    /// Returns the names of the formats.
    pub fn names() -> String {
        FORMATS.map(|(_, name, ..)| name).join(", ")
    }

    /// Returns every format with its name and the media type of its response.
    pub fn each() -> [(Self, &'static str, &'static str); FORMATS.len()] {
        FORMATS.map(|(format, name, media, _)| (format, name, media))
    }

    /// Returns the format with that name.
    pub fn named(name: &str) -> Result<Self> {
        let found = FORMATS.iter().find(|(_, known, ..)| known.eq_ignore_ascii_case(name.trim()));
        found
            .map(|(format, ..)| *format)
            .ok_or_else(|| Error::invalid(format!("field `format` is `{name}`; expected one of {}", Self::names())))
    }

    /// Returns the media type of a response in this format.
    pub fn media_type(self) -> &'static str {
        FORMATS.iter().find(|(format, ..)| *format == self).map_or("application/octet-stream", |(_, _, media, _)| media)
    }

    /// Returns the format of a request: by name, else by `Accept`, else JSON lines.
    pub(crate) fn asked(name: Option<&str>, accept: Option<&str>) -> Result<Self, Failure> {
        match (name, accept) {
            (Some(name), _) => Ok(Self::named(name)?),
            (None, None) => Ok(Self::Jsonl),
            (None, Some(accept)) => Self::accepted(accept).ok_or_else(|| {
                let message =
                    "no media type in `accept` is supported; name the format of the answer with `format`, one of ";
                Failure::new(StatusCode::NOT_ACCEPTABLE, format!("{message}{}", Self::names()))
            }),
        }
    }

    /// Returns the preferred format of an `Accept` header. The first one wins among equals.
    pub(crate) fn accepted(accept: &str) -> Option<Self> {
        let mut best: Option<(Self, f32)> = None;
        for range in accept.split(',') {
            let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality = parameters.split(';').find_map(|part| part.trim().strip_prefix("q=")?.parse().ok());
            let quality: f32 = quality.unwrap_or(1.0);
            let Some(format) = Self::of_media(media.trim()) else { continue };
            if quality > 0.0 && best.is_none_or(|(_, most)| quality > most) {
                best = Some((format, quality));
            }
        }
        best.map(|(format, _)| format)
    }

    fn of_media(media: &str) -> Option<Self> {
        if ["", "*/*", "application/*"].contains(&media) {
            return Some(Self::Jsonl);
        }
        let offers = |own: &str, others: &[&str]| own.eq_ignore_ascii_case(media) || others.contains(&media);
        FORMATS.iter().find(|(_, _, own, others)| offers(own, others)).map(|(format, ..)| *format)
    }
}

/// Turns batches of one schema into the bytes of one format.
pub struct Writer {
    shape: Shape,
    sink: Sink,
}

enum Sink {
    Jsonl(JsonWriter<Vec<u8>, LineDelimited>),
    Json(JsonWriter<Vec<u8>, JsonArray>),
    Csv { out: Vec<u8>, begun: bool, quoted: bool },
    Arrow(StreamWriter<Vec<u8>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates a writer for rows with that schema.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self> {
        let shape = Shape::new(schema, format);
        let sink = match format {
            Format::Jsonl => Sink::Jsonl(json_writer().build(Vec::new())),
            Format::Json => Sink::Json(json_writer().build(Vec::new())),
            Format::Csv => Sink::Csv { out: Vec::new(), begun: false, quoted: false },
            Format::Arrow => Sink::Arrow(StreamWriter::try_new(Vec::new(), shape.schema()).map_err(unwritable)?),
            Format::Parquet => Sink::Parquet(Box::new(parquet_writer(shape.schema())?)),
        };
        Ok(Self { shape, sink })
    }

    /// Sets whether CSV cells that begin a formula are quoted. Other formats are not affected.
    #[must_use]
    pub fn quoting_formulas(mut self, quoting: bool) -> Self {
        if let Sink::Csv { quoted, .. } = &mut self.sink {
            *quoted = quoting;
        }
        self
    }

    /// Writes the rows of a batch and returns the bytes that are ready, which may be none.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        let batch = self.shape.apply(batch).map_err(unwritable)?;
        match &mut self.sink {
            Sink::Jsonl(writer) => writer.write(&batch),
            Sink::Json(writer) => writer.write(&batch),
            Sink::Csv { out, begun, quoted } => {
                let header = !std::mem::replace(begun, true);
                let batch = if *quoted { formulas::quote(&batch).map_err(unwritable)? } else { batch };
                csv::WriterBuilder::new().with_header(header).build(out).write(&batch)
            }
            Sink::Arrow(writer) => writer.write(&batch),
            Sink::Parquet(writer) => write_parquet(writer, &batch),
        }
        .map_err(unwritable)?;
        Ok(self.take())
    }

    /// Ends the response and returns its last bytes.
    pub fn finish(&mut self) -> Result<Bytes> {
        if matches!(self.sink, Sink::Csv { begun: false, .. }) {
            return self.write(&RecordBatch::new_empty(std::sync::Arc::clone(self.shape.source())));
        }
        match &mut self.sink {
            Sink::Jsonl(writer) => writer.finish(),
            Sink::Json(writer) => writer.finish(),
            Sink::Csv { .. } => Ok(()),
            Sink::Arrow(writer) => writer.finish(),
            Sink::Parquet(writer) => writer.finish().map(|_| ()).map_err(ArrowError::from),
        }
        .map_err(unwritable)?;
        Ok(self.take())
    }

    fn take(&mut self) -> Bytes {
        let out = match &mut self.sink {
            Sink::Jsonl(writer) => writer.get_mut(),
            Sink::Json(writer) => writer.get_mut(),
            Sink::Csv { out, .. } => out,
            Sink::Arrow(writer) => writer.get_mut(),
            Sink::Parquet(writer) => writer.inner_mut(),
        };
        Bytes::from(std::mem::take(out))
    }
}

fn parquet_writer(schema: &Schema) -> Result<ArrowWriter<Vec<u8>>> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    ArrowWriter::try_new(Vec::new(), std::sync::Arc::new(schema.clone()), Some(properties))
        .map_err(|cause| unwritable(cause.into()))
}

fn write_parquet(writer: &mut ArrowWriter<Vec<u8>>, batch: &RecordBatch) -> Result<(), ArrowError> {
    writer.write(batch)?;
    if writer.in_progress_size() >= ROW_GROUP_BYTES {
        writer.flush()?;
    }
    Ok(())
}

/// Returns the error of a column whose type the format does not support. A cast in the query avoids
/// it.
fn unwritable(cause: ArrowError) -> Error {
    Error::invalid(format!(
        "the answer cannot be written in this format ({cause}); cast the column to text, or name another"
    ))
    .with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_accepted_type_wins() {
        for (accept, format) in [
            ("text/csv", Some(Format::Csv)),
            ("text/html, application/json;q=0.5, text/csv;q=0.9", Some(Format::Csv)),
            ("application/vnd.apache.arrow.stream", Some(Format::Arrow)),
            ("*/*", Some(Format::Jsonl)),
            ("application/x-parquet; q=1, */*; q=0.1", Some(Format::Parquet)),
            ("text/csv;q=0", None),
            ("text/html", None),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn a_name_wins_and_an_unknown_one_lists_the_others() {
        assert_eq!(Format::asked(Some("CSV"), Some("application/json")).unwrap(), Format::Csv);
        let error = Format::named("xml").unwrap_err();
        assert_eq!(error.message(), "field `format` is `xml`; expected one of jsonl, json, csv, arrow, parquet");
    }
}
