//! Late parts come into their records: after a flush, the files that hold such records are written anew without them, and the records
//! as they are now take their place, in one commit. An answer sees the record as it was or as it is, never both.
//!
//! A part that adds nothing changes nothing, so one that a restart brings back after its commit does no harm. One whose record is
//! in no file, since it was erased or its time is over, is let go. Whatever fails is tried again after the next flush.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::writer::Command;
use super::{Inner, locked};
use crate::error::{Error, ErrorKind, Result};
use crate::flush;
use crate::halves::{LatePart, amend};
use crate::maintain::{self, Policy, Tools};
use crate::plan::{Row, Rules};
use crate::record::json::records;
use crate::record::{BatchBuilder, Record};
use crate::table::{DataFile, FileIndex};

/// Records that are looked for by one statement.
const IDS_AT_ONCE: usize = 256;
/// Rows that are read in one go: few, since they come with their bodies.
const READ_ROWS: usize = 16;
/// Records of so many bytes, in so many files, are put in the place of others in one commit.
const ROUND_BYTES: usize = 32 << 20;
const ROUND_FILES: usize = 16;
/// A part and its record mostly say that they are of times that differ less than this, µs.
const NEAR_MICROS: i64 = 3_600_000_000;

/// Organisation and id of a record.
type Name = (String, String);

/// Parts of records.
type Wanted = BTreeMap<Name, Vec<LatePart>>;

/// Files by path, with the names of the records in them that others take the place of, and how many there are of each.
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
            let late = std::mem::take(&mut *locked(&self.late));
            if let Err(error) = self.amend(late).await {
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

    async fn amend(&self, late: Vec<LatePart>) -> Result<()> {
        let mut wanted = Wanted::new();
        for part in late {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let name = (text(&part.record.organisation_id), text(&part.record.id));
            wanted.entry(name).or_default().push(part);
        }
        while !wanted.is_empty() {
            // Rewrites exclude each other, and merges.
            let _one_at_a_time = self.compacting.lock().await;
            let rules = self.catalog.rules();
            let Round { files, mut amended, parts, untracked, failed, .. } =
                self.next_round(&mut wanted, &rules).await?;
            if !files.is_empty() {
                self.replace(files, amended.finish(), &rules).await?;
            }
            self.send(Command::Amended { parts, untracked })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes records that are wanted from the files that they are in, up to a bound; if it is not reached, nothing is left to be found,
    /// unless a file could not be read.
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
        let ids = wanted.keys().filter(|(organisation, _)| file.facts().may_hold(organisation));
        let ids: Vec<String> = ids.map(|(_, id)| format!("'{}'", id.replace('\'', "''"))).collect();
        for ids in ids.chunks(IDS_AT_ONCE) {
            let mut found = BTreeMap::new();
            let text = format!("select * from logs where id in ({})", ids.join(","));
            let mut rows = self.tools().read_whole([DataFile::clone(file)], &text, READ_ROWS).await?;
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

    /// Adds the parts of a record to it, if it has any. Where a file has two of one name, as where ids are not remembered, both
    /// take them.
    fn take_parts(
        &self,
        stored: &Record,
        wanted: &mut Wanted,
        rules: &Rules,
        found: &mut BTreeMap<Name, Found>,
        round: &mut Round,
    ) {
        let name = (stored.organisation_id.clone().unwrap_or_default(), stored.id.clone().unwrap_or_default());
        if !found.contains_key(&name) {
            // Those that are left wait for the next round, with their parts.
            let Some(mut parts) = (!round.is_full()).then(|| wanted.remove(&name)).flatten() else { return };
            // In the order of what they say, where it has times.
            parts.sort_by_key(|part| (part.record.created_at.is_none(), part.record.created_at));
            found.insert(name.clone(), Found { parts, rows: 0, records: Vec::new(), is_changed: false });
        }
        let Some(found) = found.get_mut(&name) else { return };
        let together = |record: Record, part: &LatePart| amend(&record, part.half, Record::clone(&part.record));
        let mut record = found.parts.iter().fold(stored.clone(), together);
        self.policy.untrack(&mut record);
        if record.do_not_track == Some(true) {
            round.untracked.extend(found.parts.first().map(|part| part.key));
        }
        found.rows += 1;
        found.is_changed |= record != *stored;
        // A part may say whose the record is: then it was erased with that user, though nobody could tell.
        if !rules.erases(Row::of(&record)) {
            round.bytes += record.text_bytes();
            found.records.push(record);
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools { table: &self.logs.table, queries: &self.queries, policy: Policy::of(&self.config) }
    }

    /// Puts records in the place of the stored ones.
    async fn replace(&self, touched: Touched, amended: RecordBatch, rules: &Arc<Rules>) -> Result<()> {
        let written_ms = (self.now)().timestamp_millis();
        let mut rewrites = Vec::new();
        for (file, names) in touched.values() {
            let is_replaced = |row: Row<'_>| names.contains_key(&(row.organisation.to_owned(), row.id.to_owned()));
            let rewrite =
                maintain::rewrite_without(self.tools(), file, is_replaced, (self.now)(), self.new_uuid).await?;
            if rewrite.replaced != names.values().sum::<usize>() as u64 {
                return Err(Error::internal(format!("file `{}` has other records than were found in it", file.path)));
            }
            rewrites.push(rewrite);
        }
        let table = &self.logs.table;
        let mut replacing = flush::write_files(table, &[amended], Arc::clone(rules), written_ms, self.new_uuid).await?;
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

/// The files that records may be in, those first that are of about the time of one of their parts, then the newest.
fn candidates(index: &FileIndex, wanted: &Wanted) -> Vec<Arc<DataFile>> {
    let parts = wanted.values().flatten();
    let mut times: Vec<i64> = parts.filter_map(|part| Some(part.record.created_at?.timestamp_micros())).collect();
    times.sort_unstable();
    let is_near = |file: &DataFile| {
        let from = file.min_created_at.saturating_sub(NEAR_MICROS);
        let first = times.partition_point(|time| *time < from);
        times.get(first).is_some_and(|time| *time <= file.max_created_at.saturating_add(NEAR_MICROS))
    };
    let mut files: Vec<(bool, Arc<DataFile>)> = index.iter().map(|file| (is_near(file), Arc::clone(file))).collect();
    files.sort_by_key(|(is_near, file)| (!is_near, std::cmp::Reverse(file.modified_ms)));
    files.into_iter().map(|(_, file)| file).collect()
}
