//! An export request to its spans or log records, one after the other, out of either encoding; and the answer to one.
//!
//! First the whole request is checked to be one, so that a broken one is refused before any of it is taken. Then no
//! more than one span is held at a time.

use std::borrow::Cow;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::any::{self, Any, Attributes, Budget};
use super::wire::{self, Value};
use super::{Encoding, Signal, labels};
use crate::ingest::fields::cut;
use crate::ingest::usage::get;
use crate::ingest::{MOST_RECORDS, Policy};
use crate::record::MOST_TAGS;
use crate::record::json::{FieldError, Read, Reason, finite, keep_last, list, members, unquote, write_string};

/// What spans and log records come from. It is copied into each of its records, so it is read once and bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// Its first attributes, with the beginnings of long texts.
    pub(super) resource: Attributes,
    /// What of the resource is metadata.
    pub(super) tags: Vec<(String, String)>,
    /// The name of the instrumentation library.
    pub(super) scope: String,
}

/// Bytes of a text of a resource that columns are made of.
const MOST_TEXT_BYTES: usize = 8 << 10;

impl Origin {
    fn of(mut resource: Attributes, policy: Option<&Policy>) -> Self {
        keep_last(&mut resource);
        resource.truncate(MOST_TAGS);
        let tags = policy.map(|policy| labels::resource_tags(&resource, policy)).unwrap_or_default();
        for (_, value) in &mut resource {
            if let Any::Text(text) = value {
                text.truncate(text.floor_char_boundary(MOST_TEXT_BYTES));
            }
        }
        Self { resource, tags, scope: String::new() }
    }
}

/// A span or log record as it stands in the request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf<'a> {
    Wire(&'a [u8]),
    Json(&'a str),
}

type Found<'f> = dyn FnMut(&Origin, Leaf<'_>) + 'f;

