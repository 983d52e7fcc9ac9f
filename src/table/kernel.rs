//! Adapter to the Delta kernel: its engine over our object store, its snapshots, and its errors as
//! ours.
//!
//! The kernel is synchronous: it blocks the calling thread while its own runtime does the I/O. So
//! every call runs on a blocking thread (see `Table::locked`), never on a thread of the caller's
//! runtime. The process has one such runtime. A checkpoint reads the log from within a task that
//! writes, so a single-threaded executor would deadlock, and a runtime that belonged to a table
//! would panic when the table is dropped inside async code.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::TryFromArrow;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt};
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::schema::StructType;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation};
use delta_kernel::{Engine as _, KernelError, KernelResult, Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::ObjectStore;
use parking_lot::Mutex;
use url::Url;

use super::actions;
use super::changes::Commit;
use super::index::{DataFile, FileIndex};
use crate::error::{Error, ErrorKind, Result};
use crate::record;

pub(crate) type Engine = DefaultEngine<TokioMultiThreadExecutor>;

/// Program name and version that log entries record.
const WRITER: &str = concat!("gatelog/", env!("CARGO_PKG_VERSION"));

/// Returns the kernel's engine over an object store.
pub(crate) fn engine(object_store: Arc<dyn ObjectStore>) -> Result<Engine> {
    Ok(DefaultEngineBuilder::new(object_store).with_task_executor(executor()?).build())
}

fn executor() -> Result<Arc<TokioMultiThreadExecutor>> {
    static EXECUTOR: Mutex<Option<Arc<TokioMultiThreadExecutor>>> = Mutex::new(None);
    let mut shared = EXECUTOR.lock();
    if let Some(executor) = &*shared {
        return Ok(Arc::clone(executor));
    }
    let executor = TokioMultiThreadExecutor::new_owned_runtime(Some(2), None);
    let executor =
        Arc::new(executor.map_err(|e| error("cannot start the runtime of the table log", e))?);
    Ok(Arc::clone(shared.insert(executor)))
}

/// Writes version 0. Returns false if another writer was first.
pub(crate) fn create(engine: &Engine, url: &Url, columns: &Schema) -> KernelResult<bool> {
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    fields.extend(record::partition_fields().map(Arc::new));
    let schema = StructType::try_from_arrow(&Schema::new(fields))?;
    let statistics =
        actions::STATISTICS.into_iter().filter(|name| columns.field_with_name(name).is_ok());
    let properties = [
        ("delta.dataSkippingStatsColumns", statistics.collect::<Vec<_>>().join(",")),
        // Old log entries tell a vacuum which data files other readers may still use.
        ("delta.enableExpiredLogCleanup", "false".to_owned()),
    ];
    let created = create_table(url.as_str(), Arc::new(schema), WRITER, false)
        .with_table_properties(properties)
        .with_data_layout(DataLayout::partitioned([record::RETENTION_DAYS, record::DATE]))
        .build(engine, Box::new(FileSystemCommitter::new()))
        .and_then(|transaction| transaction.commit(engine));
    match created {
        Ok(CommitResult::Committed(_)) => Ok(true),
        Ok(CommitResult::Conflicted(_)) | Err(KernelError::TableAlreadyExistsAtPath(_)) => {
            Ok(false)
        }
        Ok(CommitResult::Retryable(failed)) => Err(failed.error),
        Err(e) => Err(e),
    }
}

/// Returns the newest version of the table.
pub(crate) fn snapshot(engine: &Engine, url: &Url) -> KernelResult<SnapshotRef> {
    Snapshot::builder_for(url.as_str()).build(engine)
}

/// Returns one version of the table, read from the last checkpoint before it.
pub(crate) fn snapshot_at(engine: &Engine, url: &Url, version: u64) -> KernelResult<SnapshotRef> {
    Snapshot::builder_for(url.as_str()).at_version(version).build(engine)
}

/// Returns the newest version, and reads only what the given snapshot does not know.
pub(crate) fn newer(engine: &Engine, snapshot: &SnapshotRef) -> KernelResult<SnapshotRef> {
    Snapshot::builder_from(Arc::clone(snapshot)).build(engine)
}

/// Returns an error if the table's columns differ from those that this program reads and writes.
pub(crate) fn check_columns(snapshot: &Snapshot, columns: &Schema) -> Result<()> {
    let wanted = StructType::try_from_arrow(columns)
        .map_err(|e| Error::internal("cannot convert the columns of the table").with_source(e))?;
    let schema = snapshot.schema();
    for column in wanted.fields() {
        let found = schema.field(column.name()).map(|field| field.data_type());
        if found != Some(column.data_type()) {
            let found = found.map_or_else(|| "missing".to_owned(), ToString::to_string);
            return Err(Error::damaged(format!(
                "column `{}` of the table is {found} where `{}` is expected",
                column.name(),
                column.data_type()
            )));
        }
    }
    Ok(())
}

/// Returns every file of a version.
pub(crate) fn files(engine: &Engine, snapshot: &SnapshotRef) -> Result<Vec<DataFile>> {
    let failed = |e| error("cannot read the files of the table", e);
    let scan =
        Arc::clone(snapshot).scan_builder().without_row_transforms().build().map_err(failed)?;
    let mut files = Vec::new();
    for found in scan.scan_metadata(engine).map_err(failed)? {
        files.extend(actions::scanned(&selected(found.map_err(failed)?.scan_files)?)?);
    }
    Ok(files)
}

/// Returns the index of `snapshot`, built from the index of an older version and the log entries in
/// between.
pub(crate) fn advance(
    engine: &Engine,
    index: &FileIndex,
    snapshot: &SnapshotRef,
) -> Result<FileIndex> {
    let failed = |e| error("cannot read the new versions of the table", e);
    let version = snapshot.version();
    let builder = Arc::clone(snapshot).incremental_scan_builder(index.version);
    let Some(mut stream) = builder.build(engine).map_err(failed)? else {
        // A checkpoint replaced the entries in between.
        return Ok(FileIndex::default().apply(version, files(engine, snapshot)?, []));
    };
    let mut added = Vec::new();
    for batch in stream.by_ref() {
        added.extend(actions::logged(&selected(batch.map_err(failed)?)?)?);
    }
    let summary = stream.into_summary().map_err(failed)?;
    Ok(index.apply(version, added, summary.removes.iter().map(|key| key.path())))
}

/// Returns the paths of files that were added after `version` and are still in the table, or `None`
/// if the entries in between are gone.
pub(crate) fn added_since(
    engine: &Engine,
    snapshot: &SnapshotRef,
    version: u64,
) -> Result<Option<Vec<String>>> {
    let failed = |e| error("cannot read the new versions of the table", e);
    let builder = Arc::clone(snapshot).incremental_scan_builder(version);
    let Some(mut stream) = builder.build(engine).map_err(failed)? else { return Ok(None) };
    let mut added = Vec::new();
    for batch in stream.by_ref() {
        added.extend(
            actions::logged(&selected(batch.map_err(failed)?)?)?.into_iter().map(|file| file.path),
        );
    }
    Ok(Some(added))
}

fn selected(rows: FilteredEngineData) -> Result<RecordBatch> {
    rows.apply_selection_vector()
        .try_into_record_batch()
        .map_err(|e| error("cannot read log entries", e))
}

/// Outcome of one attempt to commit.
pub(crate) enum Attempt {
    /// The commit is the version of this snapshot.
    Committed(SnapshotRef),
    /// The version is taken, by another writer or by an earlier attempt of ours whose answer was
    /// lost.
    Conflict,
    /// The attempt failed, or it succeeded and the answer was lost.
    UnknownOutcome(KernelError),
}

/// Tries once to commit on top of `snapshot`. `removed` are the files that `commit` removes.
pub(crate) fn attempt(
    engine: &Engine,
    snapshot: &SnapshotRef,
    commit: &Commit,
    removed: &[Arc<DataFile>],
) -> Result<Attempt> {
    let failed = |e| error("cannot prepare a commit", e);
    let mut builder =
        Arc::clone(snapshot).update_table(operation(commit.operation), WRITER, commit.data_change);
    if !commit.add.is_empty() && removed.is_empty() && commit.data_change {
        builder = builder.with_blind_append();
    }
    if let Some((app, version)) = &commit.app {
        builder = builder.with_transaction_id(app, *version);
    }
    let mut transaction =
        builder.build(engine, Box::new(FileSystemCommitter::new())).map_err(failed)?;
    if !commit.add.is_empty() {
        transaction.add_files(Box::new(ArrowEngineData::new(actions::added(&commit.add)?)));
    }
    if !removed.is_empty() {
        let rows = actions::removed(removed.iter().map(AsRef::as_ref))?;
        transaction.remove_files(FilteredEngineData::with_all_rows_selected(Box::new(
            ArrowEngineData::new(rows),
        )));
    }
    Ok(match transaction.commit(engine) {
        Ok(CommitResult::Committed(committed)) => {
            match (has_entry(engine, snapshot), committed.post_commit_snapshot()) {
                (Ok(true), Some(snapshot)) => Attempt::Committed(Arc::clone(snapshot)),
                (Ok(_), _) => Attempt::Conflict,
                (Err(e), _) => Attempt::UnknownOutcome(e),
            }
        }
        Ok(CommitResult::Conflicted(_)) => Attempt::Conflict,
        Ok(CommitResult::Retryable(failed)) => Attempt::UnknownOutcome(failed.error),
        Err(e) => Attempt::UnknownOutcome(e),
    })
}

/// Returns true if the log still has the entry of the snapshot's version.
fn has_entry(engine: &Engine, snapshot: &Snapshot) -> KernelResult<bool> {
    let entry =
        snapshot.table_root().join(&format!("_delta_log/{:020}.json", snapshot.version()))?;
    match engine.storage_handler().head(&entry).map_err(bare) {
        Ok(_) => Ok(true),
        Err(
            KernelError::FileNotFound(_)
            | KernelError::ObjectStore(object_store::Error::NotFound { .. }),
        ) => Ok(false),
        Err(e) => Err(e),
    }
}

fn operation(name: &str) -> UpdateTableOperation {
    use UpdateTableOperation::{Custom, Delete, Optimize, Write};
    [Write, Delete, Optimize]
        .into_iter()
        .find(|operation| operation.as_str() == name)
        .unwrap_or_else(|| Custom(name.to_owned()))
}

/// Converts a kernel error to a storage failure, damage of the log, or a defect of gatelog.
pub(crate) fn error(what: &str, source: KernelError) -> Error {
    let source = bare(source);
    let kind = match &source {
        KernelError::ObjectStore(_) | KernelError::IOError(_) | KernelError::Reqwest(_) => {
            ErrorKind::Storage
        }
        KernelError::Arrow(_)
        | KernelError::Parquet(_)
        | KernelError::MalformedJson(_)
        | KernelError::FileNotFound(_)
        | KernelError::EmptyLog
        | KernelError::MissingVersion(_)
        | KernelError::MissingMetadata
        | KernelError::MissingProtocol
        | KernelError::MissingMetadataAndProtocol
        | KernelError::InvalidProtocol(_)
        | KernelError::InvalidLogPath(_)
        | KernelError::InvalidLogSegment(_)
        | KernelError::InvalidCheckpoint(_)
        | KernelError::MissingData(_)
        | KernelError::Unsupported(_) => ErrorKind::Damaged,
        _ => ErrorKind::Internal,
    };
    let error = Error::new(kind, what);
    // The kernel's errors do not return the store's error as their source, and only that says if a
    // sync failed.
    match source {
        KernelError::ObjectStore(cause) => error.with_source(cause),
        KernelError::IOError(cause) => error.with_source(cause),
        KernelError::GenericError { source } => error.with_source(source),
        other => error.with_source(other),
    }
}

/// Returns the error without the backtrace that the kernel adds to its text.
fn bare(error: KernelError) -> KernelError {
    match error {
        KernelError::Backtraced { source, .. } => bare(*source),
        error => error,
    }
}
