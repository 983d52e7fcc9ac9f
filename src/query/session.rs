//! What a statement finds in its session: `logs`, and the views and side tables that it names; and which statements are taken.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider};
use datafusion::catalog::{MemTable, SchemaProvider};
use datafusion::common::{ParamValues, TableReference};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;

use super::provider::StoredTable;
use super::{NamedView, STORE_URL, query_failed, threads, wide, withhold, yielding};
use super::{barrier, fence, like, model, scene, statement, success};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Store;

/// Name of the catalog and of the schema in it.
const CATALOG: &str = "gatelog";
const SCHEMA: &str = "public";
/// Functions that make big values out of small ones, outside of the memory that a query may use.
const UNBOUNDED: [&str; 7] = ["array_repeat", "array_resize", "list_repeat", "list_resize", "lpad", "repeat", "rpad"];

/// What the statements of one session may name beside `logs`, and may ask.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) views: Vec<NamedView>,
    pub(super) side: Option<Arc<dyn scene::SideTables>>,
    /// Whether the session is bound to an organisation. How others' files are read is then not for it to see.
    pub(super) bound: bool,
    /// Rows of a batch that holds bodies.
    pub(super) wide_rows: usize,
    /// True if bodies are withheld from the session.
    pub(super) withholds: bool,
}

/// A statement that runs.
pub(super) struct Started {
    pub(super) rows: SendableRecordBatchStream,
    /// The withheld columns of its answer, which are null.
    pub(super) withheld: Vec<String>,
}

/// A session that sees just these tables, with the memory of the base.
#[cfg(test)]
pub(super) fn session(base: &SessionState, tables: Vec<StoredTable>, batch_rows: Option<usize>) -> SessionContext {
    session_in(base, tables, batch_rows, Arc::clone(base.runtime_env()))
}

/// A session that sees just these tables, with memory and disk space of its own.
pub(super) fn session_in(
    base: &SessionState,
    tables: Vec<StoredTable>,
    batch_rows: Option<usize>,
    runtime: Arc<RuntimeEnv>,
) -> SessionContext {
    let schema = Arc::new(MemorySchemaProvider::new());
    // No registration can fail: the names are free in a provider that was just made.
    for table in tables {
        let _ = schema.register_table(table.rows().table().to_owned(), Arc::new(table));
    }
    let catalog = Arc::new(MemoryCatalogProvider::new());
    let _ = catalog.register_schema(SCHEMA, schema);
    let mut config = base.config().clone();
    if let Some(rows) = batch_rows {
        config = config.with_batch_size(rows);
    }
    let state = SessionStateBuilder::new_from_existing(base.clone())
        .with_config(config)
        .with_runtime_env(runtime)
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .build();
    let session = SessionContext::new_with_state(state);
    session.register_catalog(CATALOG, catalog);
    session
}

/// Parses a statement; every statement and view goes through here.
pub(super) fn parse(state: &SessionState, text: &str) -> datafusion::error::Result<Statement> {
    statement::parse(text, state.config().options().sql_parser.recursion_limit.get())
}

/// Plans a statement and starts it.
pub(super) async fn start(
    session: &SessionContext,
    around: &Surroundings,
    text: &str,
    params: ParamValues,
) -> Result<Started> {
    let mut statement = parse(&session.state(), text).map_err(query_failed)?;
    success::cast(&mut statement, &params);
    around.register(session, &statement).await?;
    let plan = session.state().statement_to_plan(statement).await.map_err(query_failed)?;
    allowed(&plan, around.bound)?;
    let plan = plan.with_param_values(params).map_err(query_failed)?;
    let withheld = if around.withholds { withhold::check(&plan)? } else { Vec::new() };
    let rows = wide::start(session, &plan, around.wide_rows).await.map_err(query_failed)?;
    Ok(Started { rows, withheld })
}

/// Refuses everything but a query, EXPLAIN, SHOW and DESCRIBE; of EXPLAIN, a session that is bound to an organisation gets the
/// plain one only, since the others tell of files that hold the rows of others too.
fn allowed(plan: &LogicalPlan, bound: bool) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| Error::invalid("SQL here is read-only: send a query, EXPLAIN, SHOW or DESCRIBE"))?;
    let telling = match plan {
        LogicalPlan::Analyze(_) => true,
        LogicalPlan::Explain(explain) => explain.verbose,
        _ => false,
    };
    match bound && telling {
        true => Err(Error::denied(
            "EXPLAIN ANALYZE and EXPLAIN VERBOSE tell of files that other organisations share; use plain EXPLAIN",
        )),
        false => Ok(()),
    }
}

impl Surroundings {
    /// Makes what a statement names known to its session; planning all views for each query would cost more than most
    /// queries do.
    async fn register(&self, session: &SessionContext, statement: &Statement) -> Result<()> {
        let state = session.state();
        let names = state.resolve_table_references(statement).map_err(query_failed)?;
        let lists_tables = names.iter().any(|name| name.schema() == Some("information_schema"))
            || statement.to_string().to_ascii_uppercase().starts_with("SHOW");
        match lists_tables {
            true => self.register_all(session).await,
            false => self.register_named(session, &names).await,
        }
    }

