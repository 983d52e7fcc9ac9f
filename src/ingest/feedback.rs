//! Reads the bodies of Portkey's feedback calls by Portkey's rules, and applies changes to stored
//! feedback.
//!
//! Values and weights are converted as JavaScript's `Number()` converts them: `"1"` and `true` are
//! 1, 2.5 stays 2.5. A value out of range is refused; a weight out of range becomes 1. A batch is
//! an array, or the object with numeric keys that the Node SDK makes of one. A batch is accepted
//! only if all of its items are good. `log_id`, `organisation_id` and `workspace_slug` are our
//! additions; other unknown keys are ignored.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::context::Context;
use super::excerpt::seen;
use super::fields::{open, tags, text};
use super::rejection::Rejection;
use super::usage::{Members, get};
use crate::record::json::{FieldError, Reason, finite, list, members, unquote};
use crate::record::{Feedback, HIGHEST_VALUE, LOWEST_VALUE};

/// Maximum number of items in one batch.
pub const MAX_FEEDBACK: usize = 10_000;

const SOURCE: &str = "API";
const USER: &str = "_user";
const TRACE_NAMES: [&str; 3] = ["trace_id", "traceID", "traceId"];
const LOG_NAMES: [&str; 2] = ["log_id", "logId"];
/// Bytes of refused feedback above which no excerpt is made.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// Weight of feedback that states none, or an invalid one.
const FULL_WEIGHT: f64 = 1.0;

/// Maximum number of metadata keys, and of bytes in an id or another name. The bound is needed
/// since a log shows all of its feedback.
const MAX_KEYS: usize = 100;
const MAX_NAME_BYTES: usize = 1_024;

/// Portkey's error codes: the body is not an object or a list of objects, or is too large; a change
/// has several items; a required key is missing; a value is not a number from -10 to 10.
const BODY: &str = "03";
const SEVERAL: &str = "031";
const MISSING: &str = "032";
const VALUE: &str = "033";

/// Reason for which a body was refused: Portkey's exact words and code, followed by our
/// explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: &'static str,
    why: String,
    /// Number of the item in a list, counted from 0, and its text.
    item: u64,
    text: String,
    fault: Box<FieldError>,
}

impl Refusal {
    /// Returns the refusal of a body that cannot be read.
    pub fn unreadable(why: impl fmt::Display) -> Self {
        let why = format!("The body {why}; send a JSON object, or a list of them");
        Self::whole(BODY, why, FieldError::silent("json", "a JSON object, or a list of them"))
    }

    fn whole(code: &'static str, why: String, fault: FieldError) -> Self {
        Self { code, why, item: 0, text: String::new(), fault: Box::new(fault) }
    }

    fn new(code: &'static str, fault: FieldError) -> Self {
        let why = fault.to_string().replacen("field", "Field", 1);
        Self::whole(code, why, fault)
    }

    fn in_item(self, number: u64, text: &str) -> Self {
        let why = format!("Item {}: {}", number + 1, self.why);
        Self { why, item: number, ..self }.in_text(text.as_bytes())
    }

    /// Returns the refusal with the text of the item, if the text is short enough for an excerpt.
    fn in_text(self, text: &[u8]) -> Self {
        let text = str::from_utf8(text)
            .ok()
            .filter(|text| text.len() <= MAX_TEXT_BYTES)
            .unwrap_or_default();
        Self { text: text.to_owned(), ..self }
    }

    /// Returns the rejection: the item, the field and the reason, with the organisation and excerpt
    /// that the item gives.
    pub fn rejection(&self, context: &Context) -> Rejection {
        let seen = seen(&self.text, &self.fault, context);
        Rejection::new(self.item, (*self.fault).clone().seen(seen))
    }

    /// Returns Portkey's error code.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = if self.code == SEVERAL { " Multi Update is not supported." } else { "" };
        write!(
            f,
            "Portkey Error: Invalid Request Body.{several} Error code: {}. {}",
            self.code, self.why
        )
    }
}

/// A change of feedback. Values that it leaves out keep their stored state.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    value: f64,
    weight: Option<f64>,
    metadata: Option<Vec<(String, String)>>,
}

