//! Request bodies: reading and unpacking within a memory budget.
//!
//! The holder of a body, or of the records parsed from it, holds a [`MemoryReservation`] for it in
//! the share of its organisation. The reservation grows with the bytes that arrive. If the share is
//! full, a request that is read as a whole gets 429, while a stream first gets back-pressure and
//! then status 429. A holder of memory never waits for more without a limit, which would deadlock.
//! gzip and zstd are detected by their first bytes, since clients compress without declaring it;
//! JSON starts with neither.

use std::io::{BufRead, Read};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use bytes::Bytes;
use futures::StreamExt;
use hyper::body::Body as _;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::http::error::Failure;
use crate::http::middleware::pace::too_slow;
use crate::ingest::pipeline;
use crate::limits::{Full, MemoryReservation};
use crate::nearest::{clip, hint};
use crate::record::json::Reason;

/// Limits on the bytes and the time that are spent on reading the rest of a refused body.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// Largest body of a query, such as an SQL statement or a list of columns.
const SMALL_BYTES: usize = 1 << 20;
/// RFC 9659 allows no larger window over HTTP. zstd's levels up to 19 keep to it.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Largest ratio of unpacked to packed size, for bodies that unpack to more than [`LITTLE_BYTES`].
const MAX_TIMES: u64 = 1_000;
const LITTLE_BYTES: u64 = 1 << 20;

/// Grows the room of a body to at least `bytes`. Fails with 413 if the share of the
/// organisation is smaller than that, and with 429 if that much is not free.
pub(crate) fn grow(room: &mut MemoryReservation, bytes: u64) -> Result<(), Failure> {
    check_share(room, bytes)?;
    room.grow(bytes).map_err(no_room)
}

/// Grows the room of a body and waits until that much is free.
pub(crate) async fn grow_within(
    room: &mut MemoryReservation,
    bytes: u64,
    wait: Duration,
) -> Result<(), Failure> {
    check_share(room, bytes)?;
    room.grow_within(bytes, wait).await.map_err(no_room)
}

fn check_share(room: &MemoryReservation, bytes: u64) -> Result<(), Failure> {
    let most = room.most();
    if bytes <= most {
        return Ok(());
    }
    let message = format!(
        "the body needs {bytes} bytes of memory; all bodies of one organisation get at most {most}; send less at a time"
    );
    Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message))
}

/// Returns the failure of a body for which there is no memory: 429.
pub(crate) fn no_room(full: Full) -> Failure {
    let why = match full {
        Full::Share => "the bodies of this organisation's requests fill its share of the memory",
        Full::Pool => "the bodies of all requests fill the memory reserved for them",
        Full::Closed => "the server is shutting down",
    };
    Failure::new(
        StatusCode::TOO_MANY_REQUESTS,
        format!("{why}; send the request again in a moment"),
    )
}

/// Room that grows with a body as it arrives.
pub(crate) struct Growing<'a> {
    /// Room of the body.
    pub(crate) room: &'a mut MemoryReservation,
    /// Memory of the body and what is parsed from it, as a multiple of its size.
    pub(crate) times: usize,
    /// Longest wait for room.
    pub(crate) wait: Duration,
}

impl Growing<'_> {
    async fn to(&mut self, size: usize) -> Result<(), Failure> {
        grow_within(self.room, (self.times * size) as u64, self.wait).await
    }
}

/// Reads the text of a small body.
pub(crate) async fn read_small(body: Body) -> Result<String, Failure> {
    let bytes = read(body, SMALL_BYTES, None).await?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::invalid("the body is not UTF-8 text; send it in that encoding"))
}

/// Parses the JSON object in a body. An unknown field is an error that names it: if it were
/// ignored, the client would believe that it took effect.
pub(crate) fn object<T: DeserializeOwned>(text: &str, fields: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|cause| {
        let cause = cause.to_string();
        let unknown =
            cause.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected"));
        Failure::invalid(match unknown {
            Some((name, _)) => {
                // `fields` may have words between the names.
                let known = fields.split(", ").filter_map(|field| field.rsplit(' ').next());
                let hint = hint(name, known, "fields", "`/openapi.json`");
                format!("field `{}` is unknown; {hint}", clip(name))
            }
            None => format!("the body is not a JSON object with {fields}: {cause}"),
        })
    })
}

/// Deserialises a field that is a text, a number (read as its text) or null.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<String>, D::Error> {
    match Value::deserialize(value)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(D::Error::custom(format!("`{other}` is neither a text nor a number"))),
    }
}

/// Reads a body of at most `limit` bytes. Room is taken for the bytes that arrived, never for the
/// announced size.
pub(crate) async fn read(
    body: Body,
    limit: usize,
    mut growing: Option<Growing<'_>>,
) -> Result<Vec<u8>, Failure> {
    let announced = body.size_hint().lower();
    let mut frames = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut fits = if announced > limit as u64 { Err(too_large(limit)) } else { Ok(()) };
    while fits.is_ok() {
        let Some(frame) = next_frame(&mut frames).await? else { return Ok(bytes) };
        let size = bytes.len() + frame.len();
        fits = match &mut growing {
            _ if size > limit => Err(too_large(limit)),
            Some(growing) => growing.to(size).await,
            None => Ok(()),
        };
        bytes.extend_from_slice(&frame);
    }
    drop(bytes);
    if let Some(growing) = growing {
        growing.room.clear();
    }
    discard(&mut frames).await;
    fits.map(|()| Vec::new())
}

