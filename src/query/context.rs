//! The input of a query: a View, its read scope, and the small tables beside it.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::places::Owner;
use super::query_threads::Seat;
use super::read_scope::ReadScope;
use super::row_security::{RowSecurity, Visibility};
use crate::catalog::Denied;
use crate::error::Result;
use crate::limits::Holder;
use crate::table::DataFile;
use crate::view::View;

/// Small tables beside `logs`, built when a statement names them.
pub(crate) trait SystemTables: std::fmt::Debug + Send + Sync {
    /// Returns the names of the tables.
    fn names(&self) -> &'static [&'static str];

    /// Returns the rows of a table.
    fn rows(&self, name: &str) -> Result<RecordBatch>;
}

/// Input of a query.
#[derive(Clone, Debug)]
pub(crate) struct QueryContext {
    /// Files and rows in memory of the records. Maintenance may pass those of the feedback instead.
    pub view: View,
    /// Files and rows in memory of the feedback. `None` if there is no such table.
    pub feedback: Option<View>,
    /// Read scope. `None` means everything as stored.
    pub read_scope: Option<ReadScope>,
    /// Tables beside `logs`. `None` if there are none.
    pub side: Option<Arc<dyn SystemTables>>,
    /// Place of the statements with a time limit. `None` if each of them waits for its own.
    pub seat: Option<Arc<Seat>>,
}

impl From<View> for QueryContext {
    fn from(view: View) -> Self {
        Self { view, feedback: None, read_scope: None, side: None, seat: None }
    }
}

impl QueryContext {
    /// Returns true if the query is bound to an organisation. It must then learn nothing about
    /// files that it shares with others.
    pub(crate) fn is_bound(&self) -> bool {
        self.read_scope.as_ref().is_some_and(|read_scope| {
            read_scope.organisation.is_some() || read_scope.workspace.is_some()
        })
    }

    /// Returns the organisation that the query is charged to; `None` for the operator.
    pub(super) fn owner(&self) -> Owner {
        self.read_scope.as_ref().and_then(|read_scope| read_scope.organisation.clone())
    }

    /// Returns the party whose work the query is.
    pub(crate) fn holder(&self) -> Holder {
        let organisation = self.read_scope.as_ref().and_then(|scope| scope.organisation.as_deref());
        Holder::new(organisation)
    }

    /// Returns true if bodies are withheld from the reader.
    pub(crate) fn withholds_bodies(&self) -> bool {
        self.read_scope.as_ref().is_some_and(|read_scope| !read_scope.bodies)
    }

    /// Returns the fields that are denied to the reader. `None` if no column is withheld, including
    /// bodies.
    pub(crate) fn denied(&self) -> Option<Denied> {
        let read_scope = self
            .read_scope
            .as_ref()
            .filter(|read_scope| !read_scope.bodies || !read_scope.denied.is_empty())?;
        Some(read_scope.denied.clone())
    }

    /// Returns the files that may hold visible rows.
    pub(crate) fn files(&self) -> Vec<&Arc<DataFile>> {
        let guard =
            self.read_scope.clone().map(|read_scope| RowSecurity::new(read_scope, self.view.rows));
        let seen = |file: &&Arc<DataFile>| {
            guard.as_ref().is_none_or(|guard| guard.reach(file) != Visibility::None)
        };
        self.view.files.iter().filter(seen).collect()
    }
}
