//! Masks users, passwords and keys in URLs.

use std::borrow::Cow;

use super::names::in_urls;
use super::secrets::{STARS, secret};

/// Masks a text that consists only of a URL, or of the path of one. Returns `None` if the text may
/// stay.
pub(super) fn masked_url_text(text: &str) -> Option<String> {
    let is_url = text.contains("://") || (text.starts_with('/') && text.contains(['?', '#']));
    (is_url && !text.contains(char::is_whitespace)).then(|| masked_url(text)).flatten()
}

/// Masks the user, the password and the keys in a URL. Text that is not a URL is left as it is.
pub(in crate::ingest) fn url(text: &mut String) {
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
pub(super) fn masked_query(query: &str) -> Option<String> {
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
