//! Where everything lives: a location becomes an object store, and every path of the layout is made and parsed here.
//!
//! ```text
//! <root>/logs/, <root>/feedback/      Delta tables: retention_days=30/date=2026-11-21/part-<uuid>.parquet, _delta_log/
//! <root>/catalog.json                 organisations, plans, keys, export jobs
//! <root>/exports/                     what export jobs wrote
//! <root>/wal/, <root>/gatelog.lock    on the node's own disk only
//! <root>/.staging/                    on disk only: files being written, before they get their name
//! ```
//!
//! Everything above takes `Arc<dyn ObjectStore>`, and a path inside it is absolute (for a disk: from the file system's
//! root), because that is how the Delta kernel turns a table's URL into paths. On a disk the object store is
//! [`durable::Durable`]: what it reports as written survives a power cut.

pub mod durable;

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate};
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Result};
use durable::Durable;

/// Name of the table of gateway calls.
pub const LOGS: &str = "logs";
/// Name of the table of feedback on them.
pub const FEEDBACK: &str = "feedback";

/// An object store and the place in it where the state of one gatelog is kept.
#[derive(Clone, Debug)]
pub struct Store {
    object_store: Arc<dyn ObjectStore>,
    root: Url,
    prefix: Path,
    local: Option<PathBuf>,
}

impl Store {
    /// Opens a folder, given as a bare path or a `file:///` URL. With `create` a missing folder is made.
    pub fn open(location: &str, create: bool) -> Result<Self> {
        let named = folder_of(location)?;
        if create {
            durable::create_folder(&named)
                .map_err(|e| Error::storage(format!("cannot create folder `{}`", named.display())).with_source(e))?;
        }
        let folder = named.canonicalize().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!("no folder `{}`", named.display())),
            _ => Error::storage(format!("cannot open folder `{}`", named.display())).with_source(e),
        })?;
        if !folder.is_dir() {
            return Err(Error::invalid(format!("`{}` is not a folder", named.display())));
        }
        let root = Url::from_directory_path(&folder)
            .map_err(|()| Error::invalid(format!("folder `{}` has no URL", folder.display())))?;
        let mut store = Self::with(Arc::new(Durable::new(&folder)), root)?;
        store.local = Some(folder);
        Ok(store)
    }

    /// Takes an object store as it is; `root` is where in it the layout begins, such as `memory:///`.
    pub fn with(object_store: Arc<dyn ObjectStore>, mut root: Url) -> Result<Self> {
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", root.path()));
        }
        let prefix = Path::from_url_path(root.path())
            .map_err(|e| Error::invalid(format!("`{root}` is no place in an object store")).with_source(e))?;
        Ok(Self { object_store, root, prefix, local: None })
    }

    /// The object store; its paths are absolute.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.object_store
    }

    /// Where the layout begins; ends with `/`.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The folder on this node's disk, if the store is one.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.local.as_deref()
    }

    /// URL of a table; ends with `/`.
    pub fn table_url(&self, table: &str) -> Result<Url> {
        self.root
            .join(&format!("{table}/"))
            .map_err(|e| Error::invalid(format!("`{table}` is no name for a table")).with_source(e))
    }

    /// Path of a table in the object store.
    pub fn table_path(&self, table: &str) -> Path {
        self.path(table)
    }

    /// Makes the folder of a table if the store is a disk: the kernel takes no URL of a folder that is not there.
    pub fn create_table_folder(&self, table: &str) -> Result<()> {
        let Some(folder) = self.local.as_ref().map(|folder| folder.join(table)) else { return Ok(()) };
        durable::create_folder(&folder)
            .map_err(|e| Error::storage(format!("cannot create folder `{}`", folder.display())).with_source(e))
    }

    /// Path of the catalog.
    pub fn catalog_path(&self) -> Path {
        self.path("catalog.json")
    }

    /// Path below which export jobs write.
    pub fn exports_path(&self) -> Path {
        self.path("exports")
    }

    /// Path of one file that an export job writes.
    pub fn export_path(&self, name: &str) -> Path {
        self.exports_path().join(name)
    }

    /// Folder of the write-ahead log; none if the store is no disk of this node.
    pub fn wal_folder(&self) -> Option<PathBuf> {
        self.local.as_ref().map(|folder| folder.join("wal"))
    }

    /// The file whose lock says who may write; none if the store is no disk of this node.
    pub fn lock_file(&self) -> Option<PathBuf> {
        self.local.as_ref().map(|folder| folder.join("gatelog.lock"))
    }

    /// Removes what a crash left half written. Only the holder of the lock may call it, before it writes.
    pub fn clean_staging(&self) -> Result<()> {
        let Some(folder) = &self.local else { return Ok(()) };
        durable::clean_staging(folder).map_err(|e| {
            Error::storage(format!("cannot clean `{}`", folder.join(durable::STAGING).display())).with_source(e)
        })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }
}

