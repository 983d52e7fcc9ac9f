//! Appends the records of an import to the engine. Leaves out records that were erased on request,
//! however long ago, and waits while the engine is full.

use std::time::Duration;

use tokio::task::JoinError;

use crate::cli::output::say;
use crate::cli::progress::thousands;
use gatelog::engine::{Engine, ErasedRecords, Receipt};
use gatelog::error::{Error, ErrorKind, Result};
use gatelog::record::Record;
use gatelog::record::json::Reason;
use gatelog::refusals::{self, Refused, Sender};

/// Number of concurrent appends.
pub(super) const APPENDS_AT_ONCE: usize = 4;

/// First and longest pause before an append to a full engine is repeated.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

const OVER_QUOTA: &str = "the quota of their organisation's plan is used up";
const PAST_RETENTION: &str =
    "their organisation's plan has a shorter retention; maintenance deletes them";

/// Appends records except those that were erased on request.
#[derive(Clone)]
pub(super) struct Appender {
    pub(super) engine: Engine,
    erased: ErasedRecords,
}

/// Outcome of appended records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Appended {
    pub(super) receipt: Receipt,
    /// Records that were left out because they were erased on request.
    pub(super) erased: u64,
}

impl Appender {
    pub(super) async fn new(engine: &Engine) -> Result<Self> {
        Ok(Self { engine: engine.clone(), erased: engine.erased_records().await? })
    }

    /// Appends records. Waits while the engine is full.
    pub(super) async fn append(&self, mut records: Vec<Record>) -> Result<Appended> {
        let all = records.len();
        records.retain(|record| !self.erased.contains(record));
        let erased = (all - records.len()) as u64;
        Ok(Appended { receipt: append_patiently(&self.engine, records).await?, erased })
    }
}

impl Appended {
    pub(super) fn add(&mut self, other: Self) {
        self.receipt += other.receipt;
        self.erased += other.erased;
    }

    /// Returns the number of records that are stored now.
    pub(super) fn known(&self) -> u64 {
        self.receipt.accepted + self.receipt.duplicate
    }

    /// Adds the records that the plans of organisations do not store to the list of refusals.
    pub(super) fn note_left_out(&self, engine: &Engine, sender: &Sender) {
        let Receipt { over_quota, past_retention, .. } = self.receipt;
        let left_out = [
            (Reason::OverQuota, OVER_QUOTA, over_quota),
            (Reason::PastRetention, PAST_RETENTION, past_retention),
        ];
        for (reason, why, count) in left_out.into_iter().filter(|(_, _, count)| *count > 0) {
            engine.refusals().request(sender, Refused::many(reason, why, count));
        }
    }

    /// Prints the numbers of records that were not stored, with the reasons.
    pub(super) fn tell_left_out(&self) {
        let Receipt { over_quota, past_retention, .. } = self.receipt;
        if over_quota > 0 {
            say!("{} records were not stored: {OVER_QUOTA}", thousands(over_quota));
        }
        if past_retention > 0 {
            say!("{} records are in no response: {PAST_RETENTION}", thousands(past_retention));
        }
        if self.erased > 0 {
            say!("{} records were not stored: they were erased on request", thousands(self.erased));
        }
    }
}

/// Appends records. Waits while the engine is full.
pub(in crate::cli) async fn append_patiently(
    engine: &Engine,
    mut records: Vec<Record>,
) -> Result<Receipt> {
    let (mut pause, longest) = PAUSES;
    loop {
        match engine.append_parsed(records).await {
            Ok(receipt) => return Ok(receipt),
            // If the outcome of records is unknown, they are not returned. Continuing without them
            // would lose them.
            Err(refused)
                if refused.error.kind() == ErrorKind::Busy && !refused.records.is_empty() =>
            {
                records = refused.records;
            }
            Err(refused) => return Err(refused.error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Returns the sender of refusals in an import.
pub(super) fn sender(source: impl Into<refusals::Source>) -> Sender {
    Sender {
        organisation: None,
        workspace: None,
        source: source.into(),
        route: "gatelog import".into(),
    }
}

/// Returns the result of an append that ran in a task.
pub(super) fn joined(appended: Result<Result<Appended>, JoinError>) -> Result<Appended> {
    appended.map_err(|cause| Error::internal("an append ended early").with_source(cause))?
}
