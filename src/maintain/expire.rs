//! Expiry: decides from file metadata which files leave a table, and drops them unread.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::plan::{Outlook, Rules};
use crate::table::{Commit, DataFile, FileIndex, Table};

/// Actions that the rules require on the files of the table, oldest day first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Files without any visible row.
    pub drop: Vec<Arc<DataFile>>,
    /// Files that may hold rows of another class than their own, or rows to be erased.
    pub rewrite: Vec<Arc<DataFile>>,
}

/// Returns the files that must leave the table, and those that must be read and possibly rewritten.
pub(crate) fn plan_expiry(now: DateTime<Utc>, index: &FileIndex, rules: &Rules) -> Expiry {
    let mut expiry = Expiry::default();
    for file in index.iter() {
        match disposition(file, rules, now.timestamp_micros()) {
            Disposition::Drop => expiry.drop.push(Arc::clone(file)),
            Disposition::Rewrite => expiry.rewrite.push(Arc::clone(file)),
            Disposition::Stay => {}
        }
    }
    expiry
}

/// Required action on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    Drop,
    Rewrite,
    Stay,
}

pub(super) fn disposition(file: &DataFile, rules: &Rules, now_micros: i64) -> Disposition {
    let facts = file.facts();
    match rules.outlook(facts, now_micros) {
        Outlook::Hidden => Disposition::Drop,
        _ if rules.must_rewrite(facts) => Disposition::Rewrite,
        _ => Disposition::Stay,
    }
}

/// Removes files from the table in one commit and returns the new index. If another writer already
/// removed one of them, nothing is removed ([`crate::ErrorKind::NotFound`]): plan again.
pub(crate) async fn commit_dropped(
    table: &Table,
    files: &[Arc<DataFile>],
) -> Result<Arc<FileIndex>> {
    table
        .commit(Commit {
            add: Vec::new(),
            remove: files.iter().map(|file| file.path.clone()).collect(),
            app: None,
            data_change: true,
            operation: "DELETE",
        })
        .await
}
