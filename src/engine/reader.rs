//! Reads records: SQL, reports and exports over an open engine, or read-only beside a running one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::common::ParamValues;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::claim;
use super::gate::{Began, Gate};
use super::handle::{Engine, Inner};
use super::identity;
use super::read_beside::{Beside, read_beside, read_usage};
use super::status::Status;
use super::system_tables::SystemTable;
use super::work_threads::work_threads;
use crate::analytics;
use crate::catalog::{Access, Catalog, Denied, ErasureSelector, Scope, State};
use crate::config::{Config, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::export;
use crate::logs;
use crate::query::{
    A_STATEMENT, Answer, Limits, NamedView, Params, Queries, QueryContext, ReadScope, Reads,
    refused_text,
};
use crate::record::{Feedback, Record, Rows};
use crate::reports;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::table::Table;
use crate::threads::Threads;
use crate::time;
use crate::usage::Usage;
use crate::view::ViewCell;
use crate::wal::{self, Kind};

/// Runs of an internal statement that are repeated because records were erased meanwhile.
const MAX_RUNS: usize = 3;
/// The current state of each feedback.
const FEEDBACK_VIEW: &str = include_str!("../../sql/views/feedback.sql");
/// Returns the configuration of a reader without an engine. It spills into the temporary folder.
fn beside(config: &Config) -> Result<Config> {
    let mut config = config.settled(&Found::here())?;
    if config.spill_folder.is_empty() {
        config.spill_folder = std::env::temp_dir().display().to_string();
    }
    Ok(config)
}

/// Answers queries about the records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) queries: Arc<Queries>,
    pub(super) logs: Arc<ViewCell>,
    feedback: Arc<ViewCell>,
    catalog: Catalog,
    gate: Gate,
    usage: Usage,
    access: Access,
    now: fn() -> DateTime<Utc>,
    /// The folder of the log, for a reader without an engine.
    wal: Option<(Arc<dyn Disk>, PathBuf)>,
    /// Threads of a reader without an engine; otherwise the engine's are used.
    _own: Option<Arc<Threads>>,
}

impl Reader {
    pub(super) fn over(inner: &Inner, access: Access) -> Self {
        Self {
            queries: Arc::clone(&inner.queries),
            logs: Arc::clone(&inner.tables.logs.view_cell),
            feedback: Arc::clone(&inner.tables.feedback.view_cell),
            catalog: inner.catalog.clone(),
            gate: inner.gate(),
            usage: inner.usage.clone(),
            access,
            now: inner.now,
            wal: None,
            _own: None,
        }
    }

    /// Opens the data folder of a configuration read-only, also beside a running server. It sees
    /// every record that was acknowledged before, as of this moment; open it again to see newer
    /// ones. Returns [`crate::error::ErrorKind::NotFound`] if the folder does not exist, or is not
    /// a store.
    pub async fn open(config: &Config) -> Result<Self> {
        let config = &beside(config)?;
        let store = Store::open(config, false)?;
        // Before the tables: its rules about files also apply to newer files.
        let catalog = Catalog::open(&store, unknown_days(config), Utc::now).await?;
        identity::check(&store, &catalog).await?;
        claim::refuse_left_behind(&store).await?;
        let Beside { logs: table, feedback: second, rows } = read_beside(&store).await?;
        let files = |table: &Option<Table>| table.as_ref().map(Table::index).unwrap_or_default();
        let logs = ViewCell::new(Rows::Logs, files(&table));
        let feedback = ViewCell::new(Rows::Feedback, files(&second));
        let mut memory = Vec::new();
        for (kind, batch) in rows {
            match kind {
                Kind::Logs => memory.push(batch),
                Kind::Feedback => drop(feedback.insert(batch, 0, None)),
                Kind::RecordPart(_) | Kind::Late(_) => {}
            }
        }
        let usage = read_usage(&store, table.as_ref(), &memory).await?;
        for batch in memory {
            logs.insert(batch, 0, None);
        }
        let threads = work_threads(config)?;
        let queries = Queries::new(config, &store, named_views(), threads.handle()?)?;
        Ok(Self {
            queries: Arc::new(queries),
            logs: Arc::new(logs),
            feedback: Arc::new(feedback),
            gate: Gate { catalog: catalog.clone(), now: Utc::now, max_age: None },
            catalog,
            usage,
            access: Access::operator("cli"),
            now: Utc::now,
            wal: store.wal_folder().map(|folder| (Arc::clone(store.disk()), folder)),
            _own: Some(Arc::new(threads)),
        })
    }

