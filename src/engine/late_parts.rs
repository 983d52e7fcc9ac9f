//! Applies late-arriving parts to stored records: after a flush, rewrites the files that hold such
//! records, and commits the merged records in the same transaction. A query sees a record before or
//! after the change, never both.
//!
//! A part that adds nothing changes nothing, so a part that a restart replays after its commit is
//! harmless. A part whose record is in no file, because it was erased or has expired, is dropped. A
//! failed attempt is repeated after the next flush. A record that cannot take its parts is tried
//! alone, so that it does not block the others, and its parts are refused and counted after
//! [`super::late_queue::MAX_ATTEMPTS`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::handle::Inner;
use super::writer::Command;
use crate::datafile::OpenRecords;
use crate::error::{Error, ErrorKind, Result};
use crate::flush;
use crate::maintain::{self, Policy, Tools};
use crate::parts::{LatePart, RecordPart, amend};
use crate::plan::{Row, Rules};
use crate::record::json::{Reason, Seen, read_batch};
use crate::record::{BatchBuilder, Record};
use crate::refusals::{Refused, Sender, Source};
use crate::table::{DataFile, FileIndex};

/// Records that one statement looks up, and the bytes of their ids.
const IDS_AT_ONCE: usize = 256;
const STATEMENT_BYTES: usize = 64 << 10;
/// Rows of one read batch: few, since they include their bodies.
const READ_ROWS: usize = 16;
/// Bytes of records, and files, that one commit replaces at most.
const ROUND_BYTES: usize = 32 << 20;
const ROUND_FILES: usize = 16;
/// A part and its record usually have times that differ by less than this, µs.
const NEAR_MICROS: i64 = 3_600_000_000;

/// Organisation, workspace and id of a record.
type Name = (String, Option<String>, String);

/// Returns the name of a record as [`crate::dedupe::KeyHasher::of`] takes it: an empty workspace
/// counts as no workspace.
fn name_of(record: &Record) -> Name {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let workspace = record.workspace_slug.clone().filter(|workspace| !workspace.is_empty());
    (text(&record.organisation_id), workspace, text(&record.id))
}

/// Late parts by the record that they belong to.
type Wanted = BTreeMap<Name, Vec<LatePart>>;

/// Files by path, with the names of the records that are replaced in them, and the number of rows
/// of each name.
type Touched = BTreeMap<String, (Arc<DataFile>, HashMap<Name, usize>)>;

/// Records that take parts in one commit, and the files that hold them.
#[derive(Default)]
struct Round {
    files: Touched,
    amended: BatchBuilder,
    /// Bytes of text of all records that were read, and the bound at which the round ends.
    bytes: usize,
    max_bytes: usize,
    /// Parts that are done once the round is committed.
    parts: Vec<LatePart>,
    /// Keys of records for which a part says that no content may be kept.
    untracked: Vec<u128>,
    /// The error of a file that could not be read. Records that were not found may be in that file.
    failed: Option<Error>,
}

/// The records of one name in a file, with their parts.
struct Found {
    parts: Vec<LatePart>,
    /// Rows in the file, and the records that replace them.
    rows: usize,
    records: Vec<Record>,
    is_changed: bool,
}

impl Round {
    fn is_full(&self) -> bool {
        self.bytes >= self.max_bytes || self.files.len() >= ROUND_FILES
    }

    /// Adds the records that were found in a file.
    fn take(&mut self, file: &Arc<DataFile>, found: BTreeMap<Name, Found>) {
        for (name, Found { parts, rows, records, is_changed }) in found {
            if is_changed {
                records.iter().for_each(|record| self.amended.append(record));
                let empty = || (Arc::clone(file), HashMap::new());
                let (_, names) = self.files.entry(file.path.clone()).or_insert_with(empty);
                names.insert(name, rows);
            }
            self.parts.extend(parts);
        }
    }
}

impl Inner {
    /// Runs for as long as the engine lives: adds late parts to their records after each flush.
    pub(super) async fn amend_after_flushes(self: Arc<Self>) {
        loop {
            self.late.wanted.notified().await;
            if let Err(error) = self.amend_late().await {
                if error.kind() == ErrorKind::Closed {
                    return;
                }
                tracing::warn!(
                    error = error.chain(),
                    "late parts of records were not added; trying again after the next flush"
                );
            }
        }
    }

