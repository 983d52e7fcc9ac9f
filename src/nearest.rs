//! Suggestions for names that do not exist, for error messages. Pure.
//!
//! [`hint`] completes such a message with the nearest names, or with all names if there are only a
//! few. [`clip`] shortens the text of a client, so that a message stays short.

use std::fmt::Write as _;

use strsim::osa_distance;

/// Maximum number of names that an error suggests.
const MAX: usize = 3;
/// Maximum number of names that are listed in full if none is near.
const FEW: usize = 12;
/// Maximum characters of a client's text that an error shows, and of a name that is compared.
const MAX_CHARS: usize = 80;

/// Finds the probably intended names, nearest first, at most three.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted: String = even(name).chars().take(MAX_CHARS + 1).collect();
    if wanted.is_empty() || wanted.chars().count() > MAX_CHARS {
        return Vec::new();
    }
    let scored = known.into_iter().filter_map(|known| Some((score(&wanted, known)?, known)));
    let mut scored: Vec<_> = scored.collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(MAX).map(|(_, known)| known).collect()
}

/// Returns a sentence with the probably intended names (`did you mean …?`). If none is near, it
/// lists all names if there are only a few, or else names the place that lists them.
pub fn hint<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    what: &str,
    listed: &str,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = nearest(name, known.iter().copied());
    if !near.is_empty() {
        return format!("did you mean {}?", either(&near));
    }
    match known.len() {
        0 => format!("there are no {what}"),
        1..=FEW => format!("the {what} are {}", known.join(", ")),
        _ => format!("{listed} lists the {what}"),
    }
}

/// Shortens a client's text to a length that fits into an error.
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Formats names as `a`, `b` or `c`.
fn either(names: &[&str]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        let before = match at {
            0 => "",
            at if at + 1 == names.len() => " or ",
            _ => ", ",
        };
        let _ = write!(text, "{before}`{name}`");
    }
    text
}

/// Removes differences that people overlook from a name.
fn even(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
}

/// Returns how far a name is from the wanted one, or `None` if it is too far. Typing errors come
/// first, then names that begin alike, then those of which one contains the other, then those with
/// a word near the wanted one.
fn score(wanted: &str, known: &str) -> Option<(u8, usize)> {
    let known: String = even(known).chars().take(MAX_CHARS).collect();
    // Counts letters to insert, delete or replace, and neighbours to swap.
    let apart = osa_distance(wanted, &known);
    let shorter = wanted.chars().count().min(known.chars().count());
    if apart <= (shorter / 3).max(usize::from(shorter > 1)) {
        return Some((0, apart));
    }
    if shorter < 3 {
        return None;
    }
    if wanted.starts_with(&known) || known.starts_with(wanted) {
        return Some((1, apart));
    }
    if wanted.contains(&known) || known.contains(wanted) {
        return Some((2, apart));
    }
    let mut words = known.split(['_', '.', '/']);
    words
        .any(|word| word.chars().count() > 3 && osa_distance(wanted, word) == 1)
        .then_some((3, apart))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 7] = [
        "flush_seconds",
        "flush_bytes",
        "data",
        "wal",
        "ai_model",
        "response.body",
        "request.body",
    ];

    #[test]
    fn distance_counts_typing_errors() {
        for (from, to, apart) in [
            ("", "", 0),
            ("data", "data", 0),
            ("daat", "data", 1),
            ("dta", "data", 1),
            ("dataa", "data", 1),
            ("date", "data", 1),
            ("", "wal", 3),
            ("abcd", "wxyz", 4),
        ] {
            assert_eq!(osa_distance(from, to), apart);
            assert_eq!(osa_distance(to, from), apart);
        }
    }

    #[test]
    fn the_nearest_names_are_those_that_were_meant() {
        for (name, near) in [
            ("flush_secs", &["flush_seconds"][..]),
            ("flush-second", &["flush_seconds"]),
            ("Data", &["data"]),
            ("data_dir", &["data"]),
            ("model", &["ai_model"]),
            ("modle", &["ai_model"]),
            ("modal", &["ai_model"]),
            ("ai_modle", &["ai_model"]),
            ("body", &["request.body", "response.body"]),
            ("x", &[]),
            ("", &[]),
            ("zzzzzz", &[]),
        ] {
            assert_eq!(nearest(name, NAMES), near, "{name}");
        }
        assert!(nearest(&"data".repeat(1_000_000), NAMES).is_empty());
    }

    #[test]
    fn a_hint_is_short_however_many_names_there_are() {
        let many: Vec<String> = (0..1_000).map(|number| format!("column_{number}")).collect();
        let many = || many.iter().map(String::as_str);
        assert_eq!(hint("zz", many(), "columns", "`help`"), "`help` lists the columns");
        let near = hint("colum_7", many(), "columns", "`help`");
        assert_eq!(near, "did you mean `column_7`, `column_0` or `column_1`?");
        assert_eq!(hint("zz", ["a1", "b1"], "columns", ""), "the columns are a1, b1");
        assert_eq!(hint("zz", [], "columns", ""), "there are no columns");
        assert_eq!(clip(&"é".repeat(100)).chars().count(), MAX_CHARS + 1);
    }
}
