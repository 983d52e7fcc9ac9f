//! `GET|HEAD /exports/{token}`: downloads the file of an export job by its signed URL. Needs no
//! key.
//!
//! `Range` resumes an interrupted download: a file never changes under its `ETag`, and an
//! `If-Range` with another one gets the whole file. A request for several ranges gets the whole
//! file, as the standard allows. The file is read from the store in pieces, a few ahead of the
//! client. A failure, the removal of the file, or a client that stops reading
//! ([`crate::http::middleware::write_timeout`]) cuts the connection. The number of downloads is
//! limited, in total and per organisation.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use futures::StreamExt;

use crate::encode::Format;
use crate::error::Error;
use crate::http::error::Failure;
use crate::http::input::{Id, header};
use crate::http::state::App;
use crate::limits::Holder;
use crate::store::export_stem;

/// Part of the file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    One(Range<u64>),
    /// The range starts beyond the end of the file.
    Nothing,
}

/// `GET /exports/{token}`. The response is the same for every kind of invalid token.
pub(crate) async fn open(
    State(app): State<Arc<App>>,
    method: Method,
    path: Id,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let closed = || {
        let why = "it has expired, its file is gone, or it was never valid; request the download of the export again";
        Failure::from(Error::not_found(format!("the link is not valid: {why}")))
    };
    let Ok(axum::extract::Path(token)) = path else { return Err(closed()) };
    app.engine.refuse_if_stale().await?;
    let (job, file) = app.engine.open_export(&token).ok_or_else(closed)?;
    let etag = format!("\"{}\"", export_stem(&file.name));
    let modified = http_date(file.written_at);
    let mut response = Response::new(Body::empty());
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(ETAG, &etag);
    set(LAST_MODIFIED, &modified);
    set(CACHE_CONTROL, "private, no-store");
    set(ACCEPT_RANGES, "bytes");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    if header(&headers, &IF_NONE_MATCH).is_some_and(|known| matches_any(known, &etag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    set(CONTENT_TYPE, Format::Jsonl.media_type());
    set(
        CONTENT_DISPOSITION,
        &format!("attachment; filename=\"gatelog-export-{}.jsonl\"", plain(&job.id)),
    );
    let same = header(&headers, &IF_RANGE).is_none_or(|known| known == etag || known == modified);
    let range = header(&headers, &RANGE).filter(|_| same && method == Method::GET);
    let (status, range) = match part(range, file.bytes) {
        Part::Whole => (StatusCode::OK, 0..file.bytes),
        Part::One(range) => {
            set(CONTENT_RANGE, &format!("bytes {}-{}/{}", range.start, range.end - 1, file.bytes));
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Part::Nothing => {
            set(CONTENT_RANGE, &format!("bytes */{}", file.bytes));
            (StatusCode::RANGE_NOT_SATISFIABLE, 0..0)
        }
    };
    set(CONTENT_LENGTH, &(range.end - range.start).to_string());
    *response.status_mut() = status;
    if method == Method::GET && !range.is_empty() {
        // The download ends when its body is dropped: after it was sent, when the client
        // disconnects, or when it is cut because the client stopped reading.
        let download = app.places.downloads.take(&Holder::new(job.organisation.as_deref()))?;
        let pieces = app.engine.download_export(token, &file, range).inspect(move |piece| {
            let _held = &download;
            if let Err(error) = piece {
                tracing::warn!(cause = error.chain(), "a download failed");
            }
        });
        *response.body_mut() = Body::from_stream(pieces);
    }
    Ok(response)
}

/// Returns the part that a `Range` header selects of a file with so many bytes. A header that is
/// not a single range of bytes is ignored.
fn part(range: Option<&str>, bytes: u64) -> Part {
    let Some(range) = range.and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    let Some((first, last)) = range.split_once('-') else { return Part::Whole };
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<u64>().map(Some).map_err(|_| ())
        }
        _ => Err(()),
    };
    match (number(first), number(last)) {
        (Ok(Some(first)), Ok(last)) => match last {
            Some(last) if last < first => Part::Whole,
            _ if first >= bytes => Part::Nothing,
            last => Part::One(first..last.map_or(bytes, |last| bytes.min(last.saturating_add(1)))),
        },
        (Ok(None), Ok(Some(last))) if last == 0 || bytes == 0 => Part::Nothing,
        (Ok(None), Ok(Some(last))) => Part::One(bytes.saturating_sub(last)..bytes),
        _ => Part::Whole,
    }
}

fn matches_any(list: &str, etag: &str) -> bool {
    list.split(',')
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| known == "*" || known == etag)
}

fn http_date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Returns an id with only the characters that are safe in a quoted file name.
fn plain(id: &str) -> String {
    id.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (range, bytes, wanted) in [
            ("bytes=0-0", 10, Part::One(0..1)),
            ("bytes=2-", 10, Part::One(2..10)),
            ("bytes=2-99", 10, Part::One(2..10)),
            ("bytes=-3", 10, Part::One(7..10)),
            ("bytes=-99", 10, Part::One(0..10)),
            ("bytes=10-", 10, Part::Nothing),
            ("bytes=-0", 10, Part::Nothing),
            ("bytes=0-", 0, Part::Nothing),
            ("bytes=-1", 0, Part::Nothing),
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=0-1,4-5", 10, Part::Whole),
            ("bytes=a-b", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("lines=0-1", 10, Part::Whole),
            ("bytes=0-18446744073709551615", 10, Part::One(0..10)),
            ("bytes=99999999999999999999-", 10, Part::Whole),
        ] {
            assert_eq!(part(Some(range), bytes), wanted, "{range} of {bytes}");
        }
        assert_eq!(part(None, 10), Part::Whole);
    }

    #[test]
    fn a_date_is_the_one_of_http() {
        assert_eq!(
            http_date(DateTime::from_timestamp(784_111_777, 0).unwrap()),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
    }
}
