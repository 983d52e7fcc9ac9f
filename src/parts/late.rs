//! Late-arriving parts: parts of records that are already stored. They are acknowledged and written
//! to the write-ahead log like others, wait until their record is in the table, and are then merged
//! into it ([`super::amend`]).
//!
//! Pure; `R` is the room in memory that the caller reserved for a part.

use std::collections::HashMap;
use std::sync::Arc;

use super::bytes::Bytes;
use super::join::{MAX_FRAGMENTS, RecordPart, join_all};
use crate::record::Record;

/// A late-arriving part.
#[derive(Clone, Debug)]
pub(crate) struct LatePart {
    /// Key of its record.
    pub key: u128,
    /// Kind of the part.
    pub part_kind: RecordPart,
    /// Content of the part.
    pub record: Arc<Record>,
}

/// Late-arriving parts, by the key of their record.
#[derive(Debug)]
pub(crate) struct Late<R> {
    parts: HashMap<u128, Vec<(LatePart, Option<R>)>>,
    bytes: Bytes,
}

impl<R> Default for Late<R> {
    fn default() -> Self {
        Self { parts: HashMap::new(), bytes: Bytes::default() }
    }
}

impl<R> Late<R> {
    /// Returns true if a record, with `further` parts, has as many late-arriving parts as are
    /// merged at once.
    pub(crate) fn is_full(&self, key: u128, further: usize) -> bool {
        self.for_key(key).count() + further >= MAX_FRAGMENTS
    }

    /// Returns true if there is room for `more` bytes of the record's organisation, within
    /// `max_bytes` for all. An organisation may hold as much as it leaves free, so that others have
    /// room, however much it sends.
    pub(crate) fn has_room(&self, key: u128, more: u64, max_bytes: u64) -> bool {
        let free = max_bytes.saturating_sub(self.bytes.all);
        self.bytes.bytes_of(key).saturating_add(more) <= free.saturating_sub(more)
    }

    /// Returns true if a part of the record forbids keeping any content of the call.
    pub(crate) fn is_untracked(&self, key: u128) -> bool {
        self.for_key(key).any(|part| part.record.do_not_track == Some(true))
    }

    /// Removes the content from the parts of a record, after one part forbade keeping any of it.
    pub(crate) fn untrack(&mut self, key: u128, untrack: impl Fn(&mut Record)) {
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

    fn for_key(&self, key: u128) -> impl Iterator<Item = &LatePart> {
        self.parts.get(&key).into_iter().flatten().map(|(part, _)| part)
    }

    /// Adds a part.
    pub(crate) fn add(
        &mut self,
        key: u128,
        part_kind: RecordPart,
        record: Record,
        room: Option<R>,
    ) {
        self.bytes.add(key, record.held_bytes() as u64);
        let part = LatePart { key, part_kind, record: Arc::new(record) };
        self.parts.entry(key).or_default().push((part, room));
    }

    /// Returns all parts, those of one record in the order of their arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LatePart> {
        self.parts.values().flatten().map(|(part, _)| part)
    }

    /// Forgets parts that were merged into their records. Parts that arrived since then stay.
    pub(crate) fn forget(&mut self, done: &[LatePart]) {
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

    /// Returns the number of parts.
    pub(crate) fn len(&self) -> usize {
        self.parts.values().map(Vec::len).sum()
    }

    /// Returns true if there are no parts.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Returns the bytes that the parts take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.all
    }
}

/// Adds late-arriving parts to a stored record. Stored values stay unless a part forbids keeping
/// any content of the call, so a part that has arrived before adds nothing.
pub(crate) fn amend(stored: &Record, late: &[LatePart]) -> Record {
    join_all(
        [(RecordPart::Figures, stored)]
            .into_iter()
            .chain(late.iter().map(|part| (part.part_kind, &*part.record))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_until_their_record_has_them_and_later_parts_stay_longer() {
        let of = |status| Record { response_status_code: Some(status), ..Record::default() };
        let mut late = Late::default();
        late.add(1, RecordPart::Figures, of(200), Some("room"));
        let taken: Vec<LatePart> = late.iter().cloned().collect();
        late.add(1, RecordPart::Content, of(201), None);
        assert_eq!((late.len(), late.bytes()), (2, of(200).held_bytes() as u64 * 2));
        let most = 10 * late.bytes();
        let other = 1 << 96;
        assert!(
            late.has_room(1, most / 2 - late.bytes() - 99, most)
                && !late.has_room(1, most / 2, most)
        );
        assert!(late.has_room(other, most * 2 / 5, most), "another organisation has room");
        late.forget(&taken);
        late.forget(&taken);
        assert_eq!((late.len(), late.bytes()), (1, of(201).held_bytes() as u64));
        let untracked = Record { do_not_track: Some(true), ..of(200) };
        assert!(!late.is_untracked(1));
        late.add(1, RecordPart::Figures, untracked, None);
        assert!(late.is_untracked(1) && !late.is_untracked(2));
        let body = crate::record::Message { body: Some("[1]".to_owned()), headers: None };
        late.add(3, RecordPart::Content, Record { request: body, ..of(200) }, None);
        late.untrack(3, |record| record.request = crate::record::Message::default());
        let left: Vec<_> =
            late.iter().filter(|part| part.key == 3).map(|part| &part.record).collect();
        assert_eq!((left[0].do_not_track, left[0].request.body.as_deref()), (Some(true), None));
        for status in 0..300 {
            late.add(2, RecordPart::Fragment, of(status), None);
        }
        assert!(late.is_full(2, 0) && !late.is_full(1, 0) && late.is_full(1, MAX_FRAGMENTS));
    }
}
