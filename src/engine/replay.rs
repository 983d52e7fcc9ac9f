//! What the log brings back at an open: rows that no table has, halves that wait, records whose
//! halves are both there, and late parts.
//!
//! Quotas were asked when a record was stored and not written down for halves, so those that are
//! whole are handed on to the writer, which asks again. What was erased meanwhile is left out, for
//! good.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::pending_parts::{Held, fingerprint_of, waits_until};
use super::reader;
use super::table_state::TableState;
use crate::dedupe::{DedupWindow, SeenState};
use crate::error::{Error, Result};
use crate::limits::MemoryReservation;
use crate::memtable::{MemoryBudget, batch_bytes};
use crate::parts::{Admission, JoinBuffer, Joined, RecordPart, SoFar};
use crate::plan::{Row, Rules};
use crate::record::json::records;
use crate::record::{self, Record};
use crate::store::Store;
use crate::store::folders::Folders;
use crate::usage::Counts;
use crate::wal::{self, FlushedSeq, Kind, Noted, Wal};

/// What a replay finds of halves.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) waiting: JoinBuffer<Held>,
    /// Records of which both halves are there: whether their quota leaves room for them was never
    /// written down.
    pub(super) whole: HashMap<u128, Joined<Held>>,
    /// Parts of records that are stored.
    pub(super) late: Vec<(u128, RecordPart, Record, Option<MemoryReservation>)>,
    /// Whether the log holds halves that were erased.
    pub(super) has_erased: bool,
}

/// What a replay fills.
pub(super) struct Replayed {
    pub(super) recent: DedupWindow,
    /// Of records, and of feedback.
    tables: [TableState; 2],
    pub(super) record_parts: Parts,
    /// How long halves that come back wait, µs.
    join_micros: i64,
    budget: MemoryBudget,
    pub(super) counts: Counts,
    /// Everything that was ever erased: a log that slept may bring it back.
    erased: Rules,
    now: DateTime<Utc>,
}

impl Replayed {
    /// Nothing yet.
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

/// Opens the log and brings back the rows that the table does not have. With `after_loss` the log
/// may begin behind the end of the table.
pub(super) async fn replay(
    store: &Store,
    folder: &Path,
    folders: &Arc<Folders>,
    after_loss: bool,
    new: (Uuid, wal::Random),
    mut into: Replayed,
) -> Result<(Wal, Replayed)> {
    let (store, folder, folders) = (store.clone(), folder.to_owned(), Arc::clone(folders));
    let here = tokio::runtime::Handle::current();
    let work = move || {
        let [logs, feedback] = into.tables.clone();
        let lost = if after_loss { wal::before_first(&**folders.disk(), &folder)? } else { 0 };
        let covered = |wal_id| {
            let covered =
                here.block_on(reader::covered(Some(&logs.table), Some(&feedback.table), wal_id))?;
            let covered =
                FlushedSeq { logs: covered.logs.max(lost), feedback: covered.feedback.max(lost) };
            let noted = match store.last_note(wal_id) {
                // What was flushed into a table that is lost was noted too.
                Some(path) if after_loss => Noted { path: Some(path), ..Noted::default() },
                Some(path) => wal::read_last(&**folders.disk(), &path, wal_id)?,
                None => Noted::default(),
            };
            Ok((covered, noted))
        };
        let mut take = |_, kind, batch: RecordBatch| into.take(kind, batch);
        let wal = Wal::open(&folder, &record::schema(), &folders, new, &covered, &mut take)?;
        into.forget_erased();
        Ok((wal, into))
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Error::internal("replaying the log panicked").with_source(cause))?
}

impl Replayed {
    fn take(&mut self, kind: Kind, batch: RecordBatch) -> Result<()> {
        let now_micros = self.now.timestamp_micros();
        match kind {
            Kind::Logs => self.take_records(batch),
            Kind::Feedback => {
                let batch = without_erased(batch, kind, &self.erased)?;
                let permit = self.budget.take_what_is_left(batch_bytes(&batch));
                self.tables[1].view_cell.insert(batch, now_micros, permit);
                Ok(())
            }
            // What is erased is seen when the parts are together: one of them may not say whose it
            // is.
            Kind::RecordPart(part_kind) | Kind::Late(part_kind) => {
                let is_late = matches!(kind, Kind::Late(_));
                let keys = self.recent.keys().clone();
                for (key, record) in keys.keys_of_batch(&batch).into_iter().zip(records(&batch)?) {
                    self.take_half(key, part_kind, record, is_late);
                }
                Ok(())
            }
        }
    }

