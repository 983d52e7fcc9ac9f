//! The functions that a statement may call, each with what bounds it.
//!
//! Every function is classified here. One that nobody classified is not offered, and a test fails that names it.
//!
//! - [`Scalar::Plain`]: the result is no larger than a small multiple of the arguments, and the work is linear.
//! - [`Scalar::Metered`]: the result, or the work, can be far larger; it is bounded row by row ([`metered`]).
//! - [`Scalar::Refused`]: not offered.

mod bounds;
mod metered;
mod piped;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Expr, ScalarUDF};

use metered::{Measure, Metered};

use super::nearest;

/// What bounds a scalar function.
#[derive(Clone, Copy, Debug)]
enum Scalar {
    Plain,
    Metered(Measure),
    Refused,
}

/// Results and work in proportion to the arguments.
const PLAIN: &[&str] = &[
    // Numbers, truth values and times.
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "random",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "make_time",
    "now",
    "to_char",
    "to_date",
    "to_local_time",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    // One of the arguments, or what is known of one.
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "arrow_typeof",
    "cast_to_type",
    "coalesce",
    "get_field",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    "try_cast_to_type",
    "union_extract",
    "union_tag",
    "version",
    "with_metadata",
    // Texts that are no longer than another one.
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "contains",
    "decode",
    "encode",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "lower",
    "ltrim",
    "octet_length",
    "reverse",
    "right",
    "rtrim",
    "split_part",
    "starts_with",
    "substr",
    "substr_index",
    "to_hex",
    "translate",
    "upper",
    "uuid",
    // Lists, and parts of them.
    "array_add",
    "array_any_value",
    "array_avg",
    "array_compact",
    "array_dims",
    "array_distance",
    "array_distinct",
    "array_element",
    "array_except",
    "array_has",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_normalize",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_product",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_reverse",
    "array_scale",
    "array_slice",
    "array_sort",
    "array_subtract",
    "array_sum",
    "arrays_zip",
    "cardinality",
    "cosine_distance",
    "empty",
    "flatten",
    "inner_product",
    "map_entries",
    "map_extract",
    "map_keys",
    "map_values",
    // JSON.
    "json_as_text",
    "json_contains",
    "json_from_scalar",
    "json_get",
    "json_get_array",
    "json_get_bool",
    "json_get_float",
    "json_get_int",
    "json_get_json",
    "json_get_str",
    "json_length",
    "json_object_keys",
    "json_union_to_text",
    // Our own.
    "canonical_model",
    "like_pattern",
];

/// Functions whose result or work can be far larger than the arguments.
const METERED: &[(&str, Measure)] = &[
    ("array_append", Measure::Bytes(bounds::sum)),
    ("array_concat", Measure::Bytes(bounds::sum)),
    ("array_prepend", Measure::Bytes(bounds::sum)),
    ("array_repeat", Measure::Bytes(bounds::list_repeated)),
    ("array_replace", Measure::Bytes(bounds::elements_replaced)),
    ("array_replace_all", Measure::Bytes(bounds::elements_replaced)),
    ("array_replace_n", Measure::Bytes(bounds::elements_replaced)),
    ("array_resize", Measure::Bytes(bounds::list_resized)),
    ("array_to_string", Measure::Bytes(bounds::as_text)),
    ("array_union", Measure::Bytes(bounds::sum)),
    ("concat", Measure::Bytes(bounds::sum)),
    ("concat_ws", Measure::Bytes(bounds::separated)),
    ("generate_series", Measure::Bytes(bounds::series)),
    ("lpad", Measure::Bytes(bounds::padded)),
    ("make_array", Measure::Bytes(bounds::sum)),
    ("map", Measure::Bytes(bounds::sum)),
    ("named_struct", Measure::Bytes(bounds::sum)),
    ("overlay", Measure::Bytes(bounds::sum)),
    ("range", Measure::Bytes(bounds::series)),
    ("regexp_replace", Measure::Bytes(bounds::matches_replaced)),
    ("repeat", Measure::Bytes(bounds::repeated)),
    ("replace", Measure::Bytes(bounds::replaced)),
    ("rpad", Measure::Bytes(bounds::padded)),
    ("string_to_array", Measure::Bytes(bounds::pieces)),
    ("struct", Measure::Bytes(bounds::sum)),
    ("array_has_all", Measure::Steps(bounds::elements_with_each)),
    ("array_has_any", Measure::Steps(bounds::elements_with_each)),
    ("levenshtein", Measure::Steps(bounds::each_with_each)),
    ("regexp_count", Measure::Steps(bounds::each)),
    ("regexp_instr", Measure::Steps(bounds::each)),
    ("regexp_like", Measure::Steps(bounds::each)),
    ("regexp_match", Measure::Steps(bounds::each)),
    ("strpos", Measure::Steps(bounds::searched)),
];

