//! Moves scalar subqueries with outer columns below the steps in which DataFusion does not run
//! them.
//!
//! DataFusion runs `(select max(b) from u where u.a = t.a)` only in the columns of a SELECT and in
//! WHERE and HAVING. It refuses one in ORDER BY, GROUP BY, DISTINCT ON, an aggregate, a window or
//! the condition of a join. Here a projection below such a step computes it as a column.
//!
//! An expression in ORDER BY that is also a column of the SELECT is that column. DataFusion
//! recognises this only if no part of the expression is a column of the SELECT under another name.

use std::sync::Arc;

use datafusion::common::tree_node::{
    Transformed, TransformedResult, TreeNode, TreeNodeRecursion, TreeNodeRewriter,
};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Distinct, Expr, Filter, Join, JoinType, LogicalPlan, Projection, Sort, Subquery,
};

/// Moves such subqueries of all steps of a plan.
pub(super) fn move_below(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut taken = 0;
    plan.transform_up_with_subqueries(|step| {
        if !reads_outer(&step)? {
            return Ok(Transformed::no(step));
        }
        match step {
            LogicalPlan::Sort(sort) => below_sort(sort, &mut taken),
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => above_join(join),
            LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Distinct(Distinct::On(_))
            | LogicalPlan::Join(_) => below(step, &mut taken),
            step => return Ok(Transformed::no(step)),
        }
        .map(Transformed::yes)
    })
    .data()
}

