//! Decides which rows of an append are stored: those with an unknown id, within quotas.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;

use super::status::Receipt;
use crate::catalog::Catalog;
use crate::dedupe::{DedupWindow, SeenState};
use crate::error::{Error, Result};
use crate::record::{Rows, tighten};
use crate::usage::{Meter, counted_at};
use crate::wal::{Kind, Payload};

/// Ids that are known and counts towards quotas, both as of the last append of the writer.
#[derive(Debug)]
pub(super) struct AdmissionControl {
    /// Ids of records, and states of feedback, that were stored recently.
    pub(super) recent: DedupWindow,
    pub(super) meter: Meter,
    pub(super) catalog: Catalog,
}

impl AdmissionControl {
    /// Removes rows with a known id or over a quota. The payload is encoded again only if there are
    /// any.
    pub(super) fn admit(
        &mut self,
        batch: RecordBatch,
        payload: Payload,
        keys: &[u128],
        now_micros: i64,
    ) -> Result<Admitted> {
        let decided = self.decide(&batch, keys, &[], now_micros)?;
        Ok(Admitted { fresh: only(Kind::Logs, batch, payload, &decided.kept)?, decided })
    }

    /// Decides which rows are stored: those with an unknown id, within quotas.
    ///
    /// An id is remembered only if its row is stored, so that a row over a quota can be sent again
    /// later. `known` is the state to remember for each row; rows without one are complete.
    pub(super) fn decide(
        &mut self,
        batch: &RecordBatch,
        keys: &[u128],
        known: &[SeenState],
        now_micros: i64,
    ) -> Result<Decided> {
        let missing =
            |name: &str| Error::internal(format!("column `{name}` is missing in a batch"));
        let organisations =
            batch.column_by_name("organisation_id").ok_or_else(|| missing("organisation_id"))?;
        let times = batch.column_by_name("created_at").ok_or_else(|| missing("created_at"))?;
        let rows = organisations
            .as_string_view()
            .iter()
            .zip(times.as_primitive::<TimestampMicrosecondType>().values());
        let rules = self.catalog.rules();
        let mut tally = self.meter.tally();
        let mut receipt = Receipt::default();
        let mut kept = Vec::with_capacity(keys.len());
        let mut over = Vec::with_capacity(keys.len());
        let mut last: Option<(&str, Option<u64>, i64)> = None;
        for (row, ((organisation, created_at), key)) in rows.zip(keys).enumerate() {
            let organisation = organisation.unwrap_or_default();
            let micros = counted_at(*created_at, now_micros);
            let (stops_at, seen_since) = match last {
                Some((same, stops_at, seen_since)) if same == organisation => {
                    (stops_at, seen_since)
                }
                _ => (rules.stops_at(organisation), rules.seen_since(organisation, now_micros)),
            };
            last = Some((organisation, stops_at, seen_since));
            let is_known = self.recent.contains(*key);
            let full = !is_known
                && stops_at.is_some_and(|stops_at| tally.records(organisation, micros) >= stops_at);
            match (is_known, full) {
                (true, _) => receipt.duplicate += 1,
                (false, true) => {
                    tally.refuse(organisation, micros);
                    receipt.over_quota += 1;
                }
                (false, false) => {
                    self.recent.remember(
                        *key,
                        known.get(row).copied().unwrap_or_default(),
                        now_micros,
                    );
                    tally.store(organisation, micros);
                    receipt.accepted += 1;
                    // Stored anyway: the clock, or the plan, may be corrected soon.
                    receipt.past_retention += u64::from(*created_at < seen_since);
                }
            }
            kept.push(!is_known && !full);
            over.push(full);
        }
        drop(tally);
        Ok(Decided { kept, over, receipt })
    }

    /// Removes states of feedback that are known.
    pub(super) fn admit_feedback(
        &mut self,
        batch: RecordBatch,
        payload: Payload,
        keys: &[u128],
        now_micros: i64,
    ) -> Result<Admitted> {
        let whole = SeenState::default();
        let kept: Vec<bool> =
            keys.iter().map(|key| self.recent.insert(*key, whole, now_micros)).collect();
        let accepted = kept.iter().filter(|kept| **kept).count() as u64;
        let receipt =
            Receipt { accepted, duplicate: kept.len() as u64 - accepted, ..Receipt::default() };
        let fresh = only(Kind::Feedback, batch, payload, &kept)?;
        Ok(Admitted { fresh, decided: Decided { kept, over: Vec::new(), receipt } })
    }

    /// Forgets rows that the log could not write, and their counts, so that they can be sent again.
    pub(super) fn take_back(
        &mut self,
        rows: Rows,
        batch: &RecordBatch,
        keys: &[u128],
        decided: &Decided,
        now_micros: i64,
    ) {
        let stored = keys.iter().zip(&decided.kept).filter(|(_, kept)| **kept);
        stored.for_each(|(key, _)| self.recent.forget(*key));
        if rows != Rows::Logs {
            return;
        }
        let organisations = batch.column_by_name("organisation_id");
        let times = batch.column_by_name("created_at");
        let (Some(organisations), Some(times)) = (organisations, times) else { return };
        let rows = organisations
            .as_string_view()
            .iter()
            .zip(times.as_primitive::<TimestampMicrosecondType>().values());
        let mut tally = self.meter.tally();
        for ((organisation, micros), (kept, over)) in
            rows.zip(decided.kept.iter().zip(&decided.over))
        {
            if *kept || *over {
                tally.take_back(
                    organisation.unwrap_or_default(),
                    counted_at(*micros, now_micros),
                    *kept,
                );
            }
        }
    }
}

/// Accepted rows of an append.
pub(super) struct Admitted {
    /// The rows, with their encoding for the log; `None` if no row is left.
    pub(super) fresh: Option<(RecordBatch, Payload)>,
    pub(super) decided: Decided,
}

/// Decision about the rows of an append.
#[derive(Debug)]
pub(super) struct Decided {
    /// True for each row that is stored.
    pub(super) kept: Vec<bool>,
    /// True for each row that is refused because of a quota.
    over: Vec<bool>,
    pub(super) receipt: Receipt,
}

/// Returns the selected rows with their encoding for the log: the given one if all are selected,
/// and `None` if no row is.
fn only(
    kind: Kind,
    batch: RecordBatch,
    payload: Payload,
    kept: &[bool],
) -> Result<Option<(RecordBatch, Payload)>> {
    if kept.iter().all(|kept| *kept) {
        return Ok(Some((batch, payload)));
    }
    let Some(kept) = kept_rows(batch, kept)? else { return Ok(None) };
    let payload = Payload::encode_as(kind, &kept)?;
    Ok(Some((kept, payload)))
}

/// Returns the selected rows, or `None` if no row is selected.
pub(super) fn kept_rows(batch: RecordBatch, kept: &[bool]) -> Result<Option<RecordBatch>> {
    if kept.iter().all(|kept| *kept) {
        return Ok(Some(batch));
    }
    if !kept.contains(&true) {
        return Ok(None);
    }
    let kept = filter_record_batch(&batch, &BooleanArray::from(kept.to_vec()))
        .map_err(|cause| Error::internal("cannot select rows of a batch").with_source(cause))?;
    Ok(Some(tighten(&kept)))
}
