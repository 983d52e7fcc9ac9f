//! `POST /v1/logs`: Portkey's insert, for its SDKs as they are. OpenTelemetry's logs come by the
//! same path ([`otlp`]).
//!
//! Logging must never break the caller: whatever the content type, whatever the body, the answer is
//! 200 `ok`, and what was no record, or more than the plan stores, is counted in a header and in
//! `/metrics`, and listed by `GET /v1/refusals`. Only a missing key, a body over the limit, a full
//! engine and a broken one are told. A body of up to [`SMALL_BYTES`] is taken whole or not at all.
//!
//! Such records carry no id of their own. Portkey's SDKs send one again by themselves when its
//! answer got lost (a failure of ours carries `x-portkey-request-id`, after which they do not);
//! [`super::resend`] keeps that from being stored twice.

use axum::Extension;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};

use super::auth::Caller;
use super::body::{grow, unpackable};
use super::error::Failure;
use super::ingest_pipeline::{Intake, Outcome, Receipt, Source, run_blocking};
use super::otlp;
use super::packed::{TIMES, packed};
use super::retry_detection::Connection;
use crate::error::Result;
use crate::ingest::SourceFormat;
use crate::record::json::Reason;
use crate::refusals::{Refused, Sender};

/// Bodies up to this size are taken in one go.
const SMALL_BYTES: usize = 256 << 10;
/// What is made of such a body, with the headers, is no more than this.
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
    let intake = Intake::new(&app, access, SourceFormat::Portkey, &headers, &sender);
    let connection = connection.map(|Extension(connection)| connection);
    let (intake, text) =
        run_blocking(text.len(), move || (intake.recognise(&text, connection.as_ref()), text))
            .await?;
    // Memory for small records is taken before they are built, each with the headers of the
    // request.
    let made = if text.len() <= SMALL_BYTES { intake.made_bytes(&text) } else { usize::MAX };
    let Outcome { receipt, failure } = match made <= MAX_MADE_BYTES {
        true => {
            grow(&mut room, made.max(TIMES * text.len()) as u64)?;
            intake.take_small(text, made).await
        }
        false => intake.take(Source::Bytes(text)).await,
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
