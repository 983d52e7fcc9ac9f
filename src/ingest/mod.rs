//! Any client's shape to [`Record`]s, or a rejection that names the record, the field and what was expected.
//!
//! A request or file goes through a [`Splitter`], which finds the records in a stream of bytes, and each [`Chunk`] of whole
//! records through [`read`]. Bad records never cost the good ones beside them. What must not be stored is taken out here,
//! before anything is written ([`Policy`]): content of calls that are not tracked, keys, what rules of redaction name.

pub(crate) mod arrow;
pub mod control_plane;
mod excerpt;
pub mod feedback;
mod fields;
mod hook;
mod litellm;
mod mask;
pub mod names;
mod native;
pub mod otlp;
mod policy;
mod portkey;
pub mod price;
mod redact;
mod split;
mod targets;
mod usage;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::record::Record;
use crate::record::json::{FieldError, Reason, Seen, finite, members};

pub use excerpt::{seen, whose};
pub use policy::Policy;
pub(crate) use split::line_breaks;
pub use split::{Chunk, Splitter};

/// Rejections of one chunk that get an excerpt.
pub(crate) const EXCERPTS_AT_ONCE: usize = 20;

/// Bytes of a header that are copied into records: one more than the longest text of a column.
const MOST_HEADER_BYTES: usize = (8 << 10) + 1;

/// Memory that a record takes beside its text.
pub const RECORD_BYTES: usize = 1_500;
/// Memory that the records of one value, such as an object of numbered records, take at most.
pub const MOST_MADE_BYTES: usize = 64 << 20;
/// Most records of a body that is read as a whole.
pub const MOST_RECORDS: usize = 100_000;

/// Memory that the records in a text take at most once they are built, each with what the headers of its request add to it. It is
/// known before any is built: a record is an object.
pub fn made_bytes(text: &[u8], headers: &Headers) -> usize {
    let records = memchr::memchr_iter(b'{', text).count();
    text.len().saturating_add(records.saturating_mul(RECORD_BYTES + headers.bytes()))
}

/// The refusal of too many records at once.
fn too_many(records: usize) -> FieldError {
    let expected = format!("at most {MOST_RECORDS} records at once, not {records}; `/v1/ingest` takes any number");
    FieldError::silent("json", expected).because(Reason::TooLarge)
}

/// The organisation of a record that names none.
pub const DEFAULT_ORGANISATION: &str = "default";

/// A record that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The number of the record in the request, from 0.
    pub record: u64,
    /// The line that it begins in, from 1; none where records are not read from text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The field, `json` where the text is not a JSON object at all.
    pub field: String,
    /// The beginning of its value; empty where it may be private.
    pub value: String,
    /// What was expected.
    pub expected: String,
    /// The reason, by which refusals are counted.
    #[serde(skip)]
    pub reason: Reason,
    /// What is known of the record beside that; the excerpt is shown.
    #[serde(rename = "excerpt", serialize_with = "write_excerpt", skip_serializing_if = "has_no_excerpt")]
    pub seen: Option<Box<Seen>>,
}

fn excerpt(seen: Option<&Seen>) -> Option<&str> {
    seen.and_then(|seen| seen.excerpt.as_deref())
}

#[expect(clippy::ref_option, reason = "serde hands the field over so")]
fn write_excerpt<S: Serializer>(seen: &Option<Box<Seen>>, serializer: S) -> Result<S::Ok, S::Error> {
    excerpt(seen.as_deref()).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde hands the field over so")]
fn has_no_excerpt(seen: &Option<Box<Seen>>) -> bool {
    excerpt(seen.as_deref()).is_none()
}

impl Rejection {
    fn new(record: u64, error: FieldError) -> Self {
        let FieldError { field, value, expected, reason, seen } = error;
        Self { record, line: None, field, value, expected, reason, seen }
    }

    /// The same rejection of a record that begins in that line.
    fn in_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// A short piece of the record around the field, masked and redacted, where it may be shown.
    pub fn excerpt(&self) -> Option<&str> {
        excerpt(self.seen.as_deref())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, line, field, value, expected, .. } = self;
        match line {
            Some(line) => write!(f, "line {line} (record {record}): field `{field}`")?,
            None => write!(f, "record {record}: field `{field}`")?,
        }
        match value.as_str() {
            "" => write!(f, ": expected {expected}"),
            value => write!(f, " is `{value}`; expected {expected}"),
        }
    }
}

/// How a client writes its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Our own JSON form, which exports have too.
    #[default]
    Native,
    /// The body of Portkey's `POST /v1/logs`.
    Portkey,
    /// What LiteLLM's generic API callback posts.
    LiteLlm,
    /// What the npm gateway's `default.log` and `default.webhook` post.
    GatewayHook,
    /// Export requests of OpenTelemetry in JSON, as its collector writes them to a file.
    Otlp,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 5] = [Self::Native, Self::Portkey, Self::LiteLlm, Self::GatewayHook, Self::Otlp];

    /// Its name in flags and queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Portkey => "portkey",
            Self::LiteLlm => "litellm",
            Self::GatewayHook => "gateway-hook",
            Self::Otlp => "otlp",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|shape| shape.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("`shape` is `{name}`; expected one of {known}"))
        })
    }
}

