//! `GET /v1/logs/{id}/replay` returns a stored request for editing, or the reason why it cannot be
//! sent; `POST` sends the edited request.
//!
//! A replay can only be sent to the configured gateway: the base URL is `gateway_url`, the path is
//! one of three, redirects are not followed, and time, bytes and concurrent calls are limited.
//! [`crate::replay`] decides which of the caller's headers are passed on. The response of the
//! gateway is returned and stored as a record of the log's organisation, even if the caller has
//! disconnected, since the call may have cost money.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::catalog::{Access, Scope};
use crate::config::Config;
use crate::error::Error;
use crate::http::answer::private;
use crate::http::body::{self, Growing, grow};
use crate::http::error::Failure;
use crate::http::ingest::pipeline::Intake;
use crate::http::middleware::admission::held_by;
use crate::http::middleware::auth::Caller;
use crate::http::named::Named;
use crate::http::state::App;
use crate::ingest::SourceFormat;
use crate::limits::{Holder, MemoryReservation};
use crate::logs::own_url;
use crate::record::Record;
use crate::refusals::{Sender, Source};
use crate::replay::{self, Answered, ENDPOINTS, GATEWAY_KEY, Outgoing, PASSED, Ready};
use crate::time;

const KEY_HEADER: &str = "x-portkey-api-key";
const DEBUG_HEADER: HeaderName = HeaderName::from_static("x-portkey-debug");

/// State of a replay.
#[derive(Serialize)]
struct Shown<'a> {
    object: &'static str,
    log_id: &'a str,
    active: bool,
    reason: Option<Value>,
    request: Option<Ready<'a>>,
    endpoints: [&'static str; 3],
    /// True if a gateway is configured.
    gateway: bool,
    /// Headers of the caller that are passed on.
    headers: Vec<&'static str>,
}

/// Result of a replay.
#[derive(Serialize)]
struct Outcome<'a> {
    object: &'static str,
    replay_of: &'a str,
    log_id: Option<&'a str>,
    url: Option<String>,
    trace_id: Option<&'a str>,
    message: Option<String>,
    response: ResponseView<'a>,
}

#[derive(Serialize)]
struct ResponseView<'a> {
    status: u16,
    headers: Value,
    body: Option<&'a RawValue>,
    response_time: u64,
}

/// `GET /v1/logs/{id}/replay`.
pub(crate) async fn show(
    Caller { app, access }: Caller,
    named: Named,
) -> Result<Response, Failure> {
    app.engine.reader_as(&access).check_replay()?;
    let record = named.record(&app, &access).await?;
    let mut room = app.room(&access);
    grow(&mut room, 3 * record.text_bytes() as u64)?;
    let found = replay::ready(&record, &archived(&app, &record));
    let reason =
        found.as_ref().err().map(|why| json!({ "code": why.code(), "message": why.to_string() }));
    let shown = Shown {
        object: "replay",
        log_id: record.id.as_deref().unwrap_or_default(),
        active: found.is_ok(),
        reason,
        request: found.ok(),
        endpoints: ENDPOINTS,
        gateway: !app.engine.config().gateway_url.is_empty(),
        headers: PASSED.into_iter().chain([GATEWAY_KEY]).collect(),
    };
    Ok(held_by(encoded(&shown)?, room))
}

