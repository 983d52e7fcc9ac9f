"""Workarounds for faults of DataFusion and its parser that a debug build of gatelog can switch off, one by one.

With one switched off, the generator has to find the fault: `python -m differential --without fence,precedence`, or `all`.
"""

VARIABLE = "GATELOG_TEST_WITHOUT"

# Those in `src/query/workarounds.rs`.
NAMES = ["precedence", "distinct_from", "not_exists", "escape", "membership", "casts", "signed_rank", "fence", "filter_names",
         "aggregate_bounds", "leaf_pushdown", "aggregate_schemas", "whole_order", "sanity", "totals", "known", "negated",
         "correlated", "sort_filters", "in_lists", "literal_sides", "empty_concat", "filter_projections", "sort_constants"]


def without(name):
    """The environment of a server that has one switched off. What it panics over is expected."""
    return {VARIABLE: name, "RUST_BACKTRACE": "0"}
