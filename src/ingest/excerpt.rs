//! Excerpts of refused records: the refused field with its value, and the names of the other
//! fields. No other value is shown.
//!
//! A refused record was never split into columns, so neither masks nor redaction rules can find
//! their places in it. An excerpt therefore holds only the value that the parser itself chose to
//! show ([`FieldError::value`]), and not even that if there are redaction rules. There is no
//! excerpt of a record that is not to be tracked, or whose tracking cannot be determined.

use serde_json::Value;

use super::context::{Context, is_off};
use super::fields::text;
use super::usage::get;
use crate::record::json::{FieldError, Seen, finite, members};

/// Maximum length of an excerpt, in characters.
const EXCERPT_CHARS: usize = 200;
/// Maximum size of a text that is parsed again for an excerpt.
const MAX_BYTES: usize = 256 << 10;
/// Maximum length of the name of an organisation or workspace that is read from a refused record,
/// in bytes.
const MAX_NAME_BYTES: usize = 512;
/// Maximum number of levels of JSON in strings that are followed.
const MAX_STRINGS: usize = 4;
/// Names by which clients state that a call is not to be tracked.
const MARKS: [&str; 3] = ["do_not_track", "x-portkey-debug", "is_raw_logging_enabled"];

/// Reads the organisation and workspace of a refused record, and makes its excerpt.
pub fn seen(text: &str, error: &FieldError, context: &Context) -> Seen {
    Seen { excerpt: excerpt(text, error, context), ..whose(text) }
}

/// Reads the organisation and the workspace that a record names: its own fields, or the `metrics`
/// of a log object, which take precedence as they do in a record.
pub fn whose(record: &str) -> Seen {
    let record = finite(record.trim());
    let fields = members(&record).unwrap_or_default();
    let metrics = get(&fields, &["metrics"]).and_then(members).unwrap_or_default();
    let name = |field: &str| {
        let named = text(&metrics, &[field]).or_else(|| text(&fields, &[field]));
        named.filter(|name| name.len() <= MAX_NAME_BYTES)
    };
    Seen { organisation: name("organisation_id"), workspace: name("workspace_slug"), excerpt: None }
}

fn excerpt(record: &str, error: &FieldError, context: &Context) -> Option<String> {
    let record = finite(record.trim());
    if record.len() > MAX_BYTES || context.is_untracked() {
        return None;
    }
    let fields = members(&record)?;
    let value = serde_json::from_str(&record).ok()?;
    if !is_tracked(&value, &record) {
        return None;
    }
    // An object or a list in the place of a number may hold content.
    let is_figure = !error.value.is_empty() && !error.value.starts_with(['{', '[']);
    let shows_value = is_figure && !context.policy.redacts();
    let names = fields.iter().map(|(name, _)| &**name);
    let refused = names.clone().filter(|name| *name == error.field).take(1);
    let others = names.filter(|name| *name != error.field);
    let mut excerpt = String::new();
    for name in refused.chain(others) {
        let value = if shows_value && name == error.field { &error.value } else { "…" };
        excerpt.push(if excerpt.is_empty() { '{' } else { ',' });
        excerpt.push_str(&format!("{}:{value}", Value::from(context.policy.redacted(name))));
        if excerpt.chars().count() > EXCERPT_CHARS {
            return Some(excerpt.chars().take(EXCERPT_CHARS).chain(['…']).collect());
        }
    }
    Some(if excerpt.is_empty() { "{}".to_owned() } else { excerpt + "}" })
}

