//! Numbers that are not valid JSON but that Python's `json` writes: `NaN`, `Infinity` and
//! `-Infinity`.
//!
//! A strict parser refuses the whole text because of one of them. Here each becomes `null`, so that
//! one invalid number loses only itself. Texts inside JSON strings stay unchanged.

use std::borrow::Cow;

use memchr::memmem;

use super::text::string_end;

const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Replaces bare `NaN`, `Infinity` and `-Infinity` by `null`. Nearly every text has none and is
/// only searched.
pub(crate) fn finite(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    if memmem::find(bytes, b"NaN").is_none() && memmem::find(bytes, b"Infinity").is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1) + 1,
            b'N' | b'I' | b'-' => match word_at(bytes, at) {
                Some(length) => {
                    // Both offsets are at ASCII bytes, so this is never `None`.
                    out.push_str(text.get(copied..at).unwrap_or_default());
                    out.push_str("null");
                    at += length;
                    copied = at;
                }
                None => at += 1,
            },
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Returns the length of such a word if one stands alone at this offset.
fn word_at(bytes: &[u8], at: usize) -> Option<usize> {
    let is_end = |byte: Option<&u8>| byte.is_none_or(|byte| b" \t\r\n,:[]{}".contains(byte));
    let starts = at == 0 || is_end(bytes.get(at - 1));
    let rest = &bytes[at..];
    let word = WORDS.iter().find(|word| rest.starts_with(word.as_bytes()))?;
    (starts && is_end(rest.get(word.len()))).then_some(word.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_json_does_not_have_become_null() {
        for (text, expected) in [
            ("NaN", "null"),
            (
                r#"{"a":NaN,"b":[Infinity, -Infinity],"c":-1}"#,
                r#"{"a":null,"b":[null, null],"c":-1}"#,
            ),
            (r#"{"é":NaN}"#, r#"{"é":null}"#),
            // Texts, keys and other words stay unchanged.
            (
                r#"{"NaN":"NaN","a":"x\",NaN, -Infinity","b":NaN}"#,
                r#"{"NaN":"NaN","a":"x\",NaN, -Infinity","b":null}"#,
            ),
            (r#"["Infinity"]"#, r#"["Infinity"]"#),
            ("[NaNs,xNaN,--Infinity,Infinity5]", "[NaNs,xNaN,--Infinity,Infinity5]"),
            (r#"["never closed NaN"#, r#"["never closed NaN"#),
            ("", ""),
        ] {
            assert_eq!(finite(text), expected, "{text}");
        }
        assert!(matches!(finite(r#"{"a":1}"#), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn valid_json_stays_as_it_is(texts in proptest::collection::vec("[a-zNI\"\\\\,-]{0,3}(NaN|Infinity)?", 0..6)) {
            let text = serde_json::to_string(&texts).unwrap();
            prop_assert_eq!(finite(&text), text.as_str());
        }

        #[test]
        fn any_text_is_taken(text in "[\\[\\]{}\",:NaInfity\\\\ 0-9é-]{0,40}") {
            finite(&text);
        }
    }
}
