//! The operator `||` of texts, as a function whose result is bounded.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::{BinaryExpr as PlanBinary, Column};

use super::bounds::{self, Measure};
use super::metered::Metered;

/// Rewrites `a || b` of texts as a call of the function. Other operators are left unchanged.
pub(super) fn rewrite(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if binary.op != Operator::StringConcat {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    }
    let left = binary.left.get_type(schema)?;
    let right = binary.right.get_type(schema)?;
    let types = BinaryTypeCoercer::new(&left, &binary.op, &right).get_input_types();
    let Some((to_left, to_right)) =
        types.ok().filter(|(left, right)| is_text(left) && left == right)
    else {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    };
    let as_text =
        |expr: Expr, from: &DataType, to: DataType| if *from == to { expr } else { cast(expr, to) };
    let args =
        vec![as_text(*binary.left, &left, to_left), as_text(*binary.right, &right, to_right)];
    let func = Arc::new(Metered::wrap(Arc::new(function()), Measure::Bytes(bounds::sum)));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(Piped { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Piped {
    signature: Signature,
}

impl ScalarUDFImpl for Piped {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Utf8))
    }

    /// Returns true: a null operand makes the result null.
    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        // A rule of the optimizer may have replaced a text by one of another type.
        let to = args.return_field.data_type();
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let columns = columns.iter().map(|column| arrow::compute::cast(column, to));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let field = |(place, column): (usize, &arrow::array::ArrayRef)| {
            Field::new(place.to_string(), column.data_type().clone(), true)
        };
        let schema =
            Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema, columns)?;
        let column = |place: usize| {
            Arc::new(Column::new(&place.to_string(), place)) as Arc<dyn PhysicalExpr>
        };
        let joined =
            PlanBinary::new(column(0), Operator::StringConcat, column(1)).evaluate(&rows)?;
        match (is_one, joined) {
            (true, ColumnarValue::Array(array)) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            (_, joined) => Ok(joined),
        }
    }
}
