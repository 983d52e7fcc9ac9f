//! Refuses statements that read columns which are withheld from their reader.
//!
//! A key without `logs.read` gets null for the bodies of calls. A condition, an order or a count over those nulls would be
//! a wrong answer that looks like a right one, so only the columns of an answer may be withheld ones. The check follows
//! each column through the plan, from the tables up, after views, aliases and common table expressions are expanded and
//! before anything is optimised away. A withheld column may pass through as it is; every expression over it is an error
//! that names the scope. The headers of a message are not withheld.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{Column, DFSchemaRef, DataFusionError, JoinType, Result, ScalarValue};
use datafusion::functions::core::getfield::GetFieldFunc;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan, Subquery, TableScan};

use super::failure::query_failed;
use super::guard::is_message;
use super::provider::StoredTable;
use crate::error::Error;

/// Names of withheld columns, such as `request.body`.
type Names = BTreeSet<String>;

/// Checks a plan; gives the withheld columns that its answer has, which are null there.
pub(super) fn check(plan: &LogicalPlan) -> crate::error::Result<Vec<String>> {
    let answer = Walk::default().outputs_of(plan).map_err(refusal)?;
    let names: Names = answer.holds.iter().flat_map(Holds::names).cloned().collect();
    Ok(names.into_iter().collect())
}

/// What a column holds that is withheld.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Holds {
    #[default]
    Nothing,
    /// A message, whose body is withheld and whose headers are not.
    Message(Names),
    /// Nothing but a withheld value.
    Body(Names),
}

impl Holds {
    fn names(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::Nothing => None,
            Self::Message(names) | Self::Body(names) => Some(names.iter()),
        }
        .into_iter()
        .flatten()
    }

    /// The column of a union of this one and another.
    fn or(self, other: Self) -> Self {
        let names = || self.names().chain(other.names()).cloned().collect();
        match (&self, &other) {
            (Self::Nothing, _) => other,
            (_, Self::Nothing) => self,
            (Self::Message(_), Self::Message(_)) => Self::Message(names()),
            _ => Self::Body(names()),
        }
    }
}

/// The columns that a node of the plan gives.
#[derive(Clone, Debug)]
struct Outputs {
    schema: DFSchemaRef,
    /// One for each field of the schema.
    holds: Vec<Holds>,
}

impl Outputs {
    fn find(&self, column: &Column) -> Option<&Holds> {
        self.holds.get(self.schema.maybe_index_of_column(column)?)
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.holds.iter().flat_map(Holds::names)
    }

    /// Refuses rows that are compared or gone over as a whole, where they hold something.
    fn all_open(&self) -> Result<()> {
        refuse_any(self.names())
    }
}

/// Follows columns through a plan, bottom up.
#[derive(Debug, Default)]
struct Walk {
    /// What the nodes give whose parent was not visited yet.
    done: Vec<Outputs>,
    /// What surrounds the subquery that this plan is, the nearest last.
    outer: Vec<Outputs>,
}

impl<'n> TreeNodeVisitor<'n> for Walk {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        // A lateral subquery stands on the right of a join and may refer to what was visited last, its left.
        if matches!(node, LogicalPlan::Subquery(_)) {
            let left = self.done.last().cloned();
            self.outer.push(left.unwrap_or_else(|| Outputs { schema: Arc::clone(node.schema()), holds: Vec::new() }));
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        let first = self.done.len().saturating_sub(node.inputs().len());
        let inputs = self.done.split_off(first);
        if matches!(node, LogicalPlan::Subquery(_)) {
            self.outer.pop();
        }
        let holds = self.holds(node, &inputs)?;
        let schema = Arc::clone(node.schema());
        if holds.len() != schema.fields().len() {
            return Err(DataFusionError::Internal(format!("columns of {} cannot be followed", node.display())));
        }
        self.done.push(Outputs { schema, holds });
        Ok(TreeNodeRecursion::Continue)
    }
}

impl Walk {
    fn outputs_of(mut self, plan: &LogicalPlan) -> Result<Outputs> {
        plan.visit(&mut self)?;
        self.done.pop().ok_or_else(|| DataFusionError::Internal("a plan has no columns to follow".to_owned()))
    }

