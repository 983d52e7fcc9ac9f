//! Secrets in headers, configs and URLs: what is left of them is enough to recognise a key, not to use it.
//!
//! Masking twice changes nothing, so that what was exported can be imported.

use std::borrow::Cow;

use serde_json::Value;

use crate::record::json::{members, unquote, write_string};

/// Shorter secrets would be given away by their ends.
const SHORT_CHARS: usize = 12;
const STARS: &str = "********";

/// Names with one of these hold a secret.
const PARTS: [&str; 13] = [
    "access-key",
    "access_key",
    "api-key",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "password",
    "secret",
    "service-account",
    "service_account",
    "token",
];
/// Names that end with `key` and hold none.
const OPEN_KEYS: [&str; 5] = ["cache-key", "cache_key", "idempotency-key", "virtual-key", "virtual_key"];
/// Parameters of a URL that hold a secret, beside those whose names say so.
const PARAMETERS: [&str; 5] = ["code", "key", "sig", "signature", "x-amz-signature"];
/// Values that begin so are secrets under any name.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// An object of headers as JSON text, with its secrets masked; nothing if the text is not a JSON object.
pub(super) fn headers(raw: &str) -> Option<String> {
    let members = members(raw)?;
    let further = sensitive(&members);
    let mut out = Vec::with_capacity(raw.len());
    for (name, value) in &members {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(&mut out, name);
        out.push(b':');
        match header(&name.to_ascii_lowercase(), value, &further) {
            Some(masked) => write_string(&mut out, &masked),
            None => out.extend_from_slice(value.as_bytes()),
        }
    }
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    String::from_utf8(out).ok()
}

/// Masks headers that came in our own form, in which they may be any JSON. What needs no masking keeps its bytes.
pub(super) fn any_headers(raw: &mut String) {
    let Some(members) = members(raw) else {
        // Pairs or plain text: there is no telling what is a secret.
        if raw != "null" && raw != "[]" {
            *raw = format!("\"{STARS}\"");
        }
        return;
    };
    let further = sensitive(&members);
    let masks = |(name, value): &(Cow<'_, str>, &str)| {
        let masked = header(&name.to_ascii_lowercase(), value, &further);
        masked.is_some_and(|masked| !value.starts_with('"') || masked != unquote(value))
    };
    if members.iter().any(masks)
        && let Some(masked) = headers(raw)
    {
        *raw = masked;
    }
}

/// What is to stand for the value of a header, if it must not stand there itself.
fn header(lower: &str, value: &str, further: &[String]) -> Option<String> {
    let text = value.starts_with('"').then(|| unquote(value));
    if is_secret(lower) || further.iter().any(|name| name == lower) {
        return Some(text.map_or_else(|| STARS.to_owned(), |text| secret(&text)));
    }
    let text = match text {
        Some(text) => text,
        None if value.starts_with(['{', '[']) => Cow::Borrowed(value),
        None => return None,
    };
    if text.trim_start().starts_with(['{', '[']) {
        return holds_secrets(&text).then(|| config(&text));
    }
    is_scheme(&text).then(|| secret(&text))
}

