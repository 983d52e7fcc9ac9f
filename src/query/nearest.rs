//! The nearest few names to one that does not exist.

use datafusion::common::Column;
use datafusion::common::utils::datafusion_strsim::levenshtein;

/// Most names that an error suggests.
const MOST: usize = 3;

/// No column has that name.
pub(super) fn no_column(wanted: &Column, known: &[Column]) -> String {
    let names: Vec<&str> = known.iter().map(|column| column.name.as_str()).collect();
    format!("there is no column `{}`{}", wanted.flat_name(), suggestion(&wanted.name, &names))
}

/// Words that name what was meant, maybe.
pub(super) fn suggestion(wanted: &str, known: &[&str]) -> String {
    let near = nearest(wanted, known);
    match near.is_empty() {
        true => String::new(),
        false => format!("; nearest names: `{}`", near.join("`, `")),
    }
}

/// The nearest names, the most similar first.
fn nearest<'n>(wanted: &str, known: &[&'n str]) -> Vec<&'n str> {
    let wanted = wanted.to_lowercase();
    let mut ranked: Vec<(usize, &str)> = known.iter().map(|name| (distance(&wanted, name), *name)).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// How far a name is off; one that holds the other is near.
fn distance(wanted: &str, name: &str) -> usize {
    let name = name.to_lowercase();
    let edits = levenshtein(wanted, &name);
    match wanted.len() > 2 && (name.contains(wanted) || wanted.contains(&name)) {
        true => edits.min(2),
        false => edits,
    }
}
