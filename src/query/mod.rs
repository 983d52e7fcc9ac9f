//! SQL over a Scene: what a statement may see and do, what it may use up, and how it is called off.
//!
//! A session sees one View and a few small tables, and nothing else: no files, no URLs, no writes.
//! Which rows of the View it sees ([`ReadScope`]: organisation, workspace, retention, erasures,
//! bodies) is part of the table that it is given, below SQL, so no statement can reach around it.
//!
//! A query with a time limit runs on threads that its organisation alone has (`lanes`), in a place
//! among those that run at once (`places`); other work runs on the engine's threads. It hands its
//! batches over through a short queue, so a slow client holds the query back, and dropping the
//! answer ends it. Memory and disk space come from what all queries share (`resources`); time and
//! rows are bounded per query; passing a bound is an error, never a shortened answer. A batch is
//! bounded by what the functions of a statement make of it (`functions`), by its constants
//! (`plan_size`) and by the bodies that it reads (`wide`).

mod casts;
mod compact;
mod context;
mod cooperative_joins;
mod dialect;
mod elsewhere;
mod failure;
mod fence;
mod filter_names;
mod file_statistics;
mod frugal;
mod functions;
mod in_turn;
mod known;
mod leakproof;
mod like;
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
mod workarounds;

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
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Rows;
use crate::store::Store;
use crate::table::DataFile;
use crate::view::View;

pub use context::{QueryContext, SystemTables};
use failure::query_failed;
use meter::{CallOff, Meter};
#[cfg(test)]
pub use model::function as canonical_model;
use places::{Owner, Place, Places};
pub use provider::Ordering as FileOrdering;
use provider::StoredTable;
pub use query_threads::STACK_BYTES;
use query_threads::{Lanes, Ticket};
pub use read_scope::ReadScope;
use session::{SessionTables, Started};
pub use weight::Weight;
use withhold::Withheld;
pub use withhold::{A_STATEMENT, Reads, refused_text};

/// Bound parameters by name, without the `$`; positional ones are named `1`, `2` and so on.
pub type Params = BTreeMap<String, serde_json::Value>;

/// The store's name in plans; it never leaves the process.
const STORE_URL: &str = "gatelog://table";
/// Longest statement, in bytes; planning takes stack by the length.
const MAX_TEXT: usize = 128 << 10;
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
    /// Columns of the rows that are computed from withheld ones, with these: of analytics alone,
    /// and worth nothing.
    pub figures: BTreeMap<String, BTreeSet<String>>,
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
    /// How the statement may read withheld columns.
    pub reads: Reads,
}

