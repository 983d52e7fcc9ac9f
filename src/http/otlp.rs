//! OTLP over HTTP: `POST …/v1/traces`, `…/v1/logs` and `…/v1/metrics`, in JSON or protobuf, packed or not.
//!
//! Answers are OpenTelemetry's: 200 with an `Export…ServiceResponse` in the request's encoding, whose partial success
//! counts what was rejected and says why; 400 for what is no export request; 429 and 503 with `Retry-After`, which
//! exporters obey, and 413 and other statuses, at which they give up. A request that was taken in part before a 429 may
//! be sent again: spans are known by their ids, and log events by what they say of a span.
//!
//! A span that says what was asked and answered is a record. Any other, and the log events that say it, are pieces of one
//! ([`Half::Piece`]), whichever comes first, and each is durable when it is acked. Other log records, and spans that are no
//! calls to models, are passed over without a word, for every exporter sends some. Metrics are rejected, in words.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use super::App;
use super::auth::Caller;
use super::body::{check_coding, discard, unpackable};
use super::error::{Failure, Refusing};
use super::input::{header, text_header};
use super::intake::{Receipt, aside};
use super::packed::packed;
use crate::catalog::Access;
use crate::engine::Half;
use crate::error::Error;
use crate::ingest::otlp::{self, Call, Encoding, Signal};
use crate::ingest::{self, Context, Headers, Owner, Rejection};
use crate::record::Record;
use crate::record::json::{FieldError, Reason};
use crate::refusals::{Refused, Sender, Source};

/// Records that are appended at once, and the bytes of their texts, at most a part of the memory for acked rows.
const CHUNK_RECORDS: usize = 1024;
const CHUNK_BYTES: usize = 2 << 20;
const CHUNKS_IN_MEMTABLE: u64 = 8;
/// Rejections that an answer describes.
const DESCRIBED: usize = 3;
const PASSED_OVER: HeaderName = HeaderName::from_static("x-gatelog-passed-over");
const NO_METRICS: &str = "gatelog keeps no metrics; set OTEL_METRICS_EXPORTER=none";

/// What came of a request.
#[derive(Debug, Default)]
struct Done {
    rejected: u64,
    /// Those of them that are not noted yet.
    rejections: Vec<Rejection>,
    message: String,
    passed_over: u64,
}

/// A request whose body is there, not packed.
struct Request {
    encoding: Encoding,
    signal: Signal,
    bytes: Vec<u8>,
    access: Access,
    sender: Sender,
    context: Context,
}

/// `POST /v1/otel/v1/traces` and its like.
pub(crate) async fn traces(caller: Caller, sender: Extension<Sender>, headers: HeaderMap, body: Body) -> Response {
    export(caller, &sender, &headers, body, Some(Signal::Traces)).await
}

/// `POST /v1/otel/v1/logs` and its like.
pub(crate) async fn logs(caller: Caller, sender: Extension<Sender>, headers: HeaderMap, body: Body) -> Response {
    export(caller, &sender, &headers, body, Some(Signal::Logs)).await
}

/// `POST /v1/otel/v1/metrics` and its like.
pub(crate) async fn metrics(caller: Caller, sender: Extension<Sender>, headers: HeaderMap, body: Body) -> Response {
    export(caller, &sender, &headers, body, Some(Signal::Metrics)).await
}

/// `POST /v1/logs/otel`: spans or log records.
pub(crate) async fn either(caller: Caller, sender: Extension<Sender>, headers: HeaderMap, body: Body) -> Response {
    export(caller, &sender, &headers, body, None).await
}

/// Whether a request to `POST /v1/logs`, which is Portkey's, is an export of OpenTelemetry's logs.
pub(crate) fn is_logs(headers: &HeaderMap, text: &[u8]) -> bool {
    Encoding::of(header(headers, &CONTENT_TYPE).unwrap_or("text/plain"), b"{}") == Encoding::Protobuf
        || otlp::is_logs_json(text)
}

/// Answers an export of logs whose body was read already.
pub(crate) async fn take_logs(
    app: &Arc<App>,
    access: Access,
    headers: &HeaderMap,
    sender: &Sender,
    bytes: Vec<u8>,
) -> Response {
    let encoding = Encoding::of(content_type(headers), &bytes);
    let (context, sender) = (context(app, &access, headers), sender.with(source(Signal::Logs)));
    let request = Request { encoding, signal: Signal::Logs, bytes, access, sender, context };
    answer(encoding, Signal::Logs, run(app, request).await)
}

async fn export(
    Caller { app, access }: Caller,
    sender: &Sender,
    headers: &HeaderMap,
    body: Body,
    signal: Option<Signal>,
) -> Response {
    let named = content_type(headers);
    if let Err(failure) = check_coding(header(headers, &CONTENT_ENCODING)) {
        discard(&mut body.into_data_stream()).await;
        return refusal(Encoding::of(named, b"{}"), failure);
    }
    let (bytes, _room) = match packed(&app, &access, body).await {
        Ok(Ok(read)) => read,
        Ok(Err(cause)) => return refusal(Encoding::of(named, b"{}"), unpackable(&cause)),
        Err(failure) => return refusal(Encoding::of(named, b"{}"), failure),
    };
    let encoding = Encoding::of(named, &bytes);
    let told = aside(bytes.len(), move || (signal.unwrap_or_else(|| Signal::of(encoding, &bytes)), bytes)).await;
    let (signal, bytes) = match told {
        Ok(told) => told,
        Err(failure) => return refusal(encoding, failure),
    };
    let (context, sender) = (context(&app, &access, headers), sender.with(source(signal)));
    let request = Request { encoding, signal, bytes, access, sender, context };
    answer(encoding, signal, run(&app, request).await)
}

