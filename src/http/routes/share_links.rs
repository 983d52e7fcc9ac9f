//! Share links: `POST|GET /v1/logs/{id}/share`, `GET /v1/shares`, `DELETE /v1/shares/{id}`, and
//! `GET /shared/{token}`, which needs no key.
//!
//! Share links are off unless `share_links` is set: none can be created, and existing ones do not
//! open. A link shows what its creator could read, evaluated when it is opened: retention, erasures
//! and the creator's workspace apply to it too.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::{Access, Document, Scope, Share, ShareLinkView, share_expiry};
use crate::error::{Error, ErrorKind};
use crate::http::answer::{Answer, answer, list as listed};
use crate::http::body::{object, read_small};
use crate::http::error::Failure;
use crate::http::input::{Id, id};
use crate::http::log_response::shown;
use crate::http::middleware::auth::Caller;
use crate::http::named::Named;
use crate::http::public_url::base;
use crate::http::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    expires_in_seconds: Option<i64>,
    bodies: Option<bool>,
}

/// A new link. Its URL is returned only here.
#[derive(Debug, Serialize)]
pub(crate) struct Fresh {
    url: String,
    #[serde(flatten)]
    shown: ShareLinkView,
}

/// `POST /v1/logs/{id}/share`. The body is optional: it sets the lifetime (`expires_in_seconds`),
/// or `"bodies": false`.
pub(crate) async fn create(
    Caller { app, access }: Caller,
    named: Named,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<Fresh>, Failure> {
    if !app.engine.config().share_links {
        return Err(Error::denied(
            "share links are off; the operator turns them on with the setting `share_links`",
        )
        .into());
    }
    let text = read_small(body).await?;
    let wanted: Wanted = match text.trim() {
        "" => Wanted::default(),
        text => object(text, "expires_in_seconds, bodies")?,
    };
    let record = named.record(&app, &access).await?;
    let now = app.engine.now();
    let share = Share {
        id: app.engine.new_id(),
        organisation: record.organisation_id.unwrap_or_default(),
        workspace: access.workspace.clone(),
        log_id: record.id.unwrap_or_default(),
        bodies: access.may(Scope::Read) && wanted.bodies.unwrap_or(true),
        created_by: access.key_id.clone(),
        created_at: now,
        expires_at: share_expiry(now, wanted.expires_in_seconds)?,
        revoked_at: None,
    };
    let random = app.engine.random();
    let add = |document: &mut Document| document.add_share(share.clone(), random);
    let token = app.engine.catalog().change_as(&access, add).await?;
    let url = format!("{}/shared/{token}", base(app.engine.config(), &uri, &headers));
    Ok(answer(StatusCode::CREATED, Fresh { url, shown: share.shown() }))
}

/// `GET /v1/logs/{id}/share`: lists the links to a log.
pub(crate) async fn list(
    Caller { app, access }: Caller,
    named: Named,
) -> Result<Answer<Value>, Failure> {
    let record = named.record(&app, &access).await?;
    let state = app.engine.catalog().state();
    let id = record.id.unwrap_or_default();
    let organisation = record.organisation_id;
    let access = Access { organisation, ..access };
    Ok(listed(&state.document.shown_shares(Some(&id), &access, app.engine.now())))
}

/// `GET /v1/shares`: lists the links that the key may revoke.
pub(crate) async fn own(Caller { app, access }: Caller) -> Answer<Value> {
    listed(&app.engine.catalog().state().document.shown_shares(None, &access, app.engine.now()))
}

/// `DELETE /v1/shares/{id}`: revokes a link, even if links are off.
pub(crate) async fn revoke(
    Caller { app, access }: Caller,
    path: Id,
) -> Result<Answer<ShareLinkView>, Failure> {
    let id = id(path)?;
    let now = app.engine.now();
    let revoke = |document: &mut Document| Ok(document.revoke_share(&id, &access, now)?.shown());
    Ok(answer(StatusCode::OK, app.engine.catalog().change_as(&access, revoke).await?))
}

/// `GET /shared/{token}`: shows the log that a link opens. The response is the same for every kind
/// of invalid link.
pub(crate) async fn open(
    State(app): State<Arc<App>>,
    path: Id,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let closed = || {
        Failure::from(Error::not_found(
            "the link is not valid: it has expired, was revoked, or was never valid; ask for a new one",
        ))
    };
    let Ok(Path(token)) = path else { return Err(closed()) };
    if !app.engine.config().share_links {
        return Err(closed());
    }
    app.engine.refuse_if_stale().await?;
    let state = app.engine.catalog().state();
    let share = state.document.open_share(&token, app.engine.now()).ok_or_else(closed)?;
    let access = share.access();
    let record = app.engine.reader_as(&access).log(&share.log_id, None, None).await;
    let record = record.map_err(|error| match error.kind() {
        ErrorKind::NotFound => closed(),
        _ => error.into(),
    })?;
    shown(&app, &access, record, &headers).await
}
