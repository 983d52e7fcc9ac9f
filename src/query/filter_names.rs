//! Keeps filters from moving through a step where a name stands for two columns.
//!
//! DataFusion's rules `FilterPushdown` and `FilterPushdown(Post)` find the columns of a filter by
//! name at each step on the way down, so a filter of one column can become a filter of another:
//!
//! - Below a join, two columns can have one name. `… l right join … f on l.id = f.id where
//!   trim(l.id) <> 'a'` loses rows or keeps too many.
//! - A filter of a key goes to both sides of a semi join, and takes a column of the other side that
//!   has the name of the key for its partner: in `exists (select 1 from logs f where f.id =
//!   l.trace_id and f.trace_id <> l.id)`, a filter of `l.trace_id` becomes one of `f.trace_id`.
//!
//! The rules still run on each part of a plan without such steps, so filters reach the scans below.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Names of the rules that move filters: those of the statement, and dynamic ones.
const MOVES_FILTERS: [&str; 2] = ["FilterPushdown", "FilterPushdown(Post)"];

/// Runs a rule on the parts of a plan in which a name stands for one column.
#[derive(Debug)]
struct WhereNamesDiffer(Rule);

/// Wraps each rule that moves filters.
pub(super) fn wrap(rules: &mut [Rule]) {
    for rule in rules {
        if MOVES_FILTERS.contains(&rule.name()) {
            *rule = Arc::new(WhereNamesDiffer(Arc::clone(rule)));
        }
    }
}

/// A part of a plan on the way up.
enum Part {
    /// All names in it differ; the rule has not run on it.
    Unambiguous(Arc<dyn ExecutionPlan>),
    /// The rule has run on all parts of it on which it may run.
    Done(Arc<dyn ExecutionPlan>),
}

impl WhereNamesDiffer {
    fn split(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Part> {
        let children = plan.children().into_iter().map(Arc::clone);
        let parts: Vec<_> =
            children.map(|child| self.split(child, options)).collect::<Result<_>>()?;
        let all_differ = parts.iter().all(|part| matches!(part, Part::Unambiguous(_)));
        if all_differ && names_differ(&plan) && !mixes_up_keys(&plan) {
            return Ok(Part::Unambiguous(plan));
        }
        let finished = parts.into_iter().map(|part| self.finish(part, options));
        let finished = finished.collect::<Result<Vec<_>>>()?;
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Part::Done(plan.replace_children(finished, recompute)?))
    }

    fn finish(&self, part: Part, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match part {
            Part::Unambiguous(plan) => self.0.optimize(plan, options),
            Part::Done(plan) => Ok(plan),
        }
    }
}

impl PhysicalOptimizerRule for WhereNamesDiffer {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let part = self.split(plan, options)?;
        self.finish(part, options)
    }

    fn name(&self) -> &'static str {
        "filter_pushdown_where_names_differ"
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Returns true if no two columns of a step have the same name.
fn names_differ(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = plan.schema();
    let mut seen = HashSet::new();
    schema.fields().iter().all(|field| seen.insert(field.name()))
}

/// Returns true if the step is a semi join whose other side has a column with the name of a key
/// that is not that key's partner.
fn mixes_up_keys(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return false };
    let is_left = match join.join_type() {
        JoinType::LeftSemi => true,
        JoinType::RightSemi => false,
        _ => return false,
    };
    let other = if is_left { join.right() } else { join.left() };
    let schema = other.schema();
    join.on().iter().any(|(left, right)| {
        let key = if is_left { left } else { right };
        let partner = if is_left { right } else { left };
        let named = key.downcast_ref::<Column>().and_then(|key| schema.index_of(key.name()).ok());
        let partner = partner.downcast_ref::<Column>().map(Column::index);
        named.is_some() && named != partner
    })
}