/// Reads the body of `POST /v1/feedback`. Each item names its trace or its log, or both; ids and
/// times are the engine's.
pub fn drafts(body: &[u8]) -> Result<Vec<Feedback>, Refusal> {
    match Body::parse(&readable(body)?)? {
        Body::Many(items) if items.len() > MAX_FEEDBACK => {
            let why =
                format!("The list has {} items; send at most {MAX_FEEDBACK} at once", items.len());
            let fault = FieldError::silent("json", format!("at most {MAX_FEEDBACK} items at once"));
            Err(Refusal::whole(BODY, why, fault.because(Reason::TooLarge)))
        }
        // Portkey treats an empty batch as an item without keys.
        Body::Many(items) if items.is_empty() => Err(about_nothing()),
        Body::Many(items) => {
            let mut drafts = Vec::with_capacity(items.len());
            for (number, raw) in (0..).zip(items) {
                let draft = members(raw).ok_or_else(about_nothing).and_then(|item| draft(&item));
                drafts.push(draft.map_err(|why| why.in_item(number, raw))?);
            }
            Ok(drafts)
        }
        Body::One(item) => Ok(vec![draft(&item).map_err(|why| why.in_text(body))?]),
    }
}

/// Reads the body of `PUT /v1/feedback/{id}`.
pub fn change(body: &[u8]) -> Result<Change, Refusal> {
    match Body::parse(&readable(body)?)? {
        Body::Many(_) => {
            let fault =
                FieldError::silent("json", "one object with `value`").because(Reason::Invalid);
            Err(Refusal::whole(SEVERAL, "Send one object with `value`".to_owned(), fault))
        }
        Body::One(item) => Change::read(&item).map_err(|why| why.in_text(body)),
    }
}

impl Change {
    fn read(item: &Members<'_>) -> Result<Self, Refusal> {
        Ok(Self { value: value(item)?, weight: weight(item), metadata: metadata(item)? })
    }

    /// Returns the state of the feedback after the change, with a time strictly later than the
    /// stored one.
    pub fn apply_to(self, old: Feedback, now: DateTime<Utc>) -> Feedback {
        let after = old.updated_at.map_or(now, |at| at + TimeDelta::microseconds(1));
        let metadata = self.metadata.unwrap_or(old.metadata);
        Feedback {
            updated_at: Some(now.max(after)),
            value: Some(self.value),
            weight: self.weight.or(old.weight),
            user_id: user(&metadata),
            source: Some(SOURCE.to_owned()),
            metadata,
            ..old
        }
    }
}

/// Returns the states to store for feedback that arrives as whole states: a change has the id of
/// the first state and a later time. `known` holds the stored states of these ids.
///
/// The first state sets the creation time and the trace or log, and later ones are changes of it. A
/// state that is no newer than the newest one is a duplicate or outdated, and is left out. Of
/// several states in `given` with the same time, the last one wins. Ids are unique within an
/// organisation, so each state must name its organisation.
pub fn states(mut given: Vec<Feedback>, known: Vec<Feedback>) -> Vec<Feedback> {
    let key = |one: &Feedback| (one.organisation_id.clone(), one.id.clone());
    let mut newest: HashMap<_, Feedback> = known.into_iter().map(|one| (key(&one), one)).collect();
    given.reverse();
    given.sort_by_key(|one| one.created_at);
    let mut states = Vec::new();
    for one in given {
        // Feedback of guardrails never changes.
        if one.id.is_none() || one.value.is_none() {
            states.push(one);
            continue;
        }
        match newest.entry(key(&one)) {
            Entry::Vacant(place) => states.push(place.insert(one).clone()),
            Entry::Occupied(mut newest) if one.created_at > newest.get().updated_at => {
                let newest = newest.get_mut();
                newest.updated_at = one.created_at;
                newest.value = one.value;
                newest.weight = one.weight;
                newest.user_id = one.user_id;
                newest.source = one.source;
                newest.metadata = one.metadata;
                states.push(newest.clone());
            }
            Entry::Occupied(_) => {}
        }
    }
    states
}

