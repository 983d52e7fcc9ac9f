//! The step of a plan that takes out the rows that are not seen, above the files that hold them.
//!
//! It is a barrier for everything that a statement says: of the filters and columns asked for above
//! it, only those that can neither fail nor echo a value ([`is_leakproof`]) are let down to the
//! files, where they save reading; all others meet rows that are seen. Limits, sorts and statistics
//! do not pass. What decides about rows is read even if nobody asked for it, and dropped again.
//! Bodies that are not for the reader are not in the plan at all.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionMapping, ProjectionTargets};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, reset_plan_states};
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, FilterDescription, FilterPushdownPhase,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::leakproof::is_leakproof;
use super::row_security::RowSecurity;
use super::shown::{message, without_keys};
use crate::record::own_text;

/// What a column of the barrier is made of, by the place of a column below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// That column.
    As(usize),
    /// A message without its body; that column holds its headers.
    Headers(usize),
    /// A message without its headers; that column holds its body.
    Body(usize),
    /// The metadata of that column without the keys that are withheld.
    OtherKeys(usize),
    /// Null; nothing is read for it.
    Nothing,
}

impl Output {
    /// The same, made of a column at another place.
    fn at(self, place: usize) -> Self {
        match self {
            Self::As(_) => Self::As(place),
            Self::Headers(_) => Self::Headers(place),
            Self::Body(_) => Self::Body(place),
            Self::OtherKeys(_) => Self::OtherKeys(place),
            Self::Nothing => Self::Nothing,
        }
    }

    /// The place of the column that it is made of.
    fn place(self) -> Option<usize> {
        match self {
            Self::As(place) | Self::Headers(place) | Self::Body(place) | Self::OtherKeys(place) => {
                Some(place)
            }
            Self::Nothing => None,
        }
    }
}

/// The step.
#[derive(Clone, Debug)]
pub(super) struct SecurityBarrierExec {
    guard: Arc<RowSecurity>,
    input: Arc<dyn ExecutionPlan>,
    outputs: Vec<Output>,
    /// Places below of the columns that decide, in the guard's order.
    deciding: Vec<usize>,
    /// Rows of the files, for plans of those who may see all of them.
    rows: Option<usize>,
    /// Whether every time in the files can be told in nanoseconds.
    times_fit: bool,
    /// Whether what is below is no longer shown, nor looked at by anybody.
    sealed: bool,
    properties: Arc<PlanProperties>,
}

impl SecurityBarrierExec {
    /// A barrier above files. `schema` is what it answers with, `deciding` are the places of
    /// [`RowSecurity::needs`] below.
    pub(super) fn try_new(
        guard: Arc<RowSecurity>,
        input: Arc<dyn ExecutionPlan>,
        schema: &SchemaRef,
        outputs: Vec<Output>,
        deciding: Vec<usize>,
    ) -> Result<Self> {
        let properties = properties(&input, schema, &outputs)?;
        Ok(Self {
            guard,
            input,
            outputs,
            deciding,
            rows: None,
            times_fit: false,
            sealed: false,
            properties,
        })
    }

    /// With what is known of the files below.
    pub(super) fn over_files(self, rows: Option<usize>, times_fit: bool) -> Self {
        Self { rows, times_fit, ..self }
    }

    /// What is below.
    #[cfg(test)]
    pub(super) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// As it was before it was sealed.
    #[cfg(test)]
    pub(super) fn unsealed(&self) -> Self {
        Self { sealed: false, ..self.clone() }
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let properties = properties(&input, &self.schema(), &self.outputs)?;
        Ok(Self { input, properties, ..self.clone() })
    }

