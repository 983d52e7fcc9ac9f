//! Halves that wait for the other one: what comes together, what came already, and what has waited long enough.
//!
//! Pure: time comes in, and `R` is whatever room in memory the caller set aside for a half. A half that waits is given
//! back once, either with its other half or alone. Parts of different workspaces never meet: the later one is not taken.
//!
//! Pieces are put together in the order of their times, not of their arrival, so each is kept for
//! as long as more may come.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Bytes, Half, MOST_PIECES, join, may_meet, organisation_of, says_outcome, unite, unite_all};
use crate::record::Record;

/// A record of so many bytes of text waits for no more pieces: each costs the one writer time.
const MOST_BYTES: usize = 16 << 20;

/// What a part is to those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It says something new, or is the first of its record.
    New,
    /// It came already.
    Known,
    /// The record was begun by another workspace, which must not see into this one's, nor this one into that.
    Foreign,
}

/// Halves, by the key of the record that they are of.
#[derive(Debug)]
pub struct Waiting<R> {
    halves: HashMap<u128, Waits<R>>,
    /// Until when each waits, the first first.
    order: BTreeSet<(i64, u128)>,
    /// The same of each organisation.
    order_of: HashMap<u32, BTreeSet<(i64, u128)>>,
    bytes: Bytes,
}

#[derive(Debug)]
struct Waits<R> {
    half: Half,
    /// What all parts say together.
    record: Arc<Record>,
    until_micros: i64,
    /// The parts, in order.
    parts: Vec<Arc<Record>>,
    room: Vec<R>,
}

impl<R> Waits<R> {
    /// Bytes of the parts, and of what they make together.
    fn bytes(&self) -> u64 {
        let parts = self.parts.iter().filter(|part| !Arc::ptr_eq(part, &self.record)).map(|part| part.held_bytes());
        (self.record.held_bytes() + parts.sum::<usize>()) as u64
    }
}

/// The place of a piece among others: what says how the call went is the first, then by time, and
/// what has none is the last.
fn place(piece: &Record) -> (bool, bool, Option<DateTime<Utc>>) {
    (!says_outcome(piece), piece.created_at.is_none(), piece.created_at)
}

/// Adds a piece to others in order; answers what they make together, `united` being what they made
/// without it.
fn insert_piece(parts: &mut Vec<Arc<Record>>, united: Arc<Record>, piece: Record) -> Arc<Record> {
    let at = parts.partition_point(|part| place(part) <= place(&piece));
    let is_last = at == parts.len();
    parts.insert(at, Arc::new(piece));
    Arc::new(match is_last {
        true => unite(Arc::unwrap_or_clone(united), Record::clone(&parts[at])),
        false => unite_all(parts),
    })
}

/// A record that waits no longer.
#[derive(Debug)]
pub struct Whole<R> {
    /// What it is known by.
    pub key: u128,
    /// The record.
    pub record: Record,
    /// Whether both halves are there, so that nothing more of it comes.
    pub is_complete: bool,
    /// The room of its halves.
    pub room: Vec<R>,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self { halves: HashMap::new(), order: BTreeSet::new(), order_of: HashMap::new(), bytes: Bytes::default() }
    }
}

impl<R> Waiting<R> {
    /// What a part is to those that wait.
    pub fn fit(&self, key: u128, half: Half, record: &Record) -> Fit {
        let Some(waits) = self.halves.get(&key) else { return Fit::New };
        if !may_meet(&waits.record, record, half == Half::Piece || waits.half == Half::Piece) {
            return Fit::Foreign;
        }
        let adds_nothing = || unite(Record::clone(&waits.record), record.clone()) == *waits.record;
        match waits.half == half && (half != Half::Piece || adds_nothing()) {
            true => Fit::Known,
            false => Fit::New,
        }
    }

