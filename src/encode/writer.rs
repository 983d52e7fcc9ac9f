//! Encodes the rows of a response in each format.
//!
//! All formats contain the same table. A response without rows is still a valid file: `[]`, a CSV
//! header, a schema. [`Writer`] encodes batches without I/O. Between two calls it holds at most one
//! Parquet row group.

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited, Writer as JsonWriter};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::format::Format;
use super::formulas;
use super::schema::{OutputSchema, json_writer};
use crate::error::{Error, Result};

/// Encoded size at which a row group is closed. Until then it is held in memory.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// Encodes batches of one schema in one format.
pub struct Writer {
    shape: OutputSchema,
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
    /// Creates a writer for rows of a schema.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self> {
        let shape = OutputSchema::new(schema, format);
        let sink = match format {
            Format::Jsonl => Sink::Jsonl(json_writer().build(Vec::new())),
            Format::Json => Sink::Json(json_writer().build(Vec::new())),
            Format::Csv => Sink::Csv { out: Vec::new(), begun: false, quoted: false },
            Format::Arrow => {
                Sink::Arrow(StreamWriter::try_new(Vec::new(), shape.schema()).map_err(unwritable)?)
            }
            Format::Parquet => Sink::Parquet(Box::new(parquet_writer(shape.schema())?)),
        };
        Ok(Self { shape, sink })
    }

    /// Sets whether CSV cells that begin a formula are quoted.
    #[must_use]
    pub fn quoting_formulas(mut self, quoting: bool) -> Self {
        if let Sink::Csv { quoted, .. } = &mut self.sink {
            *quoted = quoting;
        }
        self
    }

    /// Encodes the rows of a batch. Returns the bytes that are ready, which may be none.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<Bytes> {
        let batch = self.shape.apply(batch).map_err(unwritable)?;
        match &mut self.sink {
            Sink::Jsonl(writer) => writer.write(&batch),
            Sink::Json(writer) => writer.write(&batch),
            Sink::Csv { out, begun, quoted } => {
                let header = !std::mem::replace(begun, true);
                let batch =
                    if *quoted { formulas::quote(&batch).map_err(unwritable)? } else { batch };
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
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
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

/// Returns the error of a column whose type the format does not support. The query can cast it.
fn unwritable(cause: ArrowError) -> Error {
    Error::invalid(format!(
        "the response cannot be written in this format ({cause}); cast the column to text, or name another"
    ))
    .with_source(cause)
}