    /// An expression over the barrier's columns as one over those below; none if it needs a column
    /// that is made here.
    fn below(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let schema = self.input.schema();
        let mut made_here = false;
        let expr = Arc::clone(expr).transform_up(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            match self.outputs.get(column.index()) {
                Some(Output::As(place)) => {
                    let column = Column::new(schema.field(*place).name(), *place);
                    Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>))
                }
                _ => {
                    made_here = true;
                    Ok(Transformed::no(expr))
                }
            }
        })?;
        Ok((!made_here).then_some(expr.data))
    }

    /// The barrier above a projection to what is asked for and what decides.
    fn above_projection(&self, projection: &ProjectionExec) -> Result<Option<Self>> {
        let below = self.input.schema();
        let mut exprs: Vec<ProjectionExpr> = Vec::new();
        let mut outputs = Vec::new();
        for item in projection.expr() {
            let made_here = item
                .expr
                .downcast_ref::<Column>()
                .and_then(|column| self.outputs.get(column.index()));
            if let Some(made) = made_here.filter(|output| !matches!(output, Output::As(_))) {
                outputs.push(made.at(exprs.len()));
                if let Some(from) = made.place() {
                    let column: Arc<dyn PhysicalExpr> =
                        Arc::new(Column::new(below.field(from).name(), from));
                    exprs.push(ProjectionExpr::new(column, below.field(from).name()));
                }
                continue;
            }
            if !is_leakproof(&item.expr, &self.schema(), self.times_fit) {
                return Ok(None);
            }
            let Some(expr) = self.below(&item.expr)? else { return Ok(None) };
            outputs.push(Output::As(exprs.len()));
            exprs.push(ProjectionExpr::new(expr, &item.alias));
        }
        let mut deciding = Vec::new();
        for place in &self.deciding {
            let column = Column::new(below.field(*place).name(), *place);
            let known =
                exprs.iter().position(|item| item.expr.downcast_ref::<Column>() == Some(&column));
            deciding.push(known.unwrap_or(exprs.len()));
            if known.is_none() {
                exprs.push(ProjectionExpr::new(Arc::new(column.clone()), column.name()));
            }
        }
        let input = Arc::new(ProjectionExec::try_new(exprs, Arc::clone(&self.input))?)
            as Arc<dyn ExecutionPlan>;
        if schema_of(&input.schema(), &outputs, &projection.schema()) != *projection.schema() {
            return Ok(None);
        }
        let properties = properties(&input, &projection.schema(), &outputs)?;
        Ok(Some(Self { input, outputs, deciding, properties, ..self.clone() }))
    }
}

/// The schema of these outputs; names are those asked for where a column is made here.
fn schema_of(below: &Schema, outputs: &[Output], asked: &Schema) -> Schema {
    let field = |(output, asked): (&Output, &Arc<Field>)| match output {
        Output::As(place) => below.field(*place).clone(),
        _ => asked.as_ref().clone(),
    };
    let fields: Vec<Field> = outputs.iter().zip(asked.fields()).map(field).collect();
    Schema::new_with_metadata(fields, asked.metadata().clone())
}

/// The input's order and partitions, as far as its columns are handed on.
fn properties(
    input: &Arc<dyn ExecutionPlan>,
    schema: &SchemaRef,
    outputs: &[Output],
) -> Result<Arc<PlanProperties>> {
    let below = input.schema();
    let mut handed: Vec<(Arc<dyn PhysicalExpr>, ProjectionTargets)> = Vec::new();
    for (place, output) in outputs.iter().enumerate() {
        let Output::As(from) = output else { continue };
        let source: Arc<dyn PhysicalExpr> = Arc::new(Column::new(below.field(*from).name(), *from));
        let target: Arc<dyn PhysicalExpr> =
            Arc::new(Column::new(schema.field(place).name(), place));
        let is_source = |known: &Arc<dyn PhysicalExpr>| {
            known.downcast_ref::<Column>().map(Column::index) == Some(*from)
        };
        match handed.iter().position(|(known, _)| is_source(known)) {
            Some(known) => handed[known].1.push((target, place)),
            None => handed.push((source, ProjectionTargets::from(vec![(target, place)]))),
        }
    }
    let mapping: ProjectionMapping = handed.into_iter().collect();
    let equivalences = input.properties().equivalence_properties();
    let partitioning = input.properties().output_partitioning().project(&mapping, equivalences);
    let properties = PlanProperties::new(
        equivalences.project(&mapping, Arc::clone(schema)),
        partitioning,
        input.properties().emission_type,
        input.properties().boundedness,
    );
    Ok(Arc::new(properties))
}

impl DisplayAs for SecurityBarrierExec {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read_scope = self.guard.read_scope();
        let mut parts = vec!["retention".to_owned()];
        parts.extend(
            read_scope
                .organisation
                .iter()
                .map(|organisation| format!("organisation={organisation}")),
        );
        parts.extend(read_scope.workspace.iter().map(|workspace| format!("workspace={workspace}")));
        if !read_scope.bodies {
            parts.push("without bodies".to_owned());
        }
        if !read_scope.denied.is_empty() {
            let fields: Vec<&str> = read_scope.denied.fields().iter().map(String::as_str).collect();
            parts.push(format!("without {}", fields.join(" ")));
        }
        match form {
            DisplayFormatType::TreeRender => f.write_str(&parts.join("\n")),
            _ => write!(f, "BarrierExec: {}", parts.join(", ")),
        }
    }
}

