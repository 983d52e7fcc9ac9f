//! SQL over a [`QueryContext`]: the visibility of data, limits of resources, and cancellation.
//!
//! A session has one View and a few small tables, and nothing else: no files, no URLs, no writes.
//! The visible rows of the View ([`ReadScope`]: organisation, workspace, retention, erasures,
//! bodies) are decided in the table provider, below SQL, so no statement can bypass that.
//!
//! A query with a time limit runs on threads of its organisation ([`query_threads`]), in one of a
//! limited number of places ([`places`]); other work runs on the engine's threads. It delivers its
//! batches through a short queue, so a slow client slows the query down, and dropping the answer
//! cancels it. Memory and disk space are shared by all queries ([`resources`]); time and rows are
//! limited per query. Exceeding a limit is an error, never a shortened answer. The size of a batch
//! is limited by the functions of a statement ([`functions`]), by its constants ([`plan_size`]) and
//! by the bodies that it reads ([`wide`]).

mod casts;
mod compact;
mod context;
mod cooperative_joins;
mod correlated;
mod dialect;
mod distinct;
mod elsewhere;
mod failure;
mod fence;
mod filter_names;
mod filter_projections;
mod file_rows;
mod file_statistics;
mod frugal;
mod functions;
mod grouping_sets;
mod in_lists;
mod in_turn;
mod known;
mod leakproof;
mod like;
mod limits;
mod literal_sides;
mod membership;
mod memory;
mod meter;
mod model;
mod naming;
mod nearest;
mod negated;
mod places;
mod plan_size;
mod provider;
mod query_threads;
mod read_scope;
mod reading;
mod resources;
mod row_security;
mod sanity;
mod security_barrier;
mod session;
mod shown;
mod sort_constants;
mod sort_filters;
mod spill;
mod spread;
mod statement;
mod success;
mod sum;
mod tags;
mod totals;
mod weight;
mod whole_order;
mod wide;
mod withhold;
mod without_expressions;
mod workarounds;
mod wrapped_rule;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod upstream;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::file::metadata::ParquetMetaData;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Found};
use crate::datafile::OpenRows;
use crate::error::{Error, ErrorKind, Result};
use crate::heavy_work::HeavyWork;
use crate::record::Rows;
use crate::store::Store;
use crate::table::DataFile;
use crate::view::View;

pub(crate) use context::{QueryContext, SystemTables};
use failure::query_failed;
pub(crate) use limits::Limits;
use limits::{too_long, within_rows};
use meter::{CallOff, Meter};
#[cfg(test)]
pub(crate) use model::function as canonical_model;
use places::{Owner, Places};
pub(crate) use provider::Ordering as FileOrdering;
use provider::StoredTable;
pub(crate) use query_threads::threads;
use query_threads::{QueryThreads, Seat};
pub(crate) use read_scope::ReadScope;
pub(crate) use session::NamedView;
use session::{SessionTables, Started};
pub(crate) use weight::Weight;
use withhold::Withheld;
pub(crate) use withhold::{A_STATEMENT, Reads, refused_text};

/// Bound parameters by name, without the `$`. Positional ones are named `1`, `2` and so on.
pub type Params = BTreeMap<String, serde_json::Value>;

/// Maximum length of a statement, in bytes. Planning takes stack in proportion to it.
const MAX_TEXT: usize = 128 << 10;
/// Number of footers that are read concurrently to weigh files.
const FOOTERS_AT_ONCE: usize = 8;
/// Number of batches that wait for a slow reader.
const QUEUED_BATCHES: usize = 2;

/// Rows of a query, batch by batch. Dropping it cancels the query.
pub struct Answer {
    /// Columns of the rows.
    pub schema: SchemaRef,
    /// Columns that are withheld from the reader and null in the rows, such as `request.body`.
    pub withheld: Vec<String>,
    /// Columns of the rows that are computed from withheld ones, with these. Only analytics have
    /// such columns; their values are meaningless.
    pub figures: BTreeMap<String, BTreeSet<String>>,
    /// Rows, in order if the query orders them.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Runs queries for one engine.
pub(crate) struct Queries {
    base: SessionState,
    resources: resources::Resources,
    paths: [object_store::path::Path; 2],
    views: Vec<NamedView>,
    /// Runtime for work without a time limit, which belongs to no organisation.
    work: Handle,
    heavy: HeavyWork,
    threads: QueryThreads,
    places: Arc<Places>,
    running: Arc<AtomicU64>,
    limits: Limits,
}

impl std::fmt::Debug for Queries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queries").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Queries {
    /// Creates sessions over the tables of the store. Queries without a time limit, and reads of a
    /// bucket, run on `work`.
    pub(crate) fn new(
        config: &Config,
        store: &Store,
        views: Vec<NamedView>,
        work: Handle,
    ) -> Result<Self> {
        let config = &config.settled(&Found::here())?;
        let [all, share] = places(config);
        Ok(Self {
            base: session::base_session(config, store, &work)?,
            resources: resources::Resources::new(config, store),
            paths: Rows::ALL.map(|rows| store.table_path(rows.folder())),
            views,
            heavy: HeavyWork::start(threads(config))?,
            work,
            threads: QueryThreads::new(threads(config), all),
            places: Places::new(all, share),
            running: Arc::new(AtomicU64::new(0)),
            limits: Limits {
                timeout: Some(Duration::from_secs(config.query_timeout_seconds)),
                max_rows: (config.query_max_rows > 0).then_some(config.query_max_rows),
                batch_rows: None,
                ordering: FileOrdering::WhenCheap,
                reads: Reads::default(),
            },
        })
    }

