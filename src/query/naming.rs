//! Names the columns of an answer as the statement writes them.
//!
//! DataFusion names a column without an alias by its own form of the expression, as `count(Int64(1))` or
//! `sum(logs.total_units) + Int64(1)`. Here it is what stands in the statement, with functions in lower case:
//! `count(1)`, `sum(total_units) + 1`. A step above the plan does it, so that nothing below sees another name.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, ObjectNamePart, Select, SelectItem, SetExpr, Statement as Tree, VisitMut, VisitorMut,
};

/// The names of columns, where the statement names none itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// From the first column on, up to one that stands for many.
    first: Vec<Option<String>>,
    /// From the last column back, in this order, down to one that stands for many.
    last: Vec<Option<String>>,
}

impl Names {
    /// The names of a statement that was not rewritten yet.
    pub(super) fn of(statement: &Statement) -> Self {
        let Statement::Statement(tree) = statement else { return Self::default() };
        let Tree::Query(query) = tree.as_ref() else { return Self::default() };
        let Some(select) = first_select(&query.body) else { return Self::default() };
        let stands_for_many =
            |item: &&SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        let first = select.projection.iter().take_while(|item| !stands_for_many(item)).map(name_of).collect();
        let last = select.projection.iter().rev().take_while(|item| !stands_for_many(item)).map(name_of).collect();
        Self { first, last }
    }

    /// The name of a column, by its place.
    fn at(&self, place: usize, columns: usize) -> Option<&str> {
        let first = self.first.get(place);
        let last = || self.last.get(columns.checked_sub(place + 1)?);
        first.or_else(last)?.as_deref()
    }

    /// Gives the columns of a query their names. Two columns never get the same one.
    pub(super) fn give(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
            return Ok(plan);
        }
        let columns = plan.schema().fields().len();
        let mut taken: HashSet<&str> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
        let mut exprs = Vec::with_capacity(columns);
        let mut named = false;
        for (place, (qualifier, field)) in plan.schema().iter().enumerate() {
            let column = PlanExpr::Column(Column::from((qualifier, field)));
            match self.at(place, columns).filter(|name| *name != field.name() && taken.insert(name)) {
                Some(name) => {
                    named = true;
                    exprs.push(column.alias(name));
                }
                None => exprs.push(column),
            }
        }
        match named {
            true => LogicalPlanBuilder::from(plan).project(exprs)?.build(),
            false => Ok(plan),
        }
    }
}

/// The SELECT that names the columns: of a union, the first one.
fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select(&query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

/// The name of an expression; none for one with an alias, and for a column, which has its own.
fn name_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) if !is_column(expr) => Some(written(expr)),
        _ => None,
    }
}

fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_column(inner),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        _ => false,
    }
}

/// The text of an expression.
fn written(expr: &Expr) -> String {
    struct LowerCase;
    impl VisitorMut for LowerCase {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Function(Function { name, .. }) = expr {
                for part in &mut name.0 {
                    if let ObjectNamePart::Identifier(part) = part
                        && part.quote_style.is_none()
                    {
                        part.value = part.value.to_lowercase();
                    }
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = expr.clone();
    let _ = expr.visit(&mut LowerCase);
    expr.to_string()
}
