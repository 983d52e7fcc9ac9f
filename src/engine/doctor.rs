//! Checks everything that is stored, read-only: the frames of the log, the Delta logs of both
//! tables, every file that they name, the catalog and the counts.
//!
//! It reports all findings rather than stopping at the first one, each with a remedy.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::ParamValues;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;

use super::left_logs::left_logs;
use super::maintenance::{self, MaintenanceState};
use super::work_threads::work_threads;
use super::{claim, flushed_seq, identity};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::datafile::checked::{self, Verified};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Month;
use crate::query::{Limits, Queries, Weight};
use crate::record::Rows;
use crate::store::Store;
use crate::table::{DataFile, FileIndex, Table};
use crate::usage;
use crate::view::View;
use crate::wal::{self, FlushedSeq, Noted};

/// Maximum number of rows that are decoded at once.
const DECODED_ROWS: usize = 512;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No problem.
    Ok,
    /// Worth knowing; nothing is lost.
    Warning,
    /// Records are missing or cannot be read.
    Error,
}

/// One result of the check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Severity of the finding.
    pub severity: Severity,
    /// Description of the finding.
    pub what: String,
    /// Advice, if something can be done.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(what: String) -> Self {
        Self { severity: Severity::Ok, what, remedy: None }
    }

    fn warning(what: String, remedy: &str) -> Self {
        Self { severity: Severity::Warning, what, remedy: Some(remedy.to_owned()) }
    }

    fn error(what: String, remedy: &str) -> Self {
        Self { severity: Severity::Error, what, remedy: Some(remedy.to_owned()) }
    }
}

/// Checks the data folder of a configuration. `progress` is called with the current step, the
/// amount done, and the total.
pub async fn doctor(
    config: &Config,
    progress: &(dyn Fn(&str, u64, u64) + Send + Sync),
) -> Result<Vec<Finding>> {
    doctor_of(&Store::open(config, false)?, config, progress).await
}

/// Checks a store that the caller opened.
pub async fn doctor_of(
    store: &Store,
    config: &Config,
    progress: &(dyn Fn(&str, u64, u64) + Send + Sync),
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    check_identity(store, &mut findings).await?;
    let logs = open_table(store, Rows::Logs, &mut findings).await;
    let feedback = open_table(store, Rows::Feedback, &mut findings).await;
    check_wal(store, [logs.as_ref(), feedback.as_ref()], &mut findings).await?;
    let threads = work_threads(config)?;
    let queries = Queries::new(config, store, Vec::new(), threads.handle()?)?;
    for table in [&logs, &feedback].into_iter().flatten() {
        check_files(store, table, &queries, progress, &mut findings).await?;
    }
    if logs.is_none() && findings.iter().all(|finding| finding.severity != Severity::Error) {
        findings.push(Finding::ok("there is no table yet: nothing was flushed".to_owned()));
    }
    check_catalog(store, &mut findings).await;
    check_counts(store, logs.as_ref(), &mut findings).await?;
    check_clock(store, &mut findings).await;
    Ok(findings)
}

/// Reports a leap of the clock that stopped expiry.
async fn check_clock(store: &Store, findings: &mut Vec<Finding>) {
    // The document only informs, so an unreadable one is ignored.
    if let Ok((MaintenanceState { clock: Some(leap), .. }, _)) = maintenance::read(store).await {
        let what = format!(
            "the clock of the node that does maintenance leapt from about {} to {}; nothing expires and no file is deleted",
            leap.expected, leap.found
        );
        let remedy = "correct the clock, or confirm the time with `POST /v1/admin/clock` of a running server";
        findings.push(Finding::warning(what, remedy));
    }
}

/// Checks that this is a complete store and that the log belongs to it. Returns
/// [`crate::error::ErrorKind::NotFound`] if it never was a store.
async fn check_identity(store: &Store, findings: &mut Vec<Finding>) -> Result<()> {
    // An unreadable catalog is reported below.
    let Ok(catalog) = Catalog::open(store, 0, chrono::Utc::now).await else { return Ok(()) };
    identity::require_store(store, &catalog).await?;
    let remedy =
        "see above; until then the rows of that log are counted below as if they were this store's";
    match identity::check(store, &catalog).await {
        Ok(()) => {}
        // A missing catalog is reported below.
        Err(error) if error.kind() == ErrorKind::Damaged => {}
        Err(error) => findings.push(Finding::error(error.chain(), remedy)),
    }
    // Damage of the log is reported below.
    if let Err(error) = claim::refuse_left_behind(store).await
        && error.kind() != ErrorKind::Damaged
    {
        findings.push(Finding::error(
            error.chain(),
            "see above; until then the rows of that log are not all counted below",
        ));
    }
    if let Some(identity) = &catalog.state().document.store {
        let origin = if identity.copy_of.is_empty() {
            String::new()
        } else {
            format!(", a copy of {}", identity.copy_of[0])
        };
        findings.push(Finding::ok(format!("store {} at `{}`{origin}", identity.id, store.place())));
    }
    Ok(())
}

