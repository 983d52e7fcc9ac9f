//! List of all places where gatelog keeps rows of clients or data derived from them, with the
//! effect of an erasure on each.
//!
//! Every new place must be added to [`PLACES`]. One test erases records, runs maintenance and
//! searches every remaining file; another fails for a file outside of these places.

/// Root of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The store: the data folder or the bucket.
    Store,
    /// The folder of the log, on the node's disk.
    Log,
}

/// Effect of an erasure on a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// It holds no content of records.
    NoContent,
    /// Maintenance rewrites its files, and vacuum deletes the old ones after the grace time.
    Rewritten,
    /// The catalog withdraws the entries that may hold the records, and maintenance deletes the
    /// files.
    Withdrawn,
    /// A flush moves its rows into a table before maintenance rewrites the files.
    Flushed,
    /// Copies of files that no table lists any more are deleted after each change of a table.
    Swept,
    /// It holds rows only during an operation. The next start deletes the files of a killed
    /// process.
    EmptiedAtStart,
    /// Its files are unlinked when they are created, so they disappear with the process.
    Nameless,
}

/// A place that may hold data of clients.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Root of the place.
    pub root: Root,
    /// Name of the file or folder.
    pub name: &'static str,
    /// Effect of an erasure.
    pub erasure: Erasure,
}

const fn place(root: Root, name: &'static str, erasure: Erasure) -> Place {
    Place { root, name, erasure }
}

/// All places.
pub const PLACES: [Place; 21] = [
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
    place(Root::Log, "id, store.json, table, catalog, claim.json", Erasure::NoContent),
    place(Root::Log, "gatelog.lock", Erasure::NoContent),
    place(Root::Log, super::LAST_NOTES, Erasure::NoContent),
    place(Root::Log, "adopting", Erasure::Flushed),
    place(Root::Log, super::CACHE, Erasure::Swept),
    place(Root::Log, "spill", Erasure::Nameless),
];
