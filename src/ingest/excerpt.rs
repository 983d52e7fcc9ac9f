//! Excerpts of refused records: a short piece of JSON around the field that was wrong, masked and redacted as records are.
//!
//! A refused record never became columns, so rules of redaction cannot follow their paths in it. The rules are
//! therefore applied more widely than to a record, never more narrowly: a pattern holds everywhere, and a rule that
//! replaces a member replaces every member of that name. A rule that replaces all bodies or all metadata leaves no
//! excerpt at all. There is none either of a record that is not to be tracked, or where that cannot be told.

use std::collections::BTreeSet;

use serde_json::Value;

use super::redact::Redact;
use super::{Context, is_off, mask};
use crate::config::{self, Path, Step};
use crate::error::Result;
use crate::record::json::{Seen, members, unquote};
use crate::record::{Message, Record};

/// Longest excerpt, in characters.
const EXCERPT_CHARS: usize = 200;
/// Characters of an excerpt before the field.
const BEFORE_CHARS: usize = 40;
/// Larger texts are not parsed again for an excerpt.
const MOST_BYTES: usize = 256 << 10;
/// Longest name of an organisation or workspace that is read off a refused record, in bytes.
const MOST_NAME_BYTES: usize = 256;
/// JSON in strings is followed so many levels deep.
const MOST_STRINGS: usize = 4;
/// Names by which clients say that a call is not to be tracked.
const MARKS: [&str; 3] = ["do_not_track", "x-portkey-debug", "is_raw_logging_enabled"];
/// Names of end users and of URLs in the shapes of clients.
const USERS: [&str; 8] =
    ["user_id", "_user", "user", "user.id", "enduser.id", "end_user", "llm.user", "user_api_key_end_user_id"];
const URLS: [&str; 5] = ["request_url", "url", "api_base", "url.full", "http.url"];
const REPLACED: &str = "[redacted]";

/// The rules by which excerpts are made.
#[derive(Debug, Default)]
pub(super) struct Excerpts {
    patterns: Redact,
    /// Members that are replaced whole, in lower case.
    replaced: BTreeSet<String>,
    /// True if a rule replaces all bodies, headers or metadata.
    none: bool,
}

impl Excerpts {
    /// Compiles the rules of a configuration for excerpts.
    pub(super) fn new(rules: &config::Redact) -> Result<Self> {
        let mut excerpts = Self::default();
        let mut patterns = config::Redact::default();
        for (name, rule) in &rules.0 {
            if rule.pattern.is_some() {
                patterns.0.insert(name.clone(), config::Rule { paths: Vec::new(), ..rule.clone() });
                continue;
            }
            rule.paths.iter().filter_map(|path| Path::parse(path).ok()).for_each(|path| excerpts.replace(&path));
        }
        excerpts.patterns = Redact::new(&patterns)?;
        Ok(excerpts)
    }

    fn replace(&mut self, path: &Path) {
        let name = path.steps.iter().rev().find_map(|step| match step {
            Step::Member(name) | Step::Deep(name) => Some(name.to_lowercase()),
            Step::Element(_) | Step::Any => None,
        });
        match (name, path.column) {
            (Some(name), column) => {
                if column == "metadata" && name == "_user" {
                    self.replaced.extend(USERS.map(str::to_owned));
                }
                self.replaced.insert(name);
            }
            (None, "user_id") => self.replaced.extend(USERS.map(str::to_owned)),
            (None, "request_url") => self.replaced.extend(URLS.map(str::to_owned)),
            (None, _) => self.none = true,
        }
    }

    /// The excerpt of a JSON value around a field.
    fn of(&self, mut value: Value, field: &str) -> Option<String> {
        if self.none {
            return None;
        }
        self.clean(&mut value, false, 0);
        let masked = mask::parameters(&value.to_string()).into_owned();
        let text = self.redacted(masked);
        Some(around(&text, field))
    }

    /// A text without what a pattern matches.
    pub(super) fn text(&self, text: &str) -> String {
        if self.patterns.is_empty() {
            return text.to_owned();
        }
        let redacted = self.redacted(Value::from(text).to_string());
        serde_json::from_str(&redacted).unwrap_or_default()
    }

    /// Replaces texts that match a pattern anywhere in a JSON text.
    fn redacted(&self, text: String) -> String {
        let mut record = Record { request: Message { body: Some(text), headers: None }, ..Record::default() };
        self.patterns.apply(&mut record);
        record.request.body.unwrap_or_default()
    }

