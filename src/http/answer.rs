//! Rows to a response: streamed, with back-pressure, cancelled when the client goes.
//!
//! The first bytes are made before the status is sent, so that a query that fails at once is answered with an error. One that
//! fails later breaks the connection: a body that simply ended would look like a smaller answer. Nothing is read ahead of what
//! the client takes, and dropping the body drops the query. Encoding runs off the threads that serve, a piece at a time.

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode, Version};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};

use super::error::Failure;
use super::format::Format;
use super::writer::Writer;
use crate::engine::Answer;
use crate::error::{Error, Result};

/// Encoded bytes that one piece aims at: big enough to be cheap, small enough to hold many of them.
const PIECE_BYTES: usize = 1 << 20;
/// Rows of the first piece, before anything is known of their size.
const FIRST_PIECE_ROWS: usize = 512;

/// Work on so many bytes takes less time than going to another thread does.
const SMALL_BYTES: usize = 256 << 10;

/// Names the columns that are withheld from the key: null in the answer, or left out of it.
const WITHHELD: HeaderName = HeaderName::from_static("x-gatelog-withheld");

/// Says in a header which columns are withheld from the key; nothing where none is.
pub(crate) fn tell_withheld(response: &mut Response, columns: &[String]) {
    if let (false, Ok(names)) = (columns.is_empty(), HeaderValue::from_str(&columns.join(","))) {
        response.headers_mut().insert(WITHHELD, names);
    }
}

/// The response that streams an answer in a format.
///
/// `quoted` says that cells of CSV which begin a formula are quoted.
pub(crate) async fn respond(answer: Answer, format: Format, quoted: bool) -> Result<Response, Failure> {
    let writer = Writer::new(format, &answer.schema)?.quoting_formulas(quoted);
    let rows = if format == Format::Parquet { usize::MAX } else { FIRST_PIECE_ROWS };
    let encoding = Encoding { batches: answer.batches, writer: Some(writer), rest: None, rows };
    let pieces = futures::stream::try_unfold(encoding, |mut encoding| async {
        Ok(encoding.next().await?.map(|piece| (piece, encoding)))
    });
    let mut response = stream(pieces.boxed(), format.media_type()).await?;
    tell_withheld(&mut response, &answer.withheld);
    Ok(response)
}

/// The response that streams pieces of a body; it is not begun before the first of them is there.
pub(crate) async fn stream(
    mut pieces: BoxStream<'static, Result<Bytes>>,
    media_type: &'static str,
) -> Result<Response, Failure> {
    let first = pieces.next().await.transpose()?;
    let body = futures::stream::iter(first.map(Ok)).chain(pieces).inspect_err(|error| {
        tracing::warn!(
            cause = error.chain(),
            "a streamed answer broke off; the connection is cut so that the client sees it"
        );
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Refuses HTTP/1.0, where a body that broke off cannot be told from one that ended.
pub(crate) fn needs_chunks(version: Version) -> Result<(), Failure> {
    if version >= Version::HTTP_11 {
        return Ok(());
    }
    let message =
        "HTTP/1.0 cannot show that a streamed answer broke off; ask with HTTP/1.1 (nginx: proxy_http_version 1.1)";
    Err(Failure::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, message))
}

/// Runs work at once if it is about few bytes, else on a thread where it holds nobody up.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if bytes <= SMALL_BYTES {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|cause| Error::internal("preparing an answer broke off").with_source(cause))?)
}

struct Encoding {
    batches: BoxStream<'static, Result<RecordBatch>>,
    /// Taken while a thread encodes, and for good when the answer has ended.
    writer: Option<Writer>,
    rest: Option<RecordBatch>,
    rows: usize,
}

impl Encoding {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.writer.is_none() {
                return Ok(None);
            }
            let piece = match self.cut().await? {
                Some(batch) => self.encode(batch).await?,
                None => self.finish().await?,
            };
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// The next rows, about as many as make one piece.
    async fn cut(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.batches.try_next().await? {
                Some(batch) => batch,
                None => return Ok(None),
            },
        };
        let rows = self.rows.min(batch.num_rows());
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        Ok(Some(batch.slice(0, rows)))
    }

    async fn encode(&mut self, batch: RecordBatch) -> Result<Bytes> {
        let rows = batch.num_rows();
        let piece = self.on_a_thread(move |writer| writer.write(&batch)).await?;
        if self.rows != usize::MAX && rows > 0 {
            let row_bytes = (piece.len() / rows).max(1);
            self.rows = (PIECE_BYTES / row_bytes).clamp(1, self.rows.saturating_mul(4));
        }
        Ok(piece)
    }

    async fn finish(&mut self) -> Result<Bytes> {
        let piece = self.on_a_thread(Writer::finish).await?;
        self.writer = None;
        Ok(piece)
    }

    async fn on_a_thread(&mut self, work: impl FnOnce(&mut Writer) -> Result<Bytes> + Send + 'static) -> Result<Bytes> {
        let mut writer = self.writer.take().ok_or_else(|| Error::internal("the answer has ended"))?;
        let encoded = tokio::task::spawn_blocking(move || (work(&mut writer), writer)).await;
        let (piece, writer) = encoded.map_err(|cause| Error::internal("encoding broke off").with_source(cause))?;
        self.writer = Some(writer);
        piece
    }
}
