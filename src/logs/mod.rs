//! Single records and lists of them: one by its id, and pages of the newest that a [`Filter`]
//! names.
//!
//! Lists read no bodies: their columns are named, and the two messages are not among them. A page
//! goes on where the one before ended, at the record that its cursor names by time, id and
//! organisation, so that records which arrive meanwhile neither repeat nor hide one. What a reader
//! may see is decided below SQL; a record that is somebody else's is not found, in the same words
//! as one that is nobody's.

mod erasure_preview;
mod feedback;
mod filter;
mod hidden;
mod object;
mod status;

#[cfg(test)]
mod tests;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::common::{ParamValues, ScalarValue};
use futures::TryStreamExt;
use serde_json::Value;

pub use erasure_preview::{Erasing, erasing};
pub use feedback::{
    FeedbackAsk, LogFeedback, LogRef, feedback_of_log as said_of_log, get as get_feedback,
    list as list_feedback, places, shown as shown_feedback,
};
pub use filter::{Bounds, Condition, Filter, MAX_CONDITIONS, MAX_VALUES, NAMES as FILTER_NAMES};
pub use hidden::{hide, shown_labels, tells_feedback};
pub use object::{ID_IN_QUERY, ROUTE_WORDS, object, own_url};
pub use status::{Kind, Label, Status};

use crate::error::{Error, Result};
use crate::query::{Queries, QueryContext};
use crate::record::json::{self, Encoder};
use crate::record::{COLUMNS, Kind as ColumnKind, Record};

/// Records of a page where nothing is said.
pub const PAGE_SIZE: u64 = 50;
/// Most records of a page.
pub const MAX_PAGE_SIZE: u64 = 1_000;

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// Which records.
    pub filter: Filter,
    /// Most records of the page; 0 = [`PAGE_SIZE`].
    pub page_size: u64,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Whether all that the filter names are counted too.
    pub total: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The records in their native form without bodies, each with `status`, `url` and
    /// `weighted_feedback`, newest first.
    pub records: Vec<Value>,
    /// Where the next page goes on; none = this was the last one.
    pub next: Option<Cursor>,
    /// How many records the filter names on all pages.
    pub total: Option<u64>,
}

/// A record's place in the order of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    created_at: i64,
    id: String,
    organisation: String,
}

impl Cursor {
    /// Leaves what comes after it in the order of a list.
    fn narrow(&self, condition: &mut Condition) {
        let time = condition
            .bind(ScalarValue::TimestampMicrosecond(Some(self.created_at), Some("UTC".into())));
        let id = condition.bind(ScalarValue::Utf8View(Some(self.id.clone())));
        let organisation = condition.bind(ScalarValue::Utf8View(Some(self.organisation.clone())));
        // The first part prunes files, the second one decides.
        condition.parts.push(format!("created_at <= {time}"));
        condition.parts.push(format!(
            "(created_at < {time} or id < {id} or (id = {id} and organisation_id < {organisation}))"
        ));
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(
            serde_json::json!([self.created_at, self.id, self.organisation]).to_string(),
        ))
    }
}

impl std::str::FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts =
            hex::decode(text.trim()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (created_at, id, organisation) = parts.ok_or_else(|| {
            Error::invalid("`cursor` is none of ours; send the `next` of the page before")
        })?;
        Ok(Self { created_at, id, organisation })
    }
}

impl Page {
    /// Takes out of the records what is withheld from their reader.
    pub fn hide(&mut self, withheld: &[String]) {
        self.records.iter_mut().for_each(|item| hidden::hide_in_item(item, withheld));
    }
}

/// The columns that the order of a list tells.
pub const ORDER: [&str; 2] = ["created_at", "id"];

/// The newest records that the filter names, a page of them.
pub async fn list(queries: &Queries, query_context: QueryContext, ask: &Ask) -> Result<Page> {
    let size = if ask.page_size == 0 { PAGE_SIZE } else { ask.page_size.min(MAX_PAGE_SIZE) };
    let total = match ask.total {
        true => Some(count(queries, query_context.clone(), &ask.filter).await?),
        false => None,
    };
    let mut condition = ask.filter.condition();
    if let Some(after) = &ask.after {
        after.narrow(&mut condition);
    }
    let names: Vec<String> = listed().map(str::to_owned).collect();
    let text = format!(
        "{}select {} from logs {} order by created_at desc, id desc, organisation_id desc limit {}",
        condition.with(),
        quoted(&names),
        condition.clause(),
        size + 1
    );
    let batches = run(queries, query_context.clone(), &text, condition.params).await?;
    let mut lines = lines(&Encoder::new(Some(&names))?, &batches)?;
    let more = lines.len() as u64 > size;
    lines.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    let mut records = lines.iter().map(|line| read(line)).collect::<Result<Vec<_>>>()?;
    let means = feedback::means(queries, query_context, &records).await?;
    let items = lines
        .iter()
        .zip(&records)
        .zip(means)
        .map(|((line, record), mean)| item(line, record, mean));
    let items = items.collect::<Result<Vec<_>>>()?;
    let next = records.pop().filter(|_| more).map(|record| Cursor {
        created_at: record.created_at.map_or(0, |at| at.timestamp_micros()),
        id: record.id.unwrap_or_default(),
        organisation: record.organisation_id.unwrap_or_default(),
    });
    Ok(Page { records: items, next, total })
}

/// How many records a filter names.
pub async fn count(queries: &Queries, query_context: QueryContext, filter: &Filter) -> Result<u64> {
    let condition = filter.condition();
    let text = format!("{}select count(*) from logs {}", condition.with(), condition.clause());
    let batches = run(queries, query_context, &text, condition.params).await?;
    Ok(counted(&batches))
}

