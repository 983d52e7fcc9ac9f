//! `/v1/feedback`: Portkey's calls that give and change feedback, and gatelog's calls that read it.
//!
//! Portkey's calls return exactly Portkey's responses. Their errors start with Portkey's text,
//! followed by the reason. Feedback is about a trace, which need not exist yet. With `log_id`, a
//! field of gatelog, feedback is about one log, which must exist; its trace is that of the log.
//!
//! Portkey's SDKs repeat a call whose response got lost. A call that
//! [`crate::http::state::retry_detection`] recognises as repeated gets the same ids and the same
//! time, and rows with the same id and time are one feedback. A change sets the value and the other
//! fields that it names, and keeps the rest of the stored state. If two changes run at once, the
//! later one wins as a whole.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::catalog::Access;
use crate::error::{Error, ErrorKind};
use crate::http::error::Failure;
use crate::http::ingest::pipeline::run_by_size;
use crate::http::input::{Fields, text_header};
use crate::http::named::Named;
use crate::http::packed::packed;
use crate::http::state::App;
use crate::http::state::retry_detection::Connection;
use crate::ingest::feedback::{self, Refusal};
use crate::ingest::{Context, Headers};
use crate::logs::{self, FeedbackAsk, LogRef, MAX_PAGE_SIZE, PAGE_SIZE};
use crate::record::Feedback;
use crate::record::json::{Reason, Seen};
use crate::refusals::Refused;

const SAVED: &str = "Feedback successfully saved";
const UPDATED: &str = "Feedback successfully updated";
const NOTHING_TO_UPDATE: &str = "Invalid Feedback Id passed. Nothing to update";

type Answer = ([(HeaderName, &'static str); 1], Json<Value>);

/// `POST /v1/feedback`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Failure> {
    let (text, _room) = readable(packed(&app, &access, body).await?)?;
    let headers = Headers::read(|name| text_header(&headers, name));
    let size = text.len();
    let (drafts, text) =
        run_by_size(&app, &access.holder(), size, move || (feedback::drafts(&text), text)).await?;
    let mut given = drafts.map_err(|why| refused(&app, &headers, &why))?;
    bind(&app, &access, &mut given).await?;
    let now = app.engine.now();
    let fresh = app.engine.new_id();
    let connection = connection.as_ref().map(|Extension(connection)| connection);
    let key = (access.organisation.as_deref(), &*access.key_id);
    if let Some(ids) = app.resends.ids(key, &headers, &text, connection, now, &fresh) {
        for (number, one) in (0..).zip(&mut given) {
            one.id = Some(ids.id(number));
            one.created_at = Some(ids.made_at().unwrap_or(now));
            one.updated_at = one.created_at;
        }
    }
    let ids = app.engine.append_feedback_as(&access, given).await?;
    Ok(done(SAVED, &ids))
}

/// `PUT /v1/feedback/{id}`, and `POST`, which Portkey's reference shows by mistake.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Failure> {
    let (text, _room) = readable(packed(&app, &access, body).await?)?;
    let headers = Headers::read(|name| headers.get(name)?.to_str().ok().map(str::to_owned));
    let size = text.len();
    let change = run_by_size(&app, &access.holder(), size, move || feedback::change(&text)).await?;
    let change = change.map_err(|why| refused(&app, &headers, &why))?;
    let nothing = || Failure::new(StatusCode::NOT_FOUND, NOTHING_TO_UPDATE);
    let old = find(&app, &access, named).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => nothing(),
        _ => error.into(),
    })?;
    let ids = app
        .engine
        .append_feedback_as(&access, vec![change.apply_to(old, app.engine.now())])
        .await?;
    Ok(done(UPDATED, &ids))
}

/// `GET /v1/feedback?trace_id=…&log_id=…&from=…&to=…&page_size=…&cursor=…`, newest first.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    RawQuery(query): RawQuery,
) -> Result<Answer, Failure> {
    let ask = asked(Fields::decode(query.as_deref())?)?;
    let (found, next) = app.engine.reader_as(&access).list_feedback(&ask).await?;
    Ok(answer(json!({
        "object": "list",
        "data": found.iter().map(logs::shown_feedback).collect::<Vec<_>>(),
        "has_more": next.is_some(),
        "next": next.map(|next| next.to_string()),
    })))
}

