//! Decides if a log and a store belong together, before either is written to.
//!
//! Both carry the store's UUID ([`Identity`], [`Home`]), and the log notes the place where the
//! store was last used. A log of another store is always refused. The same store at another place
//! may be a copy made by other tools than `gatelog copy`, so it is refused until `gatelog wal
//! rebind` confirms that it was moved. A log inside its own data folder may move with it. Stores
//! and logs of versions without UUIDs get one at their first open.
//!
//! [`meet`] decides from the state that was read ([`Meeting`]). [`settle`] writes, and [`check`] is
//! for read-only callers.

use std::path::Path;

use uuid::Uuid;

use super::dependencies::random_bytes;
use crate::catalog::{Catalog, Document, Identity};
use crate::error::{Error, Result};
use crate::record::Rows;
use crate::store::Store;
use crate::store::disk::LocalDisk;
use crate::store::folders::Folders;
use crate::table::Table;
use crate::wal::{self, Home};

/// A log: its folder, and the folders of the disk that it is on.
type Log<'a> = (&'a Folders, &'a Path);

/// The file beside a log that names the Delta table that it is for.
const TABLE_MARK: &str = "table";
/// The file beside a log that says that the store has a catalog.
const CATALOG_MARK: &str = "catalog";

/// A log without a note about its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unnoted {
    /// It was never used.
    New,
    /// A version without notes used it, apparently with this store.
    Used,
    /// A version without notes used it with a bucket, or with another table.
    Foreign,
}

/// State of a log and a store, from which [`meet`] decides.
#[derive(Clone, Copy, Debug)]
struct Meeting<'a> {
    /// Identity of the store.
    identity: Option<&'a Identity>,
    /// Place of the store.
    place: &'a str,
    /// The log's note, or the state of a log without one.
    home: std::result::Result<&'a Home, Unnoted>,
    /// True if the log lies inside the data folder.
    is_inside: bool,
    /// True if the log was used with the table of this store; read only where the store has no
    /// UUID.
    is_same_table: bool,
}

/// Decision about a log and a store.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// They belong together, and both notes say so.
    Bound,
    /// They belong together, and the notes are to be written: the UUID of the store, or `None` for
    /// a new one.
    Bind(Option<String>),
    /// The log is of another store.
    Other,
    /// The log is of this store, but was last used for it at another place.
    Moved,
}

fn meet(meeting: Meeting<'_>) -> Verdict {
    let Meeting { identity, place, home, is_inside, is_same_table } = meeting;
    let known = identity.map(|identity| identity.id.clone());
    match home {
        Err(Unnoted::Foreign) => Verdict::Other,
        // That version knew no copies, so the log belongs to the source.
        Err(Unnoted::Used)
            if !is_inside && identity.is_some_and(|identity| !identity.copy_of.is_empty()) =>
        {
            Verdict::Other
        }
        Err(_) => Verdict::Bind(known),
        Ok(home) if known.as_ref().is_some_and(|known| *known != home.store) => Verdict::Other,
        Ok(home) if home.place == place && known.is_some() => Verdict::Bound,
        Ok(home) if home.place == place || is_inside => Verdict::Bind(Some(home.store.clone())),
        Ok(_) if known.is_none() && !is_same_table => Verdict::Other,
        Ok(_) => Verdict::Moved,
    }
}

/// State of a log and a store as it was read.
struct Found {
    identity: Option<Identity>,
    place: String,
    home: std::result::Result<Home, Unnoted>,
    is_inside: bool,
    is_same_table: bool,
}

impl Found {
    async fn read(store: &Store, log: Log<'_>, catalog: &Catalog) -> Result<Self> {
        let (folders, folder) = log;
        let home = match wal::read_home(&**folders.disk(), folder)? {
            Some(home) => Ok(home),
            None => Err(unnoted(store, log).await?),
        };
        let identity = catalog.state().document.store.clone();
        let is_same_table = identity.is_some() || bound_table(log)? == table_id(store).await?;
        Ok(Self {
            identity,
            place: store.place(),
            home,
            is_inside: is_inside(store, folder),
            is_same_table,
        })
    }

    fn verdict(&self) -> Verdict {
        let home = self.home.as_ref().map_err(|unnoted| *unnoted);
        meet(Meeting {
            identity: self.identity.as_ref(),
            place: &self.place,
            home,
            is_inside: self.is_inside,
            is_same_table: self.is_same_table,
        })
    }

