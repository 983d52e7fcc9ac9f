//! A walk through JSON that replaces the secrets in it and nothing else.
//!
//! It reads the text once, without building a tree and without recursion, except into strings that
//! hold JSON themselves, up to a maximum depth. Schemas and message content are skipped: a property
//! that a tool calls `password` is not a password.

use serde::de::IgnoredAny;

use super::names::{in_headers, in_parameters};
use super::secrets::{STARS, is_credentials, quoted, scheme, secret};
use super::urls::masked_url_text;
use crate::record::json::{unquote, value_end};

/// Maximum depth of JSON in strings of JSON. Deeper text is masked whole.
const MAX_LEVELS: usize = 8;

/// Meaning of an object, which determines which of its names mark secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Parameters of a call, or a gateway's config.
    Parameters,
    /// Headers.
    Headers,
    /// The value of one header.
    Header,
    /// A list of tools or functions, or one of them. Its schema is skipped, but its headers are
    /// not.
    Tools,
}

/// Treatment of a member's value.
enum Found {
    /// The value is masked.
    Secret,
    /// The value keeps its bytes.
    Kept,
    /// The value is searched.
    Within(Place),
}

/// Error for a text that is not JSON.
#[derive(Debug)]
pub(super) struct Unreadable;

/// Names of message content and of schemas, in lower case and without `_` and `-`.
const CONTENT_NAMES: [&str; 10] = [
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
const TOOLS: [&str; 7] = [
    "function",
    "functiondeclarations",
    "functions",
    "toolconfig",
    "tooldefinitions",
    "tools",
    "toolspec",
];
/// Further names that, like [`SCHEMAS`], are skipped in tools only: a gateway's hooks have
/// `parameters` with keys in them.
const IN_TOOLS: [&str; 4] = ["description", "name", "parameters", "properties"];

/// Returns the text with its secrets masked, or `None` if there are none.
pub(super) fn masked(text: &str, place: Place) -> Result<Option<String>, Unreadable> {
    masked_at(text, place, 0)
}

fn masked_at(text: &str, place: Place, level: usize) -> Result<Option<String>, Unreadable> {
    if level == MAX_LEVELS {
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

/// A walk through one valid JSON text. Unchanged text is copied once the next change is found.
struct Walk<'a> {
    raw: &'a str,
    at: usize,
    copied: usize,
    out: String,
    level: usize,
}

impl<'a> Walk<'a> {
    fn through(&mut self, place: Place) {
        // The open objects and arrays: true for an object, and its meaning.
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

    /// Returns the next byte that is neither white space nor a separator.
    fn next_byte(&mut self) -> Option<u8> {
        let rest = self.raw.as_bytes().get(self.at..)?;
        let skipped = rest
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':'))?;
        self.at += skipped;
        rest.get(skipped).copied()
    }

    /// Skips the next value and returns it.
    fn past(&mut self) -> &'a str {
        let start = self.at;
        self.at = value_end(self.raw.as_bytes(), start);
        self.raw.get(start..self.at).unwrap_or_default()
    }

    /// Skips a member, or opens its value, which is returned then.
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

    /// Returns true if the next array is one of pairs or objects.
    fn holds_pairs(&self) -> bool {
        let inner = self.raw.as_bytes().get(self.at + 1..).unwrap_or_default().trim_ascii_start();
        matches!(inner.first(), Some(b'[' | b'{'))
    }

    /// Skips a value, or opens it.
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

    /// Returns the replacement for a text, or `None` if the text may stay.
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

    /// Replaces a value with stars. Null and flags reveal nothing.
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

    /// Replaces everything since `start` with a text.
    fn replace(&mut self, start: usize, text: &str) {
        self.out.push_str(self.raw.get(self.copied..start).unwrap_or_default());
        self.out.push_str(&quoted(text));
        self.copied = self.at;
    }
}

/// Returns the treatment of the value of a member by that name.
fn judged(name: &str, place: Place) -> Found {
    let lower = name.to_ascii_lowercase();
    if place == Place::Headers {
        return if in_headers(&lower) { Found::Secret } else { Found::Within(Place::Header) };
    }
    let plain: String = lower.chars().filter(|letter| !matches!(letter, '_' | '-')).collect();
    let plain = plain.as_str();
    if CONTENT_NAMES.contains(&plain)
        || SCHEMAS.contains(&plain)
        || (place == Place::Tools && IN_TOOLS.contains(&plain))
    {
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
