//! Wraps a scalar function whose result or work can be far larger than its arguments.
//!
//! The bound of a function is the maximum of bytes or steps for a row, computed from its arguments.
//! Rows are evaluated in slices of bounded size, with a check of the deadline between them. Memory
//! for a result is reserved in the pool of queries before the result is computed, and released when
//! its last buffer is dropped.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use bytes::Bytes;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, StructFieldMapping,
};

use super::super::meter::Meter;
use super::super::workarounds::{Workaround, is_off};
use super::bounds::{Arg, Bound, Measure};
use super::classes::{Scalar, class};

/// Maximum bytes, or steps, of the rows in a slice.
const SLICE: u64 = 32 << 20;
/// Maximum bytes of a value.
const MAX_BYTES: u64 = 256 << 20;
/// Maximum bytes of a constant, which the planner copies many times.
const MAX_CONSTANT: u64 = 1 << 20;
/// Maximum steps for one value: about a second.
const MAX_STEPS: u64 = 1 << 30;
/// Results up to this size are not counted.
const SMALL: usize = 64 << 10;

/// A function with its bound.
#[derive(Debug)]
pub(in super::super) struct Metered {
    inner: Arc<ScalarUDF>,
    measure: Measure,
}

impl Metered {
    pub(super) fn wrap(inner: Arc<ScalarUDF>, measure: Measure) -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { inner, measure })
    }

    fn bound(&self) -> Bound {
        match self.measure {
            Measure::Bytes(bound) | Measure::Steps(bound) => bound,
        }
    }

    /// Returns an error for a row that exceeds the limits by itself.
    fn refuse_too_much(&self, row: u64, is_constant: bool) -> Result<()> {
        let name = self.inner.name();
        let most = if is_constant { MAX_CONSTANT } else { MAX_BYTES };
        let what = match self.measure {
            Measure::Bytes(_) if row > most => {
                let what = if is_constant { "constant" } else { "value" };
                format!("`{name}` may return a {what} of {row} bytes here; the maximum is {most}")
            }
            Measure::Steps(_) if row > MAX_STEPS => {
                format!(
                    "`{name}` may take {row} steps for one row here; the maximum is {MAX_STEPS}"
                )
            }
            _ => return Ok(()),
        };
        Err(DataFusionError::Execution(format!("{what}; give it shorter arguments")))
    }

    /// Returns the end of the slice that begins at row `start`, and its total bound.
    fn slice(
        &self,
        args: &[Arg],
        start: usize,
        rows: usize,
        is_constant: bool,
    ) -> Result<(usize, u64)> {
        let mut end = start;
        let mut total = 0_u64;
        while end < rows {
            let row = (self.bound())(args, end);
            self.refuse_too_much(row, is_constant)?;
            if end > start && total.saturating_add(row) > SLICE {
                break;
            }
            total = total.saturating_add(row);
            end += 1;
        }
        Ok((end, total))
    }

    /// Evaluates some rows, with memory for their result.
    fn evaluate(&self, args: ScalarFunctionArgs, total: u64) -> Result<Part> {
        let meter = Meter::from_options(&args.config_options).cloned();
        meter.as_ref().map_or(Ok(()), Meter::check)?;
        let wanted = usize::try_from(total).unwrap_or(usize::MAX);
        let memory = match (&meter, self.measure) {
            (Some(meter), Measure::Bytes(_)) if wanted > SMALL => Some(meter.reserve(wanted)?),
            _ => None,
        };
        let value = self.inner.invoke_with_args(args)?;
        if let Some(memory) = &memory {
            let made = match &value {
                ColumnarValue::Array(array) => array.get_array_memory_size(),
                ColumnarValue::Scalar(scalar) => scalar.size(),
            };
            memory.resize(made.min(wanted));
        }
        Ok(Part { value, memory })
    }
}

/// Wraps every call in an expression that resulted from simplifying a function.
fn all_metered(expr: Expr) -> Result<Expr> {
    expr.transform_up(|part| Ok(metered(part))).data()
}

/// Wraps a call of a function that is not wrapped yet.
pub(super) fn metered(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if !func.inner().is::<Metered>() => {
            let (func, changed) = match class(func.name()) {
                Some(Scalar::Metered(measure)) => (Arc::new(Metered::wrap(func, measure)), true),
                _ => (func, false),
            };
            let call = Expr::ScalarFunction(ScalarFunction { func, args });
            if changed { Transformed::yes(call) } else { Transformed::no(call) }
        }
        other => Transformed::no(other),
    }
}

/// Returns true if a call has lost all arguments: `concat` and `concat_ws` drop null constants, and
/// then refuse that nothing is left. They can be evaluated as they were.
fn is_emptied(expr: &Expr) -> bool {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return false };
    let least = match func.name() {
        "concat" => 1,
        "concat_ws" => 2,
        _ => return false,
    };
    args.len() < least && !is_off(Workaround::EmptyConcat)
}