    /// Returns the error for a log that does not belong to this store.
    fn other(&self, folder: &Path) -> Error {
        let folder = folder.display();
        let place = &self.place;
        let whose = match &self.home {
            Ok(home) => {
                format!("it was last used for `{}` (store {}), and ", home.place, home.store)
            }
            Err(_) => String::new(),
        };
        let this = self
            .identity
            .as_ref()
            .map_or_else(String::new, |identity| format!(" (store {})", identity.id));
        Error::invalid(format!(
            "the write-ahead log `{folder}` is of other data: {whose}this is `{place}`{this}; name another folder with the \
             setting `wal`"
        ))
    }

    /// Returns the error for a store that may have moved.
    fn moved(&self, folder: &Path) -> Error {
        let folder = folder.display();
        let place = &self.place;
        let before = self.home.as_ref().map_or("", |home| home.place.as_str());
        Error::invalid(format!(
            "the write-ahead log `{folder}` was last used for the same store at `{before}`, and this is `{place}`: if the data \
             was moved, confirm it with `gatelog wal rebind`; if this is a copy, name another folder with the setting `wal`"
        ))
    }
}

/// Returns the state of a log without a note.
async fn unnoted(store: &Store, log: Log<'_>) -> Result<Unnoted> {
    let (folders, folder) = log;
    let Some(bound) = bound_table(log)? else {
        let is_used = wal::read_identity(&**folders.disk(), folder)?.is_some();
        return Ok(if is_used { Unnoted::Used } else { Unnoted::New });
    };
    // With a bucket the lock lies beside the log, otherwise in the data folder.
    let is_of_bucket = store.folder().is_some()
        && !is_inside(store, folder)
        && folders.disk().exists(&folder.join("gatelog.lock"));
    let is_foreign = is_of_bucket || table_id(store).await? != Some(bound);
    Ok(if is_foreign { Unnoted::Foreign } else { Unnoted::Used })
}

/// Returns the id of the Delta table that the log is bound to (see [`bind_to_table`]).
fn bound_table((folders, folder): Log<'_>) -> Result<Option<String>> {
    let path = folder.join(TABLE_MARK);
    match folders.disk().read(&path) {
        Ok(bound) => Ok(Some(String::from_utf8_lossy(bound.trim_ascii()).into_owned())),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => {
            Err(Error::storage(format!("cannot read `{}`", path.display())).with_source(cause))
        }
    }
}

async fn table_id(store: &Store) -> Result<Option<String>> {
    match Table::open(store, Rows::Logs).await? {
        Some(table) => table.id().await.map(Some),
        None => Ok(None),
    }
}

/// Binds the log to the Delta table at its first use, because the log's sequences are valid for
/// that table only.
pub(super) async fn bind_to_table(log: Log<'_>, table: &Table) -> Result<()> {
    let (folders, folder) = log;
    let id = table.id().await?;
    match bound_table(log)? {
        Some(bound) if bound == id => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "the write-ahead log `{}` is of other data: of another table `logs`; name another folder with the setting `wal`",
            folder.display()
        ))),
        None => {
            let path = folder.join(TABLE_MARK);
            let failed = |cause| {
                Error::storage(format!("cannot write `{}`", path.display())).with_source(cause)
            };
            folders.write_file(&path, id.as_bytes()).map_err(failed)
        }
    }
}

/// Returns true if the log lies inside the data folder, so that a copy or move of the folder
/// includes it.
fn is_inside(store: &Store, folder: &Path) -> bool {
    let Some(data) = store.folder() else { return false };
    // The folder of a new log does not exist yet; its nearest existing ancestor decides.
    let existing = folder.ancestors().find_map(|folder| folder.canonicalize().ok());
    existing.is_some_and(|existing| existing.starts_with(data))
}

/// Checks that the log in `folder` and the store belong together, and writes the notes that say so.
/// Nothing else is written before.
pub(super) async fn settle(
    store: &Store,
    log: Log<'_>,
    catalog: &Catalog,
    random: [u8; 32],
) -> Result<()> {
    refuse_unfinished(store, catalog)?;
    let found = Found::read(store, log, catalog).await?;
    match found.verdict() {
        Verdict::Other => Err(found.other(log.1)),
        Verdict::Moved => Err(found.moved(log.1)),
        Verdict::Bound => note_catalog(log),
        Verdict::Bind(id) => {
            refuse_lost_catalog(log, catalog)?;
            bind(store, log, catalog, id, random).await
        }
    }
}

