//! Accepts a plan whose rows are in the required order if DataFusion fails to see it, and sorts
//! them if they are not.
//!
//! DataFusion's last rule refuses a plan in which a step does not get its rows in the required
//! order:
//!
//! - It fails to compute the order of `length(id) > 3`, and considers rows that are sorted by just
//!   that expression unordered. So it refused `select id from logs order by length(id) > 3`.
//! - An earlier rule removes a column from a sort if it equals another one or is constant. A later
//!   rule moves or rewrites the steps that this follows from, as between the parts of a union that
//!   is sorted by two names of one column.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalSortRequirement};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};

use super::wrapped_rule::{PhysicalRule, wrap_physical};

/// Name of DataFusion's rule.
const CHECKS: &str = "SanityCheckPlan";

/// Wraps DataFusion's rule.
pub(super) fn insert(rules: &mut [PhysicalRule]) {
    wrap_physical(rules, CHECKS, check);
}

/// Accepts rows that the rule wrongly takes for unordered, and sorts those that are unordered.
fn check(
    rule: &PhysicalRule,
    plan: Arc<dyn ExecutionPlan>,
    options: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let refused = match rule.optimize(Arc::clone(&plan), options) {
        Err(error) if is_of_order(&error) => error,
        checked => return checked,
    };
    let sorted = plan.transform_up(sort_inputs)?;
    if sorted.transformed {
        return match rule.optimize(Arc::clone(&sorted.data), options) {
            Err(error) if is_of_order(&error) && orders_fit(&sorted.data)? => Ok(sorted.data),
            checked => checked,
        };
    }
    if orders_fit(&sorted.data)? { Ok(sorted.data) } else { Err(refused) }
}

/// Returns true if a plan was refused for the order of some rows.
fn is_of_order(error: &DataFusionError) -> bool {
    error.to_string().contains("order requirements")
}

/// Sorts the inputs of a step that are not in the required order.
fn sort_inputs(step: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let mut changed = false;
    let mut inputs: Vec<_> = step.children().into_iter().cloned().collect();
    for (input, needed) in inputs.iter_mut().zip(step.required_input_ordering()) {
        let Some(needed) = needed.filter(|needed| !fits(input, needed.clone())) else { continue };
        *input = sorted(input, needed);
        changed = true;
    }
    if !changed {
        return Ok(Transformed::no(step));
    }
    let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    step.replace_children(inputs, recompute).map(Transformed::yes)
}

/// Sorts rows by a whole order. Replaces an existing sort.
fn sorted(input: &Arc<dyn ExecutionPlan>, needed: OrderingRequirements) -> Arc<dyn ExecutionPlan> {
    let order = LexOrdering::from(needed.into_single());
    let sort = match input.downcast_ref::<SortExec>() {
        Some(sort) => SortExec::new(order, Arc::clone(sort.input()))
            .with_preserve_partitioning(sort.preserve_partitioning())
            .with_fetch(sort.fetch()),
        None => {
            let parts = input.output_partitioning().partition_count();
            SortExec::new(order, Arc::clone(input)).with_preserve_partitioning(parts > 1)
        }
    };
    Arc::new(sort)
}

/// Returns true if the inputs of every step are in the required order.
fn orders_fit(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut fit = true;
    plan.apply(|step| {
        let needs = step.required_input_ordering();
        fit = step
            .children()
            .into_iter()
            .zip(needs)
            .all(|(input, needed)| needed.is_none_or(|need| fits(input, need)));
        Ok(if fit { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(fit)
}

fn fits(input: &Arc<dyn ExecutionPlan>, needed: OrderingRequirements) -> bool {
    let needed = needed.into_single();
    let known = input.equivalence_properties().ordering_satisfy_requirement(needed.clone());
    // The reported order of a sort's output omits constant columns.
    let sort = input.downcast_ref::<SortExec>().map(SortExec::expr);
    let order = sort.or_else(|| input.output_ordering());
    known.is_ok_and(|known| known) || order.is_some_and(|order| begins_with(order, &needed))
}

/// Returns true if an order begins with exactly these expressions.
fn begins_with(order: &LexOrdering, needed: &[PhysicalSortRequirement]) -> bool {
    let same = |(needed, sort): (
        &PhysicalSortRequirement,
        &datafusion::physical_expr::PhysicalSortExpr,
    )| {
        needed.expr.eq(&sort.expr) && needed.options.is_none_or(|options| options == sort.options)
    };
    order.len() >= needed.len() && needed.iter().zip(order.iter()).all(same)
}
