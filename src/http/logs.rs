//! `POST /v1/logs`: Portkey's insert, for its SDKs as they are. OpenTelemetry's logs come by the same path ([`otlp`]).
//!
//! Logging must never break the caller: whatever the content type, whatever the body, the answer is 200 `ok`, and what was no
//! record, or more than the plan stores, is counted in a header and in `/metrics`, and listed by `GET /v1/refusals`. Only a missing key, a body over the limit, a full engine and a broken one are
//! told. A body of up to [`SMALL_BYTES`] is taken whole or not at all.
//!
//! Such records carry no id of their own. Portkey's SDKs send one again by themselves when its answer got lost (a failure of ours
//! carries `x-portkey-request-id`, after which they do not); [`super::resend`] keeps that from being stored twice.

use std::io::{self, Read};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};

use super::App;
use super::auth::Caller;
use super::body::{self, Growing, check_packing, grow, is_packed, too_large, unpack, unpackable};
use super::error::Failure;
use super::intake::{Intake, Outcome, Receipt, Source, aside};
use super::otlp;
use super::resend::Connection;
use crate::catalog::Access;
use crate::error::{Error, Result};
use crate::ingest::Shape;
use crate::limits::Room;
use crate::record::json::Reason;
use crate::refusals::{Refused, Sender};

/// Bodies up to this size are taken in one go.
const SMALL_BYTES: usize = 256 << 10;
/// What is made of such a body, with the headers, is no more than this.
const MOST_MADE_BYTES: usize = 16 << 20;
/// A body may be so much larger than the largest record.
pub(super) const ENVELOPE_BYTES: u64 = 1 << 20;
/// A body, the piece of it that is being split, and what is parsed of it take so many times its size.
const TIMES: usize = 3;
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
    let intake = Intake::new(&app, access, Shape::Portkey, &headers, &sender);
    let connection = connection.map(|Extension(connection)| connection);
    let (intake, text) = aside(text.len(), move || (intake.recognise(&text, connection.as_ref()), text)).await?;
    // Memory for small records is taken before they are built, each with the headers of the request.
    let made = if text.len() <= SMALL_BYTES { intake.made_bytes(&text) } else { usize::MAX };
    let Outcome { receipt, failure } = match made <= MOST_MADE_BYTES {
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

/// The plain bytes of a whole body, with room for what is made of them; or why they do not unpack.
pub(crate) async fn packed(app: &App, access: &Access, body: Body) -> Result<io::Result<(Vec<u8>, Room)>, Failure> {
    let limit =
        usize::try_from(app.engine.config().max_record_bytes.saturating_add(ENVELOPE_BYTES)).unwrap_or(usize::MAX);
    let mut room = app.room(access);
    let growing = Growing { room: &mut room, times: TIMES, wait: Duration::ZERO };
    let bytes = body::read(body, limit, Some(growing)).await?;
    unpacked(bytes, limit, TIMES, room).await
}

/// The bytes themselves or what they unpack to, with room for `times` that; or why they do not unpack.
pub(super) async fn unpacked(
    bytes: Vec<u8>,
    limit: usize,
    times: usize,
    mut room: Room,
) -> Result<io::Result<(Vec<u8>, Room)>, Failure> {
    if !is_packed(&bytes) {
        return Ok(Ok((bytes, room)));
    }
    let unpacking = tokio::task::spawn_blocking(move || {
        let text = unpack_within(&bytes, limit, times, &mut room)?;
        Ok(text.map(|text| (text, room)))
    });
    unpacking.await.map_err(|cause| Error::internal("unpacking broke off").with_source(cause))?
}

fn unpack_within(packed: &[u8], limit: usize, times: usize, room: &mut Room) -> Result<io::Result<Vec<u8>>, Failure> {
    let mut plain = match unpack(packed) {
        Ok(plain) => plain,
        Err(cause) => return Ok(Err(cause)),
    };
    let mut text = Vec::new();
    loop {
        match plain.by_ref().take(SMALL_BYTES as u64).read_to_end(&mut text) {
            Ok(0) => return Ok(Ok(text)),
            Ok(_) if text.len() > limit => return Err(too_large(limit)),
            Ok(_) if check_packing(packed.len() as u64, text.len() as u64).is_err() => {
                return Ok(check_packing(packed.len() as u64, text.len() as u64).map(|()| text));
            }
            // The packed bytes are gone before the text is parsed: no text within the limit needs more than a plain one.
            Ok(_) => grow(room, (packed.len() + text.len()).max(times * text.len()) as u64)?,
            Err(cause) => return Ok(Err(cause)),
        }
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::limits::{Holder, Pool, Share};

    fn gzip(size: usize, level: u32) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        packed.write_all(&vec![b' '; size]).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn a_packed_body_is_judged_as_the_plain_one() {
        // As tight as on the routes of the control plane: all of the budget is room for one plain body.
        let (limit, times) = (1 << 20, 2);
        let (pool, holder) = (Pool::new((times * limit) as u64, Share::Half), Holder::Operator);
        let unpack = |packed: &[u8]| unpack_within(packed, limit, times, &mut pool.room(&holder)).map(Result::unwrap);
        for (size, level) in [(limit, 9), (limit - (4 << 10), 0), (0, 9)] {
            assert_eq!(unpack(&gzip(size, level)).unwrap().len(), size, "{size} bytes at level {level}");
        }
        let refused = |packed: &[u8]| unpack(packed).unwrap_err().status().as_u16();
        assert_eq!(refused(&gzip(limit + 1, 9)), 413);
        assert_eq!(refused(&gzip(64 * limit, 9)), 413, "a bomb");
        let _other = pool.try_take(&holder, limit as u64).unwrap();
        assert_eq!(refused(&gzip(limit, 9)), 429, "there will be room for it");
    }
}
