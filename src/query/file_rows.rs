//! Reads columns of one file in the order of its rows, without planning a statement.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::StreamExt;
use futures::stream::BoxStream;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;

use super::failure::query_failed;
use super::reading::{CountedReads, FOOTER_BYTES};
use super::{Queries, provider};
use crate::error::{Error, Result};
use crate::record::Rows;
use crate::table::DataFile;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

impl Queries {
    /// Reads columns of a file in the order of its rows.
    pub(crate) async fn file_rows(
        &self,
        rows: Rows,
        file: &DataFile,
        columns: &[&str],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let table = rows.file_schema();
        let fields = columns.iter().map(|name| table.field_with_name(name).cloned());
        let fields = fields.collect::<std::result::Result<Vec<_>, _>>();
        let unknown = |cause| Error::internal("a column of a file is unknown").with_source(cause);
        let schema = Arc::new(Schema::new(fields.map_err(unknown)?));
        let reads = CountedReads::new(self.base.runtime_env()).map_err(query_failed)?;
        let file = provider::partitioned_file(&self.paths[rows as usize], file);
        let metrics = ExecutionPlanMetricsSet::new();
        let reader: Box<dyn AsyncFileReader> =
            reads.create_reader(0, file, Some(FOOTER_BYTES), &metrics).map_err(query_failed)?;
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(read_failed)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        let batches = batches.map_err(read_failed)?;
        Ok(batches.map(move |batch| shaped(&batch.map_err(read_failed)?, &schema)).boxed())
    }
}

/// Returns the rows with the columns of a schema. Other programs write text in other types, and
/// leave out columns that are null.
fn shaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>();
    let shaped = columns.and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns));
    shaped.map_err(|cause| {
        Error::damaged("a file of the table has columns of other types").with_source(cause)
    })
}

fn read_failed(cause: ParquetError) -> Error {
    query_failed(DataFusionError::ParquetError(Box::new(cause)))
}