/// Result for some rows, with its memory.
struct Part {
    value: ColumnarValue,
    memory: Option<MemoryReservation>,
}

impl Part {
    /// Returns the result. It holds its memory as long as it is used.
    fn held(self, meter: Option<&Meter>) -> Result<ColumnarValue> {
        match (self.value, self.memory) {
            (ColumnarValue::Array(array), Some(memory)) if memory.size() > SMALL => {
                let data = with_memory(array.to_data(), &Arc::new(memory))?;
                Ok(ColumnarValue::Array(make_array(data)))
            }
            (ColumnarValue::Scalar(scalar), Some(memory)) if memory.size() > SMALL => {
                // A constant is stored in the plan, or computed again for the next batch.
                if let Some(meter) = meter {
                    meter.keep(memory);
                }
                Ok(ColumnarValue::Scalar(scalar))
            }
            (value, _) => Ok(value),
        }
    }
}

/// A buffer and its reserved memory.
struct Counted {
    buffer: Buffer,
    _memory: Arc<MemoryReservation>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}

/// Returns the same data with buffers that hold the reserved memory.
fn with_memory(data: ArrayData, memory: &Arc<MemoryReservation>) -> Result<ArrayData> {
    let counted = |buffer: &Buffer| {
        if buffer.is_empty() {
            buffer.clone()
        } else {
            let counted = Counted { buffer: buffer.clone(), _memory: Arc::clone(memory) };
            Buffer::from(Bytes::from_owner(counted))
        }
    };
    let buffers = data.buffers().iter().map(counted).collect();
    let children = data.child_data().iter().map(|child| with_memory(child.clone(), memory));
    let children = children.collect::<Result<Vec<_>>>()?;
    Ok(data.into_builder().buffers(buffers).child_data(children).build()?)
}

/// Returns a slice of an argument.
fn rows_of(value: &ColumnarValue, start: usize, end: usize) -> ColumnarValue {
    match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, end - start)),
        ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(scalar.clone()),
    }
}

/// Concatenates results.
fn joined(parts: &[Part], rows: &[usize], meter: Option<&Meter>) -> Result<ColumnarValue> {
    let arrays = parts.iter().zip(rows).map(|(part, rows)| part.value.to_array(*rows));
    let arrays: Vec<ArrayRef> = arrays.collect::<Result<_>>()?;
    let bytes =
        parts.iter().flat_map(|part| &part.memory).map(MemoryReservation::size).sum::<usize>();
    let memory = match meter {
        Some(meter) if bytes > SMALL => Some(meter.reserve(bytes)?),
        _ => None,
    };
    let all: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    Part { value: ColumnarValue::Array(concat(&all)?), memory }.held(meter)
}

impl ScalarUDFImpl for Metered {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let meter = Meter::from_options(&args.config_options).cloned();
        let columns = args.args.iter().map(Arg::from_value).collect::<Result<Vec<_>>>()?;
        let same_for_all = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if same_for_all { 1 } else { args.number_rows };
        let (mut start, total) = self.slice(&columns, 0, rows, same_for_all)?;
        if start == rows {
            return self.evaluate(args, total)?.held(meter.as_ref());
        }
        let mut parts = Vec::new();
        let mut counts = Vec::new();
        let mut begin = 0;
        let mut total = total;
        loop {
            let slice = ScalarFunctionArgs {
                args: args.args.iter().map(|arg| rows_of(arg, begin, start)).collect(),
                arg_fields: args.arg_fields.clone(),
                number_rows: start - begin,
                return_field: Arc::clone(&args.return_field),
                config_options: Arc::clone(&args.config_options),
            };
            parts.push(self.evaluate(slice, total)?);
            counts.push(start - begin);
            if start == rows {
                return joined(&parts, &counts, meter.as_ref());
            }
            begin = start;
            (start, total) = self.slice(&columns, begin, rows, false)?;
        }
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn with_updated_config(&self, options: &ConfigOptions) -> Option<ScalarUDF> {
        let updated = self.inner.inner().with_updated_config(options)?;
        Some(Self::wrap(Arc::new(updated), self.measure))
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let kept = args.clone();
        Ok(match self.inner.inner().simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) if is_emptied(&expr) => {
                ExprSimplifyResult::Original(kept)
            }
            ExprSimplifyResult::Simplified(expr) => {
                ExprSimplifyResult::Simplified(all_metered(expr)?)
            }
            original => original,
        })
    }

    fn preimage(
        &self,
        args: &[Expr],
        literal: &Expr,
        info: &SimplifyContext,
    ) -> Result<PreimageResult> {
        self.inner.inner().preimage(args, literal, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.inner().short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.inner().conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.inner().evaluate_bounds(input)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.inner.inner().propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.inner().output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn struct_field_mapping(&self, args: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.inner.inner().struct_field_mapping(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.inner().placement(args)
    }
}

impl PartialEq for Metered {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Metered {}

impl Hash for Metered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}
