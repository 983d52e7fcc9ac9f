//! Refuses statements that read columns which are withheld from their reader.
//!
//! A key without `logs.read` gets null for the bodies of calls, and every key of an organisation
//! for its denied fields. A condition, an order or a count over those nulls would be a wrong answer
//! that looks right, so withheld columns may only be columns of the answer. The check follows each
//! column through the plan, from the tables up, after views, aliases and common table expressions
//! are expanded and before the plan is optimized. A withheld column may be passed on unchanged;
//! every expression over it is an error that names the column and the reason. If the body of a
//! message is withheld, its headers are not; if a key of the metadata is, the other keys are not.
//!
//! Reports and analytics are gatelog's own statements, which compute more than each answer needs.
//! In these, an expression over a withheld column is an error if it decides on rows (a condition, a
//! join, a group, an order), or if it is in the answer. Analytics get a list of such figures
//! instead, since they have others beside them ([`Reads::Figures`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{Column, DFSchemaRef, DataFusionError, JoinType, Result, ScalarValue};
use datafusion::functions::core::getfield::GetFieldFunc;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, Join, LogicalPlan, Operator, Subquery, TableScan,
};

use super::failure::query_failed;
use super::provider::StoredTable;
use super::shown::Shown;
use crate::catalog::Denied;
use crate::error::Error;

/// Names of withheld columns, such as `request.body`.
type Names = BTreeSet<String>;

/// Author of a statement, which decides how it may read withheld columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A client: every expression over a withheld column is an error.
    #[default]
    Anything,
    /// A report: an expression over a withheld column is an error if it decides on rows or is in
    /// the answer.
    Report,
    /// Analytics: columns of the answer that are computed from withheld ones are listed, and their
    /// values are meaningless.
    Figures,
}

/// Withheld columns of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Withheld {
    /// Withheld columns that the answer has, which are null there, such as `request.body`.
    pub columns: Vec<String>,
    /// Columns of the answer that are computed from withheld ones, with these. Only for
    /// [`Reads::Figures`].
    pub figures: BTreeMap<String, BTreeSet<String>>,
}

/// Checks a plan. Returns the withheld columns of its answer.
pub(super) fn check(
    plan: &LogicalPlan,
    reads: Reads,
    denied: &Denied,
) -> crate::error::Result<Withheld> {
    let walk = Walk { reads, ..Walk::default() };
    let checked = walk.outputs_of(plan).and_then(|answer| {
        let mut columns = Names::new();
        let mut figures = BTreeMap::new();
        for (field, holds) in answer.schema.fields().iter().zip(&answer.holds) {
            match holds {
                Holds::Made(names) if reads == Reads::Figures => {
                    figures.insert(field.name().clone(), names.clone());
                }
                Holds::Made(names) => refuse_any(names.iter())?,
                holds => columns.extend(holds.names().cloned()),
            }
        }
        Ok(Withheld { columns: columns.into_iter().collect(), figures })
    });
    checked.map_err(|error| refusal(error, denied))
}

/// Withheld content of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Holds {
    #[default]
    Nothing,
    /// A message or the metadata, parts of which are withheld.
    Parts(Names, Open),
    /// Only a withheld value.
    Value(Names),
    /// The result of an expression over withheld values, in a statement of gatelog itself.
    Made(Names),
}

/// The parts of a column that are not withheld.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Open {
    /// This side of a message.
    Side(&'static str),
    /// All keys of the metadata but these.
    KeysBut(BTreeSet<String>),
}

impl Open {
    fn has(&self, part: &str) -> bool {
        match self {
            Self::Side(side) => part == *side,
            Self::KeysBut(keys) => !keys.contains(part),
        }
    }
}

impl Holds {
    fn names(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::Nothing => None,
            Self::Parts(names, _) | Self::Value(names) | Self::Made(names) => Some(names.iter()),
        }
        .into_iter()
        .flatten()
    }

    /// Returns the content of a column of a union of two inputs.
    fn or(self, other: Self) -> Self {
        let names = || self.names().chain(other.names()).cloned().collect();
        match (&self, &other) {
            (Self::Nothing, _) => other,
            (_, Self::Nothing) => self,
            (Self::Made(_), _) | (_, Self::Made(_)) => Self::Made(names()),
            (Self::Parts(_, open), Self::Parts(_, also)) if open == also => {
                Self::Parts(names(), open.clone())
            }
            _ => Self::Value(names()),
        }
    }
}

