//! The one writer: takes appends from all threads, writes them as groups, and shows them once they are durable.
//!
//! While one group is on its way to the disk the next one gathers, so many small appends share one fsync. An id that was
//! seen already is dropped here, where appends have an order, and so is a row beyond its organisation's quota. The sender of a
//! second copy is acked with the group, when the first one of the two is durable. After a failed write everything is refused with the reason until the engine is opened anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

use super::Receipt;
use super::open::FolderLock;
use crate::catalog::Catalog;
use crate::dedupe::Recent;
use crate::error::{Error, Result};
use crate::record::tighten;
use crate::usage::{Meter, counted_at};
use crate::view::Shelf;
use crate::wal::{Payload, Wal};

/// A group ends at this many bytes of rows, so that the first of many waiting writers is not kept long.
const GROUP_BYTES: usize = 16 << 20;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Make a batch durable and show it.
    Append(Box<Append>),
    /// End the live memtable and the segment it came from.
    Freeze(oneshot::Sender<()>),
    /// Forget segments that the table covers.
    Trim(u64),
    /// Remember ids that other nodes stored.
    Remember(Vec<u128>),
}

/// One append.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) batch: RecordBatch,
    pub(super) payload: Payload,
    pub(super) keys: Vec<u128>,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Result<Receipt>>,
}

/// Figures that the writer keeps for others to read.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) duplicate: AtomicU64,
    pub(super) over_quota: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) wal_bytes: AtomicU64,
    pub(super) wal_segments: AtomicU64,
}

/// What the writer owns and what it shares.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) wal: Wal,
    pub(super) recent: Recent,
    pub(super) meter: Meter,
    pub(super) catalog: Catalog,
    pub(super) shelf: Arc<Shelf>,
    pub(super) counters: Arc<Counters>,
    pub(super) flush_wanted: Arc<Notify>,
    pub(super) flush_bytes: u64,
    pub(super) now: fn() -> DateTime<Utc>,
    pub(super) on_failure: OnFailure,
    /// Held until the last frame is written, however the engine goes.
    pub(super) _lock: Arc<FolderLock>,
}

/// Hears why the log failed.
pub(super) struct OnFailure(pub(super) Box<dyn Fn(&Error) + Send + Sync>);

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnFailure")
    }
}

