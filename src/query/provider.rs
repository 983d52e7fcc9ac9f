//! The table `logs` of one View: which files a filter leaves, how they are read, and the rows in memory beside them.
//!
//! Files are pruned from the index in memory by partition, time, organisation and id, so a query opens no footer that it
//! need not. What a file cannot prove about itself counts as "may hold rows".

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::Date32Array;
use arrow::array::{ArrayRef, BooleanArray, Int32Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::expressions::col;
use datafusion::physical_plan::union::UnionExec;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::record::{DATE, RETENTION_DAYS, SORT_KEY, SORT_OPTIONS, file_schema, partition_fields, schema};
use crate::table::DataFile;
use crate::view::View;

/// Up to this many files each is read as a stream of its own, in the order it is sorted by.
const FILES_WORTH_ORDERING: usize = 16;
/// The newest so many files carry what is known of them into the plan, so that a query for the newest rows leaves out files
/// as soon as it has enough; more would cost every query more than it saves the few.
const FILES_WITH_FACTS: usize = 512;

/// Whether the scan gives its files' order on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// For few files, where it costs nothing.
    WhenCheap,
    /// Always: the query merges in sort-key order, as an export or a compaction does.
    Always,
}

/// The table `logs` over one View.
#[derive(Debug)]
pub(super) struct LogTable {
    view: View,
    table_path: Path,
    ordering: Ordering,
}

impl LogTable {
    pub(super) fn new(view: View, table_path: Path, ordering: Ordering) -> Self {
        Self { view, table_path, ordering }
    }

    /// Files that may hold rows which pass the filters.
    fn pruned(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<Arc<DataFile>>> {
        let files: Vec<Arc<DataFile>> = self.view.files.iter().map(Arc::clone).collect();
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(files) };
        let df_schema = DFSchema::try_from(schema())?;
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(schema())
            .try_build(session.create_physical_expr(filter, &df_schema)?)?;
        if predicate.always_true() {
            return Ok(files);
        }
        let kept = predicate.prune(&FileFacts(&files))?;
        Ok(files.into_iter().zip(kept).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    fn scan_files(
        &self,
        session: &dyn Session,
        files: &[Arc<DataFile>],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table_schema = TableSchema::builder(file_schema())
            .with_table_partition_cols(partition_fields().into_iter().map(Arc::new).collect::<Vec<_>>())
            .build();
        let url = ObjectStoreUrl::parse(super::STORE_URL)?;
        let store = session.runtime_env().object_store(&url)?;
        let cache = session.runtime_env().cache_manager.get_file_metadata_cache();
        let options = session.table_options().parquet.clone();
        let source = ParquetSource::new(table_schema)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, cache)));
        let ordered = self.ordering == Ordering::Always || files.len() <= FILES_WORTH_ORDERING;
        let mut config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_statistics(statistics(files, &schema()))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit);
        if ordered {
            let groups = files.iter().map(|file| FileGroup::new(vec![self.partitioned_file(file)])).collect();
            config = config.with_file_groups(groups).with_output_ordering(vec![sort_order()?]);
        } else {
            config = config.with_file_groups(self.newest_first(files, session.config().target_partitions()));
        }
        Ok(DataSourceExec::from_data_source(config.build()))
    }

    /// Deals the files out, the newest first to each, so that a query for the newest rows finds them at once.
    fn newest_first(&self, files: &[Arc<DataFile>], partitions: usize) -> Vec<FileGroup> {
        let mut newest: Vec<&Arc<DataFile>> = files.iter().collect();
        newest.sort_by_key(|file| std::cmp::Reverse(file.max_created_at));
        let mut groups = vec![Vec::new(); partitions.clamp(1, files.len().max(1))];
        let dealt = groups.len();
        for (place, file) in newest.into_iter().enumerate() {
            let mut partitioned = self.partitioned_file(file);
            if place < FILES_WITH_FACTS {
                let facts = statistics(std::slice::from_ref(file), &file_schema());
                partitioned = partitioned.with_statistics(Arc::new(facts));
            }
            groups[place % dealt].push(partitioned);
        }
        groups.into_iter().map(FileGroup::new).collect()
    }

    fn partitioned_file(&self, file: &DataFile) -> PartitionedFile {
        let relative = Path::from_url_path(&file.path).unwrap_or_else(|_| Path::from(file.path.as_str()));
        let location = self.table_path.parts().chain(relative.parts()).collect();
        let last_modified = DateTime::<Utc>::from_timestamp_millis(file.modified_ms).unwrap_or_default();
        // The cache of footers knows a file by its path, size and time; a path is never written twice.
        let object = ObjectMeta { location, last_modified, size: file.bytes, e_tag: None, version: None };
        let mut partitioned = PartitionedFile::new_from_meta(object);
        partitioned.partition_values =
            vec![ScalarValue::Int32(Some(file.retention_days)), ScalarValue::Date32(Some(file.date))];
        partitioned
    }
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The scan prunes files by them; rows are filtered by the plan, which pushes into Parquet what Parquet can do.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.pruned(session, filters)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            inputs.push(self.scan_files(session, &files, projection, limit)?);
        }
        if !self.view.memory.is_empty() {
            let partitions = [self.view.memory.clone()];
            inputs.push(MemorySourceConfig::try_new_exec(&partitions, schema(), projection.cloned())?);
        }
        match inputs.len() {
            0 => {
                let projected = match projection {
                    Some(columns) => Arc::new(schema().project(columns)?),
                    None => schema(),
                };
                Ok(Arc::new(EmptyExec::new(projected)))
            }
            1 => Ok(inputs.remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }
}

