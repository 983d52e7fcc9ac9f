//! What the writer does with halves of records: it makes each durable as it comes, shows it, and
//! stores the record when both are there, or when one has waited long enough.
//!
//! A half that waits is in memory and in the log. Before the log is trimmed it is written there
//! again ([`Writer::carry_waiting`]), so a restart finds it whatever was flushed meanwhile. A
//! record counts, for its quota and as known id, when it is stored. A half whose record was stored
//! without it is late: it waits, as durable, until [`super::amend`] has added it to the record.
//!
//! All this costs what a part is long. What parts make together is joined elsewhere: for answers by
//! who asks, and before a record is stored by the task that has it stored.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::pending_parts::{Held, Part, Parts, waits_until};
use super::writer::{Command, DAY_BYTES, Decided, Writer, gather, kept_rows};
use super::{Receipt, day_of, replay};
use crate::dedupe::SeenState;
use crate::error::{Error, Result};
use crate::limits::{DAYS, MemoryReservation};
use crate::parts::{Admission, Joined, RecordPart, SoFar, says_something};
use crate::plan::Row;
use crate::record::{BatchBuilder, Record};
use crate::wal::{Kind, Payload};

/// Halves that are carried on go to the log in frames of about this many bytes.
const CARRIED_BYTES: usize = 4 << 20;

/// So many halves that waited long enough are stored in one go; the next follow half a second
/// later.
const SETTLED_AT_ONCE: usize = 4_096;

/// What was said in a call that is not to be tracked leaves the log within this, µs, where it came
/// before anybody said so.
const UNTRACKED_MICROS: i64 = 5_000_000;

/// What becomes of a half.
enum Disposition {
    /// It waits for the other.
    Pending,
    /// It is added to its record, which is stored.
    Late,
    /// It came already.
    SeenState,
}

/// Halves of one request as the writer takes them.
struct Sorted {
    part_kind: RecordPart,
    /// Those that wait, and those that are late.
    waits: Vec<Part>,
    late: Vec<Part>,
    payloads: Vec<Payload>,
    permit: MemoryReservation,
    receipt: Receipt,
}

