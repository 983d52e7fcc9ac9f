//! Sessions of statements: `logs`, and the views and system tables that a statement names. Refuses
//! statements that are not read-only.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
};
use datafusion::catalog::{MemTable, SchemaProvider};
use datafusion::common::{DataFusionError, ParamValues, TableReference};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use object_store::ObjectStore;
use tokio::runtime::Handle;

use super::elsewhere::ReadElsewhere;
use super::failure::query_failed;
use super::meter::{self, Meter};
use super::naming::Names;
use super::provider::StoredTable;
use super::query_threads::threads;
use super::reading::STORE_URL;
use super::wide::{Wide, reads_messages};
use super::withhold::{Reads, Withheld};
use super::workarounds::{self, Workaround, is_off};
use super::{
    compact, context, cooperative_joins, correlated, distinct, fence, filter_names,
    filter_projections, frugal, functions, grouping_sets, in_lists, known, like, literal_sides,
    model, nearest, negated, plan_size, sanity, security_barrier, sort_constants, sort_filters,
    statement,
};
use super::{success, sum, tags, totals, whole_order, withhold};
use crate::catalog::Denied;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Store;

/// Name of the catalog and of its schema.
const CATALOG: &str = "gatelog";
const SCHEMA: &str = "public";

/// A named query that SQL may use as a view.
#[derive(Clone, Debug)]
pub(crate) struct NamedView {
    /// Name of the view.
    pub name: &'static str,
    /// SQL text, without an order of rows: a view that sorts makes every query over it sort.
    pub sql: &'static str,
    /// Values of its parameters as a view.
    pub params: ParamValues,
}

/// Tables and permissions of the statements of one session.
#[derive(Debug)]
pub(super) struct SessionTables {
    pub(super) views: Vec<NamedView>,
    pub(super) side: Option<Arc<dyn context::SystemTables>>,
    /// True if the session is bound to an organisation. It then must not see how files of others
    /// are read.
    pub(super) bound: bool,
    /// Limits of a statement that reads bodies.
    pub(super) wide: Wide,
    /// Fields that are denied to the session. `None` if nothing at all is withheld from it.
    pub(super) denied: Option<Denied>,
    /// Author of the statement.
    pub(super) reads: Reads,
}

/// A running statement.
pub(super) struct Started {
    pub(super) rows: SendableRecordBatchStream,
    /// Withheld columns of the answer.
    pub(super) withheld: Withheld,
}

/// Creates a session with just these tables and the memory of the base session.
#[cfg(test)]
pub(super) fn session(
    base: &SessionState,
    tables: Vec<StoredTable>,
    batch_rows: Option<usize>,
    meter: Option<Meter>,
) -> SessionContext {
    session_in(base, tables, batch_rows, meter, Arc::clone(base.runtime_env()))
}