/// The names that the client itself calls sensitive.
fn sensitive(members: &[(Cow<'_, str>, &str)]) -> Vec<String> {
    let list = members.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-portkey-sensitive-headers"));
    let names = list.map(|(_, value)| unquote(value).to_ascii_lowercase()).unwrap_or_default();
    names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn is_secret(lower: &str) -> bool {
    // What is left of a rate limit, and what a reply may be long, is counted in tokens.
    let counts = lower.contains("ratelimit") || lower.contains("tokens") || lower.contains("tokenizer");
    let key = lower == "key" || lower.ends_with("-key") || lower.ends_with("_key");
    let open = || OPEN_KEYS.iter().any(|name| lower.ends_with(name));
    key && !open() || PARTS.iter().any(|part| lower.contains(part) && !(counts && *part == "token"))
}

fn is_scheme(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// The first two and the last three characters of a secret, of which a scheme such as `Bearer` is no part.
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

/// A gateway config, or other JSON, with the keys in it masked. What cannot be read is masked whole.
fn config(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            mask_keys(&mut value);
            value.to_string()
        }
        Err(_) => STARS.to_owned(),
    }
}

/// Parameters of a call, JSON, in which clients hand keys over; unchanged where there are none.
pub(super) fn parameters(raw: &str) -> Cow<'_, str> {
    if holds_secrets(raw) { Cow::Owned(config(raw)) } else { Cow::Borrowed(raw) }
}

/// Whether masking would change a JSON text, or it cannot be told.
fn holds_secrets(text: &str) -> bool {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return true };
    let before = value.clone();
    mask_keys(&mut value);
    value != before
}

fn mask_keys(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(mask_keys),
        Value::Object(fields) => {
            for (name, value) in fields {
                let lower = name.to_ascii_lowercase();
                let holds_key = is_secret(&lower) || lower.starts_with("aws_");
                match value {
                    Value::String(text) if holds_key => *text = secret(text),
                    Value::Null | Value::Bool(_) => {}
                    _ if holds_key => *value = Value::from(STARS),
                    _ => mask_keys(value),
                }
            }
        }
        // The headers that a hook is to send are JSON in a string.
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                mask_keys(&mut inner);
                *text = inner.to_string();
            }
        }
        Value::String(text) if is_scheme(text) => *text = secret(text),
        _ => {}
    }
}

