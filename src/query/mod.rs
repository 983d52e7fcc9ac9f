//! SQL over a Scene: what a statement may see and do, what it may use up, and how it is called off.
//!
//! A session sees one View and a few small tables, and nothing else: no files, no URLs, no writes. Which rows of the View it sees
//! ([`Sight`]: organisation, workspace, retention, erasures, bodies) is part of the table that it is given, below SQL, so no
//! statement can reach around it.
//!
//! A query runs on the engine's own threads and hands its batches over through a short queue, so a slow client holds the
//! query back, and dropping the answer ends it. Memory and disk space come from what all queries share
//! ([`resources`]); time and rows are bounded per query; passing a bound is an error, never a shortened answer.

mod barrier;
mod dialect;
mod facts;
mod fence;
mod guard;
mod harmless;
mod like;
mod membership;
mod memory;
mod model;
mod provider;
mod reading;
mod resources;
mod scene;
mod session;
mod spill;
mod statement;
mod success;
mod weight;
mod wide;
mod withhold;
mod yielding;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Rows;
use crate::store::Store;
use crate::table::DataFile;
use crate::view::View;

#[cfg(test)]
pub use model::function as canonical_model;
pub use provider::Ordering as FileOrdering;
use provider::StoredTable;
pub use scene::{Scene, SideTables, Sight};
use session::{Started, Surroundings};
pub use weight::Weight;

/// Bound parameters by name, without the `$`; positional ones are named `1`, `2` and so on.
pub type Params = BTreeMap<String, serde_json::Value>;

/// The store's name in plans; it never leaves the process.
const STORE_URL: &str = "gatelog://table";
/// Longest statement, in bytes; planning takes stack by the length.
const MOST_TEXT: usize = 128 << 10;
/// Footers that are read at once to weigh files.
const FOOTERS_AT_ONCE: usize = 8;
/// Batches that wait for a slow reader.
const QUEUED_BATCHES: usize = 2;

/// The rows of a query, batch by batch. Dropping it calls the query off.
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// Columns that are withheld from the reader and null in the rows, such as `request.body`.
    pub withheld: Vec<String>,
    /// The rows, in order if the query orders them.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// A named query that SQL may use as a view.
#[derive(Clone, Debug)]
pub struct NamedView {
    /// Its name.
    pub name: &'static str,
    /// Its text, without an order of rows: a view that sorts makes every query over it sort.
    pub sql: &'static str,
    /// The values of its parameters when it is used as a view.
    pub params: ParamValues,
}

/// What one query may use up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How many rows it may return.
    pub max_rows: Option<u64>,
    /// Rows of a batch.
    pub batch_rows: Option<usize>,
    /// How the table's files are read.
    pub ordering: FileOrdering,
}

/// Runs queries for one engine.
pub struct Queries {
    base: SessionState,
    resources: resources::Resources,
    paths: [object_store::path::Path; 2],
    views: Vec<NamedView>,
    compute: Handle,
    permits: Arc<Semaphore>,
    running: Arc<AtomicU64>,
    limits: Limits,
}

