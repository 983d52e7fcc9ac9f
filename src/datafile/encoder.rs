//! Parquet encoder that writes row group by row group and streams the bytes to an object. Every
//! page has a CRC ([`super::pages`]), and the footer has checksums of the whole file
//! ([`super::sums`]).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::buffered::BufWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use tokio::io::AsyncWriteExt;

use super::pages::{Factory, Pages};
use super::sums::{self, Sums};

/// Rows of a row group: scans a third faster than with 32,768 rows, and is small enough for
/// pruning.
pub(super) const ROW_GROUP_ROWS: usize = 131_072;

/// Encoder of one file.
pub(super) struct Encoder {
    file: SerializedFileWriter<Vec<u8>>,
    columns: ArrowRowGroupWriterFactory,
    pages: Arc<Pages>,
    schema: SchemaRef,
    group: Option<RowGroup>,
    sums: Sums,
    /// Marker of the checksums in the footer. It is random, so that no value of a client matches
    /// it.
    token: String,
    object: BufWriter,
    /// Maximum encoded bytes of a row group: bodies of megabytes must not make a group of
    /// gigabytes.
    group_bytes: usize,
}

/// Row group that rows are being added to.
struct RowGroup {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl RowGroup {
    fn bytes(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// Estimates from the previous rows how many of `rows` fit. Returns `None` if the group is
    /// full.
    fn room(&self, rows: usize, group_bytes: usize) -> usize {
        let rows = rows.min(ROW_GROUP_ROWS.saturating_sub(self.rows));
        let bytes = self.bytes();
        match bytes.checked_div(self.rows) {
            Some(a_row) if a_row > 0 => rows.min(group_bytes.saturating_sub(bytes) / a_row),
            _ => rows,
        }
    }

    fn is_full(&self, group_bytes: usize) -> bool {
        self.rows >= ROW_GROUP_ROWS || self.bytes() >= group_bytes
    }

    fn write(&mut self, schema: &SchemaRef, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        let mut columns = self.columns.iter_mut();
        for (field, values) in schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, values)? {
                let column = columns.next();
                column
                    .ok_or_else(|| general("a batch has more columns than the file"))?
                    .write(&leaf)?;
            }
        }
        Ok(())
    }
}

impl Encoder {
    pub(super) fn new(
        object: BufWriter,
        schema: SchemaRef,
        mut form: WriterProperties,
        token: String,
        group_bytes: usize,
    ) -> Result<Self> {
        let columns =
            ArrowSchemaConverter::new().with_coerce_types(form.coerce_types()).convert(&schema)?;
        add_encoded_arrow_schema_to_metadata(&schema, &mut form);
        let file =
            SerializedFileWriter::new(Vec::new(), columns.root_schema_ptr(), Arc::new(form))?;
        let pages = Arc::<Pages>::default();
        let columns = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema))
            .with_page_store_factory(Arc::new(Factory(Arc::clone(&pages))));
        Ok(Self {
            file,
            columns,
            pages,
            schema,
            group: None,
            sums: Sums::default(),
            token,
            object,
            group_bytes,
        })
    }

    /// Returns the bytes written so far, including those of the open row group.
    pub(super) fn bytes(&self) -> usize {
        self.file.bytes_written() + self.group.as_ref().map_or(0, RowGroup::bytes)
    }

    /// Returns the memory of the open row group in bytes.
    pub(super) fn buffered(&self) -> usize {
        self.group.iter().flat_map(|group| &group.columns).map(ArrowColumnWriter::memory_size).sum()
    }

    /// Adds rows in the schema of the file.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < batch.num_rows() {
            let group = match &mut self.group {
                Some(group) => group,
                none => {
                    let columns =
                        self.columns.create_column_writers(self.file.flushed_row_groups().len())?;
                    none.insert(RowGroup { columns, rows: 0 })
                }
            };
            let rows = group.room(batch.num_rows() - start, self.group_bytes);
            if rows > 0 {
                group.write(&self.schema, &batch.slice(start, rows))?;
            }
            if rows == 0 || group.is_full(self.group_bytes) {
                self.end_row_group().await?;
            }
            start += rows;
        }
        Ok(())
    }

    /// Ends the open row group and passes its bytes on.
    pub(super) async fn end_row_group(&mut self) -> Result<()> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let before = self.file.bytes_written();
        let mut writer = self.file.next_row_group()?;
        for (place, column) in group.columns.into_iter().enumerate() {
            let (bytes, close) = self.pages.end_column(place, column.close()?, &mut self.sums)?;
            writer.append_column(&bytes, close)?;
        }
        writer.close()?;
        self.pages.clear();
        // The first bytes of the file are written together with the first row group.
        self.add_bloom_filters(if before == sums::FIRST { 0 } else { before })?;
        self.hand_on().await
    }

    /// Records checksums of the bloom filters, which follow their row group.
    fn add_bloom_filters(&mut self, written: usize) -> Result<()> {
        self.file.flush()?;
        let Some(group) = self.file.flushed_row_groups().last() else { return Ok(()) };
        for column in group.columns() {
            let (Some(offset), Some(len)) =
                (column.bloom_filter_offset(), column.bloom_filter_length())
            else {
                continue;
            };
            let start = usize::try_from(offset).ok().and_then(|offset| offset.checked_sub(written));
            let bytes = start
                .and_then(|start| self.file.inner().get(start..start.checked_add(len as usize)?));
            match bytes.filter(|_| self.sums.end() == offset.cast_unsigned()) {
                Some(bytes) => self.sums.add(bytes),
                None => return Err(general("a bloom filter is at an unexpected offset")),
            }
        }
        if self.sums.end() == self.file.bytes_written() as u64 {
            Ok(())
        } else {
            Err(general("a row group has bytes that are neither pages nor bloom filters"))
        }
    }

    /// Ends the file, with a further metadata entry, and returns its length. When this returns, the
    /// file is stored.
    pub(super) async fn finish(&mut self, entry: Option<KeyValue>) -> Result<u64> {
        self.end_row_group().await?;
        self.file.flush()?;
        self.hand_on().await?;
        entry.into_iter().for_each(|entry| self.file.append_key_value_metadata(entry));
        self.file.append_key_value_metadata(self.sums.entry(&self.token));
        self.file.finish()?;
        sums::complete(self.file.inner_mut(), &self.token)
            .ok_or_else(|| general("the footer has no place for its checksums"))?;
        self.hand_on().await?;
        self.object.shutdown().await?;
        Ok(self.file.bytes_written() as u64)
    }

    async fn hand_on(&mut self) -> Result<()> {
        let bytes = std::mem::take(self.file.inner_mut());
        Ok(self.object.write_all(&bytes).await?)
    }
}

fn general(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}
