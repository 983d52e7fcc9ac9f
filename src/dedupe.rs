//! Remembers the ids of recently arrived records, so that a record that is sent twice is stored
//! once.
//!
//! An id is remembered as a 128-bit keyed hash: 32 bits of its organisation, and 96 bits of
//! organisation, workspace and id. So each workspace has ids of its own, separate from those of
//! records without a workspace. The hash is short enough to keep millions, and no client can make
//! two ids collide, because the hash keys are random and never leave the process. Each organisation
//! has a memory of its own, in blocks in the order of arrival. A block is dropped when all of it is
//! older than the window, so an id is remembered for at least the window, and at most a quarter
//! longer while records of its organisation arrive.
//!
//! Above the maximum number of ids, the organisation with the most ids drops its oldest block, even
//! within the window. So an organisation that sends endless ids drops its own, and one with fewer
//! than an equal part of the memory drops none. Two bits of each key hold the state of its record
//! ([`SeenState`]), which takes no extra memory.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{self, Write};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher, RandomState};

use arrow::array::{Array, AsArray, RecordBatch};

use crate::ingest::DEFAULT_ORGANISATION;
use crate::record::Record;

/// A block of ids is closed after this fraction (1/n) of the window.
const BLOCKS_IN_WINDOW: i64 = 4;
/// Maximum ids of a block: it is dropped in one step, while writers wait.
const BLOCK_IDS: usize = 4_096;
/// A block is also at most this fraction (1/n) of all ids.
const BLOCKS_IN_ALL: usize = 8;
/// Number of sets for the ids of one organisation, so that growing one of them is quick.
const SETS: usize = 16;

/// The ids of a window of time.
#[derive(Debug)]
pub(crate) struct DedupWindow {
    keys: KeyHasher,
    organisations: HashMap<u32, Ids, BuildHasherDefault<Hashed>>,
    /// Ids of all organisations.
    len: usize,
    window_micros: i64,
    max_ids: usize,
}

/// The ids of one organisation.
#[derive(Debug, Default)]
struct Ids {
    sets: [HashSet<Id, BuildHasherDefault<Hashed>>; SETS],
    /// The same ids in the order of their arrival, the newest block last.
    blocks: VecDeque<Block>,
    len: usize,
}

#[derive(Debug)]
struct Block {
    started_micros: i64,
    last_micros: i64,
    ids: Vec<Id>,
}

/// Computes keys of ids. Cheap to clone, so that callers hash on their own threads.
#[derive(Clone, Debug)]
pub(crate) struct KeyHasher(RandomState, RandomState);

/// Remembered state of an id whose record is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenState {
    /// True if parts of the record may still arrive, because it was stored before all of them.
    pub is_open: bool,
    /// True if no content of its call may be kept.
    pub is_untracked: bool,
}

/// The bits of a key that hold [`SeenState`].
const KNOWN_BITS: u32 = 0b11;

/// The part of a key that identifies an id within its organisation, with the state of its record in
/// the last bits. Two are equal if their ids are. Stored in three words, because there are millions
/// of them.
#[derive(Clone, Copy, Debug)]
struct Id([u32; 3]);

impl Id {
    fn new(key: u128, known: SeenState) -> Self {
        let known = (u32::from(known.is_untracked) << 1) | u32::from(known.is_open);
        Self([(key >> 64) as u32, (key >> 32) as u32, (key as u32 & !KNOWN_BITS) | known])
    }

    fn known(self) -> SeenState {
        SeenState { is_open: self.0[2] & 0b01 != 0, is_untracked: self.0[2] & 0b10 != 0 }
    }

    /// Returns the words without the state.
    fn words(self) -> [u32; 3] {
        let [high, middle, low] = self.0;
        [high, middle, low & !KNOWN_BITS]
    }

    /// Returns the number of the set that holds the id.
    fn set(self) -> usize {
        // Not the bits by which a set orders its ids.
        self.0[0] as usize % SETS
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Eq for Id {}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [_, middle, low] = self.words();
        // Sets choose a slot by the last bits, and those of `low` are taken.
        state.write_u64((u64::from(low) << 32) | u64::from(middle));
    }
}

