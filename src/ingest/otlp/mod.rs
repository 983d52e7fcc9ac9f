//! OTLP: spans of calls to models as records, and what log events say of them as pieces of those records.
//!
//! A record's id is made of the trace's and the span's, so that an exporter which sends a batch again does not log
//! twice. A request that is no export request is refused as a whole, before any of it is taken; in one that is, a bad
//! span does not cost the good ones. Spans that are no calls are passed over: they are taken as far as their sender is
//! concerned.

mod any;
mod call;
mod content;
mod export;
mod figures;
mod labels;
mod messages;
mod object;
mod others;
mod pieces;
mod said;
mod wire;

use crate::ingest::{Context, EXCERPTS_AT_ONCE, Rejection, seen};
use crate::record::Record;
use crate::record::json::FieldError;

use self::export::{Leaf, LogRecord, Span};
use self::pieces::Pieces;

/// How a request is written, and so its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

/// What a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics, which nothing is made of.
    Metrics,
}

impl Encoding {
    /// The encoding that a content type names; of any other, and of none, what the bytes look like.
    pub fn of(content_type: &str, bytes: &[u8]) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Self::Json,
            "application/x-protobuf" | "application/protobuf" => Self::Protobuf,
            // A protobuf request begins with the tag of its first field, a line feed; then comes a length.
            _ => {
                let text = bytes.trim_ascii();
                let is_object = text.first() == Some(&b'{') && text.last() == Some(&b'}');
                if is_object || text.is_empty() { Self::Json } else { Self::Protobuf }
            }
        }
    }

    /// Its content type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }
}

impl Signal {
    /// The signal of a request whose path does not say.
    pub fn of(encoding: Encoding, bytes: &[u8]) -> Self {
        if export::holds_logs(encoding, bytes) { Self::Logs } else { Self::Traces }
    }

    /// The names of the three levels in JSON: as OTLP has them, and as the protobuf files have
    /// them, which some writers keep.
    fn json_names(self) -> [[&'static str; 2]; 3] {
        match self {
            Self::Traces => [["resourceSpans", "resource_spans"], ["scopeSpans", "scope_spans"], ["spans"; 2]],
            Self::Logs => {
                [["resourceLogs", "resource_logs"], ["scopeLogs", "scope_logs"], ["logRecords", "log_records"]]
            }
            Self::Metrics => {
                [["resourceMetrics", "resource_metrics"], ["scopeMetrics", "scope_metrics"], ["metrics"; 2]]
            }
        }
    }

    /// What the path of its requests ends with.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The name of the count of what was rejected.
    fn rejected_name(self) -> &'static str {
        match self {
            Self::Traces => "rejectedSpans",
            Self::Logs => "rejectedLogRecords",
            Self::Metrics => "rejectedDataPoints",
        }
    }
}

/// What a span says of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its record, not yet completed.
    pub record: Record,
    /// Whether log events add nothing to it: it says what was asked and answered, or nobody may know. Else it is a piece
    /// of one ([`crate::halves::Half::Piece`]).
    pub is_whole: bool,
}

/// Reads the calls of a request, or why there is none; returns how many spans were passed over.
pub fn traces(
    encoding: Encoding,
    bytes: &[u8],
    context: &Context,
    take: &mut dyn FnMut(Result<Call, FieldError>),
) -> Result<u64, FieldError> {
    traces_under(&context.overlay(), encoding, bytes, context, take)
}

/// [`traces`] with the metadata of the headers, which is the same for all requests of a body.
fn traces_under(
    overlay: &[(String, String)],
    encoding: Encoding,
    bytes: &[u8],
    context: &Context,
    take: &mut dyn FnMut(Result<Call, FieldError>),
) -> Result<u64, FieldError> {
    let (mut passed_over, mut refused) = (0, 0);
    export::walk(encoding, Signal::Traces, bytes, Some(&context.policy), &mut |origin, leaf| {
        let call = match Span::read(leaf) {
            Ok(span) if call::is_call(&span) => call::record(span, origin, overlay, context)
                .and_then(|mut call| context.policy.limit(&mut call.record).map(|()| call)),
            Ok(_) => return passed_over += 1,
            Err(error) => Err(error),
        };
        take(call.map_err(|error| looked_at(error, leaf, context, &mut refused)));
    })?;
    Ok(passed_over)
}

/// Reads the log records of a request: one piece of a record for each span of which they say something, not yet completed, or
/// why a log record is none.
pub fn logs(
    encoding: Encoding,
    bytes: &[u8],
    context: &Context,
    take: &mut dyn FnMut(Result<Record, Rejection>),
) -> Result<(), FieldError> {
    let (mut pieces, mut number, mut refused) = (Pieces::default(), 0, 0);
    export::walk(encoding, Signal::Logs, bytes, None, &mut |_, leaf| {
        if let Err(error) = LogRecord::read(leaf).and_then(|log| pieces.add(log)) {
            take(Err(Rejection::new(number, looked_at(error, leaf, context, &mut refused))));
        }
        number += 1;
        if pieces.is_full() {
            pieces.take().for_each(|piece| take(Ok(piece)));
        }
    })?;
    pieces.take().for_each(|piece| take(Ok(piece)));
    Ok(())
}

/// A refusal with what is known of the span or log record, for the first few of a request. Protobuf is not looked into.
fn looked_at(error: FieldError, leaf: Leaf<'_>, context: &Context, refused: &mut usize) -> FieldError {
    *refused += 1;
    match leaf {
        Leaf::Json(raw) if *refused <= EXCERPTS_AT_ONCE => {
            let seen = seen(raw, &error, context);
            error.seen(seen)
        }
        _ => error,
    }
}

/// Counts the data points of a request.
pub fn data_points(encoding: Encoding, bytes: &[u8]) -> Result<u64, FieldError> {
    let mut points = 0;
    export::walk(encoding, Signal::Metrics, bytes, None, &mut |_, leaf| points += export::data_points(leaf))?;
    Ok(points)
}

/// Whether a JSON request to a path that others use too is an export of logs.
pub fn is_logs_json(text: &[u8]) -> bool {
    // No JSON object of another client begins with this key, and none of them is searched further.
    let start = text.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    start.is_some_and(|start| [&b"\"resourceLogs\""[..], b"\"resource_logs\""].iter().any(|key| start.starts_with(key)))
}

/// The body of the answer to an export: what was rejected and why, or a warning, or nothing.
pub fn response(encoding: Encoding, signal: Signal, rejected: u64, message: &str) -> Vec<u8> {
    export::response(encoding, signal, rejected, message)
}

/// The body of a refusal in protobuf, `google.rpc.Status`, with one of gRPC's codes.
pub fn status(code: u8, message: &str) -> Vec<u8> {
    export::status(code, message)
}

/// Reads a line of a file that OpenTelemetry's collector wrote: an export request in JSON. Logs and metrics are passed
/// over.
pub(super) fn read(
    text: &str,
    overlay: &[(String, String)],
    context: &Context,
    new_id: &mut dyn FnMut() -> String,
    take: &mut super::portkey::Take<'_>,
) {
    if export::signal_of_json(text).is_some_and(|signal| signal != Signal::Traces) {
        return;
    }
    let mut whole = |read: Result<Call, FieldError>| take(read.map(|call| call.record), new_id);
    let read = traces_under(overlay, Encoding::Json, text.as_bytes(), context, &mut whole);
    if let Err(error) = read {
        take(Err(error), new_id);
    }
}

/// The rejection of the `number`th span.
pub fn rejection(number: u64, error: FieldError) -> Rejection {
    Rejection::new(number, error)
}