/// Creates a session with just these tables and its own memory and disk space.
pub(super) fn session_in(
    base: &SessionState,
    tables: Vec<StoredTable>,
    batch_rows: Option<usize>,
    meter: Option<Meter>,
    runtime: Arc<RuntimeEnv>,
) -> SessionContext {
    let schema = Arc::new(MemorySchemaProvider::new());
    // No registration can fail: a new provider has no tables.
    for table in tables {
        let _ = schema.register_table(table.rows().table().to_owned(), Arc::new(table));
    }
    let catalog = Arc::new(MemoryCatalogProvider::new());
    let _ = catalog.register_schema(SCHEMA, schema);
    let mut config = base.config().clone();
    if let Some(rows) = batch_rows {
        config = config.with_batch_size(rows);
    }
    if let Some(meter) = meter {
        config = config.with_option_extension(meter);
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

/// Error of a statement that writes.
const READ_ONLY: &str = "SQL here is read-only: send a query, EXPLAIN, SHOW or DESCRIBE";

/// Parses a statement or view. Every one of them is parsed here.
pub(super) fn parse(
    state: &SessionState,
    text: &str,
) -> datafusion::error::Result<(Statement, Names)> {
    statement::parse(text, state.config().options().sql_parser.recursion_limit.get())
}

/// Plans a statement and starts it; one that is frugal saves memory at the expense of time.
pub(super) async fn start(
    session: &SessionContext,
    around: &SessionTables,
    text: &str,
    params: ParamValues,
    is_frugal: bool,
) -> Result<Started> {
    let (mut statement, names) = parse(&session.state(), text).map_err(query_failed)?;
    if !statement::only_reads(&statement) {
        return Err(Error::invalid(READ_ONLY));
    }
    success::cast(&mut statement, &params);
    around.register(session, &statement).await?;
    let plan = session.state().statement_to_plan(statement).await;
    let plan = plan.map_err(|cause| {
        no_table(&cause, session, around).unwrap_or_else(|| query_failed(cause))
    })?;
    plan_size::check(&plan).map_err(query_failed)?;
    allowed(&plan, around.bound)?;
    let plan = names
        .give(plan)
        .and_then(|plan| plan.with_param_values(params))
        .and_then(runnable)
        .map_err(query_failed)?;
    let withheld = match &around.denied {
        Some(denied) => withhold::check(&plan, around.reads, denied)?,
        None => Withheld::default(),
    };
    let rows = run(session, plan, around.wide, is_frugal).await.map_err(query_failed)?;
    Ok(Started { rows, withheld })
}

/// Rewrites the steps of a plan that DataFusion does not run.
pub(super) fn runnable(plan: LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
    let plan = if is_off(Workaround::Correlated) { plan } else { correlated::move_below(plan)? };
    if is_off(Workaround::SortConstants) { Ok(plan) } else { sort_constants::restore(plan) }
}

/// Returns the error for a missing table. `None` for any other error.
fn no_table(
    cause: &DataFusionError,
    session: &SessionContext,
    around: &SessionTables,
) -> Option<Error> {
    let DataFusionError::Plan(text) = cause.find_root() else { return None };
    let wanted = text.strip_prefix("table '")?.strip_suffix("' not found")?;
    let wanted = wanted.strip_prefix("gatelog.public.").unwrap_or(wanted);
    let tables = session.catalog(CATALOG).and_then(|catalog| catalog.schema(SCHEMA))?.table_names();
    let beside = around.side.iter().flat_map(|side| side.names()).copied();
    let known: Vec<&str> = tables
        .iter()
        .map(String::as_str)
        .chain(around.views.iter().map(|view| view.name))
        .chain(beside)
        .collect();
    let near = nearest::suggestion(wanted, &known);
    Some(Error::invalid(format!("the query cannot be run: there is no table `{wanted}`{near}")))
}

/// Runs a plan, with batches sized for its constants and the bodies that it reads.
async fn run(
    session: &SessionContext,
    plan: LogicalPlan,
    wide: Wide,
    is_frugal: bool,
) -> datafusion::error::Result<SendableRecordBatchStream> {
    let (mut state, plan) = session.execute_logical_plan(plan).await?.into_parts();
    let plan = state.optimize(&plan)?;
    let mut rows = plan_size::batch_rows(&plan, state.config().batch_size())?;
    let is_wide = reads_messages(&plan)?;
    if is_wide {
        rows = rows.min(wide.rows);
        session.runtime_env().disk_manager.set_max_spill_merge_fan_in(wide.merged);
    }
    let mut config = state.config().clone().with_batch_size(rows);
    if is_wide {
        // A sort that joins its batches into one cuts that again, and counts all of it for each
        // part.
        config = config.with_sort_in_place_threshold_bytes(0);
        // Both sides of a partitioned join wait for each other when one of them spills: the
        // statement stops without an error.
        config.options_mut().optimizer.repartition_joins = false;
    }
    if fence::skips_rows(&plan)? {
        // The order of rows above an OFFSET is that of one partition: nothing merges several.
        config = config.with_round_robin_repartition(false);
    }
    if is_frugal {
        config = frugal::settings(config);
    }
    *state.config_mut() = config;
    let planner = Arc::clone(state.query_planner());
    let mut plan = planner.create_physical_plan(&plan, &state).await?;
    if is_frugal {
        plan = frugal::without_top_rows(plan)?;
    }
    if is_wide {
        plan = compact::insert(plan)?;
    }
    execute_stream(plan, state.task_ctx())
}

/// Returns an error for everything but a query, EXPLAIN, SHOW and DESCRIBE. A session that is bound
/// to an organisation may only use plain EXPLAIN, since its other forms reveal files with rows of
/// others.
fn allowed(plan: &LogicalPlan, bound: bool) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| Error::invalid(READ_ONLY))?;
    let telling = match plan {
        LogicalPlan::Analyze(_) => true,
        LogicalPlan::Explain(explain) => explain.verbose,
        _ => false,
    };
    if bound && telling {
        Err(Error::denied(
            "EXPLAIN ANALYZE and EXPLAIN VERBOSE reveal files that other organisations share; use plain EXPLAIN",
        ))
    } else {
        Ok(())
    }
}

