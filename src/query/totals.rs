//! Keeps conditions above an aggregate that returns a row even for an empty input.
//!
//! DataFusion moves a condition below an aggregate if its columns are group keys, and a condition
//! without columns qualifies. So `select count(*) from t having 1 = (select max(a) from u)`
//! returned a row for any `a`: an aggregate without keys, or one with grouping sets, has a row for
//! an empty input.

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::optimizer::OptimizerConfig;

use super::wrapped_rule::{LogicalRule, wrap_logical};

/// Name of the rule that moves conditions.
const MOVES_CONDITIONS: &str = "push_down_filter";

/// Wraps DataFusion's rule.
pub(super) fn insert(rules: &mut [LogicalRule]) {
    wrap_logical(rules, MOVES_CONDITIONS, skip_totals);
}

/// Skips the rule where a condition is above a total.
fn skip_totals(
    rule: &LogicalRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    if is_above_total(&plan) { Ok(Transformed::no(plan)) } else { rule.rewrite(plan, config) }
}

/// Returns true if a plan is a filter of an aggregate that has a row for an empty input. A
/// condition on its output columns could not move in any case.
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
