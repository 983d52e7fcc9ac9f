//! Partial records that wait for their other parts: joins parts, detects repeated ones, and returns
//! records that have waited long enough.
//!
//! Pure: time is an argument, and `R` is the room in memory that the caller reserved for a part. A
//! waiting part is returned once, either joined with its other part or alone.
//!
//! Fragments are joined in the order of their times and not of their arrival, so each is kept
//! separately as long as more may arrive. The cost of adding a fragment depends on its own size and
//! not on that of the record: the record so far is joined when somebody reads it
//! ([`SoFar::record`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};

use super::bytes::{Bytes, organisation_of};
use super::join::{MAX_FRAGMENTS, RecordPart, figures_of, has_outcome, join, join_all};
use crate::record::Record;

/// Bytes of text at which a record waits for no more fragments.
const MAX_BYTES: usize = 16 << 20;

/// Relation of an arriving part to the waiting ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The part has new content, or is the first of its record.
    New,
    /// The part has arrived before.
    Duplicate,
}

/// Waiting parts, by the key of their record.
#[derive(Debug)]
pub(crate) struct JoinBuffer<R> {
    record_parts: HashMap<u128, Pending<R>>,
    /// Ends of the waits, the earliest first.
    order: BTreeSet<(i64, u128)>,
    /// Ends of the waits of each organisation.
    order_of: HashMap<u32, BTreeSet<(i64, u128)>>,
    bytes: Bytes,
}

/// The parts of a record that have arrived, and the record that they form.
#[derive(Debug)]
pub(crate) struct SoFar {
    /// The parts in the order of their times.
    parts: Vec<Arc<Record>>,
    until_micros: i64,
    joined: OnceLock<Arc<Record>>,
}

impl SoFar {
    fn new(parts: Vec<Arc<Record>>, until_micros: i64) -> Self {
        Self { parts, until_micros, joined: OnceLock::new() }
    }

    /// Returns the record so far. The first call joins the parts, which takes time in proportion to
    /// their size.
    pub(crate) fn record(&self) -> &Arc<Record> {
        match &self.parts[..] {
            [one] => one,
            parts => self.joined.get_or_init(|| {
                Arc::new(join_all(parts.iter().map(|part| (RecordPart::Fragment, &**part))))
            }),
        }
    }

    /// Returns the columns of the record so far, without metadata and messages.
    pub(crate) fn figures(&self) -> Record {
        figures_of(self.parts.iter().map(|part| &**part))
    }

    /// Returns the end of the wait for more parts, in µs since 1970-01-01.
    pub(crate) fn until_micros(&self) -> i64 {
        self.until_micros
    }

    /// Returns true if a part forbids keeping any content of the call.
    pub(crate) fn is_untracked(&self) -> bool {
        self.parts.iter().any(|part| part.do_not_track == Some(true))
    }

    /// Returns true if a part has any content of the call.
    pub(crate) fn has_content(&self) -> bool {
        self.parts.iter().any(|part| has_content(part))
    }
}

/// Returns true if the part has any content of the call.
pub(crate) fn has_content(part: &Record) -> bool {
    [&part.request, &part.response]
        .into_iter()
        .any(|message| message.body.is_some() || message.headers.is_some())
}

#[derive(Debug)]
struct Pending<R> {
    part_kind: RecordPart,
    so_far: Arc<SoFar>,
    /// Fingerprint of each part.
    prints: Vec<u128>,
    /// Bytes that all parts hold in memory.
    held_bytes: u64,
    /// Bytes of the text in all parts.
    text_bytes: usize,
    /// Arrival of the first part, µs since 1970-01-01; `i64::MAX` if unknown.
    arrived_micros: i64,
    room: Vec<R>,
}

impl<R> Pending<R> {
    fn new(
        part_kind: RecordPart,
        record: Record,
        print: u128,
        until_micros: i64,
        room: Vec<R>,
    ) -> Self {
        let held_bytes = record.held_bytes() as u64;
        let text_bytes = record.text_bytes();
        let so_far = Arc::new(SoFar::new(vec![Arc::new(record)], until_micros));
        Self {
            part_kind,
            so_far,
            prints: vec![print],
            held_bytes,
            text_bytes,
            arrived_micros: i64::MAX,
            room,
        }
    }

