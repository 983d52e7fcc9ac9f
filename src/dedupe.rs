//! Which ids arrived lately, so that a record sent twice is kept once.
//!
//! An id is remembered as a 128-bit keyed hash of organisation and id: short enough to keep millions, and no client can
//! make two ids collide, because the keys are random and never leave the process. Ids live in a few generations by age; a
//! generation is forgotten whole when all of it is older than the window, so an id is remembered for at least the window and
//! a quarter longer at most while records come in. Past the most ids allowed the oldest generation goes first, window or not.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use arrow::array::{Array, AsArray, RecordBatch};

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
    ids: HashSet<u128, BuildHasherDefault<Hashed>>,
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

impl Keys {
    /// Fresh random keys.
    pub fn random() -> Self {
        Self(RandomState::new(), RandomState::new())
    }

    /// The key of one id of one organisation.
    pub fn key(&self, organisation: &str, id: &str) -> u128 {
        let pair = (organisation, id);
        (u128::from(self.0.hash_one(pair)) << 64) | u128::from(self.1.hash_one(pair))
    }

    /// The keys of a batch's rows, which has the columns `organisation_id` and `id`.
    pub fn of_batch(&self, batch: &RecordBatch) -> Vec<u128> {
        let (Some(organisations), Some(ids)) = (batch.column_by_name("organisation_id"), batch.column_by_name("id"))
        else {
            return Vec::new();
        };
        let (organisations, ids) = (organisations.as_string_view(), ids.as_string_view());
        (0..ids.len()).map(|row| self.key(organisations.value(row), ids.value(row))).collect()
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

    /// Remembers a key; false if it was known already.
    pub fn insert(&mut self, key: u128, now_micros: i64) -> bool {
        if self.contains(key) {
            return false;
        }
        self.remember(key, now_micros);
        true
    }

    /// Whether a key is known.
    pub fn contains(&self, key: u128) -> bool {
        self.generations.iter().any(|generation| generation.ids.contains(&key))
    }

    /// Remembers a key that is not known.
    pub fn remember(&mut self, key: u128, now_micros: i64) {
        if self.window_micros == 0 {
            return;
        }
        self.turn(now_micros);
        if let Some(newest) = self.generations.back_mut() {
            newest.ids.insert(key);
            newest.last_micros = now_micros;
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

    #[test]
    fn an_id_is_known_for_the_whole_window_and_forgotten_after() {
        let mut recent = Recent::new(Keys::random(), 24, 1_000_000);
        let key = recent.keys().key("default", "a");
        assert!(recent.insert(key, 0));
        assert!(!recent.insert(key, HOUR));
        assert!(!recent.insert(key, 24 * HOUR - 1));
        for hour in 25..31 {
            recent.insert(recent.keys().key("default", &hour.to_string()), hour * HOUR);
        }
        assert!(recent.insert(key, 31 * HOUR));
    }

    #[test]
    fn organisations_do_not_share_ids() {
        let mut recent = Recent::new(Keys::random(), 24, 1_000_000);
        assert!(recent.insert(recent.keys().key("a", "bc"), 0));
        assert!(recent.insert(recent.keys().key("ab", "c"), 0));
        assert!(recent.insert(recent.keys().key("b", "bc"), 0));
    }

    #[test]
    fn number_of_ids_is_bounded() {
        let mut recent = Recent::new(Keys::random(), 24, 1_000);
        for id in 0..10_000_u32 {
            recent.insert(recent.keys().key("default", &id.to_string()), i64::from(id));
        }
        assert!(recent.len() <= 1_200, "{} ids", recent.len());
    }
}
