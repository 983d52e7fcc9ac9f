//! The operators `+`, `-` and `*` of whole numbers, and the sign `-`, as functions that return an
//! error if the result does not fit its type. DataFusion's own operators wrap around silently.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::{BinaryExpr as PlanBinary, Column, Literal};

/// Rewrites an operation of whole numbers as a call of its function. Other operations are left
/// unchanged.
pub(super) fn rewrite(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !matches!(binary.op, Operator::Plus | Operator::Minus | Operator::Multiply) {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    }
    // A later rule refuses expressions without a type.
    let types =
        type_of(&binary.left, schema).and_then(|left| Ok([left, type_of(&binary.right, schema)?]));
    let Ok([left, right]) = types else { return Ok(Transformed::no(Expr::BinaryExpr(binary))) };
    let common = BinaryTypeCoercer::new(&left, &binary.op, &right).get_input_types();
    let Some((common, _)) = common.ok().filter(|(left, right)| left.is_integer() && left == right)
    else {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    };
    if let Some(value) = constant(&binary, &common) {
        return Ok(Transformed::yes(lit(value)));
    }
    Ok(Transformed::yes(call(binary.op, common, vec![*binary.left, *binary.right])))
}

/// Returns the type of an expression. That of an operation is stored in it, so that a chain of
/// operations takes linear time.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    let Expr::ScalarFunction(ScalarFunction { func, .. }) = expr else {
        return expr.get_type(schema);
    };
    func.inner()
        .downcast_ref::<Checked>()
        .map_or_else(|| expr.get_type(schema), |checked| Ok(checked.kind.clone()))
}

/// Returns the result of an operation on two constants, if it fits. A chain of constants is folded
/// step by step.
fn constant(binary: &BinaryExpr, common: &DataType) -> Option<ScalarValue> {
    let side = |expr: &Expr| match expr {
        Expr::Literal(value, None) => value.cast_to(common).ok(),
        _ => None,
    };
    let left = side(&binary.left)?;
    let right = side(&binary.right)?;
    match binary.op {
        Operator::Plus => left.add_checked(&right).ok(),
        Operator::Minus => left.sub_checked(&right).ok(),
        _ => left.mul_checked(&right).ok(),
    }
}

/// Rewrites the negative of a whole number as a subtraction from 0. Other types are left unchanged.
pub(super) fn rewrite_negative(inner: Box<Expr>, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let of = match type_of(&inner, schema) {
        Ok(of) if of.is_signed_integer() => of,
        _ => return Ok(Transformed::no(Expr::Negative(inner))),
    };
    let zero = lit(ScalarValue::new_zero(&of)?);
    Ok(Transformed::yes(call(Operator::Minus, of, vec![zero, *inner])))
}

fn call(operator: Operator, kind: DataType, args: Vec<Expr>) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    let checked = Checked { operator, kind, signature };
    Expr::ScalarFunction(ScalarFunction { func: Arc::new(ScalarUDF::new_from_impl(checked)), args })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operator: Operator,
    /// Type of the result when the call was created. It changes if an operand is a CASE, which has
    /// the type of its first branch until its branches get their common type.
    kind: DataType,
    signature: Signature,
}

impl Checked {
    fn pair<'a, T>(&self, sides: &'a [T]) -> Result<[&'a T; 2]> {
        match sides {
            [left, right] => Ok([left, right]),
            _ => Err(DataFusionError::Internal(format!("`{}` has two sides", self.name()))),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.operator {
            Operator::Plus => "+",
            Operator::Minus => "-",
            _ => "*",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, sides: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = self.pair(sides)?;
        let (left, right) =
            BinaryTypeCoercer::new(left, &self.operator, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, sides: &[DataType]) -> Result<DataType> {
        let [left, right] = self.pair(sides)?;
        BinaryTypeCoercer::new(left, &self.operator, right).get_result_type()
    }

    /// Returns true: a null operand makes the result null.
    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut columns = Vec::new();
        let mut sides = Vec::new();
        for arg in args.args {
            let side: Arc<dyn PhysicalExpr> = match arg {
                ColumnarValue::Scalar(value) => Arc::new(Literal::new(value)),
                ColumnarValue::Array(column) => {
                    let place = columns.len();
                    columns.push(column);
                    Arc::new(Column::new(&place.to_string(), place))
                }
            };
            sides.push(side);
        }
        let [left, right] = self.pair(&sides)?.map(Arc::clone);
        let field = |(place, column): (usize, &arrow::array::ArrayRef)| {
            Field::new(place.to_string(), column.data_type().clone(), true)
        };
        let schema =
            Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(args.number_rows));
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let result =
            PlanBinary::new(left, self.operator, right).with_fail_on_overflow(true).evaluate(&rows);
        result.map_err(|error| overflow(error, args.return_field.data_type()))
    }
}