    /// Inserts a fragment in the order of times.
    fn with_fragment(self, fragment: Record, print: u128, until_micros: i64) -> Self {
        let held_bytes = fragment.held_bytes() as u64;
        let text_bytes = fragment.text_bytes();
        let mut parts = self.so_far.parts.clone();
        let at = parts.partition_point(|part| place(part) <= place(&fragment));
        parts.insert(at, Arc::new(fragment));
        let so_far = Arc::new(SoFar::new(parts, until_micros.min(self.so_far.until_micros)));
        let mut prints = self.prints;
        prints.push(print);
        Self {
            so_far,
            prints,
            held_bytes: self.held_bytes + held_bytes,
            text_bytes: self.text_bytes + text_bytes,
            ..self
        }
    }

    fn is_full(&self) -> bool {
        self.so_far.parts.len() >= MAX_FRAGMENTS || self.text_bytes >= MAX_BYTES
    }

    /// Returns the bytes of the parts, plus an upper bound for the joined record.
    fn bytes(&self) -> u64 {
        if self.so_far.parts.len() > 1 { 2 * self.held_bytes } else { self.held_bytes }
    }

    fn into_record(self) -> Record {
        let record = Arc::clone(self.so_far.record());
        drop(self);
        Arc::unwrap_or_clone(record)
    }
}

/// Returns the sort key of a fragment among others: the one with the outcome of the call is first,
/// then they are ordered by time, and those without a time are last.
fn place(fragment: &Record) -> (bool, bool, Option<DateTime<Utc>>) {
    (!has_outcome(fragment), fragment.created_at.is_none(), fragment.created_at)
}

/// A record that no longer waits.
#[derive(Debug)]
pub(crate) struct Joined<R> {
    /// Key of the record.
    pub key: u128,
    /// The record.
    pub record: Record,
    /// True if both parts have arrived, so that no more of the record is expected.
    pub is_complete: bool,
    /// Room of its parts.
    pub room: Vec<R>,
}

impl<R> Default for JoinBuffer<R> {
    fn default() -> Self {
        Self {
            record_parts: HashMap::new(),
            order: BTreeSet::new(),
            order_of: HashMap::new(),
            bytes: Bytes::default(),
        }
    }
}

impl<R> JoinBuffer<R> {
    /// Returns the relation of a part, given its fingerprint, to the waiting ones.
    pub(crate) fn fit(&self, key: u128, part_kind: RecordPart, print: u128) -> Admission {
        let Some(waits) = self.record_parts.get(&key) else { return Admission::New };
        let is_same_kind = waits.part_kind == part_kind;
        if is_same_kind && (part_kind != RecordPart::Fragment || waits.prints.contains(&print)) {
            return Admission::Duplicate;
        }
        Admission::New
    }

    /// Adds a part; returns the record if the other part has arrived. The same part again replaces
    /// the first. A fragment is added to the fragments that are there; the record then waits until
    /// the earlier of their ends, unless it is large enough. A fragment that has arrived before is
    /// dropped.
    pub(crate) fn add(
        &mut self,
        key: u128,
        part_kind: RecordPart,
        record: Record,
        print: u128,
        until_micros: i64,
        room: Option<R>,
    ) -> Option<Joined<R>> {
        if part_kind == RecordPart::Fragment
            && self.fit(key, part_kind, print) == Admission::Duplicate
        {
            return None;
        }
        let mut room: Vec<R> = room.into_iter().collect();
        let waits = match self.remove(key) {
            Some(mut first)
                if part_kind == RecordPart::Fragment || first.part_kind == RecordPart::Fragment =>
            {
                first.room.append(&mut room);
                let mut waits = first.with_fragment(record, print, until_micros);
                if waits.is_full() {
                    let room = std::mem::take(&mut waits.room);
                    return Some(Joined {
                        key,
                        record: waits.into_record(),
                        is_complete: false,
                        room,
                    });
                }
                waits
            }
            Some(mut first) if first.part_kind != part_kind => {
                room.append(&mut first.room);
                let first = first.into_record();
                let record = if part_kind == RecordPart::Figures {
                    join(record, first)
                } else {
                    join(first, record)
                };
                return Some(Joined { key, record, is_complete: true, room });
            }
            _ => Pending::new(part_kind, record, print, until_micros, room),
        };
        self.insert(key, waits);
        None
    }

