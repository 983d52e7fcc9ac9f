//! The bounded list of refusals: bounded for each organisation and in total. The organisation with
//! the most entries loses its oldest ones first, so an organisation that is refused a million times
//! pushes out its own entries and not those of others.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::refusal::Refusal;

/// Most entries of one organisation.
const MAX_ENTRIES: usize = 1_000;
/// Most bytes of the entries of one organisation.
const MAX_BYTES: usize = 256 << 10;
/// Most bytes of the entries of all organisations.
const MAX_BYTES_OF_ALL: usize = 4 << 20;
/// Bytes that an organisation takes beside its entries.
const LIST_BYTES: usize = 256;

/// Entries by organisation.
#[derive(Debug)]
pub(super) struct Book {
    lists: HashMap<String, List>,
    /// Every organisation, ordered by its bytes.
    sizes: BTreeSet<(usize, String)>,
    bytes: usize,
    most_bytes: usize,
    /// Number of changes.
    changes: u64,
}

/// Entries of an organisation, oldest first.
#[derive(Debug, Default)]
struct List {
    entries: VecDeque<Refusal>,
    bytes: usize,
}

impl Default for Book {
    fn default() -> Self {
        Self::with_limit(MAX_BYTES_OF_ALL)
    }
}

impl Book {
    /// Creates an empty book with a limit in bytes.
    pub(super) fn with_limit(most_bytes: usize) -> Self {
        Self { lists: HashMap::new(), sizes: BTreeSet::new(), bytes: 0, most_bytes, changes: 0 }
    }

    /// Adds an entry, and drops entries that exceed the limits.
    pub(super) fn add(&mut self, entry: Refusal) {
        self.changes += 1;
        let organisation = entry.organisation.clone();
        self.change(&organisation, |list| {
            list.push(entry);
            while list.entries.len() > MAX_ENTRIES || list.bytes > MAX_BYTES {
                list.pop();
            }
        });
        while self.bytes > self.most_bytes {
            let Some((_, biggest)) = self.sizes.last().cloned() else { return };
            self.change(&biggest, List::pop);
        }
    }

    /// Keeps the entries for which `keep` returns true. `keep` may also change them.
    pub(super) fn retain(&mut self, keep: impl Fn(&mut Refusal) -> bool) {
        let organisations: Vec<String> = self.lists.keys().cloned().collect();
        let mut changed = false;
        for organisation in &organisations {
            self.change(organisation, |list| {
                let entries = list.entries.len();
                let bytes = list.bytes;
                list.entries.retain_mut(|entry| keep(entry));
                list.bytes = list.entries.iter().map(bytes_of).sum();
                changed |= (entries, bytes) != (list.entries.len(), list.bytes);
            });
        }
        self.changes += u64::from(changed);
    }

    /// Changes the list of an organisation, and updates its position in the order of sizes.
    fn change(&mut self, organisation: &str, change: impl FnOnce(&mut List)) {
        let mut list = self.lists.remove(organisation).unwrap_or_default();
        self.sizes.remove(&(list.size(), organisation.to_owned()));
        self.bytes -= list.size();
        change(&mut list);
        if list.entries.is_empty() {
            return;
        }
        self.bytes += list.size();
        self.sizes.insert((list.size(), organisation.to_owned()));
        self.lists.insert(organisation.to_owned(), list);
    }

    /// Returns the number of entries and the memory that they take.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.lists.values().map(|list| list.entries.len() as u64).sum(), self.bytes as u64)
    }

    /// Returns the entries by organisation, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Refusal> {
        self.lists.values().flat_map(|list| &list.entries)
    }

    /// Returns the number of changes so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

impl List {
    fn push(&mut self, entry: Refusal) {
        self.bytes += bytes_of(&entry);
        self.entries.push_back(entry);
    }

    fn pop(&mut self) {
        self.bytes -= self.entries.pop_front().as_ref().map_or(0, bytes_of);
    }

    /// Returns the memory that the list takes. An empty list is not kept.
    fn size(&self) -> usize {
        if self.entries.is_empty() { 0 } else { self.bytes + LIST_BYTES }
    }
}

/// Returns the memory that an entry takes.
fn bytes_of(entry: &Refusal) -> usize {
    let texts = [
        Some(&entry.organisation),
        entry.workspace.as_ref(),
        Some(&entry.field),
        Some(&entry.message),
    ];
    let texts = texts.into_iter().chain([entry.excerpt.as_ref()]).flatten();
    size_of::<Refusal>() + texts.map(String::len).sum::<usize>()
}
