//! The content of a commit.

use super::index::DataFile;

/// Changes that become one version of the table.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Files to add. Each is already in the store, under a path that was never used before.
    pub add: Vec<DataFile>,
    /// Paths of files to remove. All must be in the table.
    pub remove: Vec<String>,
    /// Application transaction: the writer's id, and its progress including this commit.
    pub app: Option<(String, i64)>,
    /// False if the rows stay the same, as in a merge of files.
    pub data_change: bool,
    /// Operation in the table's history: `WRITE`, `OPTIMIZE`, `DELETE`, or a custom name.
    pub operation: &'static str,
}
