//! Switches off single workarounds for faults of DataFusion and its parser, for tests that must
//! find those faults.
//!
//! A debug build reads their names, separated by commas, from the environment variable
//! `GATELOG_TEST_WITHOUT`. A release build uses all workarounds and ignores the variable.

use crate::error::Result;

/// A workaround for a fault of DataFusion or its parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workaround {
    /// Operators have the precedence of PostgreSQL: `a ->> 'b' = 'c'`.
    Precedence,
    /// The right side of `is distinct from` ends where PostgreSQL ends it.
    DistinctFrom,
    /// `not exists (…) is null` is `not (exists (…) is null)`.
    NotExists,
    /// LIKE accepts any escape character.
    Escape,
    /// `in (select …)` has three values.
    Membership,
    /// Columns that differ only in a cast are distinguished.
    Casts,
    /// Ranks are signed.
    SignedRank,
    /// Sorts stay on their side of an OFFSET.
    Fence,
    /// Filters do not move through steps whose columns share a name.
    FilterNames,
    /// MIN and MAX push no bounds into scans.
    AggregateBounds,
    /// Parts of columns are not moved below joins.
    LeafPushdown,
    /// Stages of an aggregate may disagree on nulls.
    AggregateSchemas,
    /// Partitions are sorted by all columns that their merge compares.
    WholeOrder,
    /// Plans with sorted rows are accepted, and unsorted rows are sorted.
    Sanity,
    /// Conditions stay above an aggregate that has a row for an empty input.
    Totals,
    /// The innermost aggregate is answered from statistics first.
    Known,
    /// Casts of `not a` do not skip parts of files.
    Negated,
    /// Scalar subqueries with outer columns may be anywhere.
    Correlated,
    /// Filters of sorts depend on columns.
    SortFilters,
    /// Lists of one expression are not merged.
    InLists,
    /// Constants are on the right of comparisons.
    LiteralSides,
    /// `concat` keeps its arguments if all of them are null.
    EmptyConcat,
    /// Filters have no projections when projections move.
    FilterProjections,
    /// Constants in sort keys stay constants.
    SortConstants,
    /// Nothing is known about the rows of grouping sets.
    GroupingSets,
}

#[cfg(debug_assertions)]
mod switch {
    use std::sync::LazyLock;

    use crate::error::{Error, Result};
    use crate::query::workarounds::Workaround;

    const VARIABLE: &str = "GATELOG_TEST_WITHOUT";

    const NAMES: &[(&str, Workaround)] = &[
        ("precedence", Workaround::Precedence),
        ("distinct_from", Workaround::DistinctFrom),
        ("not_exists", Workaround::NotExists),
        ("escape", Workaround::Escape),
        ("membership", Workaround::Membership),
        ("casts", Workaround::Casts),
        ("signed_rank", Workaround::SignedRank),
        ("fence", Workaround::Fence),
        ("filter_names", Workaround::FilterNames),
        ("aggregate_bounds", Workaround::AggregateBounds),
        ("leaf_pushdown", Workaround::LeafPushdown),
        ("aggregate_schemas", Workaround::AggregateSchemas),
        ("whole_order", Workaround::WholeOrder),
        ("sanity", Workaround::Sanity),
        ("totals", Workaround::Totals),
        ("known", Workaround::Known),
        ("negated", Workaround::Negated),
        ("correlated", Workaround::Correlated),
        ("sort_filters", Workaround::SortFilters),
        ("in_lists", Workaround::InLists),
        ("literal_sides", Workaround::LiteralSides),
        ("empty_concat", Workaround::EmptyConcat),
        ("filter_projections", Workaround::FilterProjections),
        ("sort_constants", Workaround::SortConstants),
        ("grouping_sets", Workaround::GroupingSets),
    ];

    /// Workarounds that are switched off, or the first unknown name.
    static OFF: LazyLock<std::result::Result<Vec<Workaround>, String>> = LazyLock::new(|| {
        let value = std::env::var(VARIABLE).unwrap_or_default();
        value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(named).collect()
    });

    fn named(name: &str) -> std::result::Result<Workaround, String> {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, workaround)| *workaround).ok_or_else(|| name.to_owned())
    }

    pub(super) fn is_off(workaround: Workaround) -> bool {
        OFF.as_ref().is_ok_and(|off| off.contains(&workaround))
    }

    pub(super) fn check() -> Result<()> {
        let Err(name) = OFF.as_ref() else { return Ok(()) };
        let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        Err(Error::invalid(format!("`{VARIABLE}` names `{name}`; it takes {}", known.join(", "))))
    }
}

#[cfg(not(debug_assertions))]
mod switch {
    use crate::error::Result;
    use crate::query::workarounds::Workaround;

    pub(super) const fn is_off(_: Workaround) -> bool {
        false
    }

    pub(super) const fn check() -> Result<()> {
        Ok(())
    }
}

/// Fails if the variable names a workaround that does not exist.
pub(super) fn check() -> Result<()> {
    switch::check()
}

/// Returns true if a workaround is switched off.
pub(super) fn is_off(workaround: Workaround) -> bool {
    switch::is_off(workaround)
}