/// Gives every span, log record or metric of a request, which is none if its outer levels are not as OTLP has them. The policy
/// decides which attributes of a resource are metadata; without one none are.
pub(super) fn walk(
    encoding: Encoding,
    signal: Signal,
    bytes: &[u8],
    policy: Option<&Policy>,
    found: &mut dyn FnMut(&Origin, Leaf<'_>),
) -> Result<(), FieldError> {
    match encoding {
        Encoding::Protobuf => {
            let mut leaves = 0;
            walk_wire(bytes, policy, &mut |_, _| leaves += 1)?;
            few(signal, leaves)?;
            walk_wire(bytes, policy, found)
        }
        Encoding::Json => {
            let text = str::from_utf8(bytes).map_err(|_| FieldError::silent("json", "UTF-8 text"))?;
            let text = &*finite(text);
            if text.trim().is_empty() {
                return Ok(());
            }
            let mut leaves = 0;
            walk_json(text, signal, policy, &mut |_, _| leaves += 1)?;
            few(signal, leaves)?;
            walk_json(text, signal, policy, found)
        }
    }
}

/// Refuses a request of too many spans or log records. Of metrics nothing is made.
fn few(signal: Signal, leaves: usize) -> Result<(), FieldError> {
    if leaves <= MOST_RECORDS || signal == Signal::Metrics {
        return Ok(());
    }
    let expected = format!("at most {MOST_RECORDS} in a request, not {leaves}; export fewer at once");
    Err(FieldError::silent(signal.json_names()[2][0], expected).because(Reason::TooLarge))
}

fn walk_wire(bytes: &[u8], policy: Option<&Policy>, found: &mut Found<'_>) -> Result<(), FieldError> {
    for group in wire::messages(bytes, 1) {
        let group = group?;
        let mut attributes = Attributes::new();
        for resource in wire::messages(group, 1) {
            attributes.extend(attributes_of_wire(resource?, 1)?);
        }
        let mut origin = Origin::of(attributes, policy);
        for scoped in wire::messages(group, 2) {
            let scoped = scoped?;
            origin.scope.clear();
            for scope in wire::messages(scoped, 1) {
                for name in wire::messages(scope?, 1) {
                    origin.scope = cut(&String::from_utf8_lossy(name?));
                }
            }
            for leaf in wire::messages(scoped, 2) {
                found(&origin, Leaf::Wire(leaf?));
            }
        }
    }
    Ok(())
}

fn attributes_of_wire(message: &[u8], field: u64) -> Result<Attributes, FieldError> {
    let mut budget = Budget::new();
    let mut attributes = Attributes::new();
    for pair in wire::messages(message, field) {
        // Those that are too many are passed over.
        if any::pair_of_wire(pair?, &mut attributes, &mut budget).is_err() {
            break;
        }
    }
    keep_last(&mut attributes);
    Ok(attributes)
}

fn walk_json(text: &str, signal: Signal, policy: Option<&Policy>, found: &mut Found<'_>) -> Result<(), FieldError> {
    let [groups, scoped, leaves] = signal.json_names();
    let request = members(text.trim()).filter(|request| is_export(request, groups));
    let request = request.ok_or_else(|| refused(text, groups[0]))?;
    each(get(&request, &groups), groups[0], &mut |group| {
        let resource = get(&group, &["resource"]).and_then(members).unwrap_or_default();
        let mut attributes = Attributes::new();
        // Attributes that are too many are passed over.
        let _ = any::pairs_of_json(get(&resource, &["attributes"]), &mut attributes, &mut Budget::new());
        let mut origin = Origin::of(attributes, policy);
        each(get(&group, &scoped), scoped[0], &mut |group| {
            let scope = get(&group, &["scope"]).and_then(members).unwrap_or_default();
            origin.scope = cut(&text_of(get(&scope, &["name"])).unwrap_or_default());
            each_raw(get(&group, &leaves), leaves[0], &mut |leaf| {
                found(&origin, Leaf::Json(leaf));
                Ok(())
            })
        })
    })
}

/// Returns whether an object is an export request with that list, or an empty one.
fn is_export(request: &Object<'_>, groups: [&str; 2]) -> bool {
    request.is_empty() || request.iter().any(|(key, _)| groups.contains(&&**key))
}

/// The refusal of JSON that is no export request with that list: nothing of it would be kept.
fn refused(text: &str, groups: &str) -> FieldError {
    let expected = format!("one JSON object with `{groups}`, an export request of OTLP");
    FieldError::silent(
        "json",
        match signal_of_json(text) {
            Some(signal) => {
                let name = signal.json_names()[0][0];
                format!("{expected}; one with `{name}` belongs to a path that ends with {}", signal.path())
            }
            None => expected,
        },
    )
}

/// The signal of an export request in JSON, if the text is one.
pub(super) fn signal_of_json(text: &str) -> Option<Signal> {
    let request = members(text.trim())?;
    let holds = |signal: &Signal| get(&request, &signal.json_names()[0]).is_some();
    [Signal::Traces, Signal::Logs, Signal::Metrics].into_iter().find(holds)
}

type Object<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// Gives every object of an array.
fn each(
    raw: Option<&str>,
    name: &'static str,
    found: &mut dyn FnMut(Object<'_>) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    each_raw(raw, name, &mut |raw| found(members(raw).ok_or_else(|| FieldError::silent(name, "an array of objects"))?))
}

/// Gives every element of an array without holding a list of them.
fn each_raw(
    raw: Option<&str>,
    name: &'static str,
    found: &mut dyn FnMut(&str) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    struct Elements<'f> {
        found: &'f mut dyn FnMut(&str) -> Result<(), FieldError>,
        refused: Result<(), FieldError>,
    }
    impl<'de> Visitor<'de> for &mut Elements<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element::<&RawValue>()? {
                if self.refused.is_ok() {
                    self.refused = (self.found)(element.get());
                }
            }
            Ok(())
        }
    }
    let Some(raw) = raw else { return Ok(()) };
    let mut elements = Elements { found, refused: Ok(()) };
    let read = serde_json::Deserializer::from_str(raw).deserialize_seq(&mut elements);
    elements.refused.and(read.map_err(|_| FieldError::silent(name, "an array")))
}

fn text_of(raw: Option<&str>) -> Option<String> {
    raw.filter(|raw| raw.starts_with('"')).map(|raw| unquote(raw).into_owned())
}

