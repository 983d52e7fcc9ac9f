//! What the writer does with halves of records: it makes each durable as it comes, shows it, and stores the record when both are
//! there, or when one has waited long enough.
//!
//! A half that waits is in memory and in the log. Before the log is trimmed it is written there again ([`Writer::carry_waiting`]),
//! so a restart finds it whatever was flushed meanwhile. A record counts, for its quota and as known id, when it is stored.

use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Receipt;
use super::writer::{Command, GROUP_BYTES, Writer, kept_rows};
use crate::error::{Error, Result};
use crate::halves::{Half, Whole, says_outcome};
use crate::plan::Row;
use crate::record::{BatchBuilder, Record};
use crate::wal::{Kind, Payload};

/// Halves that are carried on go to the log in frames of about this many bytes.
const CARRIED_BYTES: usize = 4 << 20;

/// So many halves that waited long enough are stored in one go; the next follow half a second later.
const SETTLED_AT_ONCE: usize = 4_096;

/// Pieces wait so long for more of them once one says how the call went, µs: longer than exporters wait between two batches.
/// Before that the call may still run, and they wait as halves do.
pub(super) const PIECES_MICROS: i64 = 20_000_000;

/// Halves of one request, all of one kind.
#[derive(Debug)]
pub(super) struct Halves {
    pub(super) half: Half,
    /// What each is known by, and the half itself.
    pub(super) records: Vec<(u128, Record)>,
    /// All of them, for the log.
    pub(super) payload: Payload,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Result<Receipt>>,
}

