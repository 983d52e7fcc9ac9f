//! Keeps lists apart that DataFusion merges wrongly.
//!
//! DataFusion's simplifier merges two lists of one expression: `a in (1, 2) and a in (2, 3)`
//! becomes `a in (2)`. If no value is left, it writes `false` or `true`, although the answer for a
//! null `a` is null. It drops a null of one list, as in `a not in (null) or a not in (1)`, and
//! takes two columns for different values, as in `a in (b) and a in (c)`. Here a cast to boolean,
//! which the simplifier leaves alone, hides such lists until it is done.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, LogicalPlan, Operator};
use datafusion::optimizer::OptimizerConfig;

use super::wrapped_rule::{LogicalRule, wrap_logical};

/// Name of the rule that merges lists.
const MERGES_LISTS: &str = "simplify_expressions";

/// Type of the casts that hide lists, which their field's name tells from others.
static HIDDEN: LazyLock<FieldRef> =
    LazyLock::new(|| Arc::new(Field::new("__hidden_list", DataType::Boolean, true)));

/// Wraps DataFusion's rule.
pub(super) fn wrap(rules: &mut [LogicalRule]) {
    wrap_logical(rules, MERGES_LISTS, hide_lists);
}

/// Hides lists from the rule.
fn hide_lists(
    rule: &LogicalRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&plan);
    let hidden = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let written = expr.rewrite(&mut Hider)?;
        // The FILTER of an aggregate names casts.
        Ok(written.update_data(|expr| name.restore(expr)))
    })?;
    if !hidden.transformed {
        return rule.rewrite(hidden.data, config);
    }
    let simplified = rule.rewrite(hidden.data, config)?;
    let changed = simplified.transformed;
    let shown = simplified.data.map_expressions(|expr| expr.transform_up(show))?;
    Ok(Transformed::new_transformed(shown.data, changed))
}

/// Hides the operands of AND and OR that may be or become lists of one expression.
struct Hider;

impl TreeNodeRewriter for Hider {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let Some(operator) = connective(&expr) else { return Ok(Transformed::no(expr)) };
        let share = lists_share_columns(&expr, operator)?;
        let written = expr.transform_down(|part| {
            if connective(&part) == Some(operator) {
                return Ok(Transformed::no(part));
            }
            let part = part.rewrite(self)?;
            let part = if share { part.transform_data(|part| hide(part, operator))? } else { part };
            Ok(Transformed::new(part.data, part.transformed, TreeNodeRecursion::Jump))
        })?;
        Ok(Transformed::new(written.data, written.transformed, TreeNodeRecursion::Jump))
    }
}

/// Returns the operator of an AND or OR.
fn connective(expr: &Expr) -> Option<Operator> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => Some(*op),
        _ => None,
    }
}

/// Returns true if two operands that may become lists have a column in common.
fn lists_share_columns(expr: &Expr, operator: Operator) -> Result<bool> {
    let mut seen: HashSet<&Column> = HashSet::new();
    let mut share = false;
    expr.apply(|part| {
        if connective(part) == Some(operator) {
            return Ok(TreeNodeRecursion::Continue);
        }
        if may_be_list(part)? {
            let columns = columns(part)?;
            share |= columns.iter().any(|column| seen.contains(column));
            seen.extend(columns);
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(share)
}

/// Returns true if the simplifier may make a list of an expression: `not (a <> 1 and a <> 2)`.
fn may_be_list(expr: &Expr) -> Result<bool> {
    expr.exists(|part| {
        Ok(matches!(part, Expr::InList(_) | Expr::Not(_) | Expr::Case(_))
            || connective(part).is_some())
    })
}

/// Returns the columns of an expression, also those of outer queries.
fn columns(expr: &Expr) -> Result<HashSet<&Column>> {
    let mut columns = HashSet::new();
    expr.apply(|part| {
        if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = part {
            columns.insert(column);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(columns)
}

/// Hides an operand, or the operands of an AND within an OR, whose common parts the simplifier
/// takes out.
fn hide(expr: Expr, around: Operator) -> Result<Transformed<Expr>> {
    match (connective(&expr), around) {
        (Some(Operator::And), Operator::Or) => expr.transform_down(|part| {
            if connective(&part) == Some(Operator::And) {
                return Ok(Transformed::no(part));
            }
            let part = hide(part, Operator::And)?;
            Ok(Transformed::new(part.data, part.transformed, TreeNodeRecursion::Jump))
        }),
        _ if is_hidden(&expr) || !may_be_list(&expr)? => Ok(Transformed::no(expr)),
        _ => Ok(Transformed::yes(Expr::Cast(Cast::new_from_field(
            Box::new(expr),
            Arc::clone(&HIDDEN),
        )))),
    }
}

fn is_hidden(expr: &Expr) -> bool {
    matches!(expr, Expr::Cast(Cast { field, .. }) if field.name() == HIDDEN.name())
}

/// Removes a cast that hides a list.
fn show(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr, field }) if field.name() == HIDDEN.name() => {
            Ok(Transformed::yes(*expr))
        }
        other => Ok(Transformed::no(other)),
    }
}
