//! A way through JSON that replaces the secrets in it and nothing else.
//!
//! It goes through the text once, without building a tree and without recursion, except into
//! strings that hold JSON themselves, a few levels deep. Schemas and what was said are passed over:
//! a property that a tool calls `password` is no password.

use serde::de::IgnoredAny;

use super::names::{in_headers, in_parameters};
use super::{STARS, is_credentials, masked_url_text, quoted, scheme, secret};
use crate::record::json::{unquote, value_end};

/// JSON in strings of JSON is followed so deep; what is deeper is masked whole.
const MOST_LEVELS: usize = 8;

/// What an object means, and so which of its names are those of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Parameters of a call, or a gateway's config.
    Parameters,
    /// Headers.
    Headers,
    /// The value of one header.
    Header,
    /// A list of tools or functions, or one of them: its schema is passed over, its headers are
    /// not.
    Tools,
}

/// What becomes of a member's value.
enum Found {
    /// It is masked.
    Secret,
    /// It keeps its bytes.
    Kept,
    /// It is looked into.
    Within(Place),
}

/// A text that is not JSON.
#[derive(Debug)]
pub(super) struct Unreadable;

/// The names, in lower case and without `_` and `-`, of what was said, and of schemas.
const SAID: [&str; 10] = [
    "content",
    "contents",
    "documents",
    "input",
    "instructions",
    "messages",
    "prediction",
    "prompt",
    "system",
    "systeminstruction",
];
const SCHEMAS: [&str; 14] = [
    "functioncall",
    "grammar",
    "guidedgrammar",
    "guidedjson",
    "inputschema",
    "jsonschema",
    "outputschema",
    "parametersjsonschema",
    "responseformat",
    "responsejsonschema",
    "responseschema",
    "schema",
    "structuredoutputs",
    "toolchoice",
];
const TOOLS: [&str; 7] =
    ["function", "functiondeclarations", "functions", "toolconfig", "tooldefinitions", "tools", "toolspec"];
/// Beside [`SCHEMAS`], of tools alone: hooks of a gateway have `parameters` with keys in them.
const IN_TOOLS: [&str; 4] = ["description", "name", "parameters", "properties"];

/// The text with its secrets masked; nothing if there are none.
pub(super) fn masked(text: &str, place: Place) -> Result<Option<String>, Unreadable> {
    masked_at(text, place, 0)
}

fn masked_at(text: &str, place: Place, level: usize) -> Result<Option<String>, Unreadable> {
    if level == MOST_LEVELS {
        return Ok(Some(STARS.to_owned()));
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Unreadable)?;
    let mut walk = Walk { raw: text, at: 0, copied: 0, out: String::new(), level };
    walk.through(place);
    if walk.copied == 0 {
        return Ok(None);
    }
    walk.out.push_str(text.get(walk.copied..).unwrap_or_default());
    Ok(Some(walk.out))
}

/// A way through one valid JSON text. What is not changed is copied when the next change comes.
struct Walk<'a> {
    raw: &'a str,
    at: usize,
    copied: usize,
    out: String,
    level: usize,
}

impl<'a> Walk<'a> {
    fn through(&mut self, place: Place) {
        // The objects and arrays that are open: whether it is an object, and what it means.
        let mut open: Vec<(bool, Place)> = Vec::new();
        while let Some(byte) = self.next_byte() {
            match byte {
                b'}' | b']' => {
                    self.at += 1;
                    open.pop();
                }
                b'"' if open.last().is_some_and(|(is_object, _)| *is_object) => {
                    let place = open.last().map_or(place, |(_, place)| *place);
                    if let Some(entered) = self.member(place) {
                        open.push(entered);
                    }
                }
                _ => {
                    let place = open.last().map_or(place, |(_, place)| *place);
                    if let Some(entered) = self.value(place) {
                        open.push(entered);
                    }
                }
            }
        }
    }