/// Reads on for a while, so that a client that is still sending can read the refusal: closing a
/// connection with unread bytes resets it, and the response is lost.
pub(crate) async fn discard(frames: &mut BodyDataStream) {
    let reading = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = frames.next().await {
            left = left.saturating_sub(frame.len());
            if left == 0 {
                break;
            }
        }
    };
    // The response is sent next in either case: after the end of the body or after the time limit.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// Returns the next bytes of a body: 408 if the client is too slow
/// ([`crate::http::middleware::pace`]), 400 if the body ends early.
pub(crate) async fn next_frame(frames: &mut BodyDataStream) -> Result<Option<Bytes>, Failure> {
    match frames.next().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame)),
        Some(Err(cause)) => match too_slow(&cause) {
            Some(slow) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, slow.to_string())),
            None => {
                let message = "the body ended early; send it again";
                Err(Failure::invalid(message).because(Reason::BrokenOff))
            }
        },
    }
}

/// Returns the failure of a body that exceeds its limit: 413.
pub(crate) fn too_large(limit: usize) -> Failure {
    let remedy = "send less at a time; `/v1/ingest` takes any number of records, each up to `max_record_bytes`";
    Failure::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {limit} bytes; {remedy}"),
    )
}

/// Refuses unsupported content encodings. The first bytes of the body show which of the supported
/// ones it has.
pub(crate) fn check_coding(content_encoding: Option<&str>) -> Result<(), Failure> {
    let coding = content_encoding.unwrap_or_default().trim();
    if ["", "identity", "gzip", "x-gzip", "zstd"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(coding))
    {
        return Ok(());
    }
    let message =
        format!("content-encoding `{coding}` is not supported; send gzip, zstd or plain bytes");
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// Returns a reader of the plain bytes behind `packed`.
pub(crate) fn unpack<'a>(
    packed: impl BufRead + Send + 'a,
) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    pipeline::unpack(packed, Some(ZSTD_WINDOW_LOG))
}

/// Refuses a body that unpacks to more than a thousand times its size: no real record compresses
/// like that, and such a body is meant to exhaust memory. A body that unpacks to little is exempt.
pub(crate) fn check_packing(packed: u64, plain: u64) -> std::io::Result<()> {
    if plain > LITTLE_BYTES && plain / MAX_TIMES > packed {
        let message = format!("it unpacks to more than {MAX_TIMES} times its {packed} bytes");
        return Err(std::io::Error::other(message));
    }
    Ok(())
}

/// Returns the failure of bytes that cannot be unpacked: 400.
pub(crate) fn unpackable(cause: &std::io::Error) -> Failure {
    let remedy =
        "send whole gzip, or whole zstd with a window of at most 8 MiB (its levels 1 to 19)";
    Failure::invalid(format!("the body cannot be unpacked ({cause}); {remedy}"))
        .because(Reason::NotReadable)
}

/// Reads a JSON body with these fields.
pub(crate) async fn read_object<T: DeserializeOwned>(
    body: Body,
    fields: &str,
) -> Result<T, Failure> {
    object(&read_small(body).await?, fields)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::limits::{Holder, Pool, Share};

    fn unpacked(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        unpack(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn compressed_bytes_are_detected_by_their_start() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"{}").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(unpacked(&gzip).unwrap(), b"{}");
        assert_eq!(unpacked(&[gzip.clone(), gzip.clone()].concat()).unwrap(), b"{}{}");
        assert_eq!(unpacked(&zstd::encode_all(&b"{}"[..], 19).unwrap()).unwrap(), b"{}");
        assert_eq!(unpacked(b"{}").unwrap(), b"{}");
        assert_eq!(unpacked(b"").unwrap(), b"");
        assert!(unpacked(&gzip[..gzip.len() - 4]).is_err());
    }

    #[test]
    fn a_body_with_too_high_a_compression_ratio_is_refused() {
        assert!(check_packing(10, LITTLE_BYTES).is_ok());
        assert!(check_packing(10_000, 10_000 * MAX_TIMES).is_ok());
        assert!(check_packing(10_000, 10_001 * MAX_TIMES).is_err());
        assert!(check_packing(0, LITTLE_BYTES + 1).is_err());
    }

    #[test]
    fn a_huge_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
        assert!(unpacked(&encoder.finish().unwrap()).is_err());
    }

    #[tokio::test]
    async fn memory_is_reserved_as_bytes_arrive_and_not_held_during_an_unbounded_wait() {
        let pool = Pool::new(1_000, Share::ThreeQuarters);
        let acme = Holder::new(Some("acme"));
        let zen = Holder::new(Some("zen"));
        let body = |size: usize| Body::from(vec![b'x'; size]);
        let mut rooms: Vec<MemoryReservation> = (0..3).map(|_| pool.room(&acme)).collect();
        let mut statuses = Vec::new();
        for room in &mut rooms {
            let growing = Growing { room, times: 3, wait: Duration::ZERO };
            statuses.push(
                read(body(100), 1_000, Some(growing))
                    .await
                    .map_err(|failure| failure.status().as_u16())
                    .err(),
            );
        }
        assert_eq!(statuses, [None, None, Some(429)]);
        let mut room = pool.room(&zen);
        let growing = Growing { room: &mut room, times: 3, wait: Duration::ZERO };
        assert!(read(body(50), 1_000, Some(growing)).await.is_ok(), "the other one has room");
        let growing = Growing { room: &mut rooms[2], times: 3, wait: Duration::ZERO };
        let never = read(body(300), 1_000, Some(growing)).await.unwrap_err();
        assert_eq!(
            never.status(),
            StatusCode::PAYLOAD_TOO_LARGE,
            "there will never be room for it"
        );
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_refused() {
        assert_eq!(read(Body::from("12345"), 5, None).await.unwrap(), b"12345");
        assert!(read(Body::from("123456"), 5, None).await.is_err());
    }
}
