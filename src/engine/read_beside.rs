//! Reads log and tables beside a running engine.
//!
//! The order of reading makes the views complete: first the log, then the tables. Then the rows of
//! every frame that a table's transaction covers are dropped. A flush that commits in between moves
//! rows from the log to the table, and they are counted once. The reverse order could miss them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::Utc;

use super::flushed_seq::{covered, covered_now, wal_id_of};
use super::pending_parts::fingerprint_of;
use crate::dedupe::KeyHasher;
use crate::error::{Error, Result};
use crate::parts::JoinBuffer;
use crate::plan::Month;
use crate::record::json::read_batch;
use crate::record::{BatchBuilder, Rows};
use crate::store::Store;
use crate::store::disk::Disk;
use crate::table::Table;
use crate::usage::{self, Counts, Usage};
use crate::wal::{self, FlushedSeq, Kind, Noted};

/// Attempts to read log and tables without a flush in between.
const MAX_LOOKS: usize = 10;

/// The tables, and the rows of the log that are not in them. Records whose parts are all in the log
/// are among the rows.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) logs: Option<Table>,
    pub(super) feedback: Option<Table>,
    pub(super) rows: Vec<(Kind, RecordBatch)>,
}

/// Reads the tables and the log so that no acknowledged row is missing and none occurs twice.
pub(super) async fn read_beside(store: &Store) -> Result<Beside> {
    let Some((wal_id, folder)) = wal_id_of(store)?.zip(store.wal_folder()) else {
        let logs = Table::open(store, Rows::Logs).await?;
        let feedback = Table::open(store, Rows::Feedback).await?;
        return Ok(Beside { logs, feedback, rows: Vec::new() });
    };
    for _ in 0..MAX_LOOKS {
        // Before the log, which grows meanwhile.
        let noted = match store.last_note(wal_id) {
            Some(path) => wal::read_last(&**store.disk(), &path, wal_id)?,
            None => Noted::default(),
        };
        // Frames that the tables cover now are not decoded; those that they cover later are dropped
        // below.
        let before = covered_now(store, wal_id).await?.2;
        let (mut frames, found) =
            frames_after(Arc::clone(store.disk()), folder.clone(), before).await?;
        let (logs, feedback, now) = covered_now(store, wal_id).await?;
        if found.vanished {
            // The parts in the vanished segment were written to one that did not exist when the log
            // was listed.
            continue;
        }
        let first = found.segments.first().map(|segment| segment.first_sequence);
        if let Some(first) = first.filter(|first| *first > now.most() + 1) {
            return Err(Error::damaged(format!(
                "the write-ahead log begins at sequence {first}, but the table ends at {}: a segment is missing; \
                 restore it from a copy",
                now.most()
            )));
        }
        if let Some(missing) = found.reaches(&noted, now.most(), &folder)? {
            tracing::error!(folder = %folder.display(), "{}", missing.describe());
        }
        let is_new = |sequence: u64, kind: Kind| sequence > now.sequence_of(kind);
        // A part that was flushed meanwhile may be in the table or further on in the log.
        if frames.iter().any(|(sequence, kind, _)| {
            matches!(kind, Kind::RecordPart(_) | Kind::Late(_)) && !is_new(*sequence, *kind)
        }) {
            continue;
        }
        frames.retain(|(sequence, kind, _)| is_new(*sequence, *kind));
        let frames = frames.into_iter().map(|(_, kind, batch)| (kind, batch)).collect();
        return Ok(Beside { logs, feedback, rows: joined(frames)? });
    }
    Err(Error::busy(
        "the server flushes faster than its log can be read beside it; query it over HTTP, or try again later",
    ))
}

type Frames = Vec<(u64, Kind, RecordBatch)>;

/// Reads the frames of the log that are not covered, with the state of the log.
async fn frames_after(
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    covered: FlushedSeq,
) -> Result<(Frames, wal::Replay)> {
    let read = move || -> Result<_> {
        let mut frames = Vec::new();
        let found = wal::replay(&*disk, &folder, covered, true, &mut |entry, batch| {
            frames.push((entry.sequence, entry.kind, batch));
            Ok(())
        })?;
        Ok((frames, found))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|cause| Error::internal("reading the log panicked").with_source(cause))?
}

/// Merges parts into records. A record with missing parts is included as far as it is known.
fn joined(frames: Vec<(Kind, RecordBatch)>) -> Result<Vec<(Kind, RecordBatch)>> {
    let keys = KeyHasher::random();
    let mut rows = Vec::new();
    let mut waiting = JoinBuffer::<()>::default();
    let mut known = HashSet::new();
    let mut builder = BatchBuilder::new();
    for (kind, batch) in frames {
        let (Kind::RecordPart(part_kind) | Kind::Late(part_kind)) = kind else {
            if kind == Kind::Logs {
                // Parts of a record that arrived complete add nothing to it.
                let ids = keys.keys_of_batch(&batch);
                for key in &ids {
                    waiting.forget(*key);
                }
                known.extend(ids);
            }
            rows.push((kind, batch));
            continue;
        };
        for (key, mut record) in keys.keys_of_batch(&batch).into_iter().zip(read_batch(&batch)?) {
            let print = fingerprint_of(&keys, part_kind, &mut record, true);
            // A late part whose record is in the table is added to it there.
            let is_late = matches!(kind, Kind::Late(_)) && waiting.get(key).is_none();
            if !known.contains(&key)
                && !is_late
                && let Some(whole) = waiting.add(key, part_kind, record, print, 0, None)
            {
                known.insert(key);
                builder.append(&whole.record);
            }
        }
    }
    waiting.iter().for_each(|(_, so_far)| builder.append(so_far.record()));
    if builder.rows() > 0 {
        rows.push((Kind::Logs, builder.finish()));
    }
    Ok(rows)
}

/// Reads the counts of all nodes as of their last flush, plus the later rows of this log.
pub(super) async fn read_usage(
    store: &Store,
    table: Option<&Table>,
    memory: &[RecordBatch],
) -> Result<Usage> {
    let now_micros = Utc::now().timestamp_micros();
    let mut logs = usage::read(store, Month::of_micros(now_micros)).await?;
    let mut own = Counts::default();
    if let Some(wal_id) = wal_id_of(store)? {
        let snapshots = logs.remove(&wal_id).unwrap_or_default();
        let flushed = usage::as_of(&snapshots, covered(table, None, wal_id).await?.logs);
        own = flushed.map(|snapshot| Counts::clone(&snapshot.counts)).unwrap_or_default();
    }
    memory.iter().for_each(|batch| own.count(batch, now_micros));
    Ok(Usage::fixed(usage::sum([&own, &usage::newest(&logs)])))
}
