//! The step of a plan that removes invisible rows, above the files that hold them.
//!
//! It is a security barrier for the whole statement: of the filters and columns requested above it,
//! only those that can neither fail nor echo a value ([`is_leakproof`]) are pushed down to the
//! files, where they save reading. All others are evaluated on visible rows only. Limits, sorts and
//! statistics do not pass. Columns that decide on visibility are read even if they are not
//! requested, and dropped again. Bodies that the reader may not see are not in the plan at all.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::filter;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
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
use super::without_expressions::without_expressions;
use crate::record::own_text;

/// Source of an output column of the barrier, by position of the input column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The input column itself.
    As(usize),
    /// A message without its body. The input column holds its headers.
    Headers(usize),
    /// A message without its headers. The input column holds its body.
    Body(usize),
    /// The metadata of the input column without withheld keys.
    OtherKeys(usize),
    /// Null. Nothing is read for it.
    Nothing,
}

impl Output {
    /// Returns the same source at another position.
    fn at(self, place: usize) -> Self {
        match self {
            Self::As(_) => Self::As(place),
            Self::Headers(_) => Self::Headers(place),
            Self::Body(_) => Self::Body(place),
            Self::OtherKeys(_) => Self::OtherKeys(place),
            Self::Nothing => Self::Nothing,
        }
    }

    /// Returns the position of the input column.
    fn place(self) -> Option<usize> {
        match self {
            Self::As(place) | Self::Headers(place) | Self::Body(place) | Self::OtherKeys(place) => {
                Some(place)
            }
            Self::Nothing => None,
        }
    }
}

/// The execution plan of the barrier.
#[derive(Clone, Debug)]
pub(super) struct SecurityBarrierExec {
    guard: Arc<RowSecurity>,
    input: Arc<dyn ExecutionPlan>,
    outputs: Vec<Output>,
    /// Positions of the deciding columns in the input, in the order of [`RowSecurity::needs`].
    deciding: Vec<usize>,
    /// Number of rows of the files, for readers who may see all of them.
    rows: Option<usize>,
    /// True if every time in the files fits nanoseconds.
    times_fit: bool,
    /// True if the input is hidden in displayed plans and from further rules.
    sealed: bool,
    properties: Arc<PlanProperties>,
}

impl SecurityBarrierExec {
    /// Creates a barrier above files. `schema` is that of the output, `deciding` are the positions
    /// of [`RowSecurity::needs`] in the input.
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

    /// Sets the known properties of the files.
    pub(super) fn over_files(self, rows: Option<usize>, times_fit: bool) -> Self {
        Self { rows, times_fit, ..self }
    }

    /// Returns the input.
    #[cfg(test)]
    pub(super) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// Returns the barrier as it was before it was sealed.
    #[cfg(test)]
    pub(super) fn unsealed(&self) -> Self {
        Self { sealed: false, ..self.clone() }
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let properties = properties(&input, &self.schema(), &self.outputs)?;
        Ok(Self { input, properties, ..self.clone() })
    }

    /// Translates an expression over the barrier's columns to one over its input. `None` if it
    /// needs a column that the barrier computes.
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

    /// Returns the barrier above a projection to the requested and the deciding columns.
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

/// Returns the schema of these outputs. Computed columns get the requested names.
fn schema_of(below: &Schema, outputs: &[Output], asked: &Schema) -> Schema {
    let field = |(output, asked): (&Output, &Arc<Field>)| match output {
        Output::As(place) => below.field(*place).clone(),
        _ => asked.as_ref().clone(),
    };
    let fields: Vec<Field> = outputs.iter().zip(asked.fields()).map(field).collect();
    Schema::new_with_metadata(fields, asked.metadata().clone())
}

/// Returns the input's order and partitioning, as far as its columns are passed on.
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
        if self.sealed { Vec::new() } else { vec![&self.input] }
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true; self.children().len()]
    }

    /// The scan distributes the files; distributing their rows again would lose their order.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.children().len()]
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

    without_expressions!();

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = if self.sealed {
            reset_plan_states(Arc::clone(&self.input))?
        } else {
            Arc::clone(&self.input)
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

    /// Returns an estimate for readers who may see all files. It cannot answer a query.
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
        // Filters are matched by the names of columns, so a column counts only if it has the same
        // name in the input.
        let ours = self.schema();
        let below = self.input.schema();
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
    /// Returns the visible rows of a batch. `None` if there are none.
    fn keep(&self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let deciding: Vec<ArrayRef> =
            self.deciding.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let mask = self.guard.mask(&deciding)?;
        let seen = mask.true_count();
        if seen == 0 {
            return Ok(None);
        }
        let take = |place: usize| {
            if seen == batch.num_rows() {
                Ok(Arc::clone(batch.column(place)))
            } else {
                filter(batch.column(place), &mask)
            }
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

/// The last rule of planning: hides the input of a barrier for one organisation, so that EXPLAIN
/// names no files that others share. It must come after every rule that inspects the plan.
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
