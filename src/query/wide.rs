//! Starts a planned statement with batches that fit what it reads.
//!
//! A batch of 8,192 rows is right for figures and names. With bodies of some KB, it would be a
//! hundred MB at each step of the plan, so a statement that reads bodies works in batches of fewer
//! rows.

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;

use super::guard::is_message;

/// Starts a statement, in batches of at most `wide_rows` rows if it reads bodies.
pub(super) async fn start(
    session: &SessionContext,
    plan: &LogicalPlan,
    wide_rows: usize,
) -> Result<SendableRecordBatchStream> {
    let mut state = session.state();
    let plan = state.optimize(plan)?;
    if wide_rows < state.config().batch_size() && reads_messages(&plan)? {
        let config = state.config().clone().with_batch_size(wide_rows);
        *state.config_mut() = config;
    }
    let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
    execute_stream(physical, state.task_ctx())
}

/// Whether a plan reads a column of messages.
fn reads_messages(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
        found |= scan.projected_schema.fields().iter().any(|field| is_message(field.data_type()));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
