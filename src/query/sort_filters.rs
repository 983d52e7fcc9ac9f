//! Makes the filter of a sort with a limit depend on columns.
//!
//! While such a sort runs, its filter skips rows of files that cannot be among the first ones.
//! DataFusion moves the filter to the files by replacing the keys of the sort in it, the innermost
//! first. If a key is a part of another, as in `order by x = y, x limit 5`, the other one is not
//! found any more, and its `y` stays: a column of the sort, which the file does not have or which
//! is another column there. So it refused such statements, or skipped rows that it needed. With
//! columns in place of keys, each of them is replaced.
//!
//! The filter evaluates keys that can fail too, as in `order by cast(trace_id as int)`. It gets one
//! more part then, which is not leakproof, so that it never moves below the rules of rows.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    Column, DynamicFilterPhysicalExpr, UnKnownColumn, lit,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;

use super::leakproof::is_leakproof;

/// Name of the rule that moves filters of sorts.
const MOVES_FILTERS: &str = "FilterPushdown(Post)";

/// The optimizer rule. It must run right before the one that moves the filters.
#[derive(Debug)]
struct FiltersOfColumns;

/// Inserts the rule.
pub(super) fn insert(rules: &mut Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>) {
    let place = rules.iter().position(|rule| rule.name() == MOVES_FILTERS).unwrap_or(rules.len());
    rules.insert(place, Arc::new(FiltersOfColumns));
}

impl PhysicalOptimizerRule for FiltersOfColumns {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|step| {
            let Some(sort) = step.downcast_ref::<SortExec>() else {
                return Ok(Transformed::no(step));
            };
            if sort.fetch().is_none() {
                return Ok(Transformed::no(step));
            }
            let filter = DynamicFilterPhysicalExpr::new(parts(sort), lit(true));
            let sort = sort.clone().with_dynamic_filter_expr(Arc::new(filter))?;
            Ok(Transformed::yes(Arc::new(sort) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "sort_filters_of_columns"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Returns the parts that the filter of a sort depends on: the columns in its keys, and a part that
/// is not leakproof if a key is not.
fn parts(sort: &SortExec) -> Vec<Arc<dyn PhysicalExpr>> {
    let schema = sort.input().schema();
    let mut parts = columns(sort);
    if !sort.expr().iter().all(|key| is_leakproof(&key.expr, &schema, false)) {
        parts.push(Arc::new(UnKnownColumn::new("a key of the sort that can fail")));
    }
    parts
}

/// Returns the columns in the keys of a sort.
fn columns(sort: &SortExec) -> Vec<Arc<dyn PhysicalExpr>> {
    let mut columns: Vec<Column> =
        sort.expr().iter().flat_map(|key| collect_columns(&key.expr)).collect();
    columns.sort_unstable_by_key(Column::index);
    columns.dedup();
    columns.into_iter().map(|column| Arc::new(column) as Arc<dyn PhysicalExpr>).collect()
}
