//! Keeps an OFFSET where the statement has it: sorts below it stay below, and sorts above it stay
//! above.
//!
//! DataFusion's rule that adds sorts also moves and removes them, and considers only the number of
//! rows of a limit:
//!
//! - `select * from (… limit 4 offset 3) order by x` sorts below the limit, cuts off four rows
//!   there and skips three of them.
//! - `select a from … order by b offset 3` does not sort before it skips, since `b` is not among
//!   the columns that are left.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::{Distribution, LexRequirement, OrderingRequirements};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::output_requirements::OutputRequirementExec;
use datafusion::physical_plan::expressions::lit;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

/// Name of the rule that adds, moves and removes sorts.
pub(super) const MOVES_SORTS: &str = "EnsureRequirements";

/// The optimizer rule. It must run before the one that moves sorts.
#[derive(Debug)]
struct FenceOffsets;

/// Inserts the rule before the one that moves sorts.
pub(super) fn insert(rules: &mut Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>) {
    let place = rules.iter().position(|rule| rule.name() == MOVES_SORTS).unwrap_or(0);
    rules.insert(place, Arc::new(FenceOffsets));
}

/// Returns true if a plan has an OFFSET, also in a subquery.
pub(super) fn skips_rows(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found = matches!(node, LogicalPlan::Limit(limit) if limit.skip.is_some());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

impl PhysicalOptimizerRule for FenceOffsets {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(limit) = node.downcast_ref::<GlobalLimitExec>() else {
                return Ok(Transformed::no(node));
            };
            if limit.skip() == 0 {
                return Ok(Transformed::no(node));
            }
            let sorted = keep_sorted(Arc::clone(limit.input()))?;
            let limit = Arc::new(GlobalLimitExec::new(sorted, limit.skip(), limit.fetch()));
            // A filter keeps the order of rows, and no sort is moved below it.
            let fence = FilterExec::try_new(lit(true), limit)?;
            Ok(Transformed::yes(Arc::new(fence) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "fence_offsets"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Adds a step above the sort that requires its order. DataFusion removes such steps once sorts are
/// final.
fn keep_sorted(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let input = keep_sorted(Arc::clone(projection.input()))?;
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        return Arc::clone(&plan).replace_children(vec![input], recompute);
    }
    let Some(sort) = plan.downcast_ref::<SortExec>() else { return Ok(plan) };
    let order = OrderingRequirements::new(LexRequirement::from(sort.expr().clone()));
    let fetch = sort.fetch();
    Ok(Arc::new(OutputRequirementExec::new(
        plan,
        Some(order),
        Distribution::SinglePartition,
        fetch,
    )))
}