/// A URL without the user, the password and the keys in it. What is no URL is left as it is.
pub(super) fn url(text: &mut String) {
    if let Some((scheme, rest)) = text.split_once("://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if let Some(at) = rest[..end].rfind('@').filter(|at| rest[..*at] != *STARS) {
            *text = format!("{scheme}://{STARS}{}", &rest[at..]);
        }
    }
    let Some((place, query)) = text.split_once('?') else { return };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) => {
            let lower = name.to_ascii_lowercase();
            if is_secret(&lower) || PARAMETERS.contains(&&*lower) {
                Cow::Owned(format!("{name}={}", secret(value)))
            } else {
                Cow::Borrowed(pair)
            }
        }
        None => Cow::Borrowed(pair),
    });
    let masked = pairs.collect::<Vec<_>>().join("&");
    if masked != query {
        *text = format!("{place}?{masked}");
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

    #[test]
    fn every_way_to_hand_over_a_key_is_known() {
        let key = "0123456789abcdefgh";
        for name in [
            "authorization",
            "Proxy-Authorization",
            "x-portkey-api-key",
            "api-key",
            "x-goog-api-key",
            "x-api-key",
            "set-cookie",
            "x-portkey-aws-access-key-id",
            "x-portkey-aws-secret-access-key",
            "x-portkey-aws-session-token",
            "x-amz-security-token",
            "x-portkey-vertex-service-account-json",
            "x-portkey-azure-ad-token",
            "x-portkey-azure-entra-client-secret",
            "Modal-Key",
            "modal-secret",
            "ocp-apim-subscription-key",
            "x-functions-key",
            "x-amzn-authorization",
        ] {
            let masked = headers(&serde_json::json!({ name: key }).to_string()).unwrap();
            assert_eq!(masked, format!(r#"{{"{name}":"01********fgh"}}"#));
        }
        for name in
            ["x-portkey-virtual-key", "idempotency-key", "x-portkey-trace-id", "x-ratelimit-limit-tokens", "max_tokens"]
        {
            let raw = serde_json::json!({ name: key }).to_string();
            assert_eq!(headers(&raw), Some(raw));
        }
        let scheme = headers(r#"{"x-forwarded-auth":"bearer 0123456789abcdefgh","x-note":"basic"}"#).unwrap();
        assert_eq!(scheme, r#"{"x-forwarded-auth":"01********fgh","x-note":"basic"}"#);
        assert_eq!(headers(r#"{"api-key":"0123456789********abcdefgh"}"#).unwrap(), r#"{"api-key":"01********fgh"}"#);
    }

    /// What the npm gateway hands its hooks: the keys of the providers, and our own, in JSON within JSON within JSON.
    #[test]
    fn keys_within_a_config_are_masked_however_deep() {
        let key = "0123456789abcdefgh";
        let config = serde_json::json!({
            "targets": [{ "api_key": key, "aws_secret_access_key": key, "aws_region": "eu-west-1", "custom_host": "http://127.0.0.1:1" }],
            "vertex_service_account_json": { "private_key": key },
            "override_params": { "max_tokens": 7, "stop_tokens": "a" },
            "request_headers": { "Authorization": format!("Bearer {key}") },
            "after_request_hooks": [{ "checks": [{ "id": "default.log", "parameters": {
                "headers": serde_json::json!({ "x-portkey-api-key": key, "x-team": "a" }).to_string() } }] }],
        });
        for value in [serde_json::json!(config.to_string()), config] {
            let raw = serde_json::json!({ "x-portkey-config": value }).to_string();
            let masked = headers(&raw).unwrap();
            assert!(!masked.contains("3456789"), "{masked}");
            for kept in ["127.0.0.1", "max_tokens", "x-team", "stop_tokens"] {
                assert!(masked.contains(kept), "{masked}");
            }
            assert_eq!(headers(&masked).as_deref(), Some(masked.as_str()), "masking twice changes nothing");
        }
    }

    #[test]
    fn headers_of_our_own_form_keep_their_bytes_unless_a_secret_is_in_them() {
        for (raw, expected) in [
            (r#"{ "a" : "b", "x-portkey-config": "pc-1" }"#, r#"{ "a" : "b", "x-portkey-config": "pc-1" }"#),
            (r#"{ "a" : "b", "api-key" : "********" }"#, r#"{ "a" : "b", "api-key" : "********" }"#),
            (r#"{ "a" : "b", "api-key" : "0123456789abcdefgh" }"#, r#"{"a":"b","api-key":"01********fgh"}"#),
            (r#"[["api-key","0123456789abcdefgh"]]"#, r#""********""#),
            (r#""api-key: 0123456789abcdefgh""#, r#""********""#),
            ("null", "null"),
            ("{}", "{}"),
        ] {
            let mut text = raw.to_owned();
            any_headers(&mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn urls_lose_their_keys() {
        for (raw, expected) in [
            ("https://host/v1/chat", "https://host/v1/chat"),
            (
                "https://host/v1beta/m:generate?alt=sse&key=0123456789abcdefgh",
                "https://host/v1beta/m:generate?alt=sse&key=01********fgh",
            ),
            ("https://host/a?code=short&api-version=2024-10-21", "https://host/a?code=********&api-version=2024-10-21"),
            ("https://ann:0123456789@host/a@b?max_tokens=7", "https://********@host/a@b?max_tokens=7"),
            ("https://host/a?x@y", "https://host/a?x@y"),
            ("not a url", "not a url"),
            ("", ""),
        ] {
            let mut text = raw.to_owned();
            url(&mut text);
            assert_eq!(text, expected);
            url(&mut text);
            assert_eq!(text, expected, "masking twice changes nothing");
        }
    }

    #[test]
    fn parameters_keep_their_bytes_unless_a_key_is_in_them() {
        let plain = r#"{ "max_tokens": 7, "user": "a" }"#;
        assert!(matches!(parameters(plain), Cow::Borrowed(text) if text == plain));
        let masked = parameters(r#"{"extra_headers":{"Authorization":"Bearer 0123456789abcdefgh"},"api_key":"sk-1"}"#);
        assert_eq!(masked, r#"{"api_key":"********","extra_headers":{"Authorization":"01********fgh"}}"#);
    }
}