/// Functions that are not offered: they tell of files, which others share.
const REFUSED: &[&str] = &["file_row_index", "input_file_name"];

/// Functions over lambdas evaluate an expression for each element of a list, which nothing bounds.
const HIGHER_ORDER: &[&str] = &[];

/// Aggregates that hold a bounded state, or count their state as memory of the query.
const AGGREGATES: &[&str] = &[
    "any_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

/// Window functions: one value for each row, each a value of a row or a number.
const WINDOWS: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// Functions in the place of a table: their rows are made batch by batch.
const TABLES: &[&str] = &["generate_series", "range"];

fn class(name: &str) -> Option<Scalar> {
    let metered = METERED.iter().find(|(known, _)| *known == name).map(|(_, measure)| Scalar::Metered(*measure));
    let plain = || PLAIN.contains(&name).then_some(Scalar::Plain);
    metered.or_else(plain).or_else(|| REFUSED.contains(&name).then_some(Scalar::Refused))
}

/// Names that a statement may call a function by.
static NAMES: OnceLock<Vec<String>> = OnceLock::new();

/// Words that name the functions nearest to one that does not exist.
pub(super) fn suggestion(wanted: &str) -> String {
    let known: Vec<&str> = NAMES.get().into_iter().flatten().map(String::as_str).collect();
    nearest::suggestion(wanted, &known)
}

/// Leaves only functions that are bounded in a session.
pub(super) fn bound(state: &mut SessionState) -> Result<()> {
    let functions: Vec<Arc<ScalarUDF>> = state.scalar_functions().values().cloned().collect();
    for function in functions {
        match class(function.name()) {
            Some(Scalar::Plain) => {}
            Some(Scalar::Metered(measure)) => {
                state.register_udf(Arc::new(Metered::wrap(function, measure)))?;
            }
            Some(Scalar::Refused) | None => {
                state.deregister_udf(function.name())?;
            }
        }
    }
    for name in unknown(state.higher_order_functions().keys(), HIGHER_ORDER) {
        state.deregister_higher_order_function(&name)?;
    }
    let names = |function: &str, aliases: &[String], known: &[&str]| {
        known.contains(&function) || aliases.iter().any(|alias| known.contains(&alias.as_str()))
    };
    let aggregates: Vec<_> = state.aggregate_functions().values().cloned().collect();
    for function in aggregates.iter().filter(|function| !names(function.name(), function.aliases(), AGGREGATES)) {
        state.deregister_udaf(function.name())?;
    }
    let windows: Vec<_> = state.window_functions().values().cloned().collect();
    for function in windows.iter().filter(|function| !names(function.name(), function.aliases(), WINDOWS)) {
        state.deregister_udwf(function.name())?;
    }
    for name in unknown(state.table_functions().keys(), TABLES) {
        state.deregister_udtf(&name)?;
    }
    NAMES.get_or_init(|| {
        let scalar = state.scalar_functions().keys();
        scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys()).cloned().collect()
    });
    state.register_function_rewrite(Arc::new(Bounding))
}

fn unknown<'a>(names: impl Iterator<Item = &'a String>, known: &[&str]) -> BTreeSet<String> {
    names.filter(|name| !known.contains(&name.as_str())).cloned().collect()
}

/// Bounds functions that the planner makes of operators and special forms, such as `[a, b]` and `||`.
#[derive(Debug)]
struct Bounding;

impl FunctionRewrite for Bounding {
    fn name(&self) -> &'static str {
        "bound functions"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(binary) => piped::rewrite(binary, schema),
            other => Ok(metered(other)),
        }
    }
}

/// Bounds every call in an expression that a function was simplified to.
fn all_metered(expr: Expr) -> Result<Expr> {
    expr.transform_up(|part| Ok(metered(part))).data()
}

/// Bounds a call of a function that is not bounded yet.
fn metered(expr: Expr) -> Transformed<Expr> {
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

#[cfg(test)]
mod tests;