    /// Masks headers and URLs, and replaces the members that rules name.
    fn clean(&self, value: &mut Value, is_headers: bool, depth: usize) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean(item, false, depth)),
            Value::Object(fields) => {
                // OTLP writes attributes as pairs of `key` and `value`.
                let pair = fields.get("key").and_then(Value::as_str).is_some_and(|key| self.replaces(key));
                for (name, value) in fields.iter_mut() {
                    if self.replaces(name) || (pair && name == "value") {
                        *value = Value::from(REPLACED);
                    } else {
                        self.clean(value, name.to_lowercase().contains("headers"), depth);
                    }
                }
                if is_headers && let Some(masked) = masked_headers(value) {
                    *value = masked;
                }
            }
            Value::String(text) if depth < MOST_STRINGS && is_json(text) => {
                if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                    self.clean(&mut inner, is_headers, depth + 1);
                    *text = inner.to_string();
                }
            }
            Value::String(text) if text.contains("://") => mask::url(text),
            _ => {}
        }
    }

    fn replaces(&self, name: &str) -> bool {
        !self.replaced.is_empty() && self.replaced.contains(&name.to_lowercase())
    }
}

fn masked_headers(value: &Value) -> Option<Value> {
    serde_json::from_str(&mask::headers(&value.to_string())?).ok()
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// The piece of a text around the field, cut between characters.
fn around(text: &str, field: &str) -> String {
    let last = field.rsplit('.').next().unwrap_or(field);
    let place = [field, last].into_iter().find_map(|name| text.find(&format!("\"{name}\"")));
    let place = place.unwrap_or(0);
    let skipped = text[..place].chars().count().saturating_sub(BEFORE_CHARS);
    let mut excerpt: String = text.chars().skip(skipped).take(EXCERPT_CHARS).collect();
    if skipped > 0 {
        excerpt.insert(0, '…');
    }
    if text.chars().nth(skipped + EXCERPT_CHARS).is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// What is known of a refused record: whose it says that it is, and an excerpt around the field.
pub fn seen(text: &str, field: &str, context: &Context) -> Seen {
    let text = text.trim();
    if text.len() > MOST_BYTES {
        return seen_briefly(text);
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Seen::default() };
    if !value.is_object() && !value.is_array() {
        return Seen::default();
    }
    let name = |field: &str| value.get(field).and_then(Value::as_str).and_then(name_of);
    let (organisation, workspace) = (name("organisation_id"), name("workspace_slug"));
    let tracked = !context.is_untracked() && is_tracked(&value, text);
    let excerpt = if tracked { context.policy.excerpts().of(value, field) } else { None };
    Seen { organisation, workspace, excerpt }
}

/// [`seen`] without an excerpt, which costs little.
pub fn seen_briefly(text: &str) -> Seen {
    let members = members(text.trim()).unwrap_or_default();
    let name = |field: &str| {
        let (_, raw) = members.iter().find(|(key, raw)| key == field && raw.starts_with('"'))?;
        name_of(&unquote(raw))
    };
    Seen { organisation: name("organisation_id"), workspace: name("workspace_slug"), excerpt: None }
}

fn name_of(name: &str) -> Option<String> {
    (!name.is_empty() && name.len() <= MOST_NAME_BYTES).then(|| name.to_owned())
}

/// Returns whether nothing in a record asks that it be not tracked. A mark in a place where it cannot be understood counts as
/// asking: what is not found among the members is looked for in the text.
fn is_tracked(value: &Value, text: &str) -> bool {
    let mut marks = 0;
    if !every_mark_allows(value, &mut marks, 0) {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    MARKS.iter().map(|mark| lower.matches(mark).count()).sum::<usize>() <= marks
}

/// Returns whether no mark in a value asks that it be not tracked; counts the marks.
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
        Value::String(text) if depth < MOST_STRINGS && is_json(text) => {
            serde_json::from_str(text).map_or(true, |inner| every_mark_allows(&inner, marks, depth + 1))
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
    use crate::config::Config;

    fn context(rules: &str) -> Context {
        let redact = config::Redact::parse(rules).unwrap();
        let policy = Policy::open(&Config { redact, ..Config::default() }).unwrap();
        Context { policy, ..Context::new(Utc::now()) }
    }

    fn excerpt(value: &Value, field: &str, rules: &str) -> Option<String> {
        seen(&value.to_string(), field, &context(rules)).excerpt
    }

    #[test]
    fn an_excerpt_is_cut_around_its_field_between_characters() {
        let record = json!({ "a": "ä".repeat(500), "cost": "much", "z": "é".repeat(500) });
        let excerpt = excerpt(&record, "cost", "").unwrap();
        assert!(excerpt.contains("\"cost\":\"much\"") && excerpt.starts_with("…ä") && excerpt.ends_with("é…"));
        assert_eq!(excerpt.chars().count(), EXCERPT_CHARS + 2);
        assert_eq!(around("{}", "cost"), "{}");
    }

    #[test]
    fn secrets_are_masked_and_rules_hold_wherever_they_may() {
        let key = "0123456789abcdefgh";
        let record = json!({
            "cost": "x",
            "headers": { "X-Own": key, "x-portkey-sensitive-headers": "x-own" },
            "inner": json!({ "api_key": key, "patient": "Ann" }).to_string(),
            "patient": { "name": "Ann" },
            "attributes": [{ "key": "patient", "value": { "stringValue": "Ann" } }],
            "url": format!("https://user:{key}@host/a?key={key}"),
            "mail": "ann@example.org",
        });
        let rules = "[patient]\npaths = [\"request.body..patient[0]\"]\n[mail]\npattern = '\\w+@\\w+\\.org'\n\
                     paths = [\"request.body.mail\"]";
        for field in ["cost", "headers", "inner", "patient", "attributes", "url", "mail"] {
            let excerpt = excerpt(&record, field, rules).unwrap();
            for secret in ["3456789", "Ann", "ann@"] {
                assert!(!excerpt.contains(secret), "{field}: {excerpt}");
            }
        }
        assert!(excerpt(&record, "mail", rules).unwrap().contains("\"mail\":\"[redacted]\""));
        for all in ["request.body", "metadata", "response.headers", "request.body[*]"] {
            assert_eq!(excerpt(&record, "cost", &format!("[all]\npaths = [\"{all}\"]")), None, "{all}");
        }
        let user = json!({ "metadata": { "_user": "Ann" }, "user": "Ann" });
        assert!(!excerpt(&user, "x", "[user]\npaths = [\"user_id\"]").unwrap().contains("Ann"));
    }

    #[test]
    fn what_is_not_to_be_tracked_or_cannot_be_read_has_no_excerpt() {
        let off = json!({ "x-portkey-debug": "false" });
        for untracked in [
            json!({ "do_not_track": true }),
            json!({ "do_not_track": "yes" }),
            json!({ "metrics": { "do_not_track": 1 } }),
            json!([{ "request": { "headers": off } }]),
            json!({ "metadata": { "requester_custom_headers": off.to_string() } }),
            json!({ "metadata": "{'requester_custom_headers': {'x-portkey-debug': 'false'}}" }),
            json!({ "extra_key": "is_raw_logging_enabled", "extra_value": "false" }),
            json!({ "attributes": [{ "key": "http.request.header.x-portkey-debug", "value": {} }] }),
        ] {
            assert_eq!(excerpt(&untracked, "cost", ""), None, "{untracked}");
        }
        for text in ["", "{", "5", "\"do\"", "{\"do_not_track\":true,\"do_not_track\":false}", "{\"a\":NaN}"] {
            assert_eq!(seen(text, "cost", &context("")).excerpt, None, "{text}");
        }
        for tracked in [
            json!({ "do_not_track": false }),
            json!({ "headers": { "x-portkey-debug": "true" } }),
            json!({ "extra_key": "is_raw_logging_enabled", "extra_value": "true" }),
        ] {
            assert!(excerpt(&tracked, "cost", "").is_some(), "{tracked}");
        }
        let headers = super::super::Headers { debug: Some("False".to_owned()), ..Default::default() };
        assert_eq!(seen("{}", "cost", &Context { headers, ..context("") }).excerpt, None);
        let big = json!({ "organisation_id": "acme", "a": "x".repeat(MOST_BYTES) }).to_string();
        let brief = Seen { organisation: Some("acme".to_owned()), ..Seen::default() };
        assert_eq!(seen(&big, "a", &context("")), brief);
    }

    #[test]
    fn the_organisation_and_workspace_are_read_off() {
        let text = json!({ "organisation_id": "acme", "workspace_slug": "search", "x": 1 }).to_string();
        for seen in [seen(&text, "x", &context("")), seen_briefly(&text)] {
            assert_eq!((seen.organisation.as_deref(), seen.workspace.as_deref()), (Some("acme"), Some("search")));
        }
    }
}
