//! OTLP: reads spans of calls to models as records, and log events about these calls as parts of
//! the same records.
//!
//! The id of a record consists of the trace id and the span id, so a batch that an exporter sends
//! again is not logged twice. A request that is not an export request is refused as a whole, before
//! any of it is stored. In a valid request, a bad span does not affect the good ones. Spans that
//! are not calls are ignored: the sender sees them as accepted.

mod any;
mod call;
mod content;
mod conventions;
mod export;
mod figures;
mod labels;
mod messages;
mod object;
mod others;
mod fragments;
mod wire;

use crate::ingest::{Context, EXCERPTS_AT_ONCE, Rejection, seen};
use crate::record::Record;
use crate::record::json::FieldError;

use self::export::{Leaf, LogRecord, Span};
use self::fragments::Fragments;

/// Encoding of a request, and so of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

/// Kind of data in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics, which are not stored.
    Metrics,
}

impl Encoding {
    /// Returns the encoding that a content type names. For any other content type, or none, guesses
    /// from the bytes.
    pub fn detect(content_type: &str, bytes: &[u8]) -> Self {
        let media_type =
            content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Self::Json,
            "application/x-protobuf" | "application/protobuf" => Self::Protobuf,
            // A protobuf request begins with the tag of its first field, a line feed, followed by a
            // length.
            _ => {
                let text = bytes.trim_ascii();
                let is_object = text.first() == Some(&b'{') && text.last() == Some(&b'}');
                if is_object || text.is_empty() { Self::Json } else { Self::Protobuf }
            }
        }
    }

    /// Returns the content type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }
}

impl Signal {
    /// Determines the signal of a request whose path does not name one.
    pub fn detect(encoding: Encoding, bytes: &[u8]) -> Self {
        if export::holds_logs(encoding, bytes) { Self::Logs } else { Self::Traces }
    }

    /// Returns the names of the three levels in JSON: as OTLP spells them, and as the protobuf
    /// files do, which some writers keep.
    fn json_names(self) -> [[&'static str; 2]; 3] {
        match self {
            Self::Traces => {
                [["resourceSpans", "resource_spans"], ["scopeSpans", "scope_spans"], ["spans"; 2]]
            }
            Self::Logs => [
                ["resourceLogs", "resource_logs"],
                ["scopeLogs", "scope_logs"],
                ["logRecords", "log_records"],
            ],
            Self::Metrics => [
                ["resourceMetrics", "resource_metrics"],
                ["scopeMetrics", "scope_metrics"],
                ["metrics"; 2],
            ],
        }
    }

    /// Returns the end of the path for requests of the signal.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// Returns the name of the count of rejected items.
    fn rejected_name(self) -> &'static str {
        match self {
            Self::Traces => "rejectedSpans",
            Self::Logs => "rejectedLogRecords",
            Self::Metrics => "rejectedDataPoints",
        }
    }
}

/// The data of a call in one span.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Record of the span, not yet completed.
    pub record: Record,
    /// True if log events add nothing to the record: the span states request and answer, or they
    /// must not be kept. If false, the record is one part of several
    /// ([`crate::record_parts::RecordPart::Fragment`]).
    pub is_whole: bool,
}

/// Reads the calls of a request, or fails if it is not an export request. Returns the number of
/// ignored spans.
pub fn traces(
    encoding: Encoding,
    bytes: &[u8],
    context: &Context,
    take: &mut dyn FnMut(Result<Call, FieldError>),
) -> Result<u64, FieldError> {
    traces_under(&context.overlay(), encoding, bytes, context, take)
}

/// Does the same as [`traces`] with the metadata of the headers, which is the same for all requests
/// of a body.
fn traces_under(
    overlay: &[(String, String)],
    encoding: Encoding,
    bytes: &[u8],
    context: &Context,
    take: &mut dyn FnMut(Result<Call, FieldError>),
) -> Result<u64, FieldError> {
    let mut passed_over = 0;
    let mut refused = 0;
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

/// Reads the log records of a request. `take` receives one part of a record, not yet completed, for
/// each span that the log records describe, and the rejection of each bad log record.
pub fn logs(
    encoding: Encoding,
    bytes: &[u8],
    context: &Context,
    take: &mut dyn FnMut(Result<Record, Rejection>),
) -> Result<(), FieldError> {
    let mut fragments = Fragments::default();
    let mut number = 0;
    let mut refused = 0;
    export::walk(encoding, Signal::Logs, bytes, None, &mut |_, leaf| {
        if let Err(error) = LogRecord::read(leaf).and_then(|log| fragments.add(log)) {
            take(Err(Rejection::new(number, looked_at(error, leaf, context, &mut refused))));
        }
        number += 1;
        if fragments.is_full() {
            fragments.take().for_each(|fragment| take(Ok(fragment)));
        }
    })?;
    fragments.take().for_each(|fragment| take(Ok(fragment)));
    Ok(())
}

/// Adds the excerpt of the span or log record to an error, for the first errors of a request.
/// Protobuf gets no excerpt.
fn looked_at(
    error: FieldError,
    leaf: Leaf<'_>,
    context: &Context,
    refused: &mut usize,
) -> FieldError {
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
    export::walk(encoding, Signal::Metrics, bytes, None, &mut |_, leaf| {
        points += export::data_points(leaf)
    })?;
    Ok(points)
}

/// Returns true if a JSON request to a path that other clients use too is an export of logs.
pub fn is_logs_json(text: &[u8]) -> bool {
    // No other client's JSON object begins with this key, and the search stops there.
    let start = text.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    start.is_some_and(|start| {
        [&b"\"resourceLogs\""[..], b"\"resource_logs\""].iter().any(|key| start.starts_with(key))
    })
}

/// Returns the body of the answer to an export: the number of rejected items with the reason, a
/// warning, or nothing.
pub fn response(encoding: Encoding, signal: Signal, rejected: u64, message: &str) -> Vec<u8> {
    export::response(encoding, signal, rejected, message)
}

/// Returns the body of an error in protobuf, `google.rpc.Status`, with one of gRPC's codes.
pub fn status(code: u8, message: &str) -> Vec<u8> {
    export::status(code, message)
}

/// Reads a line of a file that OpenTelemetry's collector wrote: an export request in JSON. Logs and
/// metrics are ignored.
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

/// Returns the rejection of the `number`th span.
pub fn rejection(number: u64, error: FieldError) -> Rejection {
    Rejection::new(number, error)
}