/// `POST /v1/logs/{id}/replay`.
pub(crate) async fn send(
    Caller { app, access }: Caller,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    if !access.may(Scope::Read) {
        let message =
            "a replay needs scopes `logs.read` and `logs.write`, and the API key lacks `logs.read`";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let mut room = app.room(&access);
    let limit = most_bytes(app.engine.config());
    let growing = Growing { room: &mut room, times: 4, wait: Duration::ZERO };
    let text = body::read(body, limit, Some(growing)).await?;
    let text =
        String::from_utf8(text).map_err(|_| Failure::invalid("the body is not UTF-8 text"))?;
    app.engine.reader_as(&access).check_replay()?;
    let record = named.record(&app, &access).await?;
    grow(&mut room, 4 * (text.len() + record.text_bytes()) as u64)?;
    let ready = replay::ready(&record, &archived(&app, &record)).map_err(|why| {
        Failure::new(StatusCode::CONFLICT, format!("this log cannot be replayed: {why}"))
            .with_fields(json!({ "reason": why.code() }))
    })?;
    let id = app.engine.new_id();
    let given =
        headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    // If the key was not in its own header, it was in `authorization`.
    let ours = !headers.contains_key(KEY_HEADER);
    let sent = replay::outgoing(&record, ready, &replay::edited(&text)?, given, ours, &id)?;
    let debug = headers.get(DEBUG_HEADER).cloned();
    let call = Call { app: Arc::clone(&app), access, record, sent, id, debug, room };
    let running = tokio::spawn(call.run());
    running.await.map_err(|cause| Error::internal("the replay task failed").with_source(cause))?
}

/// Returns the archived providers of the log's organisation.
fn archived(app: &App, record: &Record) -> BTreeSet<String> {
    let state = app.engine.catalog().state();
    state.document.archived_providers(record.organisation_id.as_deref().unwrap_or_default())
}

/// Returns the maximum bytes of an edited request and of a response. Both must fit into one record.
fn most_bytes(config: &Config) -> usize {
    usize::try_from(config.max_record_bytes / 2).unwrap_or(usize::MAX)
}

/// A replay in progress.
struct Call {
    app: Arc<App>,
    access: Access,
    record: Record,
    sent: Outgoing,
    id: String,
    debug: Option<HeaderValue>,
    room: MemoryReservation,
}

impl Call {
    async fn run(mut self) -> Result<Response, Failure> {
        let gateway = &self.app.gateway;
        let Some(client) = gateway.client() else {
            let message = "no gateway is configured for replays; the operator sets `gateway_url`";
            return Err(Failure::new(StatusCode::CONFLICT, message));
        };
        let _place =
            self.app.places.replays.take(&Holder::new(self.access.organisation.as_deref()))?;
        let started = self.app.engine.now();
        let url = format!(
            "{}{}",
            self.app.engine.config().gateway_url.trim_end_matches('/'),
            self.sent.endpoint
        );
        let answered = self.ask(&client, &url).await?;
        let stored = if self.app.engine.config().gateway_logs {
            Err("the gateway logs the call itself, in the same trace".to_owned())
        } else {
            let started = time::micros(started);
            let text =
                replay::entry(&self.record, &self.sent, &answered, &self.id, &url, &started)?;
            self.store(text, &answered).await?
        };
        Ok(held_by(self.response(&answered, stored)?, self.room))
    }

    async fn ask(&mut self, client: &reqwest::Client, url: &str) -> Result<Answered, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.sent.headers {
            // Trace ids can be any text. One that is not a valid header value is left out.
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        let begun = Instant::now();
        let request = client.post(url).headers(headers).body(self.sent.body.clone());
        let mut response =
            request.send().await.map_err(|cause| unanswered(cause, self.app.engine.config()))?;
        let limit = most_bytes(self.app.engine.config());
        let status = response.status().as_u16();
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let headers: Vec<(String, String)> = response
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
            .collect();
        let mut bytes = Vec::new();
        let held = 4 * (self.sent.body.len() + self.record.text_bytes()) as u64;
        while let Some(piece) =
            response.chunk().await.map_err(|cause| unanswered(cause, self.app.engine.config()))?
        {
            if bytes.len() + piece.len() > limit {
                let message = format!(
                    "the gateway's answer is larger than {limit} bytes, so it was neither read nor logged"
                );
                return Err(Failure::new(StatusCode::BAD_GATEWAY, message));
            }
            bytes.extend_from_slice(&piece);
            if self.room.grow(held + 4 * bytes.len() as u64).is_err() {
                let message = "the gateway answered, but requests fill the memory reserved for them, so it was not logged";
                return Err(Failure::new(StatusCode::BAD_GATEWAY, message));
            }
        }
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Answered { status, headers, body: as_json(&bytes), elapsed_ms })
    }

    /// Stores the call as a log. On failure returns the reason.
    async fn store(
        &self,
        text: String,
        answered: &Answered,
    ) -> Result<Result<(), String>, Failure> {
        let owner = Access {
            organisation: self.record.organisation_id.clone(),
            workspace: self.record.workspace_slug.clone(),
            ..self.access.clone()
        };
        let headers: HeaderMap =
            self.debug.iter().map(|value| (DEBUG_HEADER, value.clone())).collect();
        let sender = Sender {
            organisation: owner.organisation.clone(),
            workspace: owner.workspace.clone(),
            source: Source::Portkey,
            route: "POST /v1/logs/{id}/replay".into(),
        };
        let intake = Intake::new(&self.app, owner, SourceFormat::Portkey, &headers, &sender);
        let reading = tokio::task::spawn_blocking(move || intake.read(text.as_bytes()));
        let (mut records, refused) = reading
            .await
            .map_err(|cause| Error::internal("the parsing task failed").with_source(cause))?;
        if let Some(why) = refused {
            return Ok(Err(why));
        }
        for record in &mut records {
            replay::complete(record, &self.sent, answered, &self.access.key_id);
        }
        // The call was made, so its response is returned even if the log cannot be stored.
        let receipt = match self.app.engine.append_parsed(records).await {
            Ok(receipt) => receipt,
            Err(refused) => return Ok(Err(refused.error.message().to_owned())),
        };
        Ok(match receipt.over_quota {
            0 => Ok(()),
            _ => Err("the organisation's plan stores no more records this month".to_owned()),
        })
    }

    fn response(
        &self,
        answered: &Answered,
        stored: Result<(), String>,
    ) -> Result<Response, Failure> {
        let is_stored = stored.is_ok();
        let headers: Map<String, Value> = replay::kept(&answered.headers)
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        encoded(&Outcome {
            object: "replay",
            replay_of: self.record.id.as_deref().unwrap_or_default(),
            log_id: is_stored.then_some(self.id.as_str()),
            url: is_stored.then(|| own_url(&self.id)),
            trace_id: replay::header(&self.sent.headers, "x-portkey-trace-id"),
            message: stored.err().map(|why| format!("no log was written: {why}")),
            response: ResponseView {
                status: answered.status,
                headers: Value::Object(headers),
                body: serde_json::from_str(&answered.body).ok(),
                response_time: answered.elapsed_ms,
            },
        })
    }
}