async fn open_table(store: &Store, rows: Rows, findings: &mut Vec<Finding>) -> Option<Table> {
    match Table::open(store, rows).await {
        Ok(table) => table,
        Err(error) => {
            let name = rows.folder();
            let what = format!("the log of table `{name}` cannot be read: {}", error.chain());
            let remedy = "restore `_delta_log` in its folder from a copy; the Parquet files beside it are not affected";
            findings.push(Finding::error(what, remedy));
            None
        }
    }
}

async fn check_wal(
    store: &Store,
    tables: [Option<&Table>; 2],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let Some(folder) = store.wal_folder() else { return Ok(()) };
    let covered = match flushed_seq::wal_id_of(store) {
        Ok(Some(id)) => flushed_seq::covered(tables[0], tables[1], id).await?,
        Ok(None) => FlushedSeq::default(),
        Err(error) => {
            findings.push(Finding::error(
                error.chain(),
                "write the log's id (see the first bytes of a segment) into it",
            ));
            FlushedSeq::default()
        }
    };
    // Before the log, which grows meanwhile.
    let noted = match flushed_seq::wal_id_of(store)
        .ok()
        .flatten()
        .and_then(|id| Some((store.last_note(id)?, id)))
    {
        Some((path, id)) => wal::read_last(&**store.disk(), &path, id)?,
        None => Noted::default(),
    };
    let own = flushed_seq::wal_id_of(store).ok().flatten().unwrap_or_default();
    for log in left_logs(store, tables, own).await? {
        findings.push(Finding::error(log.describe(), &log.remedy()));
    }
    let mut frames = 0_u64;
    let mut rows = 0_u64;
    let found = wal::replay(&**store.disk(), &folder, covered, true, &mut |_, batch| {
        frames += 1;
        rows += batch.num_rows() as u64;
        Ok(())
    });
    match found {
        Err(error) => findings.push(Finding::error(
            error.chain(),
            "restore the segment from a copy, or move it out of `wal/` to open without its rows",
        )),
        Ok(found) => {
            let next = found.next_sequence();
            findings.push(Finding::ok(format!(
                "write-ahead log: {} segments whole, {frames} frames with {rows} rows wait for a flush",
                found.segments.len()
            )));
            // A flush may have changed the table since; only frames that it covers now may be
            // missing.
            let covered = match flushed_seq::wal_id_of(store) {
                Ok(Some(id)) => flushed_seq::covered_now(store, id)
                    .await
                    .map_or(covered, |(_, _, covered)| covered),
                _ => covered,
            };
            let covered = covered.most();
            if let Some(first) =
                found.segments.first().filter(|first| first.first_sequence > covered + 1)
            {
                let begins = first.first_sequence;
                let path = first.path.display();
                let what = format!(
                    "`{path}` begins at sequence {begins}, but the table ends at {covered}"
                );
                findings.push(Finding::error(what, "a segment is missing; restore it from a copy"));
            }
            if !found.vanished {
                match found.reaches(&noted, covered, &folder) {
                    Ok(None) => {}
                    Ok(Some(missing)) => findings.push(Finding::error(
                        missing.describe(),
                        "restore the end of the segment from a copy; without one the next start continues without these frames",
                    )),
                    Err(error) => findings.push(Finding::error(error.chain(), "rows that were acked are missing")),
                }
            }
            for segment in found.segments.iter().filter(|segment| segment.torn_bytes > 0) {
                let bytes = segment.torn_bytes;
                let path = segment.path.display();
                let what = format!(
                    "`{path}` ends in {bytes} bytes that are no whole frame (next sequence {next})"
                );
                findings.push(Finding::warning(
                    what,
                    "usually a write that was interrupted before its ack, or one in progress, and the next open cuts it; if nothing was interrupted, the end of the segment is damaged: restore it from a copy first",
                ));
            }
        }
    }
    Ok(())
}

