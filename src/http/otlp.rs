//! OTLP over HTTP: `POST …/v1/traces`, `…/v1/logs` and `…/v1/metrics`, in JSON or protobuf, packed or not.
//!
//! Answers are OpenTelemetry's: 200 with an `Export…ServiceResponse` in the request's encoding, whose partial success
//! counts what was rejected and says why; 400 for what is no export request; 429 and 503 with `Retry-After`, which
//! exporters obey, and 413 and other statuses, at which they give up. A request that was taken in part before a 429 may
//! be sent again: spans are known by their ids.
//!
//! Log events that say what was asked and answered in a call wait for its span ([`Told`]). Other log records, and spans
//! that are no calls to models, are passed over without a word, for every exporter sends some. Metrics are rejected, in
//! words.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::App;
use super::body::{check_coding, discard};
use super::error::Failure;
use super::intake::Receipt;
use super::logs::packed;
use super::sql::header;
use crate::catalog::Access;
use crate::error::Error;
use crate::ingest::otlp::{self, Encoding, Signal, Told};
use crate::ingest::{self, Context, Headers, Owner, Rejection};
use crate::record::Record;
use crate::record::json::FieldError;

/// Text of the log events that wait for their spans.
const TOLD_BYTES: usize = 64 << 20;
/// Records that are appended at once, and the bytes of their bodies, at most a part of the memory for acked rows.
const CHUNK_RECORDS: usize = 1024;
const CHUNK_BYTES: usize = 2 << 20;
const CHUNKS_IN_MEMTABLE: u64 = 8;
/// Rejections that an answer describes.
const DESCRIBED: usize = 3;
const PASSED_OVER: HeaderName = HeaderName::from_static("x-gatelog-passed-over");
const NO_METRICS: &str = "gatelog keeps no metrics; set OTEL_METRICS_EXPORTER=none";

/// The events that wait, of all keys.
pub(crate) struct Waiting(Mutex<Told>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Mutex::new(Told::new(TOLD_BYTES)))
    }
}

/// What came of a request.
#[derive(Debug, Default)]
struct Done {
    rejected: u64,
    message: String,
    passed_over: u64,
}

/// A request whose body is there, not packed.
struct Request {
    encoding: Encoding,
    signal: Signal,
    bytes: Vec<u8>,
    context: Context,
}

/// `POST /v1/otel/v1/traces` and its like.
pub(crate) async fn traces(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(&app, access, &headers, body, Some(Signal::Traces)).await
}

/// `POST /v1/otel/v1/logs` and its like.
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(&app, access, &headers, body, Some(Signal::Logs)).await
}

/// `POST /v1/otel/v1/metrics` and its like.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(&app, access, &headers, body, Some(Signal::Metrics)).await
}

/// `POST /v1/logs/otel`: spans or log records.
pub(crate) async fn either(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(&app, access, &headers, body, None).await
}

/// Whether a request to `POST /v1/logs`, which is Portkey's, is an export of OpenTelemetry's logs.
pub(crate) fn is_logs(headers: &HeaderMap, text: &[u8]) -> bool {
    Encoding::of(header(headers, &CONTENT_TYPE).unwrap_or("text/plain"), b"{}") == Encoding::Protobuf
        || otlp::is_logs_json(text)
}

/// Answers an export of logs whose body was read already.
pub(crate) async fn take_logs(app: &Arc<App>, access: Access, headers: &HeaderMap, bytes: Vec<u8>) -> Response {
    let encoding = Encoding::of(content_type(headers), &bytes);
    let request = Request { encoding, signal: Signal::Logs, bytes, context: context(app, access, headers) };
    answer(encoding, Signal::Logs, run(app, request).await)
}

async fn export(app: &Arc<App>, access: Access, headers: &HeaderMap, body: Body, signal: Option<Signal>) -> Response {
    let named = content_type(headers);
    if let Err(failure) = check_coding(header(headers, &CONTENT_ENCODING)) {
        discard(&mut body.into_data_stream()).await;
        return refusal(Encoding::of(named, b"{}"), failure);
    }
    let (bytes, _room) = match packed(app, body).await {
        Ok(Some(read)) => read,
        Ok(None) => {
            let failure = Failure::invalid("the body cannot be unpacked; send whole gzip, or whole zstd");
            return refusal(Encoding::of(named, b"{}"), failure);
        }
        Err(failure) => return refusal(Encoding::of(named, b"{}"), failure),
    };
    let encoding = Encoding::of(named, &bytes);
    let signal = signal.unwrap_or_else(|| Signal::of(encoding, &bytes));
    let request = Request { encoding, signal, bytes, context: context(app, access, headers) };
    answer(encoding, signal, run(app, request).await)
}

fn content_type(headers: &HeaderMap) -> &str {
    header(headers, &CONTENT_TYPE).unwrap_or_default()
}

fn context(app: &App, access: Access, headers: &HeaderMap) -> Context {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let owner = Owner { organisation: access.organisation, workspace: access.workspace };
    let policy = Arc::clone(app.engine.policy());
    Context { headers: Headers::read(text), owner, policy, ..Context::new(app.engine.now()) }
}

