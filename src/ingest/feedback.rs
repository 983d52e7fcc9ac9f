//! The bodies of Portkey's feedback calls, by its rules, and what a change makes of feedback that is there.
//!
//! Values and weights are taken as JavaScript's `Number()` takes them: `"1"` and `true` are 1, 2.5 stays 2.5. What is out
//! of range is refused in a value and is 1 in a weight. A batch is an array, or the object with numbers as keys that the
//! Node SDK makes of one; all of it is good, or none is taken. `log_id`, `organisation_id` and `workspace_slug` are ours;
//! keys that mean nothing here are passed over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::fields::{open, tags, text};
use super::usage::{Members, get};
use crate::record::json::{list, members, unquote};
use crate::record::{Feedback, HIGHEST_VALUE, LOWEST_VALUE};

/// Most items of one batch.
pub const MOST_FEEDBACK: usize = 10_000;

const SOURCE: &str = "API";
const USER: &str = "_user";
const TRACE_NAMES: [&str; 3] = ["trace_id", "traceID", "traceId"];
const LOG_NAMES: [&str; 2] = ["log_id", "logId"];
/// What a weight is that is not said, or makes no sense.
const FULL_WEIGHT: f64 = 1.0;

/// Why a body was refused, as Portkey says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither an object nor an array.
    Body,
    /// A change of several.
    Several,
    /// A key that there must be is missing.
    Missing,
    /// A value that is no number from -10 to 10.
    Value,
    /// A batch of more than [`MOST_FEEDBACK`].
    TooMany,
    /// More keys of metadata, or a longer id, than are kept.
    TooBig,
}

impl Refusal {
    /// Portkey's number for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Body | Self::TooMany | Self::TooBig => "03",
            Self::Several => "031",
            Self::Missing => "032",
            Self::Value => "033",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::Body | Self::Missing | Self::Value => "",
            Self::Several => " Multi Update is not supported.",
            Self::TooMany => " At most 10000 items are taken at once.",
            Self::TooBig => " At most 100 keys of metadata and 1024 bytes of an id are taken.",
        };
        write!(f, "Portkey Error: Invalid Request Body.{why} Error code: {}", self.code())
    }
}

/// Most keys of metadata, and bytes of the id of a trace or log: a log shows all that was said of it.
const MOST_KEYS: usize = 100;
const MOST_ID_BYTES: usize = 1_024;

/// What a change says; what it leaves out stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    value: f64,
    weight: Option<f64>,
    metadata: Option<Vec<(String, String)>>,
}

/// Reads the body of `POST /v1/feedback`. Each item names its trace or its log, or both; ids and times are the engine's.
pub fn drafts(body: &[u8]) -> Result<Vec<Feedback>, Refusal> {
    match Body::of(body)? {
        Body::Many(items) if items.len() > MOST_FEEDBACK => Err(Refusal::TooMany),
        // Portkey takes an empty batch for an item without keys.
        Body::Many(items) if items.is_empty() => Err(Refusal::Missing),
        Body::Many(items) => items.into_iter().map(|item| draft(&members(item).ok_or(Refusal::Missing)?)).collect(),
        Body::One(item) => Ok(vec![draft(&item)?]),
    }
}

/// Reads the body of `PUT /v1/feedback/{id}`.
pub fn change(body: &[u8]) -> Result<Change, Refusal> {
    match Body::of(body)? {
        Body::Many(_) => Err(Refusal::Several),
        Body::One(item) => Ok(Change { value: value(&item)?, weight: weight(&item), metadata: metadata(&item)? }),
    }
}

