//! Every place where gatelog keeps rows of clients, or what was made of them, and how each is kept
//! free of erased rows.
//!
//! Whoever adds a place adds it to [`PLACES`]: a test erases records, runs upkeep, and then looks
//! into every file that is left, and another test refuses a file that lies in none of these places.

/// Where a place lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// In the store: the data folder or the bucket.
    Store,
    /// In the folder of the log, on the node's disk.
    Log,
}

/// What an erasure does to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// It holds no content of records.
    NoContent,
    /// Upkeep rewrites its files, and vacuum deletes the old ones after the grace time.
    Rewritten,
    /// The catalog withdraws what may hold the records, and upkeep deletes the files.
    Withdrawn,
    /// A flush moves its rows into a table, before upkeep goes through the files.
    Flushed,
    /// What was copied of files that no table names any more is deleted after each change of a
    /// table.
    Swept,
    /// It holds rows only while they are worked on; what a process that was killed left is deleted
    /// at the next start.
    EmptiedAtStart,
    /// Its files lose their names when they are created, so they go with the process.
    Nameless,
}

/// A place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where it lies.
    pub root: Root,
    /// Name of the file or folder.
    pub name: &'static str,
    /// What an erasure does to it.
    pub erasure: Erasure,
}

const fn place(root: Root, name: &'static str, erasure: Erasure) -> Place {
    Place { root, name, erasure }
}

/// All of them.
pub const PLACES: [Place; 20] = [
    place(Root::Store, "logs", Erasure::Rewritten),
    place(Root::Store, "feedback", Erasure::Rewritten),
    place(Root::Store, "exports", Erasure::Withdrawn),
    place(Root::Store, "refusals", Erasure::Withdrawn),
    place(Root::Store, "catalog.json", Erasure::NoContent),
    place(Root::Store, "catalog.lock", Erasure::NoContent),
    place(Root::Store, "usage", Erasure::NoContent),
    place(Root::Store, "upkeep.json", Erasure::NoContent),
    place(Root::Store, "nodes", Erasure::NoContent),
    place(Root::Store, "gatelog.lock", Erasure::NoContent),
    place(Root::Store, super::staged::STAGING, Erasure::EmptiedAtStart),
    place(Root::Store, "wal", Erasure::Flushed),
    place(Root::Store, super::LAST_NOTES, Erasure::NoContent),
    place(Root::Log, "*.wal", Erasure::Flushed),
    place(Root::Log, "*.new", Erasure::EmptiedAtStart),
    place(Root::Log, "id, store.json, table, catalog", Erasure::NoContent),
    place(Root::Log, "gatelog.lock", Erasure::NoContent),
    place(Root::Log, super::LAST_NOTES, Erasure::NoContent),
    place(Root::Log, super::CACHE, Erasure::Swept),
    place(Root::Log, "spill", Erasure::Nameless),
];
