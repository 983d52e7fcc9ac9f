//! Parses a statement and rewrites parts that DataFusion does not run as PostgreSQL does.

use std::ops::ControlFlow;

use datafusion::common::{not_impl_datafusion_err, plan_datafusion_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Query, Select, SetExpr, SetOperator, SetQuantifier,
    Statement as Tree, Value, VisitMut, VisitorMut,
};

use super::casts;
use super::dialect::PostgresPrecedence;
use super::like;
use super::membership::Memberships;
use super::naming::{self, Names};
use super::spread;
use super::workarounds::{Workaround, is_off};

/// Parses one statement and rewrites it. Also returns the names of its columns.
pub(super) fn parse(text: &str, recursion_limit: usize) -> Result<(Statement, Names)> {
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&PostgresPrecedence)
        .with_recursion_limit(recursion_limit)
        .build()?
        .parse_statements()?;
    let mut statement =
        statements.pop_front().ok_or_else(|| plan_datafusion_err!("the statement is empty"))?;
    if !statements.is_empty() {
        return Err(plan_datafusion_err!(
            "expected one statement, and {} were sent",
            statements.len() + 1
        ));
    }
    let names = Names::from_statement(&statement);
    if let Statement::Statement(tree) = innermost(&mut statement) {
        spread::check(tree)?;
        naming::name_inner(tree);
        if let ControlFlow::Break(error) = tree.visit(&mut Rewriter::default()) {
            return Err(error);
        }
    }
    Ok((statement, names))
}

/// Returns true for a query, EXPLAIN, SHOW or DESCRIBE. Of a statement that writes, the planner
/// would name the first other fault.
pub(super) fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Explain(explain) => only_reads(&explain.statement),
        Statement::Statement(tree) => tree_only_reads(tree),
        _ => false,
    }
}

fn tree_only_reads(tree: &Tree) -> bool {
    match tree {
        Tree::Explain { statement, .. } => tree_only_reads(statement),
        Tree::Query(_)
        | Tree::ExplainTable { .. }
        | Tree::ShowCatalogs { .. }
        | Tree::ShowColumns { .. }
        | Tree::ShowCreate { .. }
        | Tree::ShowDatabases { .. }
        | Tree::ShowFunctions { .. }
        | Tree::ShowSchemas { .. }
        | Tree::ShowTables { .. }
        | Tree::ShowVariable { .. }
        | Tree::ShowVariables { .. }
        | Tree::ShowViews { .. } => true,
        _ => false,
    }
}

/// Returns the statement to be explained, or else the statement itself.
fn innermost(statement: &mut Statement) -> &mut Statement {
    match statement {
        Statement::Explain(explain) => innermost(&mut explain.statement),
        statement => statement,
    }
}

#[derive(Default)]
struct Rewriter {
    memberships: Memberships,
}

impl VisitorMut for Rewriter {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<DataFusionError> {
        if !is_off(Workaround::Casts) {
            casts::distinguish(query);
        }
        refuse_counted_sets(&query.body)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<DataFusionError> {
        if is_off(Workaround::Membership) {
            return ControlFlow::Continue(());
        }
        flow(self.memberships.rewrite(select))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<DataFusionError> {
        if !is_off(Workaround::SignedRank) {
            signed_rank(expr);
        }
        if is_off(Workaround::Escape) {
            return ControlFlow::Continue(());
        }
        flow(like::rewrite_escape(expr))
    }
}

fn flow(result: Result<()>) -> ControlFlow<DataFusionError> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// Makes ranks and row numbers signed: DataFusion's are unsigned, so their differences wrap around.
fn signed_rank(expr: &mut Expr) {
    let Expr::Function(call) = &expr else { return };
    let name = call.name.to_string().to_ascii_lowercase();
    if call.over.is_none()
        || !["row_number", "rank", "dense_rank", "ntile"].contains(&name.as_str())
    {
        return;
    }
    let unsigned = std::mem::replace(expr, Expr::value(Value::Null));
    *expr = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(unsigned),
        data_type: DataType::BigInt(None),
        array: false,
        format: None,
    };
}

/// Returns an error for EXCEPT ALL and INTERSECT ALL, since DataFusion does not count the rows of
/// either side.
fn refuse_counted_sets(body: &SetExpr) -> ControlFlow<DataFusionError> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else {
        return ControlFlow::Continue(());
    };
    if matches!(op, SetOperator::Except | SetOperator::Intersect | SetOperator::Minus)
        && matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName)
    {
        return ControlFlow::Break(not_impl_datafusion_err!(
            "{op} ALL is not supported; use {op}, or group and count both sides and join them"
        ));
    }
    refuse_counted_sets(left)?;
    refuse_counted_sets(right)
}
