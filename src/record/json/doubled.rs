//! Duplicate keys in the objects of a body: the last one counts, as in every common JSON parser.
//!
//! SQL's JSON functions stop at the first member of a name, which makes them fast. So the earlier
//! members of a duplicate key are removed when a record comes in. Everything else stays byte for
//! byte. Nearly every text has no duplicate keys and is only scanned once.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use super::text::{string_end_and_escape, unquote};

/// Maximum number of members that are compared pairwise.
const FEW: usize = 24;

/// An open object or array.
#[derive(Debug)]
struct Open {
    is_object: bool,
    /// Index of its first member in the list of all members.
    first: usize,
}

/// Member of an open object.
#[derive(Debug)]
struct Member {
    /// Range of its key, including the quotes.
    key: Range<usize>,
    /// Length and first bytes of the key, which distinguish most keys without escapes.
    print: u64,
    has_escape: bool,
}

impl Member {
    fn new(bytes: &[u8], key: Range<usize>, has_escape: bool) -> Self {
        let inner = &bytes[key.start + 1..(key.end - 1).max(key.start + 1)];
        // A text continues after its keys, so eight bytes are there nearly always.
        let beginning = match bytes.get(key.start + 1..).and_then(<[u8]>::first_chunk::<8>) {
            Some(eight) => u64::from_le_bytes(*eight),
            None => {
                let mut eight = [0; 8];
                eight.iter_mut().zip(inner).for_each(|(to, byte)| *to = *byte);
                u64::from_le_bytes(eight)
            }
        };
        let beginning = match inner.len() {
            short @ 0..8 => beginning & !(u64::MAX << (8 * short)),
            _ => beginning,
        };
        Self { key, print: beginning ^ (inner.len() as u64).rotate_right(8), has_escape }
    }
}

/// Finds duplicate keys in one text after the other, with the same memory.
#[derive(Debug, Default)]
pub(crate) struct KeyScan {
    /// The open objects and arrays around the innermost one.
    open: Vec<Open>,
    members: Vec<Member>,
}

/// Removes the earlier members of duplicate keys from a valid JSON text.
#[cfg(test)]
pub(crate) fn last_keys(text: &str) -> Cow<'_, str> {
    KeyScan::default().last_keys(text)
}

impl KeyScan {
    /// Removes the earlier members of duplicate keys from a valid JSON text.
    pub(crate) fn last_keys<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let superseded = self.superseded(text);
        if superseded.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for range in superseded {
            // A member may lie within another one that is removed.
            if range.start >= copied {
                // Both offsets are at quotes, so this is never `None`.
                out.push_str(text.get(copied..range.start).unwrap_or_default());
                copied = range.end;
            }
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// Returns the members that a later one of the same name replaces, each up to the next member,
    /// in the order of their start.
    fn superseded(&mut self, text: &str) -> Vec<Range<usize>> {
        let bytes = text.as_bytes();
        let Self { open, members } = self;
        open.clear();
        members.clear();
        let mut found = Vec::new();
        let mut innermost = Open { is_object: false, first: 0 };
        let mut key_is_next = false;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => {
                    let start = at - 1;
                    let (quote, has_escape) = string_end_and_escape(bytes, at);
                    at = (quote + 1).min(bytes.len());
                    if key_is_next {
                        key_is_next = false;
                        members.push(Member::new(bytes, start..at, has_escape));
                    }
                }
                b',' => key_is_next = innermost.is_object,
                b'{' | b'[' => {
                    open.push(innermost);
                    key_is_next = *byte == b'{';
                    innermost = Open { is_object: key_is_next, first: members.len() };
                }
                b'}' | b']' => {
                    key_is_next = false;
                    if let Some(outer) = open.pop() {
                        doubles(text, &members[innermost.first..], &mut found);
                        members.truncate(innermost.first);
                        innermost = outer;
                    }
                }
                _ => {}
            }
        }
        found.sort_by_key(|range| range.start);
        found
    }
}

/// Adds the members of one object that a later one replaces.
fn doubles(text: &str, members: &[Member], found: &mut Vec<Range<usize>>) {
    let mut replace =
        |earlier: usize| found.push(members[earlier].key.start..members[earlier + 1].key.start);
    if members.len() <= FEW {
        for (earlier, member) in members.iter().enumerate() {
            let is_same = |later: &Member| are_equal(text, member, later);
            if members[earlier + 1..].iter().any(is_same) {
                replace(earlier);
            }
        }
        return;
    }
    let mut order: Vec<usize> = (0..members.len()).collect();
    // The sort is stable, so equal keys stay in text order.
    order.sort_by(|a, b| compare(text, &members[*a], &members[*b]));
    for pair in order.windows(2) {
        if compare(text, &members[pair[0]], &members[pair[1]]) == Ordering::Equal {
            replace(pair[0]);
        }
    }
}

