//! Lets a plan pass whose rows are in the order that a step needs, where DataFusion cannot see it,
//! and sorts them again where they are not.
//!
//! DataFusion's last rule refuses a plan in which a step does not get its rows in the order that it
//! needs:
//!
//! - It computes what is known of the order of `length(id) > 3`, fails to, and takes rows that are
//!   sorted by just that expression for rows in no order. So it refused
//!   `select id from logs order by length(id) > 3`.
//! - An earlier rule leaves a column out of a sort that is the same as another one, or constant. A
//!   later rule moves or rewrites what that follows from, as between the parts of a union that is
//!   sorted by two names of one column.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalSortRequirement};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};

/// The name of DataFusion's rule.
const CHECKS: &str = "SanityCheckPlan";

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The rule, around DataFusion's.
#[derive(Debug)]
struct SameOrder(Rule);

/// Puts the rule in the place of DataFusion's.
pub(super) fn insert(rules: &mut [Rule]) {
    for rule in rules.iter_mut().filter(|rule| rule.name() == CHECKS) {
        *rule = Arc::new(SameOrder(Arc::clone(rule)));
    }
}

impl PhysicalOptimizerRule for SameOrder {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let refused = match self.0.optimize(Arc::clone(&plan), options) {
            Err(error) if is_of_order(&error) => error,
            checked => return checked,
        };
        let sorted = plan.transform_up(sort_inputs)?;
        if sorted.transformed {
            return match self.0.optimize(Arc::clone(&sorted.data), options) {
                Err(error) if is_of_order(&error) && orders_fit(&sorted.data)? => Ok(sorted.data),
                checked => checked,
            };
        }
        if orders_fit(&sorted.data)? { Ok(sorted.data) } else { Err(refused) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Returns whether a plan was refused for the order of some rows.
fn is_of_order(error: &DataFusionError) -> bool {
    error.to_string().contains("order requirements")
}

/// Sorts the inputs of a step that are not in the order that it needs.
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
    let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    step.replace_children(inputs, anew).map(Transformed::yes)
}

/// Sorts rows by all of an order, in place of a sort that is there already.
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

/// Returns whether the inputs of every step are in the order that it needs.
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
    // What a sort says of its output leaves out what is constant in it.
    let sort = input.downcast_ref::<SortExec>().map(SortExec::expr);
    let order = sort.or_else(|| input.output_ordering());
    known.is_ok_and(|known| known) || order.is_some_and(|order| begins_with(order, &needed))
}

/// Returns whether an order is one by just these expressions, and maybe more.
fn begins_with(order: &LexOrdering, needed: &[PhysicalSortRequirement]) -> bool {
    let same = |(needed, sort): (
        &PhysicalSortRequirement,
        &datafusion::physical_expr::PhysicalSortExpr,
    )| {
        needed.expr.eq(&sort.expr) && needed.options.is_none_or(|options| options == sort.options)
    };
    order.len() >= needed.len() && needed.iter().zip(order.iter()).all(same)
}
