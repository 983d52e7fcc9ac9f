//! Restores data from the log at an open: rows that no table has, waiting parts, records whose
//! parts are all there, and late parts.
//!
//! A quota is checked when a record is stored, and the log does not note the result for parts. So
//! complete records are passed to the writer, which checks again. Rows that were erased meanwhile
//! are dropped for good.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};

use super::dependencies::Dependencies;
use super::flushed_seq;
use super::pending_parts::{Held, fingerprint_of, waits_until};
use super::table_state::TableState;
use crate::dedupe::{DedupWindow, SeenState};
use crate::error::{Error, Result};
use crate::limits::MemoryReservation;
use crate::memtable::{MemoryBudget, batch_bytes};
use crate::parts::{Admission, JoinBuffer, Joined, RecordPart};
use crate::plan::{Row, Rules};
use crate::record::json::read_batch;
use crate::record::{self, Record};
use crate::store::Store;
use crate::store::folders::Folders;
use crate::usage::Counts;
use crate::wal::{self, Entry, FlushedSeq, Kind, Noted, Wal};

/// Parts of records that a replay finds.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) waiting: JoinBuffer<Held>,
    /// Records whose parts are all there. The log does not say if their quota had room for them.
    pub(super) whole: HashMap<u128, Joined<Held>>,
    /// Parts of records that are stored.
    pub(super) late: Vec<(u128, RecordPart, Record, Option<MemoryReservation>)>,
    /// Time by which the first part of each record had arrived, ms since 1970-01-01.
    arrived_ms: HashMap<u128, i64>,
    /// True if the log holds erased parts.
    pub(super) has_erased: bool,
}

/// State that a replay fills.
pub(super) struct Replayed {
    pub(super) recent: DedupWindow,
    /// The tables of records and of feedback.
    tables: [TableState; 2],
    pub(super) record_parts: Parts,
    /// Wait of restored parts, µs.
    join_micros: i64,
    budget: MemoryBudget,
    pub(super) counts: Counts,
    /// Every erasure ever made: an old log may contain erased rows.
    erased: Rules,
    now: DateTime<Utc>,
}

impl Replayed {
    /// Creates an empty state.
    pub(super) fn new(
        tables: [TableState; 2],
        recent: DedupWindow,
        budget: MemoryBudget,
        erased: Rules,
        join_micros: i64,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            recent,
            tables,
            record_parts: Parts::default(),
            join_micros,
            budget,
            counts: Counts::default(),
            erased,
            now,
        }
    }
}

/// Opens the log and restores the rows that the table does not have. With
/// [`Dependencies::after_loss`] the log may begin after the end of the table.
pub(super) async fn replay(
    store: &Store,
    folder: &Path,
    folders: &Arc<Folders>,
    parts: &Dependencies,
    mut into: Replayed,
) -> Result<(Wal, Replayed)> {
    let store = store.clone();
    let folder = folder.to_owned();
    let folders = Arc::clone(folders);
    let after_loss = parts.after_loss;
    let new = ((parts.new_uuid)(), parts.random);
    let here = tokio::runtime::Handle::current();
    let work = move || {
        let [logs, feedback] = into.tables.clone();
        let lost = if after_loss { wal::before_first(&**folders.disk(), &folder)? } else { 0 };
        let covered = |wal_id| {
            let covered = here.block_on(flushed_seq::covered(
                Some(&logs.table),
                Some(&feedback.table),
                wal_id,
            ))?;
            let covered =
                FlushedSeq { logs: covered.logs.max(lost), feedback: covered.feedback.max(lost) };
            let noted = match store.last_note(wal_id) {
                // The note includes frames that were flushed into the lost table.
                Some(path) if after_loss => Noted { path: Some(path), ..Noted::default() },
                Some(path) => wal::read_last(&**folders.disk(), &path, wal_id)?,
                None => Noted::default(),
            };
            Ok((covered, noted))
        };
        let mut take = |entry: Entry, batch: RecordBatch| into.take(entry, batch);
        let wal = Wal::open(&folder, &record::schema(), &folders, new, &covered, &mut take)?;
        into.forget_erased();
        Ok((wal, into))
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Error::internal("replaying the log panicked").with_source(cause))?
}

impl Replayed {
    fn take(&mut self, entry: Entry, batch: RecordBatch) -> Result<()> {
        let Entry { kind, .. } = entry;
        let arrived_ms = entry.arrived_ms.unwrap_or(i64::MAX);
        let now_micros = self.now.timestamp_micros();
        match kind {
            Kind::Logs => self.take_records(batch, arrived_ms),
            Kind::Feedback => {
                let batch = without_erased(batch, kind, &self.erased, arrived_ms)?;
                let permit = self.budget.take_available(batch_bytes(&batch));
                self.tables[1].view_cell.insert(batch, now_micros, permit);
                Ok(())
            }
            // Erased parts are dropped when all parts are joined, because a single part may not
            // name the user.
            Kind::RecordPart(part_kind) | Kind::Late(part_kind) => {
                let is_late = matches!(kind, Kind::Late(_));
                let keys = self.recent.keys().clone();
                for (key, record) in keys.keys_of_batch(&batch).into_iter().zip(read_batch(&batch)?)
                {
                    // All parts of a record that was partly known then are erased with it.
                    let first = self.record_parts.arrived_ms.entry(key).or_insert(arrived_ms);
                    *first = arrived_ms.min(*first);
                    self.take_part(key, part_kind, record, is_late);
                }
                Ok(())
            }
        }
    }