/// The order of rows in every file.
fn sort_order() -> Result<LexOrdering> {
    let keys = SORT_KEY
        .iter()
        .map(|name| Ok(PhysicalSortExpr::new(col(name, &schema())?, SORT_OPTIONS)))
        .collect::<Result<Vec<_>>>()?;
    LexOrdering::new(keys).ok_or_else(|| datafusion::error::DataFusionError::Internal("no sort key".to_owned()))
}

/// Rows, bytes and time range of the files: enough to answer `count(*)`, `min(created_at)` and `max(created_at)` unread.
fn statistics(files: &[Arc<DataFile>], schema: &SchemaRef) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    statistics.num_rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Exact);
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    statistics.total_byte_size = usize::try_from(bytes).map_or(Precision::Absent, Precision::Inexact);
    // Bounds that another program wrote may be rounded: they prune, but they are no answer.
    let ours = |file: &DataFile| crate::store::parse_data_path(&file.path).is_some_and(|path| path.uuid.is_some());
    let known = files.iter().all(|file| file.min_created_at > i64::MIN && file.max_created_at < i64::MAX && ours(file));
    let times =
        (files.iter().map(|file| file.min_created_at).min(), files.iter().map(|file| file.max_created_at).max());
    if let (true, (Some(min), Some(max)), Ok(place)) = (known, times, schema.index_of("created_at")) {
        let exactly = |micros| Precision::Exact(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
        statistics.column_statistics[place] = ColumnStatistics {
            min_value: exactly(min),
            max_value: exactly(max),
            null_count: Precision::Exact(0),
            ..ColumnStatistics::new_unknown()
        };
    }
    statistics
}

/// What the index knows of each file, in the form that DataFusion's pruning asks for.
struct FileFacts<'a>(&'a [Arc<DataFile>]);

impl FileFacts<'_> {
    fn texts<'a>(&'a self, value: impl Fn(&'a DataFile) -> Option<&'a str>) -> ArrayRef {
        Arc::new(self.0.iter().map(|file| value(file)).collect::<StringArray>())
    }

    fn times(&self, value: impl Fn(&DataFile) -> i64) -> ArrayRef {
        let times =
            self.0.iter().map(|file| Some(value(file)).filter(|micros| *micros != i64::MIN && *micros != i64::MAX));
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    }

    fn partition(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            RETENTION_DAYS => {
                Some(Arc::new(self.0.iter().map(|file| Some(file.retention_days)).collect::<Int32Array>()))
            }
            DATE => Some(Arc::new(self.0.iter().map(|file| Some(file.date)).collect::<Date32Array>())),
            _ => None,
        }
    }
}

impl PruningStatistics for FileFacts<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            "created_at" => Some(self.times(|file| file.min_created_at)),
            "organisation_id" => Some(self.texts(|file| file.min_organisation.as_deref())),
            "id" => Some(self.texts(|file| file.min_id.as_deref())),
            _ => self.partition(column),
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            "created_at" => Some(self.times(|file| file.max_created_at)),
            "organisation_id" => Some(self.texts(|file| file.max_organisation.as_deref())),
            "id" => Some(self.texts(|file| file.max_id.as_deref())),
            _ => self.partition(column),
        }
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.0.iter().map(|file| Some(file.rows)).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
