//! Lookup of single records by id, and paged lists of the newest records that match a [`Filter`].
//!
//! Lists read no bodies: they select all columns but the two messages. A page starts after the end
//! of the previous one, which the cursor names by time, id and organisation, so records that arrive
//! meanwhile cause neither duplicates nor gaps. The visibility of records is decided below SQL. The
//! response for another organisation's record is the same as for a missing one.

mod erasure_preview;
mod feedback;
mod filter;
mod hidden;
mod object;
mod statement;
mod status;

#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use serde_json::Value;

pub use erasure_preview::Erasing;
pub(crate) use erasure_preview::erasing;
pub use feedback::{FeedbackAsk, LogFeedback, LogRef};
pub(crate) use feedback::{
    feedback_of_log, get as get_feedback, list as list_feedback, places, shown as shown_feedback,
};
pub(crate) use filter::Condition;
pub use filter::{Bounds, Filter, MAX_CONDITIONS, MAX_VALUES, NAMES as FILTER_NAMES};
pub(crate) use hidden::{hide, is_feedback_withheld, shown_labels};
pub use object::{ID_IN_QUERY, ROUTE_WORDS};
pub(crate) use object::{object, own_url};
pub use statement::Cursor;
pub use status::{Kind, Label, Status};

use self::statement::{BY_CALL, BY_ID, LookUp, counted, quoted, run};
use crate::error::{Error, Result};
use crate::query::{Queries, QueryContext};
use crate::record::json::{self, Encoder};
use crate::record::{COLUMNS, Kind as ColumnKind, Record};

/// Default size of a page, in records.
pub const PAGE_SIZE: u64 = 50;
/// Maximum size of a page, in records.
pub const MAX_PAGE_SIZE: u64 = 1_000;

/// Request for a page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// Filter of the records.
    pub filter: Filter,
    /// Maximum size of the page, in records. 0 means [`PAGE_SIZE`].
    pub page_size: u64,
    /// End of the previous page.
    pub after: Option<Cursor>,
    /// True if all matching records are counted too.
    pub total: bool,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The records in their native form without bodies, each with `status`, `url` and
    /// `weighted_feedback`, newest first.
    pub records: Vec<Value>,
    /// Start of the next page. `None` on the last page.
    pub next: Option<Cursor>,
    /// Number of matching records on all pages.
    pub total: Option<u64>,
}

impl Page {
    /// Removes withheld columns from the records.
    pub fn hide(&mut self, withheld: &[String]) {
        self.records.iter_mut().for_each(|item| hidden::hide_in_item(item, withheld));
    }
}

/// Columns that the order of a list reveals.
pub const ORDER: [&str; 2] = ["created_at", "id"];

/// Returns a page of the newest records that match the filter.
pub(crate) async fn list(
    queries: &Queries,
    query_context: QueryContext,
    ask: &Ask,
) -> Result<Page> {
    let size = if ask.page_size == 0 { PAGE_SIZE } else { ask.page_size.min(MAX_PAGE_SIZE) };
    let total = if ask.total {
        Some(count(queries, query_context.clone(), &ask.filter).await?)
    } else {
        None
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
    let mut records = read(&batches)?;
    let more = records.len() as u64 > size;
    records.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    let lines = lines(&Encoder::new(Some(&names))?, &batches)?;
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

/// Returns the number of records that match a filter.
pub(crate) async fn count(
    queries: &Queries,
    query_context: QueryContext,
    filter: &Filter,
) -> Result<u64> {
    let condition = filter.condition();
    let text = format!("{}select count(*) from logs {}", condition.with(), condition.clause());
    let batches = run(queries, query_context, &text, condition.params).await?;
    Ok(counted(&batches))
}

/// Returns the whole record with this id. An id is unique only within an organisation and a
/// workspace, and a record that is sent again after days is stored again. Records without a
/// workspace take precedence, so that no workspace can replace them, and then the newest record.
/// `organisation` and `workspace` restrict the search; an empty workspace means a record without
/// one. LiteLLM's id of a call finds the successful attempt of the call, or else the last one.
pub(crate) async fn get(
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

/// Returns the first record, in an order, that a text finds.
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
    Ok(read(&batches)?.into_iter().next())
}

/// Returns the columns of a list: all but the messages.
pub fn listed() -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().filter(|column| column.kind != ColumnKind::Message).map(|column| column.name)
}

/// Encodes the rows as JSON lines.
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

/// Reads the rows as records.
fn read(batches: &[RecordBatch]) -> Result<Vec<Record>> {
    let records = batches.iter().map(json::read_batch).collect::<Result<Vec<_>>>()?;
    Ok(records.into_iter().flatten().collect())
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
    Error::internal("a stored record cannot be parsed")
}
