//! One sorted Parquet file of a table: its physical layout, and the properties that its commit
//! records.
//!
//! Rows must be sorted by [`SORT_KEY`] and belong to one partition. Row groups are limited in rows
//! and bytes, so a reader of big bodies never holds much. Bodies and ids have no dictionary, and
//! bodies no statistics, since neither would help there; `id`, `trace_id` and
//! `internal_trace_id` have bloom filters.
//! Every page has a CRC, and the footer has checksums of the whole file, which reads verify
//! ([`checked`]). For records, the footer also marks those that are open ([`OpenRows`]).

pub(crate) mod checked;
mod encoder;
mod open_rows;
mod pages;
mod sums;
#[cfg(test)]
mod tests;
mod varint;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanBufferBuilder, RecordBatch, StringViewArray};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use object_store::buffered::BufWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use uuid::Uuid;

use encoder::Encoder;
pub(crate) use open_rows::{OpenRecords, OpenRows};

use crate::error::{Error, Result};
use crate::record::{Rows, SORT_KEY, SORT_OPTIONS};
use crate::store::data_path;
use crate::table::{DataFile, Table, lower_bound, upper_bound};

/// Concurrent uploads of parts. More would only cost memory, since encoding is the slower step.
const PARTS_IN_FLIGHT: usize = 2;
/// Minimum bytes of a part in a bucket, which refuses smaller parts except the last.
const LEAST_BUCKET_PART: usize = 5 << 20;
/// Minimum bytes of a part on a disk.
const LEAST_PART: usize = 1 << 20;
/// Maximum bytes of a part.
const MAX_PART: usize = 10 << 20;
/// Divisor of the row group size that gives the text passed to the encoder at a time.
const SLICES_A_GROUP: usize = 4;

/// Partition of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition {
    /// UTC day, in days since 1970-01-01.
    pub date: i32,
    /// Days to keep the rows. 0 means for ever.
    pub retention_days: i32,
}

/// Writer of one file.
pub(crate) struct DataFileWriter {
    encoder: Encoder,
    file: DataFile,
    schema: SchemaRef,
    /// Bytes of text passed to the encoder at a time.
    slice_bytes: usize,
    open: OpenRecords,
    /// One bit per row, set if its record is open. Feedback has none.
    open_bits: Option<BooleanBufferBuilder>,
}

impl std::fmt::Debug for DataFileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataFileWriter").field("path", &self.file.path).finish()
    }
}

impl DataFileWriter {
    /// Starts file `id` in a partition of the table.
    pub(crate) fn start(
        table: &Table,
        partition: Partition,
        id: Uuid,
        zstd_level: i32,
        now_ms: i64,
    ) -> Result<Self> {
        let path = data_path(partition.retention_days, partition.date, id, false);
        Self::start_at(path, table, partition, zstd_level, now_ms)
    }

    /// Starts a file whose name marks it as sealed.
    pub(crate) fn start_sealed(
        table: &Table,
        partition: Partition,
        id: Uuid,
        zstd_level: i32,
        now_ms: i64,
    ) -> Result<Self> {
        let path = data_path(partition.retention_days, partition.date, id, true);
        Self::start_at(path, table, partition, zstd_level, now_ms)
    }

    fn start_at(
        path: String,
        table: &Table,
        partition: Partition,
        zstd_level: i32,
        now_ms: i64,
    ) -> Result<Self> {
        let file = DataFile {
            path,
            bytes: 0,
            rows: 0,
            retention_days: partition.retention_days,
            date: partition.date,
            modified_ms: now_ms,
            min_created_at: i64::MAX,
            max_created_at: i64::MIN,
            min_organisation: None,
            max_organisation: None,
            min_id: None,
            max_id: None,
        };
        let group_bytes = table.row_group_bytes();
        let least = if table.is_shared() { LEAST_BUCKET_PART } else { LEAST_PART };
        let part_bytes = (group_bytes / 2).clamp(least, MAX_PART);
        let store = Arc::clone(table.object_store());
        let place = table.object_store_path(&file);
        let object = BufWriter::with_capacity(store, place, part_bytes)
            .with_max_concurrency(PARTS_IN_FLIGHT);
        let form = properties(table.rows(), zstd_level)?;
        let token = Uuid::new_v4().simple().to_string();
        let encoder = Encoder::new(object, table.rows().file_schema(), form, token, group_bytes)
            .map_err(|cause| {
                Error::storage(format!("cannot start file `{}`", file.path)).with_source(cause)
            })?;
        Ok(Self {
            encoder,
            file,
            schema: table.rows().file_schema(),
            slice_bytes: group_bytes / SLICES_A_GROUP,
            open: OpenRecords::Nothing,
            open_bits: (table.rows() == Rows::Logs).then(|| BooleanBufferBuilder::new(0)),
        })
    }

    /// Sets which of the records are open. None is by default.
    #[must_use]
    pub(crate) fn with_open(self, open: OpenRecords) -> Self {
        Self { open, ..self }
    }

