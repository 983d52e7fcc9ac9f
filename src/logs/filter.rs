//! Filters of records: every filter of Portkey's Logs page and exports, with Portkey's names, and
//! the Status labels.
//!
//! A filter is parsed from texts ([`Filter::read`], for query strings) or from a JSON object
//! ([`Filter::from_object`]), validated once, and becomes one SQL condition over `logs` with bound
//! values ([`Filter::condition`]); no value is part of the SQL text. Filters with different names
//! are combined with `and`, the values of one filter with `or`. A record without a value does not
//! match a filter on that value. Money is in US cents.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use serde_json::{Map, Value};

use super::status::{Kind, Label};
use crate::error::{Error, Result};
use crate::record::COLUMNS;
use crate::time;

/// Names of all filters, separated by commas.
pub const NAMES: &str = "time_of_generation_min, time_of_generation_max, total_units_min, total_units_max, cost_min, \
                         cost_max, prompt_token_min, prompt_token_max, completion_token_min, completion_token_max, \
                         weighted_feedback_min, weighted_feedback_max, status_code, ai_model, ai_org_model, virtual_keys, \
                         configs, prompt_slug, trace_id, span_id, api_key_ids, workspace_slug, cache_status, metadata, \
                         status, organisation_id, user_id, internal_trace_id, is_success";
/// Maximum number of values of one filter.
pub const MAX_VALUES: usize = 1_000;
/// Maximum number of values if each is a condition of its own: planning time is quadratic in them.
pub const MAX_CONDITIONS: usize = 100;
const CACHE_STATUSES: [&str; 6] =
    ["HIT", "SEMANTIC HIT", "MISS", "SEMANTIC MISS", "REFRESH", "DISABLED"];
/// Filters that take a list of texts, with the column of each.
const LISTS: [(&str, &str); 11] = [
    ("ai_model", "ai_model"),
    ("virtual_keys", "virtual_key"),
    ("configs", "config"),
    ("prompt_slug", "prompt_slug"),
    ("trace_id", "trace_id"),
    ("span_id", "span_id"),
    ("api_key_ids", "api_key_id"),
    ("workspace_slug", "workspace_slug"),
    ("organisation_id", "organisation_id"),
    ("user_id", "user_id"),
    ("internal_trace_id", "internal_trace_id"),
];
/// Filters with a minimum and a maximum over whole numbers, with the column of each.
const COUNTS: [(&str, &str); 3] = [
    ("total_units", "total_units"),
    ("prompt_token", "req_units"),
    ("completion_token", "res_units"),
];

/// Query for the logs whose weighted feedback lies between two parameters.
const RATED: &str = include_str!("../../sql/logs/rated.sql");

/// Columns of `logs` that this query reads.
pub(super) const RATED_COLUMNS: [&str; 4] = ["id", "trace_id", "workspace_slug", "span_name"];

/// An inclusive range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds<T> {
    /// Minimum.
    pub min: Option<T>,
    /// Maximum.
    pub max: Option<T>,
}

impl<T> Default for Bounds<T> {
    fn default() -> Self {
        Self { min: None, max: None }
    }
}

/// A filter of records. Empty fields do not filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Time of the call.
    pub time: Bounds<DateTime<Utc>>,
    /// Ranges of whole numbers, by column.
    pub counts: Vec<(&'static str, Bounds<i64>)>,
    /// Range of the cost, US cents.
    pub cost: Bounds<f64>,
    /// Weighted mean of the feedback on the record's trace and on the record alone, -10 to 10.
    pub weighted_feedback: Bounds<f64>,
    /// HTTP statuses.
    pub status_codes: Vec<i32>,
    /// Accepted texts, by column.
    pub texts: Vec<(&'static str, Vec<String>)>,
    /// Providers with one of their models.
    pub ai_org_models: Vec<(String, String)>,
    /// Accepted cache statuses, such as `HIT`.
    pub cache_statuses: Vec<String>,
    /// Metadata keys with their values. A record must have all of them.
    pub metadata: Vec<(String, String)>,
    /// Status labels. A record must have one of each kind.
    pub labels: Vec<Label>,
    /// True if the call succeeded.
    pub is_success: Option<bool>,
}

/// An SQL condition over `logs`.
///
/// A statement begins with [`Condition::with`] and has [`Condition::clause`] after `from logs`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    /// Query that replaces `logs` if a filter needs a join, which no condition can express.
    pub logs: Option<&'static str>,
    /// Conditions that must all hold. Empty for every record.
    pub parts: Vec<String>,
    /// Values of the placeholders, by name without the `$`.
    pub params: Vec<(String, ScalarValue)>,
}