/// Returns the number of a key's organisation: 32 bits of a keyed hash. Two organisations with the
/// same number share a memory.
pub(crate) fn organisation_of(key: u128) -> u32 {
    (key >> 96) as u32
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
    fn write_u32(&mut self, key: u32) {
        // Maps use both the first and the last bits.
        self.0 = (u64::from(key) << 32) | u64::from(key);
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
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

/// Returns the id of a state of feedback. It shares the memory of record ids, and no id of a record
/// begins with this prefix by chance.
pub(crate) fn feedback_id(id: &str, updated_micros: i64) -> String {
    format!("feedback/{updated_micros}/{id}")
}

impl KeyHasher {
    /// Creates fresh random hash keys.
    pub(crate) fn random() -> Self {
        Self(RandomState::new(), RandomState::new())
    }

    /// Returns the key of an id in a workspace of an organisation, or outside any workspace. An
    /// empty name means no workspace.
    pub(crate) fn key(&self, organisation: &str, workspace: Option<&str>, id: &str) -> u128 {
        let identity = (organisation, workspace.filter(|workspace| !workspace.is_empty()), id);
        joined(
            self.organisation(organisation),
            self.0.hash_one(identity),
            self.1.hash_one(identity),
        )
    }

    /// Returns the key of a record.
    pub(crate) fn key_of(&self, record: &Record) -> u128 {
        let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
        self.key(
            organisation,
            record.workspace_slug.as_deref(),
            record.id.as_deref().unwrap_or_default(),
        )
    }

    /// Returns the key of the whole content of a value of an organisation, by its `Debug` form.
    pub(crate) fn key_of_all(&self, organisation: &str, value: &impl fmt::Debug) -> u128 {
        let mut text = Hashing(self.0.build_hasher(), self.1.build_hasher());
        // Neither hashing nor the derived form fails.
        let _ = write!(text, "{value:?}");
        joined(self.organisation(organisation), text.0.finish(), text.1.finish())
    }

    /// Returns the number of an organisation.
    fn organisation(&self, name: &str) -> u32 {
        self.0.hash_one(name) as u32
    }

    /// Returns the keys of the rows of a batch with the columns `organisation_id`, `workspace_slug`
    /// and `id`.
    pub(crate) fn keys_of_batch(&self, batch: &RecordBatch) -> Vec<u128> {
        let text = |name: &str| batch.column_by_name(name).map(|column| column.as_string_view());
        let (Some(organisations), Some(workspaces), Some(ids)) =
            (text("organisation_id"), text("workspace_slug"), text("id"))
        else {
            return Vec::new();
        };
        let workspace = |row| workspaces.is_valid(row).then(|| workspaces.value(row));
        (0..ids.len())
            .map(|row| self.key(organisations.value(row), workspace(row), ids.value(row)))
            .collect()
    }
}

/// Joins the parts of a key.
fn joined(organisation: u32, high: u64, low: u64) -> u128 {
    (u128::from(organisation) << 96) | (u128::from(high as u32) << 64) | u128::from(low)
}

impl DedupWindow {
    /// Creates an empty window. A window of 0 hours turns the check off.
    pub(crate) fn new(keys: KeyHasher, window_hours: u64, max_ids: u64) -> Self {
        let window_micros = i64::try_from(window_hours)
            .unwrap_or(i64::MAX / 3_600_000_000)
            .saturating_mul(3_600_000_000);
        let max_ids = usize::try_from(max_ids).unwrap_or(usize::MAX);
        Self { keys, organisations: HashMap::default(), len: 0, window_micros, max_ids }
    }

    /// Returns the hasher for the keys of this window.
    pub(crate) fn keys(&self) -> &KeyHasher {
        &self.keys
    }

    /// Remembers a key. Returns false if it was known already; its earlier state then stays.
    pub(crate) fn insert(&mut self, key: u128, known: SeenState, now_micros: i64) -> bool {
        if self.contains(key) {
            return false;
        }
        self.remember(key, known, now_micros);
        true
    }

    /// Returns true if a key is known.
    pub(crate) fn contains(&self, key: u128) -> bool {
        self.known(key).is_some()
    }

    /// Returns the state of a key, or `None` if it is not known.
    pub(crate) fn known(&self, key: u128) -> Option<SeenState> {
        self.organisations
            .get(&organisation_of(key))?
            .get(Id::new(key, SeenState::default()))
            .map(Id::known)
    }

    /// Notes for a known key that no content of its call may be kept.
    pub(crate) fn mark_untracked(&mut self, key: u128) {
        let Some(known) = self.known(key) else { return };
        let marked = Id::new(key, SeenState { is_untracked: true, ..known });
        if let Some(ids) = self.organisations.get_mut(&organisation_of(key)) {
            ids.sets[marked.set()].replace(marked);
        }
    }

    /// Remembers a key that is not known.
    pub(crate) fn remember(&mut self, key: u128, known: SeenState, now_micros: i64) {
        if self.window_micros == 0 {
            return;
        }
        let block_ids = BLOCK_IDS.min(self.max_ids / BLOCKS_IN_ALL).max(1);
        let block_micros = self.window_micros / BLOCKS_IN_WINDOW;
        let ids = self.organisations.entry(organisation_of(key)).or_default();
        let is_full = |newest: &Block| {
            newest.ids.len() >= block_ids || now_micros - newest.started_micros >= block_micros
        };
        if ids.blocks.back().is_none_or(is_full) {
            self.len -= ids.forget_past(now_micros, self.window_micros);
            ids.blocks.push_back(Block {
                started_micros: now_micros,
                last_micros: now_micros,
                ids: Vec::new(),
            });
        }
        self.len += ids.insert(Id::new(key, known), now_micros);
        while self.len > self.max_ids && self.forget_block(now_micros) {}
    }

    /// Forgets a key whose record was not stored after all.
    pub(crate) fn forget(&mut self, key: u128) {
        if let Some(ids) = self.organisations.get_mut(&organisation_of(key)) {
            // The id stays in its block: if it arrives again, it is dropped with that block,
            // slightly early.
            self.len -= ids.remove(Id::new(key, SeenState::default()));
        }
    }

    /// Drops the oldest block of an organisation whose window is over, or otherwise of the one with
    /// the most ids. Returns false if there is none.
    fn forget_block(&mut self, now_micros: i64) -> bool {
        let window = self.window_micros;
        let is_past = |ids: &Ids| {
            ids.blocks.front().is_some_and(|oldest| now_micros - oldest.last_micros >= window)
        };
        let fullest = self
            .organisations
            .iter()
            .max_by_key(|(_, ids)| (is_past(ids), ids.len))
            .map(|(number, _)| *number);
        let Some((number, ids)) =
            fullest.and_then(|number| Some((number, self.organisations.get_mut(&number)?)))
        else {
            return false;
        };
        let Some(oldest) = ids.blocks.pop_front() else { return false };
        self.len -= oldest.ids.into_iter().map(|id| ids.remove(id)).sum::<usize>();
        if ids.blocks.is_empty() {
            // The remaining ids have no block: they were forgotten once and arrived again.
            self.len -= ids.len;
            self.organisations.remove(&number);
        }
        true
    }
}

impl Ids {
    fn get(&self, id: Id) -> Option<Id> {
        self.sets[id.set()].get(&id).copied()
    }

    /// Adds an id to the newest block. Returns the number of added ids.
    fn insert(&mut self, id: Id, now_micros: i64) -> usize {
        let Some(newest) = self.blocks.back_mut() else { return 0 };
        newest.ids.push(id);
        newest.last_micros = now_micros;
        let added = usize::from(self.sets[id.set()].insert(id));
        self.len += added;
        added
    }

    /// Removes an id. Returns the number of removed ids.
    fn remove(&mut self, id: Id) -> usize {
        let removed = usize::from(self.sets[id.set()].remove(&id));
        self.len -= removed;
        removed
    }

    /// Drops the oldest blocks whose window is over, a few at a time. Returns the number of removed
    /// ids.
    fn forget_past(&mut self, now_micros: i64, window_micros: i64) -> usize {
        let mut removed = 0;
        for _ in 0..BLOCKS_IN_WINDOW {
            let is_past = |oldest: &Block| now_micros - oldest.last_micros >= window_micros;
            if !self.blocks.front().is_some_and(is_past) {
                break;
            }
            let oldest = self.blocks.pop_front();
            removed += oldest
                .into_iter()
                .flat_map(|oldest| oldest.ids)
                .map(|id| self.remove(id))
                .sum::<usize>();
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const WHOLE: SeenState = SeenState { is_open: false, is_untracked: false };

    #[test]
    fn an_id_is_known_for_the_whole_window_and_forgotten_afterwards() {
        let mut recent = DedupWindow::new(KeyHasher::random(), 24, 1_000_000);
        let key = recent.keys().key("default", None, "a");
        assert!(recent.insert(key, WHOLE, 0));
        assert!(!recent.insert(key, WHOLE, HOUR));
        assert!(!recent.insert(key, WHOLE, 24 * HOUR - 1));
        for hour in 25..31 {
            recent.insert(
                recent.keys().key("default", None, &hour.to_string()),
                WHOLE,
                hour * HOUR,
            );
        }
        assert!(recent.insert(key, WHOLE, 31 * HOUR));
    }

    #[test]
    fn organisations_and_workspaces_do_not_share_ids() {
        let mut recent = DedupWindow::new(KeyHasher::random(), 24, 1_000_000);
        let identities = [
            ("a", None, "bc"),
            ("ab", None, "c"),
            ("b", None, "bc"),
            ("a", Some("b"), "bc"),
            ("a", Some("c"), "bc"),
        ];
        for (organisation, workspace, id) in identities {
            assert!(
                recent.insert(recent.keys().key(organisation, workspace, id), WHOLE, 0),
                "{workspace:?}"
            );
        }
        assert!(
            !recent.insert(recent.keys().key("a", Some(""), "bc"), WHOLE, 0),
            "an empty name is no workspace"
        );
    }

    #[test]
    fn number_of_ids_is_bounded() {
        let mut recent = DedupWindow::new(KeyHasher::random(), 24, 1_000);
        for id in 0..10_000_u32 {
            recent.insert(
                recent.keys().key("default", None, &id.to_string()),
                WHOLE,
                i64::from(id),
            );
        }
        assert!((800..=1_000).contains(&recent.len), "{} ids", recent.len);
    }

    #[test]
    fn an_organisation_that_sends_endless_ids_forgets_its_own() {
        let mut recent = DedupWindow::new(KeyHasher::random(), 24, 8_000);
        let of = |recent: &DedupWindow, name: &str, id: u32| {
            recent.keys().key(name, None, &id.to_string())
        };
        for id in 0..3_000 {
            recent.insert(of(&recent, "zen", id), WHOLE, i64::from(id));
        }
        for id in 0..100_000 {
            recent.insert(of(&recent, "acme", id), WHOLE, 5_000 + i64::from(id));
        }
        assert!((0..3_000).all(|id| recent.contains(of(&recent, "zen", id))));
        assert!(
            !recent.contains(of(&recent, "acme", 0))
                && recent.contains(of(&recent, "acme", 99_999))
        );
        assert!(recent.len <= 8_000, "{}", recent.len);
        let sum: usize = recent.organisations.values().map(|ids| ids.len).sum();
        assert_eq!(recent.len, sum);
        for name in 0..10_000 {
            recent.insert(of(&recent, &format!("one of many {name}"), 0), WHOLE, 200_000);
        }
        assert!(recent.len <= 8_000 && recent.organisations.len() <= 8_000, "{}", recent.len);
    }

    #[test]
    fn a_forgotten_id_is_new_again_and_the_count_is_right() {
        let mut recent = DedupWindow::new(KeyHasher::random(), 24, 1_000);
        let keys: Vec<u128> =
            (0..100).map(|id: u32| recent.keys().key("a", None, &id.to_string())).collect();
        for _ in 0..3 {
            keys.iter().for_each(|key| assert!(recent.insert(*key, WHOLE, 0)));
            keys.iter().for_each(|key| recent.forget(*key));
        }
        assert_eq!(recent.len, 0);
        for id in 0..5_000_u32 {
            recent.insert(recent.keys().key("b", None, &id.to_string()), WHOLE, 25 * HOUR);
            recent.insert(recent.keys().key("a", None, &id.to_string()), WHOLE, 25 * HOUR);
        }
        assert_eq!(recent.len, recent.organisations.values().map(|ids| ids.len).sum::<usize>());
        assert!(recent.len <= 1_000);
    }

    #[test]
    fn the_state_of_an_id_is_kept_with_it() {
        let mut recent = DedupWindow::new(KeyHasher::random(), 24, 1_000);
        for (place, (is_open, is_untracked)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let key = (place as u128) << 64 | 0b11;
            let known = SeenState { is_open, is_untracked };
            assert!(recent.insert(key, known, 0));
            assert!(!recent.insert(key, WHOLE, 0), "the first state stays");
            assert_eq!(recent.known(key), Some(known));
        }
        assert_eq!(recent.known(9 << 64), None);
        recent.mark_untracked(2 << 64);
        assert_eq!(recent.known(2 << 64), Some(SeenState { is_open: true, is_untracked: true }));
    }
}
