//! The table of one View: pruning of files, reading them, and the rows in memory beside them.
//!
//! Files are pruned by the index in memory: by partition, time, organisation and id. So a query
//! opens no unnecessary footer. If the index does not know a property of a file, the file counts as
//! "may hold rows".
//!
//! With a read scope, files without a visible row are left out. Those that may hold invisible rows
//! are read through a barrier ([`SecurityBarrierExec`]), as are batches in memory.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::functions::core::get_field;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::expressions::{BinaryExpr, Column as PlanColumn, col, lit};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::file_statistics::{FileStatistics, statistics};
use super::frugal;
use super::in_turn::InTurnExec;
use super::leakproof::is_leakproof;
use super::read_scope::ReadScope;
use super::reading::{CountedReads, FOOTER_BYTES, store_url};
use super::row_security::{RowSecurity, Visibility, is_message};
use super::security_barrier::{Output, SecurityBarrierExec};
use super::shown::Shown;
use crate::record::{Rows, SORT_KEY, SORT_OPTIONS, partition_fields};
use crate::table::DataFile;
use crate::view::View;

/// Maximum number of files that are each read as a sorted stream of their own.
const FILES_WORTH_ORDERING: usize = 16;
/// Maximum bytes of a row group. A reader of a file holds one.
const MAX_GROUP_BYTES: u64 = 32 << 20;
/// Maximum share of a file that all columns but the messages take, as a divisor.
const PART_WITHOUT_BODIES: u64 = 8;
/// Share of the memory of queries that concurrently open files may take, as a divisor.
const PART_FOR_READING: u64 = 8;
/// Number of newest files whose statistics are part of the plan, so that a query for the newest
/// rows skips files as soon as it has enough. With more, every query would cost more than these few
/// save.
const FILES_WITH_FACTS: usize = 512;

/// Use of the files' sort order by a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// Preserved for few files, where it costs nothing.
    WhenCheap,
    /// Always preserved: the query merges in sort-key order, as an export or a compaction does.
    Always,
    /// Never preserved: the query sorts, on disk if necessary, so that few files are open at once.
    Never,
}

/// The rows of one View as a table.
#[derive(Debug)]
pub(super) struct StoredTable {
    view: View,
    guard: Option<Arc<RowSecurity>>,
    table_path: Path,
    ordering: Ordering,
}

/// Requested columns, by position in the table, and filters of a scan.
struct Wanted<'a> {
    session: &'a dyn Session,
    files: &'a [Arc<DataFile>],
    projection: Option<&'a Vec<usize>>,
}

/// Input of a barrier: the requested columns, as far as they are visible, and those that decide on
/// visibility.
struct Reading {
    schema: SchemaRef,
    /// Positions of the requested columns in the schema.
    asked: Vec<usize>,
    /// Positions of the columns to read in the schema.
    columns: Vec<usize>,
    /// Source of each requested column, by position among those that are read.
    outputs: Vec<Output>,
    /// Positions of the deciding columns among those that are read.
    deciding: Vec<usize>,
}

impl Reading {
    fn new(
        guard: &RowSecurity,
        schema: SchemaRef,
        projection: Option<&Vec<usize>>,
    ) -> Result<Self> {
        let asked = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let mut columns = Vec::new();
        let mut outputs = Vec::new();
        let mut deciding = Vec::new();
        for column in &asked {
            let output = match guard.shows(schema.field(*column).name()) {
                Shown::All => Output::As(columns.len()),
                Shown::Headers => Output::Headers(columns.len()),
                Shown::Body => Output::Body(columns.len()),
                Shown::OtherKeys => Output::OtherKeys(columns.len()),
                Shown::Nothing => Output::Nothing,
            };
            if output != Output::Nothing {
                columns.push(*column);
            }
            outputs.push(output);
        }
        for name in guard.needs() {
            let column = schema.index_of(name)?;
            let known = columns.iter().position(|place| *place == column);
            deciding.push(known.unwrap_or(columns.len()));
            if known.is_none() {
                columns.push(column);
            }
        }
        Ok(Self { schema, asked, columns, outputs, deciding })
    }

