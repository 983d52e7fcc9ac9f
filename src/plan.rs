//! The rules of a plan, without I/O. This version knows one rule: how long an organisation's records are kept.

/// How long records are kept, by organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days for an organisation without a plan of its own; 0 = for ever.
    pub default_days: i32,
}

impl Retention {
    /// Days to keep a record of `organisation`; 0 = for ever.
    pub fn days(&self, _organisation: &str) -> i32 {
        self.default_days
    }
}