    fn take_part(&mut self, key: u128, part_kind: RecordPart, mut record: Record, is_late: bool) {
        let room = self.budget.take_available(record.held_bytes() as u64);
        let stored = self.recent.known(key).map(|known| known.is_open);
        let is_open =
            stored.or_else(|| self.record_parts.whole.get(&key).map(|whole| !whole.is_complete));
        // The log does not say if the time is the time of arrival.
        let [print, untimed] = [true, false]
            .map(|is_timed| fingerprint_of(self.recent.keys(), part_kind, &mut record, is_timed));
        let fit = self.record_parts.waiting.fit(key, part_kind, print);
        match is_open {
            Some(false) if !is_late => return,
            Some(_) => return self.record_parts.late.push((key, part_kind, record, room)),
            // Its record may be in this log too, as a part that was stored alone and not flushed.
            None if is_late
                && (self.record_parts.waiting.get(key).is_none() || fit != Admission::New) =>
            {
                return self.record_parts.late.push((key, part_kind, record, room));
            }
            None if fit != Admission::New => return,
            None => {}
        }
        let until_micros =
            waits_until(part_kind, &record, self.now.timestamp_micros(), self.join_micros);
        let held = Held { room, print: Some(print) };
        if let Some(whole) =
            self.record_parts.waiting.add(key, part_kind, record, print, until_micros, Some(held))
        {
            self.tables[0].view_cell.replace_parts(&[key], None, 0, None);
            self.record_parts.whole.insert(key, whole);
        } else if let Some(so_far) = self.record_parts.waiting.get(key) {
            self.tables[0].view_cell.show_partial(key, Arc::clone(so_far));
            self.record_parts.waiting.know(key, untimed);
        }
    }

    /// Drops parts of erased records, now that all parts are joined.
    fn forget_erased(&mut self) {
        let now_micros = self.now.timestamp_micros();
        let arrived_ms = std::mem::take(&mut self.record_parts.arrived_ms);
        let is_erased = |key: u128, record: &Record| {
            let written_ms = arrived_ms.get(&key).copied().unwrap_or(i64::MAX);
            self.erased.erases(Row { written_ms, ..Row::from_record(record) })
        };
        let erased: Vec<u128> = self
            .record_parts
            .waiting
            .iter()
            .filter(|(key, so_far)| is_erased(*key, &so_far.figures()))
            .map(|(key, _)| key)
            .collect();
        let whole = self
            .record_parts
            .whole
            .extract_if(|key, whole| is_erased(*key, &whole.record))
            .map(|(key, _)| key);
        for key in erased.iter().copied().chain(whole) {
            self.record_parts.waiting.forget(key);
            self.recent.insert(key, SeenState::default(), now_micros);
            self.record_parts.has_erased = true;
        }
        self.tables[0].view_cell.replace_parts(&erased, None, now_micros, None);
    }

    fn take_records(&mut self, batch: RecordBatch, arrived_ms: i64) -> Result<()> {
        let now_micros = self.now.timestamp_micros();
        let mut keys = self.recent.keys().keys_of_batch(&batch);
        keys.retain(|key| {
            self.recent.insert(*key, SeenState::default(), now_micros);
            self.record_parts.waiting.forget(*key)
        });
        self.counts.count(&batch, now_micros);
        let batch = without_erased(batch, Kind::Logs, &self.erased, arrived_ms)?;
        let permit = self.budget.take_available(batch_bytes(&batch));
        self.tables[0].view_cell.replace_parts(&keys, Some(batch), now_micros, permit);
        Ok(())
    }
}

/// Removes erased rows: also those with a future date that had arrived when the erasure was
/// requested. Without erasures the batch is not searched.
fn without_erased(
    batch: RecordBatch,
    kind: Kind,
    erased: &Rules,
    arrived_ms: i64,
) -> Result<RecordBatch> {
    if erased.erasures().is_empty() {
        return Ok(batch);
    }
    let text =
        |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_view_opt());
    let times = batch
        .column_by_name("created_at")
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let (Some(organisations), Some(ids), Some(users), Some(times)) =
        (text("organisation_id"), text("id"), text("user_id"), times)
    else {
        return Err(Error::internal("a frame of the log lacks columns"));
    };
    let kept: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let user = users.is_valid(row).then(|| users.value(row));
            let organisation = organisations.value(row);
            let id = ids.value(row);
            let feedback = kind == Kind::Feedback;
            let created_at = times.value(row);
            let written_ms = arrived_ms;
            Some(!erased.erases(Row { feedback, organisation, id, user, created_at, written_ms }))
        })
        .collect();
    filter_record_batch(&batch, &kept)
        .map_err(|cause| Error::internal("cannot remove erased rows").with_source(cause))
}