/// What is known of a request beside its body.
#[derive(Clone, Debug)]
pub struct Context {
    /// Arrival time, for records that do not say when they were made.
    pub now: DateTime<Utc>,
    /// The trace of records that name none. A caller that reads one request in several chunks sets it, so that they share
    /// it; else each call of [`read`] makes its own.
    pub trace: Option<String>,
    /// The client's headers.
    pub headers: Headers,
    /// Whose records the client may send.
    pub owner: Owner,
    /// What is done to every record.
    pub policy: Arc<Policy>,
}

/// Whom the records of a request must belong to; `None` = anyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The organisation. Records that name none get it.
    pub organisation: Option<String>,
    /// The workspace. Records that name none get it.
    pub workspace: Option<String>,
}

impl Owner {
    /// Makes a record the owner's, unless it says that it is somebody else's.
    pub fn take(&self, record: &mut Record) -> Result<(), FieldError> {
        self.take_fields(&mut record.organisation_id, &mut record.workspace_slug)
    }

    /// [`Owner::take`] for the two fields that say whose something is.
    pub fn take_fields(
        &self,
        organisation: &mut Option<String>,
        workspace: &mut Option<String>,
    ) -> Result<(), FieldError> {
        own("organisation_id", organisation, self.organisation.as_deref())?;
        own("workspace_slug", workspace, self.workspace.as_deref())
    }
}

fn own(field: &'static str, value: &mut Option<String>, owner: Option<&str>) -> Result<(), FieldError> {
    let Some(owner) = owner else { return Ok(()) };
    match value.as_deref().filter(|value| !value.is_empty()) {
        Some(named) if named != owner => {
            let expected = format!("`{owner}`, which the API key is bound to, or none");
            Err(FieldError::silent(field, expected).because(Reason::NotAllowed))
        }
        _ => {
            *value = Some(owner.to_owned());
            Ok(())
        }
    }
}

impl Context {
    /// A request without headers, under the policy that holds where none is configured.
    pub fn new(now: DateTime<Utc>) -> Self {
        let (headers, owner) = (Headers::default(), Owner::default());
        Self { now, trace: None, headers, owner, policy: Policy::shared() }
    }

    /// The metadata of the headers, no more than a record may have: it is copied into each.
    fn overlay(&self) -> Vec<(String, String)> {
        self.headers.metadata.as_deref().map(fields::shared_tags).unwrap_or_default()
    }

    /// Whether the client asked that no content be kept.
    pub fn is_untracked(&self) -> bool {
        self.headers.debug.as_deref().is_some_and(is_off)
    }
}

macro_rules! headers {
    ($($field:ident: $name:literal,)*) => {
        /// The `x-portkey-*` headers that say something about the records of a request.
        #[derive(Clone, Default, PartialEq, Eq, Hash)]
        pub struct Headers {
            $(#[doc = concat!("`", $name, "`")] pub $field: Option<String>,)*
        }

        impl Headers {
            /// Reads every header that is there and not empty.
            pub fn read(mut value: impl FnMut(&str) -> Option<String>) -> Self {
                Self { $($field: value($name).filter(|text| !text.is_empty()),)* }
            }

            /// Bytes that the headers add to a record at most.
            pub fn bytes(&self) -> usize {
                0 $(+ self.$field.as_ref().map_or(0, String::len))*
            }

            /// The headers of a request, which are copied into each of its records: of those but the metadata that are longer than
            /// any column, only so much that the records are refused for them, or go without.
            pub fn cut(mut self) -> Self {
                let metadata = self.metadata.take();
                $(if let Some(text) = &mut self.$field {
                    text.truncate(text.floor_char_boundary(MOST_HEADER_BYTES));
                })*
                Self { metadata, ..self }
            }
        }
    };
}

headers! {
    trace_id: "x-portkey-trace-id",
    span_id: "x-portkey-span-id",
    parent_span_id: "x-portkey-parent-span-id",
    span_name: "x-portkey-span-name",
    metadata: "x-portkey-metadata",
    provider: "x-portkey-provider",
    virtual_key: "x-portkey-virtual-key",
    config: "x-portkey-config",
    runtime: "x-portkey-runtime",
    runtime_version: "x-portkey-runtime-version",
    sdk_version: "x-portkey-package-version",
    debug: "x-portkey-debug",
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A config may hold provider keys, metadata may name people.
        f.write_str("Headers { .. }")
    }
}

