//! Wraps rules of DataFusion's optimizers, to correct a plan before or after a rule runs.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

pub(super) type LogicalRule = Arc<dyn OptimizerRule + Send + Sync>;
pub(super) type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

type RewriteLogical =
    fn(&LogicalRule, LogicalPlan, &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>>;
type RewritePhysical =
    fn(&PhysicalRule, Arc<dyn ExecutionPlan>, &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>>;

/// A rule, and the function that is called instead and that may call the rule.
#[derive(Debug)]
struct Wrapped<R, F> {
    rule: R,
    rewrite: F,
}

/// Calls `rewrite` instead of the logical rule of that name.
pub(super) fn wrap_logical(rules: &mut [LogicalRule], name: &str, rewrite: RewriteLogical) {
    for rule in rules.iter_mut().filter(|rule| rule.name() == name) {
        *rule = Arc::new(Wrapped { rule: Arc::clone(rule), rewrite });
    }
}

/// Calls `rewrite` instead of the physical rule of that name.
pub(super) fn wrap_physical(rules: &mut [PhysicalRule], name: &str, rewrite: RewritePhysical) {
    for rule in rules.iter_mut().filter(|rule| rule.name() == name) {
        *rule = Arc::new(Wrapped { rule: Arc::clone(rule), rewrite });
    }
}

impl OptimizerRule for Wrapped<LogicalRule, RewriteLogical> {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        (self.rewrite)(&self.rule, plan, config)
    }
}

impl PhysicalOptimizerRule for Wrapped<PhysicalRule, RewritePhysical> {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        (self.rewrite)(&self.rule, plan, options)
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}
