//! What a query is run over: a View, what may be seen of it, and the small tables beside it.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::guard::{Guard, Reach};
use super::sight::Sight;
use crate::error::Result;
use crate::table::DataFile;
use crate::view::View;

/// Small tables beside `logs`, made when a statement names them.
pub trait SideTables: std::fmt::Debug + Send + Sync {
    /// Their names.
    fn names(&self) -> &'static [&'static str];

    /// The rows of one of them.
    fn rows(&self, name: &str) -> Result<RecordBatch>;
}

/// What a query is run over.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Files and rows in memory: of the records, but in upkeep, which may read feedback alone.
    pub view: View,
    /// Those of the feedback beside them; none = there is no such table.
    pub feedback: Option<View>,
    /// What is seen of them; none = everything as stored.
    pub sight: Option<Sight>,
    /// The tables beside `logs`; none = there are none.
    pub side: Option<Arc<dyn SideTables>>,
}

impl From<View> for Scene {
    fn from(view: View) -> Self {
        Self { view, feedback: None, sight: None, side: None }
    }
}

impl Scene {
    /// Whether an organisation looks on, to whom files shared with others must tell nothing.
    pub fn is_bound(&self) -> bool {
        self.sight.as_ref().is_some_and(|sight| sight.organisation.is_some() || sight.workspace.is_some())
    }

    /// Returns whether bodies are withheld from who looks on.
    pub fn withholds_bodies(&self) -> bool {
        self.sight.as_ref().is_some_and(|sight| !sight.bodies)
    }

    /// The files that may hold rows that are seen.
    pub fn files(&self) -> Vec<&Arc<DataFile>> {
        let guard = self.sight.clone().map(|sight| Guard::new(sight, self.view.rows));
        let seen = |file: &&Arc<DataFile>| guard.as_ref().is_none_or(|guard| guard.reach(file) != Reach::None);
        self.view.files.iter().filter(seen).collect()
    }
}
