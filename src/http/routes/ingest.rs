//! `POST /v1/ingest`: ingests any number of records, as lines, a JSON array or concatenated
//! objects. The response is a receipt.
//!
//! `POST /v1/ingest/litellm` and `/v1/ingest/gateway-hook` take the formats of LiteLLM and of the
//! gateway's hooks. Both clients look at the status alone and drop refused records. So a body that
//! could be read gets 200 there even if every record was refused.
//!
//! The status is 200 if at least one record was valid or none was sent, even if the plan of the
//! organisation stores no more records this month (`over_quota` counts those, `message` gives the
//! reason); 400 with the receipt if every record was invalid or the body ended early; 429 with the
//! receipt so far if no memory became free in time.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use axum::{Extension, Json};
use serde::Serialize;

use crate::http::body::{check_coding, discard};
use crate::http::error::Failure;
use crate::http::ingest::pipeline::{Intake, Receipt, Source};
use crate::http::input::{Fields, header};
use crate::http::middleware::auth::Caller;
use crate::ingest::SourceFormat;
use crate::refusals::Sender;

/// `POST /v1/ingest?source=native|portkey|litellm|gateway-hook|otlp`.
pub(crate) async fn ingest(
    Caller { app, access }: Caller,
    Extension(sender): Extension<Sender>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Receipt>, Failure> {
    let mut frames = body.into_data_stream();
    match shape(query.as_deref(), &headers) {
        Ok(shape) => {
            let intake = Intake::new(&app, access, shape, &headers, &sender);
            intake.take(Source::Stream(frames)).await.result().map(Json)
        }
        Err(failure) => {
            discard(&mut frames).await;
            Err(failure)
        }
    }
}

/// `POST /v1/ingest/litellm`.
pub(crate) async fn litellm(
    Caller { app, access }: Caller,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Receipt>, Failure> {
    let intake = Intake::new(&app, access, SourceFormat::LiteLlm, &headers, &sender);
    callback(intake, &headers, body).await
}

/// `POST /v1/ingest/gateway-hook`.
pub(crate) async fn gateway_hook(
    Caller { app, access }: Caller,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Verdict>, Failure> {
    let intake = Intake::new(&app, access, SourceFormat::GatewayHook, &headers, &sender);
    let Json(receipt) = callback(intake, &headers, body).await?;
    Ok(Json(Verdict { verdict: true, receipt }))
}

/// Response of a guardrail of the gateway. Without a verdict `default.webhook` fails, and the
/// gateway's client gets 246.
#[derive(Serialize)]
pub(crate) struct Verdict {
    verdict: bool,
    #[serde(flatten)]
    receipt: Receipt,
}

/// Ingests the reports of a gateway. Its content type is not reliable: lines arrive as
/// `application/json` too.
async fn callback(
    intake: Intake,
    headers: &HeaderMap,
    body: Body,
) -> Result<Json<Receipt>, Failure> {
    let mut frames = body.into_data_stream();
    if let Err(failure) = check_coding(header(headers, &CONTENT_ENCODING)) {
        discard(&mut frames).await;
        return Err(failure);
    }
    let outcome = intake.take(Source::Stream(frames)).await;
    if outcome.failure.is_none() { Ok(Json(outcome.receipt)) } else { outcome.result().map(Json) }
}

/// Returns the source format that a request names.
fn shape(query: Option<&str>, headers: &HeaderMap) -> Result<SourceFormat, Failure> {
    check_coding(header(headers, &CONTENT_ENCODING))?;
    let mut fields = Fields::decode(query)?;
    let source = fields.take("source");
    fields.finish("source")?;
    let Some(source) = source else { return Ok(SourceFormat::default()) };
    SourceFormat::ALL
        .into_iter()
        .find(|shape| shape.name().eq_ignore_ascii_case(&source))
        .ok_or_else(|| {
            let known = SourceFormat::ALL.map(SourceFormat::name).join(", ");
            Failure::invalid(format!("field `source` is `{source}`; expected one of {known}"))
        })
}