    /// Takes out the next record that is stored without its other part: one whose wait has ended,
    /// or, while all parts take more than `max_bytes` or one organisation's parts more than three
    /// quarters of that, the oldest one of the organisation with the most bytes.
    pub(crate) fn next_alone(&mut self, now_micros: i64, max_bytes: u64) -> Option<Joined<R>> {
        let (until, mut key) = *self.order.first()?;
        if until > now_micros {
            let crowded = self.bytes.most()?;
            // One organisation alone must leave a quarter: its complete records need some of its
            // share of memory too.
            if self.bytes.all <= max_bytes
                && self.bytes.of_number(crowded) <= max_bytes - max_bytes / 4
            {
                return None;
            }
            key = self.order_of.get(&crowded)?.first()?.1;
        }
        self.take_alone(key)
    }

    /// Takes out a record that is stored without its other part.
    pub(crate) fn take_alone(&mut self, key: u128) -> Option<Joined<R>> {
        let mut waits = self.remove(key)?;
        let room = std::mem::take(&mut waits.room);
        Some(Joined { key, record: waits.into_record(), is_complete: false, room })
    }

    /// Notes the arrival of an added part. The first part of a record counts.
    pub(crate) fn note_arrival(&mut self, key: u128, micros: i64) {
        if let Some(waits) = self.record_parts.get_mut(&key) {
            waits.arrived_micros = waits.arrived_micros.min(micros);
        }
    }

    /// Returns the arrival of the first part of a record, in µs since 1970-01-01; `i64::MAX` if
    /// unknown.
    pub(crate) fn arrived_at(&self, key: u128) -> i64 {
        self.record_parts.get(&key).map_or(i64::MAX, |waits| waits.arrived_micros)
    }

    /// Removes a waiting record. Returns false if there is none.
    pub(crate) fn forget(&mut self, key: u128) -> bool {
        self.remove(key).is_some()
    }

    /// Takes out a waiting record, with its kind of part.
    pub(crate) fn take(&mut self, key: u128) -> Option<(RecordPart, Record, Vec<R>)> {
        let mut waits = self.remove(key)?;
        let part_kind = waits.part_kind;
        let room = std::mem::take(&mut waits.room);
        Some((part_kind, waits.into_record(), room))
    }

    fn insert(&mut self, key: u128, waits: Pending<R>) {
        self.bytes.add(key, waits.bytes());
        let until = (waits.so_far.until_micros, key);
        self.order.insert(until);
        self.order_of.entry(organisation_of(key)).or_default().insert(until);
        self.record_parts.insert(key, waits);
    }

    fn remove(&mut self, key: u128) -> Option<Pending<R>> {
        let waits = self.record_parts.remove(&key)?;
        let until = (waits.so_far.until_micros, key);
        self.order.remove(&until);
        if let Some(order) = self.order_of.get_mut(&organisation_of(key)) {
            order.remove(&until);
            if order.is_empty() {
                self.order_of.remove(&organisation_of(key));
            }
        }
        self.bytes.take(key, waits.bytes());
        Some(waits)
    }

    /// Returns the parts of a record that have arrived.
    pub(crate) fn get(&self, key: u128) -> Option<&Arc<SoFar>> {
        self.record_parts.get(&key).map(|waits| &waits.so_far)
    }