/// Returns true if two keys are equal.
fn are_equal(text: &str, a: &Member, b: &Member) -> bool {
    if a.has_escape || b.has_escape {
        return compare(text, a, b) == Ordering::Equal;
    }
    a.print == b.print
        && a.key.len() == b.key.len()
        && text.as_bytes()[a.key.clone()] == text.as_bytes()[b.key.clone()]
}

/// Orders two keys, by length first.
fn compare(text: &str, a: &Member, b: &Member) -> Ordering {
    let has_escape = a.has_escape || b.has_escape;
    let [a, b] = [a, b].map(|member| text.get(member.key.clone()).unwrap_or_default());
    if !has_escape {
        return a.len().cmp(&b.len()).then_with(|| a.cmp(b));
    }
    let [a, b] = [a, b].map(unquote);
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_last_of_duplicate_keys_stays_and_the_rest_is_unchanged() {
        for (text, expected) in [
            (r#"{"model":"a","model":"b"}"#, r#"{"model":"b"}"#),
            (r#"{"model":"a", "x" : [1, 2], "model":"b"}"#, r#"{"x" : [1, 2], "model":"b"}"#),
            (r#"{"a":1,"a":2,"a":3,"b":1e400}"#, r#"{"a":3,"b":1e400}"#),
            (r#"{"a":{"k":1,"k":2},"a":{"k":3,"k":4}}"#, r#"{"a":{"k":4}}"#),
            (r#"[{"a":"}","a":","},{"a":1}]"#, r#"[{"a":","},{"a":1}]"#),
            (r#"{"a\u0062":1,"ab":2}"#, r#"{"ab":2}"#),
            (r#"{"é\"":1,"z":["é","é"],"é\"":2}"#, r#"{"z":["é","é"],"é\"":2}"#),
        ] {
            assert_eq!(last_keys(text), expected, "{text}");
        }
        for same in [
            r#"{"a":"a","b":{"a":{"a":"b"}},"c":[{"a":1},{"a":1},"a","a"]}"#,
            r#"{"a":1,"A":2,"a ":3,"":4}"#,
            r#""{\"a\":1,\"a\":2}""#,
            "[1,1]",
            "null",
            "",
        ] {
            assert!(matches!(last_keys(same), Cow::Borrowed(_)), "{same}");
        }
    }

    #[test]
    fn many_members_take_no_more_than_their_share() {
        let object = |members: usize| {
            let text: Vec<String> =
                (0..members).map(|number| format!("\"key-{}\":{number}", number % 7_000)).collect();
            format!("{{{}}}", text.join(","))
        };
        // Comparing all pairs would take 2 x 10^9 steps.
        let text = object(70_000);
        let kept: serde_json::Map<String, Value> = serde_json::from_str(&last_keys(&text)).unwrap();
        assert_eq!((kept.len(), &kept["key-0"]), (7_000, &Value::from(63_000)));
        assert_eq!(last_keys(&text).matches("\"key-0\"").count(), 1);
    }

    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("1".to_owned()),
            Just("\"a\"".to_owned()),
            Just("\"}{,\\\"\"".to_owned())
        ];
        leaf.prop_recursive(4, 60, 30, |inner| {
            let key = prop_oneof![Just("a"), Just("b"), Just("c\\\""), Just("\\u0061")];
            let member =
                (key, inner.clone()).prop_map(|(key, value)| format!("\"{key}\": {value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..3)
                    .prop_map(|items| format!("[{}]", items.join(" ,"))),
                prop::collection::vec(member, 0..30)
                    .prop_map(|members| format!("{{{}}}", members.join(", "))),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_value_is_the_same_for_a_reader_that_takes_the_last(text in value()) {
            let before: Value = serde_json::from_str(&text).unwrap();
            let kept = last_keys(&text);
            prop_assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), before);
            prop_assert!(matches!(last_keys(&kept), Cow::Borrowed(_)));
        }

        #[test]
        fn any_text_is_taken(text in "[\\[\\]{}\",:a\\\\ é]{0,40}") {
            last_keys(&text);
        }
    }
}