/// Returns a body unchanged if it is JSON, as a JSON string if it is not, and as an empty text if
/// it is empty.
fn as_json(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(whole) => whole.get().to_owned(),
        Err(_) => Value::String(String::from_utf8_lossy(bytes).into_owned()).to_string(),
    }
}

/// Returns the failure of a call without a complete response. The cause is logged without the URL;
/// it contains no headers.
fn unanswered(cause: reqwest::Error, config: &Config) -> Failure {
    let timed_out = cause.is_timeout();
    tracing::warn!(cause = %cause.without_url(), "the gateway did not answer a replay");
    if timed_out {
        let seconds = config.replay_timeout_seconds;
        let message = format!(
            "the gateway did not answer within {seconds} s (setting `replay_timeout_seconds`)"
        );
        return Failure::new(StatusCode::GATEWAY_TIMEOUT, message);
    }
    let message = "the gateway of `gateway_url` cannot be reached, or closed the connection early; nothing was logged";
    Failure::new(StatusCode::BAD_GATEWAY, message)
}

fn encoded(answer: &impl Serialize) -> Result<Response, Failure> {
    let text = serde_json::to_string(answer)
        .map_err(|cause| Error::internal("cannot encode a replay").with_source(cause))?;
    Ok(private((CONTENT_TYPE, "application/json"), text))
}