    /// Returns the barrier above an input with these columns.
    fn barrier(
        self,
        session: &dyn Session,
        guard: &Arc<RowSecurity>,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<SecurityBarrierExec> {
        let asked = Arc::new(self.schema.project(&self.asked)?);
        let sides = self.outputs.iter().filter_map(|output| match output {
            Output::Headers(place) => Some((*place, "headers")),
            Output::Body(place) => Some((*place, "body")),
            _ => None,
        });
        let sides: HashMap<usize, &str> = sides.collect();
        let input = if sides.is_empty() { input } else { one_side(session, &input, &sides)? };
        SecurityBarrierExec::try_new(Arc::clone(guard), input, &asked, self.outputs, self.deciding)
    }
}

impl StoredTable {
    pub(super) fn new(
        view: View,
        read_scope: Option<ReadScope>,
        table_path: Path,
        ordering: Ordering,
    ) -> Self {
        let guard = read_scope.map(|read_scope| Arc::new(RowSecurity::new(read_scope, view.rows)));
        Self { view, guard, table_path, ordering }
    }

    /// Returns the kind of the rows.
    pub(super) fn rows(&self) -> Rows {
        self.view.rows
    }

    /// Returns the files whose rows are all visible, and those that may have visible rows, after
    /// pruning by the filters.
    fn files(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<[Vec<Arc<DataFile>>; 2]> {
        let hides = self.hides(projection);
        let mut open = Vec::new();
        let mut guarded = Vec::new();
        for file in self.view.files.iter() {
            match self.guard.as_ref().map_or(Visibility::All, |guard| guard.reach(file)) {
                Visibility::All if !hides => open.push(Arc::clone(file)),
                // Withheld columns are kept back by the barrier too.
                Visibility::All | Visibility::Some => guarded.push(Arc::clone(file)),
                Visibility::None => {}
            }
        }
        Ok([self.pruned(session, filters, open)?, self.pruned(session, filters, guarded)?])
    }

    /// Returns the files that may hold rows that pass the filters.
    fn pruned(
        &self,
        session: &dyn Session,
        filters: &[Expr],
        files: Vec<Arc<DataFile>>,
    ) -> Result<Vec<Arc<DataFile>>> {
        if files.is_empty() || filters.is_empty() {
            return Ok(files);
        }
        let df_schema = DFSchema::try_from(self.view.rows.schema())?;
        let mut exprs = Vec::new();
        for filter in filters {
            let expr = session.create_physical_expr(filter.clone(), &df_schema)?;
            // The bounds of files include values of others, and the error of a filter would name
            // them.
            if !self.is_bound() || is_leakproof(&expr, &self.view.rows.schema(), times_fit(&files))
            {
                exprs.push(expr);
            }
        }
        if exprs.is_empty() {
            return Ok(files);
        }
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(self.view.rows.schema())
            .try_build(datafusion::physical_expr::utils::conjunction(exprs));
        // If a filter cannot be evaluated on bounds (it may fail on a bound, though on no row), no
        // file is pruned.
        let Ok(predicate) = predicate else { return Ok(files) };
        if predicate.always_true() {
            return Ok(files);
        }
        let Ok(kept) = predicate.prune(&FileStatistics(&files)) else { return Ok(files) };
        Ok(files.into_iter().zip(kept).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    /// Returns the rules of visibility for rows and columns.
    pub(super) fn guard(&self) -> Option<&RowSecurity> {
        self.guard.as_deref()
    }

    fn is_bound(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_bound())
    }

    fn scan_files(
        &self,
        wanted: &Wanted<'_>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let source = parquet_source(wanted.session, self.view.rows)?;
        let known = statistics(wanted.files, &self.view.rows.schema());
        let config = self.file_scan(wanted, source, known)?.with_limit(limit);
        Ok(DataSourceExec::from_data_source(config.build()))
    }

    fn file_scan(
        &self,
        wanted: &Wanted<'_>,
        source: ParquetSource,
        known: Statistics,
    ) -> Result<FileScanConfigBuilder> {
        let files = wanted.files;
        let ordering = self.ordering(wanted.session);
        let ordered = match ordering {
            Ordering::Always => true,
            Ordering::WhenCheap => self.is_cheap_to_order(wanted),
            Ordering::Never => false,
        };
        let config = FileScanConfigBuilder::new(store_url()?, Arc::new(source))
            .with_statistics(known)
            .with_projection_indices(wanted.projection.cloned())?;
        if ordered {
            let groups = files
                .iter()
                .map(|file| FileGroup::new(vec![self.partitioned_file(file)]))
                .collect();
            Ok(config
                .with_file_groups(groups)
                .with_output_ordering(vec![sort_order(self.view.rows)?]))
        } else {
            // A sort that spills for lack of memory reads one file at a time.
            let partitions = match ordering {
                Ordering::Never => 1,
                _ => wanted.session.config().target_partitions(),
            };
            Ok(config.with_file_groups(self.newest_first(files, partitions)))
        }
    }

    /// Returns true if all files can be open at once: they are few, and small in relation to the
    /// memory of queries.
    fn is_cheap_to_order(&self, wanted: &Wanted<'_>) -> bool {
        let MemoryLimit::Finite(memory) = wanted.session.runtime_env().memory_pool.memory_limit()
        else {
            return wanted.files.len() <= FILES_WORTH_ORDERING;
        };
        let part = if self.reads_messages(wanted.projection) { 1 } else { PART_WITHOUT_BODIES };
        let open: u64 =
            wanted.files.iter().map(|file| file.bytes.min(MAX_GROUP_BYTES) / part).sum();
        wanted.files.len() <= FILES_WORTH_ORDERING && open <= memory as u64 / PART_FOR_READING
    }

    /// Reads files through a barrier. The files get a filter by organisation too, so that they skip
    /// rows of others.
    fn scan_guarded(
        &self,
        guard: &Arc<RowSecurity>,
        wanted: &Wanted<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let reading = Reading::new(guard, self.view.rows.schema(), wanted.projection)?;
        let mut source =
            parquet_source(wanted.session, self.view.rows)?.with_pushdown_filters(true);
        if let Some(own) = own_rows(guard, self.view.rows)? {
            source = source.with_predicate(own);
        }
        let below = Wanted { projection: Some(&reading.columns), ..*wanted };
        let config =
            self.file_scan(&below, source, Statistics::new_unknown(&self.view.rows.schema()))?;
        let input = DataSourceExec::from_data_source(config.build());
        let rows = wanted.files.iter().map(|file| file.rows).sum::<u64>();
        let rows = usize::try_from(rows).ok().filter(|_| !guard.is_bound());
        let barrier = reading.barrier(wanted.session, guard, input)?;
        Ok(Arc::new(barrier.over_files(rows, times_fit(wanted.files))))
    }

    /// Returns the visible rows in memory: batches with only visible rows directly, others through
    /// a barrier.
    fn memory(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let mut open = Vec::new();
        let mut guarded = Vec::new();
        // Batches that are read in smaller ones are cut into slices, and a sort would count each
        // slice as its whole batch. The barrier copies their text.
        let sliced = |batch: &RecordBatch| batch.num_rows() > session.config().batch_size();
        for batch in &self.view.memory {
            match &self.guard {
                None => open.push(batch.clone()),
                Some(guard) => match guard.reach_in(batch)? {
                    Visibility::All if !self.hides(projection) && !sliced(batch) => {
                        open.push(batch.clone())
                    }
                    Visibility::All | Visibility::Some => guarded.push(batch.clone()),
                    Visibility::None => {}
                },
            }
        }
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !open.is_empty() {
            inputs.push(MemorySourceConfig::try_new_exec(
                &[open],
                self.view.rows.schema(),
                projection.cloned(),
            )?);
        }
        if let (Some(guard), false) = (&self.guard, guarded.is_empty()) {
            let reading = Reading::new(guard, self.view.rows.schema(), projection)?;
            let columns = Some(reading.columns.clone());
            let input =
                MemorySourceConfig::try_new_exec(&[guarded], self.view.rows.schema(), columns)?;
            inputs.push(Arc::new(reading.barrier(session, guard, input)?));
        }
        Ok(inputs)
    }

    /// Returns true if a requested column is withheld.
    fn hides(&self, projection: Option<&Vec<usize>>) -> bool {
        let Some(guard) = &self.guard else { return false };
        let schema = self.view.rows.schema();
        let mut asked =
            schema.fields().iter().enumerate().filter(|(place, _)| is_asked(projection, *place));
        asked.any(|(_, field)| guard.shows(field.name()) != Shown::All)
    }

    /// Returns true if bodies or headers are requested.
    fn reads_messages(&self, projection: Option<&Vec<usize>>) -> bool {
        let schema = self.view.rows.schema();
        let mut fields = schema.fields().iter().enumerate();
        fields.any(|(place, field)| is_message(field.data_type()) && is_asked(projection, place))
    }

    /// Distributes the files, the newest first to each partition, so that a query for the newest
    /// rows finds them at once.
    fn newest_first(&self, files: &[Arc<DataFile>], partitions: usize) -> Vec<FileGroup> {
        let mut newest: Vec<&Arc<DataFile>> = files.iter().collect();
        newest.sort_by_key(|file| std::cmp::Reverse(file.max_created_at));
        let mut groups = vec![Vec::new(); partitions.clamp(1, files.len().max(1))];
        let dealt = groups.len();
        for (place, file) in newest.into_iter().enumerate() {
            let mut partitioned = self.partitioned_file(file);
            if place < FILES_WITH_FACTS {
                let facts = statistics(std::slice::from_ref(file), &self.view.rows.file_schema());
                partitioned = partitioned.with_statistics(Arc::new(facts));
            }
            groups[place % dealt].push(partitioned);
        }
        groups.into_iter().map(FileGroup::new).collect()
    }

    fn partitioned_file(&self, file: &DataFile) -> PartitionedFile {
        partitioned_file(&self.table_path, file)
    }

    /// Returns the order in which a session reads files.
    fn ordering(&self, session: &dyn Session) -> Ordering {
        match self.ordering {
            Ordering::WhenCheap if frugal::is_frugal(session.config()) => Ordering::Never,
            ordering => ordering,
        }
    }

    /// Reads what is scanned one after another where memory is short.
    fn in_turn(
        &self,
        session: &dyn Session,
        scan: Arc<dyn ExecutionPlan>,
    ) -> Arc<dyn ExecutionPlan> {
        let partitions = scan.properties().output_partitioning().partition_count();
        match self.ordering(session) {
            Ordering::Never if partitions > 1 => Arc::new(InTurnExec::new(scan)),
            _ => scan,
        }
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.view.rows.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // The scan prunes files by the filters; the plan filters rows, and pushes to Parquet the
        // filters that Parquet supports.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [open, guarded] = self.files(session, projection, filters)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !open.is_empty() {
            inputs.push(self.scan_files(&Wanted { session, files: &open, projection }, limit)?);
        }
        if let (Some(guard), false) = (&self.guard, guarded.is_empty()) {
            let (apart, together): (Vec<_>, Vec<_>) =
                guarded.into_iter().partition(|file| guard.is_apart(file));
            if !together.is_empty() {
                inputs.push(
                    self.scan_guarded(guard, &Wanted { session, files: &together, projection })?,
                );
            }
            for file in apart {
                let own = Arc::new(guard.for_file(&file));
                let files = [file];
                inputs
                    .push(self.scan_guarded(&own, &Wanted { session, files: &files, projection })?);
            }
        }
        inputs.extend(self.memory(session, projection)?);
        match inputs.len() {
            0 => {
                let projected = match projection {
                    Some(columns) => Arc::new(self.view.rows.schema().project(columns)?),
                    None => self.view.rows.schema(),
                };
                Ok(Arc::new(EmptyExec::new(projected)))
            }
            1 => Ok(self.in_turn(session, inputs.remove(0))),
            _ => Ok(self.in_turn(session, UnionExec::try_new(inputs)?)),
        }
    }
}

/// Returns true if a projection includes the column at a position. `None` means all columns.
fn is_asked(projection: Option<&Vec<usize>>, place: usize) -> bool {
    projection.is_none_or(|columns| columns.contains(&place))
}

/// Returns a file of the table at a path, for a scan.
pub(super) fn partitioned_file(table_path: &Path, file: &DataFile) -> PartitionedFile {
    let relative =
        Path::from_url_path(&file.path).unwrap_or_else(|_| Path::from(file.path.as_str()));
    let location = table_path.parts().chain(relative.parts()).collect();
    let last_modified =
        DateTime::<Utc>::from_timestamp_millis(file.modified_ms).unwrap_or_default();
    // The cache of footers identifies a file by its path, size and time. A path is written only
    // once.
    let object =
        ObjectMeta { location, last_modified, size: file.bytes, e_tag: None, version: None };
    let mut partitioned = PartitionedFile::new_from_meta(object);
    partitioned.partition_values =
        vec![ScalarValue::Int32(Some(file.retention_days)), ScalarValue::Date32(Some(file.date))];
    partitioned
}

/// Returns the Parquet source of the table's files.
fn parquet_source(session: &dyn Session, rows: Rows) -> Result<ParquetSource> {
    let table_schema = TableSchema::builder(rows.file_schema())
        .with_table_partition_cols(partition_fields().into_iter().map(Arc::new).collect::<Vec<_>>())
        .build();
    Ok(ParquetSource::new(table_schema)
        .with_table_parquet_options(session.table_options().parquet.clone())
        .with_metadata_size_hint(FOOTER_BYTES)
        .with_parquet_file_reader_factory(Arc::new(CountedReads::new(session.runtime_env())?)))
}

/// Returns a condition that holds for every visible row, over the columns of the table. `None` if
/// there is none.
fn own_rows(guard: &RowSecurity, rows: Rows) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let read_scope = guard.read_scope();
    let whole = rows.schema();
    let is = |name: &str, operator: Operator, value: ScalarValue| {
        let column = col(name, &whole)?;
        Ok::<_, DataFusionError>(
            Arc::new(BinaryExpr::new(column, operator, lit(value))) as Arc<dyn PhysicalExpr>
        )
    };
    let mut certain = Vec::new();
    for (name, value) in
        [("organisation_id", &read_scope.organisation), ("workspace_slug", &read_scope.workspace)]
    {
        if let Some(value) = value {
            certain.push(is(name, Operator::Eq, ScalarValue::Utf8View(Some(value.clone())))?);
        }
    }
    if guard.since() > i64::MIN {
        let since = ScalarValue::TimestampMicrosecond(Some(guard.since()), Some("UTC".into()));
        certain.push(is("created_at", Operator::GtEq, since)?);
    }
    Ok((!certain.is_empty()).then(|| datafusion::physical_expr::utils::conjunction(certain)))
}

/// Returns true if every time in the files fits nanoseconds.
fn times_fit(files: &[Arc<DataFile>]) -> bool {
    let bound = i64::MAX / 1000;
    files.iter().all(|file| file.min_created_at >= -bound && file.max_created_at <= bound)
}

/// Restricts the messages at these positions to one side, without moving them.
fn one_side(
    session: &dyn Session,
    input: &Arc<dyn ExecutionPlan>,
    sides: &HashMap<usize, &str>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let below = input.schema();
    let options = Arc::new(session.config_options().clone());
    let mut exprs = Vec::new();
    for (place, field) in below.fields().iter().enumerate() {
        let column: Arc<dyn PhysicalExpr> = Arc::new(PlanColumn::new(field.name(), place));
        let expr = match sides.get(&place) {
            Some(side) => {
                let args = vec![column, lit(*side)];
                let member =
                    ScalarFunctionExpr::try_new(get_field(), args, &below, Arc::clone(&options))?;
                Arc::new(member) as Arc<dyn PhysicalExpr>
            }
            None => column,
        };
        exprs.push(ProjectionExpr::new(expr, field.name()));
    }
    let projection = ProjectionExec::try_new(exprs, Arc::clone(input))?;
    Ok(input.try_swapping_with_projection(&projection)?.unwrap_or_else(|| Arc::new(projection)))
}

/// Returns the order of rows in every file.
fn sort_order(rows: Rows) -> Result<LexOrdering> {
    let keys = SORT_KEY
        .iter()
        .map(|name| Ok(PhysicalSortExpr::new(col(name, &rows.schema())?, SORT_OPTIONS)))
        .collect::<Result<Vec<_>>>()?;
    LexOrdering::new(keys)
        .ok_or_else(|| datafusion::error::DataFusionError::Internal("no sort key".to_owned()))
}