impl Filter {
    /// Parses a filter from texts. `take` returns the text of a name if it was given. An empty text
    /// counts as missing.
    pub fn read(mut take: impl FnMut(&str) -> Option<String>) -> Result<Self> {
        let mut take = |name: &str| take(name).filter(|text| !text.trim().is_empty());
        let mut filter = Self {
            time: bounds("time_of_generation", &mut take, time::parse_parameter)?,
            ..Self::default()
        };
        for (name, column) in COUNTS {
            let bounds = bounds(name, &mut take, count)?;
            filter.counts.push((column, bounds));
        }
        filter.counts.retain(|(_, bounds)| bounds.min.is_some() || bounds.max.is_some());
        filter.cost = bounds("cost", &mut take, amount)?;
        filter.weighted_feedback = bounds("weighted_feedback", &mut take, score)?;
        for (name, column) in LISTS {
            if let Some(text) = take(name) {
                filter.texts.push((column, values(name, &text)?));
            }
        }
        if let Some(text) = take("status_code") {
            filter.status_codes = values("status_code", &text)?
                .iter()
                .map(|code| status_code(code))
                .collect::<Result<_>>()?;
        }
        if let Some(text) = take("ai_org_model") {
            for pair in distinct("ai_org_model", &text, MAX_CONDITIONS)? {
                filter.ai_org_models.extend(org_models(&pair)?);
            }
            let pairs = filter.ai_org_models.len();
            if pairs > MAX_CONDITIONS {
                return Err(Error::invalid(format!(
                    "`ai_org_model` has {pairs} readings as PROVIDER__MODEL; the maximum is {MAX_CONDITIONS}"
                )));
            }
        }
        if let Some(text) = take("cache_status") {
            let statuses = values("cache_status", &text)?;
            filter.cache_statuses =
                statuses.iter().map(|status| cache_status(status)).collect::<Result<_>>()?;
        }
        if let Some(text) = take("metadata") {
            filter.metadata = metadata(&text)?;
        }
        if let Some(text) = take("status") {
            filter.labels = distinct("status", &text, MAX_CONDITIONS)?
                .iter()
                .map(|label| Label::parse(label))
                .collect::<Result<_>>()?;
        }
        filter.is_success = take("is_success").map(|text| truth(&text)).transpose()?;
        Ok(filter)
    }

    /// Parses a filter from an object, such as `filters` of an export. Numbers and ids may be
    /// numbers or texts, lists may be arrays or texts, and metadata an object or its text. Other
    /// fields are ignored.
    pub fn from_object(fields: &Map<String, Value>) -> Result<Self> {
        let mut texts = HashMap::new();
        for name in NAMES.split(", ") {
            if let Some(value) = fields.get(name).filter(|value| !value.is_null()) {
                texts.insert(name, text_of(name, value)?);
            }
        }
        Self::read(|name| texts.remove(name))
    }

    /// Returns the columns that the filter reads. For the metadata these are the keys column, and
    /// `metadata.value.KEY` for each key of the filter.
    pub fn columns(&self) -> Vec<String> {
        let parts = self.condition().parts.join(" ");
        let words = parts.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let is_column =
            |word: &&str| *word != "metadata" && COLUMNS.iter().any(|column| column.name == *word);
        let keys = self
            .metadata
            .iter()
            .flat_map(|(key, _)| ["metadata.key".to_owned(), format!("metadata.value.{key}")]);
        let rated = RATED_COLUMNS.into_iter().filter(|_| self.is_rated());
        words.filter(is_column).chain(rated).map(str::to_owned).chain(keys).collect()
    }

