//! Deleting entries of the log that no reader needs any more.
//!
//! Two things keep an entry: it is younger than the caller wants to delete, or a version that is must be read through
//! it. So the log is cut at a checkpoint: the newest that is no newer than the oldest version to keep, than the
//! checkpoint that `_last_checkpoint` names, and than the last checkpoint there is. All that is named by a smaller
//! version goes, one by one from the oldest on, so what an interruption leaves is a shorter log without holes. Before
//! the first is deleted, the table is read as one who opens it would, and must show the same files and application
//! transactions as this handle knows.
//!
//! Sidecars of checkpoints stay: gatelog's have none, and which of another program's are in use only its checkpoints
//! say.

use std::collections::{BTreeMap, BTreeSet};

use object_store::{ObjectMeta, ObjectStoreExt};

use super::{FileIndex, Inner, Orphan, Table, Writer, kernel};
use crate::error::{Error, Result};

/// One object of the log that is named by a version.
#[derive(Debug)]
struct Entry {
    version: u64,
    kind: Kind,
    object: ObjectMeta,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Commit,
    /// A whole checkpoint, or one part of so many.
    Checkpoint {
        parts: u64,
    },
    /// What only makes reading faster.
    Aid,
}

impl Table {
    /// Deletes what the log has before the last checkpoint and last modified before `older_than_ms` (since 1970-01-01),
    /// as far as no version since then is read through it; with `dry_run` only names it. Gives what was deleted, or
    /// would be, the oldest first.
    pub async fn clean_log(&self, older_than_ms: i64, dry_run: bool) -> Result<Vec<Orphan>> {
        let failed = |e| Error::storage(format!("cannot list the log of table `{}`", self.name())).with_source(e);
        let log = self.inner.path.clone().join("_delta_log");
        // Folders in the log are other programs' own.
        let listed = self.object_store().list_with_delimiter(Some(&log)).await.map_err(failed)?;
        let mut entries: Vec<Entry> = listed.objects.into_iter().filter_map(entry).collect();
        let hint = super::last_checkpoint(self.object_store(), &self.inner.path).await?;
        let Some(cut) = cut(&entries, hint, older_than_ms) else { return Ok(Vec::new()) };
        entries.retain(|entry| entry.version < cut);
        entries.sort_by(|a, b| (a.version, &a.object.location).cmp(&(b.version, &b.object.location)));
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
                        let what = format!("cannot delete entries of the log of table `{}`", self.name());
                        return Err(Error::storage(what).with_source(e));
                    }
                }
            }
        }
        Ok(entries.iter().filter_map(|entry| self.orphan(&entry.object)).collect())
    }
}

impl Inner {
    /// Refuses to go on if the table, read from its last checkpoint on, is not what this handle takes it for. From then
    /// on the handle itself reads nothing before that checkpoint.
    fn check_log(&self, writer: &mut Writer) -> Result<()> {
        self.refresh(writer)?;
        let failed = |e| self.failed("read the log of", e);
        let index = self.index();
        let fresh = kernel::snapshot_at(&self.engine, &self.url, index.version).map_err(failed)?;
        let mut same = FileIndex::default().apply(index.version, kernel::files(&self.engine, &fresh)?, []) == *index;
        for (app, version) in &writer.apps {
            same &= fresh.get_app_id_version(app, &self.engine).map_err(failed)? == *version;
        }
        if same {
            Ok(())
        } else {
            Err(Error::damaged(format!(
                "table `{}` read from its last checkpoint is not what its commits made; nothing was deleted",
                self.rows.folder()
            )))
        }
    }
}

/// The version that the log may begin with; none if it must stay as it is.
fn cut(entries: &[Entry], hint: u64, older_than_ms: i64) -> Option<u64> {
    let commits = || entries.iter().filter(|entry| entry.kind == Kind::Commit);
    let newest = commits().map(|entry| entry.version).max()?;
    let kept = commits().filter(|entry| entry.object.last_modified.timestamp_millis() >= older_than_ms);
    let oldest_kept = kept.map(|entry| entry.version).min().unwrap_or(newest);
    let mut parts: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for entry in entries {
        if let Kind::Checkpoint { parts: of } = entry.kind
            && entry.object.size > 0
        {
            *parts.entry((entry.version, of)).or_default() += 1;
        }
    }
    let whole: BTreeSet<u64> = parts.iter().filter(|((_, of), found)| *found >= of).map(|((at, _), _)| *at).collect();
    whole.range(..=oldest_kept.min(hint)).next_back().copied()
}

/// What the name of an object of the log says, if it begins with a version.
fn entry(object: ObjectMeta) -> Option<Entry> {
    let name = object.location.filename()?;
    let (version, rest) = name.split_at_checked(20)?;
    let version = version.bytes().all(|digit| digit.is_ascii_digit()).then(|| version.parse().ok())??;
    let words: Vec<&str> = rest.strip_prefix('.')?.split('.').collect();
    let kind = match words[..] {
        ["json"] => Kind::Commit,
        ["checkpoint", "parquet"] | ["checkpoint", _, "parquet" | "json"] => Kind::Checkpoint { parts: 1 },
        ["checkpoint", _, parts, "parquet"] => Kind::Checkpoint { parts: parts.parse().ok()? },
        ["crc"] | [_, "compacted", "json"] => Kind::Aid,
        _ => return None,
    };
    Some(Entry { version, kind, object })
}
