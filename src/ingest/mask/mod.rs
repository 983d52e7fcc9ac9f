//! Masks secrets in headers, configs, parameters and URLs. The rest of a masked key is enough to
//! recognise it, but not to use it.
//!
//! Everything that is not a secret keeps its bytes: key order, digits of numbers, white space.
//! Masking twice changes nothing, so exports can be imported. The work is linear in the length of
//! the text.

mod json;
mod names;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;

use self::json::{Place, masked};
use self::names::{in_headers, in_parameters, in_urls};
use crate::record::json::{members, unquote, write_string};

/// Length below which a secret is masked whole, since its ends would reveal too much of it.
const SHORT_CHARS: usize = 12;
const STARS: &str = "********";

/// Prefixes that mark a value as a secret under any name.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];
/// Attributes that hold only the query of a URL.
const QUERIES: [&str; 3] = ["url.query", "http.query", "http.query_string"];

/// Masks the secrets in an object of headers, given as JSON text. Returns `None` if the text is not
/// a JSON object.
pub(super) fn headers(raw: &str) -> Option<String> {
    let members = members(raw)?;
    let further = sensitive(&members);
    let mut out = Vec::with_capacity(raw.len());
    for (name, value) in &members {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(&mut out, name);
        out.push(b':');
        let masked = header(&name.to_ascii_lowercase(), value, &further);
        out.extend_from_slice(masked.as_deref().unwrap_or(value).as_bytes());
    }
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    String::from_utf8(out).ok()
}

/// Masks headers that arrive in our own form, in which they may be any JSON. Everything that needs
/// no masking keeps its bytes.
pub(super) fn any_headers(raw: &mut String) {
    let Some(members) = members(raw) else {
        // Secrets cannot be recognised in pairs or plain text.
        if raw != "null" && raw != "[]" {
            *raw = quoted(STARS);
        }
        return;
    };
    let further = sensitive(&members);
    let masks = |(name, value): &(Cow<'_, str>, &str)| {
        header(&name.to_ascii_lowercase(), value, &further).is_some()
    };
    if members.iter().any(masks)
        && let Some(masked) = headers(raw)
    {
        *raw = masked;
    }
}

/// Returns the JSON that replaces the value of a header, or `None` if the value may stay.
fn header(lower: &str, value: &str, further: &HashSet<String>) -> Option<String> {
    let is_secret = in_headers(lower) || further.contains(lower);
    if !value.starts_with('"') {
        if is_secret {
            return Some(quoted(STARS));
        }
        return masked(value, Place::Parameters).ok().flatten();
    }
    let text = unquote(value);
    let changed = if is_secret { secret(&text) } else { header_text(&text)? };
    (changed != text).then(|| quoted(&changed))
}

/// Returns the replacement for the text of a header whose name does not mark a secret, or `None` if
/// the text may stay.
fn header_text(text: &str) -> Option<String> {
    if text.trim_start().starts_with(['{', '[']) {
        // A value that cannot be parsed is masked whole.
        return masked(text, Place::Parameters).unwrap_or_else(|_| Some(STARS.to_owned()));
    }
    if scheme(text).is_some() {
        return Some(secret(text));
    }
    masked_url_text(text)
}