    fn take_half(&mut self, key: u128, part_kind: RecordPart, mut record: Record, is_late: bool) {
        let room = self.budget.take_what_is_left(record.held_bytes() as u64);
        let stored = self.recent.known(key).map(|known| known.is_open);
        let is_open =
            stored.or_else(|| self.record_parts.whole.get(&key).map(|whole| !whole.is_complete));
        // The log does not tell whether the time is that of its arrival.
        let [print, untimed] = [true, false]
            .map(|is_timed| fingerprint_of(self.recent.keys(), part_kind, &mut record, is_timed));
        let fit = self.record_parts.waiting.fit(key, part_kind, print);
        match is_open {
            Some(false) if !is_late => return,
            Some(_) => return self.record_parts.late.push((key, part_kind, record, room)),
            // Its record may be in this log too, as a half that was stored alone and not flushed.
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
            self.tables[0].view_cell.show_half(key, Arc::clone(so_far));
            self.record_parts.waiting.know(key, untimed);
        }
    }

    /// Forgets parts of records that were erased, now that all parts are together.
    fn forget_erased(&mut self) {
        let now_micros = self.now.timestamp_micros();
        let is_erased = |so_far: &SoFar| self.erased.erases(Row::from_record(&so_far.figures()));
        let erased: Vec<u128> = self
            .record_parts
            .waiting
            .iter()
            .filter(|(_, so_far)| is_erased(so_far))
            .map(|(key, _)| key)
            .collect();
        let whole = self
            .record_parts
            .whole
            .extract_if(|_, whole| self.erased.erases(Row::from_record(&whole.record)))
            .map(|(key, _)| key);
        for key in erased.iter().copied().chain(whole) {
            self.record_parts.waiting.forget(key);
            self.recent.insert(key, SeenState::default(), now_micros);
            self.record_parts.has_erased = true;
        }
        self.tables[0].view_cell.replace_parts(&erased, None, now_micros, None);
    }

    fn take_records(&mut self, batch: RecordBatch) -> Result<()> {
        let now_micros = self.now.timestamp_micros();
        let mut keys = self.recent.keys().keys_of_batch(&batch);
        keys.retain(|key| {
            self.recent.insert(*key, SeenState::default(), now_micros);
            self.record_parts.waiting.forget(*key)
        });
        self.counts.count(&batch, now_micros);
        let batch = without_erased(batch, Kind::Logs, &self.erased)?;
        let permit = self.budget.take_what_is_left(batch_bytes(&batch));
        self.tables[0].view_cell.replace_parts(&keys, Some(batch), now_micros, permit);
        Ok(())
    }
}

/// Takes out the rows that were erased. Most logs hold none, and then nothing is looked at.
fn without_erased(batch: RecordBatch, kind: Kind, erased: &Rules) -> Result<RecordBatch> {
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
            let (organisation, id) = (organisations.value(row), ids.value(row));
            let feedback = kind == Kind::Feedback;
            let (created_at, written_ms) = (times.value(row), i64::MAX);
            Some(!erased.erases(Row { feedback, organisation, id, user, created_at, written_ms }))
        })
        .collect();
    filter_record_batch(&batch, &kept)
        .map_err(|cause| Error::internal("cannot take out erased rows").with_source(cause))
}
