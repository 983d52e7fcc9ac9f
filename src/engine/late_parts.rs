//! Late parts come into their records: after a flush, the files that hold such records are written
//! anew without them, and the records as they are now take their place, in one commit. An answer
//! sees the record as it was or as it is, never both.
//!
//! A part that adds nothing changes nothing, so one that a restart brings back after its commit
//! does no harm. One whose record is in no file, since it was erased or its time is over, is let
//! go. Whatever fails is tried again after the next flush; a record that cannot take its parts is
//! tried by itself, so that it keeps no other from its parts, and refused with a count after a few
//! times.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::writer::Command;
use super::{Inner, locked};
use crate::datafile::OpenRecords;
use crate::error::{Error, ErrorKind, Result};
use crate::flush;
use crate::maintain::{self, Policy, Tools};
use crate::parts::{LatePart, RecordPart, amend};
use crate::plan::{Row, Rules};
use crate::record::json::{Reason, Seen, records};
use crate::record::{BatchBuilder, Record};
use crate::refusals::{Refused, Sender, Source};
use crate::table::{DataFile, FileIndex};

/// Records that are looked for by one statement, and the bytes of their ids.
const IDS_AT_ONCE: usize = 256;
const STATEMENT_BYTES: usize = 64 << 10;
/// Parts whose record cannot take them are tried so often.
const MAX_ATTEMPTS: u32 = 3;
/// Rows that are read in one go: few, since they come with their bodies.
const READ_ROWS: usize = 16;
/// Records of so many bytes, in so many files, are put in the place of others in one commit.
const ROUND_BYTES: usize = 32 << 20;
const ROUND_FILES: usize = 16;
/// A part and its record mostly say that they are of times that differ less than this, µs.
const NEAR_MICROS: i64 = 3_600_000_000;

/// Organisation, workspace and id of a record.
type Name = (String, Option<String>, String);

/// What names a record, as [`crate::dedupe::KeyHasher::of`] takes it: an empty workspace is none.
fn name_of(record: &Record) -> Name {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let workspace = record.workspace_slug.clone().filter(|workspace| !workspace.is_empty());
    (text(&record.organisation_id), workspace, text(&record.id))
}

/// Parts of records.
type Wanted = BTreeMap<Name, Vec<LatePart>>;

/// Files by path, with the names of the records in them that others take the place of, and how many
/// there are of each.
type Touched = BTreeMap<String, (Arc<DataFile>, HashMap<Name, usize>)>;

/// Records that have parts to take, and the file that each is in.
#[derive(Default)]
struct Round {
    files: Touched,
    amended: BatchBuilder,
    /// Bytes of text of all records that were looked at, and how many are enough.
    bytes: usize,
    most_bytes: usize,
    /// Parts that are done when the round is.
    parts: Vec<LatePart>,
    /// Records of which a part said that nothing may be kept of what was said.
    untracked: Vec<u128>,
    /// Why a file could not be read, if one could not: what was not found may be in it.
    failed: Option<Error>,
}

/// The records of one name in a file, with their parts.
struct Found {
    parts: Vec<LatePart>,
    /// How many there are, and what comes in their place.
    rows: usize,
    records: Vec<Record>,
    is_changed: bool,
}

impl Round {
    fn is_full(&self) -> bool {
        self.bytes >= self.most_bytes || self.files.len() >= ROUND_FILES
    }

