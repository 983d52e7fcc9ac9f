//! Sorts partitions by all columns that their merge compares.
//!
//! DataFusion leaves constant columns out of the sort of a partition, as `a` in each half of
//! `select 1 as a … union all select 2 as a …`. If such a sort keeps only the first rows, all
//! partitions share one bound, which compares rows with different `a` by the other columns alone
//! and drops rows that come first.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;

/// The optimizer rule.
#[derive(Debug)]
pub(super) struct WholeOrder;

impl PhysicalOptimizerRule for WholeOrder {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match whole(&node) {
                Some(whole) => Transformed::yes(whole),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "whole_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Returns the merge over sorts by its whole order. `None` if there is nothing to change.
fn whole(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let merge = node.downcast_ref::<SortPreservingMergeExec>()?;
    let sort = merge.input().downcast_ref::<SortExec>()?;
    sort.fetch().filter(|_| sort.preserve_partitioning() && sort.expr() != merge.expr())?;
    let sorted = SortExec::new(merge.expr().clone(), Arc::clone(sort.input()))
        .with_preserve_partitioning(true)
        .with_fetch(sort.fetch());
    let merged = SortPreservingMergeExec::new(merge.expr().clone(), Arc::new(sorted))
        .with_fetch(merge.fetch());
    Some(Arc::new(merged))
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::displayable;
    use object_store::memory::InMemory;
    use tokio::runtime::Handle;
    use url::Url;

    use super::super::session;
    use crate::config::Config;
    use crate::store::Store;

    use super::*;

    #[tokio::test]
    async fn halves_of_a_union_are_sorted_by_their_constants_too() {
        let store =
            Store::with(Arc::new(InMemory::new()), Url::parse("memory:///state").unwrap()).unwrap();
        let config = Config { threads: 2, ..Config::default() };
        let base = session::base_session(&config, &store, &Handle::current()).unwrap();
        let session = session::session(&base, Vec::new(), None, None);
        let rows = "from generate_series(1, 3) as t(v)";
        let text = format!(
            "(select 200 as a, cast(null as boolean) as b {rows}) union all (select 42 as a, v % 2 > 0 as b {rows}) \
             order by a desc, b limit 2"
        );
        let plan = session.state().create_logical_plan(&text).await.unwrap();
        let plan = session.state().create_physical_plan(&plan).await.unwrap();
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        assert!(shown.contains("TopK(fetch=2), expr=[a@0 DESC"), "{shown}");
    }
}
