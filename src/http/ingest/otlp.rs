//! Ingests OTLP exports, in JSON or protobuf, compressed or not.
//!
//! Responses follow the OTLP specification: 200 with an `Export…ServiceResponse` in the encoding of
//! the request, whose partial success counts the rejected items and gives reasons; 400 for an
//! invalid export request; 429 and 503 with `Retry-After`, which exporters obey; 413 and other
//! statuses, after which exporters give up. A request that was partly stored before a 429 may be
//! sent again: spans are identified by their ids, and log events by their content.
//!
//! A span with the prompt and the answer of a call is a record. Other spans, and log events with
//! such content, are parts of a record ([`RecordPart::Fragment`]) that arrive in any order, and
//! each is durable once it is acknowledged. Other log records, and spans that are not model calls,
//! are ignored silently, since every exporter sends some. Metrics are rejected with a message.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use crate::catalog::Access;
use crate::engine::RecordPart;
use crate::error::Error;
use crate::heavy_work::Place;
use crate::http::body::{check_coding, discard, unpackable};
use crate::http::error::{Failure, Refusing};
use crate::http::ingest::pipeline::{Receipt, run_by_size, start_by_size};
use crate::http::input::{header, text_header};
use crate::http::middleware::auth::Caller;
use crate::http::packed::packed;
use crate::http::state::App;
use crate::ingest::otlp::{self, Call, Encoding, Signal};
use crate::ingest::{self, Context, Headers, Owner, Rejection};
use crate::record::Record;
use crate::record::json::{FieldError, Reason};
use crate::refusals::{Refused, Sender, Source};

/// Largest number of records, and of their text bytes, that are appended at once. A chunk takes at
/// most this fraction of the memory for acknowledged rows.
const CHUNK_RECORDS: usize = 1024;
const CHUNK_BYTES: usize = 2 << 20;
const CHUNKS_IN_MEMTABLE: u64 = 8;
/// Largest number of rejections that a response describes.
const DESCRIBED: usize = 3;
const PASSED_OVER: HeaderName = HeaderName::from_static("x-gatelog-passed-over");
const NO_METRICS: &str = "gatelog does not store metrics; set OTEL_METRICS_EXPORTER=none";

/// Result of a request.
#[derive(Debug, Default)]
struct Done {
    rejected: u64,
    /// Rejections that are not in the list of refusals yet.
    rejections: Vec<Rejection>,
    message: String,
    passed_over: u64,
}

/// A request with its body, unpacked.
struct Request {
    encoding: Encoding,
    signal: Signal,
    bytes: Vec<u8>,
    access: Access,
    sender: Sender,
    context: Context,
}

/// Returns true if a request to `POST /v1/logs`, which is Portkey's route, is an OTLP export of
/// logs.
pub(crate) fn is_logs(headers: &HeaderMap, text: &[u8]) -> bool {
    Encoding::detect(header(headers, &CONTENT_TYPE).unwrap_or("text/plain"), b"{}")
        == Encoding::Protobuf
        || otlp::is_logs_json(text)
}

/// Handles an export of logs whose body has been read already.
pub(crate) async fn take_logs(
    app: &Arc<App>,
    access: Access,
    headers: &HeaderMap,
    sender: &Sender,
    bytes: Vec<u8>,
) -> Response {
    let encoding = Encoding::detect(content_type(headers), &bytes);
    let context = context(app, &access, headers);
    let sender = sender.with(source(Signal::Logs));
    let request = Request { encoding, signal: Signal::Logs, bytes, access, sender, context };
    answer(encoding, Signal::Logs, run(app, request).await)
}

/// Handles an export. `signal` is `None` if the route takes spans and log records.
pub(crate) async fn export(
    Caller { app, access }: Caller,
    sender: &Sender,
    headers: &HeaderMap,
    body: Body,
    signal: Option<Signal>,
) -> Response {
    let named = content_type(headers);
    if let Err(failure) = check_coding(header(headers, &CONTENT_ENCODING)) {
        discard(&mut body.into_data_stream()).await;
        return refusal(Encoding::detect(named, b"{}"), failure);
    }
    let (bytes, _room) = match packed(&app, &access, body).await {
        Ok(Ok(read)) => read,
        Ok(Err(cause)) => return refusal(Encoding::detect(named, b"{}"), unpackable(&cause)),
        Err(failure) => return refusal(Encoding::detect(named, b"{}"), failure),
    };
    let encoding = Encoding::detect(named, &bytes);
    let detected = run_by_size(&app, &access.holder(), bytes.len(), move || {
        (signal.unwrap_or_else(|| Signal::detect(encoding, &bytes)), bytes)
    })
    .await;
    let (signal, bytes) = match detected {
        Ok(detected) => detected,
        Err(error) => return refusal(encoding, error.into()),
    };
    let context = context(&app, &access, headers);
    let sender = sender.with(source(signal));
    let request = Request { encoding, signal, bytes, access, sender, context };
    answer(encoding, signal, run(&app, request).await)
}

/// Returns the source under which refusals of a signal are listed.
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
    let owner =
        Owner { organisation: access.organisation.clone(), workspace: access.workspace.clone() };
    let policy = Arc::clone(app.engine.policy());
    Context { headers: Headers::read(text).cut(), owner, policy, ..Context::new(app.engine.now()) }
}

