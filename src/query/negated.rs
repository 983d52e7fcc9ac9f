//! Writes a cast of `not a` to a number as a CASE.
//!
//! To skip parts of files by their bounds, DataFusion rewrites `cast(not a as bigint) = 1` as
//! `cast(a as bigint) = not 1`, which has no type: a debug build panics, and a release build skips
//! nothing.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Case, Cast, Expr, LogicalPlan, TryCast, lit, not};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Name of the rule that computes an expression once that a step has twice.
const COMPUTES_ONCE: &str = "common_sub_expression_eliminate";

/// The optimizer rule. It must be the last one, since others rewrite `a = false` as `not a`. It
/// must also run before a `not a` that is in the step twice becomes a column, which is `not a`
/// again in the plan of a scan.
#[derive(Debug)]
struct CastsOfNegations;

/// Inserts the rule.
pub(super) fn insert(rules: &mut Vec<Arc<dyn OptimizerRule + Send + Sync>>) {
    let place = rules.iter().position(|rule| rule.name() == COMPUTES_ONCE).unwrap_or(rules.len());
    rules.insert(place, Arc::new(CastsOfNegations));
    rules.push(Arc::new(CastsOfNegations));
}

impl OptimizerRule for CastsOfNegations {
    fn name(&self) -> &'static str {
        "casts_of_negations"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let written = expr.transform_up(|expr| {
                Ok(match as_case(&expr) {
                    Some(case) => Transformed::yes(case),
                    None => Transformed::no(expr),
                })
            })?;
            Ok(written.update_data(|expr| name.restore(expr)))
        })
    }
}

/// Returns `case when a then 0 when not a then 1 end` for `cast(not a as …)`. `None` for any other
/// expression.
fn as_case(expr: &Expr) -> Option<Expr> {
    let (Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })) = expr else {
        return None;
    };
    let Expr::Not(negated) = expr.as_ref() else { return None };
    if !field.data_type().is_numeric() || negated.is_volatile() {
        return None;
    }
    let value = |value: bool| ScalarValue::from(value).cast_to(field.data_type()).ok().map(lit);
    let branches =
        [(negated.as_ref().clone(), value(false)?), (not(negated.as_ref().clone()), value(true)?)];
    let branches = branches.map(|(when, then)| (Box::new(when), Box::new(then)));
    Some(Expr::Case(Case::new(None, branches.into(), None)))
}