impl Writer {
    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        self.measure();
        while let Some(command) = commands.blocking_recv() {
            let mut next = Some(command);
            while let Some(command) = next.take() {
                next = match command {
                    Command::Append(first) => self.append_group(*first, &mut commands),
                    Command::Freeze(done) => {
                        self.shelf.freeze(Arc::new(self.meter.own()));
                        self.wal.rotate();
                        // The flush that asked may have been called off; the rows stay frozen for the next one.
                        let _ = done.send(());
                        None
                    }
                    Command::Trim(covered) => {
                        if let Err(error) = self.wal.trim(covered) {
                            // Segments that stay are replayed and passed over, so this costs disk, not truth.
                            tracing::warn!(error = error.chain(), "cannot trim the write-ahead log");
                        }
                        None
                    }
                    Command::Remember(keys) => {
                        let now_micros = (self.now)().timestamp_micros();
                        for key in keys {
                            self.recent.insert(key, now_micros);
                        }
                        None
                    }
                };
                self.measure();
            }
        }
    }

    /// Gathers what waits behind the first append, up to a bound, and writes it as one group; answers the command that
    /// ended the gathering.
    fn append_group(&mut self, first: Append, commands: &mut mpsc::UnboundedReceiver<Command>) -> Option<Command> {
        let mut bytes = first.payload.bytes().len();
        let mut group = vec![first];
        let mut next = None;
        while bytes < GROUP_BYTES {
            match commands.try_recv() {
                Ok(Command::Append(more)) => {
                    bytes += more.payload.bytes().len();
                    group.push(*more);
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.write_group(group);
        next
    }

    fn write_group(&mut self, group: Vec<Append>) {
        let now_micros = (self.now)().timestamp_micros();
        let mut fresh = Vec::with_capacity(group.len());
        let mut replies = Vec::with_capacity(group.len());
        for append in group {
            let Append { batch, payload, keys, permit, reply } = append;
            match self.admit(batch, payload, &keys, now_micros) {
                Ok((kept, receipt)) => {
                    fresh.extend(kept.map(|(batch, payload)| (batch, payload, permit)));
                    replies.push((reply, receipt));
                }
                Err(error) => {
                    // Its ids count as known now, so a second send would be acked and dropped: stop here instead.
                    (self.on_failure.0)(&error);
                    let _ = reply.send(Err(error));
                }
            }
        }
        let payloads: Vec<&Payload> = fresh.iter().map(|(_, payload, _)| payload).collect();
        // A duplicate is acked only if its first copy can be durable, so a failed log acks nothing.
        let written = match payloads.is_empty() {
            true => self.wal.refuse_if_failed().map(|()| 0),
            false => self.wal.append(&payloads),
        };
        match written {
            Ok(first) => {
                let sequences = first..;
                let mut live_bytes = 0;
                for (sequence, (batch, _, permit)) in sequences.zip(fresh) {
                    live_bytes = self.shelf.insert(batch, sequence, now_micros, Some(permit));
                }
                self.ack(replies);
                if live_bytes >= self.flush_bytes {
                    self.flush_wanted.notify_one();
                }
            }
            Err(error) => self.refuse(replies, &error),
        }
    }

    fn ack(&self, replies: Vec<(oneshot::Sender<Result<Receipt>>, Receipt)>) {
        for (reply, receipt) in replies {
            self.counters.accepted.fetch_add(receipt.accepted, Ordering::Relaxed);
            self.counters.duplicate.fetch_add(receipt.duplicate, Ordering::Relaxed);
            self.counters.over_quota.fetch_add(receipt.over_quota, Ordering::Relaxed);
            // A caller that stopped waiting has its rows kept all the same.
            let _ = reply.send(Ok(receipt));
        }
    }

    fn refuse(&self, replies: Vec<(oneshot::Sender<Result<Receipt>>, Receipt)>, error: &Error) {
        (self.on_failure.0)(error);
        for (reply, receipt) in replies {
            self.counters.refused.fetch_add(receipt.accepted + receipt.duplicate, Ordering::Relaxed);
            let _ = reply.send(Err(Error::new(error.kind(), error.chain())));
        }
    }

    /// Takes out rows whose id was seen, and those beyond a quota; the payload is encoded anew only if there are any.
    ///
    /// An id is remembered only if its row is stored, so that a row which came too much can come again later.
    fn admit(
        &mut self,
        batch: RecordBatch,
        payload: Payload,
        keys: &[u128],
        now_micros: i64,
    ) -> Result<(Option<(RecordBatch, Payload)>, Receipt)> {
        let missing = |name: &str| Error::internal(format!("column `{name}` is missing in a batch"));
        let organisations = batch.column_by_name("organisation_id").ok_or_else(|| missing("organisation_id"))?;
        let times = batch.column_by_name("created_at").ok_or_else(|| missing("created_at"))?;
        let rows = organisations.as_string_view().iter().zip(times.as_primitive::<TimestampMicrosecondType>().values());
        let rules = self.catalog.rules();
        let mut tally = self.meter.tally();
        let mut receipt = Receipt::default();
        let mut kept = Vec::with_capacity(keys.len());
        let mut last: Option<(&str, Option<u64>)> = None;
        for ((organisation, micros), key) in rows.zip(keys) {
            let (organisation, micros) = (organisation.unwrap_or_default(), counted_at(*micros, now_micros));
            let stops_at = match last {
                Some((same, stops_at)) if same == organisation => stops_at,
                _ => rules.stops_at(organisation),
            };
            last = Some((organisation, stops_at));
            let known = self.recent.contains(*key);
            let full = !known && stops_at.is_some_and(|stops_at| tally.records(organisation, micros) >= stops_at);
            match (known, full) {
                (true, _) => receipt.duplicate += 1,
                (false, true) => {
                    tally.refuse(organisation, micros);
                    receipt.over_quota += 1;
                }
                (false, false) => {
                    self.recent.remember(*key, now_micros);
                    tally.store(organisation, micros);
                    receipt.accepted += 1;
                }
            }
            kept.push(!known && !full);
        }
        drop(tally);
        if receipt.accepted == keys.len() as u64 {
            return Ok((Some((batch, payload)), receipt));
        }
        if receipt.accepted == 0 {
            return Ok((None, receipt));
        }
        let kept = filter_record_batch(&batch, &BooleanArray::from(kept))
            .map_err(|cause| Error::internal("cannot take rows out of a batch").with_source(cause))?;
        let kept = tighten(&kept);
        let payload = Payload::encode(&kept)?;
        Ok((Some((kept, payload)), receipt))
    }

    fn measure(&self) {
        let (bytes, segments) = self.wal.size();
        self.counters.wal_bytes.store(bytes, Ordering::Relaxed);
        self.counters.wal_segments.store(segments, Ordering::Relaxed);
    }
}
