//! Feedback on logs: lookup by id, paged lists, and the weighted mean of a log.
//!
//! Feedback applies to one log, or to a trace and so to each of its logs, since it does not say
//! which one was meant. Replays in the trace are excluded; the replayed log is included. Feedback
//! of a workspace applies only to the workspace's own logs; feedback without a workspace applies to
//! the logs of all workspaces. The weighted feedback of a log is the sum of value times weight
//! divided by the sum of the weights, over all feedback that applies to it. It is `None` without
//! feedback, or if all weights are 0.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use chrono::{DateTime, Utc};
use datafusion::common::{ParamValues, ScalarValue};
use futures::TryStreamExt;
use serde_json::{Map, Value, json};

use super::filter::{Bounds, Condition, text, values};
use super::statement::{BY_CALL, BY_ID, Cursor, LookUp, quoted, run};
use crate::error::{Error, Result};
use crate::query::{Queries, QueryContext};
use crate::record::{Feedback, Record, Rows};
use crate::replay::SPAN;
use crate::time;

/// Maximum number of feedback entries shown with a log.
const MAX_SHOWN: u64 = 1_000;
/// Text bytes after which a page, or the feedback shown with a log, ends.
const MAX_BYTES: usize = 4 << 20;
/// Number of logs that one statement looks up.
const LOOKED_UP: usize = 1_000;
/// Digits after the point of a mean. The quotient of sums has no meaningful digits beyond.
const MEAN_DIGITS: i32 = 9;

/// A page of feedback, newest first. Empty fields do not filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedbackAsk {
    /// Ids of the feedback.
    pub ids: Vec<String>,
    /// Traces that the feedback applies to, or whose logs it applies to.
    pub traces: Vec<String>,
    /// Single logs that the feedback applies to.
    pub logs: Vec<String>,
    /// Time of the first version. The end is exclusive.
    pub time: Bounds<DateTime<Utc>>,
    /// Maximum size of the page. A page with more than 4 MiB of text ends earlier.
    pub page_size: u64,
    /// End of the previous page.
    pub after: Option<Cursor>,
}

/// Feedback on one log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogFeedback {
    /// Feedback entries, newest first, at most a thousand and 4 MiB of text.
    pub feedback: Vec<Feedback>,
    /// Weighted mean of all feedback on the log.
    pub weighted: Option<f64>,
}

/// Fields of a log that its feedback depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRef {
    /// Id of the log.
    pub id: String,
    /// Organisation of the log.
    pub organisation: Option<String>,
    /// Workspace of the log.
    pub workspace: Option<String>,
    /// Trace of the log.
    pub trace: Option<String>,
}

impl FeedbackAsk {
    /// Reads the filters of a list from texts. `take` returns the text of a name if it was given.
    /// An empty text counts as missing.
    pub fn read(mut take: impl FnMut(&str) -> Option<String>) -> Result<Self> {
        let mut take = |name: &str| take(name).filter(|text| !text.trim().is_empty());
        let mut names = |name| take(name).map(|text| values(name, &text)).transpose();
        let traces = names("trace_id")?.unwrap_or_default();
        let logs = names("log_id")?.unwrap_or_default();
        let mut time =
            |name| take(name).map(|text| time::parse_parameter(name, text.trim())).transpose();
        let time = Bounds { min: time("from")?, max: time("to")? };
        Ok(Self { traces, logs, time, ..Self::default() })
    }
}

/// Returns the feedback with this id. If several organisations have that id, returns the newest, or
/// the one of `organisation`.
pub(crate) async fn get(
    queries: &Queries,
    query_context: QueryContext,
    id: &str,
    organisation: Option<&str>,
) -> Result<Feedback> {
    let mut condition = Condition::default();
    condition.is("id", id);
    if let Some(organisation) = organisation {
        condition.is("organisation_id", organisation);
    }
    let (found, _) = select(queries, query_context, condition, 1).await?;
    found.into_iter().next().ok_or_else(|| Error::not_found("no feedback has that id"))
}

/// Returns a page of feedback, and the start of the next page.
pub(crate) async fn list(
    queries: &Queries,
    query_context: QueryContext,
    ask: &FeedbackAsk,
) -> Result<(Vec<Feedback>, Option<Cursor>)> {
    let mut condition = Condition::default();
    for (column, values) in [("id", &ask.ids), ("trace_id", &ask.traces), ("log_id", &ask.logs)] {
        if !values.is_empty() {
            condition.one_of(column, values.iter().map(text));
        }
    }
    for (operator, at) in [(">=", ask.time.min), ("<", ask.time.max)] {
        if let Some(at) = at {
            let at =
                ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()));
            let at = condition.bind(at);
            condition.parts.push(format!("created_at {operator} {at}"));
        }
    }
    if let Some(after) = &ask.after {
        after.narrow(&mut condition);
    }
    let (found, more) = select(queries, query_context, condition, ask.page_size).await?;
    let next = found.last().filter(|_| more).map(|last| Cursor {
        created_at: last.created_at.map_or(0, |at| at.timestamp_micros()),
        id: last.id.clone().unwrap_or_default(),
        organisation: last.organisation_id.clone().unwrap_or_default(),
    });
    Ok((found, next))
}

