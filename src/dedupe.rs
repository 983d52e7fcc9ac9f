//! Which ids arrived lately, so that a record sent twice is kept once.
//!
//! An id is remembered as a 128-bit keyed hash of organisation, workspace and id: ids are a workspace's own, and those of records
//! of no workspace are apart from all. The hash is short enough to keep millions, and no client can
//! make two ids collide, because the keys are random and never leave the process. Ids live in a few generations by age; a
//! generation is forgotten whole when all of it is older than the window, so an id is remembered for at least the window and
//! a quarter longer at most while records come in. Past the most ids allowed the oldest generation goes first, window or not.
//! Two bits of each key say what is known of its record ([`Known`]), so that costs no memory.

use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Write};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher, RandomState};

use arrow::array::{Array, AsArray, RecordBatch};

use crate::ingest::DEFAULT_ORGANISATION;
use crate::record::Record;

/// Generations that make up a window.
const GENERATIONS: i64 = 4;

/// The ids of a window of time.
#[derive(Debug)]
pub struct Recent {
    keys: Keys,
    generations: VecDeque<Generation>,
    window_micros: i64,
    most: usize,
}

/// Makes keys of ids; cheap to clone, so that callers hash on their own threads.
#[derive(Clone, Debug)]
pub struct Keys(RandomState, RandomState);

#[derive(Debug)]
struct Generation {
    started_micros: i64,
    last_micros: i64,
    ids: HashSet<Id, BuildHasherDefault<Hashed>>,
}

/// What is remembered of an id whose record is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether parts of the record may still come: it was stored before all of them were there.
    pub is_open: bool,
    /// Whether nothing may be kept of what was said in its call.
    pub is_untracked: bool,
}

/// The bits of a key that are taken for [`Known`].
const KNOWN_BITS: u128 = 0b11;

/// A key, with what is known of its record in the last bits. Two are equal if their keys are.
#[derive(Clone, Copy, Debug)]
struct Id(u128);

impl Id {
    fn new(key: u128, known: Known) -> Self {
        Self((key & !KNOWN_BITS) | (u128::from(known.is_untracked) << 1) | u128::from(known.is_open))
    }

    fn known(self) -> Known {
        Known { is_open: self.0 & 0b01 != 0, is_untracked: self.0 & 0b10 != 0 }
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.0 & !KNOWN_BITS == other.0 & !KNOWN_BITS
    }
}

impl Eq for Id {}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.0 & !KNOWN_BITS);
    }
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// Hashes text as it is written.
struct Hashing(DefaultHasher, DefaultHasher);

impl fmt::Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        self.1.write(text.as_bytes());
        Ok(())
    }
}

impl Keys {
    /// Fresh random keys.
    pub fn random() -> Self {
        Self(RandomState::new(), RandomState::new())
    }

    /// The key of one id of one workspace of an organisation, or of none. An empty name is none.
    pub fn key(&self, organisation: &str, workspace: Option<&str>, id: &str) -> u128 {
        let identity = (organisation, workspace.filter(|workspace| !workspace.is_empty()), id);
        (u128::from(self.0.hash_one(identity)) << 64) | u128::from(self.1.hash_one(identity))
    }

    /// The key of a record.
    pub fn of(&self, record: &Record) -> u128 {
        let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
        self.key(organisation, record.workspace_slug.as_deref(), record.id.as_deref().unwrap_or_default())
    }

    /// The key of what a value says, all of it, by its `Debug` form.
    pub fn key_of_all(&self, value: &impl fmt::Debug) -> u128 {
        let mut text = Hashing(self.0.build_hasher(), self.1.build_hasher());
        // Neither hashing nor the derived form fails.
        let _ = write!(text, "{value:?}");
        (u128::from(text.0.finish()) << 64) | u128::from(text.1.finish())
    }

    /// The keys of a batch's rows, which has the columns `organisation_id`, `workspace_slug` and `id`.
    pub fn of_batch(&self, batch: &RecordBatch) -> Vec<u128> {
        let text = |name: &str| batch.column_by_name(name).map(|column| column.as_string_view());
        let (Some(organisations), Some(workspaces), Some(ids)) =
            (text("organisation_id"), text("workspace_slug"), text("id"))
        else {
            return Vec::new();
        };
        let workspace = |row| workspaces.is_valid(row).then(|| workspaces.value(row));
        (0..ids.len()).map(|row| self.key(organisations.value(row), workspace(row), ids.value(row))).collect()
    }
}

