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
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

/// Name of DataFusion's rule.
const ANSWERS: &str = "aggregate_statistics";

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Wrapper of DataFusion's rule.
#[derive(Debug)]
struct InnermostFirst(Rule);

/// Replaces DataFusion's rule by the wrapper.
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
        plan.transform_up(|node| {
            if node.is::<AggregateExec>() {
                self.0.optimize(node, options).map(Transformed::yes)
            } else {
                Ok(Transformed::no(node))
            }
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
