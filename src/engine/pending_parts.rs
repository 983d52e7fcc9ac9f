//! Parts of records in the writer and on their way to it: their fingerprints and their deadlines.

use tokio::sync::oneshot;

use super::flush_trigger::micros;
use super::status::Receipt;
use crate::config::Config;
use crate::dedupe::{DedupWindow, KeyHasher};
use crate::error::Result;
use crate::ingest::DEFAULT_ORGANISATION;
use crate::limits::MemoryReservation;
use crate::parts::{JoinBuffer, Late, RecordPart, has_outcome};
use crate::record::Record;
use crate::wal::Payload;

/// Waiting parts take at most this fraction (1/n) of the memory for rows that are not in files.
const WAITING_SHARE: u64 = 2;

/// Repeated parts of records are recognised for so many hours, and up to so many parts.
const PARTS_HOURS: u64 = 1;
const MAX_PARTS: u64 = 1_000_000;

/// Maximum wait of fragments for more of them once one has the outcome of the call, µs: longer than
/// exporters wait between two batches. Before that the call may still run, and fragments wait as
/// long as other parts.
const FRAGMENTS_MICROS: i64 = 20_000_000;

/// Returns the end of the wait of a part that arrives now, µs.
pub(super) fn waits_until(
    part_kind: RecordPart,
    record: &Record,
    now_micros: i64,
    join_micros: i64,
) -> i64 {
    let is_last = part_kind == RecordPart::Fragment && has_outcome(record);
    now_micros.saturating_add(if is_last { join_micros.min(FRAGMENTS_MICROS) } else { join_micros })
}

/// Computes the fingerprint of a part from its whole content, so that a copy is recognised at any
/// time. The time is part of it only for fragments, because a conversation may repeat the same
/// text, and only if `is_timed` says that it is the sender's: the time of arrival differs for a
/// copy.
pub(super) fn fingerprint_of(
    keys: &KeyHasher,
    part_kind: RecordPart,
    record: &mut Record,
    is_timed: bool,
) -> u128 {
    let at = record.created_at.take();
    let days = std::mem::take(&mut record.retention_days);
    let stated_at = at.filter(|_| part_kind == RecordPart::Fragment && is_timed);
    let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
    let print = keys.key_of_all(organisation, &(part_kind, stated_at, &*record));
    record.created_at = at;
    record.retention_days = days;
    print
}

/// A part on its way to the writer.
#[derive(Debug)]
pub(super) struct Part {
    /// Key of its record.
    pub(super) key: u128,
    /// Fingerprint of the part, so that it is not stored twice at any later time.
    pub(super) print: u128,
    pub(super) record: Record,
}

/// Data that a waiting part carries: its memory reservation, and its fingerprint, which is
/// remembered when its record is stored.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) room: Option<MemoryReservation>,
    pub(super) print: Option<u128>,
}

/// Parts of one request, all of one kind.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) part_kind: RecordPart,
    pub(super) parts: Vec<Part>,
    /// All parts, encoded for the log.
    pub(super) payload: Payload,
    pub(super) permit: MemoryReservation,
    pub(super) reply: oneshot::Sender<Result<Receipt>>,
}

/// Parts that wait for the others of their record, or to be added to their stored record.
#[derive(Debug)]
pub(super) struct PendingParts {
    pub(super) waiting: JoinBuffer<Held>,
    pub(super) late: Late<MemoryReservation>,
    /// Parts of records that were stored, or accepted as late, recently.
    pub(super) recent: DedupWindow,
    /// Maximum wait of parts, µs, and maximum bytes of waiting parts.
    pub(super) max_wait_micros: i64,
    pub(super) max_bytes: u64,
}

impl PendingParts {
    pub(super) fn new(keys: &KeyHasher, config: &Config) -> Self {
        let hours = config.dedupe_hours.min(PARTS_HOURS);
        Self {
            waiting: JoinBuffer::default(),
            late: Late::default(),
            recent: DedupWindow::new(keys.clone(), hours, config.dedupe_ids.min(MAX_PARTS)),
            max_wait_micros: micros(config.join_seconds),
            max_bytes: config.memtable_bytes / WAITING_SHARE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.late.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.waiting.bytes().saturating_add(self.late.bytes())
    }
}