    /// Takes a half; answers the record if the other half was there. The same half again takes the place of the first. A piece is
    /// added to what is there, which goes on waiting until the earlier of their times, unless it is big enough.
    pub fn add(
        &mut self,
        key: u128,
        half: Half,
        record: Record,
        until_micros: i64,
        room: Option<R>,
    ) -> Option<Whole<R>> {
        if self.fit(key, half, &record) == Fit::Foreign {
            return None;
        }
        let mut room: Vec<R> = room.into_iter().collect();
        let waits = match self.remove(key) {
            Some(first) if first.half != half && half != Half::Piece && first.half != Half::Piece => {
                room.extend(first.room);
                let first = Arc::unwrap_or_clone(first.record);
                let record = if half == Half::Figures { join(record, first) } else { join(first, record) };
                return Some(Whole { key, record, is_complete: true, room });
            }
            Some(first) if half == Half::Piece || first.half == Half::Piece => {
                room.extend(first.room);
                let Waits { half, record: united, mut parts, .. } = first;
                let united = insert_piece(&mut parts, united, record);
                if parts.len() >= MOST_PIECES || united.text_bytes() >= MOST_BYTES {
                    let record = Arc::unwrap_or_clone(united);
                    return Some(Whole { key, record, is_complete: false, room });
                }
                Waits { half, record: united, until_micros: until_micros.min(first.until_micros), parts, room }
            }
            _ => {
                let record = Arc::new(record);
                Waits { half, parts: vec![Arc::clone(&record)], record, until_micros, room }
            }
        };
        self.insert(key, waits);
        None
    }

    /// Gives up on a half: those that have waited until now, and, while all take more than so many bytes, or one organisation
    /// more than three quarters of these, the first of the organisation that takes most.
    pub fn next_alone(&mut self, now_micros: i64, most_bytes: u64) -> Option<Whole<R>> {
        let (until, mut key) = *self.order.first()?;
        if until > now_micros {
            let crowded = self.bytes.most()?;
            // One alone leaves a quarter: of its share of memory, whole records need some too.
            if self.bytes.all <= most_bytes && self.bytes.of_number(crowded) <= most_bytes - most_bytes / 4 {
                return None;
            }
            key = self.order_of.get(&crowded)?.first()?.1;
        }
        let waits = self.remove(key)?;
        Some(Whole { key, record: Arc::unwrap_or_clone(waits.record), is_complete: false, room: waits.room })
    }

    /// Forgets a half; false if there is none.
    pub fn forget(&mut self, key: u128) -> bool {
        self.remove(key).is_some()
    }

    /// Takes a part out, with what it is.
    pub fn take(&mut self, key: u128) -> Option<(Half, Record, Vec<R>)> {
        let waits = self.remove(key)?;
        Some((waits.half, Arc::unwrap_or_clone(waits.record), waits.room))
    }

    fn insert(&mut self, key: u128, waits: Waits<R>) {
        self.bytes.add(key, waits.bytes());
        self.order.insert((waits.until_micros, key));
        self.order_of.entry(organisation_of(key)).or_default().insert((waits.until_micros, key));
        self.halves.insert(key, waits);
    }

    fn remove(&mut self, key: u128) -> Option<Waits<R>> {
        let waits = self.halves.remove(&key)?;
        self.order.remove(&(waits.until_micros, key));
        if let Some(order) = self.order_of.get_mut(&organisation_of(key)) {
            order.remove(&(waits.until_micros, key));
            if order.is_empty() {
                self.order_of.remove(&organisation_of(key));
            }
        }
        self.bytes.take(key, waits.bytes());
        Some(waits)
    }

    /// The part of a record that is here.
    pub fn get(&self, key: u128) -> Option<&Arc<Record>> {
        self.halves.get(&key).map(|waits| &waits.record)
    }

    /// All parts that wait, each as it came, those of one record in their order.
    pub fn parts(&self) -> impl Iterator<Item = (Half, &Record)> {
        self.halves.values().flat_map(|waits| waits.parts.iter().map(|part| (waits.half, &**part)))
    }

