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
mod signal;
mod wire;

use crate::ingest::context::Context;
use crate::ingest::excerpt::seen;
use crate::ingest::limits::EXCERPTS_AT_ONCE;
use crate::ingest::rejection::Rejection;
use crate::record::Record;
use crate::record::json::FieldError;

pub use self::call::Call;
use self::export::{Leaf, LogRecord, Span};
use self::fragments::Fragments;
pub use self::signal::{Encoding, Signal};

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