async fn check_files(
    store: &Store,
    table: &Table,
    queries: &Queries,
    progress: &(dyn Fn(&str, u64, u64) + Send + Sync),
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let index = table.index();
    let files: Vec<_> = index.iter().collect();
    let mut rows = 0;
    let mut wrong = 0;
    let mut without = 0;
    for (place, file) in files.iter().enumerate() {
        progress("files", place as u64, files.len() as u64);
        match check_file(store, table, queries, file).await {
            Ok(has_checksums) => {
                rows += file.rows;
                without += u64::from(!has_checksums);
            }
            Err(what) => {
                wrong += 1;
                let remedy = "restore the file from a copy; without one its rows are lost";
                findings.push(Finding::error(format!("file `{}`: {what}", file.path), remedy));
            }
        }
    }
    progress("files", files.len() as u64, files.len() as u64);
    let whole = files.len() - wrong;
    let name = table.rows().folder();
    let version = index.version;
    findings.push(Finding::ok(format!(
        "table `{name}` version {version}: {whole} files whole, {rows} rows"
    )));
    if without > 0 {
        findings.push(Finding::ok(format!(
            "{without} files of table `{name}` have no checksums, since an earlier version or another program wrote them: \
             their rows can be read, and a flipped bit in them may go unseen until a merge rewrites them"
        )));
    }
    count_strays(store, table, findings).await
}

/// Reads a file completely, and compares it with its checksums and with the entry of the table.
/// Returns true if it has checksums; otherwise its rows are decoded.
async fn check_file(
    store: &Store,
    table: &Table,
    queries: &Queries,
    file: &DataFile,
) -> std::result::Result<bool, String> {
    let path = table.object_store_path(file);
    let found = store
        .object_store()
        .head(&path)
        .await
        .map_err(|error| format!("cannot be found: {error}"))?;
    if found.size != file.bytes {
        return Err(format!("has {} bytes, the table says {}", found.size, file.bytes));
    }
    let verified = checked::verify(store.object_store(), &path, found.size).await;
    let (rows, has_checksums) =
        match verified.map_err(|error| format!("cannot be read: {error}"))? {
            Verified::Whole(rows) => (rows, true),
            Verified::Without => (count_rows(table, queries, file).await?, false),
            Verified::Harmed(parts) => return Err(checked::listed(&parts)),
        };
    if rows != file.rows {
        return Err(format!("has {rows} rows, the table says {}", file.rows));
    }
    Ok(has_checksums)
}

/// Decodes every row of a file, in batches of bounded bytes: all columns together, or one after the
/// other if a row group of all columns is too large.
async fn count_rows(
    table: &Table,
    queries: &Queries,
    file: &DataFile,
) -> std::result::Result<u64, String> {
    let names: Vec<String> =
        table.rows().columns().iter().map(|column| column.name.to_owned()).collect();
    let whole = weigh(table, queries, file, &names).await?;
    if whole.held(1) <= queries.reader_bytes() {
        return decode(table, queries, file, &names, whole).await;
    }
    let mut rows = None;
    for name in names {
        let columns = [name];
        let weight = weigh(table, queries, file, &columns).await?;
        let found = decode(table, queries, file, &columns, weight).await?;
        if *rows.get_or_insert(found) != found {
            return Err(format!(
                "column `{}` has {found} rows, others have another number",
                columns[0]
            ));
        }
    }
    Ok(rows.unwrap_or(0))
}

/// Returns the memory that reading these columns of a file takes.
async fn weigh(
    table: &Table,
    queries: &Queries,
    file: &DataFile,
    columns: &[String],
) -> std::result::Result<Weight, String> {
    let weights = queries
        .weigh(table.rows(), &[Arc::new(file.clone())], Some(columns))
        .await
        .map_err(|error| unreadable(&error))?;
    Ok(weights.into_iter().fold(Weight::default(), Weight::max))
}