    /// The next byte that is neither white space nor between values.
    fn next_byte(&mut self) -> Option<u8> {
        let rest = self.raw.as_bytes().get(self.at..)?;
        let skipped = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':'))?;
        self.at += skipped;
        rest.get(skipped).copied()
    }

    /// Goes past the next value and gives it.
    fn past(&mut self) -> &'a str {
        let start = self.at;
        self.at = value_end(self.raw.as_bytes(), start);
        self.raw.get(start..self.at).unwrap_or_default()
    }

    /// Goes past a member, or into its value, which is entered then.
    fn member(&mut self, place: Place) -> Option<(bool, Place)> {
        let name = unquote(self.past());
        let first = self.next_byte()?;
        match judged(&name, place) {
            Found::Within(Place::Headers) if first == b'[' && self.holds_pairs() => {
                self.hide();
                None
            }
            Found::Within(place) => self.value(place),
            Found::Kept => {
                self.past();
                None
            }
            Found::Secret => {
                self.hide();
                None
            }
        }
    }

    /// Returns whether the array that comes is one of pairs or objects.
    fn holds_pairs(&self) -> bool {
        let inner = self.raw.as_bytes().get(self.at + 1..).unwrap_or_default().trim_ascii_start();
        matches!(inner.first(), Some(b'[' | b'{'))
    }

    /// Goes past a value, or into it.
    fn value(&mut self, place: Place) -> Option<(bool, Place)> {
        let start = self.at;
        match self.raw.as_bytes().get(start)? {
            open @ (b'{' | b'[') => {
                self.at += 1;
                let within = if place == Place::Header { Place::Parameters } else { place };
                return Some((*open == b'{', within));
            }
            b'"' => {
                let text = unquote(self.past());
                if let Some(changed) = self.text(&text, place).filter(|changed| *changed != text) {
                    self.replace(start, &changed);
                }
            }
            _ => drop(self.past()),
        }
        None
    }

    /// What is to stand for a text, if it must not stand there itself.
    fn text(&self, text: &str, place: Place) -> Option<String> {
        if text.trim_start().starts_with(['{', '[']) {
            // The headers that a hook is to send are JSON in a string.
            let within = if place == Place::Header { Place::Parameters } else { place };
            return masked_at(text, within, self.level + 1).ok().flatten();
        }
        let is_secret = match place {
            Place::Headers | Place::Header => scheme(text).is_some(),
            Place::Parameters | Place::Tools => is_credentials(text),
        };
        if is_secret { Some(secret(text)) } else { masked_url_text(text) }
    }

    /// Puts stars in the place of a value. Null and flags say nothing.
    fn hide(&mut self) {
        let start = self.at;
        let value = self.past();
        let changed = match value.as_bytes().first() {
            Some(b'"') => {
                let text = unquote(value);
                Some(secret(&text)).filter(|changed| *changed != text)
            }
            Some(b'n' | b't' | b'f') | None => None,
            _ => Some(STARS.to_owned()),
        };
        if let Some(changed) = changed {
            self.replace(start, &changed);
        }
    }

    /// Puts a text in the place of what was gone past since `start`.
    fn replace(&mut self, start: usize, text: &str) {
        self.out.push_str(self.raw.get(self.copied..start).unwrap_or_default());
        self.out.push_str(&quoted(text));
        self.copied = self.at;
    }
}

/// What becomes of the value of a member by that name.
fn judged(name: &str, place: Place) -> Found {
    let lower = name.to_ascii_lowercase();
    if place == Place::Headers {
        return if in_headers(&lower) { Found::Secret } else { Found::Within(Place::Header) };
    }
    let plain: String = lower.chars().filter(|letter| !matches!(letter, '_' | '-')).collect();
    let plain = plain.as_str();
    if SAID.contains(&plain) || SCHEMAS.contains(&plain) || (place == Place::Tools && IN_TOOLS.contains(&plain)) {
        Found::Kept
    } else if in_parameters(name) {
        Found::Secret
    } else if TOOLS.contains(&plain) {
        Found::Within(Place::Tools)
    } else if plain.ends_with("headers") {
        Found::Within(Place::Headers)
    } else {
        Found::Within(place)
    }
}
