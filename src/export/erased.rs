//! Removes rows that were erased after the export began. An export may run for hours, and its plan
//! has only the erasures known at its start.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, PrimitiveArray, RecordBatch, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::plan::{Erasures, Row, Rules};

/// Returns the current rules.
pub(crate) type LatestRules = Arc<dyn Fn() -> Arc<Rules> + Send + Sync>;

/// Columns that identify erased rows, with their names in the batches of an export.
const COLUMNS: [(&str, &str); 4] = [
    ("organisation_id", "__erased_organisation"),
    ("created_at", "__erased_time"),
    ("user_id", "__erased_user"),
    ("id", "__erased_id"),
];

/// Filter of rows erased since the export began.
pub(super) struct ErasedSince {
    latest: LatestRules,
    began: Arc<Rules>,
    /// The rules at the last check, and their erasures beyond those at the start.
    known: Mutex<(Arc<Rules>, Arc<Erasures>)>,
}

impl ErasedSince {
    /// Name of the organisation column in the batches of an export.
    pub(super) const ORGANISATION: &str = COLUMNS[0].1;

    pub(super) fn new(latest: LatestRules, began: Arc<Rules>) -> Self {
        let known = Mutex::new((Arc::clone(&began), Arc::default()));
        Self { latest, began, known }
    }

    /// Returns the columns that an export must select for this filter.
    pub(super) fn select_list() -> String {
        COLUMNS.map(|(name, alias)| format!("{name} as \"{alias}\"")).join(", ")
    }

    fn erasures(&self) -> Arc<Erasures> {
        let latest = (self.latest)();
        let mut known = self.known.lock();
        if !Arc::ptr_eq(&known.0, &latest) {
            let erasures = Arc::new(latest.erased_since(&self.began));
            *known = (latest, erasures);
        }
        Arc::clone(&known.1)
    }

    /// Returns the rows of a batch that were not erased.
    pub(super) fn keep(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let erasures = self.erasures();
        if erasures.list().is_empty() {
            return Ok(batch);
        }
        let wrong =
            || Error::internal("the columns that identify erased rows are missing in an export");
        let text = |place: usize| -> Result<&StringViewArray> {
            let column = batch
                .column_by_name(COLUMNS[place].1)
                .and_then(|column| column.as_string_view_opt());
            column.ok_or_else(wrong)
        };
        let times: Option<&PrimitiveArray<TimestampMicrosecondType>> =
            batch.column_by_name(COLUMNS[1].1).and_then(|column| column.as_primitive_opt());
        let organisations = text(0)?;
        let times = times.ok_or_else(wrong)?;
        let users = text(2)?;
        let ids = text(3)?;
        let row = |row: usize| Row {
            feedback: false,
            organisation: value(organisations, row).unwrap_or_default(),
            id: value(ids, row).unwrap_or_default(),
            user: value(users, row),
            created_at: if times.is_valid(row) { times.value(row) } else { i64::MIN },
            // All rows that the export reads had arrived when it began.
            written_ms: i64::MIN,
        };
        let kept: BooleanArray =
            (0..batch.num_rows()).map(|at| Some(erasures.first(row(at)).is_none())).collect();
        filter_record_batch(&batch, &kept)
            .map_err(|cause| Error::internal("cannot remove erased rows").with_source(cause))
    }
}

fn value(texts: &StringViewArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}
