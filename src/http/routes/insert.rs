//! `POST /v1/logs`: Portkey's insert, compatible with its SDKs. OTLP exports of log records use the
//! same route ([`otlp`]).
//!
//! Logging must never break the caller. So the response is 200 `ok` for every content type and
//! body. Invalid records, and records above the plan's quota, are counted in a header and in
//! `/metrics`, and listed by `GET /v1/refusals`. The only errors are a missing key, a body over the
//! limit, a full engine and a failed engine. A body of up to [`SMALL_BYTES`] is stored as a whole
//! or not at all.
//!
//! These records have no id of their own. Portkey's SDKs repeat a request if its response got lost;
//! they do not repeat a failure that carries `x-portkey-request-id`.
//! [`crate::http::state::retry_detection`] prevents that a repeated request is stored twice.

use axum::Extension;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};

use crate::error::Result;
use crate::http::body::{grow, unpackable};
use crate::http::error::Failure;
use crate::http::ingest::otlp;
use crate::http::ingest::pipeline::{Intake, Outcome, Receipt, Source, run_by_size};
use crate::http::middleware::auth::Caller;
use crate::http::packed::{TIMES, packed};
use crate::http::state::retry_detection::Connection;
use crate::ingest::SourceFormat;
use crate::record::json::Reason;
use crate::refusals::{Refused, Sender};

/// Largest body that is appended as a whole.
const SMALL_BYTES: usize = 256 << 10;
/// Maximum memory of the records parsed from such a body, including the headers of the request.
const MAX_MADE_BYTES: usize = 16 << 20;
const ACCEPTED: HeaderName = HeaderName::from_static("x-gatelog-accepted");
const REJECTED: HeaderName = HeaderName::from_static("x-gatelog-rejected");
const PAST_RETENTION: HeaderName = HeaderName::from_static("x-gatelog-past-retention");
const OVER_QUOTA: HeaderName = HeaderName::from_static("x-gatelog-over-quota");

/// `POST /v1/logs`.
pub(crate) async fn insert(
    Caller { app, access }: Caller,
    Extension(sender): Extension<Sender>,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let (text, mut room) = match packed(&app, &access, body).await? {
        Ok(plain) => plain,
        Err(cause) => {
            let mut receipt = Receipt::default();
            let message = unpackable(&cause).message().to_owned();
            receipt.refuse_many(&app, &sender, Refused::many(Reason::NotReadable, message, 1));
            return Ok(ok(&receipt));
        }
    };
    if otlp::is_logs(&headers, &text) {
        return Ok(otlp::take_logs(&app, access, &headers, &sender, text).await);
    }
    let holder = access.holder();
    let intake = Intake::new(&app, access, SourceFormat::Portkey, &headers, &sender);
    let connection = connection.map(|Extension(connection)| connection);
    let bytes = text.len();
    let recognise = move || (intake.recognise(&text, connection.as_ref()), text);
    let (intake, text) = run_by_size(&app, &holder, bytes, recognise).await?;
    // Memory for small records, each with the headers of the request, is reserved before they are
    // parsed.
    let made = if text.len() <= SMALL_BYTES { intake.made_bytes(&text) } else { usize::MAX };
    let Outcome { receipt, failure } = if made <= MAX_MADE_BYTES {
        grow(&mut room, made.max(TIMES * text.len()) as u64)?;
        intake.take_small(text, made).await
    } else {
        intake.take(Source::Bytes(text)).await
    };
    match failure {
        None => Ok(ok(&receipt)),
        Some(failure) => Err(failure.with_fields(receipt)),
    }
}

fn ok(receipt: &Receipt) -> Response {
    let headers = [
        (ACCEPTED, (receipt.accepted + receipt.duplicate).to_string()),
        (REJECTED, receipt.rejected().to_string()),
        (OVER_QUOTA, receipt.over_quota.to_string()),
        (PAST_RETENTION, receipt.past_retention.to_string()),
    ];
    ([(CONTENT_TYPE, "text/plain; charset=UTF-8")], headers, "ok").into_response()
}