    /// Waits for a place among the running statements. Returns the data that a statement reads
    /// then, and the restrictions on it. Returns an error if they are not known, or if the key may
    /// not read any more.
    async fn query_context(&self) -> Result<QueryContext> {
        let mut query_context = self.seated_query_context().await?;
        if let Some(read_scope) = &mut query_context.read_scope {
            read_scope.denied = self.denied();
        }
        Ok(query_context)
    }

    /// Returns the same for internal statements, whose rows are not the response: they include
    /// denied fields, which are removed from the response later.
    async fn seated_query_context(&self) -> Result<QueryContext> {
        let seat = self.queries.seat(self.access.organisation.as_deref()).await?;
        Ok(QueryContext { seat, ..self.whole_query_context().await? })
    }

    /// Returns the same for work without a time limit, which needs no place.
    async fn whole_query_context(&self) -> Result<QueryContext> {
        self.gate.refuse_if_stale().await?;
        self.gate.check(&self.access)?;
        Ok(self.query_context_now())
    }

    /// Returns the fields that the reader may not read.
    fn denied(&self) -> Denied {
        let Access { organisation, workspace, .. } = &self.access;
        self.catalog.state().document.denied(organisation.as_deref(), workspace.as_deref())
    }

    fn query_context_now(&self) -> QueryContext {
        let view = self.logs.view();
        let feedback = self.feedback.view();
        let state = self.catalog.state();
        let read_scope = self.read_scope(&state, Denied::default());
        let files =
            [(Rows::Logs, Arc::clone(&view.files)), (Rows::Feedback, Arc::clone(&feedback.files))];
        let side = SystemTable::new(state, self.usage.clone(), files, self.access.clone());
        QueryContext {
            view,
            feedback: Some(feedback),
            read_scope: Some(read_scope),
            side: Some(Arc::new(side)),
            seat: None,
        }
    }

    /// Returns the read scope of the key.
    fn read_scope(&self, state: &State, denied: Denied) -> ReadScope {
        ReadScope {
            organisation: self.access.organisation.clone(),
            workspace: self.access.workspace.clone(),
            bodies: self.access.may(Scope::Read),
            denied,
            rules: Arc::clone(&state.rules),
            now_micros: (self.now)().timestamp_micros(),
        }
    }

    /// Wraps an answer so that it ends with an error when the key loses the right to read.
    fn watched(&self, began: Began, answer: Answer) -> Answer {
        Answer { batches: self.gate.watch(began, answer.batches), ..answer }
    }

    fn begin(&self) -> Began {
        self.gate.begin(&self.access)
    }

    /// Runs an internal statement whose rows are the response, and checks the rights again
    /// afterwards. If records were erased meanwhile, the rows may include them, so the statement
    /// runs again.
    async fn still<T, F: Future<Output = Result<T>>>(
        &self,
        run: impl Fn(QueryContext) -> F,
    ) -> Result<T> {
        for _ in 1..MAX_RUNS {
            let began = self.begin();
            let found = run(self.seated_query_context().await?).await?;
            match self.gate.check_still(&began) {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                checked => return checked.map(|()| found),
            }
        }
        let began = self.begin();
        let found = run(self.seated_query_context().await?).await?;
        self.gate.check_still(&began).map(|()| found)
    }

    /// Returns a source of the latest rules: records that are erased while an export runs are not
    /// in the rest of it.
    fn erased_since(&self) -> export::LatestRules {
        let catalog = self.catalog.clone();
        Arc::new(move || catalog.rules())
    }

    /// Runs one read-only statement: a query, EXPLAIN, SHOW or DESCRIBE.
    pub async fn sql(&self, query: &str, params: &Params) -> Result<Answer> {
        let began = self.begin();
        let answer = self.queries.sql(self.query_context().await?, query, params).await?;
        Ok(self.watched(began, answer))
    }

    /// Runs a named report.
    pub async fn report(&self, name: &str, params: &Params) -> Result<Answer> {
        let report = reports::find(name)?;
        let params = reports::bind(report, params)?;
        let began = self.begin();
        let limits = Limits { reads: Reads::Report, ..self.queries.limits() };
        let answer =
            self.queries.run(self.query_context().await?, report.sql, params, limits).await;
        Ok(self.watched(
            began,
            answer.map_err(|refused| in_context(&format!("report `{name}`"), refused))?,
        ))
    }