impl Writer {
    /// Gathers what waits behind the first halves, up to a bound, and writes it as one group; answers the command that ended
    /// the gathering.
    pub(super) fn halves_group(
        &mut self,
        first: Halves,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Option<Command> {
        let mut bytes = first.payload.bytes().len();
        let mut group = vec![first];
        let mut next = None;
        while bytes < GROUP_BYTES {
            match commands.try_recv() {
                Ok(Command::Halves(more)) => {
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
        self.write_halves(group);
        next
    }

    fn write_halves(&mut self, group: Vec<Halves>) {
        let mut fresh = Vec::with_capacity(group.len());
        for mut halves in group {
            let all = halves.records.len();
            halves.records.retain(|(key, record)| !self.knows(*key, halves.half, record));
            let known = (all - halves.records.len()) as u64;
            let mut changed = known > 0;
            for (key, record) in &mut halves.records {
                // The other half says that nothing of it may be kept: then it must not get to the log either.
                if self.waiting.get(*key).is_some_and(|other| other.do_not_track == Some(true)) {
                    record.do_not_track = Some(true);
                    self.policy.untrack(record);
                    changed = true;
                }
            }
            // What is known must not stand in the log again: a reader beside this process would take it for new.
            let encoded = match changed && !halves.records.is_empty() {
                true => halves.encode_anew(),
                false => Ok(()),
            };
            match encoded {
                Ok(()) => fresh.push((halves, known)),
                Err(error) => drop(halves.reply.send(Err(error))),
            }
        }
        let payloads: Vec<&Payload> =
            fresh.iter().filter(|(halves, _)| !halves.records.is_empty()).map(|(halves, _)| &halves.payload).collect();
        let mut written = match payloads.is_empty() {
            true => self.wal.refuse_if_failed(),
            false => self.wal.append(&payloads).map(|_| ()),
        };
        for (halves, known) in fresh {
            let Halves { half, records, permit, reply, .. } = halves;
            let all = records.len() as u64 + known;
            let taken = match &written {
                Ok(()) => self.show_halves(half, records, permit),
                Err(error) => Err(Error::new(error.kind(), error.chain())),
            };
            match taken {
                Ok(accepted) => {
                    self.counters.duplicate.fetch_add(all - accepted, Ordering::Relaxed);
                    // A caller that stopped waiting has its halves kept all the same.
                    let _ = reply.send(Ok(Receipt { accepted, duplicate: all - accepted, over_quota: 0 }));
                }
                Err(error) => {
                    (self.on_failure.0)(&error);
                    self.counters.refused.fetch_add(all, Ordering::Relaxed);
                    written = written.and(Err(Error::new(error.kind(), error.chain())));
                    let _ = reply.send(Err(error));
                }
            }
        }
    }

    fn knows(&self, key: u128, half: Half, record: &Record) -> bool {
        self.recent.contains(key) || self.waiting.knows(key, half, record)
    }

    /// Shows halves that are in the log, and stores the records that are whole now; answers how many of them were new.
    fn show_halves(
        &mut self,
        half: Half,
        records: Vec<(u128, Record)>,
        mut permit: OwnedSemaphorePermit,
    ) -> Result<u64> {
        let now_micros = (self.now)().timestamp_micros();
        let (mut left, mut accepted) = (records.len(), 0);
        for (key, record) in records {
            // Each takes its share of the request's room along.
            let room = permit.split(permit.num_permits() / left);
            left -= 1;
            // Another of the same group may have brought it.
            if self.knows(key, half, &record) {
                continue;
            }
            accepted += 1;
            let is_last = half == Half::Piece && says_outcome(&record);
            let wait = if is_last { self.join_micros.min(PIECES_MICROS) } else { self.join_micros };
            let until_micros = now_micros.saturating_add(wait);
            if let Some(whole) = self.waiting.add(key, half, record, until_micros, room) {
                self.store(vec![whole], now_micros)?;
            } else if let Some(so_far) = self.waiting.get(key) {
                self.logs.show_half(key, so_far.clone());
            }
        }
        while let Some(alone) = self.waiting.next_alone(i64::MIN, self.join_bytes) {
            self.store(vec![alone], now_micros)?;
        }
        Ok(accepted)
    }

    /// Puts records in the place of what was shown of them.
    fn store(&mut self, whole: Vec<Whole<OwnedSemaphorePermit>>, now_micros: i64) -> Result<()> {
        if whole.is_empty() {
            return Ok(());
        }
        let (mut builder, mut keys, mut room) = (BatchBuilder::new(), Vec::with_capacity(whole.len()), Vec::new());
        for Whole { key, mut record, room: held } in whole {
            // The half with the content may not have known.
            self.policy.untrack(&mut record);
            builder.append(record);
            keys.push(key);
            room.extend(held);
        }
        let batch = builder.finish();
        let (kept, receipt) = self.decide(&batch, &keys, now_micros)?;
        self.counters.accepted.fetch_add(receipt.accepted, Ordering::Relaxed);
        self.counters.duplicate.fetch_add(receipt.duplicate, Ordering::Relaxed);
        self.counters.over_quota.fetch_add(receipt.over_quota, Ordering::Relaxed);
        let room = room.into_iter().reduce(|mut all, more| {
            all.merge(more);
            all
        });
        let batch = kept_rows(batch, kept)?;
        let live_bytes = self.logs.replace_halves(&keys, batch, now_micros, room);
        self.flush_if_full(live_bytes);
        Ok(())
    }

    /// Stores alone halves that have waited long enough, as many as take little time, and forgets those that were erased.
    pub(super) fn settle_waiting(&mut self) {
        let now_micros = (self.now)().timestamp_micros();
        let mut due = Vec::new();
        while due.len() < SETTLED_AT_ONCE
            && let Some(alone) = self.waiting.next_alone(now_micros, u64::MAX)
        {
            due.push(alone);
        }
        if let Err(error) = self.store(due, now_micros) {
            (self.on_failure.0)(&error);
            return;
        }
        let rules = self.catalog.rules();
        if rules.erasures().is_empty() {
            return;
        }
        let is_erased = |record: &Record| rules.erases(row(record));
        let erased: Vec<u128> =
            self.waiting.iter().filter(|(_, _, record)| is_erased(record)).map(|(key, ..)| key).collect();
        for key in erased {
            self.waiting.forget(key);
            // Its other half must not come to be stored alone.
            self.recent.insert(key, now_micros);
            self.logs.replace_halves(&[key], None, now_micros, None);
        }
    }

    /// Writes the halves that wait to the log again, all of them by one write.
    pub(super) fn carry_waiting(&mut self) -> Result<()> {
        let mut payloads = Vec::new();
        for half in Half::ALL {
            let mut builder = BatchBuilder::new();
            for (_, _, record) in self.waiting.iter().filter(|(_, of, _)| *of == half) {
                builder.append(record.clone());
                if builder.text_bytes() >= CARRIED_BYTES {
                    payloads.push(Payload::of(Kind::Half(half), &builder.finish())?);
                }
            }
            if builder.rows() > 0 {
                payloads.push(Payload::of(Kind::Half(half), &builder.finish())?);
            }
        }
        match payloads.is_empty() {
            true => Ok(()),
            false => self.wal.append(&payloads.iter().collect::<Vec<_>>()).map(|_| ()),
        }
    }
}

impl Halves {
    /// Encodes those of the records that are left.
    fn encode_anew(&mut self) -> Result<()> {
        let mut builder = BatchBuilder::new();
        self.records.iter().for_each(|(_, record)| builder.append(record.clone()));
        self.payload = Payload::of(Kind::Half(self.half), &builder.finish())?;
        Ok(())
    }
}

/// What rules ask of a record.
pub(super) fn row(record: &Record) -> Row<'_> {
    Row {
        organisation: record.organisation_id.as_deref().unwrap_or_default(),
        id: record.id.as_deref().unwrap_or_default(),
        user: record.user_id.as_deref(),
        created_at: record.created_at.map_or(i64::MIN, |at| at.timestamp_micros()),
    }
}

/// A batch of one record.
pub(super) fn row_of(record: Record) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder.append(record);
    builder.finish()
}