/// Reads the records of a chunk: good ones go to the sink, in order and complete; bad ones come back as rejections.
pub fn read(
    shape: Shape,
    chunk: &Chunk,
    context: &Context,
    new_id: &mut dyn FnMut() -> String,
    sink: &mut dyn FnMut(Record),
) -> Vec<Rejection> {
    let mut rejections = chunk.rejections.clone();
    let mut lines = chunk.lines();
    let overlay = context.overlay();
    let mut portkey = portkey::Reader::new(context, &overlay);
    for (first, range) in &chunk.records {
        let mut number = *first;
        let read = str::from_utf8(&chunk.text[range.clone()]);
        let text = read.unwrap_or_default();
        let mut take = |read: Result<Record, FieldError>, new_id: &mut dyn FnMut() -> String| {
            let owned = read.and_then(|mut record| {
                context.owner.take(&mut record).and_then(|()| context.policy.limit(&mut record)).map(|()| record)
            });
            match owned {
                Ok(mut record) => {
                    complete(&mut record, context, new_id);
                    sink(record);
                }
                Err(error) => {
                    let rejection = looked_at(number, error, text, context, rejections.len());
                    rejections.push(rejection.in_line(lines.of(range.start)));
                }
            }
            number += 1;
        };
        match read {
            Err(error) => {
                let expected = format!("UTF-8 text (byte {} of the record is not)", error.valid_up_to());
                take(Err(FieldError::silent("json", expected)), new_id);
            }
            Ok(text) => {
                let text = &*finite(text);
                match shape {
                    Shape::Native => take(native::read(text, context), new_id),
                    Shape::Portkey => portkey.read(text, new_id, &mut take),
                    Shape::LiteLlm => take(litellm::read(text, context), new_id),
                    Shape::GatewayHook => take(hook::read(text, context, new_id), new_id),
                    Shape::Otlp => otlp::read(text, &overlay, context, new_id, &mut take),
                }
            }
        }
    }
    rejections.sort_by_key(|rejection| rejection.record);
    rejections
}

/// A rejection with what is known of the record in the text. Of many at once only the first get an excerpt, since it
/// takes as long as reading the record.
fn looked_at(number: u64, error: FieldError, text: &str, context: &Context, before: usize) -> Rejection {
    if error.seen.is_some() {
        return Rejection::new(number, error);
    }
    let seen = match before < EXCERPTS_AT_ONCE {
        true => seen(text, &error, context),
        false if context.owner.organisation.is_some() => Seen::default(),
        false => whose(text),
    };
    Rejection::new(number, error.seen(seen))
}

/// Reads a whole request: lines, a JSON array, one object, or objects one after the other.
pub fn lines(
    shape: Shape,
    text: &[u8],
    context: &Context,
    new_id: &mut dyn FnMut() -> String,
) -> (Vec<Record>, Vec<Rejection>) {
    let mut splitter = Splitter::new();
    let mut records = Vec::new();
    let mut rejections = Vec::new();
    let trace = context.trace.clone().or_else(|| (shape == Shape::Portkey).then(&mut *new_id));
    let context = Context { trace, ..context.clone() };
    for chunk in [splitter.push(text), splitter.finish()] {
        rejections.extend(read(shape, &chunk, &context, new_id, &mut |record| records.push(record)));
    }
    (records, rejections)
}

/// Fills in what every record has: an id, an organisation and a time; and takes out what must not be stored.
pub fn complete(record: &mut Record, context: &Context, new_id: &mut dyn FnMut() -> String) {
    if record.id.as_deref().is_none_or(str::is_empty) {
        record.id = Some(new_id());
    }
    if record.organisation_id.as_deref().is_none_or(str::is_empty) {
        record.organisation_id = Some(DEFAULT_ORGANISATION.to_owned());
    }
    record.created_at.get_or_insert(context.now);
    if context.is_untracked() {
        record.do_not_track = Some(true);
    }
    context.policy.protect(record);
}

/// Whether a value of `x-portkey-debug` asks that no content be kept.
fn is_off(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("false")
}

/// A refusal without what the client said, if the call is not to be tracked: content may stand in any place of a bad record.
fn discreet(error: FieldError, text: &str, context: &Context) -> FieldError {
    let told = |(key, raw): &(std::borrow::Cow<'_, str>, &str)| {
        key == "do_not_track" && !matches!(*raw, "false" | "0" | "null" | "\"false\"" | "\"0\"" | "\"\"")
    };
    let untracked = context.is_untracked()
        || members(text).map_or_else(|| text.contains("do_not_track"), |fields| fields.iter().any(told));
    match (untracked, crate::record::column(&error.field)) {
        (false, _) => error,
        (true, Some(column)) => FieldError::silent(column.name, error.expected).because(error.reason),
        (true, None) => {
            let expected = "a record of a call that is not tracked; what is wrong with it is not shown";
            FieldError::silent("json", expected).because(error.reason)
        }
    }
}