/// Returns true if an expression of a step has a subquery with outer columns.
fn reads_outer(step: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    step.apply_expressions(|expr| {
        found = has_correlated(expr)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn has_correlated(expr: &Expr) -> Result<bool> {
    expr.exists(|part| {
        Ok(matches!(part, Expr::ScalarSubquery(query) if !query.outer_ref_columns.is_empty()))
    })
}

/// Moves the subqueries of a sort. Those of columns of FROM become columns of the SELECT, which may
/// have other columns by itself.
fn below_sort(mut sort: Sort, taken: &mut usize) -> Result<LogicalPlan> {
    let wanted = sort.input.schema().columns();
    for key in &mut sort.expr {
        if has_correlated(&key.expr)?
            && let Some(column) = selected(&key.expr, &sort.input)?
        {
            key.expr = Expr::Column(column);
        }
    }
    if let LogicalPlan::Projection(select) = sort.input.as_ref() {
        let mut taker = Taker::new(select.input.schema(), false, taken);
        for key in &mut sort.expr {
            key.expr = std::mem::take(&mut key.expr).rewrite(&mut taker).data()?;
        }
        let exprs = select.expr.iter().cloned().chain(taker.columns).collect();
        let select = Projection::try_new(exprs, Arc::clone(&select.input))?;
        sort.input = Arc::new(LogicalPlan::Projection(select));
    }
    with_columns(below(LogicalPlan::Sort(sort), taken)?, wanted)
}

/// Returns the column of a SELECT that a key of its ORDER BY repeats.
fn selected(key: &Expr, input: &LogicalPlan) -> Result<Option<Column>> {
    let select = match input {
        LogicalPlan::Projection(select) => select,
        LogicalPlan::Distinct(Distinct::All(input)) => match input.as_ref() {
            LogicalPlan::Projection(select) => select,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let item = |column: &Column| select.expr.get(select.schema.maybe_index_of_column(column)?);
    let written = key.clone().transform_up(|part| {
        let item = part.try_as_col().and_then(item).cloned().map(Expr::unalias);
        Ok(item.map_or_else(|| Transformed::no(part), Transformed::yes))
    });
    let written = written.data()?;
    let place = select.expr.iter().position(|item| item.clone().unalias() == written);
    Ok(place.map(|place| Column::from(select.schema.qualified_field(place))))
}

/// Moves the condition of an inner join above it, where it means the same.
fn above_join(mut join: Join) -> Result<LogicalPlan> {
    let Some(condition) = join.filter.take() else { return Ok(LogicalPlan::Join(join)) };
    Filter::try_new(condition, Arc::new(LogicalPlan::Join(join))).map(LogicalPlan::Filter)
}

/// Moves the subqueries of a step into projections of those inputs that have their outer columns.
/// The step has the same columns as before.
fn below(mut step: LogicalPlan, taken: &mut usize) -> Result<LogicalPlan> {
    let wanted = step.schema().columns();
    // A sort and the condition of a join do not name columns.
    let named = !matches!(step, LogicalPlan::Sort(_) | LogicalPlan::Join(_));
    let names = NamePreserver::new(&step);
    let inputs: Vec<_> = step.inputs().into_iter().cloned().collect();
    let mut new_inputs = Vec::with_capacity(inputs.len());
    for input in inputs {
        let schema = Arc::clone(input.schema());
        let mut taker = Taker::new(&schema, named, taken);
        step = step
            .map_expressions(|expr| {
                let name = names.save(&expr);
                let written = expr.rewrite(&mut taker)?;
                // FILTER and the order of a window name a subquery in yet another way.
                Ok(written.update_data(|expr| if named { name.restore(expr) } else { expr }))
            })?
            .data;
        new_inputs.push(taker.project(input)?);
    }
    let mut new_inputs = new_inputs.into_iter();
    let step = step.map_children(|input| {
        Ok(new_inputs.next().map_or_else(|| Transformed::no(input), Transformed::yes))
    })?;
    with_columns(step.data.recompute_schema()?, wanted)
}

/// Drops all but the wanted columns.
fn with_columns(plan: LogicalPlan, wanted: Vec<Column>) -> Result<LogicalPlan> {
    if plan.schema().fields().len() == wanted.len() {
        return Ok(plan);
    }
    let exprs = wanted.into_iter().map(Expr::Column).collect();
    Projection::try_new(exprs, Arc::new(plan)).map(LogicalPlan::Projection)
}

/// Replaces the subqueries of expressions by columns of an input.
struct Taker<'a> {
    /// Columns that the subqueries may refer to.
    outer: &'a DFSchema,
    /// True if an expression must keep its name.
    named: bool,
    /// Number of subqueries of the whole statement so far.
    taken: &'a mut usize,
    /// Subqueries under the names of their columns.
    columns: Vec<Expr>,
}

impl<'a> Taker<'a> {
    fn new(outer: &'a DFSchema, named: bool, taken: &'a mut usize) -> Self {
        Self { outer, named, taken, columns: Vec::new() }
    }

    fn can_take(&self, query: &Subquery) -> bool {
        let mut outer = query.outer_ref_columns.iter().peekable();
        outer.peek().is_some()
            && outer.all(|column| match column {
                Expr::OuterReferenceColumn(_, column) => self.outer.has_column(column),
                _ => false,
            })
    }

    /// Returns the name of the column for a subquery.
    fn name(&mut self, query: Expr) -> String {
        let known = self.columns.iter().find_map(|column| match column {
            Expr::Alias(alias) if *alias.expr == query => Some(alias.name.clone()),
            _ => None,
        });
        known.unwrap_or_else(|| {
            *self.taken += 1;
            let name = format!("__subquery_{}", self.taken);
            self.columns.push(query.alias(name.clone()));
            name
        })
    }

    /// Adds the columns to the input.
    fn project(self, input: LogicalPlan) -> Result<LogicalPlan> {
        if self.columns.is_empty() {
            return Ok(input);
        }
        let all = input.schema().columns().into_iter().map(Expr::Column).chain(self.columns);
        Projection::try_new(all.collect(), Arc::new(input)).map(LogicalPlan::Projection)
    }
}

impl TreeNodeRewriter for Taker<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        match &expr {
            Expr::ScalarSubquery(query) if self.can_take(query) => {}
            _ => return Ok(Transformed::no(expr)),
        }
        let before = expr.schema_name().to_string();
        let column = Expr::Column(Column::new_unqualified(self.name(expr)));
        let column = if self.named { column.alias(before) } else { column };
        Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
    }
}