/// Returns the header names that the client itself declares sensitive.
fn sensitive(members: &[(Cow<'_, str>, &str)]) -> HashSet<String> {
    let lists =
        members.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-portkey-sensitive-headers"));
    let names =
        lists.map(|(_, value)| unquote(value).to_ascii_lowercase()).collect::<Vec<_>>().join(",");
    names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Returns the credentials after a scheme such as `Bearer`, if a text has one.
fn scheme(text: &str) -> Option<&str> {
    let begins = |scheme: &&str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    SCHEMES.iter().find(|scheme| begins(scheme)).map(|scheme| text[scheme.len()..].trim())
}

/// Returns true if a text outside of headers is a scheme with credentials, and not a sentence that
/// begins with such a word: the credentials are one word that is not natural language.
fn is_credentials(text: &str) -> bool {
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
fn secret(text: &str) -> String {
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

/// Masks the keys in a full gateway config that is sent in place of a config's name.
pub(super) fn config(text: &mut String) {
    if text.trim_start().starts_with(['{', '['])
        && let Some(changed) =
            masked(text, Place::Parameters).unwrap_or_else(|_| Some(STARS.to_owned()))
    {
        *text = changed;
    }
}

/// Masks the keys in the parameters of a call, given as valid JSON. Returns the text unchanged if
/// there are none.
pub(super) fn parameters(raw: &str) -> Cow<'_, str> {
    masked(raw, Place::Parameters).ok().flatten().map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Masks the text of a span's attribute.
pub(super) fn attribute<'t>(name: &str, text: &'t str) -> Cow<'t, str> {
    let lower = name.to_ascii_lowercase();
    let is_json = text.trim_start().starts_with(['{', '[']);
    let changed = if in_parameters(name) {
        Some(secret(text))
    } else if QUERIES.contains(&&*lower) {
        masked_query(text)
    } else if is_json {
        let place = if lower.ends_with("headers") { Place::Headers } else { Place::Parameters };
        masked(text, place).ok().flatten()
    } else if is_credentials(text) {
        Some(secret(text))
    } else {
        masked_url_text(text)
    };
    changed.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Masks a text that consists only of a URL, or of the path of one. Returns `None` if the text may
/// stay.
fn masked_url_text(text: &str) -> Option<String> {
    let is_url = text.contains("://") || (text.starts_with('/') && text.contains(['?', '#']));
    (is_url && !text.contains(char::is_whitespace)).then(|| masked_url(text)).flatten()
}

/// Masks the user, the password and the keys in a URL. Text that is not a URL is left as it is.
pub(super) fn url(text: &mut String) {
    if let Some(masked) = masked_url(text) {
        *text = masked;
    }
}

fn masked_url(text: &str) -> Option<String> {
    let (before, fragment) =
        text.split_once('#').map_or((text, None), |(before, rest)| (before, Some(rest)));
    let (place, query) =
        before.split_once('?').map_or((before, None), |(place, rest)| (place, Some(rest)));
    let plain = without_user(place);
    let masks = |pairs: Option<&str>| pairs.and_then(masked_query);
    let new_query = masks(query);
    let new_fragment = masks(fragment);
    if plain.is_none() && new_query.is_none() && new_fragment.is_none() {
        return None;
    }
    let mut out = plain.unwrap_or_else(|| place.to_owned());
    for (mark, old, new) in [('?', query, &new_query), ('#', fragment, &new_fragment)] {
        if let Some(old) = old {
            out.push(mark);
            out.push_str(new.as_deref().unwrap_or(old));
        }
    }
    Some(out)
}

/// Masks the user and password before a host; `None` if there are none. `host:port` may stand
/// without a scheme.
fn without_user(place: &str) -> Option<String> {
    let start = place.find("://").map(|at| at + 3).or_else(|| place.starts_with("//").then_some(2));
    let from = start.unwrap_or(0);
    let authority = place[from..].split('/').next().unwrap_or_default();
    let at = authority.rfind('@')?;
    let user = &authority[..at];
    // Without a scheme it may be an e-mail address, or any text.
    let is_user = start.is_some() || (user.contains(':') && !user.contains(char::is_whitespace));
    (is_user && user != STARS).then(|| format!("{}{STARS}{}", &place[..from], &place[from + at..]))
}

/// Masks the secret values in the pairs of a query or of a fragment; `None` if there are none.
fn masked_query(query: &str) -> Option<String> {
    let mut is_changed = false;
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if in_urls(&name.to_ascii_lowercase()) => {
            let masked = secret(value);
            is_changed |= masked != value;
            Cow::Owned(format!("{name}={masked}"))
        }
        _ => Cow::Borrowed(pair),
    });
    let masked = pairs.collect::<Vec<_>>().join("&");
    is_changed.then_some(masked)
}

fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}
