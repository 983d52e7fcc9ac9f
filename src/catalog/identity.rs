//! The identity of a store: a UUID in its catalog that distinguishes it from every other store and
//! from its copies. Pure.
//!
//! The id of a Delta table cannot serve: the data files and Delta logs of a copy equal those of its
//! source byte for byte. The write-ahead log of a store notes the same UUID (`wal::Home`), so that
//! it is never taken for the log of a copy.

use serde::{Deserialize, Serialize};

/// Stands for a source that had no UUID when it was copied.
const UNKNOWN: &str = "unknown";
/// Most sources that an identity lists.
const MAX_SOURCES: usize = 16;

/// The identity of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// UUID of the store.
    pub id: String,
    /// Stores that it was copied from, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_of: Vec<String>,
    /// True while `gatelog copy` fills the store: some objects are still missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
}

impl Identity {
    /// Creates the identity of a store that is not a copy.
    pub fn new(id: String) -> Self {
        Self { id, copy_of: Vec::new(), unfinished: false }
    }

    /// Returns the identity that the target of a copy has after the copy: its own, or `new_id` if
    /// it has none. Returns `None` if the target is neither an earlier copy of the same source nor
    /// a store that the source was copied from.
    pub fn for_copy(source: Option<&Self>, target: Option<&Self>, new_id: String) -> Option<Self> {
        let nearest = source.map_or(UNKNOWN, |source| source.id.as_str());
        let sources = source.into_iter().flat_map(|source| source.copy_of.iter().cloned());
        let copy_of: Vec<String> =
            [nearest.to_owned()].into_iter().chain(sources).take(MAX_SOURCES).collect();
        match target {
            None => Some(Self { id: new_id, copy_of, unfinished: false }),
            Some(target)
                if target
                    .copy_of
                    .first()
                    .is_some_and(|first| first == nearest || first == UNKNOWN) =>
            {
                Some(Self { id: target.id.clone(), copy_of, unfinished: false })
            }
            // A restore over the original, possibly from a plain copy of it: the original keeps its
            // log.
            Some(target)
                if source.is_some_and(|source| {
                    source.id == target.id || source.descends_from(&target.id)
                }) =>
            {
                Some(Self { unfinished: false, ..target.clone() })
            }
            Some(_) => None,
        }
    }

    /// Returns true if the store is a direct or indirect copy of store `id`.
    fn descends_from(&self, id: &str) -> bool {
        self.copy_of.iter().any(|source| source == id || source == UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(
        source: Option<&Identity>,
        target: Option<&Identity>,
        new_id: &str,
    ) -> Option<Identity> {
        Identity::for_copy(source, target, new_id.to_owned())
    }

    #[test]
    fn a_copy_has_an_id_of_its_own_and_keeps_it_when_it_is_repeated() {
        let original = Identity::new("a".to_owned());
        let backup = copied(Some(&original), None, "b").unwrap();
        assert_eq!((backup.id.as_str(), backup.copy_of.as_slice()), ("b", &["a".to_owned()][..]));
        assert_eq!(copied(Some(&original), Some(&backup), "x"), Some(backup.clone()));
        let half = Identity { unfinished: true, ..backup.clone() };
        assert_eq!(copied(Some(&original), Some(&half), "x"), Some(backup.clone()));
        let of_backup = copied(Some(&backup), None, "c").unwrap();
        assert_eq!(of_backup.copy_of, ["b", "a"]);
        assert_eq!(
            copied(Some(&original), Some(&of_backup), "x"),
            None,
            "it is a copy of another store"
        );
    }

    #[test]
    fn a_restored_copy_leaves_the_original_its_identity() {
        let original = Identity::new("a".to_owned());
        let backup = copied(Some(&original), None, "b").unwrap();
        let second = copied(Some(&backup), None, "c").unwrap();
        for source in [&backup, &second, &original] {
            assert_eq!(copied(Some(source), Some(&original), "x"), Some(original.clone()));
        }
        let stranger = Identity::new("s".to_owned());
        assert_eq!(copied(Some(&backup), Some(&stranger), "x"), None);
        assert_eq!(copied(Some(&original), Some(&stranger), "x"), None);
    }

    #[test]
    fn a_source_without_an_id_is_noted_too() {
        let backup = copied(None, None, "b").unwrap();
        assert_eq!(backup.copy_of, [UNKNOWN]);
        assert_eq!(copied(None, Some(&backup), "x"), Some(backup.clone()));
        let later = Identity::new("a".to_owned());
        assert_eq!(copied(Some(&later), Some(&backup), "x").unwrap().copy_of, ["a"]);
        assert_eq!(copied(Some(&backup), Some(&later), "x"), Some(later));
    }
}
