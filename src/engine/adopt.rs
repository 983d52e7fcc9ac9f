//! Imports the records of a log that was left behind: another copy of it was opened since, by a
//! node that took its claim over ([`super::claim`]).
//!
//! Sequences do not show which of its frames the tables have, because the other copy flushed its
//! own frames under the same sequences. So the rows are compared by their ids with all files of
//! both tables. Missing rows are written to a fresh log in a subfolder, which is opened and flushed
//! as every other log. The old log is removed only when all of that is in the tables. An
//! interrupted import starts again, and finds in the tables the rows that were flushed meanwhile.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::common::ParamValues;
use futures::{StreamExt, TryStreamExt};

use super::append_parts::state_key;
use super::dependencies::Dependencies;
use super::lock::{FolderLock, lock};
use super::table_state::ids_of_files;
use super::work_threads::work_threads;
use super::{claim, identity};
use crate::catalog::Catalog;
use crate::config::{Config, Found};
use crate::dedupe::KeyHasher;
use crate::error::{Error, ErrorKind, Result};
use crate::query::{Limits, Queries};
use crate::record::json::read_batch;
use crate::record::{self, BatchBuilder, Feedback, Rows};
use crate::store::Store;
use crate::store::folders::Folders;
use crate::table::{DataFile, FileIndex, Table};
use crate::view::View;
use crate::wal::{self, Entry, FlushedSeq, Kind, Noted, Payload, Wal};

/// The folder of the fresh log, in that of the old one.
const FRESH: &str = "adopting";
/// Size of the groups in which rows are written to the fresh log, bytes.
const GROUP_BYTES: usize = 4 << 20;

/// A log that was left behind, locked.
#[derive(Debug)]
pub struct LeftBehind {
    store: Store,
    folder: PathBuf,
    fresh: PathBuf,
    _lock: FolderLock,
}

