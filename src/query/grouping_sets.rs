//! Forgets what is known about the rows below an aggregate with grouping sets.
//!
//! DataFusion takes the orders, constants and partitioning of the input for those of the output.
//! With ROLLUP, CUBE or GROUPING SETS a column is null in the rows of other sets, so none of them
//! holds. Where a condition fixed a column, the next stage took groups for complete too early and
//! returned them several times, and sorts by that column were left out.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};

use super::without_expressions::{one_input, without_expressions};
use super::wrapped_rule::PhysicalRule;

/// Inserts the rule before those that use properties of the rows.
pub(super) fn insert(rules: &mut Vec<PhysicalRule>) {
    rules.insert(0, Arc::new(GroupingSets));
}

#[derive(Debug)]
struct GroupingSets;

impl PhysicalOptimizerRule for GroupingSets {
    fn name(&self) -> &'static str {
        "grouping_sets"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let hide =
            |node: Arc<dyn ExecutionPlan>| {
                let has_sets = node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| {
                    aggregate.mode().input_mode() == AggregateInputMode::Raw
                        && aggregate.group_expr().has_grouping_set()
                });
                if has_sets {
                    Ok(Transformed::yes(
                        Arc::new(UnknownOrderExec::new(node)) as Arc<dyn ExecutionPlan>
                    ))
                } else {
                    Ok(Transformed::no(node))
                }
            };
        plan.transform_up(hide).data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A step that passes rows on and claims neither an order nor a partitioning of them.
#[derive(Clone, Debug)]
struct UnknownOrderExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl UnknownOrderExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let below = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(below.output_partitioning().partition_count()),
            below.emission_type,
            below.boundedness,
        );
        Self { input, properties: Arc::new(properties) }
    }
}

impl UnknownOrderExec {
    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::new(input)
    }
}

impl DisplayAs for UnknownOrderExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnknownOrderExec")
    }
}

impl ExecutionPlan for UnknownOrderExec {
    fn name(&self) -> &'static str {
        "UnknownOrderExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    one_input!();

    without_expressions!();

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::SessionStateBuilder;
    use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    #[tokio::test]
    async fn each_group_of_a_rollup_over_a_fixed_column_is_returned_once() {
        let mut rules = PhysicalOptimizer::new().rules;
        insert(&mut rules);
        let config = SessionConfig::new().with_target_partitions(2).with_batch_size(128);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_physical_optimizer_rules(rules)
            .build();
        let session = SessionContext::new_with_state(state);
        let make = "create table t as select value as a, value % 3 as b, 7 as c, value % 2 as d from range(0, 20000)";
        session.sql(make).await.unwrap().collect().await.unwrap();
        for (sets, groups) in [
            ("rollup(a, b, c)", 3 * 10_000 + 1),
            ("cube(c, a)", 10_000 + 10_000 + 1 + 1),
            ("grouping sets ((a, c), (c), ())", 10_000 + 1 + 1),
        ] {
            for kept in ["c = 7 and d = 0", "d = 0 and c in (7)"] {
                let statement = format!(
                    "select count(*), sum(n) from (select count(*) as n from t where {kept} group by {sets})"
                );
                let rows = session.sql(&statement).await.unwrap().collect().await.unwrap();
                let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
                assert!(shown.contains(&format!("| {groups} ")), "{statement}\n{shown}");
            }
        }
    }
}
