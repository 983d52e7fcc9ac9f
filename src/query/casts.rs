//! Distinguishes columns that differ only in a cast.
//!
//! DataFusion leaves casts out of the name of a column, so that it has two of one name in `select
//! a, a::text from t`, in `select sum(a), sum(a::double) from t` and in `… group by a, a::text`,
//! and refuses them. In such a SELECT each cast is written as `coalesce(a::text)`, which has a name
//! of its own and is simplified to the cast. Casts to a second type are written as
//! `coalesce(coalesce(a::double))`, and so on, as in `select max(a::text), max(a::double) from t`.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, ObjectName, OrderBy, Query, Select, SelectItem, SetExpr,
    Visit, VisitMut, Visitor, VisitorMut,
};

/// Rewrites the casts of a query's SELECTs if columns differ only in them. Queries within the
/// SELECTs are left unchanged.
pub(super) fn distinguish(query: &mut Query) {
    let Query { body, order_by, .. } = query;
    match body.as_mut() {
        SetExpr::Select(select) => distinguish_select(select, order_by),
        body => distinguish_sides(body),
    }
}

fn distinguish_sides(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => distinguish_select(select, &mut None),
        SetExpr::SetOperation { left, right, .. } => {
            distinguish_sides(left);
            distinguish_sides(right);
        }
        _ => {}
    }
}

fn distinguish_select(select: &mut Select, order: &mut Option<OrderBy>) {
    if !differ_in_casts(select, order) {
        return;
    }
    keep_names(&mut select.projection);
    let mut rewriter = CastRewriter::default();
    let _ = VisitMut::visit(&mut select.projection, &mut rewriter);
    let _ = VisitMut::visit(&mut select.group_by, &mut rewriter);
    let _ = VisitMut::visit(&mut select.having, &mut rewriter);
    let _ = VisitMut::visit(&mut select.qualify, &mut rewriter);
    let _ = VisitMut::visit(order, &mut rewriter);
}

/// Returns true if two columns of a SELECT, or of one of its steps, are equal except for their
/// casts.
fn differ_in_casts(select: &Select, order: &Option<OrderBy>) -> bool {
    let mut names = Names::default();
    let _ = Visit::visit(&select.projection, &mut names);
    let _ = Visit::visit(&select.group_by, &mut names);
    let _ = Visit::visit(&select.having, &mut names);
    let _ = Visit::visit(&select.qualify, &mut names);
    let _ = Visit::visit(order, &mut names);
    if !names.casts {
        return false;
    }
    let keys: &[Expr] = match &select.group_by {
        GroupByExpr::Expressions(keys, _) => keys,
        GroupByExpr::All(_) => &[],
    };
    keys.iter().for_each(|key| names.add(key));
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => names.add(expr),
            // A group key may be referred to by its name or its position.
            SelectItem::ExprWithAlias { expr, .. } if !keys.is_empty() => names.add(expr),
            _ => {}
        }
    }
    names.differ
}

/// The expressions that DataFusion names: aggregates and window functions anywhere, and expressions
/// that are added.
#[derive(Default)]
struct Names {
    /// Original expressions, by their text without casts.
    known: HashMap<String, String>,
    casts: bool,
    differ: bool,
    depth: usize,
}

impl Names {
    fn add(&mut self, expr: &Expr) {
        let [plain, whole] = [true, false].map(|without_casts| {
            let mut expr = expr.clone();
            let _ = VisitMut::visit(&mut expr, &mut Plain { without_casts });
            expr.to_string().to_lowercase()
        });
        let known = self.known.entry(plain).or_insert_with(|| whole.clone());
        self.differ |= *known != whole;
    }
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            _ if self.depth > 0 => {}
            Expr::Cast { .. } => self.casts = true,
            Expr::Function(_) => self.add(expr),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Removes parentheses, table names and optionally casts from an expression.
struct Plain {
    without_casts: bool,
}

impl VisitorMut for Plain {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let plain = match expr {
            Expr::Cast { expr, .. } if self.without_casts => expr.as_ref().clone(),
            Expr::Nested(inner) => inner.as_ref().clone(),
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(column) => Expr::Identifier(column.clone()),
                None => return ControlFlow::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        *expr = plain;
        ControlFlow::Continue(())
    }
}

/// Keeps the column's name for a rewritten cast of a column, if no other column has that name.
/// Without the rewrite, the cast would have it by itself.
fn keep_names(items: &mut [SelectItem]) {
    let names: Vec<Option<Ident>> = items.iter().map(name_of).collect();
    for (item, name) in items.iter_mut().zip(&names) {
        let (SelectItem::UnnamedExpr(expr @ Expr::Cast { .. }), Some(name)) = (&*item, name) else {
            continue;
        };
        if names.iter().flatten().filter(|other| *other == name).count() == 1 {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: name.clone() };
        }
    }
}

fn name_of(item: &SelectItem) -> Option<Ident> {
    match item {
        SelectItem::UnnamedExpr(expr) => column_of(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
        _ => None,
    }
}

fn column_of(expr: &Expr) -> Option<Ident> {
    match expr {
        Expr::Identifier(column) => Some(column.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().cloned(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => column_of(expr),
        _ => None,
    }
}

/// Rewrites the casts of an expression, but not those of queries within it.
#[derive(Default)]
struct CastRewriter {
    depth: usize,
    /// Types of casts so far. Casts to the first one are put into one call, to the second into two.
    types: Vec<String>,
}

impl CastRewriter {
    /// Returns the calls that a cast is put into.
    fn calls(&mut self, kind: &CastKind, of: &DataType) -> usize {
        let fails = matches!(kind, CastKind::Cast | CastKind::DoubleColon);
        let name = format!("{fails} {of}").to_lowercase();
        let place = self.types.iter().position(|known| *known == name);
        place.unwrap_or_else(|| {
            self.types.push(name);
            self.types.len() - 1
        }) + 1
    }
}

fn coalesce(expr: Expr) -> Expr {
    let args = FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))],
        clauses: Vec::new(),
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("coalesce")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(args),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

impl VisitorMut for CastRewriter {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { kind, data_type, .. } = expr
            && self.depth == 0
        {
            for _ in 0..self.calls(kind, data_type) {
                *expr = coalesce(expr.clone());
            }
        }
        ControlFlow::Continue(())
    }
}
