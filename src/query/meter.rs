//! Limits of time and memory of a running query, for code that DataFusion calls.
//!
//! DataFusion can end a query only where a task yields. Rules of the planner and functions over a
//! batch do not yield, so they check the meter of their query, which is part of the session's
//! options.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::DataFusionError;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use tokio::time::Instant;

/// Meter of one query. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deadline: Option<Instant>,
    called_off: AtomicBool,
    pool: Arc<dyn MemoryPool>,
    /// Memory of constants, which the plan holds until the query ends.
    constants: Mutex<Vec<MemoryReservation>>,
}

/// Error of a query that has passed its deadline or was cancelled by its reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct CalledOff;

/// Cancels the query when it is dropped.
#[derive(Debug)]
pub(super) struct CallOff(Meter);

impl Meter {
    pub(super) fn new(deadline: Option<Instant>, pool: Arc<dyn MemoryPool>) -> Self {
        let constants = Mutex::default();
        Self(Arc::new(Inner { deadline, called_off: AtomicBool::new(false), pool, constants }))
    }

    /// Returns the meter of the query that these options belong to.
    pub(super) fn from_options(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }

    /// Returns an error if the query should end.
    pub(super) fn check(&self) -> Result<()> {
        let overdue = self.0.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if overdue || self.0.called_off.load(Ordering::Relaxed) {
            Err(DataFusionError::External(Box::new(CalledOff)))
        } else {
            Ok(())
        }
    }

    /// Reserves memory of the pool of all queries.
    pub(super) fn reserve(&self, bytes: usize) -> Result<MemoryReservation> {
        let reservation = MemoryConsumer::new("results of functions").register(&self.0.pool);
        reservation.try_grow(bytes)?;
        Ok(reservation)
    }

    /// Holds memory until the query has ended.
    pub(super) fn keep(&self, memory: MemoryReservation) {
        self.0.constants.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }

    /// Returns a guard that cancels the query when it is dropped.
    pub(super) fn call_off(&self) -> CallOff {
        CallOff(self.clone())
    }
}

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.0.called_off.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Display for CalledOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the query was cancelled")
    }
}

impl std::error::Error for CalledOff {}

impl ConfigExtension for Meter {
    const PREFIX: &'static str = "gatelog_meter";
}

impl ExtensionOptions for Meter {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    /// Shares the meter: it is not an option, and its state must not be copied.
    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("`{key}` cannot be set")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// Checks the deadline between two rules of the planner.
#[derive(Debug)]
struct Checkpoint;

impl Checkpoint {
    fn pass(options: &ConfigOptions) -> Result<()> {
        Meter::from_options(options).map_or(Ok(()), Meter::check)
    }
}

impl OptimizerRule for Checkpoint {
    fn name(&self) -> &'static str {
        "deadline"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        Self::pass(&config.options())?;
        Ok(Transformed::no(plan))
    }
}

impl PhysicalOptimizerRule for Checkpoint {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Self::pass(options)?;
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "deadline"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Adds a check of the deadline before each rule of the optimizer.
pub(super) fn between_rules(
    rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let with_check = |rule| [Arc::new(Checkpoint) as Arc<dyn OptimizerRule + Send + Sync>, rule];
    rules.into_iter().flat_map(with_check).collect()
}

/// Adds a check of the deadline before each rule of the physical optimizer.
pub(super) fn between_steps(
    rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let with_check =
        |rule| [Arc::new(Checkpoint) as Arc<dyn PhysicalOptimizerRule + Send + Sync>, rule];
    rules.into_iter().flat_map(with_check).collect()
}
