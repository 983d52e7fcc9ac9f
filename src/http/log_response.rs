//! Responses that show one log: JSON, or an HTML page if `accept` asks for `text/html`.
//!
//! A key without `logs.read` gets null instead of bodies.

use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use crate::catalog::Access;
use crate::http::answer::private;
use crate::http::body::grow;
use crate::http::error::Failure;
use crate::http::input::header;
use crate::http::middleware::admission::held_by;
use crate::http::state::App;
use crate::http::stream_response;
use crate::limits::MemoryReservation;
use crate::logs;
use crate::record::Record;

/// Returns a log as JSON or as an HTML page.
pub(crate) async fn shown(
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
    let record_bytes = record.text_bytes();
    let page = move || page(&record, feedback.weighted, &hidden);
    let page = stream_response::run_by_size(app, access, record_bytes, page).await?;
    let mut response = private((CONTENT_TYPE, "text/html; charset=utf-8"), page);
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    stream_response::tell_withheld(&mut response, &withheld);
    Ok(held_by(response, room))
}

/// Returns a log as JSON.
pub(crate) async fn json_of(
    app: &App,
    access: &Access,
    mut record: Record,
) -> Result<Response, Failure> {
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
    let object = stream_response::run_by_size(app, access, record_bytes, object).await??;
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
}
