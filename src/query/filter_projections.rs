//! Takes the projections out of filters before DataFusion moves projections.
//!
//! DataFusion makes a projection a part of the filter below it. If it then moves another projection
//! below that filter, it applies it to the input of the filter, whose columns have other places. So
//! it refused statements, or returned another column of the same name. A projection that is a step
//! of its own is merged with the other one, and both become a part of the filter again.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::ProjectionExec;

use super::wrapped_rule::{PhysicalRule, wrap_physical};

/// Name of the rule that moves projections.
const MOVES_PROJECTIONS: &str = "ProjectionPushdown";

/// Wraps DataFusion's rule.
pub(super) fn wrap(rules: &mut [PhysicalRule]) {
    wrap_physical(rules, MOVES_PROJECTIONS, take_out_first);
}

/// Takes projections out of filters before the rule runs.
fn take_out_first(
    rule: &PhysicalRule,
    plan: Arc<dyn ExecutionPlan>,
    options: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|step| {
        Ok(match step.downcast_ref::<FilterExec>().map(apart) {
            Some(Some(steps)) => Transformed::yes(steps?),
            _ => Transformed::no(step),
        })
    });
    rule.optimize(plan.data()?, options)
}

/// Returns a filter's projection above the filter without it. `None` if it has none.
fn apart(filter: &FilterExec) -> Option<Result<Arc<dyn ExecutionPlan>>> {
    let places = filter.projection().as_ref()?;
    let schema = filter.input().schema();
    let columns: Vec<_> = places
        .iter()
        .map(|place| {
            let name = schema.field(*place).name();
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, *place));
            (column, name.clone())
        })
        .collect();
    let whole = FilterExecBuilder::from(filter).apply_projection(None);
    let whole = whole.and_then(FilterExecBuilder::build);
    let steps = whole.and_then(|whole| ProjectionExec::try_new(columns, Arc::new(whole)));
    Some(steps.map(|steps| Arc::new(steps) as Arc<dyn ExecutionPlan>))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_expr::expressions::lit;
    use datafusion::physical_optimizer::PhysicalOptimizerRule;
    use datafusion::physical_optimizer::projection_pushdown::ProjectionPushdown;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Returns the values of a projection to the second of two columns `b` above a filter that
    /// leaves out the first.
    async fn values(rule: &dyn PhysicalOptimizerRule) -> Vec<i64> {
        let fields = ["a", "b", "b"].map(|name| Field::new(name, DataType::Int64, false));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let columns =
            [1, 2, 3].map(|value| Arc::new(Int64Array::from(vec![value])) as Arc<dyn Array>);
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns.into()).unwrap();
        let source = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None).unwrap();
        let filter = FilterExecBuilder::new(lit(true), source)
            .apply_projection(Some(vec![0, 2]))
            .and_then(FilterExecBuilder::build);
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("b", 1));
        let plan = ProjectionExec::try_new([(column, "c".to_owned())], Arc::new(filter.unwrap()));
        let plan = rule.optimize(Arc::new(plan.unwrap()), &ConfigOptions::default()).unwrap();
        let rows = collect(plan, SessionContext::new().task_ctx()).await.unwrap();
        rows[0].column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[tokio::test]
    async fn a_column_stays_the_same_below_a_filter() {
        let mut rules: Vec<PhysicalRule> = vec![Arc::new(ProjectionPushdown::new())];
        wrap(&mut rules);
        assert_eq!(values(rules[0].as_ref()).await, [3]);
        let alone = values(&ProjectionPushdown::new()).await;
        assert_ne!(alone, [3], "DataFusion is right, so `filter_projections` may go");
    }
}
