//! Reading: SQL, reports and exports over an open engine, or beside one without touching anything.
//!
//! Beside a running engine ([`Reader::open`]) the order of reading is what makes the View whole: first the log, then the
//! table, then every frame that the table's transaction covers is dropped. A flush that commits in between moves rows from
//! the first to the second, and they are counted once; the other order could miss them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::side::Side;
use super::{Inner, Status, TABLE, Threads};
use crate::analytics;
use crate::catalog::{Access, Catalog, Scope};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export;
use crate::logs;
use crate::plan::Month;
use crate::query::{Answer, NamedView, Params, Queries, Scene, Sight};
use crate::record::Record;
use crate::reports;
use crate::store::Store;
use crate::table::Table;
use crate::usage::{self, Counts, Usage};
use crate::view::Shelf;
use crate::wal;

/// Whether sessions have a table `feedback`. Without one, analytics read an empty one: none was ever taken.
const FEEDBACK: bool = false;

/// Answers questions about the records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) queries: Arc<Queries>,
    pub(super) shelf: Arc<Shelf>,
    catalog: Catalog,
    usage: Usage,
    access: Access,
    now: fn() -> DateTime<Utc>,
    /// The log's folder, for a reader that stands alone.
    wal: Option<std::path::PathBuf>,
    /// Threads of a reader that stands alone; an engine's reader uses the engine's.
    _own: Option<Arc<Threads>>,
}

impl Reader {
    pub(super) fn over(inner: &Inner, access: Access) -> Self {
        Self {
            queries: Arc::clone(&inner.queries),
            shelf: Arc::clone(&inner.shelf),
            catalog: inner.catalog.clone(),
            usage: inner.usage.clone(),
            access,
            now: inner.now,
            wal: None,
            _own: None,
        }
    }

    /// Opens the data folder of a configuration read-only, also beside a running server. It sees every record that was acked
    /// before, as of this moment; open again to see more. [`crate::error::ErrorKind::NotFound`] if there is no such folder.
    pub async fn open(config: &Config) -> Result<Self> {
        let store = Store::open(config, false)?;
        let (table, memory) = read_beside(&store).await?;
        let usage = read_usage(&store, table.as_ref(), &memory).await?;
        let files = table.as_ref().map(Table::index).unwrap_or_default();
        let shelf = Shelf::new(files);
        for (sequence, batch) in memory {
            shelf.insert(batch, sequence, 0, None);
        }
        let threads = Threads::start(config)?;
        let queries = Queries::new(config, &store, store.table_path(TABLE), named_views(), threads.handle()?)?;
        let catalog = Catalog::open(&store, unknown_days(config), Utc::now).await?;
        Ok(Self {
            queries: Arc::new(queries),
            shelf: Arc::new(shelf),
            catalog,
            usage,
            access: Access::operator("cli"),
            now: Utc::now,
            wal: store.wal_folder(),
            _own: Some(Arc::new(threads)),
        })
    }

    /// What a query that starts now reads, and what of it may be seen.
    fn scene(&self) -> Scene {
        let (view, state, now) = (self.shelf.view(), self.catalog.state(), (self.now)());
        let sight = Sight {
            organisation: self.access.organisation.clone(),
            workspace: self.access.workspace.clone(),
            bodies: self.access.may(Scope::Read),
            rules: Arc::clone(&state.rules),
            now_micros: now.timestamp_micros(),
        };
        let side = Side::new(state, self.usage.clone(), Arc::clone(&view.files), self.access.clone());
        Scene { view, sight: Some(sight), side: Some(Arc::new(side)) }
    }

    /// Runs one read-only statement: a query, EXPLAIN, SHOW or DESCRIBE.
    pub async fn sql(&self, query: &str, params: &Params) -> Result<Answer> {
        self.queries.sql(self.scene(), query, params).await
    }

    /// Runs a named report.
    pub async fn report(&self, name: &str, params: &Params) -> Result<Answer> {
        let report = reports::find(name)?;
        let params = reports::bind(report, params)?;
        self.queries.run(self.scene(), report.sql, params, self.queries.limits()).await
    }

    /// Answers a question of Portkey's analytics, in Portkey's shape.
    pub async fn analytics(&self, query: &analytics::Query) -> Result<serde_json::Value> {
        let rows: Vec<RecordBatch> = self.analytics_rows(query).await?.batches.try_collect().await?;
        // How many groups there are stands in their rows, and a page behind the last one has none.
        if let (true, Some(first)) = (rows.iter().all(|batch| batch.num_rows() == 0), query.first_page()) {
            let first: Vec<RecordBatch> = self.analytics_rows(&first).await?.batches.try_collect().await?;
            let mut answer = query.json(&rows)?;
            answer["total"] = analytics::Query::groups(&first)?.unwrap_or(0).into();
            return Ok(answer);
        }
        query.json(&rows)
    }

    /// The rows that [`Reader::analytics`] makes its answer of.
    pub async fn analytics_rows(&self, query: &analytics::Query) -> Result<Answer> {
        self.queries.run(self.scene(), &query.sql(FEEDBACK), query.params(), self.queries.limits()).await
    }

    /// The newest records that a filter names, a page of them, without bodies.
    pub async fn logs(&self, ask: &logs::Ask) -> Result<logs::Page> {
        logs::list(&self.queries, self.scene(), ask).await
    }