impl Change {
    /// The state after the one that was, strictly later than it.
    pub fn of(self, old: Feedback, now: DateTime<Utc>) -> Feedback {
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

/// What is to be stored of feedback that came as whole states, a change of it with the id of the first and a later time; `known` is
/// what is there of these ids. The first state says when it was given and of what, and later ones are changes of it. What is
/// no newer than the newest came already or was overtaken, and is left out; of states of one time in `given` the last
/// holds. Ids count within an organisation, so each must be named.
pub fn states(mut given: Vec<Feedback>, known: Vec<Feedback>) -> Vec<Feedback> {
    let key = |one: &Feedback| (one.organisation_id.clone(), one.id.clone());
    let mut newest: HashMap<_, Feedback> = known.into_iter().map(|one| (key(&one), one)).collect();
    given.reverse();
    given.sort_by_key(|one| one.created_at);
    let state = |one: Feedback| {
        // What guardrails found never changes.
        if one.id.is_none() || one.value.is_none() {
            return Some(one);
        }
        match newest.entry(key(&one)) {
            Entry::Vacant(place) => Some(place.insert(one).clone()),
            Entry::Occupied(mut newest) if one.created_at > newest.get().updated_at => {
                let newest = newest.get_mut();
                newest.updated_at = one.created_at;
                (newest.value, newest.weight, newest.user_id) = (one.value, one.weight, one.user_id);
                (newest.source, newest.metadata) = (one.source, one.metadata);
                Some(newest.clone())
            }
            Entry::Occupied(_) => None,
        }
    };
    given.into_iter().filter_map(state).collect()
}

/// A body that is an object or an array.
enum Body<'a> {
    One(Vec<(Cow<'a, str>, &'a str)>),
    Many(Vec<&'a str>),
}

impl<'a> Body<'a> {
    fn of(body: &'a [u8]) -> Result<Self, Refusal> {
        let text = str::from_utf8(body).map_err(|_| Refusal::Body)?.trim();
        if let Some(items) = list(text) {
            return Ok(Self::Many(items));
        }
        let item = members(text).ok_or(Refusal::Body)?;
        let is_number = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
        match !item.is_empty() && item.iter().all(|(key, _)| is_number(key)) {
            true => Ok(Self::Many(item.into_iter().map(|(_, item)| item).collect())),
            false => Ok(Self::One(item)),
        }
    }
}

fn draft(item: &Members<'_>) -> Result<Feedback, Refusal> {
    let (trace_id, log_id) = (text(item, &TRACE_NAMES), text(item, &LOG_NAMES));
    if trace_id.is_none() && log_id.is_none() {
        return Err(Refusal::Missing);
    }
    let is_long = |id: &Option<String>| id.as_ref().is_some_and(|id| id.len() > MOST_ID_BYTES);
    if is_long(&trace_id) || is_long(&log_id) {
        return Err(Refusal::TooBig);
    }
    let metadata = metadata(item)?.unwrap_or_default();
    Ok(Feedback {
        organisation_id: text(item, &["organisation_id"]),
        workspace_slug: text(item, &["workspace_slug"]),
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
    let value = number(get(item, &["value"]).ok_or(Refusal::Missing)?);
    match (LOWEST_VALUE..=HIGHEST_VALUE).contains(&value) {
        true => Ok(value),
        false => Err(Refusal::Value),
    }
}

/// The weight; none if it is not said.
fn weight(item: &Members<'_>) -> Option<f64> {
    let weight = number(get(item, &["weight"])?);
    Some(if (0.0..=1.0).contains(&weight) { weight } else { FULL_WEIGHT })
}

/// A number, or what stands for one; NaN for anything else.
fn number(raw: &str) -> f64 {
    match raw {
        "true" => 1.0,
        "false" => 0.0,
        _ if raw.starts_with('"') => unquote(raw).trim().parse().unwrap_or(f64::NAN),
        _ => raw.parse().unwrap_or(f64::NAN),
    }
}

/// Keys and values, cut as Portkey does; none if they are not said.
fn metadata(item: &Members<'_>) -> Result<Option<Vec<(String, String)>>, Refusal> {
    let raw = get(item, &["metadata"]).map(open).filter(|raw| raw.starts_with('{'));
    match raw.map(|raw| tags(&raw)) {
        Some(pairs) if pairs.len() > MOST_KEYS => Err(Refusal::TooBig),
        pairs => Ok(pairs),
    }
}

fn user(metadata: &[(String, String)]) -> Option<String> {
    metadata.iter().find(|(key, _)| key == USER).map(|(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
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
        Feedback { id, organisation_id, trace_id, value, created_at: at, updated_at: at, ..Feedback::default() }
    }

    fn seconds(states: &[Feedback]) -> Vec<(i64, i64, f64)> {
        let second = |at: Option<DateTime<Utc>>| at.unwrap().timestamp();
        states.iter().map(|one| (second(one.created_at), second(one.updated_at), one.value.unwrap())).collect()
    }

    #[test]
    fn states_that_came_are_changes_of_the_first() {
        // Within one batch, in whatever order; the later of two in one second holds, whether it is the first or a change.
        let batch = vec![came("f", 3, 3.0), came("f", 1, 0.5), came("f", 1, 1.0), came("f", 3, 4.0), came("g", 2, 9.0)];
        let first = states(batch.clone(), Vec::new());
        assert_eq!(seconds(&first), [(1, 1, 1.0), (2, 2, 9.0), (1, 3, 4.0)]);
        // Of what is there the time and the place stay, and what is no newer than it came already.
        let known = || {
            vec![Feedback { log_id: Some("l".to_owned()), workspace_slug: Some("w".to_owned()), ..came("f", 2, 0.0) }]
        };
        let found = states(vec![came("f", 1, 1.0), came("f", 2, 2.0), came("f", 5, 5.0)], known());
        assert_eq!(seconds(&found), [(2, 5, 5.0)]);
        assert_eq!((found[0].log_id.as_deref(), found[0].workspace_slug.as_deref()), (Some("l"), Some("w")));
        // Another organisation's id, one that has none yet, and what guardrails found are not touched.
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
        for not_a_body in ["", "{", "[{\"trace_id\":\"t\",\"value\":1}", "null", "5", "\"text\"", "true", "\u{1}"] {
            assert_eq!(refused(not_a_body), "Portkey Error: Invalid Request Body. Error code: 03", "{not_a_body}");
            assert_eq!(change(not_a_body.as_bytes()), Err(Refusal::Body), "{not_a_body}");
        }
        assert_eq!(drafts(b"{\"trace_id\":\"\xff\",\"value\":1}"), Err(Refusal::Body));
        for missing in [
            "{}",
            "[]",
            "[5]",
            r#"{"value":1}"#,
            r#"{"trace_id":"","value":1}"#,
            r#"{"trace_id":null,"value":1}"#,
            r#"{"trace_id":"t"}"#,
            r#"{"trace_id":"t","value":null}"#,
            r#"[{"trace_id":"t","value":1},{"trace_id":"t"}]"#,
        ] {
            assert_eq!(refused(missing), "Portkey Error: Invalid Request Body. Error code: 032", "{missing}");
        }
        for value in ["10.01", "-11", "1e9", "\"abc\"", "\"\"", "\"NaN\"", "\"Infinity\"", "{}", "[1]"] {
            let body = format!(r#"{{"trace_id":"t","value":{value}}}"#);
            assert_eq!(refused(&body), "Portkey Error: Invalid Request Body. Error code: 033", "{body}");
            assert_eq!(change(body.as_bytes()), Err(Refusal::Value), "{body}");
        }
        for several in [r#"[{"value":1}]"#, "[]", r#"{"0":{"value":1}}"#] {
            let refusal = change(several.as_bytes()).unwrap_err();
            assert_eq!((refusal, refusal.code()), (Refusal::Several, "031"));
            assert!(refusal.to_string().ends_with("Error code: 031"), "{refusal}");
        }
        assert_eq!(change(br#"{"weight":1}"#), Err(Refusal::Missing));
        let many = format!("[{}]", vec![r#"{"trace_id":"t","value":1}"#; MOST_FEEDBACK + 1].join(","));
        assert!(refused(&many).contains(&format!(" {MOST_FEEDBACK} ")), "the limit is told");
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
            assert_eq!((feedback.trace_id.as_deref(), feedback.log_id.as_deref()), (trace, log), "{body}");
            assert_eq!(feedback.source.as_deref(), Some("API"));
        }
        let owned = one(r#"{"trace_id":"t","value":1,"organisation_id":"o","workspace_slug":"w"}"#);
        assert_eq!((owned.organisation_id.as_deref(), owned.workspace_slug.as_deref()), (Some("o"), Some("w")));
        let many = [
            r#"[{"trace_id":"t","value":1},{"trace_id":"u","value":2}]"#,
            r#"{"0":{"traceID":"t","value":1},"1":{"traceID":"u","value":2}}"#,
        ];
        for body in many {
            let found = drafts(body.as_bytes()).unwrap();
            let found: Vec<_> =
                found.iter().map(|item| (item.trace_id.as_deref().unwrap(), item.value.unwrap())).collect();
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
    fn a_change_keeps_what_it_leaves_out_and_is_later() {
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
        let after = |body: &str, now| change(body.as_bytes()).unwrap().of(old.clone(), at(now).unwrap());
        let kept = after(r#"{"value":-3,"feedback_id":"g","trace_id":"other"}"#, 20);
        let expected =
            Feedback { value: Some(-3.0), updated_at: at(20), source: Some("API".to_owned()), ..old.clone() };
        assert_eq!(kept, expected);
        let replaced = after(r#"{"value":0,"weight":7,"metadata":{"a":"b"}}"#, 20);
        assert_eq!((replaced.weight, replaced.metadata, replaced.user_id), (Some(1.0), pairs(&[("a", "b")]), None));
        assert_eq!(after(r#"{"value":0,"metadata":{}}"#, 20).metadata, []);
        assert_eq!(after(r#"{"value":0,"metadata":null}"#, 20).metadata, old.metadata);
        // A clock that stands or goes back does not undo the order of changes.
        for now in [3, 10] {
            assert_eq!(after(r#"{"value":0}"#, now).updated_at, at(11), "{now}");
        }
    }
}
