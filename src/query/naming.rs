//! Names the columns of an answer as the statement writes them.
//!
//! DataFusion names a column without an alias by its own form of the expression, as
//! `count(Int64(1))` or `sum(logs.total_units) + Int64(1)`. The answer has the text of the
//! statement instead, with functions in lower case: `count(1)`, `sum(total_units) + 1`, and
//! `request.body` for a part of a column. A step above the plan renames the columns, so that the
//! steps below are unaffected. Queries in FROM and WITH get aliases in the statement itself
//! ([`name_inner`]), since `select *` over them shows their names.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, ObjectNamePart, OrderByKind, Query, Select, SelectItem, SetExpr,
    Statement as Tree, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use crate::record::{COLUMNS, Kind};

/// Names of columns without an alias.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Names from the first column on, up to one that expands to many.
    first: Vec<Option<Name>>,
    /// Names from the last column back, in this order, down to one that expands to many.
    last: Vec<Option<Name>>,
}

/// Text of a column without an alias.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// An expression.
    Text(String),
    /// Names separated by dots: a column with its table, or a part of a column.
    Path(Vec<String>),
}

impl Names {
    /// Collects the names of a statement that has not been rewritten yet.
    pub(super) fn from_statement(statement: &Statement) -> Self {
        let Statement::Statement(tree) = statement else { return Self::default() };
        let Tree::Query(query) = tree.as_ref() else { return Self::default() };
        let Some(select) = first_select(&query.body) else { return Self::default() };
        let stands_for_many = |item: &&SelectItem| {
            matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
        };
        let first = select
            .projection
            .iter()
            .take_while(|item| !stands_for_many(item))
            .map(name_of)
            .collect();
        let last = select
            .projection
            .iter()
            .rev()
            .take_while(|item| !stands_for_many(item))
            .map(name_of)
            .collect();
        Self { first, last }
    }

    /// Returns the name of a column, by its position. `planned` is its name in the plan.
    fn at(&self, place: usize, columns: usize, planned: &str) -> Option<String> {
        let first = self.first.get(place);
        let last = || self.last.get(columns.checked_sub(place + 1)?);
        match first.or_else(last)?.as_ref()? {
            Name::Text(text) => Some(text.clone()),
            Name::Path(path) => part_name(path, planned),
        }
    }

    /// Renames the columns of a query. All names stay unique.
    pub(super) fn give(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if matches!(
            plan,
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)
        ) {
            return Ok(plan);
        }
        let columns = plan.schema().fields().len();
        let mut taken: HashSet<String> =
            plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut exprs = Vec::with_capacity(columns);
        let mut named = false;
        for (place, (qualifier, field)) in plan.schema().iter().enumerate() {
            let column = PlanExpr::Column(Column::from((qualifier, field)));
            let name = self.at(place, columns, field.name());
            match name.filter(|name| name != field.name() && taken.insert(name.clone())) {
                Some(name) => {
                    named = true;
                    exprs.push(column.alias(name));
                }
                None => exprs.push(column),
            }
        }
        if named { LogicalPlanBuilder::from(plan).project(exprs)?.build() } else { Ok(plan) }
    }
}

/// Returns the SELECT that names the columns. For a union it is the first one.
fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select(&query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

fn first_select_mut(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select_mut(&mut query.body),
        SetExpr::SetOperation { left, .. } => first_select_mut(left),
        _ => None,
    }
}

/// Returns the name of an expression. `None` for one with an alias, and for a plain column, which
/// keeps its name.
fn name_of(item: &SelectItem) -> Option<Name> {
    let SelectItem::UnnamedExpr(expr) = item else { return None };
    let mut inner = expr;
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    match inner {
        Expr::Identifier(_) => None,
        Expr::CompoundIdentifier(path) => Some(Name::Path(path.iter().map(plain).collect())),
        _ => Some(Name::Text(written(expr))),
    }
}

/// Returns a name without quotes, as it is looked up.
fn plain(name: &Ident) -> String {
    if name.quote_style.is_none() { name.value.to_lowercase() } else { name.value.clone() }
}

/// Returns the name of a part of a column, as `request.body`, whose name in the plan is
/// `logs.request[body]`. `None` for a whole column.
fn part_name(path: &[String], planned: &str) -> Option<String> {
    if path.last().is_some_and(|last| last == planned) {
        return None;
    }
    let deep = planned.matches('[').count().max(1);
    Some(path[path.len().saturating_sub(deep + 1)..].join("."))
}

/// Adds aliases to the columns of queries in FROM and WITH that have none.
pub(super) fn name_inner(tree: &mut Tree) {
    struct Inner;
    impl VisitorMut for Inner {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            let tables = query.with.iter_mut().flat_map(|with| &mut with.cte_tables);
            tables
                .filter(|table| table.alias.columns.is_empty())
                .for_each(|table| name_columns(&mut table.query));
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Derived { subquery, alias, .. } = factor
                && alias.as_ref().is_none_or(|alias| alias.columns.is_empty())
            {
                name_columns(subquery);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = tree.visit(&mut Inner);
}

fn name_columns(query: &mut Query) {
    let Some(select) = first_select_mut(&mut query.body) else { return };
    let tables: Vec<String> = select.from.iter().flat_map(tables_of).collect();
    let mut taken: HashSet<String> = HashSet::new();
    for item in &mut select.projection {
        let name = match name_of(item) {
            // As in PostgreSQL, a cast of a column has the name of the column.
            Some(Name::Text(_)) if is_cast_column(item) => continue,
            Some(Name::Text(text)) => text,
            Some(Name::Path(path)) if is_part(&path) && !tables.contains(&path[0]) => {
                path.join(".")
            }
            _ => continue,
        };
        if let SelectItem::UnnamedExpr(expr) = item
            && taken.insert(name.clone())
        {
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', name),
            };
        }
    }
    if select.distinct.is_some() {
        // Its ORDER BY must use the selected names, since it finds no expression behind an alias.
        let named = aliases(&select.projection);
        let order = query.order_by.as_mut().map(|order| &mut order.kind);
        if let Some(OrderByKind::Expressions(exprs)) = order {
            for one in exprs {
                if let Some((_, alias)) = named.iter().find(|(expr, _)| *expr == one.expr) {
                    one.expr = Expr::Identifier(alias.clone());
                }
            }
        }
    }
}

/// Returns true for a column in one or more casts.
fn is_cast_column(item: &SelectItem) -> bool {
    let SelectItem::UnnamedExpr(mut expr) = item.clone() else { return false };
    let mut is_cast = false;
    loop {
        match expr {
            Expr::Nested(inner) => expr = *inner,
            Expr::Cast { expr: inner, .. } => {
                is_cast = true;
                expr = *inner;
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => return is_cast,
            _ => return false,
        }
    }
}

/// Returns the expressions that have aliases, with these.
fn aliases(items: &[SelectItem]) -> Vec<(Expr, Ident)> {
    let named = items.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((expr.clone(), alias.clone())),
        _ => None,
    });
    named.collect()
}

/// Returns the names of a statement's tables.
fn tables_of(from: &TableWithJoins) -> Vec<String> {
    let factors =
        std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
    let named = factors.filter_map(|factor| match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(plain(&alias.name)),
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().map(plain),
        _ => None,
    });
    named.collect()
}

/// Returns true if a path of two names has the form of a part of a column, as `request.body`.
fn is_part(path: &[String]) -> bool {
    let [column, _] = path else { return false };
    COLUMNS
        .iter()
        .any(|known| matches!(known.kind, Kind::Message | Kind::Tags) && known.name == column)
}

/// Returns the text of an expression.
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
