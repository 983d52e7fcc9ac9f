//! Plans a statement so that it takes little memory and more time.
//!
//! A statement that met the limit of its memory before it gave a row is planned again in this way:
//! all of its work is done in one partition, so that a step has the memory that several would
//! share; what is read is read one file after another; joins sort both sides, which goes to disk,
//! instead of holding one of them; and many first rows of an order are found by a sort,
//! which goes to disk too.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::prelude::SessionConfig;

use super::fence::MOVES_SORTS;

/// First rows of an order that are kept in memory, which leaves more to other steps than a sort.
const MAX_KEPT_ROWS: usize = 100;

/// Marks the session of a statement that saves memory.
struct Frugal;

/// The settings of a statement that saves memory.
pub(super) fn settings(config: SessionConfig) -> SessionConfig {
    let mut config = config.with_target_partitions(1).with_extension(Arc::new(Frugal));
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.prefer_hash_join = false;
    optimizer.repartition_sorts = false;
    config
}

/// Turns hash joins, which hold one side in memory, into merge joins where the settings say so.
/// DataFusion itself follows that setting only where there are several partitions.
#[derive(Debug)]
struct MergeJoins;

/// Puts the rule before the one that adds the sorts which merge joins need.
pub(super) fn insert(rules: &mut Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>) {
    let place = rules.iter().position(|rule| rule.name() == MOVES_SORTS).unwrap_or(0);
    rules.insert(place, Arc::new(MergeJoins));
}

impl PhysicalOptimizerRule for MergeJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if options.optimizer.prefer_hash_join {
            return Ok(plan);
        }
        plan.transform_up(|node| {
            Ok(match merge_join(&node) {
                Some(join) => Transformed::yes(join),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "merge_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Returns the merge join that answers as a hash join does, or `None` if no merge join can.
fn merge_join(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let join = node.downcast_ref::<HashJoinExec>()?;
    if join.null_aware || join.projection.is_some() || join.fetch().is_some() {
        return None;
    }
    let merged = SortMergeJoinExec::try_new(
        Arc::clone(&join.left),
        Arc::clone(&join.right),
        join.on.clone(),
        join.filter.clone(),
        join.join_type,
        vec![SortOptions::default(); join.on.len()],
        join.null_equality,
    );
    Some(Arc::new(merged.ok()?))
}

/// Returns true if the statement of a session saves memory.
pub(super) fn is_frugal(config: &SessionConfig) -> bool {
    config.get_extension::<Frugal>().is_some()
}

/// Replaces the steps that keep many first rows in memory by sorts of all rows and limits.
pub(super) fn without_top_rows(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let Some(sort) = node.downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
        let Some(rows) = sort.fetch().filter(|rows| *rows > MAX_KEPT_ROWS) else {
            return Ok(Transformed::no(node));
        };
        let sorted = SortExec::new(sort.expr().clone(), Arc::clone(sort.input()))
            .with_preserve_partitioning(sort.preserve_partitioning());
        let partitions = sorted.properties().output_partitioning().partition_count();
        let sorted = Arc::new(sorted);
        let first: Arc<dyn ExecutionPlan> = match partitions {
            1 => Arc::new(GlobalLimitExec::new(sorted, 0, Some(rows))),
            _ => Arc::new(LocalLimitExec::new(sorted, rows)),
        };
        Ok(Transformed::yes(first))
    })
    .data()
}
