//! Lets a plan pass whose rows are in the order that a step needs, where DataFusion cannot see it.
//!
//! Its last rule computes what is known of the order of `length(id) > 3`, fails to, and takes rows that are sorted by
//! just that expression for rows in no order. So it refused `select id from logs order by length(id) > 3`.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalSortRequirement};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

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
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match self.0.optimize(Arc::clone(&plan), options) {
            Err(error) if error.to_string().contains("order requirements") && orders_fit(&plan)? => Ok(plan),
            checked => checked,
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Returns whether the inputs of every step are in the order that it needs.
fn orders_fit(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut fit = true;
    plan.apply(|step| {
        let needs = step.required_input_ordering();
        fit = step.children().into_iter().zip(needs).all(|(input, needed)| needed.is_none_or(|need| fits(input, need)));
        Ok(if fit { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(fit)
}

fn fits(input: &Arc<dyn ExecutionPlan>, needed: OrderingRequirements) -> bool {
    let needed = needed.into_single();
    let known = input.equivalence_properties().ordering_satisfy_requirement(needed.clone());
    known.is_ok_and(|known| known) || input.output_ordering().is_some_and(|order| begins_with(order, &needed))
}

/// Returns whether an order is one by just these expressions, and maybe more.
fn begins_with(order: &LexOrdering, needed: &[PhysicalSortRequirement]) -> bool {
    let same = |(needed, sort): (&PhysicalSortRequirement, &datafusion::physical_expr::PhysicalSortExpr)| {
        needed.expr.eq(&sort.expr) && needed.options.is_none_or(|options| options == sort.options)
    };
    order.len() >= needed.len() && needed.iter().zip(order.iter()).all(same)
}