/// Returns the feedback on a record.
pub(crate) async fn feedback_of_log(
    queries: &Queries,
    query_context: QueryContext,
    record: &Record,
) -> Result<LogFeedback> {
    let weighted =
        means(queries, query_context.clone(), std::slice::from_ref(record)).await?.pop().flatten();
    let mut condition = Condition::default();
    condition.is("organisation_id", record.organisation_id.as_deref().unwrap_or_default());
    let workspace = condition.bind(text(record.workspace_slug.as_deref().unwrap_or_default()));
    condition.parts.push(format!("(workspace_slug is null or workspace_slug = {workspace})"));
    let own = condition.bind(text(record.id.as_deref().unwrap_or_default()));
    let own = format!("log_id = {own}");
    let about = match trace(record) {
        None => own,
        Some(trace) => {
            let trace = condition.bind(text(trace));
            format!("({own} or (log_id is null and trace_id = {trace}))")
        }
    };
    condition.parts.push(about);
    let (feedback, _) = select(queries, query_context, condition, MAX_SHOWN).await?;
    Ok(LogFeedback { feedback, weighted })
}

/// Returns the weighted feedback of each record, with one query for all of them.
pub(crate) async fn means(
    queries: &Queries,
    query_context: QueryContext,
    records: &[Record],
) -> Result<Vec<Option<f64>>> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let mut condition = Condition::default();
    let mut either = Vec::new();
    let traces = records.iter().filter_map(trace).collect::<Vec<_>>();
    let ids = records.iter().filter_map(|record| record.id.as_deref()).collect::<Vec<_>>();
    for (test, values) in [("log_id is null and trace_id", traces), ("log_id", ids)] {
        if !values.is_empty() {
            let places: Vec<String> =
                values.into_iter().map(|value| condition.bind(text(value))).collect();
            either.push(format!("({test} in ({}))", places.join(", ")));
        }
    }
    condition.parts.push(format!("({})", either.join(" or ")));
    let statement = format!(
        "select organisation_id, workspace_slug, trace_id, log_id, sum(value * weight) as weighted, sum(weight) as weight \
         from feedback {} group by organisation_id, workspace_slug, trace_id, log_id",
        condition.clause()
    );
    let batches = run(queries, query_context, &statement, condition.params).await?;
    let sums = Sums::read(&batches)?;
    Ok(records.iter().map(|record| sums.mean(record)).collect())
}

/// Returns the places of the logs with these ids, by id, oldest first, with logs of no workspace
/// last. Logs beyond the reader's scope are left out. LiteLLM's id of a call stands for the
/// attempts of the call, of which a successful one comes last.
pub(crate) async fn places(
    queries: &Queries,
    query_context: QueryContext,
    ids: &[String],
) -> Result<HashMap<String, Vec<LogRef>>> {
    let mut places = HashMap::new();
    add_places(queries, &query_context, ids, (BY_ID, "created_at"), &mut places).await?;
    let unknown: Vec<String> = ids.iter().filter(|id| !places.contains_key(*id)).cloned().collect();
    let attempts = (BY_CALL, "is_success nulls first, created_at");
    add_places(queries, &query_context, &unknown, attempts, &mut places).await?;
    let is_of_none = |place: &LogRef| place.workspace.as_deref().is_none_or(str::is_empty);
    places.values_mut().for_each(|places| places.sort_by_key(is_of_none));
    Ok(places)
}

/// Adds the places of the logs that are looked up by these ids, in an order.
async fn add_places(
    queries: &Queries,
    query_context: &QueryContext,
    ids: &[String],
    (by, order): (LookUp, &str),
    places: &mut HashMap<String, Vec<LogRef>>,
) -> Result<()> {
    for ids in ids.chunks(LOOKED_UP) {
        let mut condition = Condition::default();
        condition.one_of(by.column, ids.iter().map(text));
        by.narrow(&mut condition);
        let statement = format!(
            "select {} as wanted, id, organisation_id, workspace_slug, trace_id from logs {} \
             order by {order}, organisation_id",
            by.column,
            condition.clause()
        );
        for batch in run(queries, query_context.clone(), &statement, condition.params).await? {
            let column = texts(&batch);
            for row in 0..batch.num_rows() {
                let place = LogRef {
                    id: column("id", row)?.unwrap_or_default(),
                    organisation: column("organisation_id", row)?,
                    workspace: column("workspace_slug", row)?,
                    trace: column("trace_id", row)?,
                };
                places.entry(column("wanted", row)?.unwrap_or_default()).or_default().push(place);
            }
        }
    }
    Ok(())
}

