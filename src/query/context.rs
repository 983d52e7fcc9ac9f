//! What a query is run over: a View, what may be seen of it, and the small tables beside it.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::read_scope::ReadScope;
use super::row_security::{RowSecurity, Visibility};
use crate::catalog::Denied;
use crate::error::Result;
use crate::table::DataFile;
use crate::view::View;

/// Small tables beside `logs`, made when a statement names them.
pub trait SystemTables: std::fmt::Debug + Send + Sync {
    /// Their names.
    fn names(&self) -> &'static [&'static str];

    /// The rows of one of them.
    fn rows(&self, name: &str) -> Result<RecordBatch>;
}

/// What a query is run over.
#[derive(Clone, Debug)]
pub struct QueryContext {
    /// Files and rows in memory: of the records, but in upkeep, which may read feedback alone.
    pub view: View,
    /// Those of the feedback beside them; none = there is no such table.
    pub feedback: Option<View>,
    /// What is seen of them; none = everything as stored.
    pub read_scope: Option<ReadScope>,
    /// The tables beside `logs`; none = there are none.
    pub side: Option<Arc<dyn SystemTables>>,
}

impl From<View> for QueryContext {
    fn from(view: View) -> Self {
        Self { view, feedback: None, read_scope: None, side: None }
    }
}

impl QueryContext {
    /// Whether an organisation looks on, to whom files shared with others must tell nothing.
    pub fn is_bound(&self) -> bool {
        self.read_scope.as_ref().is_some_and(|read_scope| {
            read_scope.organisation.is_some() || read_scope.workspace.is_some()
        })
    }

    /// Returns whether bodies are withheld from who looks on.
    pub fn withholds_bodies(&self) -> bool {
        self.read_scope.as_ref().is_some_and(|read_scope| !read_scope.bodies)
    }

    /// The fields that are denied to who looks on; none if no column is withheld, bodies among
    /// them.
    pub fn denied(&self) -> Option<Denied> {
        let read_scope = self
            .read_scope
            .as_ref()
            .filter(|read_scope| !read_scope.bodies || !read_scope.denied.is_empty())?;
        Some(read_scope.denied.clone())
    }

    /// The files that may hold rows that are seen.
    pub fn files(&self) -> Vec<&Arc<DataFile>> {
        let guard =
            self.read_scope.clone().map(|read_scope| RowSecurity::new(read_scope, self.view.rows));
        let seen = |file: &&Arc<DataFile>| {
            guard.as_ref().is_none_or(|guard| guard.reach(file) != Visibility::None)
        };
        self.view.files.iter().filter(seen).collect()
    }
}