/// The count that a statement answered with.
fn counted(batches: &[RecordBatch]) -> u64 {
    let counts = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().flatten());
    counts.sum::<i64>().unsigned_abs()
}

/// The record of that id, whole. Ids are an organisation's and a workspace's own, and one that is
/// sent again after days is stored again. Of several it is one of no workspace if there is one, so
/// that none takes its place, and the newest of those; `organisation` and `workspace` say whose is
/// meant, an empty workspace that it is of none. LiteLLM's id of a call finds the attempt of the
/// call that succeeded, or else the last one.
pub async fn get(
    queries: &Queries,
    query_context: QueryContext,
    id: &str,
    organisation: Option<&str>,
    workspace: Option<&str>,
) -> Result<Record> {
    const NEWEST: &str = "created_at desc, organisation_id desc";
    let order = format!("is_success desc nulls last, {NEWEST}");
    let is_bound =
        query_context.read_scope.as_ref().is_some_and(|read_scope| read_scope.workspace.is_some());
    // Two statements, since DataFusion cannot plan some orders by expressions.
    let owners =
        if workspace.is_none() && !is_bound { vec![Some(""), None] } else { vec![workspace] };
    for (by, order) in [(BY_ID, NEWEST), (BY_CALL, &*order)] {
        for workspace in &owners {
            let of = (organisation, *workspace);
            if let Some(record) = first(queries, query_context.clone(), (by, id), of, order).await?
            {
                return Ok(record);
            }
        }
    }
    Err(Error::not_found("no log has that id"))
}

/// A column that logs are looked up by, and what else holds of them. Both tell files apart that
/// need not be read, since most ids that are asked for in vain are no calls of LiteLLM, and most
/// stores have none.
#[derive(Clone, Copy)]
struct LookUp {
    column: &'static str,
    only: Option<&'static str>,
}

const BY_ID: LookUp = LookUp { column: "id", only: None };
/// By the id of the call that LiteLLM's attempts are of.
const BY_CALL: LookUp = LookUp { column: "internal_trace_id", only: Some("source = 'litellm'") };

impl LookUp {
    fn narrow(self, condition: &mut Condition) {
        condition.parts.extend(self.only.map(str::to_owned));
    }
}

/// The first record in an order that is looked up by a text.
async fn first(
    queries: &Queries,
    query_context: QueryContext,
    (by, wanted): (LookUp, &str),
    (organisation, workspace): (Option<&str>, Option<&str>),
    order: &str,
) -> Result<Option<Record>> {
    let mut condition = Condition::default();
    let wanted = condition.bind(ScalarValue::Utf8View(Some(wanted.to_owned())));
    by.narrow(&mut condition);
    condition.parts.push(format!("{} = {wanted}", by.column));
    if let Some(organisation) = organisation {
        let wanted = condition.bind(ScalarValue::Utf8View(Some(organisation.to_owned())));
        condition.parts.push(format!("organisation_id = {wanted}"));
    }
    match workspace {
        None => {}
        Some("") => {
            condition.parts.push("(workspace_slug is null or workspace_slug = '')".to_owned())
        }
        Some(workspace) => {
            let wanted = condition.bind(ScalarValue::Utf8View(Some(workspace.to_owned())));
            condition.parts.push(format!("workspace_slug = {wanted}"));
        }
    }
    let names: Vec<String> = COLUMNS.iter().map(|column| column.name.to_owned()).collect();
    let text = format!(
        "select {} from logs {} order by {order} limit 1",
        quoted(&names),
        condition.clause()
    );
    let batches = run(queries, query_context, &text, condition.params).await?;
    lines(&Encoder::new(None)?, &batches)?.first().map(|line| read(line)).transpose()
}

async fn run(
    queries: &Queries,
    query_context: QueryContext,
    text: &str,
    params: Vec<(String, ScalarValue)>,
) -> Result<Vec<RecordBatch>> {
    let answer =
        queries.run(query_context, text, ParamValues::from(params), queries.limits()).await?;
    answer.batches.try_collect().await
}

/// The columns of a list: all but the messages.
pub fn listed() -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().filter(|column| column.kind != ColumnKind::Message).map(|column| column.name)
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// The rows as JSON lines.
fn lines(encoder: &Encoder, batches: &[RecordBatch]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut line = Vec::new();
            encoder.encode(&batch.slice(row, 1), &mut line)?;
            let line = String::from_utf8(line).map_err(|cause| unreadable().with_source(cause))?;
            lines.push(line.trim_end().to_owned());
        }
    }
    Ok(lines)
}

fn read(line: &str) -> Result<Record> {
    // Why it is unreadable may name a value, which is nobody's to log.
    json::parse(line).map_err(|_| unreadable())
}

fn item(line: &str, record: &Record, weighted_feedback: Option<f64>) -> Result<Value> {
    let mut item: Value = serde_json::from_str(line).map_err(|_| unreadable())?;
    if let Value::Object(fields) = &mut item {
        fields.insert("object".to_owned(), Value::from("log"));
        fields.insert(
            "url".to_owned(),
            Value::from(own_url(record.id.as_deref().unwrap_or_default())),
        );
        let status = serde_json::to_value(Status::from_record(record));
        fields.insert("weighted_feedback".to_owned(), feedback::number(weighted_feedback));
        fields
            .insert("status".to_owned(), status.map_err(|cause| unreadable().with_source(cause))?);
    }
    Ok(item)
}

fn unreadable() -> Error {
    Error::internal("a record that was stored cannot be read as one")
}