    /// Adds the late parts of the last flush to their records. Parts that another task took before
    /// are added too when this returns.
    pub(super) async fn amend_late(&self) -> Result<()> {
        let _turn = self.late.turn.lock().await;
        let late = self.late.take();
        if late.is_empty() { Ok(()) } else { self.amend(late).await }
    }

    /// Adds late parts to their records. If that fails because of the parts, tries each record
    /// alone, so that a record which cannot take its parts does not block the others.
    pub(super) async fn amend(&self, late: Vec<LatePart>) -> Result<()> {
        let mut wanted = Wanted::new();
        for part in late {
            wanted.entry(name_of(&part.record)).or_default().push(part);
        }
        match self.amend_records(wanted.clone()).await {
            Err(error) if !is_temporary(&error) => {}
            done => return done,
        }
        let mut failed = None;
        for (name, parts) in wanted {
            match self.amend_records(Wanted::from([(name, parts.clone())])).await {
                Ok(()) => {}
                Err(error) if is_temporary(&error) => return Err(error),
                Err(error) => failed = self.refuse_parts(parts, error)?.or(failed),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Counts a failed attempt to add parts to a record. Refuses the parts after the last attempt,
    /// so that they free their memory. Returns the error if they are to be tried again.
    fn refuse_parts(&self, parts: Vec<LatePart>, error: Error) -> Result<Option<Error>> {
        let Some(first) = parts.first() else { return Ok(None) };
        if self.late.may_try_again(first.key) {
            return Ok(Some(error));
        }
        let count = parts.len() as u64;
        let seen = Seen {
            organisation: first.record.organisation_id.clone(),
            workspace: first.record.workspace_slug.clone(),
            excerpt: None,
        };
        let source = match first.part_kind {
            RecordPart::Figures => Source::ControlPlaneRows,
            RecordPart::Content => Source::ControlPlaneLogs,
            RecordPart::Fragment => Source::OtlpLogs,
        };
        let route = "late parts of records".into();
        let sender = Sender {
            organisation: seen.organisation.clone(),
            workspace: seen.workspace.clone(),
            source,
            route,
        };
        let id = first.record.id.as_deref().unwrap_or_default();
        let message =
            format!("parts of record `{id}` could not be added to it: {}", error.message());
        tracing::warn!(
            error = error.chain(),
            parts = count,
            "late parts of a record cannot be added; they are refused"
        );
        self.refusals
            .records(&sender, [Refused { seen, ..Refused::many(Reason::Invalid, message, count) }]);
        self.writes.send(Command::Amended { parts, untracked: Vec::new() })?;
        Ok(None)
    }

    async fn amend_records(&self, mut wanted: Wanted) -> Result<()> {
        while !wanted.is_empty() {
            // Rewrites and merges exclude each other.
            let _one_at_a_time = self.tables.compacting.lock().await;
            let rules = self.catalog.rules();
            let Round { files, mut amended, parts, untracked, failed, .. } =
                self.next_round(&mut wanted, &rules).await?;
            if !files.is_empty() {
                self.replace(files, amended.finish(), &rules).await?;
            }
            self.late.forget_attempts(&parts);
            self.writes.send(Command::Amended { parts, untracked })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads the wanted records from their files, up to a bound. If the bound is not reached, the
    /// remaining records are in no file, unless a file could not be read.
    async fn next_round(&self, wanted: &mut Wanted, rules: &Rules) -> Result<Round> {
        // The records are held twice: as structs, and as the batch that is written.
        let room = usize::try_from(self.queries.maintenance_bytes() / 2).unwrap_or(ROUND_BYTES);
        let mut round = Round { max_bytes: ROUND_BYTES.min(room), ..Round::default() };
        for file in candidates(&self.tables.logs.table.index(), wanted) {
            match self.look_into(&file, wanted, rules, &mut round).await {
                Ok(()) => {}
                // One damaged file must not block the others.
                Err(error) if error.kind() == ErrorKind::Damaged => round.failed = Some(error),
                Err(error) => return Err(error),
            }
            if wanted.is_empty() || round.is_full() {
                round.failed = None;
                return Ok(round);
            }
        }
        if round.failed.is_none() {
            round.parts.extend(std::mem::take(wanted).into_values().flatten());
        }
        Ok(round)
    }

    /// Reads the wanted records of one file.
    async fn look_into(
        &self,
        file: &Arc<DataFile>,
        wanted: &mut Wanted,
        rules: &Rules,
        round: &mut Round,
    ) -> Result<()> {
        let ids = wanted.keys().filter(|(organisation, ..)| file.facts().may_hold(organisation));
        let ids: Vec<String> =
            ids.map(|(.., id)| format!("'{}'", id.replace('\'', "''"))).collect();
        for ids in in_statements(&ids) {
            let mut found = BTreeMap::new();
            let text = format!("select * from logs where id in ({})", ids.join(","));
            let mut rows =
                self.tools().read_whole([DataFile::clone(file)], &text, READ_ROWS).await?;
            while let Some(batch) = rows.try_next().await? {
                for stored in read_batch(&batch)? {
                    self.take_parts(&stored, wanted, rules, &mut found, round);
                }
            }
            round.take(file, found);
            if round.is_full() {
                break;
            }
        }
        Ok(())
    }

    /// Merges the waiting parts into a record, if it has any. If a file has two records of one
    /// name, which happens where ids are not remembered, both take the parts.
    fn take_parts(
        &self,
        stored: &Record,
        wanted: &mut Wanted,
        rules: &Rules,
        found: &mut BTreeMap<Name, Found>,
        round: &mut Round,
    ) {
        let name = name_of(stored);
        if !found.contains_key(&name) {
            // The other records wait for the next round, with their parts.
            let Some(mut parts) = (!round.is_full()).then(|| wanted.remove(&name)).flatten() else {
                return;
            };
            // Ordered by time, as far as the parts have times.
            parts.sort_by_key(|part| (part.record.created_at.is_none(), part.record.created_at));
            found.insert(
                name.clone(),
                Found { parts, rows: 0, records: Vec::new(), is_changed: false },
            );
        }
        let Some(found) = found.get_mut(&name) else { return };
        let mut record = amend(stored, &found.parts);
        self.policy.untrack(&mut record);
        if record.do_not_track == Some(true) {
            round.untracked.extend(found.parts.first().map(|part| part.key));
        }
        found.rows += 1;
        found.is_changed |= record != *stored;
        // The part may name the record's user. If that user was erased, the record goes too:
        // without the part, the erasure could not find it.
        if !rules.erases(Row::from_record(&record)) {
            round.bytes += record.text_bytes();
            found.records.push(record);
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            table: &self.tables.logs.table,
            queries: &self.queries,
            policy: Policy::from_config(&self.config),
        }
    }

    /// Replaces stored records by their merged versions.
    async fn replace(
        &self,
        touched: Touched,
        amended: RecordBatch,
        rules: &Arc<Rules>,
    ) -> Result<()> {
        let written_ms = (self.now)().timestamp_millis();
        let mut rewrites = Vec::new();
        for (file, names) in touched.values() {
            let is_replaced = |(row, workspace): (Row<'_>, Option<&str>)| {
                let workspace =
                    workspace.filter(|workspace| !workspace.is_empty()).map(str::to_owned);
                names.contains_key(&(row.organisation.to_owned(), workspace, row.id.to_owned()))
            };
            let rewrite = maintain::rewrite_without(
                self.tools(),
                file,
                is_replaced,
                (self.now)(),
                self.new_uuid,
            )
            .await?;
            if rewrite.replaced != names.values().sum::<usize>() as u64 {
                return Err(Error::internal(format!(
                    "file `{}` has other records than were found in it",
                    file.path
                )));
            }
            rewrites.push(rewrite);
        }
        let table = &self.tables.logs.table;
        let mut replacing = flush::write_files(
            table,
            &[amended],
            Arc::clone(rules),
            // Further parts may come to a record that took one.
            &OpenRecords::All,
            written_ms,
            self.new_uuid,
        )
        .await?;
        self.stamp(&mut replacing);
        for rewrite in &mut rewrites {
            self.stamp(&mut rewrite.add);
        }
        self.unchanged(rules).await?;
        if self.store.is_shared() {
            let added = rewrites.iter().flat_map(|rewrite| &rewrite.add).chain(&replacing);
            self.tables.commits.lock().await.note_own(added);
        }
        let files: Vec<_> = touched.values().map(|(file, _)| Arc::clone(file)).collect();
        let commit = async || maintain::commit_replaced(table, &files, rewrites, replacing).await;
        if !self.commit_shown(&self.tables.logs, written_ms, commit).await? {
            return Err(Error::busy("another node took a file away meanwhile"));
        }
        Ok(())
    }
}

/// Returns true if an error is temporary or due to a file, and not due to the parts.
fn is_temporary(error: &Error) -> bool {
    use ErrorKind::{Busy, Closed, Damaged, Storage};
    matches!(error.kind(), Busy | Closed | Damaged | Storage)
}

/// Splits ids into groups that fit into a statement.
fn in_statements(ids: &[String]) -> Vec<&[String]> {
    let mut groups = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, id) in ids.iter().enumerate() {
        if at > start && (at - start == IDS_AT_ONCE || bytes + id.len() > STATEMENT_BYTES) {
            groups.push(&ids[start..at]);
            start = at;
            bytes = 0;
        }
        bytes += id.len() + 1;
    }
    groups.push(&ids[start..]);
    groups.retain(|group| !group.is_empty());
    groups
}

/// Returns the files that may hold the records: first those whose time is near that of a part, then
/// the newest.
fn candidates(index: &FileIndex, wanted: &Wanted) -> Vec<Arc<DataFile>> {
    let parts = wanted.values().flatten();
    let mut times: Vec<i64> =
        parts.filter_map(|part| Some(part.record.created_at?.timestamp_micros())).collect();
    times.sort_unstable();
    let is_near = |file: &DataFile| {
        let from = file.min_created_at.saturating_sub(NEAR_MICROS);
        let first = times.partition_point(|time| *time < from);
        times
            .get(first)
            .is_some_and(|time| *time <= file.max_created_at.saturating_add(NEAR_MICROS))
    };
    let mut files: Vec<(bool, Arc<DataFile>)> =
        index.iter().map(|file| (is_near(file), Arc::clone(file))).collect();
    files.sort_by_key(|(is_near, file)| (!is_near, std::cmp::Reverse(file.modified_ms)));
    files.into_iter().map(|(_, file)| file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::late_queue::MAX_ATTEMPTS;
    use crate::record::Message;
    use crate::{Config, Engine, Params};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_that_cannot_take_its_parts_does_not_block_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().display().to_string();
        let engine =
            Engine::open(Config { data, join_seconds: 0, ..Config::default() }).await.unwrap();
        let named = |id: &str| Record { id: Some(id.to_owned()), ..Record::default() };
        let access = crate::engine::Access::operator("test");
        engine.append_parts_as(&access, vec![(RecordPart::Figures, named("good"))]).await.unwrap();
        engine.flush().await.unwrap();
        let late = |id: &str| {
            let request = Message { body: Some("{}".to_owned()), headers: None };
            let organisation_id = Some("default".to_owned());
            let record = Arc::new(Record { request, organisation_id, ..named(id) });
            LatePart {
                key: engine.inner.keys.key_of(&record),
                part_kind: RecordPart::Content,
                record,
            }
        };
        // No statement can look up such an id. New records cannot have it, but older logs may.
        let parts = vec![late(&"x".repeat(200_000)), late("good")];
        let amend = async || engine.inner.amend(parts.clone()).await;
        let records_refused = || engine.refusals().figures().records;
        for _ in 1..MAX_ATTEMPTS {
            assert_eq!(amend().await.unwrap_err().kind(), ErrorKind::Limit);
            assert_eq!(records_refused(), 0);
        }
        amend().await.unwrap();
        assert_eq!(records_refused(), 1);
        let query = "select id from logs where request['body'] is not null";
        let rows: Vec<RecordBatch> =
            engine.sql(query, &Params::new()).await.unwrap().batches.try_collect().await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
        engine.close().await.unwrap();
    }

    #[test]
    fn ids_are_grouped_by_number_and_bytes() {
        let sizes =
            |ids: &[String]| in_statements(ids).iter().map(|group| group.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec!["a".to_owned(); 300]), [256, 44]);
        assert_eq!(sizes(&vec!["a".repeat(STATEMENT_BYTES / 2); 3]), [1, 1, 1]);
        assert_eq!(sizes(&["a".repeat(2 * STATEMENT_BYTES), "b".to_owned()]), [1, 1]);
        let all: Vec<String> = (0..1_000).map(|number| "x".repeat(number % 700)).collect();
        assert_eq!(in_statements(&all).concat(), all);
    }
}
