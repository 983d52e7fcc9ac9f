//! `GET /v1/logs` lists records, newest first. `GET /v1/logs/{id}` and the permanent URL
//! `/logs/{id}` return one record with its content.
//!
//! A key without `logs.read` gets null instead of bodies. A log that the key cannot see gets the
//! same 404 as one that does not exist. The list is a route of gatelog: an unknown filter is an
//! error, because ignoring it would list more than requested. The route of a single log is
//! Portkey's and ignores unknown parameters, because Portkey's clients send some. The permanent URL
//! returns an HTML page if `accept` asks for `text/html`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, RawQuery};
use axum::http::HeaderMap;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::admin::{self, Id};
use super::auth::Caller;
use super::body::grow;
use super::error::Failure;
use super::input::{Fields, header};
use super::places::held_by;
use super::stream_response;
use crate::catalog::Access;
use crate::error::Error;
use crate::limits::MemoryReservation;
use crate::logs::{self, Ask, FILTER_NAMES, Filter, ID_IN_QUERY, MAX_PAGE_SIZE};
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
    pub(super) fn parts(self) -> Option<(String, Option<String>)> {
        let Path(in_path) = self.path.ok()?;
        let in_query = self.id.filter(|_| in_path == ID_IN_QUERY);
        Some((in_query.unwrap_or(in_path), self.organisation))
    }

    /// Returns the record if the key can see it, including the fields that are denied to the key.
    /// The caller must remove these before it shows the record.
    pub(super) async fn record(mut self, app: &App, access: &Access) -> Result<Record, Failure> {
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

/// Returns a log as JSON or as an HTML page.
pub(super) async fn shown(
    app: &App,
    access: &Access,
    mut record: Record,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let asked = header(headers, &ACCEPT).unwrap_or_default().to_ascii_lowercase();
    if !asked.contains("text/html") {
        return json_of(app, access, record).await;
    }
    let room = room(app, access, &record)?;
    let reader = app.engine.reader_as(access);
    let feedback = reader.feedback_on(&record).await?;
    reader.hide(&mut record);
    let withheld = reader.withheld_from_log();
    let hidden = withheld.clone();
    let page = stream_response::run_blocking(record.text_bytes(), move || {
        page(&record, feedback.weighted, &hidden)
    })
    .await?;
    let mut response = private((CONTENT_TYPE, "text/html; charset=utf-8"), page);
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, axum::http::HeaderValue::from_static(policy));
    stream_response::tell_withheld(&mut response, &withheld);
    Ok(held_by(response, room))
}

async fn json_of(app: &App, access: &Access, mut record: Record) -> Result<Response, Failure> {
    let room = room(app, access, &record)?;
    let reader = app.engine.reader_as(access);
    let feedback = reader.feedback_on(&record).await?;
    reader.hide(&mut record);
    let state = app.engine.catalog().state();
    let organisation =
        record.organisation_id.as_deref().and_then(|id| state.document.organisations.get(id));
    let name = organisation.and_then(|organisation| organisation.name.clone());
    let withheld = reader.withheld_from_log();
    let hidden = withheld.clone();
    let record_bytes = record.text_bytes();
    let object = move || logs::object(&record, name.as_deref(), &feedback, &hidden);
    let object = stream_response::run_blocking(record_bytes, object).await??;
    let mut response = private((CONTENT_TYPE, "application/json"), object);
    stream_response::tell_withheld(&mut response, &withheld);
    // The response holds the reservation until a slow client has read it.
    Ok(held_by(response, room))
}

/// Reserves memory for a record, its text and the response. Bodies may be as large as an ingested
/// record.
fn room(app: &App, access: &Access, record: &Record) -> Result<MemoryReservation, Failure> {
    let mut room = app.room(access);
    grow(&mut room, 3 * record.text_bytes() as u64)?;
    Ok(room)
}

/// Creates a response that proxies must not cache and browsers must not reinterpret.
pub(super) fn private(
    content_type: (axum::http::HeaderName, &'static str),
    text: String,
) -> Response {
    let headers = [
        content_type,
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The URL of a shared log opens it.
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

/// Parses the parameters of a list. They override the fields of a saved filter.
fn asked(app: &App, access: &Access, query: Option<&str>) -> Result<Ask, Failure> {
    let mut fields = Fields::decode(query)?;
    let saved = match fields.take("saved").filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let organisation = admin::one(
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

/// Parses a filter from a query string that has no other parameters.
pub(super) fn filter_of(query: &str) -> Result<Filter, Failure> {
    let mut fields = Fields::decode(Some(query))?;
    let filter = Filter::read(|name| fields.take(name))?;
    fields.finish(FILTER_NAMES)?;
    Ok(filter)
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

/// Renders a log as an HTML page without scripts, forms or external resources.
fn page(record: &Record, weighted_feedback: Option<f64>, withheld: &[String]) -> String {
    let status = logs::shown_labels(record, withheld);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let rows = [
        (
            "Time (UTC)",
            record
                .created_at
                .map(|at| at.format("%Y-%m-%d %H:%M:%S%.3f").to_string())
                .unwrap_or_default(),
        ),
        ("Status", status.join(", ")),
        ("Provider", text(&record.ai_org)),
        ("Model", text(&record.ai_model)),
        ("HTTP status", number(record.response_status_code.map(i64::from))),
        ("Response time (ms)", number(record.response_time)),
        ("Tokens", number(record.total_units)),
        ("Cost (cents)", record.cost.map(|cost| cost.to_string()).unwrap_or_default()),
        ("Weighted feedback", weighted_feedback.map(|mean| mean.to_string()).unwrap_or_default()),
        ("URL", text(&record.request_url)),
        ("Virtual key", text(&record.virtual_key)),
        ("Config", text(&record.config)),
        ("Prompt", text(&record.prompt_slug)),
        ("Trace", text(&record.trace_id)),
        ("Workspace", text(&record.workspace_slug)),
    ];
    let id = escape(record.id.as_deref().unwrap_or_default());
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Log {id}</title><style>body{{font:15px/1.5 system-ui;margin:2em auto;max-width:60em;padding:0 1em}}\
         th{{text-align:left;padding-right:2em}}pre{{white-space:pre-wrap;overflow-wrap:anywhere}}</style>\
         <h1>Log {id}</h1><table>"
    );
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        page.push_str(&format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", escape(value)));
    }
    page.push_str("</table>");
    for (name, body) in [("Request", &record.request.body), ("Response", &record.response.body)] {
        let body = body.as_deref().map_or_else(|| "not visible, or not stored".to_owned(), escape);
        page.push_str(&format!("<h2>{name}</h2><pre>{body}</pre>"));
    }
    page.push_str("</html>");
    page
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Message;

    #[test]
    fn a_page_holds_no_markup_of_a_record() {
        let evil = "<script>alert(\"1\")</script>&'";
        let body = Message { body: Some(format!("\"{evil}\"")), headers: None };
        let record = Record {
            id: Some(evil.to_owned()),
            ai_model: Some(evil.to_owned()),
            request: body.clone(),
            response: body,
            ..Record::default()
        };
        let page = page(&record, Some(2.5), &[]);
        assert!(
            !page.contains("<script") && page.contains("&lt;script&gt;alert(&quot;1&quot;)"),
            "{page}"
        );
        assert!(page.contains("<th scope=\"row\">Weighted feedback</th><td>2.5</td>"), "{page}");
    }

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
