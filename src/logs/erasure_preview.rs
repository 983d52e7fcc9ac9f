//! Computes the extent of an erasure when it is requested: the number of records, and the feedback
//! that is erased with them.
//!
//! All versions of a feedback are erased if any version names the erased user, if the one record
//! that it names is erased, or if the last record of its trace that it applies to is erased. That
//! must be determined before the records are gone, so the erasure lists the feedback ids.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray};
use datafusion::common::{ParamValues, ScalarValue};
use futures::TryStreamExt;

use super::filter::text;
use super::statement::counted;
use crate::catalog::ErasureSelector;
use crate::error::{Error, Result};
use crate::query::{Limits, Queries, QueryContext, SystemTables};
use crate::record::attempt::{CALL, IS_ATTEMPT};

/// Maximum number of feedback entries erased by one erasure, since the catalog stores their ids.
const MAX_TIED: usize = 10_000;
const TIED: &str = include_str!("../../sql/logs/tied.sql");
/// Table of the requested ids.
const NAMED: &str = "named";

/// Records and feedback of an erasure that are visible now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasing {
    /// Number of records.
    pub records: u64,
    /// Number of feedback entries.
    pub feedback: u64,
    /// Ids of that feedback. Empty if a whole organisation is erased.
    pub tied: Vec<String>,
}

/// Determines the extent of an erasure of these records of an organisation.
pub(crate) async fn erasing(
    queries: &Queries,
    query_context: QueryContext,
    organisation: &str,
    which: &ErasureSelector,
) -> Result<Erasing> {
    let (user, ids, condition) = match which {
        ErasureSelector::All => (None, &[][..], ""),
        ErasureSelector::User(user) => (Some(user), &[][..], " and user_id = $user"),
        ErasureSelector::Ids(ids) => (None, &ids[..], " and id in (select of from named)"),
    };
    let mut ask = Ask {
        queries,
        query_context: QueryContext { side: Some(Arc::new(Named(ids.to_vec()))), ..query_context },
        params: vec![
            ("organisation_id".to_owned(), text(organisation)),
            ("user".to_owned(), ScalarValue::Utf8View(user.cloned())),
            ("most".to_owned(), ScalarValue::Int64(i64::try_from(MAX_TIED + 1).ok())),
        ],
    };
    if !ids.is_empty() {
        let attempts = ask.rows(&attempts()).await?;
        let named = ids.iter().cloned().chain(attempts.iter().flat_map(ids_of)).collect();
        ask.query_context.side = Some(Arc::new(Named(named)));
    }
    let logs =
        format!("select count(*) from logs where organisation_id = $organisation_id{condition}");
    let records = ask.count(&logs).await?;
    if *which == ErasureSelector::All {
        let statement = "select count(distinct id) from feedback_history where organisation_id = $organisation_id";
        return Ok(Erasing { records, feedback: ask.count(statement).await?, tied: Vec::new() });
    }
    let tied: Vec<String> = ask.rows(TIED).await?.iter().flat_map(ids_of).collect();
    if tied.len() > MAX_TIED {
        let message = format!(
            "these records have more than {MAX_TIED} feedback entries; erase some of the records by `ids` first"
        );
        return Err(Error::limit(message));
    }
    Ok(Erasing { records, feedback: tied.len() as u64, tied })
}

struct Ask<'a> {
    queries: &'a Queries,
    query_context: QueryContext,
    params: Vec<(String, ScalarValue)>,
}

impl Ask<'_> {
    /// Runs without a timeout or row limit: an erasure must be possible however long the search
    /// takes.
    async fn rows(&self, statement: &str) -> Result<Vec<RecordBatch>> {
        let limits = Limits { timeout: None, max_rows: None, ..self.queries.limits() };
        let params = ParamValues::from(self.params.clone());
        self.queries
            .run(self.query_context.clone(), statement, params, limits)
            .await?
            .batches
            .try_collect()
            .await
    }

    async fn count(&self, statement: &str) -> Result<u64> {
        Ok(counted(&self.rows(statement).await?))
    }
}

/// Returns the statement that finds the attempts of the requested calls, as
/// [`crate::plan::Erasure::names`] does.
fn attempts() -> String {
    format!(
        "select distinct id from logs \
         where organisation_id = $organisation_id and {IS_ATTEMPT} and {CALL} in (select of from named)"
    )
}

fn ids_of(batch: &RecordBatch) -> impl Iterator<Item = String> {
    batch.column(0).as_string_view().iter().flatten().map(str::to_owned)
}

/// The requested ids as a table.
#[derive(Debug)]
struct Named(Vec<String>);

impl SystemTables for Named {
    fn names(&self) -> &'static [&'static str] {
        &[NAMED]
    }

    fn rows(&self, _: &str) -> Result<RecordBatch> {
        let ids: ArrayRef = Arc::new(StringViewArray::from_iter_values(&self.0));
        // No other column has this name: plans with two columns `id`, one of them from an outer
        // join, confuse them.
        RecordBatch::try_from_iter([("of", ids)])
            .map_err(|cause| Error::internal("ids do not make a table").with_source(cause))
    }
}