    /// Returns the limits of an ordinary query.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the places for work of an organisation that is no query.
    pub(crate) fn heavy(&self) -> &HeavyWork {
        &self.heavy
    }

    /// Returns the number of running queries.
    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Runs one read-only statement.
    pub(crate) async fn sql(
        &self,
        query_context: impl Into<QueryContext>,
        text: &str,
        params: &Params,
    ) -> Result<Answer> {
        self.run(query_context, text, bind(params)?, self.limits).await
    }

    /// Runs a statement with typed parameters and the given limits.
    pub(crate) async fn run(
        &self,
        query_context: impl Into<QueryContext>,
        text: &str,
        params: ParamValues,
        limits: Limits,
    ) -> Result<Answer> {
        let mut query_context: QueryContext = query_context.into();
        if text.len() > MAX_TEXT {
            return Err(Error::limit(format!(
                "the statement has {} bytes; the maximum is {MAX_TEXT}",
                text.len()
            )));
        }
        // Work without a time limit waits for its reader, so it must not take the place of queries
        // with one.
        let seat = match (limits.timeout, query_context.seat.take()) {
            (Some(_), Some(seat)) => Some(seat),
            (Some(timeout), None) => {
                Some(Arc::new(self.wait_for_seat(query_context.owner(), timeout).await?))
            }
            (None, _) => None,
        };
        let threads =
            seat.as_ref().map_or_else(|| Ok(self.work.clone()), |seat| seat.threads.handle())?;
        let deadline = limits.timeout.map(|timeout| Instant::now() + timeout);
        let granted = self.resources.grant(self.base.runtime_env(), &query_context, limits)?;
        let meter = Meter::new(deadline, Arc::clone(&granted.runtime.memory_pool));
        let call_off = meter.call_off();
        let means = (meter, Arc::clone(&granted.runtime));
        let planning = self.planning(query_context, text, params, limits, means);
        let running = Running::start(&self.running);
        let work_threads = self.work.clone();
        let (schema_out, schema_in) = oneshot::channel();
        let (out, batches) = mpsc::channel(QUEUED_BATCHES);
        let task = AbortOnDropHandle::new(threads.spawn(async move {
            let has_own_threads = seat.is_some();
            let _held = (seat, running);
            let mut delivery = Delivery {
                schema: Some(schema_out),
                batches: out.clone(),
                rows: 0,
                max_rows: limits.max_rows,
            };
            let start = |is_frugal| {
                let planning = planning.clone();
                async move {
                    if has_own_threads {
                        planning.start(is_frugal).await
                    } else {
                        planning.start_apart(is_frugal).await
                    }
                }
            };
            let work = async {
                let is_frugal = limits.ordering == FileOrdering::Never;
                let ended = delivery.deliver(start(is_frugal).await).await;
                match ended {
                    Err(error)
                        if limits.ordering == FileOrdering::WhenCheap
                            && delivery.rows == 0
                            && granted.is_short_of_memory(&error) =>
                    {
                        tracing::debug!(cause = error.chain(), "a statement is run frugally");
                        drop(error);
                        granted.wait_for_release().await;
                        delivery.deliver(start(true).await).await
                    }
                    ended => ended,
                }
            };
            let ended = match deadline {
                Some(deadline) => {
                    let ended = tokio::time::timeout_at(deadline, work).await;
                    // The error of a query that ended at its own check does not say why, so the
                    // clock decides.
                    let overdue = ended.is_err() || Instant::now() >= deadline;
                    let failed = !matches!(ended, Ok(Ok(())));
                    if overdue && failed {
                        Err(too_long(limits))
                    } else {
                        ended.unwrap_or_else(|_| Ok(()))
                    }
                }
                None => work.await,
            };
            if let Err(error) = ended {
                let error = Err(granted.explained(error));
                // The place becomes free before a slow reader takes the last batches and the error.
                work_threads.spawn(async move {
                    let _ = out.send(error).await;
                });
            }
        }));
        answer(
            schema_in,
            Batches { queue: batches, task: Some(task), deadline, limits, _call_off: call_off },
        )
        .await
    }