/// Decodes these columns of every row of a file.
async fn decode(
    table: &Table,
    queries: &Queries,
    file: &DataFile,
    columns: &[String],
    weight: Weight,
) -> std::result::Result<u64, String> {
    let view = View::with_files(table.rows(), FileIndex::new([file.clone()]));
    let batch_rows = Some(weight.batch_rows(DECODED_ROWS, queries.reader_bytes()));
    let limits = Limits { timeout: None, max_rows: None, batch_rows, ..queries.limits() };
    let names: Vec<String> = columns.iter().map(|name| format!("\"{name}\"")).collect();
    let text = format!("select {} from {}", names.join(", "), table.rows().table());
    let none = ParamValues::Map(HashMap::new());
    let mut batches =
        queries.run(view, &text, none, limits).await.map_err(|error| unreadable(&error))?.batches;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await.map_err(|error| unreadable(&error))? {
        rows += batch.num_rows() as u64;
    }
    Ok(rows)
}

fn unreadable(error: &Error) -> String {
    format!("cannot be read: {}", error.chain())
}

/// Counts Parquet files that the table does not name: remains of interrupted flushes and of merges.
async fn count_strays(store: &Store, table: &Table, findings: &mut Vec<Finding>) -> Result<()> {
    let index = table.index();
    let named: HashSet<_> = index.iter().map(|file| table.object_store_path(file)).collect();
    let mut listing = store.object_store().list(Some(&store.table_path(table.rows().folder())));
    let mut strays = 0;
    let mut bytes = 0;
    loop {
        match listing.try_next().await {
            Ok(Some(object)) => {
                let parquet = object.location.extension() == Some("parquet");
                if parquet
                    && !object.location.as_ref().contains("_delta_log")
                    && !named.contains(&object.location)
                {
                    strays += 1;
                    bytes += object.size;
                }
            }
            Ok(None) => break,
            Err(error) => {
                findings.push(Finding::error(
                    format!("the table's folder cannot be listed: {error}"),
                    "see the cause",
                ));
                return Ok(());
            }
        }
    }
    if strays > 0 {
        findings.push(Finding::ok(format!(
            "{strays} files, {bytes} bytes, belong to no current version; vacuum deletes them after the grace time"
        )));
    }
    Ok(())
}

async fn check_counts(
    store: &Store,
    table: Option<&Table>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let month = Month::of_micros(chrono::Utc::now().timestamp_micros());
    let logs = match usage::read(store, month).await {
        Ok(logs) => logs,
        Err(error) => {
            let remedy =
                "restore the file from a copy, or delete it: quotas of the month then begin at 0";
            findings.push(Finding::error(error.chain(), remedy));
            return Ok(());
        }
    };
    let Some(wal_id) = flushed_seq::wal_id_of(store).ok().flatten() else { return Ok(()) };
    let covered = flushed_seq::covered(table, None, wal_id).await?.logs;
    let known = logs.get(&wal_id).and_then(|snapshots| usage::as_of(snapshots, covered));
    findings.push(match known {
        Some(snapshot) if snapshot.sequence == covered => {
            Finding::ok(format!("counts of records: whole, from {} write-ahead logs", logs.len()))
        }
        None if covered == 0 => Finding::ok("counts: none yet".to_owned()),
        None => Finding::error(
            format!("the counts of log {wal_id} are missing; the table covers the log up to sequence {covered}"),
            "restore `usage` from a copy; without it quotas of this month begin at 0",
        ),
        _ => Finding::warning(
            format!("counts of log {wal_id} do not reach sequence {covered}, up to which the table covers it"),
            "quotas of this month may count too few records; restore `usage` from a copy if that matters",
        ),
    });
    Ok(())
}

async fn check_catalog(store: &Store, findings: &mut Vec<Finding>) {
    match Catalog::open(store, 0, chrono::Utc::now).await {
        Ok(catalog) if catalog.is_stored() => {
            let document = &catalog.state().document;
            let organisations = document.organisations.len();
            let keys = document.keys.len();
            findings
                .push(Finding::ok(format!("catalog: {organisations} organisations, {keys} keys")));
        }
        Ok(_)
            if store
                .wal_folder()
                .is_some_and(|folder| store.disk().exists(&folder.join("catalog"))) =>
        {
            let what =
                "`catalog.json`, with organisations, keys and erasures, is missing".to_owned();
            findings.push(Finding::error(what, "restore it from a copy"));
        }
        Ok(_) => findings.push(Finding::ok(
            "catalog: none yet; the first organisation or key creates it".to_owned(),
        )),
        Err(error) => {
            findings.push(Finding::error(error.chain(), "restore `catalog.json` from a copy"))
        }
    }
}
