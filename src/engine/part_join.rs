//! Handles parts of records in the writer: makes each part durable when it arrives, shows it to
//! queries, and stores the record when all parts are there or the wait is over.
//!
//! A waiting part is in memory and in the log. Before the log is trimmed, the part is written to it
//! again ([`Writer::carry_waiting`]), so a restart finds it after any flush. A record counts
//! towards its quota, and its id is known, when it is stored. A part whose record was stored
//! without it is late: it waits in the log until [`super::late_parts`] has added it to the record.
//!
//! The cost of this code is proportional to the size of a part. Parts are merged elsewhere: by the
//! readers of a query, and by the flush task before a record is stored.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::admission::{Decided, kept_rows};
use super::fair_queue::Queued;
use super::pending_parts::{Held, Part, Parts, waits_until};
use super::replay;
use super::status::Receipt;
use super::writer::{Command, DAY_BYTES, Writer};
use crate::dedupe::SeenState;
use crate::error::{Error, Result};
use crate::limits::{DAYS, Holder, MemoryReservation, day_of};
use crate::parts::{Admission, Joined, RecordPart, SoFar, has_content};
use crate::plan::Row;
use crate::record::{BatchBuilder, Record};
use crate::wal::{Kind, Payload};

/// Waiting parts are written to the log again in frames of about this many bytes.
const CARRIED_BYTES: usize = 4 << 20;

/// Expired parts that are stored in one run. The next ones follow half a second later.
const SETTLED_AT_ONCE: usize = 4_096;

/// Content of a call that is not to be tracked leaves the log within this time, µs, if it arrived
/// before the part that says so.
const UNTRACKED_MICROS: i64 = 5_000_000;

/// Decision about an arriving part.
enum Disposition {
    /// The part waits for the others.
    Pending,
    /// The record is stored already, and the part is added to it.
    Late,
    /// The part arrived before.
    Duplicate,
}

/// Sorted parts of one request.
struct Sorted {
    part_kind: RecordPart,
    /// Parts that wait, and parts that are late.
    waits: Vec<Part>,
    late: Vec<Part>,
    payloads: Vec<Payload>,
    permit: MemoryReservation,
    receipt: Receipt,
}

impl Queued for Parts {
    type Command = Command;

    fn from_command(command: Command) -> Result<Self, Command> {
        match command {
            Command::Parts(parts) => Ok(*parts),
            other => Err(other),
        }
    }

    fn holder(&self) -> &Holder {
        self.permit.holder()
    }

    fn weight(&self) -> usize {
        // Each part may create a record of another day.
        self.payload.bytes().len().max(self.parts.len().saturating_mul(DAY_BYTES))
    }
}

