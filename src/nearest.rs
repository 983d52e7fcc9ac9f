//! Names near to one that does not exist, for the errors that say so.
//!
//! [`hint`] finishes the sentence of such an error: the nearest names, or all of them where they are
//! few. What a client wrote is shown by [`clip`], so that an error stays short. Pure.

use std::fmt::Write as _;

/// Names that an error suggests at most.
const MOST: usize = 3;
/// So many names are listed in full where none is near.
const FEW: usize = 12;
/// Longest piece of a client's text that an error shows, and longest name that is compared, in
/// characters.
const MOST_CHARS: usize = 80;

/// Finds the names that were probably meant, nearest first, at most three.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted: Vec<char> = even(name).chars().take(MOST_CHARS + 1).collect();
    if wanted.is_empty() || wanted.len() > MOST_CHARS {
        return Vec::new();
    }
    let scored = known.into_iter().filter_map(|known| Some((score(&wanted, known)?, known)));
    let mut scored: Vec<_> = scored.collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(MOST).map(|(_, known)| known).collect()
}

/// Says which names were probably meant: `did you mean …?`, else all names if they are few, else
/// where they are listed.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, what: &str, listed: &str) -> String {
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

/// A piece of a client's text that fits into an error.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `a`, `b` or `c`.
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

/// A name without the differences that people overlook.
fn even(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
}

/// Tells how far a name is from the one that was wanted, or none if it is too far. Typing errors come
/// first, then names that begin like it, then those that hold it, then those that hold a word near it.
fn score(wanted: &[char], known: &str) -> Option<(u8, usize)> {
    let known: Vec<char> = even(known).chars().take(MOST_CHARS).collect();
    let apart = distance(wanted, &known);
    let shorter = wanted.len().min(known.len());
    if apart <= (shorter / 3).max(usize::from(shorter > 1)) {
        return Some((0, apart));
    }
    if shorter < 3 {
        return None;
    }
    if wanted.starts_with(&known) || known.starts_with(wanted) {
        return Some((1, apart));
    }
    let holds = |long: &[char], short: &[char]| long.windows(short.len()).any(|part| part == short);
    if holds(wanted, &known) || holds(&known, wanted) {
        return Some((2, apart));
    }
    let mut words = known.split(|letter| matches!(letter, '_' | '.' | '/'));
    words.any(|word| word.len() > 3 && distance(wanted, word) == 1).then_some((3, apart))
}

/// Letters to insert, delete or replace, and neighbours to swap, to make one name of the other.
pub(crate) fn distance(from: &[char], to: &[char]) -> usize {
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut next = vec![row + 1; to.len() + 1];
        for (column, other) in to.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != other);
            next[column + 1] = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            let swapped = row > 0 && column > 0 && *letter == to[column - 1] && from[row - 1] == *other;
            if swapped && letter != other {
                next[column + 1] = next[column + 1].min(before[column - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, next);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 7] =
        ["flush_seconds", "flush_bytes", "data", "wal", "ai_model", "response.body", "request.body"];

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
            let [from, to] = [from, to].map(|text| text.chars().collect::<Vec<_>>());
            assert_eq!(distance(&from, &to), apart);
            assert_eq!(distance(&to, &from), apart);
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
        assert_eq!(clip(&"é".repeat(100)).chars().count(), MOST_CHARS + 1);
    }
}
