//! Identifies expressions that may be evaluated on rows that the reader may not see.
//!
//! A filter that is pushed into a file is evaluated on rows of others before they are removed. Most
//! functions can fail on a value and name it in their error (a cast of a text to a number, a
//! division), so only expressions that can neither fail nor echo a value are pushed down:
//! comparisons, tests for null, logic, and their operands.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::functions::core::getfield::GetFieldFunc;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr,
    LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// Returns true if an expression cannot fail on any row. `times_fit` is true if every time in the
/// files fits nanoseconds, which a comparison with `now()` needs.
pub(super) fn is_leakproof(expr: &Arc<dyn PhysicalExpr>, schema: &Schema, times_fit: bool) -> bool {
    let fine = |expr: &Arc<dyn PhysicalExpr>| is_leakproof(expr, schema, times_fit);
    if expr.is::<Column>() || expr.is::<Literal>() {
        return true;
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return compares(*binary.op()) && fine(binary.left()) && fine(binary.right());
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        return like.pattern().is::<Literal>() && fine(like.expr());
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        return list.list().iter().all(|item| item.is::<Literal>()) && fine(list.expr());
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let from = cast.expr().data_type(schema);
        return from.is_ok_and(|from| cannot_fail(&from, cast.cast_type(), times_fit))
            && fine(cast.expr());
    }
    if let Some(member) = ScalarFunctionExpr::try_downcast_func::<GetFieldFunc>(expr.as_ref()) {
        let [of, names @ ..] = member.args() else { return false };
        return names.iter().all(|name| name.is::<Literal>()) && fine(of);
    }
    let transparent = expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        // It resolves to comparisons of these expressions.
        || expr.is::<DynamicFilterPhysicalExpr>();
    transparent && expr.children().into_iter().all(fine)
}

fn compares(operator: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(
        operator,
        And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    )
}

/// Returns true if every value of one type can be cast to the other.
fn cannot_fail(from: &DataType, to: &DataType, times_fit: bool) -> bool {
    use DataType::{Boolean, Float64, Int32, Int64, Timestamp, Utf8, Utf8View};
    match (from, to) {
        (Int32, Int64 | Float64 | Boolean) | (Int64, Float64) | (Utf8, Utf8View) => true,
        (Timestamp(TimeUnit::Microsecond, from), Timestamp(unit, to)) => match unit {
            TimeUnit::Microsecond => from.is_some() == to.is_some(),
            TimeUnit::Nanosecond => times_fit && from.is_some() == to.is_some(),
            _ => false,
        },
        _ => from == to,
    }
}