impl std::fmt::Debug for Queries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queries").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Queries {
    /// Prepares sessions over the tables of the store. Work runs on `compute`.
    pub fn new(config: &Config, store: &Store, views: Vec<NamedView>, compute: Handle) -> Result<Self> {
        let config = &config.settled(&Found::here())?;
        let permits = usize::try_from(config.query_concurrency).unwrap_or(usize::MAX >> 4);
        Ok(Self {
            base: session::base_session(config, store)?,
            resources: resources::Resources::new(config, store),
            paths: Rows::ALL.map(|rows| store.table_path(rows.folder())),
            views,
            compute,
            permits: Arc::new(Semaphore::new(permits)),
            running: Arc::new(AtomicU64::new(0)),
            limits: Limits {
                timeout: Some(Duration::from_secs(config.query_timeout_seconds)),
                max_rows: (config.query_max_rows > 0).then_some(config.query_max_rows),
                batch_rows: None,
                ordering: FileOrdering::WhenCheap,
            },
        })
    }

    /// The limits of an ordinary query.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Queries that run now.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Runs one read-only statement over the Scene.
    pub async fn sql(&self, scene: impl Into<Scene>, text: &str, params: &Params) -> Result<Answer> {
        self.run(scene, text, bind(params)?, self.limits).await
    }

    /// Runs a statement with typed parameters and limits of its own.
    pub async fn run(
        &self,
        scene: impl Into<Scene>,
        text: &str,
        params: ParamValues,
        limits: Limits,
    ) -> Result<Answer> {
        let scene: Scene = scene.into();
        // Work without a time limit waits for its reader, so it must not keep queries that have one from running.
        let permit = match limits.timeout {
            Some(timeout) => Some(self.permit(timeout).await?),
            None => None,
        };
        if text.len() > MOST_TEXT {
            return Err(Error::limit(format!("the statement has {} bytes; at most {MOST_TEXT} are taken", text.len())));
        }
        let granted = self.resources.grant(self.base.runtime_env(), &scene, limits)?;
        let around = Surroundings {
            bound: scene.is_bound(),
            wide_rows: self.resources.wide_rows(&scene),
            withholds: scene.withholds_bodies(),
            views: self.views.clone(),
            side: scene.side,
        };
        let kept = |view: View| {
            let path = self.paths[view.rows as usize].clone();
            StoredTable::new(view, scene.sight.clone(), path, limits.ordering)
        };
        let tables = [Some(scene.view), scene.feedback].into_iter().flatten().map(kept).collect();
        let runtime = Arc::clone(&granted.runtime);
        let session = session::session_in(&self.base, tables, limits.batch_rows, runtime);
        let text = text.to_owned();
        let running = Running::start(&self.running);
        let deadline = limits.timeout.map(|timeout| Instant::now() + timeout);
        let (schema_out, schema_in) = tokio::sync::oneshot::channel();
        let (out, batches) = mpsc::channel(QUEUED_BATCHES);
        let task = AbortOnDropHandle::new(self.compute.spawn(async move {
            let _held = (permit, running);
            let work = async {
                // Planning does not yield, so it has a thread to itself: a long one holds up neither its deadline nor a flush.
                let here = Handle::current();
                let planned = tokio::task::spawn_blocking(move || {
                    here.block_on(session::start(&session, &around, &text, params))
                });
                let Started { rows: mut stream, withheld } =
                    planned.await.map_err(|cause| Error::internal("planning panicked").with_source(cause))??;
                // A reader that is gone needs no schema, and the queue says so next.
                let _ = schema_out.send((stream.schema(), withheld));
                let mut rows = 0;
                while let Some(batch) = stream.next().await {
                    let batch = batch.map_err(query_failed)?;
                    rows += batch.num_rows() as u64;
                    within_rows(rows, limits.max_rows)?;
                    if out.send(Ok(batch)).await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let ended = match deadline {
                Some(deadline) => {
                    tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(too_long(limits)))
                }
                None => work.await,
            };
            if let Err(error) = ended {
                let _ = out.send(Err(granted.explained(error))).await;
            }
        }));
        answer(schema_in, batches, task).await
    }

    /// Runs a statement that merges files in the order that they are sorted by, without limits of time and rows.
    pub async fn merge(
        &self,
        scene: impl Into<Scene>,
        text: &str,
        params: ParamValues,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.ordered(scene.into(), text, params, (batch_rows, FileOrdering::Always)).await
    }

    /// Runs a statement that gives rows in the order of the table, without limits of time and rows, by merging files or by
    /// sorting.
    ///
    /// A merge holds a batch of every file: if they do not fit, it is begun again with smaller batches, down to single rows,
    /// and then as a sort, which goes to disk.
    pub async fn ordered(
        &self,
        scene: Scene,
        text: &str,
        params: ParamValues,
        (first_rows, mut ordering): (usize, FileOrdering),
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut batch_rows = first_rows;
        loop {
            let limits = Limits { timeout: None, max_rows: None, batch_rows: Some(batch_rows), ordering };
            let mut batches = self.run(scene.clone(), text, params.clone(), limits).await?.batches;
            match batches.next().await {
                Some(Err(error)) if error.kind() == ErrorKind::Limit && batch_rows > 1 => {
                    batch_rows = (batch_rows / 8).max(1)
                }
                Some(Err(error)) if error.kind() == ErrorKind::Limit && ordering == FileOrdering::Always => {
                    (batch_rows, ordering) = (first_rows, FileOrdering::Never)
                }
                Some(first) => return Ok(futures::stream::iter([first]).chain(batches).boxed()),
                None => return Ok(batches),
            }
        }
    }

    /// Weighs files as read by these columns, such as `id` and `request.body`; none means all columns. Reads footers only, which
    /// stay in the cache for whoever reads the files next.
    pub async fn weigh(&self, rows: Rows, files: &[Arc<DataFile>], columns: Option<&[String]>) -> Result<Vec<Weight>> {
        let path = &self.paths[rows as usize];
        let files = files.iter().map(|file| provider::partitioned_file(path, file));
        let reads = reading::CountedReads::new(self.base.runtime_env()).map_err(query_failed)?;
        let reads = &reads;
        let weights = futures::stream::iter(files.collect::<Vec<_>>()).map(async |file| {
            let metadata = reads.footer(file).await.map_err(query_failed)?;
            Ok(weight::weigh(&metadata, columns))
        });
        weights.buffered(FOOTERS_AT_ONCE).try_collect().await
    }

    /// Memory that an export over the scene may take, as things are.
    pub fn export_room(&self, scene: &Scene) -> u64 {
        self.resources.export_room(scene)
    }

    /// Memory that upkeep may hold beside the row groups that it writes.
    pub fn upkeep_bytes(&self) -> u64 {
        self.resources.upkeep_bytes
    }

    /// A place among the queries that run at once.
    async fn permit(&self, timeout: Duration) -> Result<tokio::sync::OwnedSemaphorePermit> {
        match tokio::time::timeout(timeout, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::closed("the engine is closed")),
            Err(_) => Err(Error::busy("as many queries run as `query_concurrency` allows; ask again later")),
        }
    }
}