    /// Waits until the statements of a request may run. Its view is taken afterwards: rows of a view
    /// stay in memory after their flush.
    pub(crate) async fn seat(&self, organisation: Option<&str>) -> Result<Option<Arc<Seat>>> {
        let Some(timeout) = self.limits.timeout else { return Ok(None) };
        let seat = self.wait_for_seat(organisation.map(str::to_owned), timeout).await?;
        Ok(Some(Arc::new(seat)))
    }

    /// Waits for a place among the running queries, and for threads of the organisation.
    async fn wait_for_seat(&self, owner: Owner, timeout: Duration) -> Result<Seat> {
        let place = self.places.take(&owner, timeout).await?;
        Ok(Seat { threads: self.threads.take(&owner)?, _place: place })
    }

    /// Collects the input of the planning of a statement.
    fn planning(
        &self,
        query_context: QueryContext,
        text: &str,
        params: ParamValues,
        limits: Limits,
        (meter, runtime): (Meter, Arc<RuntimeEnv>),
    ) -> Planning {
        let around = SessionTables {
            bound: query_context.is_bound(),
            wide: self.resources.wide(&query_context, limits),
            denied: query_context.denied(),
            reads: limits.reads,
            views: self.views.clone(),
            side: query_context.side,
        };
        let kept = |view: View| {
            let path = self.paths[view.rows as usize].clone();
            StoredTable::new(view, query_context.read_scope.clone(), path, limits.ordering)
        };
        let tables = [Some(query_context.view), query_context.feedback]
            .into_iter()
            .flatten()
            .map(kept)
            .collect();
        let session =
            session::session_in(&self.base, tables, limits.batch_rows, Some(meter), runtime);
        Planning { session, around: Arc::new(around), text: text.into(), params }
    }

    /// Runs a statement that merges files in their sort order, without limits of time and rows.
    pub(crate) async fn merge(
        &self,
        query_context: impl Into<QueryContext>,
        text: &str,
        params: ParamValues,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.ordered(query_context.into(), text, params, (batch_rows, FileOrdering::Always)).await
    }

    /// Runs a statement that returns rows in the order of the table, without limits of time and
    /// rows, by merging files or by sorting.
    ///
    /// A merge holds a batch of every file. If they do not fit, it is started again with smaller
    /// batches, down to single rows, and then as a sort, which spills to disk.
    pub(crate) async fn ordered(
        &self,
        query_context: QueryContext,
        text: &str,
        params: ParamValues,
        (first_rows, mut ordering): (usize, FileOrdering),
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut batch_rows = first_rows;
        loop {
            let batch = Some(batch_rows);
            let limits = Limits {
                timeout: None,
                max_rows: None,
                batch_rows: batch,
                ordering,
                ..self.limits
            };
            let mut batches =
                self.run(query_context.clone(), text, params.clone(), limits).await?.batches;
            match batches.next().await {
                Some(Err(error)) if error.kind() == ErrorKind::Limit && batch_rows > 1 => {
                    batch_rows = (batch_rows / 8).max(1)
                }
                Some(Err(error))
                    if error.kind() == ErrorKind::Limit && ordering == FileOrdering::Always =>
                {
                    (batch_rows, ordering) = (first_rows, FileOrdering::Never)
                }
                Some(first) => return Ok(futures::stream::iter([first]).chain(batches).boxed()),
                None => return Ok(batches),
            }
        }
    }

    /// Returns the weight of files for a reader of these columns, such as `id` and `request.body`.
    /// `None` means all columns. Reads only footers, which stay in the cache for later readers.
    pub(crate) async fn weigh(
        &self,
        rows: Rows,
        files: &[Arc<DataFile>],
        columns: Option<&[String]>,
    ) -> Result<Vec<Weight>> {
        let files = files.iter().map(|file| &**file);
        self.of_footers(rows, files, |metadata| weight::weigh(metadata, columns)).await
    }

    /// Reads from the footers of files of records which of them are open.
    pub(crate) async fn open_rows(&self, files: &[DataFile]) -> Result<Vec<OpenRows>> {
        self.of_footers(Rows::Logs, files.iter(), OpenRows::from_footer).await
    }

