//! Parts of records on their way: what they are known by, and how long they wait.

use tokio::sync::oneshot;

use super::Receipt;
use crate::dedupe::KeyHasher;
use crate::error::Result;
use crate::ingest::DEFAULT_ORGANISATION;
use crate::limits::MemoryReservation;
use crate::parts::{RecordPart, says_outcome};
use crate::record::Record;
use crate::wal::Payload;

/// Pieces wait so long for more of them once one says how the call went, µs: longer than exporters
/// wait between two batches. Before that the call may still run, and they wait as halves do.
const PIECES_MICROS: i64 = 20_000_000;

/// Until when a half waits that came now, µs.
pub(super) fn waits_until(
    part_kind: RecordPart,
    record: &Record,
    now_micros: i64,
    join_micros: i64,
) -> i64 {
    let is_last = part_kind == RecordPart::Fragment && says_outcome(record);
    now_micros.saturating_add(if is_last { join_micros.min(PIECES_MICROS) } else { join_micros })
}

/// Identifies a part, however late it comes again: by all that it says. The time counts for pieces
/// alone, because a conversation may say the same twice, and only where `is_timed` says that it is
/// their own, since that of arrival is another when they come again.
pub(super) fn fingerprint_of(
    keys: &KeyHasher,
    part_kind: RecordPart,
    record: &mut Record,
    is_timed: bool,
) -> u128 {
    let (at, days) = (record.created_at.take(), std::mem::take(&mut record.retention_days));
    let said_at = at.filter(|_| part_kind == RecordPart::Fragment && is_timed);
    let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
    let print = keys.key_of_all(organisation, &(part_kind, said_at, &*record));
    (record.created_at, record.retention_days) = (at, days);
    print
}

/// A half on its way.
#[derive(Debug)]
pub(super) struct Part {
    /// What its record is known by.
    pub(super) key: u128,
    /// What it is known by itself, so that it is not taken twice however late it comes again.
    pub(super) print: u128,
    pub(super) record: Record,
}

/// What a part that waits takes with it: its room, and what it is known by when its record is
/// stored.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) room: Option<MemoryReservation>,
    pub(super) print: Option<u128>,
}

/// Halves of one request, all of one kind.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) part_kind: RecordPart,
    pub(super) parts: Vec<Part>,
    /// All of them, for the log.
    pub(super) payload: Payload,
    pub(super) permit: MemoryReservation,
    pub(super) reply: oneshot::Sender<Result<Receipt>>,
}
