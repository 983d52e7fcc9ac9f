//! The single writer: takes appends from all threads, writes them in groups, and shows them once
//! they are durable.
//!
//! While one group is written to the disk the next one gathers, so many small appends share one
//! fsync. Known ids and rows over an organisation's quota are dropped here, where appends have an
//! order. The sender of a duplicate is acknowledged with the group, when the first copy is durable.
//! A group that the log could not write, for example on a full disk, is refused and forgotten, so
//! that it can be sent again. After a failed fsync everything is refused with the reason until the
//! engine is reopened. Parts of records are handled in [`super::part_join`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, oneshot};

use super::admission::{AdmissionControl, Admitted};
use super::fair_queue::{FairQueue, Queued};
use super::flush_trigger::FlushTrigger;
use super::health::Health;
use super::lock::FolderLock;
use super::pending_parts::{Parts, PendingParts};
use super::status::Receipt;
use crate::dedupe::SeenState;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::Policy;
use crate::limits::{DAYS, Holder, MemoryReservation};
use crate::parts::LatePart;
use crate::record::Rows;
use crate::store::folders::is_disk_full;
use crate::view::ViewCell;
use crate::wal::{Payload, Wal};

/// Maximum bytes of rows in a group, so that the first of many waiting senders is not delayed for
/// long.
const GROUP_BYTES: usize = 4 << 20;
/// Bytes for which a row counts at least, because a small row takes the writer time as well.
const ROW_BYTES: usize = 1 << 10;
/// Bytes for which a day of rows, or a part of a record, counts, so that a group has no more of
/// them than a flush may have.
pub(super) const DAY_BYTES: usize = GROUP_BYTES / DAYS;

/// Commands of the engine to the writer.
#[derive(Debug)]
pub(super) enum Command {
    /// Make a batch durable and show it.
    Append(Box<Append>),
    /// Make parts of records durable, show them, and join those whose other parts are there.
    Parts(Box<Parts>),
    /// Store the parts whose wait is over.
    Settle,
    /// Store the parts with a future date.
    StoreAhead,
    /// End the live memtables and the segment that they came from. Returns the parts whose records
    /// are in the table once the frozen rows are.
    Freeze(oneshot::Sender<Result<Ended>>),
    /// Forget late parts that their records contain now, or that cannot be added. For the untracked
    /// records, no content may be kept.
    Amended { parts: Vec<LatePart>, untracked: Vec<u128> },
    /// Forget segments up to that sequence, which both tables cover.
    Trim(u64),
    /// Remember ids that other nodes stored.
    Remember(Vec<(u128, SeenState)>),
    /// Close the log; no command follows.
    Close,
}

/// Result of a freeze.
#[derive(Debug)]
pub(super) struct Ended {
    /// Parts whose records are in the table once the frozen rows are.
    pub(super) late: Vec<LatePart>,
    /// The last frozen frame. Rows that are frozen later, because they are of many days, belong to
    /// the next flush.
    pub(super) last_sequence: u64,
}

/// One append.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) rows: Rows,
    pub(super) batch: RecordBatch,
    pub(super) payload: Payload,
    /// Keys of the rows.
    pub(super) keys: Vec<u128>,
    /// Number of days of the rows.
    pub(super) days: usize,
    pub(super) permit: MemoryReservation,
    pub(super) reply: oneshot::Sender<Result<Receipt>>,
}

impl Queued for Append {
    type Command = Command;

    fn from_command(command: Command) -> Result<Self, Command> {
        match command {
            Command::Append(append) => Ok(*append),
            other => Err(other),
        }
    }

    fn holder(&self) -> &Holder {
        self.permit.holder()
    }

    fn weight(&self) -> usize {
        let rows = self.keys.len().saturating_mul(ROW_BYTES);
        let days = self.days.saturating_mul(DAY_BYTES);
        self.payload.bytes().len().max(rows).max(days)
    }
}

/// Sender, receipt and table of an append.
type Reply = (oneshot::Sender<Result<Receipt>>, Receipt, Rows);

/// Figures that the writer publishes.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) duplicate: AtomicU64,
    pub(super) over_quota: AtomicU64,
    pub(super) past_retention: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) redated: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) wal_bytes: AtomicU64,
    pub(super) wal_segments: AtomicU64,
    /// Waiting parts.
    pub(super) waiting: AtomicU64,
    /// End of the first wait, µs since 1970-01-01; `i64::MAX` if no part waits.
    pub(super) waiting_until: AtomicI64,
    /// Time of the next flush that clears the log, even if there are no rows; as above.
    pub(super) clear_log_at: AtomicI64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            duplicate: AtomicU64::new(0),
            over_quota: AtomicU64::new(0),
            past_retention: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            redated: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            wal_bytes: AtomicU64::new(0),
            wal_segments: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            waiting_until: AtomicI64::new(i64::MAX),
            clear_log_at: AtomicI64::new(i64::MAX),
        }
    }
}

