//! What a request may ask: a time frame, filters, and for groups a page and an order.
//!
//! Each filter is one constant clause over a column of `logs`, with placeholders for its values. Several filters all
//! have to hold; of a list any value will do. A range takes in both its ends. A record that has no value of the column
//! passes no filter on it. An empty value is no filter. A value that cannot be meant is an error; a name that is not
//! known is passed over, as Portkey does, but named in the answer, so that a misspelt filter shows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use serde_json::Value;

use super::frame::{Frame, moment};
use super::{join, wrong};
use crate::error::{Error, Result};

/// Values that one list may have.
const MOST_VALUES: usize = 1000;

/// What a filter compares, and how.
#[derive(Clone, Copy, Debug)]
enum Filter {
    /// A column is at least the number.
    AtLeast(&'static str, Number),
    /// A column is at most the number.
    AtMost(&'static str, Number),
    /// A column is one of the texts of a comma-separated list.
    AnyOf(&'static str),
    /// The status is one of the numbers of a list.
    Codes,
    /// Provider and model are one of the pairs `provider__model` of a list.
    Models,
    /// The cache status is one of the words of a list.
    CacheStatus,
    /// Each key of a JSON object has its value in the metadata.
    Metadata,
    /// The weighted feedback of the trace is at least, or at most, the number.
    Feedback(&'static str),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Whole,
    Real,
}

/// Every filter, by the name of its parameter.
const FILTERS: [(&str, Filter); 24] = [
    ("total_units_min", Filter::AtLeast("total_units", Number::Whole)),
    ("total_units_max", Filter::AtMost("total_units", Number::Whole)),
    ("cost_min", Filter::AtLeast("cost", Number::Real)),
    ("cost_max", Filter::AtMost("cost", Number::Real)),
    ("prompt_token_min", Filter::AtLeast("req_units", Number::Whole)),
    ("prompt_token_max", Filter::AtMost("req_units", Number::Whole)),
    ("completion_token_min", Filter::AtLeast("res_units", Number::Whole)),
    ("completion_token_max", Filter::AtMost("res_units", Number::Whole)),
    ("weighted_feedback_min", Filter::Feedback(">=")),
    ("weighted_feedback_max", Filter::Feedback("<=")),
    ("status_code", Filter::Codes),
    ("ai_org_model", Filter::Models),
    ("ai_model", Filter::AnyOf("ai_model")),
    ("virtual_keys", Filter::AnyOf("virtual_key")),
    ("configs", Filter::AnyOf("config")),
    ("prompt_slug", Filter::AnyOf("prompt_slug")),
    ("api_key_ids", Filter::AnyOf("api_key_id")),
    ("trace_id", Filter::AnyOf("trace_id")),
    ("span_id", Filter::AnyOf("span_id")),
    ("cache_status", Filter::CacheStatus),
    ("metadata", Filter::Metadata),
    // A key of one workspace sees no other, and what it asks for is passed over; see `http::analytics`.
    ("workspace_slug", Filter::AnyOf("workspace_slug")),
    // Not Portkey's, whose keys are all of one organisation: for keys that see several.
    ("organisation_id", Filter::AnyOf("organisation_id")),
    ("user_id", Filter::AnyOf("user_id")),
];

/// Parameters that the SDKs send and that are about pages of groups.
const PAGING: [&str; 6] = ["current_page", "page_size", "order_by", "order_by_type", "columns", "include_total"];

const CACHE_STATUSES: [&str; 6] = ["HIT", "SEMANTIC HIT", "MISS", "SEMANTIC MISS", "REFRESH", "DISABLED"];

/// A request, understood.
#[derive(Clone, Debug)]
pub struct Asked {
    pub(super) frame: Frame,
    clauses: Vec<String>,
    values: Vec<(String, ScalarValue)>,
    rated: bool,
    /// Page, order and columns of groups, as they came.
    pub(super) paging: BTreeMap<String, String>,
    /// Names that were not known.
    pub(super) ignored: Vec<String>,
}

impl Asked {
    /// Understands the parameters of a query string.
    pub fn parse(given: BTreeMap<String, String>) -> Result<Self> {
        let mut given: BTreeMap<_, _> = given.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
        let frame = frame(&mut given)?;
        let mut asked = Self {
            frame,
            clauses: Vec::new(),
            values: Vec::new(),
            rated: false,
            paging: BTreeMap::new(),
            ignored: Vec::new(),
        };
        for (name, filter) in FILTERS {
            if let Some(value) = given.remove(name) {
                asked.add(name, filter, &value)?;
            }
        }
        for name in PAGING {
            asked.paging.extend(given.remove_entry(name));
        }
        asked.ignored = given.into_keys().collect();
        Ok(asked)
    }

    /// The filters, each a condition on `logs`.
    pub(super) fn clauses(&self) -> &[String] {
        &self.clauses
    }

    /// Whether a filter reads the feedback.
    pub(super) fn rated(&self) -> bool {
        self.rated
    }

    /// The values of the placeholders.
    pub(super) fn params(&self) -> Vec<(String, ScalarValue)> {
        let mut params = self.values.clone();
        params.push(("time_of_generation_min".to_owned(), time(self.frame.from)));
        params.push(("time_of_generation_max".to_owned(), time(self.frame.to)));
        params.push(("bucket".to_owned(), self.frame.width().word().into()));
        params
    }

    fn add(&mut self, name: &str, filter: Filter, value: &str) -> Result<()> {
        let clause = match filter {
            Filter::AtLeast(column, kind) => format!("{column} >= {}", self.hold(number(name, value, kind)?)),
            Filter::AtMost(column, kind) => format!("{column} <= {}", self.hold(number(name, value, kind)?)),
            Filter::AnyOf(column) => {
                let values = list(name, value)?.into_iter().map(ScalarValue::from).collect();
                format!("{column} in ({})", self.hold_all(values))
            }
            Filter::Codes => format!("response_status_code in ({})", self.hold_all(codes(name, value)?)),
            Filter::Models => self.models(name, value)?,
            Filter::CacheStatus => {
                let values = cache_statuses(name, value)?;
                format!("coalesce(nullif(upper(cache_status), ''), 'DISABLED') in ({})", self.hold_all(values))
            }
            Filter::Metadata => self.metadata(name, value)?,
            Filter::Feedback(sign) => {
                self.rated = true;
                let bound = self.hold(number(name, value, Number::Real)?);
                format!(
                    "exists (select 1 from ratings where ratings.organisation_id = logs.organisation_id \
                     and ratings.trace_id = logs.trace_id \
                     and ratings.weighted / nullif(ratings.weight, 0) {sign} {bound})"
                )
            }
        };
        self.clauses.push(clause);
        Ok(())
    }

    fn models(&mut self, name: &str, value: &str) -> Result<String> {
        let mut pairs = Vec::new();
        for pair in list(name, value)? {
            let Some((provider, model)) = pair.split_once("__") else {
                return Err(wrong(
                    name,
                    pair,
                    "pairs of provider and model such as openai__gpt-4o, with commas between",
                ));
            };
            let (provider, model) = (self.hold(provider.into()), self.hold(model.into()));
            pairs.push(format!("(ai_org = {provider} and ai_model = {model})"));
        }
        Ok(format!("({})", pairs.join(" or ")))
    }

    fn metadata(&mut self, name: &str, value: &str) -> Result<String> {
        let expected = "a JSON object of texts such as {\"_user\":\"u-1\"}";
        let pairs: serde_json::Map<String, Value> =
            serde_json::from_str(value).map_err(|_| wrong(name, value, expected))?;
        if pairs.len() > MOST_VALUES {
            return Err(too_many(name, pairs.len()));
        }
        let mut clauses = vec!["true".to_owned()];
        for (key, value) in pairs {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(wrong(
                        &format!("metadata.{key}"),
                        &value.to_string(),
                        "a text, a number, true or false",
                    ));
                }
            };
            let (key, text) = (self.hold(key.into()), self.hold(text.into()));
            clauses.push(format!("metadata[{key}] = {text}"));
        }
        Ok(clauses.join(" and "))
    }

    /// Keeps a value as a parameter; gives its placeholder.
    fn hold(&mut self, value: ScalarValue) -> String {
        let name = format!("filter_{}", self.values.len());
        let placeholder = format!("${name}");
        self.values.push((name, value));
        placeholder
    }

    fn hold_all(&mut self, values: Vec<ScalarValue>) -> String {
        let placeholders: Vec<String> = values.into_iter().map(|value| self.hold(value)).collect();
        placeholders.join(", ")
    }
}

fn frame(given: &mut BTreeMap<String, String>) -> Result<Frame> {
    let [from, to] = ["time_of_generation_min", "time_of_generation_max"].map(|name| {
        let text = given.remove(name).ok_or_else(|| {
            Error::invalid(format!(
                "parameter `{name}` is missing; send a date or a moment such as 2026-11-21T17:30:00Z"
            ))
        })?;
        let expected = "a date such as 2026-11-21 or a moment such as 2026-11-21T17:30:00+05:30";
        moment(&text).ok_or_else(|| wrong(name, &text, expected))
    });
    let frame = Frame { from: from?, to: to? };
    match frame.from <= frame.to {
        true => Ok(frame),
        false => Err(Error::invalid("`time_of_generation_max` is before `time_of_generation_min`; exchange them")),
    }
}

fn number(name: &str, value: &str, kind: Number) -> Result<ScalarValue> {
    let text = value.trim();
    let typed = match kind {
        Number::Whole => text.parse::<i64>().ok().map(ScalarValue::from),
        Number::Real => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(ScalarValue::from),
    };
    let expected = match kind {
        Number::Whole => "a whole number",
        Number::Real => "a number",
    };
    typed.ok_or_else(|| wrong(name, value, expected))
}

/// The values of a comma-separated list, without blanks around them.
fn list<'a>(name: &str, value: &'a str) -> Result<Vec<&'a str>> {
    let values: Vec<&str> = value.split(',').map(str::trim).filter(|value| !value.is_empty()).collect();
    match values.len() {
        0 => Err(wrong(name, value, "values with commas between")),
        1..=MOST_VALUES => Ok(values),
        count => Err(too_many(name, count)),
    }
}

fn too_many(name: &str, count: usize) -> Error {
    Error::limit(format!("parameter `{name}` has {count} values; at most {MOST_VALUES} are taken"))
}

fn codes(name: &str, value: &str) -> Result<Vec<ScalarValue>> {
    let code = |text: &str| {
        text.parse::<i32>().map(ScalarValue::from).map_err(|_| wrong(name, text, "HTTP statuses such as 401,403"))
    };
    list(name, value)?.into_iter().map(code).collect()
}

fn cache_statuses(name: &str, value: &str) -> Result<Vec<ScalarValue>> {
    let status = |text: &str| {
        let upper = text.to_uppercase();
        match CACHE_STATUSES.contains(&&*upper) {
            true => Ok(ScalarValue::from(upper)),
            false => Err(wrong(name, text, &format!("some of {}", join(CACHE_STATUSES)))),
        }
    };
    list(name, value)?.into_iter().map(status).collect()
}

fn time(at: DateTime<Utc>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
}
