//! Halves that wait for the other one: what comes together, what came already, and what has waited long enough.
//!
//! Pure: time comes in, and `R` is whatever room in memory the caller set aside for a half. A half that waits is given
//! back once, either with its other half or alone. Parts that say that they are of different workspaces never meet: like a
//! record whose id its organisation used already, the later one counts as known.

use std::collections::{BTreeSet, HashMap};

use super::{Half, join, unite};
use crate::record::Record;

/// What a record takes beside its text, bytes.
const RECORD_BYTES: u64 = 900;
/// A record of so many pieces, or of so many bytes of text, waits for no more of them: each costs the one writer time.
const MOST_PIECES: u32 = 256;
const MOST_BYTES: usize = 16 << 20;

fn held(record: &Record) -> u64 {
    record.text_bytes() as u64 + RECORD_BYTES
}

/// Whether two parts may be of one record as far as their workspaces say.
fn same_workspace(first: &Record, second: &Record) -> bool {
    match (&first.workspace_slug, &second.workspace_slug) {
        (Some(first), Some(second)) => first == second,
        _ => true,
    }
}

/// Halves, by the key of the record that they are of.
#[derive(Debug)]
pub struct Waiting<R> {
    halves: HashMap<u128, Waits<R>>,
    /// Until when each waits, the first first.
    order: BTreeSet<(i64, u128)>,
    bytes: u64,
}

#[derive(Debug)]
struct Waits<R> {
    half: Half,
    record: Record,
    until_micros: i64,
    pieces: u32,
    room: Vec<R>,
}

/// A record that waits no longer.
#[derive(Debug)]
pub struct Whole<R> {
    /// What it is known by.
    pub key: u128,
    /// The record.
    pub record: Record,
    /// The room of its halves.
    pub room: Vec<R>,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self { halves: HashMap::new(), order: BTreeSet::new(), bytes: 0 }
    }
}

impl<R> Waiting<R> {
    /// Whether this half of the record waits already, the piece is known, or the id is another workspace's.
    pub fn knows(&self, key: u128, half: Half, record: &Record) -> bool {
        let Some(waits) = self.halves.get(&key) else { return false };
        if !same_workspace(&waits.record, record) {
            return true;
        }
        waits.half == half && (half != Half::Piece || unite(waits.record.clone(), record.clone()) == waits.record)
    }

    /// Whether a part of a record waits.
    pub fn has(&self, key: u128) -> bool {
        self.halves.contains_key(&key)
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
        let first = self.remove(key);
        let mut room: Vec<R> = room.into_iter().collect();
        match first {
            Some(first) if !same_workspace(&first.record, &record) => {
                self.insert(key, first);
                None
            }
            Some(first) if Half::Piece == half || Half::Piece == first.half => {
                room.extend(first.room);
                let (record, pieces) = (unite(first.record, record), first.pieces + 1);
                if pieces >= MOST_PIECES || record.text_bytes() >= MOST_BYTES {
                    return Some(Whole { key, record, room });
                }
                let until_micros = until_micros.min(first.until_micros);
                self.insert(key, Waits { half: first.half, record, until_micros, pieces, room });
                None
            }
            Some(first) if first.half != half => {
                room.extend(first.room);
                let record = match half {
                    Half::Figures => join(record, first.record),
                    _ => join(first.record, record),
                };
                Some(Whole { key, record, room })
            }
            _ => {
                self.insert(key, Waits { half, record, until_micros, pieces: 1, room });
                None
            }
        }
    }

    /// Gives up on a half: those that have waited until now, and the first of the others while all take more than so many bytes.
    pub fn next_alone(&mut self, now_micros: i64, most_bytes: u64) -> Option<Whole<R>> {
        let (until, key) = *self.order.first()?;
        if until > now_micros && self.bytes <= most_bytes {
            return None;
        }
        self.remove(key).map(|waits| Whole { key, record: waits.record, room: waits.room })
    }

    /// Forgets a half; false if there is none.
    pub fn forget(&mut self, key: u128) -> bool {
        self.remove(key).is_some()
    }