/// Ingests a request. A failure is added to the refusals here, since the route alone does not
/// determine the signal.
async fn run(app: &Arc<App>, request: Request) -> Result<Done, Failure> {
    let sender = request.sender.clone();
    take(app, request).await.map_err(|failure| {
        if let Refusing::As(refused) = failure.refused() {
            app.engine.refusals().request(&sender, refused);
        }
        failure.noted()
    })
}

/// Parses on a thread of its own, and appends the records chunk by chunk.
async fn take(app: &Arc<App>, request: Request) -> Result<Done, Failure> {
    let (chunks, mut coming) = mpsc::channel::<Records>(1);
    let parser = Arc::clone(app);
    let access = request.access.clone();
    let sender = request.sender.clone();
    let bytes = request.bytes.len();
    let holder = access.holder();
    let parsing =
        start_by_size(app, &holder, bytes, move |place| parse(&parser, &request, &chunks, place))?;
    let mut receipt = Receipt::default();
    let mut appended = Ok(());
    while let Some(records) = coming.recv().await {
        appended = records.append(app, &access, &sender, &mut receipt).await;
        if appended.is_err() {
            // The thread ends when the receiver of its records is closed.
            coming.close();
        }
    }
    let parsed = parsing
        .await
        .map_err(|cause| Error::internal("the parsing task failed").with_source(cause))?;
    appended?;
    let mut done = parsed.map_err(|error| Failure::invalid(error.to_string()).refusing(error))?;
    done.rejected += receipt.over_quota + receipt.rejected();
    if let Some(message) = receipt.message {
        done.tell(&message);
    }
    Ok(done)
}

fn parse(
    app: &App,
    request: &Request,
    chunks: &mpsc::Sender<Records>,
    place: &Place,
) -> Result<Done, FieldError> {
    let Request { encoding, signal, bytes, sender, context, .. } = request;
    let part = usize::try_from(app.engine.config().memtable_bytes / CHUNKS_IN_MEMTABLE)
        .unwrap_or(CHUNK_BYTES);
    let most = CHUNK_BYTES.min(part);
    let mut chunk = Chunk { records: Records::default(), bytes: 0, most, chunks, place };
    let mut done = Done::default();
    match signal {
        Signal::Traces => {
            let mut number = 0;
            done.passed_over = otlp::traces(*encoding, bytes, context, &mut |read| {
                let owned =
                    read.and_then(|mut call| context.owner.take(&mut call.record).map(|()| call));
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
            // Content that must not be stored must not wait for its span either.
            Ok(_) if context.is_untracked() => {}
            Ok(fragment) => chunk.push(fragment, false),
            Err(rejection) => done.reject(app, sender, rejection),
        })?,
        Signal::Metrics => {
            done.rejected = otlp::data_points(*encoding, bytes)?;
            app.engine
                .refusals()
                .records(sender, [Refused::many(Reason::NotKept, NO_METRICS, done.rejected)]);
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

/// The records of a request: complete ones, and parts of records, which the engine completes.
#[derive(Debug, Default)]
struct Records {
    whole: Vec<Record>,
    fragments: Vec<(RecordPart, Record)>,
}

impl Records {
    async fn append(
        self,
        app: &App,
        access: &Access,
        sender: &Sender,
        receipt: &mut Receipt,
    ) -> Result<(), Failure> {
        receipt.append(app, access, sender, self.whole).await?;
        receipt.append_parts(app, access, self.fragments).await
    }
}

/// Parsed records that are sent to the appender in chunks.
struct Chunk<'c> {
    records: Records,
    bytes: usize,
    most: usize,
    chunks: &'c mpsc::Sender<Records>,
    place: &'c Place,
}

impl Chunk<'_> {
    fn push(&mut self, record: Record, is_whole: bool) {
        self.bytes += record.text_bytes();
        if is_whole {
            self.records.whole.push(record);
        } else {
            self.records.fragments.push((RecordPart::Fragment, record));
        }
        if self.records.whole.len() + self.records.fragments.len() >= CHUNK_RECORDS
            || self.bytes >= self.most
        {
            self.send();
        }
    }

    fn send(&mut self) {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        // The receiver is closed after a failure, and the response reports that failure.
        let _ = self.place.pause(|| self.chunks.blocking_send(records));
    }
}

fn answer(encoding: Encoding, signal: Signal, done: Result<Done, Failure>) -> Response {
    let Done { rejected, message, passed_over, .. } = match done {
        Ok(done) => done,
        Err(failure) => return refusal(encoding, failure),
    };
    let headers =
        [(CONTENT_TYPE, encoding.media_type().to_owned()), (PASSED_OVER, passed_over.to_string())];
    (headers, otlp::response(encoding, signal, rejected, &message)).into_response()
}

/// Returns a failure in the encoding of the request: in JSON the common envelope, which is also a
/// `google.rpc.Status`, else a `google.rpc.Status` in protobuf.
fn refusal(encoding: Encoding, failure: Failure) -> Response {
    let status = failure.status();
    let message = failure.message().to_owned();
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

/// Returns the gRPC code of a status.
fn code(status: StatusCode) -> u8 {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => 3,
        StatusCode::FORBIDDEN => 7,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        status if status.is_server_error() => 13,
        _ => 2,
    }
}