/// Returns true if nothing in a record asks not to track it. A mark in a place where it cannot be
/// understood counts as asking, so marks are also searched in the text, beyond those found among
/// the members.
fn is_tracked(value: &Value, text: &str) -> bool {
    let mut marks = 0;
    if !every_mark_allows(value, &mut marks, 0) {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    MARKS.iter().map(|mark| lower.matches(mark).count()).sum::<usize>() <= marks
}

/// Returns true if no mark in a value asks not to track it. Counts the marks.
fn every_mark_allows(value: &Value, marks: &mut usize, depth: usize) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| every_mark_allows(item, marks, depth)),
        Value::Object(fields) => fields.iter().all(|(name, value)| {
            let allows = match name.to_ascii_lowercase().as_str() {
                "do_not_track" => {
                    *marks += 1;
                    is_false(value)
                }
                "x-portkey-debug" => {
                    *marks += 1;
                    !says_off(value)
                }
                "extra_key" if value == "is_raw_logging_enabled" => {
                    *marks += 1;
                    !fields.get("extra_value").is_none_or(says_off)
                }
                _ => true,
            };
            allows && every_mark_allows(value, marks, depth)
        }),
        Value::String(text) if depth < MAX_STRINGS && text.trim_start().starts_with(['{', '[']) => {
            serde_json::from_str(text)
                .map_or(true, |inner| every_mark_allows(&inner, marks, depth + 1))
        }
        _ => true,
    }
}

fn is_false(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "false" | "0" | ""),
        _ => false,
    }
}