impl Writer {
    /// Writes parts of records as one group.
    pub(super) fn write_parts(&mut self, group: Vec<Parts>) {
        let mut sorted = Vec::with_capacity(group.len());
        for Parts { part_kind, parts, payload, permit, reply } in group {
            match self.sort_out(part_kind, parts, payload, permit) {
                Ok(record_parts) => sorted.push((record_parts, reply)),
                // The caller may have stopped waiting.
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        let now_ms = (self.now)().timestamp_millis();
        let payloads: Vec<&Payload> =
            sorted.iter().flat_map(|(record_parts, _)| &record_parts.payloads).collect();
        let mut written = if payloads.is_empty() {
            self.wal.ready()
        } else {
            self.wal.append(&payloads, now_ms).map(|_| ())
        };
        if let Err(error) = &written
            && self.wal.has_failed()
        {
            self.health.fail(error);
        }
        for (record_parts, reply) in sorted {
            let all = (record_parts.waits.len() + record_parts.late.len()) as u64;
            let taken = match &written {
                Ok(()) => {
                    self.show_parts(record_parts).inspect_err(|error| self.health.fail(error))
                }
                Err(error) => Err(Error::new(error.kind(), error.chain())),
            };
            match taken {
                Ok(receipt) => {
                    self.counters.duplicate.fetch_add(receipt.duplicate, Ordering::Relaxed);
                    // Before the reply: an erasure that follows reads whether parts wait.
                    self.measure();
                    // Parts are kept even if the caller stopped waiting.
                    let _ = reply.send(Ok(receipt));
                }
                Err(error) => {
                    self.counters.refused.fetch_add(all, Ordering::Relaxed);
                    written = written.and(Err(Error::new(error.kind(), error.chain())));
                    let _ = reply.send(Err(error));
                }
            }
        }
    }

    /// Sorts the parts of a request, and encodes them for the log. The log must not hold known
    /// parts again, nor content of a call for which another part says that nothing may be kept.
    fn sort_out(
        &self,
        part_kind: RecordPart,
        parts: Vec<Part>,
        payload: Payload,
        permit: MemoryReservation,
    ) -> Result<Sorted> {
        let all = parts.len();
        let mut waits = Vec::with_capacity(all);
        let mut late = Vec::new();
        let mut receipt = Receipt::default();
        let mut is_changed = false;
        let mut late_bytes = 0;
        let mut late_of = HashMap::<u128, usize>::new();
        for mut part in parts {
            let disposition = self.disposition(part_kind, &part);
            if part.record.do_not_track != Some(true) && self.is_untracked(&part) {
                self.strip(&mut part.record);
                is_changed = true;
            }
            match disposition {
                Disposition::Pending => waits.push(part),
                Disposition::Late => {
                    let here = late_of.entry(part.key).or_default();
                    late_bytes += part.record.held_bytes() as u64;
                    if !self.parts.late.has_room(part.key, late_bytes, self.parts.max_bytes)
                        || self.parts.late.is_full(part.key, *here)
                    {
                        return Err(Error::busy(format!(
                            "parts of records that are stored already, such as `{}`, come faster than they are added; send again \
                             later",
                            part.record.id.unwrap_or_default()
                        )));
                    }
                    *here += 1;
                    late.push(part);
                }
                Disposition::Duplicate => receipt.duplicate += 1,
            }
        }
        let payloads = if waits.len() == all && !is_changed {
            vec![payload]
        } else {
            let kinds = [(Kind::RecordPart(part_kind), &waits), (Kind::Late(part_kind), &late)];
            let taken = kinds.into_iter().filter(|(_, parts)| !parts.is_empty());
            let encoded =
                taken.map(|(kind, parts)| encode(kind, parts.iter().map(|part| &part.record)));
            encoded.collect::<Result<_>>()?
        };
        Ok(Sorted { part_kind, waits, late, payloads, permit, receipt })
    }

    fn disposition(&self, part_kind: RecordPart, Part { key, print, .. }: &Part) -> Disposition {
        if self.parts.recent.contains(*print) {
            return Disposition::Duplicate;
        }
        match (self.admission.recent.known(*key), self.parts.waiting.fit(*key, part_kind, *print)) {
            (Some(SeenState { is_open: false, .. }), _) | (None, Admission::Duplicate) => {
                Disposition::Duplicate
            }
            (Some(_), _) => Disposition::Late,
            (None, Admission::New) => Disposition::Pending,
        }
    }

    /// Returns true if another part of the record says that no content of the call may be kept.
    fn is_untracked(&self, Part { key, .. }: &Part) -> bool {
        self.parts.waiting.get(*key).is_some_and(|others| others.is_untracked())
            || self.parts.late.is_untracked(*key)
            || self.admission.recent.known(*key).is_some_and(|known| known.is_untracked)
    }

    /// Shows parts that are in the log, and stores the records that are complete now. Returns the
    /// receipt of the request.
    fn show_parts(&mut self, sorted: Sorted) -> Result<Receipt> {
        let Sorted { part_kind, waits, late, mut permit, mut receipt, .. } = sorted;
        let now_micros = (self.now)().timestamp_micros();
        let mut left = waits.len() + late.len();
        for part in waits.into_iter().chain(late) {
            // Each part takes its share of the request's memory reservation.
            let room = permit.split(permit.units() / left as u64);
            left -= 1;
            // Another request of the same group may have brought the same part.
            let disposition = self.disposition(part_kind, &part);
            let Part { key, print, record } = part;
            match disposition {
                Disposition::Pending => {}
                Disposition::Late => {
                    self.parts.recent.remember(print, SeenState::default(), now_micros);
                    self.take_late(key, part_kind, record, room);
                    receipt.accepted += 1;
                    continue;
                }
                Disposition::Duplicate => {
                    receipt.duplicate += 1;
                    continue;
                }
            }
            receipt.accepted += 1;
            // Within a group, either part may have come first.
            let must_go = |others: &SoFar| {
                let is_untracked = record.do_not_track == Some(true);
                (is_untracked && others.has_content())
                    || (others.is_untracked() && has_content(&record))
            };
            if self.parts.waiting.get(key).is_some_and(|others| must_go(others)) {
                self.flush.clear_log_within(UNTRACKED_MICROS);
            }
            let until_micros =
                waits_until(part_kind, &record, now_micros, self.parts.max_wait_micros);
            let held = Held { room, print: Some(print) };
            if let Some(whole) =
                self.parts.waiting.add(key, part_kind, record, print, until_micros, Some(held))
            {
                self.store(vec![whole], now_micros)?;
            } else if let Some(so_far) = self.parts.waiting.get(key) {
                self.logs.show_partial(key, Arc::clone(so_far));
                self.parts.waiting.note_arrival(key, now_micros);
            }
        }
        // Late parts use the same share of memory, so that complete records always have theirs.
        while let Some(alone) = self
            .parts
            .waiting
            .next_alone(i64::MIN, self.parts.max_bytes.saturating_sub(self.parts.late.bytes()))
        {
            self.store(vec![alone], now_micros)?;
        }
        Ok(receipt)
    }

    /// Remembers an id that another node stored. A waiting part of that record becomes late, or adds
    /// nothing if the record was stored whole.
    pub(super) fn remember(&mut self, key: u128, known: SeenState) {
        let now_micros = (self.now)().timestamp_micros();
        if self.admission.recent.insert(key, known, now_micros)
            && let Some((part_kind, record, room)) = self.parts.waiting.take(key)
        {
            self.logs.replace_parts(&[key], None, now_micros, None);
            if known.is_open {
                self.take_late(key, part_kind, record, merged(room));
            } else {
                // The log holds it still.
                self.flush.clear_log_soon();
            }
        }
    }

    /// Takes over the parts of a replay, once the remaining quotas are known.
    pub(super) fn take_replayed(&mut self, found: replay::Parts, now_micros: i64) -> Result<()> {
        self.parts.waiting = found.waiting;
        found.late.into_iter().for_each(|(key, part_kind, record, room)| {
            self.take_late(key, part_kind, record, room)
        });
        if found.has_erased {
            self.flush.clear_log_within(0);
        }
        self.store(found.whole.into_values().collect(), now_micros)
    }

    /// Keeps a late part, which is in the log, for its record.
    fn take_late(
        &mut self,
        key: u128,
        part_kind: RecordPart,
        mut record: Record,
        room: Option<MemoryReservation>,
    ) {
        // Within a group, either part may have come first.
        let is_untracked = record.do_not_track == Some(true) || self.parts.late.is_untracked(key);
        if is_untracked {
            self.strip(&mut record);
            self.parts.late.untrack(key, |record| self.policy.untrack(record));
        }
        self.flush.clear_log_within(if is_untracked {
            UNTRACKED_MICROS.min(self.flush.max_micros)
        } else {
            self.flush.max_micros
        });
        self.parts.late.add(key, part_kind, record, room);
    }

    /// Stores records in the place of their partial versions.
    fn store(&mut self, whole: Vec<Joined<Held>>, now_micros: i64) -> Result<()> {
        if whole.is_empty() {
            return Ok(());
        }
        let mut builder = BatchBuilder::new();
        let mut held = Vec::with_capacity(whole.len());
        let mut keys = Vec::with_capacity(whole.len());
        let mut known = Vec::with_capacity(whole.len());
        for Joined { key, mut record, is_complete, room } in whole {
            // The part with the content may lack the flag.
            self.policy.untrack(&mut record);
            builder.append(&record);
            keys.push(key);
            known.push(SeenState {
                is_open: !is_complete,
                is_untracked: record.do_not_track == Some(true),
            });
            held.push(room);
        }
        let batch = builder.finish();
        let Decided { kept, receipt, .. } =
            self.admission.decide(&batch, &keys, &known, now_micros)?;
        // Parts of a record over its quota may be sent again.
        for print in held.iter().zip(&kept).filter(|(_, kept)| **kept).flat_map(|(held, _)| held) {
            print.print.into_iter().for_each(|print| {
                self.parts.recent.remember(print, SeenState::default(), now_micros)
            });
        }
        self.counters.count(&receipt);
        if receipt.over_quota > 0 {
            // The parts are in the log, and a reader beside this process does not apply quotas.
            self.flush.clear_log_soon();
        }
        let batch = kept_rows(batch, &kept)?;
        let live_bytes =
            self.logs.replace_parts(&keys, batch, now_micros, merged(held.into_iter().flatten()));
        // No flush can take the rows before this: only the writer ends memtables.
        let states = keys.iter().zip(&known).zip(&kept);
        let open = states.filter(|((_, known), kept)| known.is_open && **kept);
        self.logs.note_open(open.map(|((key, _), _)| *key));
        self.flush.notify_if_full(live_bytes);
        Ok(())
    }

    /// Stores parts whose wait is over as records, a bounded number at a time, and drops parts that
    /// were erased.
    pub(super) fn settle_waiting(&mut self) {
        let now_micros = (self.now)().timestamp_micros();
        let mut due = Vec::new();
        let mut days = HashSet::new();
        while due.len() < SETTLED_AT_ONCE
            && days.len() < DAYS
            && let Some(alone) = self.parts.waiting.next_alone(now_micros, u64::MAX)
        {
            days.extend(alone.record.created_at.map(day_of));
            due.push(alone);
        }
        if let Err(error) = self.store(due, now_micros) {
            self.health.fail(&error);
            return;
        }
        let rules = self.admission.catalog.rules();
        if rules.erasures().is_empty() {
            return;
        }
        // A record with a future date is erased too if it had arrived by then.
        let is_erased = |key: u128, so_far: &SoFar| {
            let figures = so_far.figures();
            let row = Row::from_record(&figures);
            rules.erases(Row {
                created_at: row.created_at.min(self.parts.waiting.arrived_at(key)),
                ..row
            })
        };
        let erased: Vec<u128> = self
            .parts
            .waiting
            .iter()
            .filter(|(key, so_far)| is_erased(*key, so_far))
            .map(|(key, _)| key)
            .collect();
        if !erased.is_empty() {
            // The log holds the parts, and may hold no row that would cause a flush.
            self.flush.clear_log_within(0);
        }
        for key in erased {
            self.parts.waiting.forget(key);
            // The other part must not be stored alone when it arrives.
            self.admission.recent.insert(key, SeenState::default(), now_micros);
            self.logs.replace_parts(&[key], None, now_micros, None);
        }
    }

    /// Stores waiting parts with a future date as records: an erasure recognises such a record as
    /// arrived by the time of its file.
    pub(super) fn store_ahead(&mut self) {
        let now_micros = (self.now)().timestamp_micros();
        let is_ahead = |so_far: &SoFar| {
            let stated = so_far.figures().created_at;
            stated.is_some_and(|at| at.timestamp_micros() > now_micros)
        };
        let ahead: Vec<u128> = self
            .parts
            .waiting
            .iter()
            .filter(|(_, so_far)| is_ahead(so_far))
            .map(|(key, _)| key)
            .collect();
        let alone =
            ahead.into_iter().filter_map(|key| self.parts.waiting.take_alone(key)).collect();
        if let Err(error) = self.store(alone, now_micros) {
            self.health.fail(&error);
        }
    }

    /// Stores all waiting parts as records. A part that arrives afterwards is late.
    pub(super) fn store_all_waiting(&mut self) -> Result<()> {
        let now_micros = (self.now)().timestamp_micros();
        let alone = std::iter::from_fn(|| self.parts.waiting.next_alone(i64::MAX, 0)).collect();
        self.store(alone, now_micros).inspect_err(|error| self.health.fail(error))
    }

    /// Writes the waiting parts and the late parts to the log again, in one write.
    pub(super) fn carry_waiting(&mut self) -> Result<()> {
        let mut payloads = Vec::new();
        for part_kind in RecordPart::ALL {
            // Each fragment separately, so that a later one finds its place among them after a
            // restart.
            let waiting = self.parts.waiting.parts().filter(|(kind, ..)| *kind == part_kind);
            let waiting = waiting.map(|(_, is_untracked, part)| self.carried(part, is_untracked));
            payloads.extend(in_frames(Kind::RecordPart(part_kind), waiting)?);
            let late = self.parts.late.iter().filter(|part| part.part_kind == part_kind);
            let late = late.map(|part| Cow::Borrowed(&*part.record));
            payloads.extend(in_frames(Kind::Late(part_kind), late)?);
        }
        if payloads.is_empty() {
            return Ok(());
        }
        // The erasures that are known have been carried out in them ([`Self::settle_waiting`]).
        let now_ms = (self.now)().timestamp_millis();
        self.wal.append(&payloads.iter().collect::<Vec<_>>(), now_ms).map(|_| ())
    }

    /// Removes the content from a part, because another part of the record says that nothing of the
    /// call may be kept.
    fn strip(&self, part: &mut Record) {
        if part.do_not_track != Some(true) {
            part.do_not_track = Some(true);
            self.policy.untrack(part);
        }
    }

    /// Returns a part in the form in which the log may hold it.
    fn carried<'r>(&self, part: &'r Record, is_untracked: bool) -> Cow<'r, Record> {
        if !is_untracked {
            return Cow::Borrowed(part);
        }
        let mut stripped = part.clone();
        self.strip(&mut stripped);
        Cow::Owned(stripped)
    }
}

/// Merges the memory reservations of several parts.
fn merged(held: impl IntoIterator<Item = Held>) -> Option<MemoryReservation> {
    held.into_iter().filter_map(|held| held.room).reduce(|mut all, more| {
        all.merge(more);
        all
    })
}

fn encode<'a>(kind: Kind, records: impl IntoIterator<Item = &'a Record>) -> Result<Payload> {
    let mut builder = BatchBuilder::new();
    records.into_iter().for_each(|record| builder.append(record));
    Payload::encode_as(kind, &builder.finish())
}

/// Encodes records in payloads of a bounded size.
fn in_frames<'a>(
    kind: Kind,
    records: impl Iterator<Item = Cow<'a, Record>>,
) -> Result<Vec<Payload>> {
    let mut payloads = Vec::new();
    let mut builder = BatchBuilder::new();
    for record in records {
        builder.append(&record);
        if builder.text_bytes() >= CARRIED_BYTES {
            payloads.push(Payload::encode_as(kind, &builder.finish())?);
        }
    }
    if builder.rows() > 0 {
        payloads.push(Payload::encode_as(kind, &builder.finish())?);
    }
    Ok(payloads)
}
