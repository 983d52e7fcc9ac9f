//! Request bodies within a budget: how much memory all of them together may take, and how one is read and unpacked.
//!
//! Whoever holds a body, or the records parsed from it, holds a [`Room`] for it. A full budget is 429 for a request that just
//! came, and back-pressure for a stream that already runs. gzip and zstd are told by their first bytes, for clients do compress
//! without saying so; JSON begins with neither.

use std::io::{BufRead, Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use futures::StreamExt;
use hyper::body::Body as _;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Failure;
use crate::nearest::{clip, hint};
use crate::record::json::Reason;

/// How long a client may pause within a body.
const PAUSE: Duration = Duration::from_secs(30);
/// How much, and for how long, is read of a body that was refused.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// Largest body of a request that is a question: a statement, a list of columns.
const SMALL_BYTES: usize = 1 << 20;
/// RFC 9659 allows no larger window over HTTP. zstd's levels up to 19 keep to it.
const ZSTD_WINDOW_LOG: u32 = 23;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The unit of the budget.
const KIB: u64 = 1 << 10;

/// The memory that request bodies and the records parsed from them may take, all requests together.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    units: u32,
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let units = units(bytes);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Room for nothing yet.
    pub(crate) fn room(&self) -> Room {
        Room { budget: self.clone(), held: None }
    }

    /// Room for so many bytes, at most for all there are, as soon as it is free. Whoever holds room while waiting for more
    /// may wait for ever.
    pub(crate) async fn wait(&self, bytes: u64) -> Room {
        let held = Arc::clone(&self.free).acquire_many_owned(units(bytes).min(self.units)).await.ok();
        Room { budget: self.clone(), held }
    }
}

impl Room {
    /// Makes the room at least so big, or refuses at once.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Failure> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = units(bytes).saturating_sub(u32::try_from(held).unwrap_or(u32::MAX));
        if more == 0 {
            return Ok(());
        }
        let Ok(permit) = Arc::clone(&self.budget.free).try_acquire_many_owned(more) else {
            let message = "the requests being read fill the memory set aside for them; send this one again in a moment";
            return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, message));
        };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX)
}

/// Reads the text of a small body.
pub(crate) async fn read_small(body: Body) -> Result<String, Failure> {
    let bytes = read(body, SMALL_BYTES, |_| Ok(())).await?;
    String::from_utf8(bytes).map_err(|_| Failure::invalid("the body is not UTF-8 text; send it in that encoding"))
}

/// The JSON object in the text of a body. A field that is not one of `fields` is an error that names it: passed over, it would
/// seem to be done.
pub(crate) fn object<T: DeserializeOwned>(text: &str, fields: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|cause| {
        let cause = cause.to_string();
        let unknown = cause.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected"));
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

/// Reads a field that is a text, a number (which stands for its text) or null.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(value)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(D::Error::custom(format!("`{other}` is neither a text nor a number"))),
    }
}

/// Reads a body of at most `limit` bytes; `grown` hears of each new size and may refuse it.
pub(crate) async fn read(
    body: Body,
    limit: usize,
    mut grown: impl FnMut(usize) -> Result<(), Failure>,
) -> Result<Vec<u8>, Failure> {
    let announced = body.size_hint().lower();
    let mut frames = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut fits = if announced > limit as u64 { Err(too_large(limit)) } else { Ok(()) };
    while fits.is_ok() {
        let Some(frame) = next_frame(&mut frames).await? else { return Ok(bytes) };
        let size = bytes.len() + frame.len();
        fits = if size > limit { Err(too_large(limit)) } else { grown(size) };
        bytes.extend_from_slice(&frame);
    }
    drop(bytes);
    discard(&mut frames).await;
    fits.map(|()| Vec::new())
}

/// Reads on for a while, so that a client that is still sending gets to read why it was refused: closing a connection with
/// unread bytes resets it, and takes the answer along.
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
    // Whether the body ended or the time did, the answer goes out next.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// The next bytes of a body: 408 if the client falls silent, 400 if the body breaks off.
pub(crate) async fn next_frame(frames: &mut BodyDataStream) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout(PAUSE, frames.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(_))) => {
            let message = "the body broke off before its end; send it again";
            Err(Failure::invalid(message).because(Reason::BrokenOff))
        }
        Err(_) => {
            let message = format!("the body stopped coming for {} s; send it without long pauses", PAUSE.as_secs());
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}

/// A body over its limit: 413.
pub(crate) fn too_large(limit: usize) -> Failure {
    let remedy = "send less at a time; `/v1/ingest` takes any number of records";
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes; {remedy}"))
}

/// Refuses codings that are not unpacked; which of the others it is, the bytes say.
pub(crate) fn check_coding(content_encoding: Option<&str>) -> Result<(), Failure> {
    let coding = content_encoding.unwrap_or_default().trim();
    if ["", "identity", "gzip", "x-gzip", "zstd"].iter().any(|known| known.eq_ignore_ascii_case(coding)) {
        return Ok(());
    }
    let message = format!("content-encoding `{coding}` is not taken; send gzip, zstd or plain bytes");
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// A reader of the plain bytes behind `packed`.
pub(crate) fn unpack<'a>(mut packed: impl BufRead + Send + 'a) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    // The first frame of a body may be shorter than the magic.
    let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
    packed.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
    let (gzip, zstd) = (start.starts_with(&GZIP_MAGIC), start == ZSTD_MAGIC);
    let whole = Cursor::new(start).chain(packed);
    if gzip {
        return Ok(Box::new(MultiGzDecoder::new(whole)));
    }
    if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

/// Whether bytes are packed, by their start.
pub(crate) fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP_MAGIC) || bytes.starts_with(&ZSTD_MAGIC)
}

/// Bytes that do not unpack: 400.
pub(crate) fn unpackable(cause: &std::io::Error) -> Failure {
    let remedy = "send whole gzip, or whole zstd with a window of at most 8 MiB (its levels 1 to 19)";
    Failure::invalid(format!("the body cannot be unpacked ({cause}); {remedy}")).because(Reason::NotReadable)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpacked(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        unpack(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn packed_bytes_are_told_by_their_start() {
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
    fn a_huge_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
        assert!(unpacked(&encoder.finish().unwrap()).is_err());
    }

    #[tokio::test]
    async fn room_is_counted_and_given_back() {
        let budget = Budget::new(10 * KIB);
        let mut room = budget.room();
        room.grow(4 * KIB).unwrap();
        room.grow(3 * KIB).unwrap();
        let other = budget.wait(6 * KIB).await;
        assert!(room.grow(5 * KIB).is_err());
        drop(other);
        room.grow(10 * KIB).unwrap();
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_refused() {
        assert_eq!(read(Body::from("12345"), 5, |_| Ok(())).await.unwrap(), b"12345");
        assert!(read(Body::from("123456"), 5, |_| Ok(())).await.is_err());
    }
}
