//! The mechanical part of the style in `CONTRIBUTING.md`, for every file of `src`.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_WIDTH: usize = 100;
/// Question words do not open a doc comment: its first line says what the item does or is.
const QUESTION_WORDS: [&str; 8] =
    ["What", "Whatever", "Whether", "Which", "Who", "Whose", "How", "Why"];

/// One line of a source file, with its place.
struct Line {
    file: PathBuf,
    number: usize,
    text: String,
}

impl Line {
    fn place(&self) -> String {
        format!("{}:{}: {}", self.file.display(), self.number, self.text.trim())
    }

    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with("//")
    }

    /// Returns the text of a doc comment.
    fn doc(&self) -> Option<&str> {
        let text = self.text.trim_start();
        text.strip_prefix("///").or_else(|| text.strip_prefix("//!")).map(str::trim)
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    found
}

fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let numbered = text.lines().zip(1..);
        lines.extend(numbered.map(|(text, number)| Line {
            file: file.clone(),
            number,
            text: text.to_owned(),
        }));
    }
    lines
}

#[track_caller]
fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}; {} places:\n{}", found.len(), found.join("\n"));
}

#[test]
fn doc_comments_do_not_open_with_a_question_word() {
    let mut found = Vec::new();
    let mut is_inside = false;
    for line in lines() {
        let Some(doc) = line.doc() else {
            is_inside = false;
            continue;
        };
        let first_word = doc.split(|letter: char| !letter.is_alphabetic()).next().unwrap_or("");
        if !is_inside && QUESTION_WORDS.contains(&first_word) {
            found.push(line.place());
        }
        is_inside = true;
    }
    assert_none(&found, "a doc comment opens with a verb or a noun");
}

/// A text in quotes or a table in a comment may be longer.
#[test]
fn code_keeps_to_the_width() {
    let is_long = |line: &Line| line.text.chars().count() > MAX_WIDTH;
    let may_be_long = |line: &Line| line.text.contains('"') || line.text.trim_end().ends_with('\\');
    let is_table =
        |line: &Line| line.is_comment() && line.text.contains("  ") || line.text.contains('|');
    let too_long = lines().into_iter().filter(|line| is_long(line) && !may_be_long(line));
    let found: Vec<_> = too_long.filter(|line| !is_table(line)).map(|line| line.place()).collect();
    assert_none(&found, "a line of code has at most 100 characters");
}

/// `let (a, b) = (x, y);` hides two statements in one.
#[test]
fn no_tuple_binds_two_values_in_one_line() {
    let mut found = Vec::new();
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("let (") {
            if !is_statement(&text[..at]) {
                continue;
            }
            if let Some(right) = right_side(&text[at + "let ".len()..])
                && is_tuple_alone(right)
            {
                let number = text[..at].lines().count();
                found.push(format!("{}:{number}", file.display()));
            }
        }
    }
    assert_none(&found, "one `let` binds one value, or takes a tuple apart that exists already");
}

/// Returns true if a `let` after `before` begins a statement, and is no condition.
fn is_statement(before: &str) -> bool {
    let before = before.trim_end();
    !["if", "while", "&&", "//", "(", "|"].iter().any(|word| before.ends_with(word))
}

/// Returns what follows the `=` of a `let` whose pattern is a tuple, up to `;`.
fn right_side(text: &str) -> Option<&str> {
    let pattern = &text[..=closing(text)?];
    let rest = &text[pattern.len()..];
    let equals = rest.find(" =")?;
    let kind = &rest[..equals];
    if kind.contains(';') || kind.contains('{') {
        return None;
    }
    Some(rest[equals + 2..].trim_start())
}

/// Returns true if a text begins with a tuple of several values that a `;` follows.
fn is_tuple_alone(text: &str) -> bool {
    if !text.starts_with('(') {
        return false;
    }
    closing(text).is_some_and(|end| text[end + 1..].starts_with(';') && text[..end].contains(','))
}

/// Returns the place of the bracket that closes the first one of a text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}
