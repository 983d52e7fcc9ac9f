//! Statements of lists and lookups: the cursor of a list, lookups by id, and running a statement.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::common::{ParamValues, ScalarValue};
use futures::TryStreamExt;

use super::filter::Condition;
use crate::error::{Error, Result};
use crate::query::{Queries, QueryContext};

/// Position of a record in the order of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) created_at: i64,
    pub(super) id: String,
    pub(super) organisation: String,
}

impl Cursor {
    /// Adds the condition for records after this position.
    pub(super) fn narrow(&self, condition: &mut Condition) {
        let time = condition
            .bind(ScalarValue::TimestampMicrosecond(Some(self.created_at), Some("UTC".into())));
        let id = condition.bind(ScalarValue::Utf8View(Some(self.id.clone())));
        let organisation = condition.bind(ScalarValue::Utf8View(Some(self.organisation.clone())));
        // The first part prunes files; the second one decides.
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
            Error::invalid("`cursor` is invalid; send the `next` of the previous page")
        })?;
        Ok(Self { created_at, id, organisation })
    }
}

/// A column by which logs are looked up, and a condition on all records that it can find. Both
/// prune files, since most ids that are not found are no calls of LiteLLM, and most stores have
/// none.
#[derive(Clone, Copy)]
pub(super) struct LookUp {
    pub(super) column: &'static str,
    pub(super) only: Option<&'static str>,
}

pub(super) const BY_ID: LookUp = LookUp { column: "id", only: None };
/// Lookup by LiteLLM's id of a call, which its attempts share.
pub(super) const BY_CALL: LookUp =
    LookUp { column: "internal_trace_id", only: Some("source = 'litellm'") };

impl LookUp {
    pub(super) fn narrow(self, condition: &mut Condition) {
        condition.parts.extend(self.only.map(str::to_owned));
    }
}

/// Runs a statement and returns its rows.
pub(super) async fn run(
    queries: &Queries,
    query_context: QueryContext,
    text: &str,
    params: Vec<(String, ScalarValue)>,
) -> Result<Vec<RecordBatch>> {
    let answer =
        queries.run(query_context, text, ParamValues::from(params), queries.limits()).await?;
    answer.batches.try_collect().await
}

/// Returns the count in the result of a statement.
pub(super) fn counted(batches: &[RecordBatch]) -> u64 {
    let counts = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().flatten());
    counts.sum::<i64>().unsigned_abs()
}

/// Returns column names as an SQL list.
pub(super) fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