/// Parses on a thread of its own, and appends a chunk of records at a time.
async fn run(app: &Arc<App>, request: Request) -> Result<Done, Failure> {
    let (chunks, mut coming) = mpsc::channel(1);
    let parser = Arc::clone(app);
    let parsing = tokio::task::spawn_blocking(move || parse(&parser, &request, &chunks));
    let mut receipt = Receipt::default();
    let mut appended = Ok(());
    while let Some(records) = coming.recv().await {
        appended = receipt.append(app, records).await;
        if appended.is_err() {
            // The thread ends as soon as it has nobody to give records to.
            coming.close();
        }
    }
    let parsed = parsing.await.map_err(|cause| Error::internal("parsing broke off").with_source(cause))?;
    appended?;
    let mut done = parsed.map_err(|error| Failure::invalid(error.to_string()))?;
    app.metrics.rejected(done.rejected);
    done.rejected += receipt.over_quota;
    if let Some(message) = receipt.message {
        done.tell(&message);
    }
    Ok(done)
}

fn parse(app: &App, request: &Request, chunks: &mpsc::Sender<Vec<Record>>) -> Result<Done, FieldError> {
    let Request { encoding, signal, bytes, context } = request;
    let mut done = Done::default();
    match signal {
        Signal::Traces => {
            let part = usize::try_from(app.engine.config().memtable_bytes / CHUNKS_IN_MEMTABLE).unwrap_or(CHUNK_BYTES);
            let mut chunk = Chunk { records: Vec::new(), bytes: 0, most: CHUNK_BYTES.min(part), chunks };
            let mut told = |trace: &str, span: &str| app.told.0.lock().get(&context.owner, trace, span);
            let mut number = 0;
            let passed_over = otlp::traces(*encoding, bytes, context, &mut told, &mut |read| {
                let owned = read.and_then(|mut record| context.owner.take(&mut record).map(|()| record));
                match owned {
                    Ok(mut record) => {
                        ingest::complete(&mut record, context, &mut || app.engine.new_id());
                        chunk.push(record);
                    }
                    Err(error) => done.reject(&otlp::rejection(number, error)),
                }
                number += 1;
            })?;
            chunk.send();
            done.passed_over = passed_over;
        }
        Signal::Logs => {
            let mut number = 0;
            otlp::logs(*encoding, bytes, &mut |read| {
                match read {
                    // Content that must not be kept does not wait either.
                    Ok(_) if context.is_untracked() => {}
                    Ok((trace, span, content)) => {
                        app.told.0.lock().put(&context.owner, &trace, &span, content, context.now);
                    }
                    Err(error) => done.reject(&otlp::rejection(number, error)),
                }
                number += 1;
            })?;
        }
        Signal::Metrics => {
            done.rejected = otlp::data_points(*encoding, bytes)?;
            done.tell(NO_METRICS);
        }
    }
    Ok(done)
}

impl Done {
    fn tell(&mut self, words: &str) {
        if !self.message.is_empty() {
            self.message.push_str("; ");
        }
        self.message.push_str(words);
    }

    fn reject(&mut self, rejection: &Rejection) {
        self.rejected += 1;
        if self.rejected <= DESCRIBED as u64 {
            self.tell(&rejection.to_string());
        }
    }
}

/// Records on their way to be appended.
struct Chunk<'c> {
    records: Vec<Record>,
    bytes: usize,
    most: usize,
    chunks: &'c mpsc::Sender<Vec<Record>>,
}

impl Chunk<'_> {
    fn push(&mut self, record: Record) {
        let bodies = [&record.request.body, &record.response.body];
        self.bytes += bodies.into_iter().flatten().map(String::len).sum::<usize>();
        self.records.push(record);
        if self.records.len() >= CHUNK_RECORDS || self.bytes >= self.most {
            self.send();
        }
    }

    fn send(&mut self) {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        // Nobody takes them after a failure, which is what is answered then.
        let _ = self.chunks.blocking_send(records);
    }
}

fn answer(encoding: Encoding, signal: Signal, done: Result<Done, Failure>) -> Response {
    let Done { rejected, message, passed_over } = match done {
        Ok(done) => done,
        Err(failure) => return refusal(encoding, failure),
    };
    let headers = [(CONTENT_TYPE, encoding.media_type().to_owned()), (PASSED_OVER, passed_over.to_string())];
    (headers, otlp::response(encoding, signal, rejected, &message)).into_response()
}

/// A failure in the request's encoding: the envelope of all failures, which is a `google.rpc.Status` in JSON too, or
/// one in protobuf.
fn refusal(encoding: Encoding, failure: Failure) -> Response {
    let (status, message) = (failure.status(), failure.message().to_owned());
    let code = code(status);
    let mut response = failure.with_fields(serde_json::json!({ "code": code })).into_response();
    if encoding == Encoding::Protobuf {
        *response.body_mut() = Body::from(Bytes::from(otlp::status(code, &message)));
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    }
    response
}

/// gRPC's code for a status.
fn code(status: StatusCode) -> u8 {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => 3,
        StatusCode::FORBIDDEN => 7,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        status if status.is_server_error() => 13,
        _ => 2,
    }
}