    /// What the columns of a node hold, by what those of its inputs do.
    fn holds(&self, node: &LogicalPlan, inputs: &[Outputs]) -> Result<Vec<Holds>> {
        let first = || inputs.first().map(|input| input.holds.clone()).unwrap_or_default();
        let nothing = |columns: usize| vec![Holds::Nothing; columns];
        match node {
            LogicalPlan::TableScan(scan) => Ok(of_table(scan)),
            LogicalPlan::Projection(projection) => self.outputs(&projection.expr, inputs),
            LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_) => {
                self.expressions_open(node, inputs)?;
                Ok(first())
            }
            LogicalPlan::Window(window) => {
                self.expressions_open(node, inputs)?;
                Ok([first(), nothing(window.window_expr.len())].concat())
            }
            LogicalPlan::Join(join) => {
                self.expressions_open(node, inputs)?;
                Ok(of_join(join, inputs))
            }
            LogicalPlan::Union(_) => {
                let mut holds = first();
                for input in inputs.iter().skip(1) {
                    let pairs = holds.into_iter().zip(input.holds.iter().cloned());
                    holds = pairs.map(|(one, other)| one.or(other)).collect();
                }
                Ok(holds)
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => {
                let sorted = distinct.sort_expr.iter().flatten().map(|sort| &sort.expr);
                distinct.on_expr.iter().chain(sorted).try_for_each(|expr| self.open(expr, inputs))?;
                self.outputs(&distinct.select_expr, inputs)
            }
            LogicalPlan::Unnest(unnest) => {
                self.expressions_open(node, inputs)?;
                let holds = first();
                let places = unnest.dependency_indices.iter();
                Ok(places.map(|place| holds.get(*place).cloned().unwrap_or_default()).collect())
            }
            // Their rows are compared, or the columns are gone over again, or nothing is known of what is done with them.
            LogicalPlan::Distinct(Distinct::All(_)) | LogicalPlan::RecursiveQuery(_) | LogicalPlan::Extension(_) => {
                inputs.iter().try_for_each(Outputs::all_open)?;
                Ok(nothing(node.schema().fields().len()))
            }
            _ => {
                self.expressions_open(node, inputs)?;
                Ok(nothing(node.schema().fields().len()))
            }
        }
    }

    /// What expressions hold that are columns of an answer.
    fn outputs(&self, exprs: &[Expr], inputs: &[Outputs]) -> Result<Vec<Holds>> {
        let output = |expr: &Expr| match self.bare(expr, inputs)? {
            Some(holds) => Ok(holds),
            None => self.open(expr, inputs).map(|()| Holds::Nothing),
        };
        exprs.iter().map(output).collect()
    }

    fn expressions_open(&self, node: &LogicalPlan, inputs: &[Outputs]) -> Result<()> {
        node.apply_expressions(|expr| self.open(expr, inputs).map(|()| TreeNodeRecursion::Continue))?;
        Ok(())
    }