/// Turns the two channels of a running query into its answer: the schema first, or the error that came instead.
async fn answer(
    schema: tokio::sync::oneshot::Receiver<(SchemaRef, Vec<String>)>,
    mut batches: mpsc::Receiver<Result<RecordBatch>>,
    task: AbortOnDropHandle<()>,
) -> Result<Answer> {
    let Ok((schema, withheld)) = schema.await else {
        let died = || Error::internal("the query ended without an answer; its thread panicked");
        return Err(batches.recv().await.and_then(Result::err).unwrap_or_else(died));
    };
    let stream = futures::stream::unfold((batches, Some(task)), |(mut batches, mut task)| async move {
        if let Some(batch) = batches.recv().await {
            return Some((batch, (batches, task)));
        }
        // The queue closes when the query ends; if it ended by a panic, the answer is not whole and must say so.
        let ended = task.take()?.await;
        let error = ended.err().map(|cause| Error::internal("the query panicked").with_source(cause))?;
        Some((Err(error), (batches, None)))
    });
    Ok(Answer { schema, withheld, batches: stream.fuse().boxed() })
}

/// Counts a query while it runs, however it ends.
struct Running(Arc<AtomicU64>);

impl Running {
    fn start(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn within_rows(rows: u64, most: Option<u64>) -> Result<()> {
    match most {
        Some(most) if rows > most => Err(Error::limit(format!(
            "the query returns more than {most} rows; add a LIMIT, raise `query_max_rows`, or use an export, which has no limit"
        ))),
        _ => Ok(()),
    }
}

fn too_long(limits: Limits) -> Error {
    let seconds = limits.timeout.unwrap_or_default().as_secs();
    Error::limit(format!(
        "the query ran longer than {seconds} s; narrow its time frame or raise `query_timeout_seconds`"
    ))
}

/// Threads that a configuration asks for.
pub fn threads(config: &Config) -> usize {
    match usize::try_from(config.threads).unwrap_or(1) {
        0 => std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get),
        threads => threads,
    }
}

/// JSON values as DataFusion's parameters.
fn bind(params: &Params) -> Result<ParamValues> {
    let mut named = HashMap::new();
    for (name, value) in params {
        let scalar = match value {
            serde_json::Value::Null => ScalarValue::Null,
            serde_json::Value::Bool(value) => ScalarValue::Boolean(Some(*value)),
            serde_json::Value::Number(value) => match (value.as_i64(), value.as_f64()) {
                (Some(integer), _) => ScalarValue::Int64(Some(integer)),
                (None, float) => ScalarValue::Float64(float),
            },
            serde_json::Value::String(text) => ScalarValue::Utf8(Some(text.clone())),
            _ => {
                return Err(Error::invalid(format!(
                    "parameter `{name}` is a list or an object; expected a text, a number, true, false or null"
                )));
            }
        };
        named.insert(name.clone(), scalar);
    }
    if !named.is_empty() && named.keys().all(|name| name.parse::<usize>().is_ok()) {
        return positional(&named);
    }
    Ok(ParamValues::Map(named.into_iter().map(|(name, value)| (name, value.into())).collect()))
}

fn positional(named: &HashMap<String, ScalarValue>) -> Result<ParamValues> {
    let list = (1..=named.len())
        .map(|place| {
            named.get(&place.to_string()).cloned().map(Into::into).ok_or_else(|| {
                Error::invalid(format!(
                    "parameter `{place}` is missing; positional parameters count from 1 without gaps"
                ))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(ParamValues::List(list))
}

/// An error of DataFusion as one of ours.
fn query_failed(cause: DataFusionError) -> Error {
    let kind = match cause.find_root() {
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Limit,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::Storage,
        DataFusionError::ParquetError(error) if store_failed(error) => ErrorKind::Storage,
        DataFusionError::ParquetError(_) => ErrorKind::Damaged,
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    let what = match kind {
        ErrorKind::Limit => resources::OUT_OF_MEMORY,
        ErrorKind::Storage => "the query could not read the table",
        ErrorKind::Damaged => "a file of the table cannot be read; run `gatelog doctor`",
        ErrorKind::Internal => "the query failed inside the query engine",
        _ => "the query cannot be run",
    };
    if kind == ErrorKind::Invalid {
        // What is wrong with the statement is for its author to see, not a cause to be logged.
        let reason = match cause.find_root() {
            DataFusionError::SQL(error, _) => error.to_string(),
            root => root.strip_backtrace(),
        };
        return Error::new(kind, format!("{what}: {reason}"));
    }
    Error::new(kind, what).with_source(cause)
}

/// Whether a file could not be read because the store did not answer, and not because of the file: one that is missing counts
/// as damage.
fn store_failed(error: &datafusion::parquet::errors::ParquetError) -> bool {
    use datafusion::parquet::errors::ParquetError;
    match error {
        ParquetError::External(cause) => cause
            .downcast_ref::<object_store::Error>()
            .is_some_and(|cause| !matches!(cause, object_store::Error::NotFound { .. })),
        // The reader of footers hands on no more than the text.
        other => {
            let text = other.to_string();
            text.contains("Object Store error: ") && !text.contains("Object at location")
        }
    }
}