impl SessionTables {
    /// Registers the tables and views that a statement names. Planning all views for each query
    /// would cost more than most queries do.
    async fn register(&self, session: &SessionContext, statement: &Statement) -> Result<()> {
        let state = session.state();
        let names = state.resolve_table_references(statement).map_err(query_failed)?;
        let lists_tables = names.iter().any(|name| name.schema() == Some("information_schema"))
            || statement.to_string().to_ascii_uppercase().starts_with("SHOW");
        if lists_tables {
            self.register_all(session).await
        } else {
            self.register_named(session, &names).await
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

    async fn register_named(
        &self,
        session: &SessionContext,
        names: &[TableReference],
    ) -> Result<()> {
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
        let wrong =
            |cause| Error::internal(format!("table `{name}` cannot be built")).with_source(cause);
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(wrong)?;
        session.register_table(name, Arc::new(table)).map_err(wrong)?;
        Ok(())
    }

    /// Plans one view, after the tables and views that it reads. If one of them does not exist, the
    /// view is not registered.
    async fn register_view(&self, session: &SessionContext, view: &NamedView) -> Result<()> {
        if session.table_exist(view.name).unwrap_or(false) {
            return Ok(());
        }
        let wrong = |cause| {
            Error::internal(format!("view `{}` cannot be planned", view.name)).with_source(cause)
        };
        let state = session.state();
        let (statement, _) = parse(&state, view.sql).map_err(wrong)?;
        let names = state.resolve_table_references(&statement).map_err(wrong)?;
        Box::pin(self.register_named(session, &names)).await?;
        if !names.iter().all(|name| session.table_exist(name.clone()).unwrap_or(false)) {
            return Ok(());
        }
        let plan = state
            .statement_to_plan(statement)
            .await
            .and_then(|plan| plan.with_param_values(view.params.clone()));
        let table = ViewTable::new(plan.map_err(wrong)?, Some(view.sql.to_owned()));
        session.register_table(view.name, Arc::new(table)).map_err(wrong)?;
        Ok(())
    }
}

/// Returns the bytes that a sort reserves for its merge: DataFusion's 10 MiB if there is memory for
/// many of them.
fn sort_reserve(memory: u64) -> usize {
    usize::try_from(memory / 32).unwrap_or(usize::MAX).clamp(256 << 10, 10 << 20)
}

/// Creates the session that every query's session is copied from.
pub(super) fn base_session(config: &Config, store: &Store, work: &Handle) -> Result<SessionState> {
    workarounds::check()?;
    // Each statement has its own memory and disk space.
    let runtime = RuntimeEnvBuilder::new()
        .with_metadata_cache_limit(usize::try_from(config.cache_bytes).unwrap_or(usize::MAX))
        .build_arc()
        .map_err(query_failed)?;
    let url = ObjectStoreUrl::parse(STORE_URL).map_err(query_failed)?;
    let files: Arc<dyn ObjectStore> = if store.is_shared() {
        Arc::new(ReadElsewhere::new(Arc::clone(store.object_store()), work.clone()))
    } else {
        Arc::clone(store.object_store())
    };
    runtime.register_object_store(url.as_ref(), files);
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
    // Each sort reserves this much for the merge of its spilled runs.
    options.execution.sort_spill_reservation_bytes =
        sort_reserve(config.export_memory_bytes.min(config.query_memory_bytes));
    // The bound is lost if one of several partitions has seen only nulls, and then rows that hold
    // the minimum are skipped.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown =
        is_off(Workaround::AggregateBounds);
    // It refuses `select distinct a in (…) is not true`, since two stages disagree on whether that
    // may be null.
    options.execution.skip_physical_aggregate_schema_check = !is_off(Workaround::AggregateSchemas);
    // It gives two columns the same name if a statement with a join reads parts of columns, and
    // then refuses the statement.
    options.optimizer.enable_leaf_expression_pushdown = is_off(Workaround::LeafPushdown);
    let mut state = SessionStateBuilder::new()
        .with_config(settings)
        .with_runtime_env(runtime)
        // It precedes DataFusion's planners, the first of which accepts any name.
        .with_expr_planners(vec![Arc::new(tags::TagLists)])
        .with_default_features()
        .with_optimizer_rules(meter::between_rules(logical_rules()))
        .with_physical_optimizer_rules(meter::between_steps(physical_rules()))
        .with_physical_optimizer_rule(Arc::new(security_barrier::Seal))
        .with_physical_optimizer_rule(Arc::new(cooperative_joins::YieldAboveJoins))
        .build();
    datafusion_functions_json::register_all(&mut state).map_err(query_failed)?;
    state.register_udf(model::function()).map_err(query_failed)?;
    state.register_udaf(distinct::function()).map_err(query_failed)?;
    state.register_udaf(sum::function()).map_err(query_failed)?;
    state.register_udf(like::like_pattern()).map_err(query_failed)?;
    functions::bound(&mut state).map_err(query_failed)?;
    Ok(state)
}

/// Returns the rules that rewrite a statement's logical plan.
fn logical_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    if !is_off(Workaround::Totals) {
        totals::insert(&mut rules);
    }
    if !is_off(Workaround::InLists) {
        in_lists::wrap(&mut rules);
    }
    if !is_off(Workaround::LiteralSides) {
        literal_sides::wrap(&mut rules);
    }
    if !is_off(Workaround::Negated) {
        negated::insert(&mut rules);
    }
    rules
}

/// Returns the rules that rewrite a statement's physical plan.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    if !is_off(Workaround::Fence) {
        fence::insert(&mut rules);
    }
    frugal::insert(&mut rules);
    if !is_off(Workaround::SortFilters) {
        sort_filters::insert(&mut rules);
    }
    if !is_off(Workaround::FilterNames) {
        filter_names::wrap(&mut rules);
    }
    if !is_off(Workaround::FilterProjections) {
        filter_projections::wrap(&mut rules);
    }
    if !is_off(Workaround::Known) {
        known::insert(&mut rules);
    }
    if !is_off(Workaround::Sanity) {
        sanity::insert(&mut rules);
    }
    if !is_off(Workaround::WholeOrder) {
        rules.push(Arc::new(whole_order::WholeOrder));
    }
    if !is_off(Workaround::GroupingSets) {
        grouping_sets::insert(&mut rules);
    }
    rules
}
