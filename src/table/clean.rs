//! Deletes log entries that no reader needs any more.
//!
//! Two rules keep an entry: it is younger than the caller's limit, or reading a kept version needs
//! it. So the log is cut at a checkpoint: the newest one that is not newer than the oldest version
//! to keep, nor than the checkpoint that `_last_checkpoint` names, nor than the last complete
//! checkpoint. All objects of lower versions are deleted, oldest first, so an interruption leaves a
//! shorter log without holes. Before the first deletion, the table is read as a fresh open would
//! read it, and must show the same files and application transactions as this handle.
//!
//! Sidecars of checkpoints stay. gatelog writes none, and only another program's checkpoints say
//! which of its sidecars are in use.

use std::collections::{BTreeMap, BTreeSet};

use object_store::{ObjectMeta, ObjectStoreExt};

use super::{FileIndex, Inner, Orphan, Table, Writer, kernel};
use crate::error::{Error, Result};

/// One object of the log whose name has a version.
#[derive(Debug)]
struct Entry {
    version: u64,
    kind: Kind,
    object: ObjectMeta,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Commit,
    /// A complete checkpoint, or one of `parts` parts.
    Checkpoint {
        parts: u64,
    },
    /// A file that only speeds up reading.
    Aid,
}

impl Table {
    /// Deletes log objects that precede the last checkpoint and were last modified before
    /// `older_than_ms` (since 1970-01-01), except those needed to read a version since then.
    /// Returns the deleted objects, oldest first. With `dry_run`, only lists them.
    pub async fn clean_log(&self, older_than_ms: i64, dry_run: bool) -> Result<Vec<Orphan>> {
        let failed = |e| {
            Error::storage(format!("cannot list the log of table `{}`", self.name())).with_source(e)
        };
        let log = self.inner.path.clone().join("_delta_log");
        // Folders in the log belong to other programs.
        let listed = self.object_store().list_with_delimiter(Some(&log)).await.map_err(failed)?;
        let mut entries: Vec<Entry> = listed.objects.into_iter().filter_map(entry).collect();
        let hint = super::last_checkpoint(self.object_store(), &self.inner.path).await?;
        let Some(cut) = cut(&entries, hint, older_than_ms) else { return Ok(Vec::new()) };
        entries.retain(|entry| entry.version < cut);
        entries
            .sort_by(|a, b| (a.version, &a.object.location).cmp(&(b.version, &b.object.location)));
        if !dry_run && !entries.is_empty() {
            let check = move |inner: &Inner, writer: &mut Writer| {
                inner.check_log(writer)?;
                inner.renew_checkpoint(cut)
            };
            self.locked(check).await?;
            for entry in &entries {
                match self.object_store().delete(&entry.object.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => {
                        let what =
                            format!("cannot delete entries of the log of table `{}`", self.name());
                        return Err(Error::storage(what).with_source(e));
                    }
                }
            }
        }
        Ok(entries.iter().filter_map(|entry| self.orphan(&entry.object)).collect())
    }
}

impl Inner {
    /// Returns an error unless the table, read from its last checkpoint, matches this handle. After
    /// that, the handle itself reads nothing older than that checkpoint.
    fn check_log(&self, writer: &mut Writer) -> Result<()> {
        self.refresh(writer)?;
        let failed = |e| self.failed("read the log of", e);
        let index = self.index();
        let fresh = kernel::snapshot_at(&self.engine, &self.url, index.version).map_err(failed)?;
        let mut same =
            FileIndex::default().apply(index.version, kernel::files(&self.engine, &fresh)?, [])
                == *index;
        for (app, version) in &writer.apps {
            same &= fresh.get_app_id_version(app, &self.engine).map_err(failed)? == *version;
        }
        if same {
            Ok(())
        } else {
            Err(Error::damaged(format!(
                "table `{}` read from its last checkpoint differs from the result of its commits; nothing was deleted",
                self.rows.folder()
            )))
        }
    }
}

/// Returns the version at which the log may start, or `None` if nothing may be deleted.
fn cut(entries: &[Entry], hint: u64, older_than_ms: i64) -> Option<u64> {
    let commits = || entries.iter().filter(|entry| entry.kind == Kind::Commit);
    let newest = commits().map(|entry| entry.version).max()?;
    let kept =
        commits().filter(|entry| entry.object.last_modified.timestamp_millis() >= older_than_ms);
    let oldest_kept = kept.map(|entry| entry.version).min().unwrap_or(newest);
    let mut parts: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for entry in entries {
        if let Kind::Checkpoint { parts: of } = entry.kind
            && entry.object.size > 0
        {
            *parts.entry((entry.version, of)).or_default() += 1;
        }
    }
    let whole: BTreeSet<u64> =
        parts.iter().filter(|((_, of), found)| *found >= of).map(|((at, _), _)| *at).collect();
    whole.range(..=oldest_kept.min(hint)).next_back().copied()
}

/// Parses the name of a log object. Returns `None` if it does not start with a version.
fn entry(object: ObjectMeta) -> Option<Entry> {
    let name = object.location.filename()?;
    let (version, rest) = name.split_at_checked(20)?;
    let version =
        version.bytes().all(|digit| digit.is_ascii_digit()).then(|| version.parse().ok())??;
    let words: Vec<&str> = rest.strip_prefix('.')?.split('.').collect();
    let kind = match words[..] {
        ["json"] => Kind::Commit,
        ["checkpoint", "parquet"] | ["checkpoint", _, "parquet" | "json"] => {
            Kind::Checkpoint { parts: 1 }
        }
        ["checkpoint", _, parts, "parquet"] => Kind::Checkpoint { parts: parts.parse().ok()? },
        ["crc"] | [_, "compacted", "json"] => Kind::Aid,
        _ => return None,
    };
    Some(Entry { version, kind, object })
}
