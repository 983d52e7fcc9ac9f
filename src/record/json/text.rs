//! Inspects and changes JSON as text, without building a tree.
//!
//! Everything here runs over whole bodies, so it reads the bytes in words or blocks, never by
//! `char`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Maximum nesting of a body. Most JSON readers stop at 128 levels, and a record's line adds two.
pub const MAX_DEPTH: usize = 120;

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// Returns the offset, from `from` on, of the first quote, backslash or control character, or the
/// length if there is none.
///
/// These are the bytes that end a JSON string or start an escape in it, and the ones that must be
/// escaped to make one. Eight bytes are tested at a time: in each term below, the lowest byte that
/// matches has its top bit set, and otherwise only bytes above it may.
pub(crate) fn next_special(bytes: &[u8], from: usize) -> usize {
    let (words, rest) = bytes[from..].as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let found = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        if found & HIGHS != 0 {
            return from + number * 8 + (found & HIGHS).trailing_zeros() as usize / 8;
        }
    }
    let start = bytes.len() - rest.len();
    start + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Appends the text as a JSON string with the fewest escapes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut at = 0;
    loop {
        let special = next_special(bytes, at);
        out.extend_from_slice(&bytes[at..special]);
        let Some(byte) = bytes.get(special) else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]]);
            }
        }
        at = special + 1;
    }
    out.push(b'"');
}

/// Returns the text of a JSON string that the parser accepted, borrowed if it has no escape.
///
/// An unpaired surrogate, which clients produce when they cut a text in the middle of a character,
/// becomes U+FFFD: a record is worth more than one broken character.
pub(crate) fn unquote(raw: &str) -> Cow<'_, str> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str::<String>(raw)
        .or_else(|_| serde_json::from_str::<String>(&replace_lone_surrogates(raw)))
        .map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// Replaces every escaped surrogate without a partner by `\ufffd`.
fn replace_lone_surrogates(raw: &str) -> String {
    let mut replaced = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (clean, escape) = rest.split_at(at);
        replaced.push_str(clean);
        let pair = (surrogate(escape), escape.get(6..).and_then(surrogate));
        let (text, length) = match pair {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (&escape[..12], 12),
            (Some(_), _) => ("\\ufffd", 6),
            (None, _) => {
                let length = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
                (&escape[..length], length)
            }
        };
        replaced.push_str(text);
        rest = &escape[length..];
    }
    replaced + rest
}

/// Returns the surrogate if the text starts with the escape of one.
fn surrogate(text: &str) -> Option<u16> {
    let code = u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()?;
    (0xd800..=0xdfff).contains(&code).then_some(code)
}

/// Checks that the raw values within a text need, determined once for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    multiline: bool,
    maybe_deep: bool,
}

impl Checks {
    /// Determines the checks for a text that holds one or more JSON values.
    pub(crate) fn from_text(text: &str) -> Self {
        let bytes = text.trim_ascii().as_bytes();
        Self { multiline: is_multiline(bytes), maybe_deep: openings(bytes) > MAX_DEPTH }
    }

    /// Returns a valid value of that text in the form that is stored: on one line, or `None` if it
    /// is nested too deeply.
    pub(crate) fn payload(self, raw: &str) -> Option<String> {
        if self.maybe_deep && depth(raw.as_bytes()) > MAX_DEPTH {
            return None;
        }
        Some(if self.multiline { one_line(raw) } else { raw.to_owned() })
    }
}

fn is_multiline(bytes: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', bytes).is_some()
}

/// Counts the opening brackets, including those inside strings: an upper bound of the depth that
/// costs next to nothing.
fn openings(bytes: &[u8]) -> usize {
    let block_sum =
        |block: &[u8]| block.iter().fold(0u8, |sum, byte| sum + u8::from(byte | 0x20 == b'{'));
    bytes.chunks(255).map(|block| usize::from(block_sum(block))).sum()
}