    fn insert(&mut self, key: u128, waits: Waits<R>) {
        self.bytes += held(&waits.record);
        self.order.insert((waits.until_micros, key));
        self.halves.insert(key, waits);
    }

    fn remove(&mut self, key: u128) -> Option<Waits<R>> {
        let waits = self.halves.remove(&key)?;
        self.order.remove(&(waits.until_micros, key));
        self.bytes = self.bytes.saturating_sub(held(&waits.record));
        Some(waits)
    }

    /// The part of a record that is here.
    pub fn get(&self, key: u128) -> Option<&Record> {
        self.halves.get(&key).map(|waits| &waits.record)
    }

    /// All that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u128, Half, &Record)> {
        self.halves.iter().map(|(key, waits)| (*key, waits.half, &waits.record))
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
            assert!(waiting.knows(1, first, &of(first)) && !waiting.knows(1, second, &of(second)));
            let whole = waiting.add(1, second, of(second), 10, Some("two")).unwrap();
            assert_eq!((whole.record.total_units, whole.record.request.body.as_deref()), (Some(7), Some("{}")));
            assert_eq!(whole.room.len(), 2, "the room of both goes on with the record");
            assert_eq!((waiting.len(), waiting.bytes, waiting.first_until()), (0, 0, None));
        }
    }

    #[test]
    fn the_same_half_again_is_one_half() {
        let mut waiting = Waiting::default();
        waiting.add(1, Half::Content, content(), 10, Some(()));
        assert!(waiting.add(1, Half::Content, content(), 20, Some(())).is_none());
        assert_eq!((waiting.len(), waiting.first_until()), (1, Some(20)));
        assert_eq!(waiting.bytes, held(&content()));
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
            assert!(waiting.knows(1, second, &theirs), "the id is used");
            assert!(waiting.add(1, second, theirs, 10, None).is_none());
            assert_eq!(waiting.get(1), Some(&of("ours", content())));
            let says_none = waiting.knows(1, second, &figures());
            assert_eq!(says_none, second == first, "a half that says no workspace may be of any, a piece may not");
        }
    }

    #[test]
    fn a_record_of_many_pieces_waits_no_more() {
        let mut waiting: Waiting<()> = Waiting::default();
        let piece = |number: u32| Record { span_name: Some(number.to_string()), ..content() };
        for number in 1..MOST_PIECES {
            assert!(waiting.add(1, Half::Piece, piece(number), 10, None).is_none());
        }
        assert!(waiting.add(1, Half::Piece, piece(0), 10, None).is_some());
        let mut huge = content();
        huge.request.body = Some("x".repeat(MOST_BYTES));
        waiting.add(2, Half::Piece, figures(), 10, None);
        assert!(waiting.add(2, Half::Piece, huge, 10, None).is_some());
        assert_eq!((waiting.len(), waiting.bytes), (0, 0));
    }

    #[test]
    fn pieces_wait_for_more_of_them_until_the_earlier_of_their_times() {
        let mut waiting = Waiting::default();
        assert!(waiting.add(1, Half::Piece, figures(), 10, Some(1)).is_none());
        assert!(!waiting.knows(1, Half::Piece, &content()) && waiting.knows(1, Half::Piece, &figures()));
        assert!(waiting.add(1, Half::Piece, content(), 20, Some(2)).is_none());
        assert!(waiting.knows(1, Half::Piece, &content()));
        assert_eq!((waiting.len(), waiting.first_until()), (1, Some(10)));
        assert!(waiting.add(1, Half::Piece, content(), 5, None).is_none());
        assert_eq!(waiting.first_until(), Some(5));
        let whole = waiting.next_alone(5, u64::MAX).unwrap();
        assert_eq!((whole.record.total_units, whole.record.request.body.as_deref()), (Some(7), Some("{}")));
        assert_eq!((whole.room.len(), waiting.bytes), (2, 0));
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
        assert_eq!(waiting.next_alone(10, 1_000).map(|whole| whole.key), Some(3));
        assert!(waiting.next_alone(10, 1_000).is_none(), "one fits");
    }
}