    /// How many records a filter names.
    pub async fn count_logs(&self, filter: &logs::Filter) -> Result<u64> {
        logs::count(&self.queries, self.scene(), filter).await
    }

    /// The record of that id, whole as far as the key may read it; of several the newest, or that of the organisation named.
    /// [`crate::error::ErrorKind::NotFound`] if there is none that the key reaches.
    pub async fn log(&self, id: &str, organisation: Option<&str>) -> Result<Record> {
        logs::get(&self.queries, self.scene(), id, organisation).await
    }

    /// Exports records as JSON lines, in chunks that end on a line.
    pub async fn export(&self, request: &export::Request) -> Result<BoxStream<'static, Result<Bytes>>> {
        export::export(Arc::clone(&self.queries), self.scene(), &self.within_plan(request)?).await
    }

    /// The request, no further back than the plan of the caller's organisation lets exports reach.
    fn within_plan(&self, request: &export::Request) -> Result<export::Request> {
        let Some(organisation) = &self.access.organisation else { return Ok(request.clone()) };
        let terms = self.catalog.rules().terms(organisation).clone();
        let from = terms.export_from(export::first_moment(request)?, (self.now)())?;
        let text = |micros| {
            let at = DateTime::<Utc>::from_timestamp_micros(micros)?;
            Some(at.to_rfc3339_opts(SecondsFormat::Micros, true))
        };
        Ok(export::Request { from: from.and_then(text), ..request.clone() })
    }

    /// How many records an export has at most; quick, for a progress bar.
    pub fn export_estimate(&self, request: &export::Request) -> Result<u64> {
        export::estimate(&self.scene(), &self.within_plan(request)?)
    }

    /// What is stored, as far as a reader can tell.
    pub fn status(&self) -> Status {
        let (wal_bytes, wal_segments) = self.wal.as_deref().map_or((0, 0), wal::size_on_disk);
        Status { wal_bytes, wal_segments, ..Status::of_view(&self.shelf, self.queries.running()) }
    }
}

/// Days that records of an organisation that the catalog does not know are kept; 0 = for ever.
pub(super) fn unknown_days(config: &Config) -> i32 {
    i32::try_from(config.retention_days).unwrap_or(0)
}

/// What all nodes counted as of their last flush, and with the rows of this log that came after.
async fn read_usage(store: &Store, table: Option<&Table>, memory: &[(u64, RecordBatch)]) -> Result<Usage> {
    let now_micros = Utc::now().timestamp_micros();
    let mut logs = usage::read(store, Month::of_micros(now_micros)).await?;
    let mut own = Counts::default();
    if let Some(wal_id) = store.wal_folder().map(|folder| wal::read_identity(&folder)).transpose()?.flatten() {
        let snapshots = logs.remove(&wal_id).unwrap_or_default();
        let flushed = usage::as_of(&snapshots, covered(table, wal_id).await?);
        own = flushed.map(|snapshot| Counts::clone(&snapshot.counts)).unwrap_or_default();
    }
    memory.iter().for_each(|(_, batch)| own.count(batch, now_micros));
    Ok(Usage::fixed(usage::sum([&own, &usage::newest(&logs)])))
}

/// The reports, as views for SQL.
pub(super) fn named_views() -> Vec<NamedView> {
    let view = |report: &reports::Report| NamedView {
        name: report.name,
        sql: report.view_sql(),
        params: reports::view_params(report),
    };
    reports::list().iter().map(view).collect()
}

/// The table and the rows of the log that are not in it, read so that no acked row is missing and none is there twice.
async fn read_beside(store: &Store) -> Result<(Option<Table>, Vec<(u64, RecordBatch)>)> {
    let Some(folder) = store.wal_folder() else {
        return Ok((Table::open(store, TABLE).await?, Vec::new()));
    };
    let Some(wal_id) = wal::read_identity(&folder)? else {
        return Ok((Table::open(store, TABLE).await?, Vec::new()));
    };
    // What the table covers now need not be decoded; what it covers later is dropped below.
    let before = covered(Table::open(store, TABLE).await?.as_ref(), wal_id).await?;
    let (mut frames, first) = tokio::task::spawn_blocking(move || -> Result<_> {
        let mut frames = Vec::new();
        let found = wal::replay(&folder, before, true, &mut |sequence, batch| {
            frames.push((sequence, batch));
            Ok(())
        })?;
        Ok((frames, found.segments.first().map(|segment| segment.first_sequence)))
    })
    .await
    .map_err(|cause| Error::internal("reading the log panicked").with_source(cause))??;
    let table = Table::open(store, TABLE).await?;
    let covered = covered(table.as_ref(), wal_id).await?;
    if let Some(first) = first.filter(|first| *first > covered + 1) {
        return Err(Error::damaged(format!(
            "the write-ahead log begins at sequence {first}, but the table ends at {covered}: a segment is missing; \
             restore it from a copy"
        )));
    }
    frames.retain(|(sequence, _)| *sequence > covered);
    Ok((table, frames))
}

/// The last sequence of the log that the table holds.
pub(super) async fn covered(table: Option<&Table>, wal_id: uuid::Uuid) -> Result<u64> {
    let version = match table {
        Some(table) => table.app_version(&wal_id.to_string()).await?,
        None => None,
    };
    Ok(version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0))
}