/// Returns the deepest nesting of a valid JSON text.
fn depth(bytes: &[u8]) -> usize {
    let mut now = 0usize;
    let mut deepest = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            b'"' => at = string_end(bytes, at + 1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Returns the end of the value that starts at or after `at` in a valid JSON text. Skips commas and
/// colons before it.
pub(crate) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = (string_end(bytes, at + 1) + 1).min(bytes.len()),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' => {
                at += 1;
                continue;
            }
            _ => {
                let ends = |byte: &u8| {
                    matches!(byte, b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')
                };
                let rest = &bytes[at..];
                at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// Returns the offset of the quote that closes the string around `from`, or the length if there is
/// none.
pub(super) fn string_end(bytes: &[u8], from: usize) -> usize {
    string_end_and_escape(bytes, from).0
}

/// Returns the same offset as [`string_end`], and true if the string has an escape before it.
#[inline]
pub(super) fn string_end_and_escape(bytes: &[u8], mut from: usize) -> (usize, bool) {
    let mut has_escape = false;
    while from < bytes.len() {
        let at = quote_or_backslash(bytes, from);
        match bytes.get(at) {
            Some(b'\\') => {
                has_escape = true;
                from = at + 2;
            }
            _ => return (at, has_escape),
        }
    }
    (bytes.len(), has_escape)
}

/// Words of a string that are tested one by one: keys and short values end within them, and the
/// call of a vectorised search costs as much.
const SHORT_WORDS: usize = 2;

/// Returns the offset, from `from` on, of the first quote or backslash, or the length if there is
/// none. Tests words as [`next_special`] does.
#[inline]
fn quote_or_backslash(bytes: &[u8], from: usize) -> usize {
    let rest = &bytes[from..];
    let (words, _) = rest.as_chunks::<8>();
    let words = &words[..words.len().min(SHORT_WORDS)];
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let found =
            (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash);
        if found & HIGHS != 0 {
            return from + number * 8 + (found & HIGHS).trailing_zeros() as usize / 8;
        }
    }
    let tested = words.len() * 8;
    let found = memchr::memchr2(b'"', b'\\', &rest[tested..]);
    found.map_or(bytes.len(), |at| from + tested + at)
}

/// Removes the line breaks and other white space between the tokens of a valid JSON text, if it has
/// any line break.
fn one_line(raw: &str) -> String {
    let bytes = raw.as_bytes();
    if !is_multiline(bytes) {
        return raw.to_owned();
    }
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'"' => at = (string_end(bytes, at + 1) + 1).min(bytes.len()),
            _ => {
                let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'"');
                at = bytes[at..].iter().position(ends).map_or(bytes.len(), |length| at + length);
            }
        }
        // Both offsets are at ASCII bytes, so this is never `None`.
        out.push_str(raw.get(start..at).unwrap_or_default());
    }
    out
}

/// Returns true if a text can be embedded in a line unchanged: one valid JSON value, without
/// surrounding white space or line breaks, and not too deep.
pub fn check_json(text: &str) -> bool {
    matches!(embeddable(text), Cow::Borrowed(_))
}

/// Returns the text as a JSON value that can be embedded in a line: unchanged if possible, on one
/// line if it is JSON of several lines, else as a JSON string of the text.
pub fn embeddable(text: &str) -> Cow<'_, str> {
    let checks = Checks::from_text(text);
    let mut reader = serde_json::Deserializer::from_str(text);
    if let Ok(raw) = <&RawValue>::deserialize(&mut reader)
        && reader.end().is_ok()
    {
        let raw = raw.get();
        if !checks.multiline
            && raw.len() == text.len()
            && !(checks.maybe_deep && depth(raw.as_bytes()) > MAX_DEPTH)
        {
            return Cow::Borrowed(text);
        }
        if let Some(payload) = checks.payload(raw) {
            return Cow::Owned(payload);
        }
    }
    let mut quoted = Vec::new();
    write_string(&mut quoted, text);
    Cow::Owned(String::from_utf8_lossy(&quoted).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_special_finds_the_first_at_every_offset() {
        for length in 0..40 {
            for at in 0..length {
                for byte in [b'"', b'\\', 0, 0x1f, b'\n'] {
                    let mut text = vec![0xc3; length];
                    text[at] = byte;
                    assert_eq!(next_special(&text, 0), at, "{length} {at} {byte}");
                    assert_eq!(next_special(&text, at + 1), length);
                }
            }
            assert_eq!(next_special(&vec![b' '; length], 0), length);
            assert_eq!(next_special(&vec![0x7f; length], 0), length);
        }
    }

    #[test]
    fn strings_are_escaped_as_serde_does() {
        let every: String = (0u32..0x180).filter_map(char::from_u32).collect();
        for text in
            ["", "plain", "\u{2028}\u{1F600}", "a\"b\\c\nd\u{0}e\u{1f}f\u{7f}", every.as_str()]
        {
            let mut out = Vec::new();
            write_string(&mut out, text);
            assert_eq!(
                String::from_utf8_lossy(&out),
                serde_json::to_string(text).unwrap_or_default()
            );
            assert_eq!(unquote(&String::from_utf8_lossy(&out)), text);
        }
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        for (raw, text) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\ud83d\ude00""#, "\u{1F600}"),
            (r#""\ude00\ud83d\ud83d\ude00x""#, "\u{fffd}\u{fffd}\u{1F600}x"),
            (r#""\\ud83d\ud83d\u0041\né""#, "\\ud83d\u{fffd}A\né"),
        ] {
            assert_eq!(unquote(raw), text, "{raw}");
        }
    }

    #[test]
    fn embeddable_keeps_repairs_or_quotes() {
        for (text, embedded) in [
            (r#"{"a":[1, 2.50]}"#, r#"{"a":[1, 2.50]}"#),
            ("{\n \"a b\" : [1 ,\r\n\t\"\\\"{ \\n\"] }", r#"{"a b":[1,"\"{ \n"]}"#),
            (" {} ", "{}"),
            ("null", "null"),
            ("", r#""""#),
            ("not json", r#""not json""#),
            ("{} {}", r#""{} {}""#),
            ("{\"a\":\n", r#""{\"a\":\n""#),
        ] {
            assert_eq!(embeddable(text), embedded);
            assert_eq!(check_json(text), text == embedded, "{text}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        assert!(!check_json(&deep) && embeddable(&deep).starts_with('"'));
        assert!(check_json(&deep[1..deep.len() - 1]));
    }
}
