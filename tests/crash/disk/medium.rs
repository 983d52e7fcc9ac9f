//! The state of a disk: what programs see, what is durable, and what a power cut leaves of the
//! difference.
//!
//! Two models of names. POSIX: a name lasts once its own folder is synced; a rename between folders
//! needs both, and the old name never goes before the new one lasts. Ordered journal, as ext4 has
//! it: changes of names reach the disk in their order, and a sync of a file or folder carries over
//! everything up to the last change that concerns it.
//!
//! Contents are kept by pages of 4 KiB in both. A sync that fails leaves the pages clean: they are
//! never written unless they are written to again, so a second sync of the same file reports
//! success and changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::file::{Content, File};
use super::journal::{Op, Outcome};

/// Number of a file or folder.
pub type Id = u64;
/// The topmost folder.
pub const ROOT: Id = 0;
/// Names in a folder.
pub type Names = BTreeMap<String, Id>;

/// A file or a folder.
#[derive(Clone, Debug)]
pub enum Node {
    File(File),
    Folder { seen: Names, kept: Names },
}

/// A change of one folder that lasts or not as a whole.
#[derive(Clone, Debug)]
struct Unit {
    number: u64,
    folder: Id,
    /// A name that gets a file or folder, or that loses the one it has.
    changes: Vec<(String, Name)>,
    /// The change without which this one never lasts.
    needs: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Is(Id),
    Was(Id),
}

/// Model of the data that a power cut leaves if it was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Nothing that was not synced.
    Nothing,
    /// Any of it: each name, page and size by chance; with torn pages if the seed is odd.
    Subset { seed: u64 },
    /// A prefix of an ordered journal: the shortest that syncs allow.
    Journal,
    /// A longer prefix, by chance.
    LongerJournal { seed: u64 },
}

impl Model {
    pub fn is_ordered(self) -> bool {
        matches!(self, Self::Journal | Self::LongerJournal { .. })
    }
}

/// The state of a disk.
#[derive(Clone, Debug)]
pub struct Medium {
    is_ordered: bool,
    nodes: BTreeMap<Id, Node>,
    /// Changes of names that are seen and not durable, in order.
    pending: Vec<Unit>,
    settled: HashSet<u64>,
    next_unit: u64,
}

/// Contents of a disk after a power cut.
#[derive(Clone, Debug, Default)]
pub struct Image {
    folders: BTreeMap<Id, Names>,
    files: BTreeMap<Id, (Arc<Content>, i64)>,
}

impl Medium {
    /// An empty disk.
    pub fn empty(is_ordered: bool) -> Self {
        Image { folders: [(ROOT, Names::new())].into(), files: BTreeMap::new() }.medium(is_ordered)
    }

    pub fn names(&self, id: Id) -> Option<&Names> {
        match self.nodes.get(&id)? {
            Node::Folder { seen, .. } => Some(seen),
            Node::File(_) => None,
        }
    }

    pub fn file(&self, id: Id) -> Option<&File> {
        match self.nodes.get(&id)? {
            Node::File(file) => Some(file),
            Node::Folder { .. } => None,
        }
    }

