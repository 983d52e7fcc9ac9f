//! The control plane of a Portkey gateway 2.0, with gatelog in its place.
//!
//! `GET /v2/api-keys/self/details` tells the gateway the owner of its caller's key. `POST
//! /v1/logs/enterprise/logs` takes the content of one call. `POST
//! /v1/analytics/enterprise/analytics` takes the metrics of many calls, and so does `/dp/metrics`
//! for a gateway that is not private. The engine merges both into one record. The gateway retries a
//! few times within a second and then drops what it could not send. So a body waits for memory as
//! it arrives, as long as writers wait (`append_wait_ms`), before it is refused. The exception is
//! what a packed body unpacks to, which gateways do not send. Reports that the gateway sends twice
//! are stored once.
//!
//! Each record names its organisation. The gateway's own key must reach all organisations that it
//! serves; otherwise the whole request is refused (403). The gateway sends changed feedback as if
//! it were new. So stored feedback is looked up first, one batch after the other, and the new state
//! is stored as a change. Other parts of a control plane, such as configs, prompts and virtual
//! keys, are a 404, which the gateway takes as "does not exist".

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::catalog::{Access, Scope};
use crate::error::Error;
use crate::http::body::{self, Growing, check_coding, discard, unpackable};
use crate::http::error::Failure;
use crate::http::ingest::pipeline::{Outcome, Receipt, run_by_size};
use crate::http::input::header;
use crate::http::middleware::auth::Caller;
use crate::http::packed::unpacked;
use crate::http::state::App;
use crate::ingest::control_plane::{Batch, Logged, log as read_log, rows as read_rows};
use crate::ingest::feedback::states;
use crate::ingest::{Context, DEFAULT_ORGANISATION};
use crate::limits::MemoryReservation;
use crate::logs::FeedbackAsk;
use crate::parts::RecordPart;
use crate::record::Feedback;
use crate::record::json::{Reason, Seen};
use crate::refusals::{Refused, Sender};

/// Largest number of copies of a body in a log object: as the client sent it, and as the provider
/// received it.
const COPIES: u64 = 2;
/// Memory of a body and what is parsed from it, as a multiple of its size.
const TIMES: usize = 2;
/// Number of feedback ids in one look-up query.
const LOOKED_UP: usize = 1_000;
const MORE_ROWS: &str = "more rows of the same request were refused";
const NOT_KEPT: &str =
    "guardrail texts are not stored: they may quote a call that must not be tracked";

/// `GET /v2/api-keys/self/details`: the details of the calling key, without its text.
pub(crate) async fn details(Caller { app, access }: Caller) -> Json<Value> {
    let state = app.engine.catalog().state();
    let document = &state.document;
    let organisation = access.organisation.as_deref().unwrap_or(DEFAULT_ORGANISATION);
    let known = document.organisations.get(organisation);
    let key = document.keys.iter().find(|key| key.id == access.key_id);
    let workspace = access.workspace.as_deref();
    Json(json!({
        "success": true,
        "data": {
            "organisation_details": {
                "organisation_id": organisation,
                "name": known.and_then(|known| known.name.as_deref()).unwrap_or(organisation),
                "settings": {},
                "enterprise_settings": {},
                "defaults": {},
                // Otherwise the gateway reports each call of it once more.
                "is_first_generation_done": true,
            },
            // The gateway reads the workspace id without checking that it exists.
            "workspace_details": {
                "id": workspace.unwrap_or(DEFAULT_ORGANISATION),
                "slug": workspace.unwrap_or_default(),
                "name": workspace,
                "usage_limits": [],
                "rate_limits": [],
            },
            "api_key_details": {
                "id": access.key_id,
                "name": key.and_then(|key| key.name.as_deref()),
                "scopes": scopes(&access),
                "status": "active",
                "expires_at": key.and_then(|key| key.expires_at),
                "usage_limits": [],
                "rate_limits": [],
                "defaults": {},
            },
        },
    }))
}

/// Returns the scopes of a key under Portkey's names. A key that may write logs may make calls
/// through the gateway, which logs them.
fn scopes(access: &Access) -> Vec<&'static str> {
    let words = |scope| match scope {
        Scope::Write => &["logs.write", "completions.write", "prompts.render"][..],
        Scope::View => &["logs.view", "logs.list"],
        Scope::Read => &["logs.read"],
        Scope::Export => &["logs.export"],
        Scope::Analytics => &["analytics.view"],
        Scope::Admin => &[],
    };
    Scope::ALL.into_iter().filter(|scope| access.may(*scope)).flat_map(words).copied().collect()
}