    /// Takes over what was found in a file.
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
    /// Adds late parts to their records after each flush, for as long as the engine lives.
    pub(super) async fn amend_after_flushes(self: Arc<Self>) {
        loop {
            self.amend_wanted.notified().await;
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

    /// Adds the late parts that the last flush found to their records. Returns once those that
    /// another task took before are added, too.
    pub(super) async fn amend_late(&self) -> Result<()> {
        let _turn = self.amend_turn.lock().await;
        let late = std::mem::take(&mut *locked(&self.late));
        if late.is_empty() { Ok(()) } else { self.amend(late).await }
    }

    /// Adds late parts to their records. If that fails for what they are, each record by itself is
    /// tried, so that one that cannot take its parts does not keep the others from theirs.
    pub(super) async fn amend(&self, late: Vec<LatePart>) -> Result<()> {
        let mut wanted = Wanted::new();
        for part in late {
            wanted.entry(name_of(&part.record)).or_default().push(part);
        }
        match self.amend_records(wanted.clone()).await {
            Err(error) if !passes(&error) => {}
            done => return done,
        }
        let mut failed = None;
        for (name, parts) in wanted {
            match self.amend_records(Wanted::from([(name, parts.clone())])).await {
                Ok(()) => {}
                Err(error) if passes(&error) => return Err(error),
                Err(error) => failed = self.refuse_parts(parts, error)?.or(failed),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Counts that a record could not take its parts; after a few times refuses them, so that they
    /// take no more room. Returns the error if they are to be tried again.
    fn refuse_parts(&self, parts: Vec<LatePart>, error: Error) -> Result<Option<Error>> {
        let Some(first) = parts.first() else { return Ok(None) };
        {
            let mut attempts = locked(&self.amend_attempts);
            let made = attempts.entry(first.key).or_default();
            *made += 1;
            if *made < MAX_ATTEMPTS {
                return Ok(Some(error));
            }
            attempts.remove(&first.key);
        }
        let (count, seen) = (
            parts.len() as u64,
            Seen {
                organisation: first.record.organisation_id.clone(),
                workspace: first.record.workspace_slug.clone(),
                excerpt: None,
            },
        );
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
        self.send(Command::Amended { parts, untracked: Vec::new() })?;
        Ok(None)
    }

    async fn amend_records(&self, mut wanted: Wanted) -> Result<()> {
        while !wanted.is_empty() {
            // Rewrites exclude each other, and merges.
            let _one_at_a_time = self.compacting.lock().await;
            let rules = self.catalog.rules();
            let Round { files, mut amended, parts, untracked, failed, .. } =
                self.next_round(&mut wanted, &rules).await?;
            if !files.is_empty() {
                self.replace(files, amended.finish(), &rules).await?;
            }
            {
                let mut attempts = locked(&self.amend_attempts);
                for part in &parts {
                    attempts.remove(&part.key);
                }
            }
            self.send(Command::Amended { parts, untracked })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes records that are wanted from the files that they are in, up to a bound; if it is not
    /// reached, nothing is left to be found, unless a file could not be read.
    async fn next_round(&self, wanted: &mut Wanted, rules: &Rules) -> Result<Round> {
        // The records are held twice: as they are, and as the batch that is written.
        let room = usize::try_from(self.queries.upkeep_bytes() / 2).unwrap_or(ROUND_BYTES);
        let mut round = Round { most_bytes: ROUND_BYTES.min(room), ..Round::default() };
        for file in candidates(&self.logs.table.index(), wanted) {
            match self.look_into(&file, wanted, rules, &mut round).await {
                Ok(()) => {}
                // One bad file must not keep the others.
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

    /// Takes what is wanted of one file.
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
                for stored in records(&batch)? {
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

    /// Adds the parts of a record to it, if it has any. Where a file has two of one name, as where
    /// ids are not remembered, both take them.
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
            // Those that are left wait for the next round, with their parts.
            let Some(mut parts) = (!round.is_full()).then(|| wanted.remove(&name)).flatten() else {
                return;
            };
            // In the order of what they say, where it has times.
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
        // A part may say whose the record is: then it was erased with that user, though nobody
        // could tell.
        if !rules.erases(Row::from_record(&record)) {
            round.bytes += record.text_bytes();
            found.records.push(record);
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            table: &self.logs.table,
            queries: &self.queries,
            policy: Policy::from_config(&self.config),
        }
    }

    /// Puts records in the place of the stored ones.
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
        let table = &self.logs.table;
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
            self.commits.lock().await.note_own(added);
        }
        let files: Vec<_> = touched.values().map(|(file, _)| Arc::clone(file)).collect();
        let commit = async || maintain::commit_replaced(table, &files, rewrites, replacing).await;
        match self.commit_shown(&self.logs, written_ms, commit).await? {
            true => Ok(()),
            false => Err(Error::busy("another node took a file away meanwhile")),
        }
    }
}

/// Returns whether a failure is one of the moment, or of a file, and not of the parts.
fn passes(error: &Error) -> bool {
    use ErrorKind::{Busy, Closed, Damaged, Storage};
    matches!(error.kind(), Busy | Closed | Damaged | Storage)
}

/// Ids in groups that fit into a statement.
fn in_statements(ids: &[String]) -> Vec<&[String]> {
    let (mut groups, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, id) in ids.iter().enumerate() {
        if at > start && (at - start == IDS_AT_ONCE || bytes + id.len() > STATEMENT_BYTES) {
            groups.push(&ids[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += id.len() + 1;
    }
    groups.push(&ids[start..]);
    groups.retain(|group| !group.is_empty());
    groups
}

/// The files that records may be in, those first that are of about the time of one of their parts,
/// then the newest.
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
    use crate::record::Message;
    use crate::{Config, Engine, Params};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_that_cannot_take_its_parts_keeps_no_other_from_its_own() {
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
        // No statement can look for such an id. None is taken any more, but older logs may hold
        // one.
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