    /// Returns true if the filter reads feedback.
    pub fn is_rated(&self) -> bool {
        self.weighted_feedback != Bounds::default()
    }

    /// Returns the SQL condition of the filter.
    pub(crate) fn condition(&self) -> Condition {
        let mut all = Condition::default();
        let micros = |at: DateTime<Utc>| {
            ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
        };
        all.within("created_at", self.time, micros);
        for (column, bounds) in &self.counts {
            all.within(column, *bounds, |count| ScalarValue::Int64(Some(count)));
        }
        all.within("cost", self.cost, |cents| ScalarValue::Float64(Some(cents)));
        for (column, values) in &self.texts {
            match *column {
                "ai_model" => all.model_of(values),
                column => all.one_of(column, values.iter().map(text)),
            }
        }
        if !self.status_codes.is_empty() {
            all.one_of(
                "response_status_code",
                self.status_codes.iter().map(|code| ScalarValue::Int32(Some(*code))),
            );
        }
        if !self.ai_org_models.is_empty() {
            let pairs = self.ai_org_models.iter().map(|(org, model)| {
                format!(
                    "(ai_org = {} and ai_model = {})",
                    all.bind(text(org)),
                    all.bind(text(model))
                )
            });
            let pairs = pairs.collect::<Vec<_>>().join(" or ");
            all.parts.push(format!("({pairs})"));
        }
        if !self.cache_statuses.is_empty() {
            all.one_of(
                "coalesce(nullif(upper(cache_status), ''), 'DISABLED')",
                self.cache_statuses.iter().map(text),
            );
        }
        if let Some(success) = self.is_success {
            all.one_of("is_success", [ScalarValue::Int32(Some(i32::from(success)))].into_iter());
        }
        for (key, value) in &self.metadata {
            let [key, value] =
                [key, value].map(|text| all.bind(ScalarValue::Utf8(Some(text.clone()))));
            all.parts.push(format!("metadata[{key}] = {value}"));
        }
        for kind in [Kind::Cache, Kind::Retry, Kind::Fallback, Kind::Loadbalance] {
            let labels = self.labels.iter().filter(|label| label.kind() == kind);
            let labels: Vec<String> =
                labels.map(|label| format!("({})", label.condition())).collect();
            if !labels.is_empty() {
                all.parts.push(format!("({})", labels.join(" or ")));
            }
        }
        if self.is_rated() {
            all.logs = Some(RATED);
            let bounds = [
                ("min", self.weighted_feedback.min, f64::MIN),
                ("max", self.weighted_feedback.max, f64::MAX),
            ];
            all.params.extend(bounds.map(|(end, bound, open)| {
                (
                    format!("weighted_feedback_{end}"),
                    ScalarValue::Float64(Some(bound.unwrap_or(open))),
                )
            }));
        }
        all
    }
}

impl Condition {
    /// Adds a value and returns its placeholder.
    pub(crate) fn bind(&mut self, value: ScalarValue) -> String {
        let name = format!("f{}", self.params.len());
        let placeholder = format!("${name}");
        self.params.push((name, value));
        placeholder
    }

    /// Returns `with logs as (…) `, or an empty text. Within it, `logs` is the whole table.
    pub(crate) fn with(&self) -> String {
        self.logs.map(|logs| format!("with logs as (\n{logs}\n)\n")).unwrap_or_default()
    }

    /// Returns `where …`, or an empty text.
    pub(crate) fn clause(&self) -> String {
        if self.parts.is_empty() {
            String::new()
        } else {
            format!("where {}", self.parts.join(" and "))
        }
    }

    fn within<T: Copy>(
        &mut self,
        column: &str,
        bounds: Bounds<T>,
        scalar: impl Fn(T) -> ScalarValue,
    ) {
        for (operator, bound) in [(">=", bounds.min), ("<=", bounds.max)] {
            if let Some(bound) = bound {
                let bound = self.bind(scalar(bound));
                self.parts.push(format!("{column} {operator} {bound}"));
            }
        }
    }