/// Output columns of a node of the plan.
#[derive(Clone, Debug)]
struct Outputs {
    schema: DFSchemaRef,
    /// Content of each field of the schema.
    holds: Vec<Holds>,
}

impl Outputs {
    fn find(&self, column: &Column) -> Option<&Holds> {
        self.holds.get(self.schema.maybe_index_of_column(column)?)
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.holds.iter().flat_map(Holds::names)
    }

    /// Returns an error if rows with withheld content are compared or processed as a whole.
    fn all_open(&self) -> Result<()> {
        refuse_any(self.names())
    }
}

/// Follows columns through a plan, bottom up.
#[derive(Debug, Default)]
struct Walk {
    reads: Reads,
    /// Outputs of the nodes whose parent has not been visited yet.
    done: Vec<Outputs>,
    /// Inputs of the queries around this subquery, the nearest last.
    outer: Vec<Outputs>,
}

impl<'n> TreeNodeVisitor<'n> for Walk {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        // A lateral subquery is the right side of a join and may refer to the left side, which was
        // visited last.
        if matches!(node, LogicalPlan::Subquery(_)) {
            let left = self.done.last().cloned();
            self.outer.push(left.unwrap_or_else(|| Outputs {
                schema: Arc::clone(node.schema()),
                holds: Vec::new(),
            }));
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
            return Err(DataFusionError::Internal(format!(
                "columns of {} cannot be followed",
                node.display()
            )));
        }
        self.done.push(Outputs { schema, holds });
        Ok(TreeNodeRecursion::Continue)
    }
}

impl Walk {
    fn outputs_of(mut self, plan: &LogicalPlan) -> Result<Outputs> {
        plan.visit(&mut self)?;
        self.done
            .pop()
            .ok_or_else(|| DataFusionError::Internal("a plan has no columns to follow".to_owned()))
    }

