//! Streams rows as a response, with back-pressure. The query is cancelled when the client
//! disconnects.
//!
//! The first bytes are encoded before the status is sent, so a query that fails at once gets an
//! error status. A query that fails later cuts the connection: a body that simply ended would look
//! like a smaller result. Nothing is read ahead of the client, and dropping the body drops the
//! query. Encoding runs off the threads that serve requests, one piece at a time.

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode, Version};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};

use crate::catalog::Access;
use crate::encode::{Format, Writer};
use crate::engine::Answer;
use crate::error::{Error, Result};
use crate::heavy_work::HeavyWork;
use crate::http::error::Failure;
use crate::http::state::App;
use crate::limits::Holder;

/// Target size of an encoded piece: large enough to be efficient, small enough to hold many of them
/// in memory.
const PIECE_BYTES: usize = 1 << 20;
/// Rows of the first piece, whose encoded size is not known yet.
const FIRST_PIECE_ROWS: usize = 512;

/// Size up to which work takes less time than the switch to another thread.
const SMALL_BYTES: usize = 256 << 10;

/// Header with the columns that are withheld from the key: null in the response, or left out of it.
const WITHHELD: HeaderName = HeaderName::from_static("x-gatelog-withheld");

/// Adds the header that names the columns withheld from the key, if there are any.
pub(crate) fn tell_withheld(response: &mut Response, columns: &[String]) {
    if !columns.is_empty()
        && let Ok(names) = HeaderValue::from_str(&columns.join(","))
    {
        response.headers_mut().insert(WITHHELD, names);
    }
}

/// Streams an answer as a response in a format.
///
/// If `quoted` is true, CSV cells that begin a formula are quoted.
pub(crate) async fn respond(
    app: &App,
    access: &Access,
    answer: Answer,
    format: Format,
    quoted: bool,
) -> Result<Response, Failure> {
    let writer = Writer::new(format, &answer.schema)?.quoting_formulas(quoted);
    let rows = if format == Format::Parquet { usize::MAX } else { FIRST_PIECE_ROWS };
    let encoding = Encoding {
        batches: answer.batches,
        writer: Some(writer),
        rest: None,
        rows,
        heavy: app.engine.heavy().clone(),
        holder: access.holder(),
        has_begun: false,
    };
    let pieces = futures::stream::try_unfold(encoding, |mut encoding| async {
        Ok(encoding.next().await?.map(|piece| (piece, encoding)))
    });
    let mut response = stream(pieces.boxed(), format.media_type()).await?;
    tell_withheld(&mut response, &answer.withheld);
    Ok(response)
}

/// Streams the pieces of a body as a response. The response starts when the first piece is ready.
pub(crate) async fn stream(
    mut pieces: BoxStream<'static, Result<Bytes>>,
    media_type: &'static str,
) -> Result<Response, Failure> {
    let first = pieces.next().await.transpose()?;
    let body = futures::stream::iter(first.map(Ok)).chain(pieces).inspect_err(|error| {
        tracing::warn!(
            cause = error.chain(),
            "a streamed response failed; the connection is cut so that the client notices"
        );
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Refuses HTTP/1.0, in which an interrupted body looks like a complete one.
pub(crate) fn needs_chunks(version: Version) -> Result<(), Failure> {
    if version >= Version::HTTP_11 {
        return Ok(());
    }
    let message = "HTTP/1.0 cannot signal that a streamed answer was cut short; use HTTP/1.1 (nginx: proxy_http_version 1.1)";
    Err(Failure::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, message))
}

/// Runs work at once if it concerns few bytes, else in a place of the caller.
pub(crate) async fn run_by_size<T: Send + 'static>(
    app: &App,
    access: &Access,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if bytes <= SMALL_BYTES {
        return Ok(work());
    }
    Ok(app.engine.heavy().run(&access.holder(), work).await?)
}

struct Encoding {
    batches: BoxStream<'static, Result<RecordBatch>>,
    /// `None` while a thread encodes, and after the response has ended.
    writer: Option<Writer>,
    rest: Option<RecordBatch>,
    rows: usize,
    heavy: HeavyWork,
    holder: Holder,
    /// True after the first piece.
    has_begun: bool,
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

    /// Returns the next rows, about as many as make one piece.
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
        let piece = self.run_blocking(move |writer| writer.write(&batch)).await?;
        if self.rows != usize::MAX && rows > 0 {
            let row_bytes = (piece.len() / rows).max(1);
            self.rows = (PIECE_BYTES / row_bytes).clamp(1, self.rows.saturating_mul(4));
        }
        Ok(piece)
    }

    async fn finish(&mut self) -> Result<Bytes> {
        let piece = self.run_blocking(Writer::finish).await?;
        self.writer = None;
        Ok(piece)
    }

    async fn run_blocking(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<Bytes> + Send + 'static,
    ) -> Result<Bytes> {
        let mut writer =
            self.writer.take().ok_or_else(|| Error::internal("the answer has ended"))?;
        let work = move || (work(&mut writer), writer);
        let (piece, writer) = if std::mem::replace(&mut self.has_begun, true) {
            self.heavy.run(&self.holder, work).await?
        } else {
            // The first piece is small, and for most answers the only one.
            let encoded = tokio::task::spawn_blocking(work).await;
            encoded
                .map_err(|cause| Error::internal("the encoding task failed").with_source(cause))?
        };
        self.writer = Some(writer);
        piece
    }
}
