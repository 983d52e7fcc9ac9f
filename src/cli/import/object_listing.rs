//! Log stores in a folder or a bucket, and the files in them that may contain logs.
//!
//! A folder is listed here and not by `object_store`, whose listing ends at the first name that is
//! not UTF-8, at a loop of links, and at a folder without read permission. Here each of them is one
//! unread file. Links are not followed, so nothing outside of the folder is read, and nothing is
//! read twice.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::cli::output::file_error;
use gatelog::Store;
use gatelog::config::Config;
use gatelog::error::{Error, Result};

/// Number of files that are listed ahead of those that are read.
const AHEAD: usize = 1_024;
const LINK: &str =
    "it is a symbolic link, and links are not followed; import its target as a folder of its own";

/// A log store.
#[derive(Debug)]
pub(super) enum Place {
    Folder(PathBuf),
    Bucket(Box<Store>),
}

/// A file that may contain a log.
#[derive(Debug)]
pub(super) struct Found {
    /// Name of the file in messages, on one line.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Location of the file, or the reason why it cannot be read.
    pub(super) at: Result<At, String>,
}

#[derive(Debug)]
pub(super) enum At {
    Disk(PathBuf),
    Bucket(Arc<dyn ObjectStore>, object_store::path::Path),
}

impl Place {
    /// Checks that the log store exists.
    pub(super) async fn open(named: &Path, config: &Config) -> Result<Self> {
        if let Some(url) = named.to_str().filter(|named| named.contains("://")) {
            let store = Store::open(&Config { data: url.to_owned(), ..config.clone() }, false)?;
            store.check().await?;
            return Ok(store
                .folder()
                .map(Path::to_owned)
                .map_or_else(|| Self::Bucket(Box::new(store)), Self::Folder));
        }
        let about = fs::metadata(named).map_err(|cause| file_error("open", named, cause))?;
        if !about.is_dir() {
            let message = format!(
                "`{}` is not a folder; a log store is a folder or s3://bucket/prefix",
                named.display()
            );
            return Err(Error::invalid(message));
        }
        Ok(Self::Folder(named.to_owned()))
    }

    /// Lists the files, in no particular order. An error comes from a bucket and ends the list.
    pub(super) fn files(&self) -> BoxStream<'_, Result<Found>> {
        match self {
            Self::Folder(folder) => {
                let (found, files) = mpsc::channel(AHEAD);
                let folder = folder.clone();
                tokio::task::spawn_blocking(move || walk(folder, &found));
                ReceiverStream::new(files).map(Ok).boxed()
            }
            Self::Bucket(store) => {
                let root = store.root().clone();
                let listing = store.object_store().list(Some(store.prefix()));
                let logs = listing.try_filter(|object| {
                    std::future::ready(
                        object.location.filename().is_some_and(|name| is_log(name.as_ref())),
                    )
                });
                logs.map_ok(move |object| Found {
                    name: shown(format!("{root}{}", object.location)),
                    bytes: object.size,
                    at: Ok(At::Bucket(Arc::clone(store.object_store()), object.location)),
                })
                .map_err(|cause| {
                    Error::storage(format!("cannot list `{}`", store.root())).with_source(cause)
                })
                .boxed()
            }
        }
    }
}

impl At {
    /// Reads the file. Of a file with more than `limit` bytes, it returns one byte more than the
    /// limit.
    pub(super) async fn read(self, limit: u64) -> Result<Bytes, String> {
        match self {
            Self::Bucket(store, path) => {
                let read = async { store.get(&path).await?.bytes().await };
                read.await.map_err(|cause| cause.to_string())
            }
            Self::Disk(path) => {
                let read = move || {
                    let mut bytes = Vec::new();
                    fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
                    Ok(Bytes::from(bytes))
                };
                let read = tokio::task::spawn_blocking(read)
                    .await
                    .unwrap_or_else(|cause| Err(io::Error::other(cause)));
                read.map_err(|cause| cause.to_string())
            }
        }
    }
}

impl Found {
    fn unread(path: &Path, reason: impl Into<String>) -> Self {
        Self { name: shown(path), bytes: 0, at: Err(reason.into()) }
    }
}

/// Lists the files below a folder until the end, or until the receiver is closed.
fn walk(folder: PathBuf, found: &mpsc::Sender<Found>) {
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        let unread = |cause: io::Error| {
            Found::unread(&folder, format!("this folder cannot be read: {cause}"))
        };
        let entries = fs::read_dir(&folder).map_err(unread);
        let (entries, failed) =
            entries.map_or_else(|failed| (None, Some(failed)), |entries| (Some(entries), None));
        let files = entries.into_iter().flatten().filter_map(|entry| match entry {
            Ok(entry) => file(&entry, &mut folders),
            Err(cause) => Some(unread(cause)),
        });
        for file in failed.into_iter().chain(files) {
            if found.blocking_send(file).is_err() {
                return;
            }
        }
    }
}

/// Returns the file of a folder entry if it may contain a log. A subfolder is added to `folders`.
fn file(entry: &DirEntry, folders: &mut Vec<PathBuf>) -> Option<Found> {
    let path = entry.path();
    let about = match entry.metadata() {
        Ok(about) => about,
        Err(cause) => return Some(Found::unread(&path, cause.to_string())),
    };
    if about.is_dir() {
        folders.push(path);
        return None;
    }
    let is_log = is_log(&entry.file_name());
    if about.is_symlink() {
        // A link to a folder hides logs, and a broken link may do so.
        return (is_log || !path.is_file()).then(|| Found::unread(&path, LINK));
    }
    if !is_log {
        return None;
    }
    if !about.is_file() {
        return Some(Found::unread(&path, "it is not a regular file"));
    }
    Some(Found { name: shown(&path), bytes: about.len(), at: Ok(At::Disk(path)) })
}

fn is_log(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".json") || name.ends_with(b".json.gz")
}

/// Formats a path on one line: line breaks, other control characters and bytes that are not UTF-8
/// are escaped as in Rust.
fn shown(path: impl AsRef<OsStr>) -> String {
    let quoted = format!("{:?}", path.as_ref());
    quoted[1..quoted.len() - 1].to_owned()
}
