//! Keeps conditions above an aggregate that gives a row even where it reads none.
//!
//! DataFusion moves a condition below an aggregate if its columns are keys of the groups, and a
//! condition without columns is one of these. So `select count(*) from t having 1 = (select max(a)
//! from u)` gave a row whatever `a` is: an aggregate without keys, or one with grouping sets, has a
//! row for no rows.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The name of the rule that moves conditions.
const MOVES_CONDITIONS: &str = "push_down_filter";

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// The rule, around DataFusion's.
#[derive(Debug)]
struct AboveTotals(Rule);

/// Puts the rule in the place of DataFusion's.
pub(super) fn insert(rules: &mut [Rule]) {
    for rule in rules.iter_mut().filter(|rule| rule.name() == MOVES_CONDITIONS) {
        *rule = Arc::new(AboveTotals(Arc::clone(rule)));
    }
}

impl OptimizerRule for AboveTotals {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match is_above_total(&plan) {
            true => Ok(Transformed::no(plan)),
            false => self.0.rewrite(plan, config),
        }
    }
}

/// Returns whether a plan is a filter of an aggregate that has a row for no rows. None of the
/// columns that it gives are such that a condition on them could move.
fn is_above_total(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(filter) = plan else { return false };
    match filter.input.as_ref() {
        LogicalPlan::Aggregate(Aggregate { group_expr, .. }) => {
            group_expr.is_empty()
                || group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_)))
        }
        below => is_above_total(below),
    }
}
