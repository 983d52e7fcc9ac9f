//! `GET /v1/logs` lists records, newest first. `GET /v1/logs/{id}` and the permanent URL
//! `/logs/{id}` return one record with its content.
//!
//! A key without `logs.read` gets null instead of bodies. A log that the key cannot see gets the
//! same 404 as one that does not exist. The list is a route of gatelog: an unknown filter is an
//! error, because ignoring it would list more than requested. The route of a single log is
//! Portkey's and ignores unknown parameters, because Portkey's clients send some. The permanent URL
//! returns an HTML page if `accept` asks for `text/html`.

use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde_json::json;

use crate::catalog::Access;
use crate::http::answer::private;
use crate::http::error::Failure;
use crate::http::input::Fields;
use crate::http::log_response::{json_of, shown};
use crate::http::middleware::auth::Caller;
use crate::http::named::Named;
use crate::http::state::App;
use crate::http::{organisation, stream_response};
use crate::logs::{self, Ask, FILTER_NAMES, Filter, MAX_PAGE_SIZE};

/// `GET /v1/logs?FILTER=…&page_size=…&cursor=…&include_total=true`.
pub(crate) async fn list(
    Caller { app, access }: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let ask = asked(&app, &access, query.as_deref())?;
    let reader = app.engine.reader_as(&access);
    let page = reader.logs(&ask).await?;
    let answer = json!({
        "object": "list",
        "data": page.records,
        "has_more": page.next.is_some(),
        "next": page.next.map(|next| next.to_string()),
        "total": page.total,
    });
    let mut response = private((CONTENT_TYPE, "application/json"), answer.to_string());
    stream_response::tell_withheld(&mut response, &reader.withheld_from_list());
    Ok(response)
}

/// `GET /v1/logs/{id}`.
pub(crate) async fn show(
    Caller { app, access }: Caller,
    named: Named,
) -> Result<Response, Failure> {
    let record = named.record(&app, &access).await?;
    json_of(&app, &access, record).await
}

/// `GET /logs/{id}`, the permanent URL.
pub(crate) async fn own_url(
    Caller { app, access }: Caller,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let record = named.record(&app, &access).await?;
    shown(&app, &access, record, &headers).await
}

/// Parses the parameters of a list. They override the fields of a saved filter.
fn asked(app: &App, access: &Access, query: Option<&str>) -> Result<Ask, Failure> {
    let mut fields = Fields::decode(query)?;
    let saved = match fields.take("saved").filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let organisation = organisation::one(
                access,
                fields.get("organisation_id").filter(|named| !named.is_empty()).map(str::to_owned),
                "organisation_id",
            )?;
            let state = app.engine.catalog().state();
            Some(Fields::decode(Some(&state.document.saved_filter(&organisation, &name)?.query))?)
        }
    };
    understood(fields, saved)
}

fn understood(mut fields: Fields, saved: Option<Fields>) -> Result<Ask, Failure> {
    let page_size = fields.take_number("page_size")?.unwrap_or(logs::PAGE_SIZE);
    if !(1..=MAX_PAGE_SIZE).contains(&page_size) {
        return Err(Failure::invalid(format!(
            "field `page_size` is {page_size}; expected 1 to {MAX_PAGE_SIZE}"
        )));
    }
    let after = fields
        .take("cursor")
        .filter(|text| !text.is_empty())
        .map(|text| text.parse())
        .transpose()?;
    let total = match fields.take("include_total").as_deref() {
        None | Some("") => false,
        Some(text) if text.eq_ignore_ascii_case("true") => true,
        Some(text) if text.eq_ignore_ascii_case("false") => false,
        Some(text) => {
            return Err(Failure::invalid(format!(
                "field `include_total` is `{text}`; expected true or false"
            )));
        }
    };
    let mut saved = saved.unwrap_or_default();
    let filter = Filter::read(|name| {
        let kept = saved.take(name);
        fields.take(name).or(kept)
    })?;
    fields.finish(&format!("page_size, cursor, include_total, saved, {FILTER_NAMES}"))?;
    Ok(Ask { filter, page_size, after, total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_its_own_fields_and_no_others() {
        let of = |query: &str| understood(Fields::decode(Some(query)).unwrap(), None);
        let ask = of("page_size=2&include_total=True&ai_model=a,b&cursor=").unwrap();
        assert_eq!((ask.page_size, ask.total, ask.after.is_none()), (2, true, true));
        for wrong in [
            "page_size=0",
            "page_size=1001",
            "include_total=yes",
            "cursor=xyz",
            "ai_models=a",
            "status_code=x",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
