//! Limits the size of a plan, and the rows of a batch by its widest step.
//!
//! A short statement can have a huge plan: a common table expression that names another one twice
//! doubles it, and a filter that is pushed through nested subqueries includes their expressions.
//! The first is counted before the statement is planned, the second before the optimizer runs. A
//! constant of a statement is copied for each row of a batch, so long constants make batches
//! shorter.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Maximum number of steps of a plan.
const MAX_STEPS: usize = 10_000;
/// Maximum number of parts of the expressions of a plan, with each column replaced by its
/// definition.
const MAX_PARTS: u64 = 1_000_000;
/// Maximum bytes of constants and fixed columns in a batch.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes of a column in a row, beside constants.
const COLUMN_BYTES: usize = 16;

/// Returns an error for a plan that is too large for the optimizer.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut steps = 0;
    plan.apply_with_subqueries(|_| {
        steps += 1;
        Ok(if steps > MAX_STEPS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if steps > MAX_STEPS {
        return Err(DataFusionError::Plan(format!(
            "the statement comes to more than {MAX_STEPS} steps once its views and WITH queries are written out; name \
             them less often"
        )));
    }
    let mut size = Size::default();
    plan.visit_with_subqueries(&mut size)?;
    Ok(())
}

/// Counts the parts of expressions, bottom up.
#[derive(Debug, Default)]
struct Size {
    done: Vec<Columns>,
    total: u64,
}

/// Number of parts of each output column of a step.
#[derive(Debug)]
struct Columns {
    schema: DFSchemaRef,
    parts: Vec<u64>,
}

impl<'n> TreeNodeVisitor<'n> for Size {
    type Node = LogicalPlan;

    fn f_up(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        let first = self.done.len().saturating_sub(node.inputs().len());
        let inputs = self.done.split_off(first);
        let mut sizes = Vec::new();
        node.apply_expressions(|expr| {
            let parts = parts(expr, &inputs)?;
            self.total = self.total.saturating_add(parts);
            sizes.push(parts);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if self.total > MAX_PARTS {
            return Err(DataFusionError::Plan(format!(
                "the expressions of the statement come to more than {MAX_PARTS} parts once those of its subqueries are \
                 written out; use the columns of a subquery less often"
            )));
        }
        let schema = Arc::clone(node.schema());
        let columns = schema.fields().len();
        let parts = match node {
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) if sizes.len() == columns => {
                sizes
            }
            _ => handed_on(&inputs, columns),
        };
        self.done.push(Columns { schema, parts });
        Ok(TreeNodeRecursion::Continue)
    }
}

/// Returns the columns of a step that passes on those of its inputs.
fn handed_on(inputs: &[Columns], columns: usize) -> Vec<u64> {
    let one_by_one = inputs.iter().filter(|input| input.parts.len() == columns);
    let mut parts = vec![1; columns];
    let mut found = false;
    for input in one_by_one {
        found = true;
        parts.iter_mut().zip(&input.parts).for_each(|(all, part)| *all = (*all).max(*part));
    }
    if !found {
        let all = inputs.iter().flat_map(|input| &input.parts);
        parts.iter_mut().zip(all).for_each(|(own, part)| *own = *part);
    }
    parts
}

fn parts(expr: &Expr, inputs: &[Columns]) -> Result<u64> {
    let mut sum = 0_u64;
    expr.apply(|part| {
        let size = match part {
            Expr::Column(column) => {
                let found = |input: &Columns| {
                    input
                        .schema
                        .maybe_index_of_column(column)
                        .and_then(|place| input.parts.get(place))
                        .copied()
                };
                inputs.iter().find_map(found).unwrap_or(1)
            }
            _ => 1,
        };
        sum = sum.saturating_add(size);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(sum)
}

/// Returns the rows of a batch for which an optimized plan takes bounded memory for its copies of
/// constants.
pub(super) fn batch_rows(plan: &LogicalPlan, most: usize) -> Result<usize> {
    let mut widest = 0;
    plan.apply_with_subqueries(|node| {
        let mut width = node.schema().fields().len().saturating_mul(COLUMN_BYTES);
        // A condition compares with its constants and does not copy them.
        if !matches!(node, LogicalPlan::Filter(_) | LogicalPlan::TableScan(_)) {
            node.apply_expressions(|expr| {
                width = width.saturating_add(constants(expr)?);
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        widest = widest.max(width);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((BATCH_BYTES / widest.max(1)).clamp(1, most.max(1)))
}

/// Returns the bytes of the constants of an expression, without those that are only looked up.
fn constants(expr: &Expr) -> Result<usize> {
    let mut bytes = 0_usize;
    expr.apply(|part| {
        match part {
            Expr::Literal(value, _) => bytes = bytes.saturating_add(value.size()),
            Expr::InList(_) => return Ok(TreeNodeRecursion::Jump),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(bytes)
}