    /// Returns the content of a node's columns, given that of its inputs.
    fn holds(&self, node: &LogicalPlan, inputs: &[Outputs]) -> Result<Vec<Holds>> {
        let first = || inputs.first().map(|input| input.holds.clone()).unwrap_or_default();
        let nothing = |columns: usize| vec![Holds::Nothing; columns];
        match node {
            LogicalPlan::TableScan(scan) => Ok(from_scan(scan)),
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
                let made = window.window_expr.iter().map(|expr| self.made(expr, inputs));
                Ok([first(), made.collect::<Result<Vec<_>>>()?].concat())
            }
            LogicalPlan::Aggregate(aggregate) => {
                aggregate.group_expr.iter().try_for_each(|expr| self.open(expr, inputs))?;
                let keys = node.schema().fields().len().saturating_sub(aggregate.aggr_expr.len());
                let made = aggregate.aggr_expr.iter().map(|expr| self.made(expr, inputs));
                Ok([nothing(keys), made.collect::<Result<Vec<_>>>()?].concat())
            }
            LogicalPlan::Join(join) => {
                self.expressions_open(node, inputs)?;
                Ok(from_join(join, inputs))
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
                distinct
                    .on_expr
                    .iter()
                    .chain(sorted)
                    .try_for_each(|expr| self.open(expr, inputs))?;
                self.outputs(&distinct.select_expr, inputs)
            }
            LogicalPlan::Unnest(unnest) => {
                self.expressions_open(node, inputs)?;
                let holds = first();
                let places = unnest.dependency_indices.iter();
                Ok(places.map(|place| holds.get(*place).cloned().unwrap_or_default()).collect())
            }
            // Their rows are compared, or their columns are computed in an unknown way.
            LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::RecursiveQuery(_)
            | LogicalPlan::Extension(_) => {
                inputs.iter().try_for_each(Outputs::all_open)?;
                Ok(nothing(node.schema().fields().len()))
            }
            _ => {
                self.expressions_open(node, inputs)?;
                Ok(nothing(node.schema().fields().len()))
            }
        }
    }

    /// Returns the content of expressions that are columns of an answer.
    fn outputs(&self, exprs: &[Expr], inputs: &[Outputs]) -> Result<Vec<Holds>> {
        let output = |expr: &Expr| match self.bare(expr, inputs)? {
            Some(holds) => Ok(holds),
            None => self.made(expr, inputs),
        };
        exprs.iter().map(output).collect()
    }

    /// Returns the content of an expression. A client's expression may not read anything withheld.
    fn made(&self, expr: &Expr, inputs: &[Outputs]) -> Result<Holds> {
        if self.reads == Reads::Anything {
            return self.open(expr, inputs).map(|()| Holds::Nothing);
        }
        let names = self.read_by(expr, inputs)?;
        Ok(if names.is_empty() { Holds::Nothing } else { Holds::Made(names) })
    }

    fn expressions_open(&self, node: &LogicalPlan, inputs: &[Outputs]) -> Result<()> {
        node.apply_expressions(|expr| {
            self.open(expr, inputs).map(|()| TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// Returns an error if an expression reads withheld content.
    fn open(&self, expr: &Expr, inputs: &[Outputs]) -> Result<()> {
        refuse_any(self.read_by(expr, inputs)?.iter())
    }

    /// Returns the withheld columns that an expression reads.
    fn read_by(&self, expr: &Expr, inputs: &[Outputs]) -> Result<Names> {
        let mut names = Names::new();
        expr.apply(|part| {
            if let Some(holds) = self.bare(part, inputs)? {
                names.extend(holds.names().cloned());
                return Ok(TreeNodeRecursion::Jump);
            }
            #[expect(deprecated, reason = "the planner still makes it")]
            match part {
                // It depends on rows, not on columns.
                Expr::Exists(Exists { subquery, .. }) => drop(self.subquery(subquery, inputs)?),
                Expr::InSubquery(InSubquery { subquery, .. })
                | Expr::SetComparison(SetComparison { subquery, .. }) => {
                    names.extend(self.subquery(subquery, inputs)?.names().cloned());
                }
                Expr::Wildcard { .. } => {
                    names.extend(inputs.iter().flat_map(Outputs::names).cloned())
                }
                // A report's parameter that was not given restricts nothing.
                other if is_true(other) => return Ok(TreeNodeRecursion::Jump),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(names)
    }

    /// Returns the content of an expression that is just a column, a part of one or a subquery,
    /// under any name. `None` for any other expression.
    fn bare(&self, expr: &Expr, inputs: &[Outputs]) -> Result<Option<Holds>> {
        let mut expr = expr;
        let mut part = None;
        loop {
            match expr {
                Expr::Alias(alias) => expr = &alias.expr,
                Expr::ScalarFunction(function) if function.func.inner().is::<GetFieldFunc>() => {
                    let [of, names @ ..] = function.args.as_slice() else { return Ok(None) };
                    // Only a text can be taken from a message or the metadata, so this is the only
                    // part, or the first one.
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
            // The names of the parts may be expressions themselves.
            (Holds::Nothing, Some(_)) => None,
            (Holds::Parts(_, open), Some([name]))
                if text(name).is_some_and(|name| open.has(name)) =>
            {
                Some(Holds::Nothing)
            }
            (Holds::Parts(names, _) | Holds::Value(names), Some(_)) => Some(Holds::Value(names)),
            (Holds::Made(names), Some(_)) => Some(Holds::Made(names)),
        })
    }

    /// Checks a subquery of an expression. Returns its columns.
    fn subquery(&self, subquery: &Subquery, inputs: &[Outputs]) -> Result<Outputs> {
        let outer = self.outer.iter().chain(inputs).cloned().collect();
        Walk { reads: self.reads, done: Vec::new(), outer }.outputs_of(&subquery.subquery)
    }
}

/// Returns the content of a column. A column that is not found counts as wholly withheld, to be
/// safe.
fn find<'a>(column: &Column, all: impl Iterator<Item = &'a Outputs> + Clone) -> Result<Holds> {
    if let Some(holds) = all.clone().find_map(|outputs| outputs.find(column)) {
        return Ok(holds.clone());
    }
    refuse_any(all.flat_map(Outputs::names))?;
    Ok(Holds::Nothing)
}

fn text(expr: &Expr) -> Option<&str> {
    use ScalarValue::{LargeUtf8, Utf8, Utf8View};
    match expr {
        Expr::Literal(Utf8(Some(value)) | Utf8View(Some(value)) | LargeUtf8(Some(value)), _) => {
            Some(value)
        }
        _ => None,
    }
}

/// Returns true if an expression is `null is null`, or a disjunction with it.
fn is_true(expr: &Expr) -> bool {
    match expr {
        Expr::IsNull(of) => matches!(of.as_ref(), Expr::Literal(value, _) if value.is_null()),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            is_true(left) || is_true(right)
        }
        _ => false,
    }
}

/// Returns the content of the columns of a table, by their visible parts.
fn from_scan(scan: &TableScan) -> Vec<Holds> {
    let provider = source_as_provider(&scan.source).ok();
    let table = provider.as_ref().and_then(|provider| provider.downcast_ref::<StoredTable>());
    let Some(guard) = table.and_then(StoredTable::guard) else {
        return vec![Holds::Nothing; scan.projected_schema.fields().len()];
    };
    let fields = scan.projected_schema.fields().iter();
    let holds = fields.map(|field| {
        let names = guard.withheld_names(field.name());
        match guard.shows(field.name()) {
            Shown::All => Holds::Nothing,
            Shown::Headers => Holds::Parts(names, Open::Side("headers")),
            Shown::Body => Holds::Parts(names, Open::Side("body")),
            Shown::OtherKeys => {
                Holds::Parts(names, Open::KeysBut(guard.read_scope().withheld_keys()))
            }
            Shown::Nothing => Holds::Value(names),
        }
    });
    holds.collect()
}

/// Returns the content of a join's columns: those of its sides, of one of them, or of one and a
/// mark.
fn from_join(join: &Join, inputs: &[Outputs]) -> Vec<Holds> {
    let side =
        |place: usize| inputs.get(place).map(|input| input.holds.clone()).unwrap_or_default();
    match join.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
            [side(0), side(1)].concat()
        }
        JoinType::LeftSemi | JoinType::LeftAnti => side(0),
        JoinType::RightSemi | JoinType::RightAnti => side(1),
        JoinType::LeftMark => [side(0), vec![Holds::Nothing]].concat(),
        JoinType::RightMark => [side(1), vec![Holds::Nothing]].concat(),
    }
}

/// Error of a statement that reads these columns.
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

fn refusal(error: DataFusionError, denied: &Denied) -> Error {
    let cause = match error {
        DataFusionError::External(cause) => cause,
        other => return query_failed(other),
    };
    match cause.downcast::<Refused>() {
        Ok(refused) => refused.explained(denied),
        Err(cause) => query_failed(DataFusionError::External(cause)),
    }
}

impl Refused {
    fn explained(&self, denied: &Denied) -> Error {
        Error::denied(refused_text(A_STATEMENT, &self.0, denied))
    }
}

/// Subject of this file's errors, at the start of their messages.
pub(crate) const A_STATEMENT: &str = "the statement";

/// Returns the error for reading withheld columns, with its remedies.
pub(crate) fn refused_text(reader: &str, columns: &BTreeSet<String>, denied: &Denied) -> String {
    let quoted = |names: &[&str]| format!("`{}`", names.join("`, `"));
    let (fields, bodies): (Vec<&str>, Vec<&str>) = columns
        .iter()
        .map(String::as_str)
        .partition(|column| denied.revealed_by(column).next().is_some());
    let denying: BTreeSet<&str> =
        fields.iter().flat_map(|column| denied.revealed_by(column)).collect();
    let denying: Vec<&str> = denying.into_iter().collect();
    let mut reads = Vec::new();
    let mut remedies = Vec::new();
    if !bodies.is_empty() {
        reads.push(format!("{}, and the key lacks the scope `logs.read`", quoted(&bodies)));
        remedies.push("use a key with `logs.read`");
    }
    if !fields.is_empty() {
        let named =
            if denying == fields { String::new() } else { format!(" ({})", quoted(&denying)) };
        reads.push(format!(
            "{}, which the denied fields of this organisation or workspace{named} withhold",
            quoted(&fields)
        ));
        remedies.push("ask the operator");
    }
    format!(
        "{reader} reads {}: no condition, order, join, grouping or function may read it, since it is null; select it as a \
         column alone, leave it out, or {}",
        reads.join("; and "),
        remedies.join(" and ")
    )
}
