//! `POST /v1/ingest`: records of any number, as lines, a JSON array or objects one after the other; the answer is a receipt.
//!
//! `POST /v1/ingest/litellm` and `/v1/ingest/gateway-hook` take the same in the words of those two, which look at the status alone
//! and forget what was refused; so a body that could be read is 200 there also if no record in it was good.
//!
//! 200 if at least one record was good or none was sent, also where the plan of their organisation stores no more this month
//! (`over_quota` counts those, `message` says why); 400 with the receipt if every record was bad or the body broke off;
//! 429 with the receipt so far if there was no room in time.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use axum::{Extension, Json};
use serde::Serialize;

use super::auth::Caller;
use super::body::{check_coding, discard};
use super::error::Failure;
use super::input::{Fields, header};
use super::intake::{Intake, Receipt, Source};
use crate::ingest::Shape;
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
    let intake = Intake::new(&app, access, Shape::LiteLlm, &headers, &sender);
    callback(intake, &headers, body).await
}

/// `POST /v1/ingest/gateway-hook`.
pub(crate) async fn gateway_hook(
    Caller { app, access }: Caller,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Verdict>, Failure> {
    let intake = Intake::new(&app, access, Shape::GatewayHook, &headers, &sender);
    let Json(receipt) = callback(intake, &headers, body).await?;
    Ok(Json(Verdict { verdict: true, receipt }))
}

/// What a guardrail of the gateway answers. Without a verdict `default.webhook` fails, and the gateway's client gets 246.
#[derive(Serialize)]
pub(crate) struct Verdict {
    verdict: bool,
    #[serde(flatten)]
    receipt: Receipt,
}

/// Takes what a gateway reports. Its content type says nothing: lines come as `application/json` too.
async fn callback(intake: Intake, headers: &HeaderMap, body: Body) -> Result<Json<Receipt>, Failure> {
    let mut frames = body.into_data_stream();
    if let Err(failure) = check_coding(header(headers, &CONTENT_ENCODING)) {
        discard(&mut frames).await;
        return Err(failure);
    }
    let outcome = intake.take(Source::Stream(frames)).await;
    if outcome.failure.is_none() { Ok(Json(outcome.receipt)) } else { outcome.result().map(Json) }
}

/// The shape that a request says its records have.
fn shape(query: Option<&str>, headers: &HeaderMap) -> Result<Shape, Failure> {
    check_coding(header(headers, &CONTENT_ENCODING))?;
    let mut fields = Fields::decode(query)?;
    let source = fields.take("source");
    fields.finish("source")?;
    let Some(source) = source else { return Ok(Shape::default()) };
    Shape::ALL.into_iter().find(|shape| shape.name().eq_ignore_ascii_case(&source)).ok_or_else(|| {
        let known = Shape::ALL.map(Shape::name).join(", ");
        Failure::invalid(format!("field `source` is `{source}`; expected one of {known}"))
    })
}