    async fn register_all(&self, session: &SessionContext) -> Result<()> {
        for name in self.side.iter().flat_map(|side| side.names()) {
            self.register_side(session, name)?;
        }
        for view in &self.views {
            self.register_view(session, view).await?;
        }
        Ok(())
    }

    async fn register_named(&self, session: &SessionContext, names: &[TableReference]) -> Result<()> {
        let named = |other: &str| names.iter().any(|name| name.table() == other);
        for name in self.side.iter().flat_map(|side| side.names()).filter(|name| named(name)) {
            self.register_side(session, name)?;
        }
        for view in self.views.iter().filter(|view| named(view.name)) {
            self.register_view(session, view).await?;
        }
        Ok(())
    }

    fn register_side(&self, session: &SessionContext, name: &str) -> Result<()> {
        let Some(side) = &self.side else { return Ok(()) };
        if session.table_exist(name).unwrap_or(false) {
            return Ok(());
        }
        let rows: RecordBatch = side.rows(name)?;
        let wrong = |cause| Error::internal(format!("table `{name}` cannot be made")).with_source(cause);
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(wrong)?;
        session.register_table(name, Arc::new(table)).map_err(wrong)?;
        Ok(())
    }

    /// Plans one view, after the tables and views that it reads. Where one of them does not exist, nor does the view.
    async fn register_view(&self, session: &SessionContext, view: &NamedView) -> Result<()> {
        if session.table_exist(view.name).unwrap_or(false) {
            return Ok(());
        }
        let wrong = |cause| Error::internal(format!("view `{}` cannot be planned", view.name)).with_source(cause);
        let state = session.state();
        let statement = parse(&state, view.sql).map_err(wrong)?;
        let names = state.resolve_table_references(&statement).map_err(wrong)?;
        Box::pin(self.register_named(session, &names)).await?;
        if !names.iter().all(|name| session.table_exist(name.clone()).unwrap_or(false)) {
            return Ok(());
        }
        let plan =
            state.statement_to_plan(statement).await.and_then(|plan| plan.with_param_values(view.params.clone()));
        let table = ViewTable::new(plan.map_err(wrong)?, Some(view.sql.to_owned()));
        session.register_table(view.name, Arc::new(table)).map_err(wrong)?;
        Ok(())
    }
}

/// Bytes that a sort keeps back for its merge: DataFusion's 10 MiB where there is memory for many of them.
fn sort_reserve(memory: u64) -> usize {
    usize::try_from(memory / 32).unwrap_or(usize::MAX).clamp(256 << 10, 10 << 20)
}

/// The session that every query's session is copied from.
pub(super) fn base_session(config: &Config, store: &Store) -> Result<SessionState> {
    // Each statement gets memory and disk space of its own.
    let runtime = RuntimeEnvBuilder::new()
        .with_metadata_cache_limit(usize::try_from(config.cache_bytes).unwrap_or(usize::MAX))
        .build_arc()
        .map_err(query_failed)?;
    let url = ObjectStoreUrl::parse(STORE_URL).map_err(query_failed)?;
    runtime.register_object_store(url.as_ref(), Arc::clone(store.object_store()));
    let threads = threads(config);
    let mut settings = SessionConfig::new()
        .with_target_partitions(threads)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = settings.options_mut();
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    options.execution.time_zone = Some("UTC".to_owned());
    // Each sort keeps so much back for the merge of what it spilled.
    options.execution.sort_spill_reservation_bytes =
        sort_reserve(config.export_memory_bytes.min(config.query_memory_bytes));
    // Its bound is lost when one of several partitions has seen nulls only, and then rows are left out that hold the minimum.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // It refuses `select distinct a in (…) is not true`, since two stages disagree on whether that may be null.
    options.execution.skip_physical_aggregate_schema_check = true;
    // It gives two columns one name where a statement that joins reads parts of columns, and refuses the statement.
    options.optimizer.enable_leaf_expression_pushdown = false;
    let mut steps = PhysicalOptimizer::new().rules;
    fence::insert(&mut steps);
    let mut state = SessionStateBuilder::new()
        .with_config(settings)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rules(steps)
        .with_physical_optimizer_rule(Arc::new(barrier::Seal))
        .with_physical_optimizer_rule(Arc::new(yielding::YieldAboveJoins))
        .build();
    datafusion_functions_json::register_all(&mut state).map_err(query_failed)?;
    state.register_udf(model::function()).map_err(query_failed)?;
    state.register_udf(like::like_pattern()).map_err(query_failed)?;
    for name in UNBOUNDED {
        state.deregister_udf(name).map_err(query_failed)?;
    }
    Ok(state)
}
