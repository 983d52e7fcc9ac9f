//! Answers aggregates from statistics, the innermost first.
//!
//! DataFusion answers `count(*)` from the statistics of files. From an aggregate with a FILTER it
//! descends to the next aggregate that it can answer, and uses that result for both. So it refused
//! `select sum(n) filter (where n > 1) from (select count(*) as n from t)`. If the innermost is
//! answered first, there is no aggregate below to confuse it with.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::wrapped_rule::{PhysicalRule, wrap_physical};

/// Name of DataFusion's rule.
const ANSWERS: &str = "aggregate_statistics";

/// Wraps DataFusion's rule.
pub(super) fn insert(rules: &mut [PhysicalRule]) {
    wrap_physical(rules, ANSWERS, answer_each);
}

/// Runs the rule on one aggregate at a time.
fn answer_each(
    rule: &PhysicalRule,
    plan: Arc<dyn ExecutionPlan>,
    options: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        if node.is::<AggregateExec>() {
            rule.optimize(node, options).map(Transformed::yes)
        } else {
            Ok(Transformed::no(node))
        }
    })
    .data()
}
