//! The named reports: the contents of `sql/*.sql`, their parameters, and the conversion of JSON
//! values to parameter types.
//!
//! A report is one file: a header of SQL comments (purpose, parameters, columns), a blank line, and
//! one `select` over `logs`, the system tables, or another report. Only the header describes the
//! report; the command line, HTTP and the documentation read it from here. Its lines are
//!
//! ```text
//! -- purpose: one line
//! -- param NAME: KIND = DEFAULT; doc              KIND: text, timestamp or integer; `text in a|b` allows only a and b
//! -- column NAME: KIND; doc                       KIND: text, integer, float, boolean, timestamp or date
//! ```
//!
//! The SQL refers to a parameter as `$NAME`. Null means "no restriction": `($from is null or
//! created_at >= $from)`. Parameters are bound as typed literals before optimisation ([`bind`]), so
//! such tests fold into a plain comparison that prunes files, and a value is never part of the SQL
//! text. A report is also a SQL view ([`Report::view_sql`]), with every parameter at its default
//! ([`view_params`]). This file runs no query.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use datafusion::common::{ParamValues, ScalarValue};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::nearest::{clip, hint};
use crate::time;

/// One report, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name of the report, of its file and of its view.
    pub name: &'static str,
    /// Description of the report in one line.
    pub purpose: &'static str,
    /// Parameters in the order of the header.
    pub params: Vec<Param>,
    /// Columns of the result, in order.
    pub columns: Vec<ReportColumn>,
    /// The whole file: comments and one `select` with placeholders.
    pub sql: &'static str,
}

/// A parameter of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name without the `$`.
    pub name: &'static str,
    /// Type of the value.
    pub kind: ParamKind,
    /// Allowed values. Empty allows any value of the type.
    pub choices: Vec<&'static str>,
    /// Default value as text. `None` means null, which does not restrict.
    pub default: Option<&'static str>,
    /// Effect of the parameter.
    pub doc: &'static str,
}

/// Type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// UTF-8 text.
    Text,
    /// A timestamp in any spelling that records accept. A bare date is its start in UTC.
    Timestamp,
    /// A whole number, 0 or more.
    Integer,
}

/// A column of a report's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportColumn {
    /// Name of the column.
    pub name: &'static str,
    /// Type of the column.
    pub kind: ColumnKind,
    /// Meaning of the column, with its unit.
    pub doc: &'static str,
}

/// Type of a result column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// A whole number.
    Integer,
    /// A 64-bit float.
    Float,
    /// True or false.
    Boolean,
    /// A timestamp in UTC, to the microsecond.
    Timestamp,
    /// A day in UTC.
    Date,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../sql/", $name, ".sql")))),*]
    };
}

/// Name and text of each file, in listing order: Status, then costs, then latency and failures,
/// then feedback, then plans.
const FILES: &[(&str, &str)] = files![
    "status",
    "status_counts",
    "cache",
    "retries",
    "fallbacks",
    "usage_by_month",
    "spend_by_model",
    "latency",
    "errors",
    "feedback_by_model",
    "quota",
    "retention",
];

/// Returns every report.
pub fn list() -> &'static [Report] {
    static REPORTS: LazyLock<Vec<Report>> = LazyLock::new(|| {
        #[expect(
            clippy::expect_used,
            reason = "the files are part of the program and a test parses each of them"
        )]
        FILES
            .iter()
            .map(|(name, sql)| parse(name, sql))
            .collect::<Result<_>>()
            .expect("well-formed report headers")
    });
    &REPORTS
}

/// Returns the report with this name.
pub fn find(name: &str) -> Result<&'static Report> {
    list().iter().find(|report| report.name == name).ok_or_else(|| {
        let hint =
            hint(name, list().iter().map(|report| report.name), "reports", "`gatelog report`");
        Error::not_found(format!("report `{}` does not exist; {hint}", clip(name)))
    })
}

/// Returns an error if a report does not take these parameters.
pub fn check(report: &Report, given: &BTreeMap<String, Value>) -> Result<()> {
    bind(report, given).map(|_| ())
}

/// Returns the values of a report's placeholders: the given ones, and defaults for the others. A
/// given null means the default.
pub(crate) fn bind(report: &Report, given: &BTreeMap<String, Value>) -> Result<ParamValues> {
    if let Some(name) =
        given.keys().find(|name| report.params.iter().all(|param| param.name != name.as_str()))
    {
        let known = report.params.iter().map(|param| param.name);
        let hint = hint(name, known, "parameters", "`gatelog report`");
        let report = report.name;
        let name = clip(name);
        return Err(Error::invalid(format!("report `{report}` has no parameter `{name}`; {hint}")));
    }
    let values = report.params.iter().map(|param| {
        let value = match given.get(param.name) {
            None | Some(Value::Null) => param.default_value()?,
            Some(value) => param.value(value)?,
        };
        Ok((param.name, value))
    });
    Ok(ParamValues::from(values.collect::<Result<Vec<_>>>()?))
}

/// Returns the values of a report's placeholders for its SQL view: all defaults.
pub(crate) fn view_params(report: &Report) -> ParamValues {
    #[expect(
        clippy::expect_used,
        reason = "a header is only parsed if its defaults are values of their kind"
    )]
    bind(report, &BTreeMap::new()).expect("defaults that are values")
}

