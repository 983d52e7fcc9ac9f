//! Every function of a session is classified.

use datafusion::execution::session_state::SessionStateBuilder;

use super::classes::{METERED, PLAIN, REFUSED};
use super::*;

/// Returns the unknown names.
fn left<'a>(names: impl Iterator<Item = &'a str>, known: &[&str]) -> Vec<String> {
    let mut left: Vec<String> =
        names.filter(|name| !known.contains(name)).map(str::to_owned).collect();
    left.sort();
    left.dedup();
    left
}

#[test]
fn every_function_of_datafusion_is_classified() {
    let mut state = SessionStateBuilder::new().with_default_features().build();
    datafusion_functions_json::register_all(&mut state).unwrap();
    let scalars = state.scalar_functions().values().map(|function| function.name());
    let mut unknown: Vec<&str> = scalars.filter(|name| class(name).is_none()).collect();
    unknown.sort_unstable();
    unknown.dedup();
    assert!(unknown.is_empty(), "classify these functions in `query::functions`: {unknown:?}");
    let aggregates = state.aggregate_functions().values().map(|function| function.name());
    assert_eq!(left(aggregates, AGGREGATES), [""; 0], "classify these aggregates");
    let windows = state.window_functions().values().map(|function| function.name());
    assert_eq!(left(windows, WINDOWS), [""; 0], "classify these window functions");
    assert_eq!(
        left(state.table_functions().keys().map(String::as_str), TABLES),
        [""; 0],
        "classify these tables"
    );
}

#[test]
fn no_function_is_classified_twice() {
    let mut names: Vec<&str> =
        METERED.iter().map(|(name, _)| *name).chain(PLAIN.to_vec()).collect();
    names.extend(REFUSED);
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
