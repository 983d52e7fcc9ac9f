//! Results that the engine returns: the receipt of an append, the outcome of a maintenance job, and
//! the current status.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::Error;
use crate::record::Record;
use crate::time;
use crate::view::ViewCell;

/// Result of an append. All of it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Records that were accepted.
    pub accepted: u64,
    /// Records whose id was known already; they are stored once.
    pub duplicate: u64,
    /// Records that were not stored, because the organisation's plan stops at its quota. They are
    /// counted.
    pub over_quota: u64,
    /// Accepted records that are older than the retention of their organisation's plan: no query
    /// shows them, and maintenance deletes them.
    pub past_retention: u64,
}

impl std::ops::AddAssign for Receipt {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        self.over_quota += other.over_quota;
        self.past_retention += other.past_retention;
    }
}

/// A refused append.
#[derive(Debug)]
pub struct AppendError {
    /// The error.
    pub error: Error,
    /// The records, if none of them was written, so that they can be sent again. Empty if it is
    /// unknown whether they were written.
    pub records: Vec<Record>,
}

impl std::fmt::Display for AppendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for AppendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<AppendError> for Error {
    fn from(refused: AppendError) -> Self {
        refused.error
    }
}

/// A maintenance job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Remove expired and erased records, and move records whose retention was changed into another
    /// class.
    Expire,
    /// Join small files, and seal the files of past days.
    Compact,
    /// Delete files that no version names and that are older than the grace time.
    Vacuum,
    /// Write a checkpoint of the Delta log.
    Checkpoint,
    /// Delete entries of the Delta log before the last checkpoint.
    CleanLog,
}

impl Job {
    /// Returns the name of the job on the command line and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expire => "expire",
            Self::Compact => "compact",
            Self::Vacuum => "vacuum",
            Self::Checkpoint => "checkpoint",
            Self::CleanLog => "clean_log",
        }
    }
}

/// Result of a maintenance job; on a dry run, the planned steps.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The job.
    pub job: &'static str,
    /// True if nothing was changed.
    pub dry_run: bool,
    /// One line for each step.
    pub lines: Vec<String>,
    /// Live files before.
    pub files_before: u64,
    /// Live files after.
    pub files_after: u64,
    /// Bytes of live files before.
    pub bytes_before: u64,
    /// Bytes of live files after.
    pub bytes_after: u64,
}

impl Outcome {
    /// Creates the outcome of a run that found nothing to do.
    pub(super) fn nothing(job: Job) -> Self {
        Self {
            job: job.name(),
            dry_run: false,
            lines: Vec::new(),
            files_before: 0,
            files_after: 0,
            bytes_before: 0,
            bytes_after: 0,
        }
    }
}

/// Status of an engine or a reader, for people and for metrics.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// True if appends are accepted.
    pub writable: bool,
    /// Reason for refusing appends, after a failed write or commit.
    pub failure: Option<String>,
    /// Version of the Delta table `logs`; the next figures are of that version.
    pub table_version: u64,
    /// Live files.
    pub files: u64,
    /// Rows in the live files.
    pub file_rows: u64,
    /// Bytes of the live files.
    pub file_bytes: u64,
    /// Folders of one day and retention.
    pub partitions: u64,
    /// Records in memory that wait for a flush.
    pub memory_rows: u64,
    /// Bytes of those records, and of feedback that waits for a flush.
    pub memory_bytes: u64,
    /// Parts of records that wait for other parts, or to be added to a stored record.
    pub waiting_halves: u64,
    /// Maximum bytes of rows and parts in memory.
    pub memtable_budget_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Segments of the write-ahead log.
    pub wal_segments: u64,
    /// Records accepted since the start.
    pub accepted_total: u64,
    /// Records dropped since the start because their id was known.
    pub duplicate_total: u64,
    /// Records not stored since the start because of a quota.
    pub over_quota_total: u64,
    /// Records accepted since the start that are older than their organisation's plan keeps
    /// records.
    pub past_retention_total: u64,
    /// Records refused since the start because the log could not be written.
    pub refused_total: u64,
    /// Records since the start that had a date more than a day ahead and got the time of their
    /// arrival.
    pub redated_total: u64,
    /// True if the clock leapt and the time is not confirmed; nothing expires until then.
    pub clock_in_doubt: bool,
    /// Seconds since the catalog was last known to be current.
    pub catalog_age_seconds: u64,
    /// Flushes since the start.
    pub flushes_total: u64,
    /// Merges of files since the start.
    pub compactions_total: u64,
    /// Rows of feedback in files, one for each state of a feedback.
    pub feedback_rows: u64,
    /// Commits to `logs` since its last checkpoint.
    pub commits_since_checkpoint: u64,
    /// Queries that run now.
    pub queries_running: u64,
    /// Earliest `created_at` in the files, RFC 3339.
    pub oldest: Option<String>,
    /// Latest `created_at` in the files, RFC 3339.
    pub newest: Option<String>,
}

impl Status {
    pub(super) fn from_tables(logs: &ViewCell, feedback: &ViewCell, queries_running: u64) -> Self {
        let files = logs.files();
        let (memory_rows, memory_bytes, _) = logs.memory();
        let text = |micros: Option<i64>| {
            let at = DateTime::<Utc>::from_timestamp_micros(micros?)?;
            Some(time::millis(at))
        };
        Self {
            table_version: files.version,
            files: files.len() as u64,
            file_rows: files.rows(),
            file_bytes: files.bytes(),
            partitions: files.partitions().count() as u64,
            memory_rows,
            memory_bytes: memory_bytes + feedback.memory().1,
            feedback_rows: feedback.files().rows(),
            queries_running,
            oldest: text(files.iter().map(|file| file.min_created_at).min()),
            newest: text(files.iter().map(|file| file.max_created_at).max()),
            ..Self::default()
        }
    }
}