impl Recent {
    /// Remembers nothing yet. A window of 0 hours turns the check off.
    pub fn new(keys: Keys, window_hours: u64, most: u64) -> Self {
        let window_micros =
            i64::try_from(window_hours).unwrap_or(i64::MAX / 3_600_000_000).saturating_mul(3_600_000_000);
        Self { keys, generations: VecDeque::new(), window_micros, most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    /// Makes the keys that this set is asked with.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Remembers a key; false if it was known already, and then what was known of it stays.
    pub fn insert(&mut self, key: u128, known: Known, now_micros: i64) -> bool {
        if self.contains(key) {
            return false;
        }
        self.remember(key, known, now_micros);
        true
    }

    /// Whether a key is known.
    pub fn contains(&self, key: u128) -> bool {
        self.known(key).is_some()
    }

    /// What is known of a key; none if it is not known.
    pub fn known(&self, key: u128) -> Option<Known> {
        let key = Id(key);
        self.generations.iter().find_map(|generation| generation.ids.get(&key)).map(|id| id.known())
    }

    /// Remembers of a known key that nothing may be kept of what was said in its call.
    pub fn mark_untracked(&mut self, key: u128) {
        let Some(known) = self.known(key) else { return };
        let marked = Id::new(key, Known { is_untracked: true, ..known });
        if let Some(generation) = self.generations.iter_mut().find(|generation| generation.ids.contains(&marked)) {
            generation.ids.replace(marked);
        }
    }

    /// Remembers a key that is not known.
    pub fn remember(&mut self, key: u128, known: Known, now_micros: i64) {
        if self.window_micros == 0 {
            return;
        }
        self.turn(now_micros);
        if let Some(newest) = self.generations.back_mut() {
            newest.ids.insert(Id::new(key, known));
            newest.last_micros = now_micros;
        }
    }

    /// Forgets a key: its record was not stored after all.
    pub fn forget(&mut self, key: u128) {
        for generation in &mut self.generations {
            generation.ids.remove(&Id(key));
        }
    }

    /// Ids remembered.
    fn len(&self) -> usize {
        self.generations.iter().map(|generation| generation.ids.len()).sum()
    }

    /// Starts and forgets generations as time and number ask for.
    fn turn(&mut self, now_micros: i64) {
        let step = self.window_micros / GENERATIONS;
        let full = self.most / (GENERATIONS as usize + 1);
        let fresh = self
            .generations
            .back()
            .is_none_or(|newest| now_micros - newest.started_micros >= step || newest.ids.len() >= full.max(1));
        if !fresh {
            return;
        }
        self.generations.push_back(Generation {
            started_micros: now_micros,
            last_micros: now_micros,
            ids: HashSet::default(),
        });
        while self.generations.len() > 1 {
            let over = self.generations.len() > GENERATIONS as usize + 1 && self.len() >= self.most;
            let past =
                self.generations.front().is_some_and(|oldest| now_micros - oldest.last_micros >= self.window_micros);
            if !past && !over {
                break;
            }
            self.generations.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const WHOLE: Known = Known { is_open: false, is_untracked: false };

    #[test]
    fn an_id_is_known_for_the_whole_window_and_forgotten_after() {
        let mut recent = Recent::new(Keys::random(), 24, 1_000_000);
        let key = recent.keys().key("default", None, "a");
        assert!(recent.insert(key, WHOLE, 0));
        assert!(!recent.insert(key, WHOLE, HOUR));
        assert!(!recent.insert(key, WHOLE, 24 * HOUR - 1));
        for hour in 25..31 {
            recent.insert(recent.keys().key("default", None, &hour.to_string()), WHOLE, hour * HOUR);
        }
        assert!(recent.insert(key, WHOLE, 31 * HOUR));
    }

    #[test]
    fn organisations_and_workspaces_do_not_share_ids() {
        let mut recent = Recent::new(Keys::random(), 24, 1_000_000);
        let identities =
            [("a", None, "bc"), ("ab", None, "c"), ("b", None, "bc"), ("a", Some("b"), "bc"), ("a", Some("c"), "bc")];
        for (organisation, workspace, id) in identities {
            assert!(recent.insert(recent.keys().key(organisation, workspace, id), WHOLE, 0), "{workspace:?}");
        }
        assert!(!recent.insert(recent.keys().key("a", Some(""), "bc"), WHOLE, 0), "an empty name is no workspace");
    }

    #[test]
    fn number_of_ids_is_bounded() {
        let mut recent = Recent::new(Keys::random(), 24, 1_000);
        for id in 0..10_000_u32 {
            recent.insert(recent.keys().key("default", None, &id.to_string()), WHOLE, i64::from(id));
        }
        assert!(recent.len() <= 1_200, "{} ids", recent.len());
    }

    #[test]
    fn what_is_known_of_an_id_is_kept_with_it() {
        let mut recent = Recent::new(Keys::random(), 24, 1_000);
        for (place, (is_open, is_untracked)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let (key, known) = ((place as u128) << 64 | 0b11, Known { is_open, is_untracked });
            assert!(recent.insert(key, known, 0));
            assert!(!recent.insert(key, WHOLE, 0), "the first holds");
            assert_eq!(recent.known(key), Some(known));
        }
        assert_eq!(recent.known(9 << 64), None);
        recent.mark_untracked(2 << 64);
        assert_eq!(recent.known(2 << 64), Some(Known { is_open: true, is_untracked: true }));
    }
}