impl Counters {
    /// Counts the results of an append.
    pub(super) fn count(&self, receipt: &Receipt) {
        self.accepted.fetch_add(receipt.accepted, Ordering::Relaxed);
        self.duplicate.fetch_add(receipt.duplicate, Ordering::Relaxed);
        self.over_quota.fetch_add(receipt.over_quota, Ordering::Relaxed);
        self.past_retention.fetch_add(receipt.past_retention, Ordering::Relaxed);
    }
}

/// State of the writer, its own and shared.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) wal: Wal,
    pub(super) admission: AdmissionControl,
    pub(super) parts: PendingParts,
    pub(super) flush: FlushTrigger,
    pub(super) logs: Arc<ViewCell>,
    pub(super) feedback: Arc<ViewCell>,
    /// The last frame that was frozen.
    pub(super) frozen_to: u64,
    pub(super) policy: Arc<Policy>,
    pub(super) counters: Arc<Counters>,
    pub(super) now: fn() -> DateTime<Utc>,
    pub(super) health: Arc<Health>,
    /// Held until the last frame is written, however the engine ends.
    pub(super) _lock: Arc<FolderLock>,
}

impl Writer {
    /// Runs until every sender is dropped.
    pub(super) fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            let mut next = Some(command);
            while let Some(command) = next.take() {
                next = match command {
                    Command::Append(first) => {
                        self.append_groups(*first, &mut commands, Self::write_group)
                    }
                    Command::Parts(first) => {
                        self.append_groups(*first, &mut commands, Self::write_parts)
                    }
                    Command::Settle => {
                        self.settle_waiting();
                        None
                    }
                    Command::StoreAhead => {
                        self.store_ahead();
                        None
                    }
                    Command::Freeze(done) => {
                        // The requesting flush may have been cancelled; the rows stay frozen for
                        // the next one.
                        let ended =
                            self.freeze().map(|late| Ended { late, last_sequence: self.frozen_to });
                        let _ = done.send(ended);
                        None
                    }
                    Command::Amended { parts, untracked } => {
                        self.parts.late.forget(&parts);
                        untracked
                            .into_iter()
                            .for_each(|key| self.admission.recent.mark_untracked(key));
                        // The log still holds the parts.
                        self.flush.clear_log_soon();
                        None
                    }
                    Command::Trim(covered) => {
                        if let Err(error) = self.wal.trim(covered) {
                            // Remaining segments are skipped in a replay, so this costs only disk
                            // space.
                            tracing::warn!(
                                error = error.chain(),
                                "cannot trim the write-ahead log"
                            );
                        }
                        None
                    }
                    Command::Remember(keys) => {
                        keys.into_iter().for_each(|(key, known)| self.remember(key, known));
                        None
                    }
                    Command::Close => {
                        self.wal.close();
                        None
                    }
                };
                self.end_many_days();
                self.measure();
            }
        }
    }

    /// Writes the first append and the waiting ones in groups, in which organisations take turns.
    /// Returns the first command of another kind, which comes after them.
    fn append_groups<T: Queued<Command = Command>>(
        &mut self,
        first: T,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        write: impl Fn(&mut Self, Vec<T>),
    ) -> Option<Command> {
        let mut queue = FairQueue::new(first);
        let mut next = queue.fill(commands);
        while let Some(group) = queue.take_group(GROUP_BYTES) {
            write(self, group);
            self.end_many_days();
            self.measure();
            if next.is_none() {
                next = queue.fill(commands);
            }
        }
        next
    }

    fn write_group(&mut self, group: Vec<Append>) {
        let now_micros = (self.now)().timestamp_micros();
        let mut fresh = Vec::with_capacity(group.len());
        let mut replies = Vec::with_capacity(group.len());
        let mut counted = Vec::with_capacity(group.len());
        for append in group {
            let Append { rows, batch, payload, keys, permit, reply, .. } = append;
            let admitted = match rows {
                Rows::Logs => self.admission.admit(batch.clone(), payload, &keys, now_micros),
                Rows::Feedback => {
                    self.admission.admit_feedback(batch.clone(), payload, &keys, now_micros)
                }
            };
            match admitted {
                Ok(admitted) => {
                    let Admitted { fresh: new, decided } = admitted;
                    let stored: Vec<u128> = keys
                        .iter()
                        .zip(&decided.kept)
                        .filter(|(_, kept)| **kept)
                        .map(|(key, _)| *key)
                        .collect();
                    fresh
                        .extend(new.map(|(batch, payload)| (rows, batch, payload, permit, stored)));
                    replies.push((reply, decided.receipt, rows));
                    counted.push((rows, batch, keys, decided));
                }
                Err(error) => {
                    // The ids count as known now, so a second copy would be acknowledged and
                    // dropped: the log closes instead.
                    self.health.fail(&error);
                    let _ = reply.send(Err(error));
                }
            }
        }
        let payloads: Vec<&Payload> = fresh.iter().map(|(_, _, payload, ..)| payload).collect();
        // A duplicate is acknowledged only if its first copy can be durable, so a failed log
        // acknowledges nothing.
        let written = if payloads.is_empty() {
            self.wal.ready().map(|()| 0)
        } else {
            self.wal.append(&payloads, now_micros.div_euclid(1_000))
        };
        match written {
            Ok(_) => {
                for (rows, batch, _, permit, mut keys) in fresh {
                    // Parts of a record that arrived complete add nothing to it.
                    keys.retain(|key| self.parts.waiting.forget(*key));
                    let view_cell = if rows == Rows::Logs { &self.logs } else { &self.feedback };
                    let live_bytes =
                        view_cell.replace_parts(&keys, Some(batch), now_micros, Some(permit));
                    self.flush.notify_if_full(live_bytes);
                }
                self.ack(replies);
            }
            Err(error) => {
                if !self.wal.has_failed() {
                    for (rows, batch, keys, decided) in counted {
                        self.admission.take_back(rows, &batch, &keys, &decided, now_micros);
                    }
                }
                self.refuse(replies, &error);
            }
        }
    }

    /// Ends the live memtables, whose rows a flush then moves, and returns the late parts. Parts
    /// whose wait is over are among the rows. The other parts, waiting and late, are first written
    /// to the log again, in frames after those that the flush covers, because these are trimmed. On
    /// an error nothing is frozen.
    fn freeze(&mut self) -> Result<Vec<LatePart>> {
        self.settle_waiting();
        let is_due = self.flush.clear_log_at < i64::MAX || self.log_is_long();
        let has_rows = self.logs.has_live_rows() || self.feedback.has_live_rows();
        if is_due || has_rows {
            let last_sequence = self.wal.rotate();
            self.carry_or_store()?;
            self.flush.clear_log_at = i64::MAX;
            if !self.parts.late.is_empty() {
                self.flush.clear_log_soon();
            }
            let counts = Arc::new(self.admission.meter.own());
            let feedback = self.feedback.freeze(Arc::clone(&counts), last_sequence, false);
            self.logs.freeze(counts, last_sequence, is_due && !feedback);
            self.frozen_to = last_sequence;
        }
        Ok(self.parts.late.iter().cloned().collect())
    }

    /// Ends the memtables if their rows are of many days: each day is a file of the next flush, and
    /// many of them delay the flushes of others.
    fn end_many_days(&mut self) {
        let days = self.logs.live_days().max(self.feedback.live_days());
        if days <= self.flush.max_days {
            return;
        }
        match self.freeze() {
            Ok(_) => {
                self.flush.max_days = DAYS;
                self.flush.wanted.notify_one();
            }
            // Nothing is frozen, and the next flush reports the error. Doubling the bound avoids
            // writing the waiting parts to the log each time.
            Err(_) => self.flush.max_days = days.saturating_mul(2),
        }
    }

    /// Writes waiting and late parts to the log again. If the disk is too full for that, waiting
    /// parts become records now: with a bucket, a flush of rows frees space in the log.
    fn carry_or_store(&mut self) -> Result<()> {
        let mut carried = self.carry_waiting();
        if carried.as_ref().is_err_and(|error| is_disk_full(error)) {
            self.store_all_waiting()?;
            carried = self.carry_waiting();
        }
        carried.inspect_err(|error| {
            if self.wal.has_failed() || error.kind() != ErrorKind::Storage {
                self.health.fail(error);
            }
        })
    }

    /// Returns true if the log is much longer than its live rows and parts, even if no rows wait
    /// for a flush.
    fn log_is_long(&self) -> bool {
        let needed = self.flush.max_bytes.saturating_add(self.parts.bytes());
        self.wal.size().0 > needed.saturating_mul(2)
    }

    fn ack(&self, replies: Vec<Reply>) {
        for (reply, receipt, rows) in replies {
            // These counters are of records.
            if rows == Rows::Logs {
                self.counters.count(&receipt);
            }
            // Rows are kept even if the caller stopped waiting.
            let _ = reply.send(Ok(receipt));
        }
    }

    fn refuse(&self, replies: Vec<Reply>, error: &Error) {
        if self.wal.has_failed() {
            self.health.fail(error);
        }
        for (reply, receipt, _) in replies {
            self.counters
                .refused
                .fetch_add(receipt.accepted + receipt.duplicate, Ordering::Relaxed);
            let _ = reply.send(Err(Error::new(error.kind(), error.chain())));
        }
    }

    pub(super) fn measure(&self) {
        let (bytes, segments) = self.wal.size();
        self.counters.wal_bytes.store(bytes, Ordering::Relaxed);
        self.counters.wal_segments.store(segments, Ordering::Relaxed);
        self.counters.waiting.store(self.parts.len() as u64, Ordering::Relaxed);
        self.counters
            .waiting_until
            .store(self.parts.waiting.first_until().unwrap_or(i64::MAX), Ordering::Relaxed);
        let clear_log_at = if self.log_is_long() { i64::MIN } else { self.flush.clear_log_at };
        self.counters.clear_log_at.store(clear_log_at, Ordering::Relaxed);
    }
}
