//! What an erasure takes, found when it is asked for: how many records, and which feedback goes with them.
//!
//! Feedback goes, with all its states, when one of them is of the user who is erased, with the one record that it names, and
//! with the last record of its trace that it counts for. Which that is must be known before the records are gone, so the
//! erasure names it by its ids.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray};
use datafusion::common::{ParamValues, ScalarValue};
use futures::TryStreamExt;

use super::counted;
use super::filter::text;
use crate::catalog::Which;
use crate::error::{Error, Result};
use crate::query::{Limits, Queries, Scene, SideTables};
use crate::record::attempt::{CALL, IS_ATTEMPT};

/// Most feedback that one erasure takes along: its ids stand in the catalog.
const MOST_TIED: usize = 10_000;
const TIED: &str = include_str!("../../sql/logs/tied.sql");
/// The table of the ids that are named.
const NAMED: &str = "named";

/// What an erasure takes that is in answers now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasing {
    /// How many records.
    pub records: u64,
    /// How much feedback.
    pub feedback: u64,
    /// The ids of that feedback; none where all of an organisation goes.
    pub tied: Vec<String>,
}

/// Finds what goes if these records of an organisation are erased.
pub async fn erasing(queries: &Queries, scene: Scene, organisation: &str, which: &Which) -> Result<Erasing> {
    let (user, ids, condition) = match which {
        Which::All => (None, &[][..], ""),
        Which::User(user) => (Some(user), &[][..], " and user_id = $user"),
        Which::Ids(ids) => (None, &ids[..], " and id in (select of from named)"),
    };
    let mut ask = Ask {
        queries,
        scene: Scene { side: Some(Arc::new(Named(ids.to_vec()))), ..scene },
        params: vec![
            ("organisation_id".to_owned(), text(organisation)),
            ("user".to_owned(), ScalarValue::Utf8View(user.cloned())),
            ("most".to_owned(), ScalarValue::Int64(i64::try_from(MOST_TIED + 1).ok())),
        ],
    };
    if !ids.is_empty() {
        let attempts = ask.rows(&attempts()).await?;
        let named = ids.iter().cloned().chain(attempts.iter().flat_map(ids_of)).collect();
        ask.scene.side = Some(Arc::new(Named(named)));
    }
    let logs = format!("select count(*) from logs where organisation_id = $organisation_id{condition}");
    let records = ask.count(&logs).await?;
    if *which == Which::All {
        let said = "select count(distinct id) from feedback_history where organisation_id = $organisation_id";
        return Ok(Erasing { records, feedback: ask.count(said).await?, tied: Vec::new() });
    }
    let tied: Vec<String> = ask.rows(TIED).await?.iter().flat_map(ids_of).collect();
    if tied.len() > MOST_TIED {
        let message = format!("more than {MOST_TIED} feedback would go with these records; erase some by `ids` first");
        return Err(Error::limit(message));
    }
    Ok(Erasing { records, feedback: tied.len() as u64, tied })
}

struct Ask<'a> {
    queries: &'a Queries,
    scene: Scene,
    params: Vec<(String, ScalarValue)>,
}

impl Ask<'_> {
    /// Whoever has to erase must be able to, however long it takes to find out what.
    async fn rows(&self, statement: &str) -> Result<Vec<RecordBatch>> {
        let limits = Limits { timeout: None, max_rows: None, ..self.queries.limits() };
        let params = ParamValues::from(self.params.clone());
        self.queries.run(self.scene.clone(), statement, params, limits).await?.batches.try_collect().await
    }

    async fn count(&self, statement: &str) -> Result<u64> {
        Ok(counted(&self.rows(statement).await?))
    }
}

/// The statement that finds the attempts of the calls that are named, as [`crate::plan::Erasure::names`] does.
fn attempts() -> String {
    format!(
        "select distinct id from logs \
         where organisation_id = $organisation_id and {IS_ATTEMPT} and {CALL} in (select of from named)"
    )
}

fn ids_of(batch: &RecordBatch) -> impl Iterator<Item = String> {
    batch.column(0).as_string_view().iter().flatten().map(str::to_owned)
}

/// The ids that are named, as a table.
#[derive(Debug)]
struct Named(Vec<String>);

impl SideTables for Named {
    fn names(&self) -> &'static [&'static str] {
        &[NAMED]
    }

    fn rows(&self, _: &str) -> Result<RecordBatch> {
        let ids: ArrayRef = Arc::new(StringViewArray::from_iter_values(&self.0));
        // No other column has this name: plans over two columns `id`, one of them of an outer join, mix them up.
        RecordBatch::try_from_iter([("of", ids)])
            .map_err(|cause| Error::internal("ids do not make a table").with_source(cause))
    }
}