    /// Answers a query of Portkey's analytics, in Portkey's format. Figures that are computed from
    /// withheld columns are null, and `withheld` names the columns. Returns
    /// [`crate::error::ErrorKind::Denied`] if the query asks for nothing else.
    pub async fn analytics(&self, query: &analytics::Query) -> Result<serde_json::Value> {
        let answer = self.analytics_rows(query).await?;
        let withheld = answer.figures;
        if let Some(columns) = query.refused(&withheld) {
            return Err(Error::denied(refused_text(&query.title(), &columns, &self.denied())));
        }
        let rows: Vec<RecordBatch> = answer.batches.try_collect().await?;
        // The number of groups is in the rows, and a page after the last one has none.
        if rows.iter().all(|batch| batch.num_rows() == 0)
            && let Some(first) = query.first_page()
        {
            let first: Vec<RecordBatch> =
                self.analytics_rows(&first).await?.batches.try_collect().await?;
            let mut answer = query.json_without(&rows, &withheld)?;
            answer["total"] = analytics::Query::groups(&first)?.unwrap_or(0).into();
            return Ok(answer);
        }
        query.json_without(&rows, &withheld)
    }

    /// Returns the rows from which [`Reader::analytics`] builds its answer.
    pub async fn analytics_rows(&self, query: &analytics::Query) -> Result<Answer> {
        self.denied().check_filter(query.filtered().iter().map(String::as_str))?;
        let limits = Limits { reads: Reads::Figures, ..self.queries.limits() };
        let began = self.begin();
        let answer = self
            .queries
            .run(self.query_context().await?, &query.sql(), query.params(), limits)
            .await;
        Ok(self.watched(began, answer.map_err(|refused| in_context(&query.title(), refused))?))
    }

    /// Returns a page of the newest records that match a filter, without bodies and withheld
    /// columns.
    pub async fn logs(&self, ask: &logs::Ask) -> Result<logs::Page> {
        let columns = ask.filter.columns();
        let denied = self.denied();
        // The order of a list and the cursor of a page reveal these columns.
        denied.check_filter(columns.iter().map(String::as_str).chain(logs::ORDER))?;
        let queries = &*self.queries;
        let mut page = self.still(|query_context| logs::list(queries, query_context, ask)).await?;
        page.hide(&self.withheld_by(denied));
        Ok(page)
    }

    /// Counts the records that match a filter.
    pub async fn count_logs(&self, filter: &logs::Filter) -> Result<u64> {
        self.denied().check_filter(filter.columns().iter().map(String::as_str))?;
        let queries = &*self.queries;
        self.still(|query_context| logs::count(queries, query_context, filter)).await
    }

    /// Returns the record with that id, as far as the key may read it. If there are several,
    /// prefers one without a workspace, then the newest; or that of the given organisation and
    /// workspace (an empty workspace means none). Returns [`crate::error::ErrorKind::NotFound`] if
    /// the key reaches none.
    pub async fn log(
        &self,
        id: &str,
        organisation: Option<&str>,
        workspace: Option<&str>,
    ) -> Result<Record> {
        let mut record = self.whole_log(id, organisation, workspace).await?;
        self.hide(&mut record);
        Ok(record)
    }

    /// Returns the same with the fields that are denied to the reader, for callers that show less
    /// of it and end with [`Reader::hide`].
    pub(crate) async fn whole_log(
        &self,
        id: &str,
        organisation: Option<&str>,
        workspace: Option<&str>,
    ) -> Result<Record> {
        let denied = self.denied();
        denied.check_filter(["id"])?;
        let queries = &*self.queries;
        let record = self
            .still(|query_context| logs::get(queries, query_context, id, organisation, workspace))
            .await?;
        if record.id.as_deref() != Some(id) {
            // The record was found by the call of which it is an attempt.
            denied.check_filter(["internal_trace_id", "source", "is_success"])?;
        }
        Ok(record)
    }

    /// Removes from a record the fields that the key may not read.
    pub fn hide(&self, record: &mut Record) {
        logs::hide(record, &self.withheld_from_log());
    }

    /// Returns an error if fields of a request to be replayed are denied.
    pub fn check_replay(&self) -> Result<()> {
        self.denied().check_filter(crate::replay::READS)
    }

    /// Returns the feedback with that id, if the key reaches it. If there are several, the newest,
    /// or that of the given organisation.
    pub async fn feedback(&self, id: &str, organisation: Option<&str>) -> Result<Feedback> {
        let queries = &*self.queries;
        self.still(|query_context| logs::get_feedback(queries, query_context, id, organisation))
            .await
    }