/// What a signal is called among refusals.
fn source(signal: Signal) -> Source {
    match signal {
        Signal::Traces => Source::OtlpTraces,
        Signal::Logs => Source::OtlpLogs,
        Signal::Metrics => Source::OtlpMetrics,
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    header(headers, &CONTENT_TYPE).unwrap_or_default()
}

fn context(app: &App, access: &Access, headers: &HeaderMap) -> Context {
    let text = |name: &str| text_header(headers, name);
    let owner = Owner { organisation: access.organisation.clone(), workspace: access.workspace.clone() };
    let policy = Arc::clone(app.engine.policy());
    Context { headers: Headers::read(text).cut(), owner, policy, ..Context::new(app.engine.now()) }
}

/// Takes a request. A failure is noted here, since the route alone does not tell what was sent.
async fn run(app: &Arc<App>, request: Request) -> Result<Done, Failure> {
    let sender = request.sender.clone();
    take(app, request).await.map_err(|failure| {
        if let Refusing::As(refused) = failure.refused() {
            app.engine.refusals().request(&sender, refused);
        }
        failure.noted()
    })
}

/// Parses on a thread of its own, and appends a chunk of records at a time.
async fn take(app: &Arc<App>, request: Request) -> Result<Done, Failure> {
    let (chunks, mut coming) = mpsc::channel::<Records>(1);
    let (parser, access, sender) = (Arc::clone(app), request.access.clone(), request.sender.clone());
    let parsing = tokio::task::spawn_blocking(move || parse(&parser, &request, &chunks));
    let mut receipt = Receipt::default();
    let mut appended = Ok(());
    while let Some(records) = coming.recv().await {
        appended = records.append(app, &access, &sender, &mut receipt).await;
        if appended.is_err() {
            // The thread ends as soon as it has nobody to give records to.
            coming.close();
        }
    }
    let parsed = parsing.await.map_err(|cause| Error::internal("parsing broke off").with_source(cause))?;
    appended?;
    let mut done = parsed.map_err(|error| Failure::invalid(error.to_string()).refusing(error))?;
    done.rejected += receipt.over_quota + receipt.rejected();
    if let Some(message) = receipt.message {
        done.tell(&message);
    }
    Ok(done)
}

fn parse(app: &App, request: &Request, chunks: &mpsc::Sender<Records>) -> Result<Done, FieldError> {
    let Request { encoding, signal, bytes, sender, context, .. } = request;
    let part = usize::try_from(app.engine.config().memtable_bytes / CHUNKS_IN_MEMTABLE).unwrap_or(CHUNK_BYTES);
    let mut chunk = Chunk { records: Records::default(), bytes: 0, most: CHUNK_BYTES.min(part), chunks };
    let mut done = Done::default();
    match signal {
        Signal::Traces => {
            let mut number = 0;
            done.passed_over = otlp::traces(*encoding, bytes, context, &mut |read| {
                let owned = read.and_then(|mut call| context.owner.take(&mut call.record).map(|()| call));
                match owned {
                    Ok(Call { mut record, is_whole: true }) => {
                        ingest::complete(&mut record, context, &mut || app.engine.new_id());
                        chunk.push(record, true);
                    }
                    Ok(Call { record, .. }) => chunk.push(record, false),
                    Err(error) => done.reject(app, sender, otlp::rejection(number, error)),
                }
                number += 1;
            })?;
        }
        Signal::Logs => otlp::logs(*encoding, bytes, context, &mut |read| match read {
            // Content that must not be kept does not wait either.
            Ok(_) if context.is_untracked() => {}
            Ok(piece) => chunk.push(piece, false),
            Err(rejection) => done.reject(app, sender, rejection),
        })?,
        Signal::Metrics => {
            done.rejected = otlp::data_points(*encoding, bytes)?;
            app.engine.refusals().records(sender, [Refused::many(Reason::NotKept, NO_METRICS, done.rejected)]);
            done.tell(NO_METRICS);
        }
    }
    chunk.send();
    done.note(app, sender);
    Ok(done)
}

impl Done {
    fn tell(&mut self, words: &str) {
        if !self.message.is_empty() {
            self.message.push_str("; ");
        }
        self.message.push_str(words);
    }

    fn reject(&mut self, app: &App, sender: &Sender, rejection: Rejection) {
        self.rejected += 1;
        if self.rejected <= DESCRIBED as u64 {
            self.tell(&rejection.to_string());
        }
        self.rejections.push(rejection);
        if self.rejections.len() >= CHUNK_RECORDS {
            self.note(app, sender);
        }
    }

    fn note(&mut self, app: &App, sender: &Sender) {
        app.engine.refusals().records(sender, std::mem::take(&mut self.rejections));
    }
}

/// What a request brings: whole records, complete, and pieces of records, which the engine completes.
#[derive(Debug, Default)]
struct Records {
    whole: Vec<Record>,
    pieces: Vec<(Half, Record)>,
}

impl Records {
    async fn append(self, app: &App, access: &Access, sender: &Sender, receipt: &mut Receipt) -> Result<(), Failure> {
        receipt.append(app, access, sender, self.whole).await?;
        receipt.append_halves(app, access, self.pieces).await
    }
}

/// Records on their way to be appended.
struct Chunk<'c> {
    records: Records,
    bytes: usize,
    most: usize,
    chunks: &'c mpsc::Sender<Records>,
}

impl Chunk<'_> {
    fn push(&mut self, record: Record, is_whole: bool) {
        self.bytes += record.text_bytes();
        match is_whole {
            true => self.records.whole.push(record),
            false => self.records.pieces.push((Half::Piece, record)),
        }
        if self.records.whole.len() + self.records.pieces.len() >= CHUNK_RECORDS || self.bytes >= self.most {
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
    let Done { rejected, message, passed_over, .. } = match done {
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
