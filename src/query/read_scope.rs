//! Read scope of a query.

use std::sync::Arc;

use crate::catalog::Denied;
use crate::plan::Rules;

/// Read scope of a query. `None` in its place means everything as stored, for maintenance and
/// checks.
#[derive(Clone, Debug)]
pub(crate) struct ReadScope {
    /// Organisation whose records are visible; `None` means all.
    pub organisation: Option<String>,
    /// Workspace whose records are visible; `None` means all of the organisation.
    pub workspace: Option<String>,
    /// True if bodies are visible; otherwise `request.body` and `response.body` are null.
    pub bodies: bool,
    /// Fields of records that are null.
    pub denied: Denied,
    /// Retention and erasures: the records that answers may contain.
    pub rules: Arc<Rules>,
    /// Time of the query, µs since 1970-01-01.
    pub now_micros: i64,
}
