//! A route: its method, its path and its requirement on the key.

use crate::catalog::Scope;

/// Requirement of a route on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// A scope.
    Scope(Scope),
    /// Scope `admin` in a key that is not bound to an organisation.
    Operator,
}

/// A route of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// HTTP method in upper case.
    pub(crate) method: &'static str,
    /// Path with axum's placeholders: `{name}` for one segment of a path, `{*name}` for the rest of
    /// it.
    pub(crate) path: &'static str,
    /// Requirement of the key. `None` if the route needs no key.
    pub(crate) needs: Option<Needs>,
}