    /// Returns a page of feedback, newest first, and the cursor of the next page.
    pub async fn list_feedback(
        &self,
        ask: &logs::FeedbackAsk,
    ) -> Result<(Vec<Feedback>, Option<logs::Cursor>)> {
        let queries = &*self.queries;
        self.still(|query_context| logs::list_feedback(queries, query_context, ask)).await
    }

    /// Returns a preview of the erasure of these records of an organisation.
    pub async fn erasing(
        &self,
        organisation: &str,
        which: &ErasureSelector,
    ) -> Result<logs::Erasing> {
        logs::erasing(&self.queries, self.whole_query_context().await?, organisation, which).await
    }

    /// Returns the feedback on a record, or nothing if that would reveal withheld fields.
    pub async fn feedback_on(&self, record: &Record) -> Result<logs::LogFeedback> {
        if logs::is_feedback_withheld(&self.withheld_from_log()) {
            return Ok(logs::LogFeedback::default());
        }
        let queries = &*self.queries;
        self.still(|query_context| logs::feedback_of_log(queries, query_context, record)).await
    }

    /// Returns the locations of logs that feedback may refer to, by id, the newest last. Logs that
    /// the key does not reach are left out.
    pub async fn places(&self, ids: &[String]) -> Result<HashMap<String, Vec<logs::LogRef>>> {
        let queries = &*self.queries;
        self.still(|query_context| logs::places(queries, query_context, ids)).await
    }

    /// Exports records as JSON lines, in chunks that end on a line.
    pub async fn export(
        &self,
        request: &export::Request,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let began = self.begin().without_erasures();
        let queries = Arc::clone(&self.queries);
        let request = self.within_plan(request)?;
        let lines = export::export(
            queries,
            self.whole_query_context().await?,
            self.erased_since(),
            &request,
        )
        .await?;
        Ok(self.gate.watch(began, lines))
    }

    /// Exports the selection of a job as these columns, no further back than the plan currently
    /// allows. Notes the organisations of the records.
    pub(super) async fn export_selected(
        &self,
        selection: &export::Selection,
        columns: Vec<String>,
        limit: Option<u64>,
        noted: &Arc<export::Organisations>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let time = selection.filter.time;
        let micros = |at: DateTime<Utc>| at.timestamp_micros();
        let from = time.min.map(micros).max(self.exported_from(None)?);
        let to = time.max.map(|at| micros(at).saturating_add(1));
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Ok(futures::stream::empty().boxed());
        }
        let from = from.and_then(micros_text);
        let to = to.and_then(micros_text);
        let request = export::Request { from, to, columns: Some(columns), after: None, limit };
        let condition = selection.filter.condition();
        let began = self.begin().without_erasures();
        let queries = Arc::clone(&self.queries);
        let query_context = self.whole_query_context().await?;
        let latest = self.erased_since();
        let skip = selection.skip;
        let lines = export::selected(
            queries,
            query_context,
            latest,
            &request,
            condition,
            skip,
            Arc::clone(noted),
        )
        .await?;
        Ok(self.gate.watch(began, lines))
    }

    /// Returns an error if the plan does not include exports.
    pub(super) fn may_export(&self) -> Result<()> {
        self.exported_from(None).map(|_| ())
    }

    /// Counts the records that the selection of a job matches. Returns
    /// [`crate::error::ErrorKind::Denied`] if the plan does not let exports reach so far back.
    pub(super) async fn count_selected(&self, selection: &export::Selection) -> Result<u64> {
        let mut filter = selection.filter.clone();
        let from = self.exported_from(filter.time.min.map(|at| at.timestamp_micros())).map_err(
            |refused| {
                Error::new(
                    refused.kind(),
                    refused.message().replace("`from`", "`time_of_generation_min`"),
                )
            },
        )?;
        filter.time.min = from.and_then(DateTime::from_timestamp_micros);
        self.count_logs(&filter).await
    }

    /// Restricts a request to the time range and number of records that the plan of the caller's
    /// organisation allows, and to the columns that the caller may export.
    fn within_plan(&self, request: &export::Request) -> Result<export::Request> {
        let organisation = &self.access.organisation;
        let from = match organisation {
            Some(_) => self.exported_from(export::first_moment(request)?)?.and_then(micros_text),
            None => request.from.clone(),
        };
        let state = self.catalog.state();
        let denied = self.denied();
        denied.check_filter(request.reads())?;
        let columns = denied.columns(request.columns.clone(), self.access.may(Scope::Read))?;
        let limit = request
            .limit
            .into_iter()
            .chain(state.document.most_exported(organisation.as_deref()))
            .min();
        Ok(export::Request { from, columns, limit, ..request.clone() })
    }

    /// Returns the columns that an export lacks because they are withheld. Withheld columns that a
    /// request names are an error instead.
    pub fn withheld_from_export(&self, request: &export::Request) -> Vec<String> {
        let denied = self.denied();
        let bodies = self.access.may(Scope::Read);
        match request.columns {
            Some(_) => Vec::new(),
            // Records in native format have messages without bodies.
            None if denied.is_empty() => self.withheld_by(denied),
            None => denied.withheld(bodies),
        }
    }

    /// Returns the columns of a single record that are withheld.
    pub fn withheld_from_log(&self) -> Vec<String> {
        self.withheld_by(self.denied())
    }

    /// Returns the columns of a list of records that are withheld. No list has bodies.
    pub fn withheld_from_list(&self) -> Vec<String> {
        let mut withheld = self.withheld_from_log();
        let listed =
            |name: &str| logs::listed().any(|column| name.split('.').next() == Some(column));
        withheld.retain(|name| listed(name));
        withheld
    }

    fn withheld_by(&self, denied: Denied) -> Vec<String> {
        self.read_scope(&self.catalog.state(), denied).withheld()
    }

    /// Returns the start of an export from `from`, µs since 1970-01-01; `None` means the first
    /// record.
    fn exported_from(&self, from: Option<i64>) -> Result<Option<i64>> {
        let Some(organisation) = &self.access.organisation else { return Ok(from) };
        self.catalog.rules().terms(organisation).export_from(from, (self.now)())
    }

    /// Returns an upper bound of the records of an export; quick, for a progress bar.
    pub fn export_estimate(&self, request: &export::Request) -> Result<u64> {
        export::estimate(&self.query_context_now(), &self.within_plan(request)?)
    }

    /// Returns the status of the store, as far as a reader knows it.
    pub fn status(&self) -> Status {
        let (wal_bytes, wal_segments) =
            self.wal.as_ref().map_or((0, 0), |(disk, folder)| wal::size_on_disk(&**disk, folder));
        Status {
            wal_bytes,
            wal_segments,
            ..Status::from_tables(&self.logs, &self.feedback, self.queries.running())
        }
    }
}

