//! Finds logs of a store whose acknowledged frames are in no table, because a folder was moved away
//! or the setting `wal` was changed. The notes about the ends of logs ([`wal::read_last`]) lie
//! beside the tables of a folder, so they remain when a log is removed.

use std::path::PathBuf;

use uuid::Uuid;

use super::flushed_seq;
use crate::error::Result;
use crate::store::Store;
use crate::table::Table;
use crate::wal;

/// A log with frames that are in no table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftLog {
    pub(super) id: Uuid,
    /// The last sequence that was durable in it.
    pub(super) durable: u64,
    /// The last sequence that is in a table.
    pub(super) covered: u64,
    /// The file with the note.
    note: PathBuf,
}

impl LeftLog {
    pub(super) fn describe(&self) -> String {
        let Self { id, durable, covered, .. } = self;
        format!(
            "log {id} of this store has acked frames up to sequence {durable}, the tables have them up to {covered}"
        )
    }

    pub(super) fn remedy(&self) -> String {
        format!(
            "start with the folder of that log as `wal`, or import its frames with `gatelog wal adopt FOLDER`; delete `{}` to \
             continue without them",
            self.note.display()
        )
    }
}

/// Finds such logs, except the one with the id `own`.
pub(super) async fn left_logs(
    store: &Store,
    tables: [Option<&Table>; 2],
    own: Uuid,
) -> Result<Vec<LeftLog>> {
    let Some(folder) = store.last_note(own).filter(|_| store.folder().is_some()) else {
        return Ok(Vec::new());
    };
    let disk = &**store.disk();
    let Some(notes) = folder.parent().and_then(|folder| disk.list(folder).ok()) else {
        return Ok(Vec::new());
    };
    let mut left = Vec::new();
    for note in notes {
        let id = note.file_name().and_then(|name| Uuid::try_parse(name.to_str()?).ok());
        let Some(id) = id.filter(|id| *id != own) else { continue };
        let durable = wal::read_last(disk, &note, id)?.mark.durable;
        let covered = flushed_seq::covered(tables[0], tables[1], id).await?.most();
        if durable > covered {
            left.push(LeftLog { id, durable, covered, note });
        }
    }
    Ok(left)
}
