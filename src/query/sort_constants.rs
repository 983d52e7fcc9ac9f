//! Keeps constants in sort keys.
//!
//! DataFusion takes every part of a key in ORDER BY that is also a column of the SELECT for that
//! column, even a constant: in `select 0 as n … order by json_get_int(body, 'l', 0)` the 0 becomes
//! `n`. It then refuses functions that take a constant there.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Projection};

/// Writes the constants of all sort keys of a plan again.
pub(super) fn restore(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|step| {
        let LogicalPlan::Sort(mut sort) = step else { return Ok(Transformed::no(step)) };
        let Some(select) = select(&sort.input) else {
            return Ok(Transformed::no(LogicalPlan::Sort(sort)));
        };
        let mut changed = false;
        for key in &mut sort.expr {
            let written = key.expr.clone().transform_up(|part| {
                let constant = part.try_as_col().and_then(|column| constant(column, select));
                Ok(constant.map_or_else(|| Transformed::no(part), Transformed::yes))
            })?;
            // A key that is a constant as a whole stays a column.
            if written.transformed && written.data.any_column_refs() {
                changed = true;
                key.expr = written.data;
            }
        }
        Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), changed))
    })
    .data()
}

/// Returns the SELECT below a sort.
fn select(input: &LogicalPlan) -> Option<&Projection> {
    match input {
        LogicalPlan::Projection(select) => Some(select),
        LogicalPlan::Distinct(Distinct::All(input)) => select(input),
        _ => None,
    }
}

/// Returns the constant that a column of a SELECT is.
fn constant(column: &Column, select: &Projection) -> Option<Expr> {
    let item = select.expr.get(select.schema.maybe_index_of_column(column)?)?;
    let is_constant = |item: &Expr| {
        !item
            .exists(|part| {
                Ok(!matches!(
                    part,
                    Expr::Literal(..)
                        | Expr::Alias(_)
                        | Expr::Cast(_)
                        | Expr::TryCast(_)
                        | Expr::Negative(_)
                        | Expr::BinaryExpr(_)
                ))
            })
            .unwrap_or(true)
    };
    is_constant(item).then(|| item.clone().unalias())
}