impl Engine {
    /// Returns a reader of this engine without restrictions.
    pub fn reader(&self) -> Reader {
        self.reader_as(&Access::operator("library"))
    }

    /// Returns a reader of this engine with the rights of a key.
    pub fn reader_as(&self, access: &Access) -> Reader {
        Reader::over(&self.inner, access.clone())
    }

    /// Runs one read-only statement: a query, EXPLAIN, SHOW or DESCRIBE.
    pub async fn sql(&self, query: &str, params: &Params) -> Result<Answer> {
        self.reader().sql(query, params).await
    }

    /// Runs a named report.
    pub async fn report(&self, name: &str, params: &Params) -> Result<Answer> {
        self.reader().report(name, params).await
    }

    /// Exports records as JSON lines, in chunks that end on a line.
    pub async fn export(
        &self,
        request: &export::Request,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.reader().export(request).await
    }
}

/// Adds the name of its purpose to the error of an internal statement.
fn in_context(what: &str, error: Error) -> Error {
    match error.message().strip_prefix(A_STATEMENT) {
        Some(rest) => Error::new(error.kind(), format!("{what}{rest}")),
        None => error,
    }
}

fn micros_text(micros: i64) -> Option<String> {
    let at = DateTime::<Utc>::from_timestamp_micros(micros)?;
    Some(time::micros(at))
}

/// Returns the days that records of an unknown organisation are kept; 0 means for ever.
pub(super) fn unknown_days(config: &Config) -> i32 {
    i32::try_from(config.retention_days).unwrap_or(0)
}

/// Returns the reports and the current feedback as views for SQL.
pub(super) fn named_views() -> Vec<NamedView> {
    let view = |report: &reports::Report| NamedView {
        name: report.name,
        sql: report.view_sql(),
        params: reports::view_params(report),
    };
    let feedback = NamedView {
        name: "feedback",
        sql: FEEDBACK_VIEW,
        params: ParamValues::Map(HashMap::new()),
    };
    reports::list().iter().map(view).chain([feedback]).collect()
}
