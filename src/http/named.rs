//! The log or feedback that a request names.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::catalog::Access;
use crate::error::Error;
use crate::http::error::Failure;
use crate::http::input::Id;
use crate::http::state::App;
use crate::logs::ID_IN_QUERY;
use crate::record::Record;

/// The log or feedback in the path of a request. If several organisations or workspaces have the
/// id, `organisation_id` and `workspace_slug` in the query string select one. An id that a path
/// cannot contain, `..` or the name of a route, is sent as `id` in the query string, with `-` in
/// the path: `/v1/logs/-?id=exports`.
pub(crate) struct Named {
    path: Id,
    /// Parameter `id` of the query string.
    id: Option<String>,
    organisation: Option<String>,
    workspace: Option<String>,
}

impl FromRequestParts<Arc<App>> for Named {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        let field = |wanted: &str| {
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.into_owned())
        };
        let id = field("id");
        let organisation = field("organisation_id");
        let workspace = field("workspace_slug");
        Ok(Self { path: Path::from_request_parts(parts, app).await, id, organisation, workspace })
    }
}

impl Named {
    /// Returns the id and the selected organisation. Returns `None` if the path cannot be an id.
    pub(crate) fn parts(self) -> Option<(String, Option<String>)> {
        let Path(in_path) = self.path.ok()?;
        let in_query = self.id.filter(|_| in_path == ID_IN_QUERY);
        Some((in_query.unwrap_or(in_path), self.organisation))
    }

    /// Returns the record if the key can see it, including the fields that are denied to the key.
    /// The caller must remove these before it shows the record.
    pub(crate) async fn record(mut self, app: &App, access: &Access) -> Result<Record, Failure> {
        let workspace = self.workspace.take();
        let (id, organisation) =
            self.parts().ok_or_else(|| Error::not_found("no log has that id"))?;
        Ok(app
            .engine
            .reader_as(access)
            .whole_log(&id, organisation.as_deref(), workspace.as_deref())
            .await?)
    }
}