    fn file_mut(&mut self, id: Id) -> &mut File {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file,
            _ => panic!("{id} is no file"),
        }
    }

    pub fn next_id(&self) -> Id {
        self.nodes.keys().next_back().map_or(1, |id| id + 1)
    }

    /// Does one operation.
    pub fn apply(&mut self, op: &Op, at_ms: i64) {
        match op {
            Op::Create { folder, name, id, is_folder } => {
                let node = match is_folder {
                    true => Node::Folder { seen: Names::new(), kept: Names::new() },
                    false => Node::File(File::of(Arc::default(), at_ms)),
                };
                self.nodes.insert(*id, node);
                self.change(*folder, vec![(name.clone(), Name::Is(*id))], None);
            }
            Op::Link { folder, name, id } => {
                self.change(*folder, vec![(name.clone(), Name::Is(*id))], None);
            }
            Op::Rename { from, to, id } if from.0 == to.0 => {
                let changes = vec![(to.1.clone(), Name::Is(*id)), (from.1.clone(), Name::Was(*id))];
                self.change(to.0, changes, None);
            }
            Op::Rename { from, to, id } => {
                let needs = self.change(to.0, vec![(to.1.clone(), Name::Is(*id))], None);
                self.change(from.0, vec![(from.1.clone(), Name::Was(*id))], Some(needs));
            }
            Op::Remove { folder, name, id } => {
                self.change(*folder, vec![(name.clone(), Name::Was(*id))], None);
            }
            Op::Append { file, bytes } => {
                let file = self.file_mut(*file);
                file.append(bytes);
                file.modified_ms = at_ms;
            }
            Op::Overwrite { file, bytes } => {
                let file = self.file_mut(*file);
                file.overwrite(bytes);
                file.modified_ms = at_ms;
            }
            Op::Truncate { file, size } => {
                let file = self.file_mut(*file);
                file.truncate(*size);
                file.modified_ms = at_ms;
            }
            Op::SyncFile { file, outcome: Outcome::Done } => {
                self.file_mut(*file).sync();
                if self.is_ordered {
                    self.settle_up_to(*file);
                }
            }
            Op::SyncFile { file, outcome } => self.file_mut(*file).fail_sync(*outcome),
            Op::SyncFolder { folder, outcome: Outcome::Done } if self.is_ordered => {
                self.settle_up_to(*folder);
            }
            Op::SyncFolder { folder, outcome: Outcome::Done } => self.settle_folder(*folder),
            Op::SyncFolder { folder, outcome: Outcome::Dropped } if !self.is_ordered => {
                self.pending.retain(|unit| unit.folder != *folder);
            }
            // A passing error: the names stay to be written.
            Op::SyncFolder { .. } => {}
        }
    }

    fn change(&mut self, folder: Id, changes: Vec<(String, Name)>, needs: Option<u64>) -> u64 {
        let Some(Node::Folder { seen, .. }) = self.nodes.get_mut(&folder) else {
            panic!("{folder} is no folder")
        };
        changes.iter().for_each(|change| change_names(seen, change));
        self.next_unit += 1;
        self.pending.push(Unit { number: self.next_unit, folder, changes, needs });
        self.next_unit
    }

    fn settle_folder(&mut self, folder: Id) {
        for unit in std::mem::take(&mut self.pending) {
            if unit.folder == folder && unit.needs.is_none_or(|needs| self.settled.contains(&needs))
            {
                self.settle(&unit);
            } else {
                self.pending.push(unit);
            }
        }
    }

    fn settle_up_to(&mut self, id: Id) {
        let concerns = |unit: &Unit| {
            let names = |(_, name): &(String, Name)| matches!(name, Name::Is(of) | Name::Was(of) if *of == id);
            unit.folder == id || unit.changes.iter().any(names)
        };
        let count = self.pending.iter().rposition(concerns).map_or(0, |last| last + 1);
        for unit in self.pending.drain(..count).collect::<Vec<_>>() {
            self.settle(&unit);
        }
    }

    fn settle(&mut self, unit: &Unit) {
        if let Some(Node::Folder { kept, .. }) = self.nodes.get_mut(&unit.folder) {
            unit.changes.iter().for_each(|change| change_names(kept, change));
        }
        self.settled.insert(unit.number);
    }

    /// Returns the contents of the disk if the power goes now.
    pub fn cut(&self, model: Model) -> Image {
        let seed = match model {
            Model::Subset { seed } | Model::LongerJournal { seed } => seed,
            Model::Nothing | Model::Journal => 0,
        };
        let mut random = SmallRng::seed_from_u64(seed);
        let mut folders: BTreeMap<Id, Names> = BTreeMap::new();
        for (id, node) in &self.nodes {
            if let Node::Folder { kept, .. } = node {
                folders.insert(*id, kept.clone());
            }
        }
        for unit in self.surviving(model, &mut random) {
            if let Some(names) = folders.get_mut(&unit.folder) {
                unit.changes.iter().for_each(|change| change_names(names, change));
            }
        }
        self.reached(folders, |file| file.cut(model, &mut random))
    }

    fn surviving(&self, model: Model, random: &mut SmallRng) -> Vec<&Unit> {
        match model {
            Model::Nothing | Model::Journal => Vec::new(),
            Model::LongerJournal { .. } => {
                let count = random.random_range(0..=self.pending.len());
                self.pending[..count].iter().collect()
            }
            Model::Subset { .. } => {
                let share = [0.1, 0.5, 0.9][random.random_range(0..3)];
                let mut settled = self.settled.clone();
                let mut survives = |unit: &&Unit| {
                    let can = unit.needs.is_none_or(|needs| settled.contains(&needs));
                    let does = can && random.random_bool(share);
                    if does {
                        settled.insert(unit.number);
                    }
                    does
                };
                self.pending.iter().filter(|unit| survives(unit)).collect()
            }
        }
    }

    fn reached(
        &self,
        mut folders: BTreeMap<Id, Names>,
        mut content: impl FnMut(&File) -> Arc<Content>,
    ) -> Image {
        let (mut image, mut queue) = (Image::default(), vec![ROOT]);
        while let Some(id) = queue.pop() {
            match self.nodes.get(&id) {
                Some(Node::File(file)) => {
                    image.files.entry(id).or_insert_with(|| (content(file), file.modified_ms));
                }
                Some(Node::Folder { .. }) => {
                    let names = folders.remove(&id).unwrap_or_default();
                    queue.extend(names.values().copied());
                    image.folders.insert(id, names);
                }
                None => panic!("{id} is named and does not exist"),
            }
        }
        image
    }
}