    /// Adds the condition that a column has a text.
    pub(super) fn is(&mut self, column: &str, value: &str) {
        let value = self.bind(text(value));
        self.parts.push(format!("{column} = {value}"));
    }

    /// Adds the condition that the model has one of these names: its canonical name, which reports
    /// and analytics show, or the logged name.
    fn model_of(&mut self, names: &[String]) {
        let places: Vec<String> = names.iter().map(|name| self.bind(text(name))).collect();
        let places = places.join(", ");
        self.parts.push(format!(
            "(ai_model in ({places}) or canonical_model(ai_org, ai_model) in ({places}))"
        ));
    }

    pub(super) fn one_of(&mut self, column: &str, values: impl Iterator<Item = ScalarValue>) {
        let places: Vec<String> = values.map(|value| self.bind(value)).collect();
        self.parts.push(format!("{column} in ({})", places.join(", ")));
    }
}

pub(super) fn text(value: impl AsRef<str>) -> ScalarValue {
    ScalarValue::Utf8View(Some(value.as_ref().to_owned()))
}

/// Returns the text of a value that is not null.
fn text_of(name: &str, value: &Value) -> Result<String> {
    let item = |value: &Value| match value {
        Value::Bool(flag) if name == "is_success" => Some(flag.to_string()),
        other => item(other),
    };
    let is_list = name != "metadata" && !name.ends_with("_min") && !name.ends_with("_max");
    let text = match value {
        // Invalid numbers, times and objects are refused by the parser of the text.
        value if !is_list => return Ok(item(value).unwrap_or_else(|| value.to_string())),
        // An array keeps the commas within its items.
        Value::Array(items) => {
            items.iter().map(&item).collect::<Option<Vec<_>>>().map(|mut texts| {
                texts.retain(|text| !text.is_empty());
                if texts.is_empty() { String::new() } else { Value::from(texts).to_string() }
            })
        }
        value => item(value),
    };
    let expected = "expected texts separated by commas, or an array of texts";
    text.ok_or_else(|| Error::invalid(format!("`{name}` is `{value}`; {expected}")))
}

/// Parses the range `NAME_min` and `NAME_max`.
fn bounds<T: Copy + PartialOrd + Display>(
    name: &str,
    take: &mut impl FnMut(&str) -> Option<String>,
    parse: impl Fn(&str, &str) -> Result<T>,
) -> Result<Bounds<T>> {
    let mut bound = |end: &str| {
        let name = format!("{name}_{end}");
        take(&name).map(|text| parse(&name, text.trim())).transpose()
    };
    let bounds = Bounds { min: bound("min")?, max: bound("max")? };
    match (bounds.min, bounds.max) {
        (Some(min), Some(max)) if min > max => Err(Error::invalid(format!(
            "`{name}_min` is {min}, which is above `{name}_max`, {max}; nothing can match"
        ))),
        _ => Ok(bounds),
    }
}

fn count(name: &str, text: &str) -> Result<i64> {
    let wrong =
        || Error::invalid(format!("`{name}` is `{text}`; expected a whole number, 0 or more"));
    whole(text).filter(|count| *count >= 0).ok_or_else(wrong)
}

fn amount(name: &str, text: &str) -> Result<f64> {
    let wrong =
        || Error::invalid(format!("`{name}` is `{text}`; expected cents, 0 or more, such as 0.25"));
    text.parse().ok().filter(|cents: &f64| cents.is_finite() && *cents >= 0.0).ok_or_else(wrong)
}

fn truth(text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::invalid(format!("`is_success` is `{text}`; expected true, false, 1 or 0"))),
    }
}

fn score(name: &str, text: &str) -> Result<f64> {
    let wrong =
        || Error::invalid(format!("`{name}` is `{text}`; expected a number from -10 to 10"));
    text.parse().ok().filter(|score| (-10.0..=10.0).contains(score)).ok_or_else(wrong)
}