/// Returns feedback in the form of API answers.
pub(crate) fn shown(feedback: &Feedback) -> Value {
    let metadata: Map<String, Value> = feedback
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect();
    json!({
        "id": feedback.id,
        "object": "feedback",
        "organisation_id": feedback.organisation_id,
        "workspace_slug": feedback.workspace_slug,
        "trace_id": feedback.trace_id,
        "log_id": feedback.log_id,
        "value": number(feedback.value),
        "weight": number(feedback.weight),
        "user_id": feedback.user_id,
        "source": feedback.source,
        "metadata": metadata,
        "created_at": feedback.created_at.map(time_text),
        "updated_at": feedback.updated_at.map(time_text),
    })
}

/// Returns the trace whose feedback applies to the record. A replay has none.
fn trace(record: &Record) -> Option<&str> {
    record.trace_id.as_deref().filter(|_| record.span_name.as_deref() != Some(SPAN))
}

/// Sums of value times weight, and of weights, by organisation, workspace and id, for whole traces
/// and for single logs.
#[derive(Default)]
struct Sums {
    traces: HashMap<(String, Option<String>, String), (f64, f64)>,
    logs: HashMap<(String, Option<String>, String), (f64, f64)>,
}

impl Sums {
    fn read(batches: &[RecordBatch]) -> Result<Self> {
        let mut sums = Self::default();
        for batch in batches {
            let text = texts(batch);
            let number = numbers(batch);
            for row in 0..batch.num_rows() {
                let owner = text("organisation_id", row)?.unwrap_or_default();
                let workspace = text("workspace_slug", row)?;
                let (of, name) = match text("log_id", row)? {
                    Some(log) => (&mut sums.logs, log),
                    None => (&mut sums.traces, text("trace_id", row)?.unwrap_or_default()),
                };
                let sum = of.entry((owner, workspace, name)).or_insert((0.0, 0.0));
                sum.0 += number("weighted", row)?.unwrap_or(0.0);
                sum.1 += number("weight", row)?.unwrap_or(0.0);
            }
        }
        Ok(sums)
    }

    fn mean(&self, record: &Record) -> Option<f64> {
        let owner = record.organisation_id.as_deref().unwrap_or_default();
        let mut weighted = 0.0;
        let mut weight = 0.0;
        for workspace in [None].into_iter().chain(record.workspace_slug.clone().map(Some)) {
            for (sums, name) in [(&self.logs, record.id.as_deref()), (&self.traces, trace(record))]
            {
                let key = name.map(|name| (owner.to_owned(), workspace.clone(), name.to_owned()));
                let sum = key.and_then(|key| sums.get(&key).copied()).unwrap_or_default();
                weighted += sum.0;
                weight += sum.1;
            }
        }
        let scale = 10_f64.powi(MEAN_DIGITS);
        (weight > 0.0).then(|| (weighted / weight * scale).round() / scale)
    }
}

/// Returns the newest feedback that matches a condition, and true if there is more.
async fn select(
    queries: &Queries,
    query_context: QueryContext,
    condition: Condition,
    most: u64,
) -> Result<(Vec<Feedback>, bool)> {
    let names: Vec<String> =
        Rows::Feedback.columns().iter().map(|column| column.name.to_owned()).collect();
    let statement = format!(
        "select {} from feedback {} order by created_at desc, id desc, organisation_id desc limit {}",
        quoted(&names),
        condition.clause(),
        most + 1
    );
    let params = ParamValues::from(condition.params);
    let mut batches =
        queries.run(query_context, &statement, params, queries.limits()).await?.batches;
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = batches.try_next().await? {
        for feedback in Feedback::from_batch(&batch)? {
            bytes += feedback.text_bytes();
            if found.len() as u64 == most || (bytes > MAX_BYTES && !found.is_empty()) {
                return Ok((found, true));
            }
            found.push(feedback);
        }
    }
    Ok((found, false))
}

fn texts(batch: &RecordBatch) -> impl Fn(&str, usize) -> Result<Option<String>> {
    |name, row| {
        let column = batch
            .column_by_name(name)
            .and_then(|column| column.as_string_view_opt())
            .ok_or_else(unreadable)?;
        Ok(column.is_valid(row).then(|| column.value(row).to_owned()))
    }
}

fn numbers(batch: &RecordBatch) -> impl Fn(&str, usize) -> Result<Option<f64>> {
    |name, row| {
        let column =
            batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Float64Type>());
        let column = column.ok_or_else(unreadable)?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }
}

/// Formats whole numbers without a point, as Portkey's examples do.
pub(super) fn number(value: Option<f64>) -> Value {
    match value {
        Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => Value::from(whole as i64),
        other => json!(other),
    }
}

fn time_text(at: DateTime<Utc>) -> String {
    let exact = at.timestamp_subsec_micros().is_multiple_of(1_000);
    if exact { time::millis(at) } else { time::micros(at) }
}

fn unreadable() -> Error {
    Error::internal("stored feedback has an unexpected schema")
}