fn says_off(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::String(text) => is_off(text),
        Value::Null => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;

    use super::super::Policy;
    use super::*;
    use crate::config::{self, Config};

    fn context(rules: &str) -> Context {
        let redact = config::Redact::parse(rules).unwrap();
        let policy = Policy::open(&Config { redact, ..Config::default() }).unwrap();
        Context { policy, ..Context::new(Utc::now()) }
    }

    fn excerpt(record: &Value, field: &str, value: &str, rules: &str) -> Option<String> {
        excerpt_of(&record.to_string(), field, value, rules)
    }

    fn excerpt_of(record: &str, field: &str, value: &str, rules: &str) -> Option<String> {
        seen(record, &FieldError::new(field, value, ""), &context(rules)).excerpt
    }

    #[test]
    fn an_excerpt_has_the_refused_field_first_and_of_the_others_the_names() {
        let record = r#"{"model":"m","cost":"much","request":{"body":"words"},"a\"b":"words","cost":"more"}"#;
        for (field, value, expected) in [
            ("cost", r#""more""#, r#"{"cost":"more","model":…,"request":…,"a\"b":…}"#),
            ("cost", "", r#"{"cost":…,"model":…,"request":…,"a\"b":…}"#),
            ("cost", "[\"words\"]", r#"{"cost":…,"model":…,"request":…,"a\"b":…}"#),
            ("request.body", "words", r#"{"model":…,"cost":…,"request":…,"a\"b":…,"cost":…}"#),
        ] {
            assert_eq!(excerpt_of(record, field, value, "").as_deref(), Some(expected), "{field}");
        }
        let long = json!({ "cost": 1, ("ä".repeat(500)): "words" });
        let cut = excerpt(&long, "cost", "1", "").unwrap();
        assert!(cut.starts_with("{\"cost\":1,\"ää") && cut.ends_with("ä…"), "{cut}");
        assert_eq!(cut.chars().count(), EXCERPT_CHARS + 1);
        assert_eq!(excerpt_of("{}", "cost", "", "").as_deref(), Some("{}"));
    }

    #[test]
    fn no_content_secret_or_redacted_text_of_any_shape_stands_in_an_excerpt() {
        let attribute = |key: &str| json!({ "key": key, "value": { "stringValue": "secret" } });
        let shapes = [
            json!({ "cost": 1, "headers": { "x-api-key": "secret" }, "url": "https://a:secret@b/?key=secret" }),
            json!({ "cost": 1, "attributes": [attribute("api_key"), attribute("gen_ai.prompt.0.content")] }),
            json!({ "cost": 1, "metadata.key": ["patient"], "metadata.value": ["secret"] }),
            json!({ "cost": 1, "call_type": "embedding", "messages": "secret" }),
            json!({ "cost": 1, "request": { "body": "{\"a\":\"secret\"}" } }),
            json!({ "cost": 1, "secret": 1 }),
            json!({ "cost": "secret" }),
        ];
        let rules =
            "[a]\npattern = '^secret$'\n[b]\npaths = ['request.body.messages', 'metadata.patient']";
        for record in shapes {
            for field in ["cost", "headers", "attributes", "metadata.value", "messages", "request"]
            {
                let excerpt = excerpt(&record, field, "\"secret", rules).unwrap();
                assert!(!excerpt.contains("secret"), "{excerpt}");
            }
        }
        let named = json!({ "cost": 1, "secret": 1 });
        let expected = r#"{"cost":…,"[redacted]":…}"#;
        assert_eq!(excerpt(&named, "cost", "1", rules).as_deref(), Some(expected));
    }

    #[test]
    fn untracked_and_unreadable_records_have_no_excerpt() {
        let off = json!({ "x-portkey-debug": "false" });
        for untracked in [
            json!({ "do_not_track": true }),
            json!({ "do_not_track": "yes" }),
            json!({ "metrics": { "do_not_track": 1 } }),
            json!({ "a": [{ "request": { "headers": off } }] }),
            json!({ "metadata": { "requester_custom_headers": off.to_string() } }),
            json!({ "metadata": "{'requester_custom_headers': {'x-portkey-debug': 'false'}}" }),
            json!({ "extra_key": "is_raw_logging_enabled", "extra_value": "false" }),
            json!({ "attributes": [{ "key": "http.request.header.x-portkey-debug", "value": {} }] }),
        ] {
            assert_eq!(excerpt(&untracked, "cost", "", ""), None, "{untracked}");
        }
        for text in
            ["", "{", "5", "\"do\"", "[{}]", r#"{"do_not_track":true,"do_not_track":false}"#]
        {
            assert_eq!(excerpt_of(text, "cost", "", ""), None, "{text}");
        }
        for tracked in [
            json!({ "do_not_track": false }),
            json!({ "headers": { "x-portkey-debug": "true" } }),
            json!({ "extra_key": "is_raw_logging_enabled", "extra_value": "true" }),
        ] {
            assert!(excerpt(&tracked, "cost", "", "").is_some(), "{tracked}");
        }
        let headers =
            super::super::Headers { debug: Some("False".to_owned()), ..Default::default() };
        let error = FieldError::silent("cost", "");
        assert_eq!(seen("{}", &error, &Context { headers, ..context("") }).excerpt, None);
        let big = json!({ "organisation_id": "acme", "a": "x".repeat(MAX_BYTES) }).to_string();
        let acme = Seen { organisation: Some("acme".to_owned()), ..Seen::default() };
        assert_eq!(seen(&big, &error, &context("")), acme);
    }

    #[test]
    fn the_organisation_and_workspace_are_read_as_of_a_record() {
        let deep = "[".repeat(500) + &"]".repeat(500);
        for (text, organisation, workspace) in [
            (
                r#"{"organisation_id":"acme","workspace_slug":"search","x":1}"#,
                Some("acme"),
                Some("search"),
            ),
            (r#"{"organisation_id":"a","metrics":{"organisation_id":"acme"}}"#, Some("acme"), None),
            (r#"{"organisation_id":"acme","metrics":{"organisation_id":""}}"#, Some("acme"), None),
            (r#"{"organisation_id":7,"cost":NaN}"#, Some("7"), None),
            (r#"{"organisation_id":"a","organisation_id":"acme"}"#, Some("acme"), None),
            (&format!(r#"{{"organisation_id":"acme","x":{deep}}}"#), Some("acme"), None),
            (r#"{"organisation_id":["acme"]}"#, None, None),
            (&format!(r#"{{"organisation_id":"{}"}}"#, "x".repeat(600)), None, None),
            (r#"[{"organisation_id":"acme"}]"#, None, None),
            ("{", None, None),
        ] {
            for seen in [seen(text, &FieldError::silent("x", ""), &context("")), whose(text)] {
                let found = (seen.organisation.as_deref(), seen.workspace.as_deref());
                assert_eq!(found, (organisation, workspace), "{text}");
            }
        }
    }
}