/// Converts the error of an overflow to one with a remedy.
fn overflow(error: DataFusionError, kind: &DataType) -> DataFusionError {
    let DataFusionError::ArrowError(cause, _) = &error else { return error };
    let ArrowError::ArithmeticOverflow(text) = cause.as_ref() else { return error };
    let operation = text.strip_prefix("Overflow happened on: ").unwrap_or(text);
    let bits = kind.primitive_width().map_or(64, |bytes| 8 * bytes);
    exec_datafusion_err!(
        "{operation} does not fit {bits} bits; use numbers of another type, such as `cast(x as double)`"
    )
}

#[cfg(test)]
mod tests {
    use datafusion::execution::FunctionRegistry;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn ask(statement: &str) -> Result<String> {
        let mut state = SessionStateBuilder::new().with_default_features().build();
        state.register_function_rewrite(Arc::new(super::super::Bounding))?;
        let rows = SessionContext::new_with_state(state).sql(statement).await?.collect().await?;
        let cells =
            rows.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
        let text = |(batch, row): (&RecordBatch, usize)| {
            arrow::util::display::array_value_to_string(batch.column(0), row).unwrap_or_default()
        };
        Ok(cells.map(text).collect::<Vec<_>>().join(" "))
    }

    const LARGEST: &str = "9223372036854775807";
    const ROWS: &str =
        "(values (1, 9223372036854775807), (2, -9223372036854775807), (3, null)) t(g, x)";

    #[tokio::test]
    async fn what_does_not_fit_is_an_error_in_every_form() {
        for form in [
            "x + 1",
            "1 + x",
            "x - g - 2",
            "x * 2",
            "x + x",
            "-(x - 2)",
            "-(-x - 1) * -1",
            "abs(x - 1)",
            "cast(x as bigint) + cast(g as smallint)",
            "cast(2147483647 as int) + cast(g as int)",
            "cast(0 as bigint unsigned) - cast(g as bigint unsigned)",
        ] {
            for statement in [
                format!("select {form} from {ROWS}"),
                format!("select g from {ROWS} where {form} > 7 or g > 0 order by {form}"),
                format!("select count(*) from {ROWS} group by {form}"),
                format!("select sum({form}) over () from {ROWS}"),
            ] {
                let error = ask(&statement).await.expect_err(&statement).to_string();
                assert!(
                    error.contains("does not fit") || error.contains("verflow"),
                    "{statement}: {error}"
                );
            }
        }
        for constant in
            [format!("{LARGEST} + 1"), format!("-{LARGEST} - 2"), format!("{LARGEST} * 2")]
        {
            let error = ask(&format!("select {constant}")).await.expect_err(&constant).to_string();
            assert!(error.contains("does not fit 64 bits; use numbers"), "{constant}: {error}");
        }
    }

    #[tokio::test]
    async fn what_fits_is_as_it_was() {
        for (form, expected) in [
            ("g + 1", "2 3 4"),
            ("x - 1 + 1", "9223372036854775807 -9223372036854775807 "),
            ("-g", "-1 -2 -3"),
            ("- -g", "1 2 3"),
            ("g * 1.5", "1.5 3.0 4.5"),
            ("g + null", "  "),
            ("cast(g as double) * 1e300 * 1e300", "inf inf inf"),
            ("cast(g as int) + cast(1 as bigint)", "2 3 4"),
            ("cast(g as bigint unsigned) + cast(-5 as bigint)", "-4 -3 -2"),
            (
                "date '2026-01-01' + interval '1 day' * g",
                "2026-01-02T00:00:00 2026-01-03T00:00:00 2026-01-04T00:00:00",
            ),
            ("date '2026-01-03' - date '2026-01-01'", "2 2 2"),
            (
                "-9223372036854775807 - 1",
                "-9223372036854775808 -9223372036854775808 -9223372036854775808",
            ),
            ("1 + 2 * 3", "7 7 7"),
            // The type of the first branch is narrower than that of the CASE.
            ("case when g > 1 then cast(g as int) else g end + cast(g as int)", "2 4 6"),
            ("cast(1 as int) - case when g > 1 then cast(g as int) else g end", "0 -1 -2"),
            ("-case when g > 1 then cast(g as int) else x end", "-9223372036854775807 -2 -3"),
            ("case when g > 1 then g else 0.5 end + g", "1.5 4.0 6.0"),
        ] {
            let statement = format!("select {form} from {ROWS} order by g");
            match ask(&statement).await {
                Ok(answer) => assert_eq!(answer, expected, "{statement}"),
                // Some versions of the engine cannot multiply intervals.
                Err(error) => assert!(form.contains("interval"), "{statement}: {error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_case_of_a_derived_table_has_the_type_of_all_its_branches() {
        let inner =
            format!("select case when g > 2 then cast(g as int) else x end as c from {ROWS}");
        for (form, expected) in [
            ("max(c - cast(1 as int))", "9223372036854775806"),
            ("max(cast(0 as int) - c)", "9223372036854775807"),
            ("max(-c)", "9223372036854775807"),
        ] {
            let statement = format!("select {form} from ({inner}) u where c > 3 or c < 0");
            match ask(&statement).await {
                Ok(answer) => assert_eq!(answer, expected, "{statement}"),
                Err(error) => panic!("{statement}: {error}"),
            }
        }
    }
}
