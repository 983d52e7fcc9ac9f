//! Writes the constant of a comparison on the right.
//!
//! DataFusion drops comparisons of a column that others imply. It takes `a = 1` and `1 = a` for
//! different values, so that no row is left, and keeps `a >= 1` of `a >= 1 and 1 < a`. It mostly
//! writes constants on the right before, but neither where it makes an equality of `1 between a and
//! a`, nor in the condition of a join.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan};
use datafusion::optimizer::OptimizerConfig;

use super::wrapped_rule::{LogicalRule, wrap_logical};

/// Name of the rule that drops comparisons.
const DROPS_COMPARISONS: &str = "push_down_filter";

/// Wraps DataFusion's rule.
pub(super) fn wrap(rules: &mut [LogicalRule]) {
    wrap_logical(rules, DROPS_COMPARISONS, turn_first);
}

/// Writes constants on the right before the rule runs.
fn turn_first(
    rule: &LogicalRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    // The rule joins a filter with the one below it.
    let written = plan.transform_down(|step| {
        let LogicalPlan::Filter(mut filter) = step else {
            return Ok(Transformed::new(step, false, TreeNodeRecursion::Jump));
        };
        let predicate = filter.predicate.transform_up(|part| Ok(turned(part)))?;
        filter.predicate = predicate.data;
        let turned = predicate.transformed;
        Ok(Transformed::new(LogicalPlan::Filter(filter), turned, TreeNodeRecursion::Continue))
    })?;
    let turned = written.transformed;
    let moved = rule.rewrite(written.data, config)?;
    Ok(Transformed::new(moved.data, moved.transformed || turned, moved.tnr))
}

/// Swaps the sides of `1 < a`.
fn turned(expr: Expr) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Transformed::no(expr);
    };
    match (left.as_ref(), right.as_ref(), op.swap()) {
        (Expr::Literal(..), Expr::Column(_), Some(op)) => {
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(right, op, left)))
        }
        _ => Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, op, right))),
    }
}