/// Parses a list of distinct values: texts separated by commas, where spaces around a comma are
/// ignored, or a JSON array, whose items are taken literally.
pub(super) fn values(name: &str, text: &str) -> Result<Vec<String>> {
    distinct(name, text, MAX_VALUES)
}

fn distinct(name: &str, text: &str, most: usize) -> Result<Vec<String>> {
    let mut known = HashSet::new();
    let values = array(text)
        .unwrap_or_else(|| text.split(',').map(|value| value.trim().to_owned()).collect());
    let values: Vec<String> = values
        .into_iter()
        .filter(|value| !value.is_empty() && known.insert(value.clone()))
        .collect();
    match values.len() {
        0 => Err(Error::invalid(format!(
            "`{name}` is `{text}`, which has no values; give values separated by commas, or leave it out"
        ))),
        many if many > most => {
            Err(Error::invalid(format!("`{name}` has {many} values; the maximum is {most}")))
        }
        _ => Ok(values),
    }
}

/// Returns the items of a JSON array of texts and numbers. `None` if the text is no such array.
fn array(text: &str) -> Option<Vec<String>> {
    let items: Vec<Value> = serde_json::from_str(text).ok()?;
    items.iter().map(item).collect()
}

/// Returns a text or a number as text.
fn item(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Formats a list of one value for a filter: the value itself, unless a filter would parse it
/// differently.
pub(super) fn list_of_one(value: &str) -> String {
    let plain = !value.contains(',') && value.trim() == value && array(value).is_none();
    if plain { value.to_owned() } else { Value::from(vec![value]).to_string() }
}

/// Parses a whole number in any spelling: `5`, `5.0`, `5e0`.
fn whole(text: &str) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT;
    text.parse().ok().or_else(|| text.parse().ok().filter(exact).map(|number: f64| number as i64))
}

fn status_code(text: &str) -> Result<i32> {
    whole(text).and_then(|code| i32::try_from(code).ok()).ok_or_else(|| {
        Error::invalid(format!(
            "`status_code` has `{text}`; expected HTTP statuses such as 401,403"
        ))
    })
}

/// Returns the possible providers and models of `PROVIDER__MODEL`: either may contain `__`, so the
/// text is split at each of them.
fn org_models(text: &str) -> Result<Vec<(String, String)>> {
    let places = (1..text.len())
        .filter(|place| text.is_char_boundary(*place) && text[*place..].starts_with("__"));
    let pairs = places
        .map(|place| (&text[..place], &text[place + 2..]))
        .filter(|(_, model)| !model.is_empty());
    let pairs: Vec<_> = pairs.map(|(org, model)| (org.to_owned(), model.to_owned())).collect();
    if pairs.is_empty() {
        Err(Error::invalid(format!(
            "`ai_org_model` has `{text}`; expected PROVIDER__MODEL such as openai__gpt-4o"
        )))
    } else {
        Ok(pairs)
    }
}

fn cache_status(text: &str) -> Result<String> {
    let even = text.to_uppercase().replace(['_', '-'], " ");
    let known = CACHE_STATUSES.contains(&even.as_str());
    known.then_some(even).ok_or_else(|| {
        Error::invalid(format!(
            "`cache_status` has `{text}`; expected {}",
            CACHE_STATUSES.join(", ")
        ))
    })
}

fn metadata(text: &str) -> Result<Vec<(String, String)>> {
    let wrong = || {
        Error::invalid(format!(
            "`metadata` is `{text}`; expected a JSON object of texts such as {{\"team\":\"search\"}}"
        ))
    };
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
    if fields.len() > MAX_CONDITIONS {
        let keys = fields.len();
        return Err(Error::invalid(format!(
            "`metadata` has {keys} keys; the maximum is {MAX_CONDITIONS}"
        )));
    }
    let pair = |(key, value): (String, Value)| match value {
        Value::String(value) => Ok((key, value)),
        Value::Number(_) | Value::Bool(_) => Ok((key, value.to_string())),
        value => Err(Error::invalid(format!(
            "`metadata.{key}` is `{value}`; expected a text, a number, true or false"
        ))),
    };
    fields.into_iter().map(pair).collect()
}
