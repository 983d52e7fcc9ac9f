//! Finds statements that read bodies, which work in batches of fewer rows.
//!
//! A batch of 8,192 rows is right for figures and names. With bodies of several KB, each step of
//! the plan would hold a hundred MB.

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use super::row_security::is_message;

/// Limits of a statement that reads bodies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    /// Rows of a batch.
    pub(super) rows: usize,
    /// Maximum number of spilled files that a sort merges at once; each takes a few batches.
    pub(super) merged: usize,
}

/// Returns true if a plan reads a column of messages.
pub(super) fn reads_messages(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
        found |= scan.projected_schema.fields().iter().any(|field| is_message(field.data_type()));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