/// A span, as far as it says something about a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    /// Lower-case hex, as the other ids; empty where the id is not of the right length.
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) parent_span_id: String,
    pub(super) name: String,
    /// Since 1970, as the end; 0 = not stated.
    pub(super) start_nanos: u64,
    pub(super) end_nanos: u64,
    /// Whether the status is an error.
    pub(super) failed: bool,
    /// What the status says.
    pub(super) message: String,
    pub(super) attributes: Attributes,
    pub(super) events: Vec<Event>,
}

/// An event of a span, or a log record that is an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) attributes: Attributes,
    /// Null in a span's event.
    pub(super) body: Any,
}

/// A log record with the span that it belongs to.
#[derive(Clone, Debug, Default)]
pub(super) struct LogRecord {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    /// When it was, or else when it was seen, since 1970; 0 = not stated.
    pub(super) at_nanos: u64,
    pub(super) event: Event,
}

const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;

fn id(bytes: &[u8], length: usize) -> String {
    if bytes.len() == length && bytes.iter().any(|byte| *byte != 0) { hex::encode(bytes) } else { String::new() }
}

/// An id in hex, as OTLP has it, or in base64, as other writers of protobuf's JSON do.
fn id_of_json(raw: Option<&str>, length: usize) -> String {
    let text = text_of(raw).unwrap_or_default();
    let hex = hex::decode(&text).ok().filter(|bytes| bytes.len() == length);
    hex.or_else(|| base64(&text)).map(|bytes| id(&bytes, length)).unwrap_or_default()
}

/// The bytes of a short text in base64, of either alphabet.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes().map(|byte| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        })
    });
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let group = |group: &[u8]| {
        let bits = (0..4).fold(0u32, |bits, at| bits << 6 | u32::from(group.get(at).copied().unwrap_or(0)));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    Some(digits.chunks(4).flat_map(group).collect())
}

/// Nanoseconds since 1970; 0 = not stated.
fn nanos(of: &Object<'_>, names: [&'static str; 2]) -> Result<u64, FieldError> {
    let name = names[0];
    let mut number: Option<i64> = None;
    let read = get(of, &names).map_or(Ok(()), |raw| number.read("", raw));
    let nanos = read.ok().and_then(|()| u64::try_from(number.unwrap_or_default()).ok());
    nanos.ok_or_else(|| FieldError::silent(name, "nanoseconds since 1970"))
}

impl Span {
    pub(super) fn read(leaf: Leaf<'_>) -> Result<Self, FieldError> {
        match leaf {
            Leaf::Wire(bytes) => Self::of_wire(bytes),
            Leaf::Json(raw) => Self::of_json(raw),
        }
    }

