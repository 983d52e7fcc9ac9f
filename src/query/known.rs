//! Answers aggregates from statistics, the innermost first.
//!
//! DataFusion answers `count(*)` from the statistics of files. From an aggregate with a FILTER it
//! goes down until it finds an aggregate that it can answer so, and takes that one's answer for
//! both. So it refused `select sum(n) filter (where n > 1) from (select count(*) as n from t)`.
//! With the innermost answered first, none is left below for it to find.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

/// The name of DataFusion's rule.
const ANSWERS: &str = "aggregate_statistics";

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The rule, around DataFusion's.
#[derive(Debug)]
struct InnermostFirst(Rule);

/// Puts the rule in the place of DataFusion's.
pub(super) fn insert(rules: &mut [Rule]) {
    for rule in rules.iter_mut().filter(|rule| rule.name() == ANSWERS) {
        *rule = Arc::new(InnermostFirst(Arc::clone(rule)));
    }
}

impl PhysicalOptimizerRule for InnermostFirst {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match node.is::<AggregateExec>() {
            true => self.0.optimize(node, options).map(Transformed::yes),
            false => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}
