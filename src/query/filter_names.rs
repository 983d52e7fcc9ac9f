//! Keeps filters from moving through a step whose columns share a name.
//!
//! DataFusion's rule `FilterPushdown` finds the columns of a filter by name at each step on the way
//! down. Below a join, two columns can have one name, and the filter of the second one becomes a
//! filter of the first: `… l right join … f on l.id = f.id where trim(l.id) <> 'a'` loses rows or
//! keeps too many. The rule still runs on each part of a plan in which all names are different,
//! so filters reach the scans below a join.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Name of the two rules that move filters: the ones of the statement, and the dynamic ones.
const MOVES_FILTERS: &str = "FilterPushdown";

/// Runs a rule on the parts of a plan in which no step has two columns of one name.
#[derive(Debug)]
struct WhereNamesDiffer(Rule);

/// Wraps each rule that moves filters.
pub(super) fn wrap(rules: &mut [Rule]) {
    for rule in rules {
        if rule.name() == MOVES_FILTERS {
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
        if all_differ && names_differ(&plan) {
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
