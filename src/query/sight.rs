//! What a query may see.

use std::sync::Arc;

use crate::plan::Rules;

/// What a query may see of a View; none of it = everything as stored, as upkeep and checks need it.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The organisation whose records are seen; none = all of them.
    pub organisation: Option<String>,
    /// The workspace whose records are seen; none = all of the organisation.
    pub workspace: Option<String>,
    /// Whether bodies are seen; otherwise `request.body` and `response.body` are null.
    pub bodies: bool,
    /// Which records are in answers at all.
    pub rules: Arc<Rules>,
    /// As of when, µs since 1970-01-01.
    pub now_micros: i64,
}