    /// Appends rows. The batch must start with the file's columns, in order; further columns are
    /// ignored.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let columns = batch.columns()[..self.schema.fields().len()].to_vec();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|cause| {
            Error::internal("a batch does not match the columns of the table").with_source(cause)
        })?;
        self.file.cover(&batch);
        if let Some(bits) = &mut self.open_bits {
            self.open.mark(&batch, bits);
        }
        // The encoder checks the size of a row group only between two slices.
        for rows in slices(&row_bytes(&batch), self.slice_bytes) {
            let slice = batch.slice(rows.start, rows.len());
            self.encoder.write(&slice).await.map_err(|cause| self.failed(cause))?;
        }
        Ok(())
    }

    /// Returns the bytes of the file so far. Open pages, of a megabyte at most, count before
    /// compression.
    pub(crate) fn bytes(&self) -> u64 {
        self.encoder.bytes() as u64
    }

    /// Returns the memory of the open row group in bytes.
    pub(crate) fn buffered(&self) -> usize {
        self.encoder.buffered()
    }

    /// Ends the open row group, which frees its memory.
    pub(crate) async fn end_row_group(&mut self) -> Result<()> {
        self.encoder.end_row_group().await.map_err(|cause| self.failed(cause))
    }

    /// Ends the file. When this returns, the file is stored.
    pub(crate) async fn finish(mut self) -> Result<DataFile> {
        let bits = self.open_bits.take().map(BooleanBufferBuilder::build);
        let entry = bits.map(|bits| OpenRows::from_bits(bits).entry()).transpose();
        let entry = entry.map_err(|cause| self.failed(cause))?;
        let finished = self.encoder.finish(entry).await;
        self.file.bytes = finished.map_err(|cause| self.failed(cause))?;
        Ok(self.file)
    }

    fn failed(&self, cause: parquet::errors::ParquetError) -> Error {
        Error::storage(format!("cannot write file `{}`", self.file.path)).with_source(cause)
    }
}

impl DataFile {
    /// Widens the file's bounds to include the rows of a batch.
    fn cover(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        if let Some(created_at) = batch.column_by_name("created_at") {
            let created_at = created_at.as_primitive::<TimestampMicrosecondType>();
            self.min_created_at =
                self.min_created_at.min(arrow::compute::min(created_at).unwrap_or(i64::MAX));
            self.max_created_at =
                self.max_created_at.max(arrow::compute::max(created_at).unwrap_or(i64::MIN));
        }
        if let Some(organisations) = batch.column_by_name("organisation_id") {
            widen(
                &mut self.min_organisation,
                &mut self.max_organisation,
                organisations.as_string_view(),
            );
        }
        if let Some(ids) = batch.column_by_name("id") {
            widen(&mut self.min_id, &mut self.max_id, ids.as_string_view());
        }
    }
}

/// Returns the bytes of the bodies and headers of each row. Its other columns are small.
fn row_bytes(batch: &RecordBatch) -> Vec<usize> {
    let mut bytes = vec![0; batch.num_rows()];
    for message in batch.columns().iter().filter_map(|column| column.as_struct_opt()) {
        for text in message.columns().iter().filter_map(|column| column.as_string_view_opt()) {
            for (row, length) in bytes.iter_mut().zip(text.lengths()) {
                *row += length as usize;
            }
        }
    }
    bytes
}

/// Splits rows into slices of at most `most` bytes. A larger row is a slice of its own.
fn slices(row_bytes: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let mut start = 0;
    let mut bytes = 0_usize;
    for (row, size) in row_bytes.iter().enumerate() {
        if row > start && bytes.saturating_add(*size) > most {
            slices.push(start..row);
            (start, bytes) = (row, 0);
        }
        bytes = bytes.saturating_add(*size);
    }
    slices.push(start..row_bytes.len());
    slices
}

fn widen(min: &mut Option<String>, max: &mut Option<String>, values: &StringViewArray) {
    let lowest = arrow::compute::min_string_view(values);
    let highest = arrow::compute::max_string_view(values);
    if let Some(lowest) = lowest.filter(|lowest| min.as_deref().is_none_or(|min| *lowest < min)) {
        *min = Some(lower_bound(lowest.to_owned()));
    }
    if let Some(highest) = highest.filter(|highest| max.as_deref().is_none_or(|max| *highest > max))
    {
        *max = Some(upper_bound(highest.to_owned()));
    }
}

/// Returns the physical layout of a file.
fn properties(rows: Rows, zstd_level: i32) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(zstd_level).map_err(|cause| {
        Error::invalid(format!("zstd level {zstd_level} does not exist")).with_source(cause)
    })?;
    let path =
        |name: &str| ColumnPath::from(name.split('.').map(str::to_owned).collect::<Vec<_>>());
    let mut properties = WriterProperties::builder()
        .set_created_by(sums::CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_sorting_columns(Some(sorting_columns(rows)))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_dictionary_enabled(path("created_at"), false)
        .set_column_encoding(path("created_at"), Encoding::DELTA_BINARY_PACKED);
    for body in ["request.body", "request.headers", "response.body", "response.headers"] {
        properties = properties
            .set_column_dictionary_enabled(path(body), false)
            .set_column_statistics_enabled(path(body), EnabledStatistics::None);
    }
    for id in ["id", "span_id"] {
        properties = properties.set_column_dictionary_enabled(path(id), false);
    }
    for key in ["id", "trace_id", "internal_trace_id"] {
        properties = properties
            .set_column_bloom_filter_fpp(path(key), 0.01)
            .set_column_bloom_filter_max_ndv(path(key), encoder::ROW_GROUP_ROWS as u64);
    }
    Ok(properties.build())
}

fn sorting_columns(rows: Rows) -> Vec<SortingColumn> {
    let place = |name: &&str| {
        rows.file_schema().index_of(name).ok().and_then(|place| i32::try_from(place).ok())
    };
    let columns = SORT_KEY.iter().filter_map(place);
    columns
        .map(|column_idx| SortingColumn {
            column_idx,
            descending: SORT_OPTIONS.descending,
            nulls_first: SORT_OPTIONS.nulls_first,
        })
        .collect()
}
