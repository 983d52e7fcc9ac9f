//! Accepts `is_success`, which is stored as 1 or 0, wherever SQL expects a boolean.
//!
//! The column keeps its stored form for older data and clients; only statements are rewritten. If
//! the column is a condition by itself, or is compared with a boolean, it is cast to a boolean. A
//! column of that name that is a boolean already, such as one of a subquery, means the same with
//! the cast.

use std::ops::ControlFlow;

use datafusion::common::{ParamValues, ScalarValue};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Select, UnaryOperator, Value, VisitMut, VisitorMut,
};

const COLUMN: &str = "is_success";

/// Casts `is_success` to a boolean wherever a statement uses it as one. `params` are the values of
/// the placeholders.
pub(super) fn cast(statement: &mut Statement, params: &ParamValues) {
    match statement {
        Statement::Statement(statement) => {
            // The visitor never breaks off.
            let _ = statement.visit(&mut Caster { params });
        }
        Statement::Explain(explain) => cast(&mut explain.statement, params),
        _ => {}
    }
}

struct Caster<'p> {
    params: &'p ParamValues,
}

impl VisitorMut for Caster<'_> {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        [&mut select.selection, &mut select.having, &mut select.qualify]
            .into_iter()
            .flatten()
            .for_each(as_boolean);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::UnaryOp { op: UnaryOperator::Not, expr }
            | Expr::IsTrue(expr)
            | Expr::IsNotTrue(expr)
            | Expr::IsFalse(expr)
            | Expr::IsNotFalse(expr) => as_boolean(expr),
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                as_boolean(left);
                as_boolean(right);
            }
            Expr::BinaryOp { left, op, right } if compares(op) => self.compared(left, right),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.compared(left, right)
            }
            Expr::InList { expr, list, .. } if list.iter().any(|item| self.is_boolean(item)) => {
                as_boolean(expr)
            }
            Expr::Case { operand: None, conditions, .. } => {
                conditions.iter_mut().for_each(|when| as_boolean(&mut when.condition));
            }
            Expr::Case { operand: Some(operand), conditions, .. }
                if conditions.iter().any(|when| self.is_boolean(&when.condition)) =>
            {
                as_boolean(operand);
            }
            Expr::Function(function) => {
                function.filter.iter_mut().for_each(|filter| as_boolean(filter))
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Caster<'_> {
    fn compared(&self, left: &mut Expr, right: &mut Expr) {
        if self.is_boolean(right) {
            as_boolean(left);
        } else if self.is_boolean(left) {
            as_boolean(right);
        }
    }

    /// Returns true if the form of an expression makes it a boolean.
    fn is_boolean(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Nested(inner) => self.is_boolean(inner),
            Expr::Value(value) => match &value.value {
                Value::Boolean(_) => true,
                Value::Placeholder(name) => {
                    let bound = self.params.get_placeholders_with_values(name);
                    bound.is_ok_and(|bound| matches!(bound.value, ScalarValue::Boolean(_)))
                }
                _ => false,
            },
            Expr::UnaryOp { op: UnaryOperator::Not, .. }
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::Between { .. }
            | Expr::InList { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::Exists { .. } => true,
            Expr::BinaryOp { op, .. } => {
                compares(op) || matches!(op, BinaryOperator::And | BinaryOperator::Or)
            }
            Expr::Cast { data_type, .. } => matches!(data_type, DataType::Boolean | DataType::Bool),
            _ => false,
        }
    }
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Casts an expression that is just the column.
fn as_boolean(expr: &mut Expr) {
    let name = match expr {
        Expr::Nested(inner) => return as_boolean(inner),
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(names) if !names.is_empty() => &names[names.len() - 1],
        _ => return,
    };
    if !name.value.eq_ignore_ascii_case(COLUMN) {
        return;
    }
    let column = std::mem::replace(expr, Expr::Value(Value::Null.into()));
    *expr = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(column),
        data_type: DataType::Boolean,
        array: false,
        format: None,
    };
}