    /// Refuses an expression that reads something withheld.
    fn open(&self, expr: &Expr, inputs: &[Outputs]) -> Result<()> {
        expr.apply(|part| {
            if let Some(holds) = self.bare(part, inputs)? {
                refuse_any(holds.names())?;
                return Ok(TreeNodeRecursion::Jump);
            }
            #[expect(deprecated, reason = "the planner still makes it")]
            match part {
                // It tells of rows, not of columns.
                Expr::Exists(Exists { subquery, .. }) => drop(self.subquery(subquery, inputs)?),
                Expr::InSubquery(InSubquery { subquery, .. }) | Expr::SetComparison(SetComparison { subquery, .. }) => {
                    self.subquery(subquery, inputs)?.all_open()?;
                }
                Expr::Wildcard { .. } => inputs.iter().try_for_each(Outputs::all_open)?,
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// What an expression holds that is a column, a part of one or a subquery, under whatever name; none if it is more.
    fn bare(&self, expr: &Expr, inputs: &[Outputs]) -> Result<Option<Holds>> {
        let (mut expr, mut part) = (expr, None);
        loop {
            match expr {
                Expr::Alias(alias) => expr = &alias.expr,
                Expr::ScalarFunction(function) if function.func.inner().is::<GetFieldFunc>() => {
                    let [of, names @ ..] = function.args.as_slice() else { return Ok(None) };
                    // Of a message, nothing but a text can be taken, so this is the only part, or the first one.
                    part = Some(names);
                    expr = of;
                }
                _ => break,
            }
        }
        let whole = match expr {
            Expr::Column(column) => find(column, inputs.iter())?,
            Expr::OuterReferenceColumn(_, column) => find(column, self.outer.iter().rev())?,
            Expr::ScalarSubquery(subquery) => {
                self.subquery(subquery, inputs)?.holds.into_iter().next().unwrap_or_default()
            }
            _ => return Ok(None),
        };
        Ok(match (whole, part) {
            (whole, None) => Some(whole),
            // The names of the parts may be expressions of their own.
            (Holds::Nothing, Some(_)) => None,
            (Holds::Message(_), Some([name])) if is_text(name, "headers") => Some(Holds::Nothing),
            (Holds::Message(names) | Holds::Body(names), Some(_)) => Some(Holds::Body(names)),
        })
    }

    /// Checks a subquery of an expression; gives its columns.
    fn subquery(&self, subquery: &Subquery, inputs: &[Outputs]) -> Result<Outputs> {
        let outer = self.outer.iter().chain(inputs).cloned().collect();
        Walk { done: Vec::new(), outer }.outputs_of(&subquery.subquery)
    }
}

/// What a column holds. One that is found nowhere holds all that is withheld, to be on the safe side.
fn find<'a>(column: &Column, all: impl Iterator<Item = &'a Outputs> + Clone) -> Result<Holds> {
    if let Some(holds) = all.clone().find_map(|outputs| outputs.find(column)) {
        return Ok(holds.clone());
    }
    refuse_any(all.flat_map(Outputs::names))?;
    Ok(Holds::Nothing)
}

fn is_text(expr: &Expr, text: &str) -> bool {
    use ScalarValue::{LargeUtf8, Utf8, Utf8View};
    matches!(expr, Expr::Literal(Utf8(Some(value)) | Utf8View(Some(value)) | LargeUtf8(Some(value)), _) if value == text)
}

/// What the columns of a table hold: bodies are withheld where the table says so.
fn of_table(scan: &TableScan) -> Vec<Holds> {
    let provider = source_as_provider(&scan.source).ok();
    let table = provider.as_ref().and_then(|provider| provider.downcast_ref::<StoredTable>());
    let withholds = table.is_some_and(StoredTable::withholds_bodies);
    let fields = scan.projected_schema.fields().iter();
    let holds = fields.map(|field| match withholds && is_message(field.data_type()) {
        true => Holds::Message(Names::from([format!("{}.body", field.name())])),
        false => Holds::Nothing,
    });
    holds.collect()
}

/// A join hands on the columns of its sides, of one of them, or of one and a mark.
fn of_join(join: &Join, inputs: &[Outputs]) -> Vec<Holds> {
    let side = |place: usize| inputs.get(place).map(|input| input.holds.clone()).unwrap_or_default();
    match join.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => [side(0), side(1)].concat(),
        JoinType::LeftSemi | JoinType::LeftAnti => side(0),
        JoinType::RightSemi | JoinType::RightAnti => side(1),
        JoinType::LeftMark => [side(0), vec![Holds::Nothing]].concat(),
        JoinType::RightMark => [side(1), vec![Holds::Nothing]].concat(),
    }
}

/// A statement reads these columns.
#[derive(Debug)]
struct Refused(Names);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the statement reads withheld columns")
    }
}

impl std::error::Error for Refused {}

fn refuse_any<'a>(names: impl Iterator<Item = &'a String>) -> Result<()> {
    let names: Names = names.cloned().collect();
    if names.is_empty() { Ok(()) } else { Err(DataFusionError::External(Box::new(Refused(names)))) }
}

fn refusal(error: DataFusionError) -> Error {
    let cause = match error {
        DataFusionError::External(cause) => cause,
        other => return query_failed(other),
    };
    match cause.downcast::<Refused>() {
        Ok(refused) => {
            let names: Vec<String> = refused.0.into_iter().collect();
            Error::denied(format!(
                "the statement reads `{}`, and the key lacks the scope `logs.read`: no condition, order, join, grouping or \
                 function may read it, since it is null; select it as a column alone, leave it out, or use a key with \
                 `logs.read`",
                names.join("`, `")
            ))
        }
        Err(cause) => query_failed(DataFusionError::External(cause)),
    }
}