/// Returns the text of a body, with `NaN` and infinities replaced by null.
fn readable(body: &[u8]) -> Result<Cow<'_, str>, Refusal> {
    let text = str::from_utf8(body).map_err(|_| Refusal::unreadable("is not UTF-8"))?;
    Ok(finite(text.trim()))
}

/// A body that is an object or an array.
enum Body<'a> {
    One(Vec<(Cow<'a, str>, &'a str)>),
    Many(Vec<&'a str>),
}

impl<'a> Body<'a> {
    fn parse(text: &'a str) -> Result<Self, Refusal> {
        if let Some(items) = list(text) {
            return Ok(Self::Many(items));
        }
        let item = members(text)
            .ok_or_else(|| Refusal::unreadable("is neither a JSON object nor a list"))?;
        if !item.is_empty() && item.iter().all(|(key, _)| is_number(key)) {
            return Ok(Self::Many(item.into_iter().map(|(_, item)| item).collect()));
        }
        Ok(Self::One(item))
    }
}

fn is_number(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the refusal of feedback that names neither a trace nor a log.
fn about_nothing() -> Refusal {
    let expected = "the trace, or in `log_id` the log, that the feedback is about";
    Refusal::new(MISSING, FieldError::missing("trace_id", expected))
}

fn draft(item: &Members<'_>) -> Result<Feedback, Refusal> {
    let name = |names: &[&str]| {
        let name = text(item, names);
        let Some(long) = name.as_ref().filter(|name| name.len() > MAX_NAME_BYTES) else {
            return Ok(name);
        };
        let fault = FieldError::new(names[0], long, format!("at most {MAX_NAME_BYTES} bytes"));
        Err(Refusal::new(BODY, fault.because(Reason::TooLarge)))
    };
    let trace_id = name(&TRACE_NAMES)?;
    let log_id = name(&LOG_NAMES)?;
    if trace_id.is_none() && log_id.is_none() {
        return Err(about_nothing());
    }
    let metadata = metadata(item)?.unwrap_or_default();
    Ok(Feedback {
        organisation_id: name(&["organisation_id"])?,
        workspace_slug: name(&["workspace_slug"])?,
        trace_id,
        log_id,
        value: Some(value(item)?),
        weight: Some(weight(item).unwrap_or(FULL_WEIGHT)),
        user_id: user(&metadata),
        source: Some(SOURCE.to_owned()),
        metadata,
        ..Feedback::default()
    })
}

fn value(item: &Members<'_>) -> Result<f64, Refusal> {
    let expected = || format!("a number from {LOWEST_VALUE} to {HIGHEST_VALUE}");
    let raw = get(item, &["value"])
        .ok_or_else(|| Refusal::new(MISSING, FieldError::missing("value", expected())))?;
    let value = number(raw);
    if !(LOWEST_VALUE..=HIGHEST_VALUE).contains(&value) {
        return Err(Refusal::new(VALUE, FieldError::new("value", raw, expected())));
    }
    Ok(value)
}

/// Reads the weight; `None` if the item does not state one.
fn weight(item: &Members<'_>) -> Option<f64> {
    let weight = number(get(item, &["weight"])?);
    Some(if (0.0..=1.0).contains(&weight) { weight } else { FULL_WEIGHT })
}

/// Converts a value to a number; NaN if it does not stand for one.
fn number(raw: &str) -> f64 {
    match raw {
        "true" => 1.0,
        "false" => 0.0,
        _ if raw.starts_with('"') => unquote(raw).trim().parse().unwrap_or(f64::NAN),
        _ => raw.parse().unwrap_or(f64::NAN),
    }
}

/// Reads keys and values, cut as Portkey cuts them; `None` if the item has no metadata.
fn metadata(item: &Members<'_>) -> Result<Option<Vec<(String, String)>>, Refusal> {
    let raw = get(item, &["metadata"]).map(open).filter(|raw| raw.starts_with('{'));
    match raw.map(|raw| tags(&raw)) {
        Some(pairs) if pairs.len() > MAX_KEYS => {
            let found = format!("an object of {} keys", pairs.len());
            let fault = FieldError::new("metadata", &found, format!("at most {MAX_KEYS} keys"));
            Err(Refusal::new(BODY, fault.because(Reason::TooLarge)))
        }
        pairs => Ok(pairs),
    }
}

fn user(metadata: &[(String, String)]) -> Option<String> {
    metadata.iter().find(|(key, _)| key == USER).map(|(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(body: &str) -> Feedback {
        let mut drafts = drafts(body.as_bytes()).unwrap();
        assert_eq!(drafts.len(), 1, "{body}");
        drafts.remove(0)
    }

    fn refused(body: &str) -> String {
        drafts(body.as_bytes()).unwrap_err().to_string()
    }

    fn came(id: &str, second: i64, value: f64) -> Feedback {
        let at = DateTime::from_timestamp(second, 0);
        let [id, organisation_id, trace_id] = [id, "acme", "t"].map(|text| Some(text.to_owned()));
        let value = Some(value);
        Feedback {
            id,
            organisation_id,
            trace_id,
            value,
            created_at: at,
            updated_at: at,
            ..Feedback::default()
        }
    }

    fn seconds(states: &[Feedback]) -> Vec<(i64, i64, f64)> {
        let second = |at: Option<DateTime<Utc>>| at.unwrap().timestamp();
        states
            .iter()
            .map(|one| (second(one.created_at), second(one.updated_at), one.value.unwrap()))
            .collect()
    }

    #[test]
    fn states_that_came_are_changes_of_the_first() {
        // Within one batch, in any order. Of two states of one second the later one wins, for a
        // first state and for a change.
        let batch = vec![
            came("f", 3, 3.0),
            came("f", 1, 0.5),
            came("f", 1, 1.0),
            came("f", 3, 4.0),
            came("g", 2, 9.0),
        ];
        let first = states(batch.clone(), Vec::new());
        assert_eq!(seconds(&first), [(1, 1, 1.0), (2, 2, 9.0), (1, 3, 4.0)]);
        // Stored feedback keeps its time and place. A state that is no newer than the stored one is
        // a duplicate.
        let known = || {
            vec![Feedback {
                log_id: Some("l".to_owned()),
                workspace_slug: Some("w".to_owned()),
                ..came("f", 2, 0.0)
            }]
        };
        let found = states(vec![came("f", 1, 1.0), came("f", 2, 2.0), came("f", 5, 5.0)], known());
        assert_eq!(seconds(&found), [(2, 5, 5.0)]);
        assert_eq!(
            (found[0].log_id.as_deref(), found[0].workspace_slug.as_deref()),
            (Some("l"), Some("w"))
        );
        // The id of another organisation, feedback without an id and guardrail feedback are not
        // touched.
        let zen = Feedback { organisation_id: Some("zen".to_owned()), ..came("f", 1, 1.0) };
        let bare = Feedback { id: None, ..came("f", 1, 1.0) };
        let guardrail = Feedback { value: None, ..came("f", 1, 1.0) };
        for other in [zen, bare, guardrail] {
            assert_eq!(states(vec![other.clone()], known()), [other]);
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn refusals_are_portkeys_words_and_codes() {
        for not_a_body in
            ["", "{", "[{\"trace_id\":\"t\",\"value\":1}", "null", "5", "\"text\"", "true", "\u{1}"]
        {
            let words = "Portkey Error: Invalid Request Body. Error code: 03. The body is neither a JSON object nor a list; \
                         send a JSON object, or a list of them";
            assert_eq!(refused(not_a_body), words, "{not_a_body}");
            assert_eq!(
                change(not_a_body.as_bytes()).unwrap_err().to_string(),
                words,
                "{not_a_body}"
            );
        }
        let odd = drafts(b"{\"trace_id\":\"\xff\",\"value\":1}").unwrap_err();
        assert!(
            odd.code() == "03" && odd.to_string().contains("The body is not UTF-8; send"),
            "{odd}"
        );
        let about = "Field `trace_id`: expected the trace, or in `log_id` the log, that the feedback is about";
        let worth = "Field `value`: expected a number from -10 to 10";
        for (missing, why) in [
            ("{}", about.to_owned()),
            ("[]", about.to_owned()),
            ("[5]", format!("Item 1: {about}")),
            (r#"{"value":1}"#, about.to_owned()),
            (r#"{"trace_id":"","value":1}"#, about.to_owned()),
            (r#"{"trace_id":null,"value":1}"#, about.to_owned()),
            (r#"{"trace_id":"t"}"#, worth.to_owned()),
            (r#"{"trace_id":"t","value":null}"#, worth.to_owned()),
            (r#"[{"trace_id":"t","value":1},{"trace_id":"t"}]"#, format!("Item 2: {worth}")),
        ] {
            let words = format!("Portkey Error: Invalid Request Body. Error code: 032. {why}");
            assert_eq!(refused(missing), words, "{missing}");
        }
        for value in
            ["10.01", "-11", "1e9", "\"abc\"", "\"\"", "\"NaN\"", "\"Infinity\"", "{}", "[1]"]
        {
            let body = format!(r#"{{"trace_id":"t","value":{value}}}"#);
            let words = format!(
                "Portkey Error: Invalid Request Body. Error code: 033. Field `value` is `{value}`; expected a number from \
                 -10 to 10"
            );
            assert_eq!(refused(&body), words, "{body}");
            assert_eq!(change(body.as_bytes()).unwrap_err().to_string(), words, "{body}");
        }
        for several in [r#"[{"value":1}]"#, "[]", r#"{"0":{"value":1}}"#] {
            let refusal = change(several.as_bytes()).unwrap_err();
            assert_eq!(refusal.code(), "031");
            let words = "Portkey Error: Invalid Request Body. Multi Update is not supported. Error code: 031. Send one object \
                         with `value`";
            assert_eq!(refusal.to_string(), words);
        }
        assert_eq!(change(br#"{"weight":1}"#).unwrap_err().code(), "032");
        let many =
            format!("[{}]", vec![r#"{"trace_id":"t","value":1}"#; MAX_FEEDBACK + 1].join(","));
        assert!(
            refused(&many).ends_with("The list has 10001 items; send at most 10000 at once"),
            "{}",
            refused(&many)
        );
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for name in ["trace_id", "log_id", "organisation_id", "workspace_slug"] {
            let body = json!({ "trace_id": "t", "value": 1, name: long }).to_string();
            let words = refused(&body);
            assert!(words.contains(&format!("Error code: 03. Field `{name}` is `xxx")), "{words}");
            assert!(words.ends_with("expected at most 1024 bytes") && words.len() < 300, "{words}");
        }
        let keys: serde_json::Map<_, _> =
            (0..=MAX_KEYS).map(|number| (number.to_string(), json!(1))).collect();
        let words = refused(&json!({ "trace_id": "t", "value": 1, "metadata": keys }).to_string());
        assert!(
            words.ends_with(
                "Field `metadata` is `an object of 101 keys`; expected at most 100 keys"
            ),
            "{words}"
        );
    }

    #[test]
    fn values_are_coerced_and_kept_and_weights_reset() {
        for (value, expected) in [
            ("10", 10.0),
            ("-10", -10.0),
            ("2.5", 2.5),
            ("\"1\"", 1.0),
            ("\" -2.5 \"", -2.5),
            ("true", 1.0),
            ("1e1", 10.0),
        ] {
            let body = format!(r#"{{"trace_id":"t","value":{value}}}"#);
            assert_eq!(one(&body).value, Some(expected), "{value}");
            assert_eq!(change(body.as_bytes()).unwrap().value, expected, "{value}");
        }
        for (weight, expected) in [
            ("0", 0.0),
            ("0.25", 0.25),
            ("\"0.5\"", 0.5),
            ("1", 1.0),
            ("1.01", 1.0),
            ("-1", 1.0),
            ("\"x\"", 1.0),
            ("null", 1.0),
        ] {
            let body = format!(r#"{{"trace_id":"t","value":1,"weight":{weight}}}"#);
            assert_eq!(one(&body).weight, Some(expected), "{weight}");
        }
        assert_eq!(one(r#"{"trace_id":"t","value":1}"#).weight, Some(1.0));
    }

    #[test]
    fn traces_and_logs_are_named_in_any_spelling() {
        for (body, trace, log) in [
            (r#"{"trace_id":"t","value":1}"#, Some("t"), None),
            (r#"{"traceID":"t","value":1}"#, Some("t"), None),
            (r#"{"traceId":7,"value":1}"#, Some("7"), None),
            (r#"{"log_id":"l","value":1}"#, None, Some("l")),
            (r#"{"log_id":"l","trace_id":"t","value":1,"feedback_id":"F"}"#, Some("t"), Some("l")),
        ] {
            let feedback = one(body);
            assert_eq!(
                (feedback.trace_id.as_deref(), feedback.log_id.as_deref()),
                (trace, log),
                "{body}"
            );
            assert_eq!(feedback.source.as_deref(), Some("API"));
        }
        let owned = one(r#"{"trace_id":"t","value":1,"organisation_id":"o","workspace_slug":"w"}"#);
        assert_eq!(
            (owned.organisation_id.as_deref(), owned.workspace_slug.as_deref()),
            (Some("o"), Some("w"))
        );
        let many = [
            r#"[{"trace_id":"t","value":1},{"trace_id":"u","value":2}]"#,
            r#"{"0":{"traceID":"t","value":1},"1":{"traceID":"u","value":2}}"#,
        ];
        for body in many {
            let found = drafts(body.as_bytes()).unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|item| (item.trace_id.as_deref().unwrap(), item.value.unwrap()))
                .collect();
            assert_eq!(found, [("t", 1.0), ("u", 2.0)], "{body}");
        }
    }

    #[test]
    fn metadata_is_text_of_at_most_128_characters() {
        let long = "é".repeat(130);
        let body = format!(
            r#"{{"trace_id":"t","value":1,"metadata":{{"_user":"ann","_prompt":"p","_organisation":"o","_environment":"e",
                "note":"it's","n":5,"flag":true,"none":null,"{long}":"{long}"}}}}"#
        );
        let feedback = one(&body);
        let cut = "é".repeat(128);
        let expected = [
            ("_user", "ann"),
            ("_prompt", "p"),
            ("_organisation", "o"),
            ("_environment", "e"),
            ("note", "it's"),
            ("n", "5"),
            ("flag", "true"),
            (&cut, &cut),
        ];
        assert_eq!(feedback.metadata, pairs(&expected));
        assert_eq!(feedback.user_id.as_deref(), Some("ann"));
        for odd in ["null", "5", "[]", "\"x\""] {
            let feedback = one(&format!(r#"{{"trace_id":"t","value":1,"metadata":{odd}}}"#));
            assert_eq!((feedback.metadata, feedback.user_id), (Vec::new(), None), "{odd}");
        }
    }

    #[test]
    fn a_change_keeps_omitted_values_and_has_a_later_time() {
        let at = |micros| DateTime::from_timestamp_micros(micros);
        let old = Feedback {
            id: Some("f".to_owned()),
            trace_id: Some("t".to_owned()),
            created_at: at(5),
            updated_at: at(10),
            value: Some(1.0),
            weight: Some(0.25),
            user_id: Some("ann".to_owned()),
            metadata: pairs(&[("_user", "ann")]),
            ..Feedback::default()
        };
        let after = |body: &str, now| {
            change(body.as_bytes()).unwrap().apply_to(old.clone(), at(now).unwrap())
        };
        let kept = after(r#"{"value":-3,"feedback_id":"g","trace_id":"other"}"#, 20);
        let expected = Feedback {
            value: Some(-3.0),
            updated_at: at(20),
            source: Some("API".to_owned()),
            ..old.clone()
        };
        assert_eq!(kept, expected);
        let replaced = after(r#"{"value":0,"weight":7,"metadata":{"a":"b"}}"#, 20);
        assert_eq!(
            (replaced.weight, replaced.metadata, replaced.user_id),
            (Some(1.0), pairs(&[("a", "b")]), None)
        );
        assert_eq!(after(r#"{"value":0,"metadata":{}}"#, 20).metadata, []);
        assert_eq!(after(r#"{"value":0,"metadata":null}"#, 20).metadata, old.metadata);
        // A clock that stops or goes back does not undo the order of changes.
        for now in [3, 10] {
            assert_eq!(after(r#"{"value":0}"#, now).updated_at, at(11), "{now}");
        }
    }
}