/// `GET /v1/feedback/{id}`.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    named: Named,
) -> Result<Answer, Failure> {
    Ok(answer(logs::shown_feedback(&find(&app, &access, named).await?)))
}

/// Returns the current state of the feedback in the path, if the key may see it.
async fn find(app: &App, access: &Access, named: Named) -> Result<Feedback, Error> {
    let unknown = || Error::not_found("no feedback has that id");
    let (id, organisation) = named.parts().ok_or_else(unknown)?;
    app.engine.reader_as(access).feedback(&id, organisation.as_deref()).await
}

/// Sets organisation, workspace and trace of feedback on single logs from the log, which the key
/// must be able to see. If several logs share the id, the one in the organisation and workspace
/// that the feedback names is taken. Otherwise a log without a workspace takes precedence, then the
/// newest.
async fn bind(app: &App, access: &Access, given: &mut [Feedback]) -> Result<(), Failure> {
    let ids: Vec<String> = given.iter().filter_map(|one| one.log_id.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let places = app.engine.reader_as(access).places(&ids).await?;
    for one in given {
        let Some(id) = &one.log_id else { continue };
        let meant = |place: &&LogRef| {
            (one.organisation_id.is_none() || one.organisation_id == place.organisation)
                && (one.workspace_slug.is_none() || one.workspace_slug == place.workspace)
        };
        let place = places.get(id).and_then(|places| places.iter().rfind(meant));
        let place = place.ok_or_else(|| no_log(one, id))?;
        one.log_id = Some(place.id.clone());
        one.organisation_id.clone_from(&place.organisation);
        one.workspace_slug.clone_from(&place.workspace);
        one.trace_id.clone_from(&place.trace);
    }
    Ok(())
}

/// Returns the refusal of feedback on a log that does not exist.
fn no_log(feedback: &Feedback, id: &str) -> Failure {
    let expected =
        "which no log has; send the log before the feedback on it, or give its `trace_id`";
    let message = format!("`log_id` is `{id}`, {expected}");
    let organisation = &feedback.organisation_id;
    let workspace = &feedback.workspace_slug;
    let seen =
        Seen { organisation: organisation.clone(), workspace: workspace.clone(), excerpt: None };
    let refused = Refused { seen, ..Refused::many(Reason::NotFound, &*message, 1) };
    Failure::from(Error::not_found(message)).refusing(refused)
}

fn asked(mut fields: Fields) -> Result<FeedbackAsk, Failure> {
    let page_size = fields.take_number("page_size")?.unwrap_or(PAGE_SIZE);
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
    let ask = FeedbackAsk::read(|name| fields.take(name))?;
    fields.finish("trace_id, log_id, from, to, page_size, cursor")?;
    Ok(FeedbackAsk { page_size, after, ..ask })
}

fn readable<T>(unpacked: std::io::Result<T>) -> Result<T, Failure> {
    unpacked.map_err(|cause| {
        let refusal = Refusal::unreadable(format!("cannot be unpacked: {cause}"));
        Failure::invalid(refusal.to_string()).coded(refusal.code()).because(Reason::NotReadable)
    })
}

fn refused(app: &App, headers: &Headers, refusal: &Refusal) -> Failure {
    let policy = Arc::clone(app.engine.policy());
    let headers = headers.clone();
    let context = Context { policy, headers, ..Context::new(app.engine.now()) };
    Failure::invalid(refusal.to_string())
        .coded(refusal.code())
        .refusing(refusal.rejection(&context))
}

fn done(message: &str, ids: &[String]) -> Answer {
    answer(json!({ "status": "success", "message": message, "feedback_ids": ids }))
}

fn answer(value: Value) -> Answer {
    ([(CACHE_CONTROL, "no-store")], Json(value))
}
