//! Implements `IN (SELECT …)` and `NOT IN (SELECT …)` with three values: true, false and null.
//!
//! DataFusion replaces null by false, which is correct only in a condition of a filter. So `(a in
//! (select b …)) is null` is false for every row, and `1 not in (select b …)` is true although one
//! `b` is null. Wherever the difference matters, `a in (select b from t)` is rewritten, and `not
//! in` with true and false exchanged:
//!
//! ```sql
//! case when a in (select b from t) then true
//!      when a is null and exists (select b from t) or exists (select b from t where b is null) then null
//!      else false end
//! ```

use std::ops::ControlFlow;

use datafusion::common::{plan_datafusion_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, TableFactor,
    Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::dialect::PostgresPrecedence;

/// Maximum number of rewrites in one statement: each results in three subqueries.
const MAX: usize = 32;
/// Rows of a subquery that are null, if its own condition cannot select them.
const NULLS: &str = "select 1 from (select 1) as __in_query (__in_value) where __in_value is null";

/// Rewrites the memberships of one statement.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    rewritten: usize,
}

impl Memberships {
    /// Rewrites the conditions of one SELECT, but not of those within it.
    pub(super) fn rewrite(&mut self, select: &mut Select) -> Result<()> {
        for condition in [&mut select.selection, &mut select.having].into_iter().flatten() {
            self.condition(condition, true)?;
        }
        Ok(())
    }

    /// Rewrites a part of a condition. `top` is true if every row has to fulfil it.
    fn condition(&mut self, expr: &mut Expr, top: bool) -> Result<()> {
        match expr {
            Expr::Nested(inner) => self.condition(inner, top),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.condition(left, top)?;
                self.condition(right, top)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                self.condition(left, false)?;
                self.condition(right, false)
            }
            Expr::InSubquery { expr: subject, negated, .. }
                if !*negated || top && has_column(subject) =>
            {
                self.everywhere(subject)
            }
            other => self.everywhere(other),
        }
    }

    /// Rewrites every membership of an expression.
    fn everywhere(&mut self, expr: &mut Expr) -> Result<()> {
        match expr.visit(&mut Everywhere { memberships: self, depth: 0 }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn rewrite_membership(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::InSubquery { expr: subject, subquery, negated } = expr else { return Ok(()) };
        if matches!(subject.as_ref(), Expr::Tuple(_)) {
            return Ok(());
        }
        self.rewritten += 1;
        if self.rewritten > MAX {
            return plan_err!(
                "a statement may have at most {MAX} `IN (SELECT …)` outside of plain conditions"
            );
        }
        let exists = |subquery| Expr::Exists { subquery: Box::new(subquery), negated: false };
        let unknown = or(
            and(
                Expr::IsNull(Box::new(nested(subject.as_ref().clone()))),
                exists(subquery.as_ref().clone()),
            ),
            exists(nulls_of(subquery)?),
        );
        let negated = std::mem::take(negated);
        let value = |value| Expr::value(value);
        let member = std::mem::replace(expr, value(Value::Null));
        *expr = Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![
                CaseWhen { condition: member, result: value(Value::Boolean(!negated)) },
                CaseWhen { condition: unknown, result: value(Value::Null) },
            ],
            else_result: Some(Box::new(value(Value::Boolean(negated)))),
        };
        Ok(())
    }
}

/// Rewrites the memberships of one expression, but not those of its subqueries.
struct Everywhere<'a> {
    memberships: &'a mut Memberships,
    depth: usize,
}

impl VisitorMut for Everywhere<'_> {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<DataFusionError> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<DataFusionError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<DataFusionError> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        match self.memberships.rewrite_membership(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Returns true if an expression names a column. Only then does DataFusion handle nulls on the
/// other side.
fn has_column(expr: &Expr) -> bool {
    struct Finds;
    impl Visitor for Finds {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finds).is_break()
}

/// Returns a query for the rows of a subquery whose value is null.
fn nulls_of(subquery: &Query) -> Result<Query> {
    if let Some(plain) = plain_nulls_of(subquery) {
        return Ok(plain);
    }
    let template = || plan_datafusion_err!("`IN (SELECT …)` cannot be rewritten");
    let mut query = Parser::new(&PostgresPrecedence).try_with_sql(NULLS)?.parse_query()?;
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(template()) };
    let relation = select.from.first_mut().map(|table| &mut table.relation);
    let Some(TableFactor::Derived { subquery: inner, .. }) = relation else {
        return Err(template());
    };
    **inner = subquery.clone();
    Ok(*query)
}

/// Returns such a query with the test for null in the subquery's own condition. This is required if
/// the value refers to outer columns.
fn plain_nulls_of(subquery: &Query) -> Option<Query> {
    let mut query = subquery.clone();
    if query.limit_clause.is_some() || query.fetch.is_some() || query.with.is_some() {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if grouped || select.having.is_some() || select.qualify.is_some() || select.distinct.is_some() {
        return None;
    }
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    // A function may be an aggregate.
    if calls_function(value) {
        return None;
    }
    let is_null = Expr::IsNull(Box::new(nested(value.clone())));
    select.selection = Some(match select.selection.take() {
        Some(condition) => and(nested(condition), is_null),
        None => is_null,
    });
    Some(query)
}

fn calls_function(expr: &Expr) -> bool {
    struct Finds;
    impl Visitor for Finds {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finds).is_break()
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

fn or(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Or, right: Box::new(right) }
}