impl ExecutionPlan for SecurityBarrierExec {
    fn name(&self) -> &'static str {
        "BarrierExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        match self.sealed {
            true => Vec::new(),
            false => vec![&self.input],
        }
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true; self.children().len()]
    }

    /// Files are dealt out by the scan; dealing out their rows again would lose their order.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.children().len()]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), options.children_properties) {
            (None, _) if self.sealed => Ok(self),
            (Some(input), ChildrenPropertiesMode::Keep) => {
                Ok(Arc::new(Self { input, ..Self::clone(&self) }))
            }
            (Some(input), ChildrenPropertiesMode::Recompute) => {
                Ok(Arc::new(self.with_input(input)?))
            }
            (None, _) => Err(DataFusionError::Internal("a barrier needs an input".to_owned())),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = match self.sealed {
            true => reset_plan_states(Arc::clone(&self.input))?,
            false => Arc::clone(&self.input),
        };
        Ok(Arc::new(Self { input, ..Self::clone(&self) }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let step = self.clone();
        let seen = input.filter_map(move |batch| {
            let seen = batch.and_then(|batch| step.keep(&batch)).transpose();
            futures::future::ready(seen)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), seen)))
    }

    /// An estimate for those who may see all files; nothing that a query could be answered from.
    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let (Some(rows), None) = (self.rows, args.partition()) {
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if self.sealed {
            return Ok(None);
        }
        Ok(self
            .above_projection(projection)?
            .map(|barrier| Arc::new(barrier) as Arc<dyn ExecutionPlan>))
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        if self.sealed {
            return Ok(FilterDescription::new());
        }
        // Filters are matched by the names of columns, so a column counts only where its name below
        // is its own.
        let (ours, below) = (self.schema(), self.input.schema());
        let straight = |(place, output): (usize, &Output)| match output {
            Output::As(from) => {
                let name = ours.field(place).name();
                (below.field(*from).name() == name && below.index_of(name).ok() == Some(*from))
                    .then_some(place)
            }
            _ => None,
        };
        let allowed = self.outputs.iter().enumerate().filter_map(straight).collect();
        let stays: Arc<dyn PhysicalExpr> = Arc::new(Column::new("", usize::MAX));
        let filters: Vec<_> = filters
            .iter()
            .map(|filter| {
                Arc::clone(if is_leakproof(filter, &ours, self.times_fit) {
                    filter
                } else {
                    &stays
                })
            })
            .collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(
            &filters,
            allowed,
            &self.input,
        )?;
        Ok(FilterDescription::new().with_child(child))
    }
}

impl SecurityBarrierExec {
    /// The rows of a batch that are seen; none if there are none.
    fn keep(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let deciding: Vec<ArrayRef> =
            self.deciding.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let mask = self.guard.mask(&deciding)?;
        let seen = mask.true_count();
        if seen == 0 {
            return Ok(None);
        }
        let take = |place: usize| match seen == batch.num_rows() {
            true => Ok(Arc::clone(batch.column(place))),
            false => filter(batch.column(place), &mask),
        };
        let schema = self.schema();
        let keys = self.guard.read_scope().withheld_keys();
        let columns =
            self.outputs.iter().zip(schema.fields()).map(|(output, field)| match output {
                Output::As(place) => Ok(take(*place)?),
                Output::Headers(place) => message(&take(*place)?, false),
                Output::Body(place) => message(&take(*place)?, true),
                Output::OtherKeys(place) => without_keys(&take(*place)?, &keys),
                Output::Nothing => Ok(new_null_array(field.data_type(), seen)),
            });
        let columns = columns
            .map(|column| column.map(|column| own_text(&column)))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(seen));
        Ok(Some(RecordBatch::try_new_with_options(self.schema(), columns, &options)?))
    }
}

/// Ends the making of a plan: of a barrier for one organisation, nobody sees any more what is below
/// it, so that EXPLAIN names no files that others share. It must come after every rule that looks
/// into the plan.
#[derive(Debug)]
pub(super) struct Seal;

impl PhysicalOptimizerRule for Seal {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| match node.downcast_ref::<SecurityBarrierExec>() {
            Some(barrier) if barrier.guard.is_bound() && !barrier.sealed => {
                let sealed = SecurityBarrierExec { sealed: true, ..barrier.clone() };
                Ok(Transformed::yes(Arc::new(sealed) as Arc<dyn ExecutionPlan>))
            }
            _ => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "seal_barriers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