fn change_names(names: &mut Names, (name, change): &(String, Name)) {
    match change {
        Name::Is(id) => {
            names.insert(name.clone(), *id);
        }
        Name::Was(id) if names.get(name) == Some(id) => {
            names.remove(name);
        }
        Name::Was(_) => {}
    }
}

impl Image {
    /// A disk that holds it, all durable.
    pub fn medium(&self, is_ordered: bool) -> Medium {
        let folders = self.folders.iter().map(|(id, names)| {
            let (seen, kept) = (names.clone(), names.clone());
            (*id, Node::Folder { seen, kept })
        });
        let files = self.files.iter();
        let files =
            files.map(|(id, (content, at))| (*id, Node::File(File::of(Arc::clone(content), *at))));
        let nodes = folders.chain(files).collect();
        Medium { is_ordered, nodes, pending: Vec::new(), settled: HashSet::new(), next_unit: 0 }
    }

    /// Tells images apart. Folders of files that have no name yet are left out: an open empties
    /// them unread.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.add_folder(ROOT, &mut hash);
        hash.finalize().into()
    }

    fn add_folder(&self, id: Id, hash: &mut Sha256) {
        for (name, id) in self.folders.get(&id).into_iter().flatten() {
            if name == gatelog::store::staged::STAGING {
                continue;
            }
            hash.update(name.as_bytes());
            match self.files.get(id) {
                Some((content, _)) => {
                    hash.update([0, 1]);
                    hash.update(content.digest());
                }
                None => {
                    hash.update([0, 2]);
                    self.add_folder(*id, hash);
                    hash.update([0, 3]);
                }
            }
        }
    }

    /// Every path with its size, for a message.
    pub fn listing(&self) -> String {
        let mut lines = Vec::new();
        self.list_folder(ROOT, "", &mut lines);
        lines.join("\n")
    }

    fn list_folder(&self, id: Id, above: &str, lines: &mut Vec<String>) {
        for (name, id) in self.folders.get(&id).into_iter().flatten() {
            let path = format!("{above}/{name}");
            match self.files.get(id) {
                Some((content, _)) => lines.push(format!("  {path} {}", content.bytes.len())),
                None => {
                    lines.push(format!("  {path}/"));
                    self.list_folder(*id, &path, lines);
                }
            }
        }
    }
}