/// Confirms that a store was moved: binds its log to the current place. Returns the previous place,
/// if it differs.
pub async fn rebind(store: &Store, folder: &Path, catalog: &Catalog) -> Result<Option<String>> {
    let log = (&**store.folders(), folder);
    refuse_unfinished(store, catalog)?;
    let found = Found::read(store, log, catalog).await?;
    let id = match found.verdict() {
        Verdict::Other => return Err(found.other(log.1)),
        Verdict::Bound => return Ok(None),
        Verdict::Bind(id) => id,
        Verdict::Moved => found.home.as_ref().ok().map(|home| home.store.clone()),
    };
    refuse_lost_catalog(log, catalog)?;
    bind(store, log, catalog, id, random_bytes()).await?;
    Ok(found.home.ok().map(|home| home.place).filter(|before| *before != found.place))
}

/// Returns true if a folder of the local disk has a write-ahead log.
pub fn has_log(folder: &Path) -> Result<bool> {
    Ok(wal::read_identity(&LocalDisk, folder)?.is_some()
        || wal::size_on_disk(&LocalDisk, folder).1 > 0)
}

/// Returns true if a log was used with this store before.
pub async fn owns_log(store: &Store, folder: &Path, catalog: &Catalog) -> Result<bool> {
    let found = Found::read(store, (store.folders(), folder), catalog).await?;
    match found.verdict() {
        Verdict::Other => Ok(false),
        // An older backup has no identity that shows that the log belongs to it.
        Verdict::Moved if found.identity.is_none() => Ok(false),
        Verdict::Moved => Err(found.moved(folder)),
        Verdict::Bound | Verdict::Bind(_) => Ok(found.home != Err(Unnoted::New)),
    }
}

/// Returns an error if the log belongs to another store. Writes nothing.
pub(super) async fn check(store: &Store, catalog: &Catalog) -> Result<()> {
    refuse_unfinished(store, catalog)?;
    require_store(store, catalog).await?;
    let folders = &**store.folders();
    let Some(folder) = store.wal_folder().filter(|folder| folders.disk().exists(folder)) else {
        return Ok(());
    };
    let log = (folders, folder.as_path());
    let found = Found::read(store, log, catalog).await?;
    match found.verdict() {
        Verdict::Other => Err(found.other(&folder)),
        Verdict::Moved => Err(found.moved(&folder)),
        Verdict::Bound | Verdict::Bind(_) => refuse_lost_catalog(log, catalog),
    }
}

/// Returns an error for a place that never was a store, which would look like an empty one.
pub async fn require_store(store: &Store, catalog: &Catalog) -> Result<()> {
    if catalog.is_stored() {
        return Ok(());
    }
    for rows in Rows::ALL {
        if Table::exists(store, rows).await? {
            return Ok(());
        }
    }
    Err(Error::not_found(format!(
        "`{}` is no gatelog store: it contains neither `catalog.json` nor a table; name the place that has the data (`--data`), \
         or start a server there to create a store",
        store.place()
    )))
}

/// Returns an error for a store that `gatelog copy` did not finish: it lacks records without
/// showing it.
pub fn refuse_unfinished(store: &Store, catalog: &Catalog) -> Result<()> {
    if !catalog.state().document.store.as_ref().is_some_and(|identity| identity.unfinished) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "the copy in `{}` was interrupted and is incomplete; run the same `gatelog copy FROM {}` again",
        store.place(),
        store.place()
    )))
}

/// Writes the UUID into the catalog, if it has none, and beside the log.
async fn bind(
    store: &Store,
    log: Log<'_>,
    catalog: &Catalog,
    id: Option<String>,
    random: [u8; 32],
) -> Result<()> {
    let fresh = id.clone().unwrap_or_else(|| uuid(random).to_string());
    let named = catalog.state().document.store.as_ref().map(|identity| identity.id.clone());
    let stored = match named {
        Some(named) => named,
        // Another node that opens the store for the first time may write first.
        None => {
            let name = |document: &mut Document| {
                Ok(document.store.get_or_insert_with(|| Identity::new(fresh.clone())).id.clone())
            };
            catalog.change(name).await?
        }
    };
    let home = Home { store: stored, place: store.place() };
    if id.is_some_and(|id| id != home.store) {
        return Err(Error::busy("`catalog.json` was changed while it was opened; try again"));
    }
    let (folders, folder) = log;
    if wal::read_home(&**folders.disk(), folder)?.as_ref() != Some(&home) {
        wal::write_home(folders, folder, &home)?;
    }
    note_catalog(log)
}

