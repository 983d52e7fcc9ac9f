//! `GET /v1/refusals`: the list of refused records, feedback and requests.

use axum::Json;
use axum::extract::RawQuery;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::catalog::{Access, no_organisation};
use crate::http::error::Failure;
use crate::http::input::Fields;
use crate::http::middleware::auth::Caller;
use crate::refusals::{Ask, MAX_SHOWN};

/// Default number of entries in a response.
const SHOWN: u64 = 100;

/// `GET /v1/refusals?organisation_id=…&workspace_slug=…&source=…&reason=…&page_size=…`.
pub(crate) async fn list(
    Caller { app, access }: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let (ask, most) = asked(&access, query.as_deref())?;
    let mut found = app.engine.list_refusals(&access, &ask).await?;
    let total = found.len();
    found.truncate(most);
    let answer =
        json!({ "object": "list", "total": total, "has_more": total > found.len(), "data": found });
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn asked(access: &Access, query: Option<&str>) -> Result<(Ask, usize), Failure> {
    let mut fields = Fields::decode(query)?;
    let most = fields.take_number("page_size")?.unwrap_or(SHOWN);
    if !(1..=MAX_SHOWN).contains(&most) {
        return Err(Failure::invalid(format!(
            "field `page_size` is {most}; expected 1 to {MAX_SHOWN}"
        )));
    }
    let mut text = |name: &str| fields.take(name).filter(|text| !text.is_empty());
    let ask = Ask {
        organisation: text("organisation_id"),
        workspace: text("workspace_slug"),
        source: text("source").map(|name| name.parse()).transpose()?,
        reason: text("reason").map(|name| name.parse()).transpose()?,
    };
    fields.finish("organisation_id, workspace_slug, source, reason, page_size")?;
    if let Some(named) = ask.organisation.as_ref().filter(|named| !access.reaches(named)) {
        return Err(no_organisation(named).into());
    }
    Ok((ask, usize::try_from(most).unwrap_or(usize::MAX)))
}