    fn of_wire(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut span = Self::default();
        let mut budget = Budget::new();
        for field in wire::fields(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => span.trace_id = id(bytes, TRACE_ID_BYTES),
                (2, Value::Bytes(bytes)) => span.span_id = id(bytes, SPAN_ID_BYTES),
                (4, Value::Bytes(bytes)) => span.parent_span_id = id(bytes, SPAN_ID_BYTES),
                (5, name) => span.name = name.text().unwrap_or_default(),
                (7, nanos) => span.start_nanos = nanos.number().unwrap_or_default(),
                (8, nanos) => span.end_nanos = nanos.number().unwrap_or_default(),
                (9, Value::Bytes(pair)) => any::pair_of_wire(pair, &mut span.attributes, &mut budget)?,
                (11, Value::Bytes(event)) => span.events.push(Event::of_wire(event, [2, 3], &mut budget)?),
                (15, Value::Bytes(status)) => {
                    for field in wire::fields(status) {
                        match field? {
                            (2, text) => span.message = text.text().unwrap_or_default(),
                            (3, code) => span.failed = code.number() == Some(STATUS_ERROR),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        keep_last(&mut span.attributes);
        Ok(span)
    }

    fn of_json(raw: &str) -> Result<Self, FieldError> {
        let span = members(raw).ok_or_else(|| FieldError::silent("span", "an object"))?;
        let status = get(&span, &["status"]).and_then(members).unwrap_or_default();
        let mut budget = Budget::new();
        let mut events = Vec::new();
        for event in get(&span, &["events"]).and_then(list).unwrap_or_default().into_iter().filter_map(members) {
            budget.spend()?;
            let mut attributes = Attributes::new();
            any::pairs_of_json(get(&event, &["attributes"]), &mut attributes, &mut budget)?;
            let name = text_of(get(&event, &["name"])).unwrap_or_default();
            events.push(Event { name, attributes, body: Any::Null });
        }
        let mut attributes = Attributes::new();
        any::pairs_of_json(get(&span, &["attributes"]), &mut attributes, &mut budget)?;
        let code = get(&status, &["code"]).map(unquoted).unwrap_or_default();
        Ok(Self {
            trace_id: id_of_json(get(&span, &["traceId", "trace_id"]), TRACE_ID_BYTES),
            span_id: id_of_json(get(&span, &["spanId", "span_id"]), SPAN_ID_BYTES),
            parent_span_id: id_of_json(get(&span, &["parentSpanId", "parent_span_id"]), SPAN_ID_BYTES),
            name: text_of(get(&span, &["name"])).unwrap_or_default(),
            start_nanos: nanos(&span, ["startTimeUnixNano", "start_time_unix_nano"])?,
            // Without its end a call is one whose time is not known.
            end_nanos: nanos(&span, ["endTimeUnixNano", "end_time_unix_nano"]).unwrap_or_default(),
            failed: code == STATUS_ERROR.to_string() || code == "STATUS_CODE_ERROR",
            message: text_of(get(&status, &["message"])).unwrap_or_default(),
            attributes,
            events,
        })
    }
}

/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u64 = 2;

fn unquoted(raw: &str) -> Cow<'_, str> {
    if raw.starts_with('"') { unquote(raw) } else { Cow::Borrowed(raw) }
}

impl Event {
    /// Reads the message of an event, whose name and attributes are the given fields.
    fn of_wire(bytes: &[u8], [name, attributes]: [u64; 2], budget: &mut Budget) -> Result<Self, FieldError> {
        let mut event = Self::default();
        budget.spend()?;
        for field in wire::fields(bytes) {
            match field? {
                (field, value) if field == name => event.name = value.text().unwrap_or_default(),
                (field, Value::Bytes(pair)) if field == attributes => {
                    any::pair_of_wire(pair, &mut event.attributes, budget)?;
                }
                _ => {}
            }
        }
        keep_last(&mut event.attributes);
        Ok(event)
    }
}

impl LogRecord {
    pub(super) fn read(leaf: Leaf<'_>) -> Result<Self, FieldError> {
        let mut record = match leaf {
            Leaf::Wire(bytes) => Self::of_wire(bytes)?,
            Leaf::Json(raw) => Self::of_json(raw)?,
        };
        if record.event.name.is_empty() {
            // Before OTLP 1.6 the name was an attribute.
            let name = any::find(&record.event.attributes, &["event.name"]).and_then(Any::text);
            record.event.name = name.unwrap_or_default();
        }
        Ok(record)
    }

    fn of_wire(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut budget = Budget::new();
        let mut record = Self { event: Event::of_wire(bytes, [12, 6], &mut budget)?, ..Self::default() };
        let mut seen_nanos = 0;
        for field in wire::fields(bytes) {
            match field? {
                (1, nanos) => record.at_nanos = nanos.number().unwrap_or_default(),
                (5, Value::Bytes(body)) => record.event.body = any::of_wire(body, &mut budget)?,
                (9, Value::Bytes(bytes)) => record.trace_id = id(bytes, TRACE_ID_BYTES),
                (10, Value::Bytes(bytes)) => record.span_id = id(bytes, SPAN_ID_BYTES),
                (11, nanos) => seen_nanos = nanos.number().unwrap_or_default(),
                _ => {}
            }
        }
        if record.at_nanos == 0 {
            record.at_nanos = seen_nanos;
        }
        Ok(record)
    }

    fn of_json(raw: &str) -> Result<Self, FieldError> {
        let record = members(raw).ok_or_else(|| FieldError::silent("logRecord", "an object"))?;
        let mut budget = Budget::new();
        let mut attributes = Attributes::new();
        any::pairs_of_json(get(&record, &["attributes"]), &mut attributes, &mut budget)?;
        let event = Event {
            name: text_of(get(&record, &["eventName", "event_name"])).unwrap_or_default(),
            attributes,
            body: get(&record, &["body"]).map_or(Ok(Any::Null), |body| any::of_json(body, &mut budget))?,
        };
        let trace_id = id_of_json(get(&record, &["traceId", "trace_id"]), TRACE_ID_BYTES);
        let span_id = id_of_json(get(&record, &["spanId", "span_id"]), SPAN_ID_BYTES);
        let mut at_nanos = nanos(&record, ["timeUnixNano", "time_unix_nano"])?;
        if at_nanos == 0 {
            at_nanos = nanos(&record, ["observedTimeUnixNano", "observed_time_unix_nano"])?;
        }
        Ok(Self { trace_id, span_id, at_nanos, event })
    }
}

/// How many data points a metric has.
pub(super) fn data_points(leaf: Leaf<'_>) -> u64 {
    match leaf {
        Leaf::Wire(bytes) => {
            let kinds = wire::fields(bytes).filter_map(Result::ok);
            let kinds = kinds.filter(|(field, _)| matches!(field, 5 | 7 | 9 | 10 | 11));
            let points = kinds.filter_map(|(_, kind)| kind.bytes()).flat_map(|kind| wire::messages(kind, 1));
            points.filter(Result::is_ok).count() as u64
        }
        Leaf::Json(raw) => {
            let mut points = 0;
            for (_, kind) in members(raw).unwrap_or_default() {
                let kind = members(kind).unwrap_or_default();
                // What is no array holds no points.
                let _ = each_raw(get(&kind, &["dataPoints", "data_points"]), "dataPoints", &mut |_| {
                    points += 1;
                    Ok(())
                });
            }
            points
        }
    }
}

/// Whether the request holds log records: their first leaf tells, for the levels above are the same in protobuf.
pub(super) fn holds_logs(encoding: Encoding, bytes: &[u8]) -> bool {
    if encoding == Encoding::Json {
        let text = str::from_utf8(bytes).map(finite).unwrap_or_default();
        return signal_of_json(&text) == Some(Signal::Logs);
    }
    let mut logs = None;
    // A broken request is refused as what it is taken for.
    let _ = walk_wire(bytes, None, &mut |_, leaf| {
        if let (None, Leaf::Wire(bytes)) = (logs, leaf) {
            // A log record's time is where a span has its trace id.
            let time = |field: (u64, Value<'_>)| matches!(field, (1 | 11, Value::Fixed64(_)));
            logs = Some(wire::fields(bytes).filter_map(Result::ok).any(time));
        }
    });
    logs.unwrap_or(false)
}

/// The body of an `Export…ServiceResponse`: what was rejected, and why, or a warning; empty if all is well.
pub(super) fn response(encoding: Encoding, signal: Signal, rejected: u64, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let partial = rejected > 0 || !message.is_empty();
    match encoding {
        Encoding::Protobuf if partial => {
            let mut inner = Vec::new();
            wire::write_number(&mut inner, 1, rejected);
            wire::write_bytes(&mut inner, 2, message.as_bytes());
            wire::write_bytes(&mut out, 1, &inner);
        }
        Encoding::Protobuf => {}
        Encoding::Json if partial => {
            let name = signal.rejected_name();
            out.extend_from_slice(
                format!("{{\"partialSuccess\":{{\"{name}\":\"{rejected}\",\"errorMessage\":").as_bytes(),
            );
            write_string(&mut out, message);
            out.extend_from_slice(b"}}");
        }
        Encoding::Json => out.extend_from_slice(b"{}"),
    }
    out
}

/// The protobuf body of a refusal: `google.rpc.Status`.
pub(super) fn status(code: u8, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::write_number(&mut out, 1, u64::from(code));
    wire::write_bytes(&mut out, 2, message.as_bytes());
    out
}