/// Creates a random UUID.
fn uuid(random: [u8; 32]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&random[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn note_catalog((folders, folder): Log<'_>) -> Result<()> {
    let mark = folder.join(CATALOG_MARK);
    let failed =
        |cause| Error::storage(format!("cannot write `{}`", mark.display())).with_source(cause);
    if folders.disk().exists(&mark) {
        Ok(())
    } else {
        folders.write_file(&mark, b"").map_err(failed)
    }
}

/// Returns an error if the catalog is missing: without it, erased records would reappear and every
/// plan would be lost.
fn refuse_lost_catalog((folders, folder): Log<'_>, catalog: &Catalog) -> Result<()> {
    let mark = folder.join(CATALOG_MARK);
    if catalog.is_stored() || !folders.disk().exists(&mark) {
        return Ok(());
    }
    Err(Error::damaged(format!(
        "`catalog.json`, with organisations, keys and erasures, is missing; restore it from a copy (to start without it, \
         delete `{}`)",
        mark.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(
        identity: Option<&Identity>,
        home: std::result::Result<(&str, &str), Unnoted>,
        is_inside: bool,
    ) -> Verdict {
        let home =
            home.map(|(store, place)| Home { store: store.to_owned(), place: place.to_owned() });
        let home = home.as_ref().map_err(|unnoted| *unnoted);
        meet(Meeting { identity, place: "/here", home, is_inside, is_same_table: true })
    }

    #[test]
    fn a_log_is_used_for_its_own_store_at_its_own_place() {
        let a = Identity::new("a".to_owned());
        for inside in [false, true] {
            assert_eq!(verdict(Some(&a), Ok(("a", "/here")), inside), Verdict::Bound);
            assert_eq!(
                verdict(Some(&a), Ok(("b", "/here")), inside),
                Verdict::Other,
                "inside: {inside}"
            );
            assert_eq!(verdict(Some(&a), Ok(("b", "/there")), inside), Verdict::Other);
        }
        assert_eq!(verdict(Some(&a), Ok(("a", "/there")), false), Verdict::Moved);
        assert_eq!(
            verdict(Some(&a), Ok(("a", "/there")), true),
            Verdict::Bind(Some("a".to_owned()))
        );
        // A catalog without a UUID: at the same place the log supplies it.
        assert_eq!(verdict(None, Ok(("a", "/here")), false), Verdict::Bind(Some("a".to_owned())));
        assert_eq!(verdict(None, Ok(("a", "/there")), false), Verdict::Moved);
        let home = Home { store: "a".to_owned(), place: "/there".to_owned() };
        let empty = Meeting {
            identity: None,
            place: "/here",
            home: Ok(&home),
            is_inside: false,
            is_same_table: false,
        };
        assert_eq!(meet(empty), Verdict::Other, "nothing says that it is the same store");
    }

    #[test]
    fn a_log_without_a_note_is_bound_unless_it_belongs_to_another_store() {
        let a = Identity::new("a".to_owned());
        let copy = Identity { copy_of: vec!["a".to_owned()], ..Identity::new("b".to_owned()) };
        for inside in [false, true] {
            assert_eq!(verdict(None, Err(Unnoted::New), inside), Verdict::Bind(None));
            assert_eq!(verdict(None, Err(Unnoted::Used), inside), Verdict::Bind(None));
            assert_eq!(
                verdict(Some(&a), Err(Unnoted::Used), inside),
                Verdict::Bind(Some("a".to_owned()))
            );
            assert_eq!(verdict(Some(&a), Err(Unnoted::Foreign), inside), Verdict::Other);
            assert_eq!(
                verdict(Some(&copy), Err(Unnoted::New), inside),
                Verdict::Bind(Some("b".to_owned()))
            );
        }
        assert_eq!(verdict(Some(&copy), Err(Unnoted::Used), false), Verdict::Other);
        assert_eq!(
            verdict(Some(&copy), Err(Unnoted::Used), true),
            Verdict::Bind(Some("b".to_owned()))
        );
    }
}
