//! Secrets in texts, and what remains of them.

use crate::record::json::write_string;

/// Length below which a secret is masked whole, since its ends would reveal too much of it.
const SHORT_CHARS: usize = 12;
pub(super) const STARS: &str = "********";

/// Prefixes that mark a value as a secret under any name.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];
/// Returns the credentials after a scheme such as `Bearer`, if a text has one.
pub(super) fn scheme(text: &str) -> Option<&str> {
    let begins = |scheme: &&str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    SCHEMES.iter().find(|scheme| begins(scheme)).map(|scheme| text[scheme.len()..].trim())
}

/// Returns true if a text outside of headers is a scheme with credentials, and not a sentence that
/// begins with such a word: the credentials are one word that is not natural language.
pub(super) fn is_credentials(text: &str) -> bool {
    scheme(text).is_some_and(|word| {
        let bytes = word.as_bytes();
        let inner_capital = bytes
            .windows(2)
            .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
        let is_odd = inner_capital || bytes.iter().any(u8::is_ascii_digit) || word.contains(STARS);
        !word.contains(char::is_whitespace) && bytes.len() >= 6 && is_odd
    })
}

/// Returns the first two and the last three characters of a secret, without a scheme such as
/// `Bearer`.
pub(super) fn secret(text: &str) -> String {
    let text = text.rsplit_once(' ').map_or(text, |(_, secret)| secret);
    let chars: Vec<char> = text.chars().collect();
    if text.contains(STARS) && chars.len() <= STARS.len() + 5 {
        return text.to_owned();
    }
    if chars.len() < SHORT_CHARS {
        return STARS.to_owned();
    }
    let mut masked: String = chars[..2].iter().collect();
    masked.push_str(STARS);
    masked.extend(&chars[chars.len() - 3..]);
    masked
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}