impl Writer {
    /// Writes the first halves and what waits behind them as one group; answers the command that
    /// ended the gathering.
    pub(super) fn parts_group(
        &mut self,
        first: Parts,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Option<Command> {
        let more = |command| match command {
            Command::Parts(record_parts) => Ok(*record_parts),
            other => Err(other),
        };
        // Each part may make a record of another day.
        let weight = |record_parts: &Parts| {
            record_parts
                .payload
                .bytes()
                .len()
                .max(record_parts.parts.len().saturating_mul(DAY_BYTES))
        };
        let (group, next) = gather(first, commands, more, weight);
        self.write_parts(group);
        next
    }

    fn write_parts(&mut self, group: Vec<Parts>) {
        let mut sorted = Vec::with_capacity(group.len());
        for Parts { part_kind, parts, payload, permit, reply } in group {
            match self.sort_out(part_kind, parts, payload, permit) {
                Ok(record_parts) => sorted.push((record_parts, reply)),
                // A caller that stopped waiting does not hear it.
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        let payloads: Vec<&Payload> =
            sorted.iter().flat_map(|(record_parts, _)| &record_parts.payloads).collect();
        let mut written = match payloads.is_empty() {
            true => self.wal.ready(),
            false => self.wal.append(&payloads).map(|_| ()),
        };
        if let Err(error) = &written
            && self.wal.has_failed()
        {
            (self.on_failure.0)(error);
        }
        for (record_parts, reply) in sorted {
            let all = (record_parts.waits.len() + record_parts.late.len()) as u64;
            let taken = match &written {
                Ok(()) => {
                    self.show_halves(record_parts).inspect_err(|error| (self.on_failure.0)(error))
                }
                Err(error) => Err(Error::new(error.kind(), error.chain())),
            };
            match taken {
                Ok(receipt) => {
                    self.counters.duplicate.fetch_add(receipt.duplicate, Ordering::Relaxed);
                    // Before the answer: an erasure that comes next asks whether parts wait.
                    self.measure();
                    // A caller that stopped waiting has its halves kept all the same.
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

    /// What is taken of a request, and its bytes for the log. What is known must not stand there
    /// again, nor may what was said in a call of which another part says that nothing may be kept.
    fn sort_out(
        &self,
        part_kind: RecordPart,
        parts: Vec<Part>,
        payload: Payload,
        permit: MemoryReservation,
    ) -> Result<Sorted> {
        let all = parts.len();
        let (mut waits, mut late, mut receipt) =
            (Vec::with_capacity(all), Vec::new(), Receipt::default());
        let (mut is_changed, mut late_bytes, mut late_of) =
            (false, 0, HashMap::<u128, usize>::new());
        for mut part in parts {
            let fate = self.fate(part_kind, &part);
            if part.record.do_not_track != Some(true) && self.is_untracked(&part) {
                self.strip(&mut part.record);
                is_changed = true;
            }
            match fate {
                Disposition::Pending => waits.push(part),
                Disposition::Late => {
                    let here = late_of.entry(part.key).or_default();
                    late_bytes += part.record.held_bytes() as u64;
                    if !self.late.has_room(part.key, late_bytes, self.join_bytes)
                        || self.late.is_full(part.key, *here)
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
                Disposition::SeenState => receipt.duplicate += 1,
            }
        }
        let payloads = match waits.len() == all && !is_changed {
            true => vec![payload],
            false => {
                let kinds = [(Kind::RecordPart(part_kind), &waits), (Kind::Late(part_kind), &late)];
                let taken = kinds.into_iter().filter(|(_, parts)| !parts.is_empty());
                let encoded =
                    taken.map(|(kind, parts)| encode(kind, parts.iter().map(|part| &part.record)));
                encoded.collect::<Result<_>>()?
            }
        };
        Ok(Sorted { part_kind, waits, late, payloads, permit, receipt })
    }

    fn fate(&self, part_kind: RecordPart, Part { key, print, .. }: &Part) -> Disposition {
        if self.recent_parts.contains(*print) {
            return Disposition::SeenState;
        }
        match (self.recent.known(*key), self.waiting.fit(*key, part_kind, *print)) {
            (Some(SeenState { is_open: false, .. }), _) | (None, Admission::SeenState) => {
                Disposition::SeenState
            }
            (Some(_), _) => Disposition::Late,
            (None, Admission::New) => Disposition::Pending,
        }
    }

    /// Whether a part that is here says that nothing may be kept of what was said in the call.
    fn is_untracked(&self, Part { key, .. }: &Part) -> bool {
        self.waiting.get(*key).is_some_and(|others| others.is_untracked())
            || self.late.is_untracked(*key)
            || self.recent.known(*key).is_some_and(|known| known.is_untracked)
    }

    /// Shows halves that are in the log, and stores the records that are whole now; answers what
    /// became of the request.
    fn show_halves(&mut self, sorted: Sorted) -> Result<Receipt> {
        let Sorted { part_kind, waits, late, mut permit, mut receipt, .. } = sorted;
        let now_micros = (self.now)().timestamp_micros();
        let mut left = waits.len() + late.len();
        for part in waits.into_iter().chain(late) {
            // Each takes its share of the request's room along.
            let room = permit.split(permit.units() / left as u64);
            left -= 1;
            // Another of the same group may have brought it.
            let fate = self.fate(part_kind, &part);
            let Part { key, print, record } = part;
            match fate {
                Disposition::Pending => {}
                Disposition::Late => {
                    self.recent_parts.remember(print, SeenState::default(), now_micros);
                    self.take_late(key, part_kind, record, room);
                    receipt.accepted += 1;
                    continue;
                }
                Disposition::SeenState => {
                    receipt.duplicate += 1;
                    continue;
                }
            }
            receipt.accepted += 1;
            // Of one group either may have come first.
            let must_go = |others: &SoFar| {
                let is_untracked = record.do_not_track == Some(true);
                (is_untracked && others.says_something())
                    || (others.is_untracked() && says_something(&record))
            };
            if self.waiting.get(key).is_some_and(|others| must_go(others)) {
                self.clear_log_within(UNTRACKED_MICROS);
            }
            let until_micros = waits_until(part_kind, &record, now_micros, self.join_micros);
            let held = Held { room, print: Some(print) };
            if let Some(whole) =
                self.waiting.add(key, part_kind, record, print, until_micros, Some(held))
            {
                self.store(vec![whole], now_micros)?;
            } else if let Some(so_far) = self.waiting.get(key) {
                self.logs.show_half(key, Arc::clone(so_far));
                self.waiting.came(key, now_micros);
            }
        }
        // Late ones take of the same share of memory, so that whole records always have theirs.
        while let Some(alone) =
            self.waiting.next_alone(i64::MIN, self.join_bytes.saturating_sub(self.late.bytes()))
        {
            self.store(vec![alone], now_micros)?;
        }
        Ok(receipt)
    }

    /// Remembers an id that another node stored. A part of that record which waits here is late, or
    /// adds nothing if the record was stored whole.
    pub(super) fn remember(&mut self, key: u128, known: SeenState) {
        let now_micros = (self.now)().timestamp_micros();
        if self.recent.insert(key, known, now_micros)
            && let Some((part_kind, record, room)) = self.waiting.take(key)
        {
            self.logs.replace_parts(&[key], None, now_micros, None);
            if known.is_open {
                self.take_late(key, part_kind, record, merged(room));
            } else {
                // The log holds it still.
                self.clear_log_within(self.flush_micros);
            }
        }
    }

    /// Takes over what a replay found: now it is known what the quotas leave.
    pub(super) fn take_replayed(&mut self, found: replay::Parts, now_micros: i64) -> Result<()> {
        self.waiting = found.waiting;
        found.late.into_iter().for_each(|(key, part_kind, record, room)| {
            self.take_late(key, part_kind, record, room)
        });
        if found.has_erased {
            self.clear_log_within(0);
        }
        self.store(found.whole.into_values().collect(), now_micros)
    }

    /// Keeps a part, which the log holds, for its record.
    fn take_late(
        &mut self,
        key: u128,
        part_kind: RecordPart,
        mut record: Record,
        room: Option<MemoryReservation>,
    ) {
        // Of one group either may have come first.
        let is_untracked = record.do_not_track == Some(true) || self.late.is_untracked(key);
        if is_untracked {
            self.strip(&mut record);
            self.late.untrack(key, |record| self.policy.untrack(record));
        }
        self.clear_log_within(if is_untracked {
            UNTRACKED_MICROS.min(self.flush_micros)
        } else {
            self.flush_micros
        });
        self.late.add(key, part_kind, record, room);
    }

    /// Puts records in the place of what was shown of them.
    fn store(&mut self, whole: Vec<Joined<Held>>, now_micros: i64) -> Result<()> {
        if whole.is_empty() {
            return Ok(());
        }
        let (mut builder, mut held) = (BatchBuilder::new(), Vec::with_capacity(whole.len()));
        let (mut keys, mut known) =
            (Vec::with_capacity(whole.len()), Vec::with_capacity(whole.len()));
        for Joined { key, mut record, is_complete, room } in whole {
            // The half with the content may not have known.
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
        let Decided { kept, receipt, .. } = self.decide(&batch, &keys, &known, now_micros)?;
        // Parts of a record that came too much may come again.
        for print in held.iter().zip(&kept).filter(|(_, kept)| **kept).flat_map(|(held, _)| held) {
            print.print.into_iter().for_each(|print| {
                self.recent_parts.remember(print, SeenState::default(), now_micros)
            });
        }
        self.counters.count(&receipt);
        if receipt.over_quota > 0 {
            // Its halves are in the log, and whoever reads that beside this process knows of no
            // quota.
            self.clear_log_within(self.flush_micros);
        }
        let batch = kept_rows(batch, &kept)?;
        let live_bytes =
            self.logs.replace_parts(&keys, batch, now_micros, merged(held.into_iter().flatten()));
        // No flush can take the rows before this: only the writer ends memtables.
        let states = keys.iter().zip(&known).zip(&kept);
        let open = states.filter(|((_, known), kept)| known.is_open && **kept);
        self.logs.note_open(open.map(|((key, _), _)| *key));
        self.flush_if_full(live_bytes);
        Ok(())
    }

    /// Stores alone halves that have waited long enough, as many as take little time, and forgets
    /// those that were erased.
    pub(super) fn settle_waiting(&mut self) {
        let now_micros = (self.now)().timestamp_micros();
        let mut due = Vec::new();
        let mut days = HashSet::new();
        while due.len() < SETTLED_AT_ONCE
            && days.len() < DAYS
            && let Some(alone) = self.waiting.next_alone(now_micros, u64::MAX)
        {
            days.extend(alone.record.created_at.map(day_of));
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
        // What is dated ahead goes too if it had come by then.
        let is_erased = |key: u128, so_far: &SoFar| {
            let figures = so_far.figures();
            let row = Row::from_record(&figures);
            rules.erases(Row { created_at: row.created_at.min(self.waiting.came_at(key)), ..row })
        };
        let erased: Vec<u128> = self
            .waiting
            .iter()
            .filter(|(key, so_far)| is_erased(*key, so_far))
            .map(|(key, _)| key)
            .collect();
        if !erased.is_empty() {
            // The log holds them, and no row may be there that would be flushed.
            self.clear_log_within(0);
        }
        for key in erased {
            self.waiting.forget(key);
            // Its other half must not come to be stored alone.
            self.recent.insert(key, SeenState::default(), now_micros);
            self.logs.replace_parts(&[key], None, now_micros, None);
        }
    }

    /// Stores alone the waiting parts that are dated ahead: an erasure knows of such a record by
    /// its file that it had arrived.
    pub(super) fn store_ahead(&mut self) {
        let now_micros = (self.now)().timestamp_micros();
        let is_ahead = |so_far: &SoFar| {
            let stated = so_far.figures().created_at;
            stated.is_some_and(|at| at.timestamp_micros() > now_micros)
        };
        let ahead: Vec<u128> = self
            .waiting
            .iter()
            .filter(|(_, so_far)| is_ahead(so_far))
            .map(|(key, _)| key)
            .collect();
        let alone = ahead.into_iter().filter_map(|key| self.waiting.take_alone(key)).collect();
        if let Err(error) = self.store(alone, now_micros) {
            (self.on_failure.0)(&error);
        }
    }

    /// Stores all waiting parts alone. A part that comes after is a late one.
    pub(super) fn store_all_waiting(&mut self) -> Result<()> {
        let now_micros = (self.now)().timestamp_micros();
        let alone = std::iter::from_fn(|| self.waiting.next_alone(i64::MAX, 0)).collect();
        self.store(alone, now_micros).inspect_err(|error| (self.on_failure.0)(error))
    }

    /// Writes the halves that wait, and the late ones, to the log again, all of them by one write.
    pub(super) fn carry_waiting(&mut self) -> Result<()> {
        let mut payloads = Vec::new();
        for part_kind in RecordPart::ALL {
            // Each piece by itself, so that one which comes after a restart finds its place among
            // them.
            let waiting = self.waiting.parts().filter(|(of, ..)| *of == part_kind);
            let waiting = waiting.map(|(_, is_untracked, part)| self.carried(part, is_untracked));
            payloads.extend(in_frames(Kind::RecordPart(part_kind), waiting)?);
            let late = self.late.iter().filter(|part| part.part_kind == part_kind);
            let late = late.map(|part| Cow::Borrowed(&*part.record));
            payloads.extend(in_frames(Kind::Late(part_kind), late)?);
        }
        match payloads.is_empty() {
            true => Ok(()),
            false => self.wal.append(&payloads.iter().collect::<Vec<_>>()).map(|_| ()),
        }
    }

    /// Takes out of a part what was said, since another part of the record says that nothing of the
    /// call may be kept.
    fn strip(&self, part: &mut Record) {
        if part.do_not_track != Some(true) {
            part.do_not_track = Some(true);
            self.policy.untrack(part);
        }
    }

    /// A part as the log may hold it.
    fn carried<'r>(&self, part: &'r Record, is_untracked: bool) -> Cow<'r, Record> {
        if !is_untracked {
            return Cow::Borrowed(part);
        }
        let mut stripped = part.clone();
        self.strip(&mut stripped);
        Cow::Owned(stripped)
    }
}

/// The room of several parts as one.
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

/// Records in payloads of a bounded size.
fn in_frames<'a>(
    kind: Kind,
    records: impl Iterator<Item = Cow<'a, Record>>,
) -> Result<Vec<Payload>> {
    let (mut payloads, mut builder) = (Vec::new(), BatchBuilder::new());
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
