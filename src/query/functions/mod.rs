//! Classifies the functions that a statement may call by their resource bounds ([`classes`]).
//!
//! - [`Scalar::Plain`]: the result is no larger than a small multiple of the arguments, and the
//!   work is linear.
//! - [`Scalar::Metered`]: the result, or the work, can be far larger; it is bounded row by row
//!   ([`metered`]).
//! - [`Scalar::Refused`]: not available.

mod bounds;
mod checked;
mod classes;
mod metered;
mod piped;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Expr, Operator, ScalarUDF};

use classes::{AGGREGATES, HIGHER_ORDER, Scalar, TABLES, WINDOWS, class};
use metered::{Metered, metered};

use super::nearest;

/// Names of the functions that a statement may call.
static NAMES: OnceLock<Vec<String>> = OnceLock::new();

/// Returns a suggestion of the functions with similar names.
pub(super) fn suggestion(wanted: &str) -> String {
    let known: Vec<&str> = NAMES.get().into_iter().flatten().map(String::as_str).collect();
    nearest::suggestion(wanted, &known)
}

/// Removes unclassified functions from a session, and wraps the metered ones.
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
    for function in
        aggregates.iter().filter(|function| !names(function.name(), function.aliases(), AGGREGATES))
    {
        state.deregister_udaf(function.name())?;
    }
    let windows: Vec<_> = state.window_functions().values().cloned().collect();
    for function in
        windows.iter().filter(|function| !names(function.name(), function.aliases(), WINDOWS))
    {
        state.deregister_udwf(function.name())?;
    }
    for name in unknown(state.table_functions().keys(), TABLES) {
        state.deregister_udtf(&name)?;
    }
    NAMES.get_or_init(|| {
        let scalar = state.scalar_functions().keys();
        scalar
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys())
            .cloned()
            .collect()
    });
    state.register_function_rewrite(Arc::new(Bounding))
}

fn unknown<'a>(names: impl Iterator<Item = &'a String>, known: &[&str]) -> BTreeSet<String> {
    names.filter(|name| !known.contains(&name.as_str())).cloned().collect()
}

/// Planner rule that bounds functions for operators and special forms, such as `[a, b]` and `||`,
/// and checks `+`, `-` and `*` of whole numbers.
#[derive(Debug)]
struct Bounding;

impl FunctionRewrite for Bounding {
    fn name(&self) -> &'static str {
        "bound functions"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => {
                piped::rewrite(binary, schema)
            }
            Expr::BinaryExpr(binary) => checked::rewrite(binary, schema),
            Expr::Negative(inner) => checked::rewrite_negative(inner, schema),
            other => Ok(metered(other)),
        }
    }
}

#[cfg(test)]
mod tests;