impl Report {
    /// Returns the query of the report's view, without the final `order by` and `limit`, since a
    /// view has no order.
    ///
    /// DataFusion would keep the sort below any query on the view, and read the columns that it
    /// sorts by: `select count(*) from status` would read and sort every id.
    pub fn view_sql(&self) -> &'static str {
        self.sql.rsplit_once("\norder by ").map_or(self.sql, |(query, _)| query)
    }
}

impl Param {
    fn default_value(&self) -> Result<ScalarValue> {
        self.default.map_or_else(
            || Ok(self.kind.null()),
            |text| self.value(&Value::String(text.to_owned())),
        )
    }

    /// Converts a JSON value to the parameter's type. Numbers may be texts, the only form in a
    /// query string and on a command line.
    fn value(&self, given: &Value) -> Result<ScalarValue> {
        let typed = match (self.kind, given) {
            (ParamKind::Text, Value::String(text)) => {
                self.allows(text).then(|| ScalarValue::Utf8(Some(text.clone())))
            }
            (ParamKind::Timestamp, Value::String(text)) => time::parse(text).map(timestamp),
            (ParamKind::Timestamp, Value::Number(number)) => {
                time::parse(&number.to_string()).map(timestamp)
            }
            (ParamKind::Integer, Value::String(text)) => text.trim().parse().ok().and_then(count),
            (ParamKind::Integer, Value::Number(number)) => number.as_i64().and_then(count),
            _ => None,
        };
        typed.ok_or_else(|| {
            let shown = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            Error::invalid(format!(
                "parameter `{}` is `{shown}`; expected {}",
                self.name,
                self.expected()
            ))
        })
    }

    fn allows(&self, text: &str) -> bool {
        self.choices.is_empty() || self.choices.contains(&text)
    }

    fn expected(&self) -> String {
        match self.kind {
            ParamKind::Text if self.choices.is_empty() => "a text".to_owned(),
            ParamKind::Text => format!("one of {}", join(self.choices.iter().copied())),
            ParamKind::Timestamp => time::EXPECTED.to_owned(),
            ParamKind::Integer => "a whole number, 0 or more".to_owned(),
        }
    }
}

impl ParamKind {
    /// Returns a null of the type, so that a placeholder has the same type with and without a
    /// value.
    fn null(self) -> ScalarValue {
        match self {
            Self::Text => ScalarValue::Utf8(None),
            Self::Timestamp => ScalarValue::TimestampMicrosecond(None, Some("UTC".into())),
            Self::Integer => ScalarValue::Int64(None),
        }
    }

    /// Returns the word of the type in a header.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Timestamp => "timestamp",
            Self::Integer => "integer",
        }
    }
}

impl ColumnKind {
    /// Returns the word of the type in a header.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
        }
    }
}

fn timestamp(at: DateTime<Utc>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
}

fn count(number: i64) -> Option<ScalarValue> {
    (number >= 0).then_some(ScalarValue::Int64(Some(number)))
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Parses a file's header: the comment lines up to the first blank line.
pub(crate) fn parse(name: &'static str, sql: &'static str) -> Result<Report> {
    let mut report = Report { name, purpose: "", params: Vec::new(), columns: Vec::new(), sql };
    for line in sql.lines().take_while(|line| !line.trim().is_empty()) {
        let malformed =
            || Error::internal(format!("sql/{name}.sql: header line `{line}` is malformed"));
        let (head, text) = line
            .strip_prefix("-- ")
            .and_then(|rest| rest.split_once(": "))
            .ok_or_else(malformed)?;
        match head.split_once(' ') {
            None if head == "purpose" => report.purpose = text,
            Some(("param", name)) => {
                report.params.push(parse_param(name, text).ok_or_else(malformed)?)
            }
            Some(("column", name)) => {
                report.columns.push(parse_column(name, text).ok_or_else(malformed)?)
            }
            _ => return Err(malformed()),
        }
    }
    if report.purpose.is_empty() || report.columns.is_empty() {
        return Err(Error::internal(format!(
            "sql/{name}.sql: the header needs a purpose and columns"
        )));
    }
    report.params.iter().try_for_each(|param| param.default_value().map(|_| ()))?;
    Ok(report)
}

fn parse_param(name: &'static str, text: &'static str) -> Option<Param> {
    let (declared, doc) = text.split_once("; ")?;
    let (kind, default) = declared.split_once(" = ")?;
    let (kind, choices) = match kind.split_once(" in ") {
        Some((kind, choices)) => (kind, choices.split('|').collect()),
        None => (kind, Vec::new()),
    };
    let kind = [ParamKind::Text, ParamKind::Timestamp, ParamKind::Integer]
        .into_iter()
        .find(|k| k.word() == kind)?;
    Some(Param { name, kind, choices, default: (default != "null").then_some(default), doc })
}

fn parse_column(name: &'static str, text: &'static str) -> Option<ReportColumn> {
    use ColumnKind::{Boolean, Date, Float, Integer, Text, Timestamp};
    let (kind, doc) = text.split_once("; ")?;
    let kind =
        [Text, Integer, Float, Boolean, Timestamp, Date].into_iter().find(|k| k.word() == kind)?;
    Some(ReportColumn { name, kind, doc })
}

#[cfg(test)]
mod tests;