fn folder_of(location: &str) -> Result<PathBuf> {
    let Some((scheme, _)) = location.split_once("://") else {
        if location.is_empty() {
            return Err(Error::invalid("the location of the data is empty; give a folder"));
        }
        return std::path::absolute(location)
            .map_err(|e| Error::invalid(format!("`{location}` is no path")).with_source(e));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => Url::parse(location)
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .ok_or_else(|| Error::invalid(format!("`{location}` names no local folder; write `file:///folder`"))),
        "s3" | "s3a" => Err(Error::invalid(format!(
            "`{location}` is a bucket: buckets come in the next version; give a folder or `file:///folder`"
        ))),
        _ => Err(Error::invalid(format!(
            "scheme `{scheme}` of `{location}` is unknown; give a folder or `file:///folder`"
        ))),
    }
}

/// What the path of a data file says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPath {
    /// Days to keep its records, 0 = for ever.
    pub retention_days: i32,
    /// The UTC day of its records, in days since 1970-01-01.
    pub date: i32,
    /// What makes it unique; none in a file that another program wrote.
    pub uuid: Option<Uuid>,
}

/// Path of a data file, relative to its table. `date` is in days since 1970-01-01.
pub fn data_path(retention_days: i32, date: i32, uuid: Uuid) -> String {
    format!("retention_days={retention_days}/date={}/part-{uuid}.parquet", date_text(date))
}

/// Reads the partition, and where it has one the unique id, from the path of a data file relative to its table.
pub fn parse_data_path(path: &str) -> Option<DataPath> {
    let (retention_days, rest) = path.strip_prefix("retention_days=")?.split_once('/')?;
    let (date, name) = rest.strip_prefix("date=")?.split_once('/')?;
    let uuid = name.strip_prefix("part-").and_then(|name| name.strip_suffix(".parquet")).and_then(|id| id.parse().ok());
    Some(DataPath { retention_days: retention_days.parse().ok()?, date: parse_date(date)?, uuid })
}

/// A day, in days since 1970-01-01, as `2026-11-21`.
pub fn date_text(date: i32) -> String {
    let epoch = DateTime::UNIX_EPOCH.date_naive();
    let days = Days::new(u64::from(date.unsigned_abs()));
    let day = if date < 0 { epoch.checked_sub_days(days) } else { epoch.checked_add_days(days) };
    // Out of range only beyond the years -262143 to 262142.
    day.unwrap_or(epoch).format("%Y-%m-%d").to_string()
}

/// The opposite of [`date_text`].
pub fn parse_date(text: &str) -> Option<i32> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(day.signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn opens_what_exists_and_makes_what_may_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a b/c");
        let text = wanted.to_str().unwrap();
        assert_eq!(Store::open(text, false).unwrap_err().kind(), ErrorKind::NotFound);
        let store = Store::open(text, true).unwrap();
        assert_eq!(store.folder().unwrap(), wanted.canonicalize().unwrap());
        assert!(store.root().as_str().ends_with("/a%20b/c/"), "{}", store.root());
        assert!(store.catalog_path().as_ref().ends_with("a b/c/catalog.json"));
        assert_eq!(Store::open(store.root().as_str(), false).unwrap().root(), store.root());
        assert!(store.wal_folder().unwrap().ends_with("wal"));
    }

    #[test]
    fn refuses_other_places_with_a_reason() {
        let error = Store::open("s3://bucket/prefix", true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("buckets come in the next version"), "{error}");
        assert_eq!(Store::open("ftp://host/x", true).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(Store::open("", true).unwrap_err().kind(), ErrorKind::Invalid);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Store::open(file.path().to_str().unwrap(), false).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn data_paths_are_read_as_they_are_made() {
        let uuid = Uuid::from_u128(7);
        let path = data_path(30, 20_778, uuid);
        assert_eq!(path, "retention_days=30/date=2026-11-21/part-00000000-0000-0000-0000-000000000007.parquet");
        assert_eq!(parse_data_path(&path), Some(DataPath { retention_days: 30, date: 20_778, uuid: Some(uuid) }));
        let foreign = parse_data_path("retention_days=0/date=1969-12-31/part-00000-x.c000.snappy.parquet").unwrap();
        assert_eq!(foreign, DataPath { retention_days: 0, date: -1, uuid: None });
        assert_eq!(parse_data_path("date=2026-11-21/part.parquet"), None);
    }
}
