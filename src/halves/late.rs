//! Parts that came when their record was stored already. They are acked and in the log as others are, wait until the record is in
//! the table, and are added to it there ([`super::amend`]).
//!
//! Pure; `R` is whatever room in memory the caller set aside for a part.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Bytes, Half, MOST_PIECES};
use crate::record::Record;

/// A part that is late.
#[derive(Clone, Debug)]
pub struct LatePart {
    /// What its record is known by.
    pub key: u128,
    /// Which part it is.
    pub half: Half,
    /// What it says.
    pub record: Arc<Record>,
}

/// Parts that are late, by the key of the record that they are of.
#[derive(Debug)]
pub struct Late<R> {
    parts: HashMap<u128, Vec<(LatePart, Option<R>)>>,
    bytes: Bytes,
}

impl<R> Default for Late<R> {
    fn default() -> Self {
        Self { parts: HashMap::new(), bytes: Bytes::default() }
    }
}

impl<R> Late<R> {
    /// Whether a record has, with `further` ones, as many late parts as are put together in one go.
    pub fn is_full(&self, key: u128, further: usize) -> bool {
        self.of(key).count() + further >= MOST_PIECES
    }

    /// Whether there is room for so many bytes more of the record's organisation, of which all may take `most`: it may hold as much
    /// as it leaves free, so that others have room whatever it sends.
    pub fn has_room(&self, key: u128, more: u64, most: u64) -> bool {
        let free = most.saturating_sub(self.bytes.all);
        self.bytes.of(key).saturating_add(more) <= free.saturating_sub(more)
    }

    /// Whether a part of the record says that nothing of the call may be kept.
    pub fn is_untracked(&self, key: u128) -> bool {
        self.of(key).any(|part| part.record.do_not_track == Some(true))
    }

    /// Takes out of the parts of a record what was said, now that one says that nothing of it may be kept.
    pub fn untrack(&mut self, key: u128, untrack: impl Fn(&mut Record)) {
        let tracked = |part: &&mut (LatePart, Option<R>)| part.0.record.do_not_track != Some(true);
        for (part, _) in self.parts.get_mut(&key).into_iter().flatten().filter(tracked) {
            let mut record = Record::clone(&part.record);
            record.do_not_track = Some(true);
            untrack(&mut record);
            self.bytes.add(key, record.held_bytes() as u64);
            self.bytes.take(key, part.record.held_bytes() as u64);
            part.record = Arc::new(record);
        }
    }

    fn of(&self, key: u128) -> impl Iterator<Item = &LatePart> {
        self.parts.get(&key).into_iter().flatten().map(|(part, _)| part)
    }

    /// Takes a part.
    pub fn add(&mut self, key: u128, half: Half, record: Record, room: Option<R>) {
        self.bytes.add(key, record.held_bytes() as u64);
        let part = LatePart { key, half, record: Arc::new(record) };
        self.parts.entry(key).or_default().push((part, room));
    }

    /// All of them, those of one record in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &LatePart> {
        self.parts.values().flatten().map(|(part, _)| part)
    }

    /// Forgets parts that their records have now; what came since stays.
    pub fn forget(&mut self, done: &[LatePart]) {
        for part in done {
            let Some(parts) = self.parts.get_mut(&part.key) else { continue };
            let before = parts.len();
            parts.retain(|(held, _)| !Arc::ptr_eq(&held.record, &part.record));
            if parts.len() < before {
                self.bytes.take(part.key, part.record.held_bytes() as u64);
            }
            if parts.is_empty() {
                self.parts.remove(&part.key);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.bytes.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_until_their_record_has_them_and_what_came_since_stays_longer() {
        let of = |status| Record { response_status_code: Some(status), ..Record::default() };
        let mut late = Late::default();
        late.add(1, Half::Figures, of(200), Some("room"));
        let taken: Vec<LatePart> = late.iter().cloned().collect();
        late.add(1, Half::Content, of(201), None);
        assert_eq!((late.len(), late.bytes()), (2, of(200).held_bytes() as u64 * 2));
        let (most, other) = (10 * late.bytes(), 1 << 96);
        assert!(late.has_room(1, most / 2 - late.bytes() - 99, most) && !late.has_room(1, most / 2, most));
        assert!(late.has_room(other, most * 2 / 5, most), "another organisation has room");
        late.forget(&taken);
        late.forget(&taken);
        assert_eq!((late.len(), late.bytes()), (1, of(201).held_bytes() as u64));
        let untracked = Record { do_not_track: Some(true), ..of(200) };
        assert!(!late.is_untracked(1));
        late.add(1, Half::Figures, untracked, None);
        assert!(late.is_untracked(1) && !late.is_untracked(2));
        let body = crate::record::Message { body: Some("[1]".to_owned()), headers: None };
        late.add(3, Half::Content, Record { request: body, ..of(200) }, None);
        late.untrack(3, |record| record.request = crate::record::Message::default());
        let left: Vec<_> = late.iter().filter(|part| part.key == 3).map(|part| &part.record).collect();
        assert_eq!((left[0].do_not_track, left[0].request.body.as_deref()), (Some(true), None));
        for status in 0..300 {
            late.add(2, Half::Piece, of(status), None);
        }
        assert!(late.is_full(2, 0) && !late.is_full(1, 0) && late.is_full(1, MOST_PIECES));
    }
}
