//! Masks secrets in headers, configs, parameters and URLs. The rest of a masked key is enough to
//! recognise it, but not to use it.
//!
//! Everything that is not a secret keeps its bytes: key order, digits of numbers, white space.
//! Masking twice changes nothing, so exports can be imported. The work is linear in the length of
//! the text.

mod json;
mod names;
mod secrets;
mod urls;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;

use self::json::{Place, masked};
use self::names::{in_headers, in_parameters};
use self::secrets::{STARS, is_credentials, quoted, scheme, secret};
pub(super) use self::urls::url;
use self::urls::{masked_query, masked_url_text};
use crate::record::json::{members, unquote, write_string};

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