impl LeftBehind {
    /// Checks if the log that a configuration names was left behind. Returns `None` if it can be
    /// opened normally.
    pub async fn find(config: &Config) -> Result<Option<Self>> {
        let store = Store::open(config, false)?;
        match claim::refuse_left_behind(&store).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            found => return found.map(|()| None),
        }
        let Some(folder) = store.wal_folder() else { return Ok(None) };
        let lock = lock(&store)?;
        let catalog = Catalog::open(&store, 0, chrono::Utc::now).await?;
        identity::check(&store, &catalog).await?;
        let fresh = folder.join(FRESH);
        Ok(Some(Self { store, folder, fresh, _lock: lock }))
    }

    /// Writes a fresh log of the rows that the tables lack. Returns its folder, which is to be
    /// opened and flushed, or `None` if nothing is missing.
    pub async fn fresh_log(&self, config: &Config) -> Result<Option<&Path>> {
        self.remove_fresh()?;
        let config = config.settled(&Found::here())?;
        let folder = self.folder.clone();
        let disk = Arc::clone(self.store.disk());
        let frames = move || -> Result<_> {
            let mut frames = Vec::new();
            let take = &mut |entry, batch| {
                frames.push((entry, batch));
                Ok(())
            };
            wal::replay(&*disk, &folder, FlushedSeq::default(), false, take)?;
            Ok(frames)
        };
        let frames: Vec<(Entry, RecordBatch)> = blocking(frames).await?;
        let threads = work_threads(&config)?;
        let queries = Queries::new(&config, &self.store, Vec::new(), threads.handle()?)?;
        let stored = Stored::find(&self.store, &queries, &frames).await?;
        let mut rest = Vec::new();
        for (entry, batch) in frames {
            let payloads = stored.rest(entry.kind, &batch)?.into_iter();
            rest.extend(payloads.map(|payload| payload.arrived(entry.arrived_ms)));
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let folders = Arc::clone(self.store.folders());
        let folder = self.folder.clone();
        let fresh = self.fresh.clone();
        let now_ms = chrono::Utc::now().timestamp_millis();
        blocking(move || write_log(&folders, &folder, &fresh, &rest, now_ms)).await?;
        Ok(Some(&self.fresh))
    }

    /// Removes the old log, now that the tables have all of it. The folder is then that of an
    /// unused log.
    pub fn retire(self) -> Result<()> {
        self.remove_fresh()?;
        wal::retire(&**self.store.disk(), &self.folder)
    }

    fn remove_fresh(&self) -> Result<()> {
        match self.store.disk().remove_folder(&self.fresh) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::storage(format!("cannot delete `{}`", self.fresh.display()))
                    .with_source(cause))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a log of these frames, for the same store as the old one.
fn write_log(
    folders: &Folders,
    old: &Path,
    fresh: &Path,
    frames: &[Payload],
    now_ms: i64,
) -> Result<()> {
    let parts = Dependencies::default();
    let new = ((parts.new_uuid)(), parts.random);
    let unused = |_| Ok((FlushedSeq::default(), Noted::default()));
    let mut log = Wal::open(fresh, &record::schema(), folders, new, &unused, &mut |_, _| Ok(()))?;
    if let Some(home) = wal::read_home(&**folders.disk(), old)? {
        wal::write_home(folders, fresh, &home)?;
    }
    let mut group = Vec::new();
    let mut bytes = 0;
    for frame in frames {
        group.push(frame);
        bytes += frame.bytes().len();
        if bytes >= GROUP_BYTES {
            log.append(&group, now_ms)?;
            group = Vec::new();
            bytes = 0;
        }
    }
    if group.is_empty() { Ok(()) } else { log.append(&group, now_ms).map(|_| ()) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Error::internal("adopting a log panicked").with_source(cause))?
}

/// Keys of the rows of a log that the tables have.
struct Stored {
    keys: KeyHasher,
    /// True for records that a later part may still complete.
    stored: HashMap<u128, bool>,
}

impl Stored {
    async fn find(
        store: &Store,
        queries: &Queries,
        frames: &[(Entry, RecordBatch)],
    ) -> Result<Self> {
        let keys = KeyHasher::random();
        let mut wanted = HashSet::new();
        for (entry, batch) in frames {
            wanted.extend(keys_of(&keys, entry.kind, batch)?);
        }
        let mut stored = HashMap::new();
        if let Some(table) = Table::open(store, Rows::Logs).await? {
            let mut ids = ids_of_files(queries, &keys, files_of(&table)).await?;
            while let Some(found) = ids.try_next().await? {
                let found = found.into_iter().filter(|(key, _)| wanted.contains(key));
                stored.extend(found.map(|(key, known)| (key, known.is_open)));
            }
        }
        if let Some(table) = Table::open(store, Rows::Feedback).await? {
            let view = View::with_files(Rows::Feedback, FileIndex::new(files_of(&table)));
            let limits = Limits { timeout: None, max_rows: None, ..queries.limits() };
            let text = "select organisation_id, workspace_slug, id, created_at, updated_at, value, weight \
                from feedback_history";
            let mut rows =
                queries.run(view, text, ParamValues::Map(HashMap::new()), limits).await?.batches;
            while let Some(batch) = rows.next().await {
                let found = keys_of(&keys, Kind::Feedback, &batch?)?;
                let found = found.into_iter().filter(|key| wanted.contains(key));
                stored.extend(found.map(|key| (key, false)));
            }
        }
        Ok(Self { keys, stored })
    }

    /// Returns the rows of a frame that are to be written again. A part whose record is stored
    /// becomes a late part; it adds nothing if the record has it already or was stored whole.
    fn rest(&self, kind: Kind, batch: &RecordBatch) -> Result<Vec<Payload>> {
        let states: Vec<Option<bool>> = keys_of(&self.keys, kind, batch)?
            .iter()
            .map(|key| self.stored.get(key).copied())
            .collect();
        let is_new = states.iter().map(Option::is_none).collect();
        match kind {
            Kind::Logs | Kind::Feedback => payload(kind, batch, is_new).map(Vec::from_iter),
            Kind::Late(_) => payload(kind, batch, vec![true; states.len()]).map(Vec::from_iter),
            Kind::RecordPart(part_kind) => {
                let is_open = states.iter().map(|is_open| *is_open == Some(true)).collect();
                let late = payload(Kind::Late(part_kind), batch, is_open)?;
                Ok(late.into_iter().chain(payload(kind, batch, is_new)?).collect())
            }
        }
    }
}

fn files_of(table: &Table) -> Vec<DataFile> {
    table.index().iter().map(|file| DataFile::clone(file)).collect()
}

/// Encodes the selected rows of a batch. Returns `None` if no row is selected.
fn payload(kind: Kind, batch: &RecordBatch, wanted: Vec<bool>) -> Result<Option<Payload>> {
    let rows = filter_record_batch(batch, &BooleanArray::from(wanted))
        .map_err(|cause| Error::internal("cannot select rows of a frame").with_source(cause))?;
    if rows.num_rows() == 0 {
        return Ok(None);
    }
    // Frames of feedback include their schema, because an earlier version may have had other
    // columns.
    if kind == Kind::Feedback || rows.schema() == record::schema() {
        return Payload::encode_as(kind, &rows).map(Some);
    }
    let mut builder = BatchBuilder::new();
    read_batch(&rows)?.iter().for_each(|record| builder.append(record));
    Payload::encode_as(kind, &builder.finish()).map(Some)
}

/// Returns the key of each row of a frame.
fn keys_of(keys: &KeyHasher, kind: Kind, batch: &RecordBatch) -> Result<Vec<u128>> {
    if kind != Kind::Feedback {
        return Ok(keys.keys_of_batch(batch));
    }
    Ok(Feedback::from_batch(batch)?.iter().map(|row| state_key(keys, row)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::RecordPart;
    use crate::record::{FeedbackBuilder, Record};

    #[test]
    fn stored_rows_are_left_out_and_parts_of_stored_records_become_late() {
        let keys = KeyHasher::random();
        let mut builder = BatchBuilder::new();
        for id in ["stored", "whole", "new"] {
            let id = Some(id.to_owned());
            let organisation_id = Some("acme".to_owned());
            builder.append(&Record { id, organisation_id, ..Record::default() });
        }
        let batch = builder.finish();
        let key = |id| keys.key("acme", None, id);
        let stored = Stored { stored: [(key("stored"), true), (key("whole"), false)].into(), keys };
        let kinds_of = |kind| {
            let payloads = stored.rest(kind, &batch).unwrap();
            payloads.iter().map(|payload| payload.kind().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(kinds_of(Kind::Logs), [Kind::Logs]);
        for part_kind in RecordPart::ALL {
            assert_eq!(
                kinds_of(Kind::RecordPart(part_kind)),
                [Kind::Late(part_kind), Kind::RecordPart(part_kind)]
            );
            assert_eq!(kinds_of(Kind::Late(part_kind)), [Kind::Late(part_kind)]);
            let of_whole = stored.rest(Kind::RecordPart(part_kind), &batch.slice(1, 1)).unwrap();
            assert!(of_whole.is_empty(), "a part of a record that was stored whole");
        }
        assert!(stored.rest(Kind::Logs, &batch.slice(0, 2)).unwrap().is_empty());
    }

    #[test]
    fn two_states_of_feedback_within_one_microsecond_are_two() {
        let keys = KeyHasher::random();
        let at = |micros| chrono::DateTime::from_timestamp_micros(micros);
        let state = |value| Feedback {
            id: Some("f".to_owned()),
            organisation_id: Some("acme".to_owned()),
            created_at: at(1),
            updated_at: at(2),
            value: Some(value),
            ..Feedback::default()
        };
        let mut builder = FeedbackBuilder::new();
        [1.0, -1.0].iter().for_each(|value| builder.append(&state(*value)));
        let found = keys_of(&keys, Kind::Feedback, &builder.finish()).unwrap();
        assert_eq!(found, [1.0, -1.0].map(|value| state_key(&keys, &state(value))));
        assert_ne!(found[0], found[1]);
    }
}