    /// All that wait, put together, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u128, Half, &Record)> {
        self.halves.iter().map(|(key, waits)| (*key, waits.half, &*waits.record))
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.bytes.all
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.halves.len()
    }

    /// Until when the first of them waits, µs since 1970-01-01.
    pub fn first_until(&self) -> Option<i64> {
        self.order.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Record {
        Record { id: Some("a".into()), total_units: Some(7), ..Record::default() }
    }

    fn content() -> Record {
        let request = crate::record::Message { body: Some("{}".into()), headers: None };
        Record { id: Some("a".into()), request, ..Record::default() }
    }

    #[test]
    fn two_halves_make_one_record_whichever_comes_first() {
        for (first, second) in [(Half::Figures, Half::Content), (Half::Content, Half::Figures)] {
            let of = |half| if half == Half::Figures { figures() } else { content() };
            let mut waiting = Waiting::default();
            assert!(waiting.add(1, first, of(first), 10, Some("one")).is_none());
            assert_eq!(waiting.fit(1, first, &of(first)), Fit::Known);
            assert_eq!(waiting.fit(1, second, &of(second)), Fit::New);
            let whole = waiting.add(1, second, of(second), 10, Some("two")).unwrap();
            assert_eq!((whole.record.total_units, whole.record.request.body.as_deref()), (Some(7), Some("{}")));
            assert_eq!(whole.room.len(), 2, "the room of both goes on with the record");
            assert_eq!((waiting.len(), waiting.bytes(), waiting.first_until()), (0, 0, None));
        }
    }

    #[test]
    fn the_same_half_again_is_one_half() {
        let mut waiting = Waiting::default();
        waiting.add(1, Half::Content, content(), 10, Some(()));
        assert!(waiting.add(1, Half::Content, content(), 20, Some(())).is_none());
        assert_eq!((waiting.len(), waiting.first_until()), (1, Some(20)));
        assert_eq!(waiting.bytes(), content().held_bytes() as u64);
    }

    #[test]
    fn parts_of_two_workspaces_never_meet() {
        let of = |slug: &str, record| Record { workspace_slug: Some(slug.to_owned()), ..record };
        for (first, second) in
            [(Half::Content, Half::Figures), (Half::Piece, Half::Piece), (Half::Figures, Half::Piece)]
        {
            let mut waiting: Waiting<()> = Waiting::default();
            waiting.add(1, first, of("ours", content()), 10, None);
            let theirs = of("theirs", figures());
            assert_eq!(waiting.fit(1, second, &theirs), Fit::Foreign);
            assert!(waiting.add(1, second, theirs, 10, None).is_none());
            assert_eq!(waiting.get(1).map(|record| &**record), Some(&of("ours", content())));
            let fit = if second == Half::Piece { Fit::Foreign } else { Fit::New };
            assert_eq!(waiting.fit(1, second, &figures()), fit, "a half that says no workspace may be of any");
        }
    }

    #[test]
    fn pieces_are_put_together_in_the_order_of_their_times() {
        let said = |seconds: i64, word: &str| Record {
            created_at: DateTime::from_timestamp(seconds, 0),
            request: crate::record::Message { body: Some(format!(r#"{{"messages":["{word}"]}}"#)), headers: None },
            ..Record::default()
        };
        let span = Record { is_success: Some(1), ..said(9, "span") };
        let untimed = Record { created_at: None, ..said(0, "untimed") };
        let pieces = [said(3, "c"), untimed, said(1, "a"), said(4, "d"), span, said(2, "b"), said(2, "b2")];
        let orders: [[usize; 7]; 3] = [[0, 1, 2, 3, 4, 5, 6], [4, 2, 5, 6, 0, 3, 1], [1, 3, 0, 5, 6, 2, 4]];
        for order in orders {
            let mut waiting: Waiting<()> = Waiting::default();
            for at in order {
                assert_eq!(waiting.fit(1, Half::Piece, &pieces[at]), Fit::New, "{order:?}");
                waiting.add(1, Half::Piece, pieces[at].clone(), 10, None);
            }
            for piece in &pieces {
                assert_eq!(waiting.fit(1, Half::Piece, piece), Fit::Known, "{order:?}");
            }
            let body = waiting.get(1).and_then(|record| record.request.body.clone());
            assert_eq!(body.as_deref(), Some(r#"{"messages":["span","a","b","b2","c","d","untimed"]}"#), "{order:?}");
            // What the log holds of them, read again, makes the same.
            let mut again: Waiting<()> = Waiting::default();
            for (half, part) in waiting.parts() {
                again.add(1, half, part.clone(), 10, None);
            }
            assert_eq!(again.get(1), waiting.get(1));
            assert_eq!(again.bytes(), waiting.bytes());
            assert!(waiting.forget(1) && waiting.bytes() == 0);
        }
    }

    #[test]
    fn a_record_of_many_pieces_waits_no_more() {
        let mut waiting: Waiting<()> = Waiting::default();
        let piece = |number: usize| Record { span_name: Some(number.to_string()), ..content() };
        for number in 1..MOST_PIECES {
            assert!(waiting.add(1, Half::Piece, piece(number), 10, None).is_none());
        }
        assert!(waiting.add(1, Half::Piece, piece(0), 10, None).is_some());
        let mut huge = content();
        huge.request.body = Some("x".repeat(MOST_BYTES));
        waiting.add(2, Half::Piece, figures(), 10, None);
        assert!(waiting.add(2, Half::Piece, huge, 10, None).is_some());
        assert_eq!((waiting.len(), waiting.bytes()), (0, 0));
    }

    #[test]
    fn pieces_wait_for_more_of_them_until_the_earlier_of_their_times() {
        let mut waiting = Waiting::default();
        assert!(waiting.add(1, Half::Piece, figures(), 10, Some(1)).is_none());
        assert_eq!(waiting.fit(1, Half::Piece, &content()), Fit::New);
        assert_eq!(waiting.fit(1, Half::Piece, &figures()), Fit::Known);
        assert!(waiting.add(1, Half::Piece, content(), 20, Some(2)).is_none());
        assert_eq!(waiting.fit(1, Half::Piece, &content()), Fit::Known);
        assert_eq!((waiting.len(), waiting.first_until()), (1, Some(10)));
        assert!(waiting.add(1, Half::Piece, content(), 5, None).is_none());
        assert_eq!(waiting.first_until(), Some(5));
        let whole = waiting.next_alone(5, u64::MAX).unwrap();
        assert_eq!((whole.record.total_units, whole.record.request.body.as_deref()), (Some(7), Some("{}")));
        assert_eq!((whole.room.len(), waiting.bytes()), (2, 0));
        assert!(!waiting.forget(1));
    }

    #[test]
    fn who_waited_long_enough_goes_alone_and_the_first_of_the_others_when_there_is_no_room() {
        let mut waiting: Waiting<()> = Waiting::default();
        for (key, until) in [(1, 30), (2, 10), (3, 20)] {
            waiting.add(key, Half::Figures, figures(), until, None);
        }
        assert!(waiting.next_alone(9, u64::MAX).is_none());
        assert_eq!(waiting.next_alone(10, u64::MAX).map(|whole| whole.key), Some(2));
        assert!(waiting.next_alone(10, u64::MAX).is_none());
        let room = figures().held_bytes() as u64 * 4 / 3 + 1;
        assert_eq!(waiting.next_alone(10, room).map(|whole| whole.key), Some(3));
        assert!(waiting.next_alone(10, room).is_none(), "one fits");
    }

    #[test]
    fn one_organisation_that_sends_many_halves_takes_the_room_of_its_own() {
        let mut waiting: Waiting<()> = Waiting::default();
        let (acme, zen) = (1_u128 << 96, 2_u128 << 96);
        waiting.add(zen, Half::Figures, figures(), 10, None);
        let room = 10 * waiting.bytes();
        for number in 0..1_000 {
            waiting.add(acme + number, Half::Figures, figures(), 20, None);
            while let Some(alone) = waiting.next_alone(0, room) {
                assert_ne!(alone.key, zen);
            }
        }
        assert!(waiting.get(zen).is_some() && waiting.bytes() <= room);
        assert_eq!(waiting.next_alone(10, room).map(|whole| whole.key), Some(zen), "when its time is over");
    }
}