/// `POST /v1/logs/enterprise/logs`.
pub(crate) async fn log(
    Caller { app, access }: Caller,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Receipt>, Failure> {
    let (logged, _room) = parsed(&app, &access, &headers, body, read_log).await?;
    match logged {
        Ok(Logged::Call(record)) => {
            let record_parts = vec![(RecordPart::Content, *record)];
            take(&app, &access, &sender, Batch { record_parts, ..Batch::default() }).await
        }
        Ok(Logged::Guardrail(seen)) => {
            let refused = Refused { seen, ..Refused::many(Reason::NotKept, NOT_KEPT, 1) };
            app.engine.refusals().records(&sender, [refused]);
            Ok(Json(Receipt::saying(NOT_KEPT)))
        }
        Err(rejection) => {
            take(&app, &access, &sender, Batch { rejections: vec![rejection], ..Batch::default() })
                .await
        }
    }
}

/// `POST /v1/analytics/enterprise/analytics` and `POST /dp/metrics`.
pub(crate) async fn rows(
    Caller { app, access }: Caller,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Receipt>, Failure> {
    let (read, _room) = parsed(&app, &access, &headers, body, read_rows).await?;
    let batch = read.map_err(|refused| {
        Failure::invalid(format!("the rows cannot be read: {refused}")).refusing(refused)
    })?;
    take(&app, &access, &sender, batch).await
}

/// Reads and parses a whole body, with memory reserved for both.
async fn parsed<T: Send + 'static>(
    app: &App,
    access: &Access,
    headers: &HeaderMap,
    body: Body,
    read: impl FnOnce(&[u8], &Context) -> T + Send + 'static,
) -> Result<(T, MemoryReservation), Failure> {
    if let Err(failure) = check_coding(header(headers, &CONTENT_ENCODING)) {
        discard(&mut body.into_data_stream()).await;
        return Err(failure);
    }
    let limit = usize::try_from(app.engine.config().max_record_bytes.saturating_mul(COPIES))
        .unwrap_or(usize::MAX);
    let mut room = app.room(access);
    let wait = Duration::from_millis(app.engine.config().append_wait_ms);
    let bytes =
        body::read(body, limit, Some(Growing { room: &mut room, times: TIMES, wait })).await?;
    let (bytes, room) =
        unpacked(app, bytes, limit, TIMES, room).await?.map_err(|cause| unpackable(&cause))?;
    let context =
        Context { policy: Arc::clone(app.engine.policy()), ..Context::new(app.engine.now()) };
    let size = bytes.len();
    let read = move || read(&bytes, &context);
    Ok((run_by_size(app, &access.holder(), size, read).await?, room))
}

/// Appends parsed reports and returns the receipt.
async fn take(
    app: &App,
    access: &Access,
    sender: &Sender,
    batch: Batch,
) -> Result<Json<Receipt>, Failure> {
    let Batch { record_parts, feedback, rejections, further } = batch;
    let mut receipt = Receipt::default();
    receipt.refuse(app, sender, rejections);
    for ((organisation, reason), count) in further {
        let seen = Seen { organisation, ..Seen::default() };
        receipt.refuse_many(
            app,
            sender,
            Refused { seen, ..Refused::many(reason, MORE_ROWS, count) },
        );
    }
    receipt.append_parts(app, access, record_parts).await?;
    if !feedback.is_empty() {
        let came = feedback.len() as u64;
        let _turn = app.feedback_turn.lock().await;
        let fresh = unknown(app, access, feedback).await?;
        let taken = app.engine.append_feedback_as(access, fresh).await?.len() as u64;
        receipt.accepted += taken;
        receipt.duplicate += came - taken;
    }
    Outcome { receipt, failure: None }.result().map(Json)
}

/// Returns the states of feedback that are not stored yet, as changes of the stored feedback.
async fn unknown(
    app: &App,
    access: &Access,
    mut came: Vec<Feedback>,
) -> Result<Vec<Feedback>, Error> {
    let organisation = access.organisation.as_deref().unwrap_or(DEFAULT_ORGANISATION);
    let now = app.engine.now();
    for one in &mut came {
        one.organisation_id.get_or_insert_with(|| organisation.to_owned());
        let at = *one.created_at.get_or_insert(now);
        one.updated_at.get_or_insert(at);
    }
    // Guardrail results have no value and never change.
    let ids: Vec<String> =
        came.iter().filter(|one| one.value.is_some()).filter_map(|one| one.id.clone()).collect();
    let reader = app.engine.reader_as(access);
    let mut known = Vec::new();
    for ids in ids.chunks(LOOKED_UP) {
        let mut ask = FeedbackAsk {
            ids: ids.to_vec(),
            page_size: LOOKED_UP as u64,
            ..FeedbackAsk::default()
        };
        loop {
            let (found, next) = reader.list_feedback(&ask).await?;
            known.extend(found);
            if next.is_none() {
                break;
            }
            ask.after = next;
        }
    }
    Ok(states(came, known))
}