/// Runs queries for one engine.
pub struct Queries {
    base: SessionState,
    resources: resources::Resources,
    paths: [object_store::path::Path; 2],
    views: Vec<NamedView>,
    /// Where work without a time limit runs, which is nobody's in particular.
    work: Handle,
    lanes: Lanes,
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
    /// Prepares sessions over the tables of the store. Queries without a time limit run on `work`,
    /// as do reads of a bucket.
    pub fn new(
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
            work,
            lanes: Lanes::new(threads(config), all),
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

    /// The limits of an ordinary query.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Queries that run now.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Runs one read-only statement over the Scene.
    pub async fn sql(
        &self,
        query_context: impl Into<QueryContext>,
        text: &str,
        params: &Params,
    ) -> Result<Answer> {
        self.run(query_context, text, bind(params)?, self.limits).await
    }

    /// Runs a statement with typed parameters and limits of its own.
    pub async fn run(
        &self,
        query_context: impl Into<QueryContext>,
        text: &str,
        params: ParamValues,
        limits: Limits,
    ) -> Result<Answer> {
        let query_context: QueryContext = query_context.into();
        if text.len() > MAX_TEXT {
            return Err(Error::limit(format!(
                "the statement has {} bytes; at most {MAX_TEXT} are taken",
                text.len()
            )));
        }
        // Work without a time limit waits for its reader, so it must not keep queries that have one
        // from running.
        let seat = match limits.timeout {
            Some(timeout) => Some(self.seat(&query_context, timeout).await?),
            None => None,
        };
        let threads =
            seat.as_ref().map_or_else(|| Ok(self.work.clone()), |seat| seat.ticket.handle())?;
        let deadline = limits.timeout.map(|timeout| Instant::now() + timeout);
        let granted = self.resources.grant(self.base.runtime_env(), &query_context, limits)?;
        let meter = Meter::new(deadline, Arc::clone(&granted.runtime.memory_pool));
        let call_off = meter.call_off();
        let means = (meter, Arc::clone(&granted.runtime));
        let planning = self.planning(query_context, text, params, limits, means);
        let running = Running::start(&self.running);
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
                    match has_own_threads {
                        true => planning.start(is_frugal).await,
                        false => planning.start_apart(is_frugal).await,
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
                    // What ends a query from within says no more than that it was called off.
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
                let _ = out.send(Err(granted.explained(error))).await;
            }
        }));
        answer(
            schema_in,
            Batches { queue: batches, task: Some(task), deadline, limits, _call_off: call_off },
        )
        .await
    }

    /// A place among the queries that run at once, and threads of the organisation that asks.
    async fn seat(&self, query_context: &QueryContext, timeout: Duration) -> Result<Seat> {
        let owner: Owner = query_context
            .read_scope
            .as_ref()
            .and_then(|read_scope| read_scope.organisation.clone());
        let place = self.places.take(&owner, timeout).await?;
        Ok(Seat { ticket: self.lanes.take(&owner)?, _place: place })
    }

    /// What the planning of a statement needs.
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

    /// Runs a statement that merges files in the order that they are sorted by, without limits of
    /// time and rows.
    pub async fn merge(
        &self,
        query_context: impl Into<QueryContext>,
        text: &str,
        params: ParamValues,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.ordered(query_context.into(), text, params, (batch_rows, FileOrdering::Always)).await
    }

    /// Runs a statement that gives rows in the order of the table, without limits of time and rows,
    /// by merging files or by sorting.
    ///
    /// A merge holds a batch of every file: if they do not fit, it is begun again with smaller
    /// batches, down to single rows, and then as a sort, which goes to disk.
    pub async fn ordered(
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

    /// Weighs files as read by these columns, such as `id` and `request.body`; none means all
    /// columns. Reads footers only, which stay in the cache for whoever reads the files next.
    pub async fn weigh(
        &self,
        rows: Rows,
        files: &[Arc<DataFile>],
        columns: Option<&[String]>,
    ) -> Result<Vec<Weight>> {
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
    pub fn export_room(&self, query_context: &QueryContext) -> u64 {
        self.resources.export_room(query_context)
    }

    /// Memory that each of the readers may hold that upkeep has for one file.
    pub fn reader_bytes(&self) -> u64 {
        self.resources.upkeep_bytes / self.base.config().target_partitions().max(1) as u64
    }

    /// Memory that upkeep may hold beside the row groups that it writes.
    pub fn upkeep_bytes(&self) -> u64 {
        self.resources.upkeep_bytes
    }
}

/// What a query with a time limit holds while it runs. The threads stay with the organisation until
/// nothing runs on them.
#[derive(Debug)]
struct Seat {
    ticket: Ticket,
    _place: Place,
}

/// A statement that is about to be planned; cheap to clone.
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

/// The batches of a running query. It passes its deadline here too, since its own threads may be
/// busy.
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

/// Turns the two channels of a running query into its answer: the schema first, or the error that
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
        // The queue closes when the query ends; if it ended by a panic, the answer is not whole and
        // must say so.
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

/// Queries that run at once, and how many of them may be one organisation's.
fn places(config: &Config) -> [usize; 2] {
    let all = usize::try_from(config.query_concurrency).unwrap_or(usize::MAX >> 4);
    let share = match usize::try_from(config.query_share).unwrap_or(usize::MAX >> 4) {
        0 => all.div_ceil(2),
        share => share,
    };
    [all, share]
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