    /// Takes a value from the footer of each file.
    async fn of_footers<'f, T>(
        &self,
        rows: Rows,
        files: impl Iterator<Item = &'f DataFile>,
        value: impl Fn(&ParquetMetaData) -> T,
    ) -> Result<Vec<T>> {
        let path = &self.paths[rows as usize];
        let files = files.map(|file| provider::partitioned_file(path, file));
        let reads = reading::CountedReads::new(self.base.runtime_env()).map_err(query_failed)?;
        let reads = &reads;
        let value = &value;
        let values = futures::stream::iter(files.collect::<Vec<_>>()).map(async |file| {
            let metadata = reads.footer(file).await.map_err(query_failed)?;
            Ok(value(&metadata))
        });
        values.buffered(FOOTERS_AT_ONCE).try_collect().await
    }

    /// Returns the bytes that an export may take at the moment.
    pub(crate) fn export_room(&self, query_context: &QueryContext) -> u64 {
        self.resources.export_room(query_context)
    }

    /// Returns the bytes that maintenance may hold for each reader of a file.
    pub(crate) fn reader_bytes(&self) -> u64 {
        self.resources.maintenance_bytes / self.base.config().target_partitions().max(1) as u64
    }

    /// Returns the bytes that maintenance may hold beside the row groups that it writes.
    pub(crate) fn maintenance_bytes(&self) -> u64 {
        self.resources.maintenance_bytes
    }
}

/// A statement before its planning. Cloning it is cheap.
#[derive(Clone)]
struct Planning {
    session: SessionContext,
    around: Arc<SessionTables>,
    text: Arc<str>,
    params: ParamValues,
}

impl Planning {
    async fn start(self, is_frugal: bool) -> Result<Started> {
        session::start(&self.session, &self.around, &self.text, self.params, is_frugal).await
    }

    /// Starts it on a thread for blocking work: planning does not yield, so where others share the
    /// threads, it has one to itself, and holds up no flush.
    async fn start_apart(self, is_frugal: bool) -> Result<Started> {
        let here = Handle::current();
        let planned = tokio::task::spawn_blocking(move || here.block_on(self.start(is_frugal)));
        planned.await.map_err(|cause| Error::internal("planning panicked").with_source(cause))?
    }
}

/// Hands the rows of a statement to its reader.
struct Delivery {
    /// Where the schema goes, once.
    schema: Option<oneshot::Sender<(SchemaRef, Withheld)>>,
    batches: mpsc::Sender<Result<RecordBatch>>,
    /// Rows that were handed over.
    rows: u64,
    max_rows: Option<u64>,
}

impl Delivery {
    async fn deliver(&mut self, started: Result<Started>) -> Result<()> {
        let Started { rows: mut stream, withheld } = started?;
        if let Some(schema) = self.schema.take() {
            // A reader that is gone needs no schema, and the queue says so next.
            let _ = schema.send((stream.schema(), withheld));
        }
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(query_failed)?;
            self.rows += batch.num_rows() as u64;
            within_rows(self.rows, self.max_rows)?;
            if self.batches.send(Ok(batch)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Batches of a running query. The deadline is checked here too, since the query's own threads may
/// be busy.
struct Batches {
    queue: mpsc::Receiver<Result<RecordBatch>>,
    task: Option<AbortOnDropHandle<()>>,
    deadline: Option<Instant>,
    limits: Limits,
    _call_off: CallOff,
}

impl Batches {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let next = self.queue.recv();
        match self.deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, next).await {
                Ok(next) => next,
                Err(_) => {
                    self.task = None;
                    self.queue.close();
                    Some(Err(too_long(self.limits)))
                }
            },
            None => next.await,
        }
    }
}

/// Converts the two channels of a running query to its answer: first the schema, or the error that
/// came instead.
async fn answer(
    schema: oneshot::Receiver<(SchemaRef, Withheld)>,
    mut batches: Batches,
) -> Result<Answer> {
    let known = match batches.deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline, schema).await.map_err(|_| too_long(batches.limits))?
        }
        None => schema.await,
    };
    let Ok((schema, withheld)) = known else {
        let died = || Error::internal("the query ended without an answer; its thread panicked");
        return Err(batches.queue.recv().await.and_then(Result::err).unwrap_or_else(died));
    };
    let stream = futures::stream::unfold(batches, |mut batches| async move {
        if let Some(batch) = batches.next().await {
            return Some((batch, batches));
        }
        // The queue closes when the query ends. If it ended by a panic, the answer is incomplete
        // and must end with an error.
        let ended = batches.task.take()?.await;
        let error =
            ended.err().map(|cause| Error::internal("the query panicked").with_source(cause))?;
        Some((Err(error), batches))
    });
    let Withheld { columns: withheld, figures } = withheld;
    Ok(Answer { schema, withheld, figures, batches: stream.fuse().boxed() })
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

/// Returns the maximum number of concurrent queries, in total and of one organisation.
fn places(config: &Config) -> [usize; 2] {
    let all = usize::try_from(config.query_concurrency).unwrap_or(usize::MAX >> 4);
    let share = match usize::try_from(config.query_share).unwrap_or(usize::MAX >> 4) {
        0 => all.div_ceil(2),
        share => share,
    };
    [all, share]
}

/// Converts JSON values to DataFusion's parameters.
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
