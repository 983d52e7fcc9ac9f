//! Secrets in stored headers: what is left of them is enough to recognise a key, not to use it.

use serde_json::Value;

use crate::record::json::{members, unquote, write_string};

/// Shorter secrets would be given away by their ends.
const SHORT_CHARS: usize = 12;
const STARS: &str = "********";

/// Header names that hold a secret. Names with one of [`PARTS`] do too.
const NAMES: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-portkey-api-key"];
const PARTS: [&str; 6] = ["api-key", "apikey", "api_key", "secret", "token", "password"];

/// An object of headers as JSON text, with its secrets masked; nothing if the text is not a JSON object.
pub(super) fn headers(raw: &str) -> Option<String> {
    let members = members(raw)?;
    let further = sensitive(&members);
    let mut out = Vec::with_capacity(raw.len());
    for (name, value) in &members {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(&mut out, name);
        out.push(b':');
        let lower = name.to_ascii_lowercase();
        if is_secret(&lower) || further.contains(&lower) {
            let text = if value.starts_with('"') { secret(&unquote(value)) } else { STARS.to_owned() };
            write_string(&mut out, &text);
        } else if lower == "x-portkey-config" && value.starts_with('"') {
            write_string(&mut out, &config(&unquote(value)));
        } else {
            out.extend_from_slice(value.as_bytes());
        }
    }
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    String::from_utf8(out).ok()
}

/// The names that the client itself calls sensitive.
fn sensitive(members: &[(std::borrow::Cow<'_, str>, &str)]) -> Vec<String> {
    let list = members.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-portkey-sensitive-headers"));
    let names = list.map(|(_, value)| unquote(value).to_ascii_lowercase()).unwrap_or_default();
    names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn is_secret(lower: &str) -> bool {
    // What is left of a rate limit is counted in tokens.
    let counts = lower.contains("ratelimit") || lower.ends_with("-tokens");
    NAMES.contains(&lower) || PARTS.iter().any(|part| lower.contains(part) && !(counts && *part == "token"))
}

/// The first two and the last three characters of a secret, of which a scheme such as `Bearer` is no part.
fn secret(text: &str) -> String {
    let text = text.rsplit_once(' ').map_or(text, |(_, secret)| secret);
    let chars: Vec<char> = text.chars().collect();
    if text.contains(STARS) {
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

/// A gateway config with the provider keys in it masked; a slug stays as it is.
fn config(text: &str) -> String {
    if !text.trim_start().starts_with(['{', '[']) {
        return text.to_owned();
    }
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            mask_keys(&mut value);
            value.to_string()
        }
        Err(_) => STARS.to_owned(),
    }
}

fn mask_keys(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(mask_keys),
        Value::Object(fields) => {
            for (name, value) in fields {
                let lower = name.to_ascii_lowercase();
                let holds_key =
                    is_secret(&lower) || lower.starts_with("aws_") || lower == "vertex_service_account_json";
                match value {
                    Value::Array(_) | Value::Object(_) if !holds_key => mask_keys(value),
                    Value::String(text) if holds_key => *text = secret(text),
                    _ if holds_key => *value = Value::from(STARS),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_is_kept() {
        let raw = r#"{"Authorization":"Bearer sk-1234567890abc","x-api-key":"short","Cookie":["a=b"],"X-Auth-Token":null,
            "my-client-secret":"0123456789ab","x-ratelimit-remaining-tokens":"100","content-length": 66,
            "x-portkey-sensitive-headers":"X-Own, y","x-own":"abcdefghijklmnop","x-portkey-config":"pc-1"}"#;
        let masked = r#"{"Authorization":"sk********abc","x-api-key":"********","Cookie":"********","X-Auth-Token":"********","my-client-secret":"01********9ab","x-ratelimit-remaining-tokens":"100","content-length":66,"x-portkey-sensitive-headers":"X-Own, y","x-own":"ab********nop","x-portkey-config":"pc-1"}"#;
        assert_eq!(headers(raw).as_deref(), Some(masked));
        assert_eq!(headers(masked).as_deref(), Some(masked), "masking twice changes nothing");
        assert_eq!(headers("{}").as_deref(), Some("{}"));
        assert_eq!(headers("[]"), None);
    }

    #[test]
    fn the_keys_of_an_inline_config_are_masked() {
        let inner = r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"openai","api_key":"sk-1234567890abc","aws_region":7}]}"#;
        let raw = serde_json::json!({ "x-portkey-config": inner }).to_string();
        let masked = headers(&raw).unwrap_or_default();
        assert!(
            masked.contains("sk********abc") && masked.contains("fallback") && !masked.contains("1234567890"),
            "{masked}"
        );
        assert_eq!(
            headers(r#"{"x-portkey-config":"{\"api_key\":\"sk-1"}"#).as_deref(),
            Some(r#"{"x-portkey-config":"********"}"#)
        );
    }
}