    /// Returns all waiting parts as they arrived, those of one record in their order. The flag is
    /// true if a part of the same record forbids keeping any content of the call.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (RecordPart, bool, &Record)> {
        self.record_parts.values().flat_map(|waits| {
            let is_untracked = waits.so_far.is_untracked();
            waits.so_far.parts.iter().map(move |part| (waits.part_kind, is_untracked, &**part))
        })
    }

    /// Adds a further fingerprint to the part that arrived last.
    pub(crate) fn know(&mut self, key: u128, print: u128) {
        if let Some(waits) = self.record_parts.get_mut(&key) {
            waits.prints.push(print);
        }
    }

    /// Returns all waiting records, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, &Arc<SoFar>)> {
        self.record_parts.iter().map(|(key, waits)| (*key, &waits.so_far))
    }

    /// Returns the bytes that the parts take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.all
    }

    /// Returns the number of waiting records.
    pub(crate) fn len(&self) -> usize {
        self.record_parts.len()
    }

    /// Returns the earliest end of a wait, in µs since 1970-01-01.
    pub(crate) fn first_until(&self) -> Option<i64> {
        self.order.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the fingerprint of a part: equal parts have equal fingerprints.
    fn print(record: &Record) -> u128 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        format!("{record:?}").hash(&mut hasher);
        u128::from(hasher.finish())
    }

    fn add<R>(
        waiting: &mut JoinBuffer<R>,
        key: u128,
        part_kind: RecordPart,
        record: Record,
        until_micros: i64,
        room: Option<R>,
    ) -> Option<Joined<R>> {
        let print = print(&record);
        waiting.add(key, part_kind, record, print, until_micros, room)
    }

    fn figures() -> Record {
        Record { id: Some("a".into()), total_units: Some(7), ..Record::default() }
    }

    fn content() -> Record {
        let request = crate::record::Message { body: Some("{}".into()), headers: None };
        Record { id: Some("a".into()), request, ..Record::default() }
    }

    #[test]
    fn two_parts_make_one_record_in_either_order() {
        for (first, second) in
            [(RecordPart::Figures, RecordPart::Content), (RecordPart::Content, RecordPart::Figures)]
        {
            let of =
                |part_kind| if part_kind == RecordPart::Figures { figures() } else { content() };
            let mut waiting = JoinBuffer::default();
            assert!(add(&mut waiting, 1, first, of(first), 10, Some("one")).is_none());
            assert_eq!(waiting.fit(1, first, print(&of(first))), Admission::Duplicate);
            assert_eq!(waiting.fit(1, second, print(&of(second))), Admission::New);
            let whole = add(&mut waiting, 1, second, of(second), 10, Some("two")).unwrap();
            assert_eq!(
                (whole.record.total_units, whole.record.request.body.as_deref()),
                (Some(7), Some("{}"))
            );
            assert_eq!(whole.room.len(), 2, "the record keeps the room of both");
            assert_eq!((waiting.len(), waiting.bytes(), waiting.first_until()), (0, 0, None));
        }
    }

    #[test]
    fn a_repeated_part_is_stored_once() {
        let mut waiting = JoinBuffer::default();
        add(&mut waiting, 1, RecordPart::Content, content(), 10, Some(()));
        assert!(add(&mut waiting, 1, RecordPart::Content, content(), 20, Some(())).is_none());
        assert_eq!((waiting.len(), waiting.first_until()), (1, Some(20)));
        assert_eq!(waiting.bytes(), content().held_bytes() as u64);
    }

    #[test]
    fn fragments_are_joined_in_the_order_of_their_times() {
        let event = |seconds: i64, word: &str| Record {
            created_at: DateTime::from_timestamp(seconds, 0),
            request: crate::record::Message {
                body: Some(format!(r#"{{"messages":["{word}"]}}"#)),
                headers: None,
            },
            ..Record::default()
        };
        let span = Record { is_success: Some(1), ..event(9, "span") };
        let untimed = Record { created_at: None, ..event(0, "untimed") };
        let fragments = [
            event(3, "c"),
            untimed,
            event(1, "a"),
            event(4, "d"),
            span,
            event(2, "b"),
            event(2, "b2"),
        ];
        let orders: [[usize; 7]; 3] =
            [[0, 1, 2, 3, 4, 5, 6], [4, 2, 5, 6, 0, 3, 1], [1, 3, 0, 5, 6, 2, 4]];
        for order in orders {
            let mut waiting: JoinBuffer<()> = JoinBuffer::default();
            for at in order {
                assert_eq!(
                    waiting.fit(1, RecordPart::Fragment, print(&fragments[at])),
                    Admission::New,
                    "{order:?}"
                );
                add(&mut waiting, 1, RecordPart::Fragment, fragments[at].clone(), 10, None);
            }
            for fragment in &fragments {
                assert_eq!(
                    waiting.fit(1, RecordPart::Fragment, print(fragment)),
                    Admission::Duplicate,
                    "{order:?}"
                );
            }
            let body = waiting.get(1).and_then(|so_far| so_far.record().request.body.clone());
            assert_eq!(
                body.as_deref(),
                Some(r#"{"messages":["span","a","b","b2","c","d","untimed"]}"#),
                "{order:?}"
            );
            // The parts from the write-ahead log make the same record when they are read again.
            let mut again: JoinBuffer<()> = JoinBuffer::default();
            for (part_kind, _, part) in waiting.parts() {
                add(&mut again, 1, part_kind, part.clone(), 10, None);
            }
            let joined =
                |waiting: &JoinBuffer<()>| waiting.get(1).map(|so_far| Arc::clone(so_far.record()));
            assert_eq!(joined(&again), joined(&waiting));
            assert_eq!(again.bytes(), waiting.bytes());
            assert!(waiting.forget(1) && waiting.bytes() == 0);
        }
    }

    #[test]
    fn a_record_of_many_fragments_waits_no_more() {
        let mut waiting: JoinBuffer<()> = JoinBuffer::default();
        let fragment = |number: usize| Record { span_name: Some(number.to_string()), ..content() };
        for number in 1..MAX_FRAGMENTS {
            assert!(
                add(&mut waiting, 1, RecordPart::Fragment, fragment(number), 10, None).is_none()
            );
        }
        assert!(add(&mut waiting, 1, RecordPart::Fragment, fragment(0), 10, None).is_some());
        let mut huge = content();
        huge.request.body = Some("x".repeat(MAX_BYTES));
        add(&mut waiting, 2, RecordPart::Fragment, figures(), 10, None);
        assert!(add(&mut waiting, 2, RecordPart::Fragment, huge, 10, None).is_some());
        assert_eq!((waiting.len(), waiting.bytes()), (0, 0));
    }

    #[test]
    fn fragments_wait_for_more_of_them_until_the_earlier_of_their_times() {
        let mut waiting = JoinBuffer::default();
        assert!(add(&mut waiting, 1, RecordPart::Fragment, figures(), 10, Some(1)).is_none());
        assert_eq!(waiting.fit(1, RecordPart::Fragment, print(&content())), Admission::New);
        assert_eq!(waiting.fit(1, RecordPart::Fragment, print(&figures())), Admission::Duplicate);
        assert!(add(&mut waiting, 1, RecordPart::Fragment, content(), 20, Some(2)).is_none());
        assert_eq!(waiting.fit(1, RecordPart::Fragment, print(&content())), Admission::Duplicate);
        assert_eq!((waiting.len(), waiting.first_until()), (1, Some(10)));
        let more = Record { span_name: Some("chat".into()), ..content() };
        assert!(add(&mut waiting, 1, RecordPart::Fragment, more, 5, None).is_none());
        assert_eq!(waiting.first_until(), Some(5));
        let whole = waiting.next_alone(5, u64::MAX).unwrap();
        assert_eq!(
            (whole.record.total_units, whole.record.request.body.as_deref()),
            (Some(7), Some("{}"))
        );
        assert_eq!((whole.room.len(), waiting.bytes()), (2, 0));
        assert!(!waiting.forget(1));
    }

    #[test]
    fn records_go_alone_when_their_wait_is_over_and_the_oldest_first_when_memory_is_short() {
        let mut waiting: JoinBuffer<()> = JoinBuffer::default();
        for (key, until) in [(1, 30), (2, 10), (3, 20)] {
            add(&mut waiting, key, RecordPart::Figures, figures(), until, None);
        }
        assert!(waiting.next_alone(9, u64::MAX).is_none());
        assert_eq!(waiting.next_alone(10, u64::MAX).map(|whole| whole.key), Some(2));
        assert!(waiting.next_alone(10, u64::MAX).is_none());
        let room = figures().held_bytes() as u64 * 4 / 3 + 1;
        assert_eq!(waiting.next_alone(10, room).map(|whole| whole.key), Some(3));
        assert!(waiting.next_alone(10, room).is_none(), "one fits");
    }

    #[test]
    fn an_organisation_with_many_parts_uses_up_its_own_share_only() {
        let mut waiting: JoinBuffer<()> = JoinBuffer::default();
        let acme = 1_u128 << 96;
        let zen = 2_u128 << 96;
        add(&mut waiting, zen, RecordPart::Figures, figures(), 10, None);
        let room = 10 * waiting.bytes();
        for number in 0..1_000 {
            add(&mut waiting, acme + number, RecordPart::Figures, figures(), 20, None);
            while let Some(alone) = waiting.next_alone(0, room) {
                assert_ne!(alone.key, zen);
            }
        }
        assert!(waiting.get(zen).is_some() && waiting.bytes() <= room);
        assert_eq!(
            waiting.next_alone(10, room).map(|whole| whole.key),
            Some(zen),
            "when its time is over"
        );
    }
}
