//! Reads any client's format into [`Record`]s, or into a rejection that names the record, the field
//! and the expected value.
//!
//! A request or file goes through a [`Splitter`], which finds the records in a stream of bytes.
//! Each [`Chunk`] of whole records then goes through [`read`]. A bad record never causes the
//! rejection of a good one in the same request. [`Policy`] removes what must not be stored before
//! anything is written: content of calls that are not tracked, keys, and values that redaction
//! rules name.

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
pub mod pipeline;
mod policy;
mod portkey;
pub mod price;
mod redact;
mod split;
mod targets;
mod usage;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
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
pub use split::{Chunk, Splitter};

/// Number of rejections of one chunk that get an excerpt.
pub(crate) const EXCERPTS_AT_ONCE: usize = 20;

/// Bytes of a header that are copied into records: one more than the longest text of a column.
const MAX_HEADER_BYTES: usize = (8 << 10) + 1;

/// Memory that a record takes in addition to its text.
pub const RECORD_BYTES: usize = 1_500;
/// Maximum memory for the records of one value, such as an object of numbered records.
pub const MAX_MADE_BYTES: usize = 64 << 20;
/// Maximum number of records in a body that is read as a whole.
pub const MAX_RECORDS: usize = 100_000;

/// Returns the maximum memory that the records in a text take once they are built, including the
/// header values that are copied into each of them.
///
/// The bound is known before any record is built, since each record is a JSON object: it counts the
/// opening braces.
pub fn made_bytes(text: &[u8], headers: &Headers) -> usize {
    let records = memchr::memchr_iter(b'{', text).count();
    text.len().saturating_add(records.saturating_mul(RECORD_BYTES + headers.bytes()))
}

/// Returns the error for a request with too many records.
fn too_many(records: usize) -> FieldError {
    let expected = format!(
        "at most {MAX_RECORDS} records at once, not {records}; `/v1/ingest` takes any number"
    );
    FieldError::silent("json", expected).because(Reason::TooLarge)
}

/// Organisation of a record that names none.
pub const DEFAULT_ORGANISATION: &str = "default";

/// A record that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Number of the record in the request, counted from 0.
    pub record: u64,
    /// Line in which the record begins, counted from 1; `None` if records are not read from text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Name of the field, or `json` if the text is not a JSON object.
    pub field: String,
    /// Beginning of the field's value; empty if the value may be private.
    pub value: String,
    /// Description of the expected value.
    pub expected: String,
    /// Reason, by which refusals are counted.
    #[serde(skip)]
    pub reason: Reason,
    /// Organisation and workspace that the record names, and its excerpt. Only the excerpt is
    /// written to clients.
    #[serde(
        rename = "excerpt",
        serialize_with = "write_excerpt",
        skip_serializing_if = "has_no_excerpt"
    )]
    pub seen: Option<Box<Seen>>,
}

fn excerpt(seen: Option<&Seen>) -> Option<&str> {
    seen.and_then(|seen| seen.excerpt.as_deref())
}

#[expect(clippy::ref_option, reason = "serde passes the field this way")]
fn write_excerpt<S: Serializer>(
    seen: &Option<Box<Seen>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    excerpt(seen.as_deref()).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde passes the field this way")]
fn has_no_excerpt(seen: &Option<Box<Seen>>) -> bool {
    excerpt(seen.as_deref()).is_none()
}

impl Rejection {
    fn new(record: u64, error: FieldError) -> Self {
        let FieldError { field, value, expected, reason, seen } = error;
        Self { record, line: None, field, value, expected, reason, seen }
    }

    /// Returns the rejection with the line in which the record begins.
    fn in_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// Returns the excerpt of the record, masked and redacted, if it may be shown.
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

/// Format of the records that a client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceFormat {
    /// Our own JSON form, which exports use too.
    #[default]
    Native,
    /// The body of Portkey's `POST /v1/logs`.
    Portkey,
    /// Payload of LiteLLM's generic API callback.
    LiteLlm,
    /// Payload of the npm gateway's `default.log` and `default.webhook`.
    GatewayHook,
    /// OpenTelemetry export requests in JSON, as its collector writes them to a file.
    Otlp,
}

impl SourceFormat {
    /// All formats.
    pub const ALL: [Self; 5] =
        [Self::Native, Self::Portkey, Self::LiteLlm, Self::GatewayHook, Self::Otlp];

    /// Returns the name that flags and queries use.
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

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SourceFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|shape| shape.name().eq_ignore_ascii_case(name)).ok_or_else(
            || {
                let known = Self::ALL.map(Self::name).join(", ");
                Error::invalid(format!("`source` is `{name}`; expected one of {known}"))
            },
        )
    }
}

/// Properties of a request other than its body.
#[derive(Clone, Debug)]
pub struct Context {
    /// Arrival time, for records that state no creation time.
    pub now: DateTime<Utc>,
    /// Trace id of records that name none. A caller that reads one request in several chunks sets
    /// it, so that the chunks share it. Without it each call of [`read`] generates its own.
    pub trace: Option<String>,
    /// Headers of the client.
    pub headers: Headers,
    /// Owner of the records that the client may send.
    pub owner: Owner,
    /// Policy that is applied to every record.
    pub policy: Arc<Policy>,
}

/// Organisation and workspace to which the records of a request must belong. `None` allows any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Organisation, which is set on records that name none.
    pub organisation: Option<String>,
    /// Workspace, which is set on records that name none.
    pub workspace: Option<String>,
}

impl Owner {
    /// Assigns a record to the owner. Refuses a record that names another owner.
    pub fn take(&self, record: &mut Record) -> Result<(), FieldError> {
        self.take_fields(&mut record.organisation_id, &mut record.workspace_slug)
    }

    /// Does the same as [`Owner::take`] for the two fields that name an owner.
    pub fn take_fields(
        &self,
        organisation: &mut Option<String>,
        workspace: &mut Option<String>,
    ) -> Result<(), FieldError> {
        own("organisation_id", organisation, self.organisation.as_deref())?;
        own("workspace_slug", workspace, self.workspace.as_deref())
    }
}

fn own(
    field: &'static str,
    value: &mut Option<String>,
    owner: Option<&str>,
) -> Result<(), FieldError> {
    let Some(owner) = owner else { return Ok(()) };
    match value.as_deref().filter(|value| !value.is_empty()) {
        Some(named) if named != owner => {
            let expected = format!("`{owner}`, to which the API key is bound, or no value");
            Err(FieldError::silent(field, expected).because(Reason::NotAllowed))
        }
        _ => {
            *value = Some(owner.to_owned());
            Ok(())
        }
    }
}

impl Context {
    /// Returns the context of a request without headers, under the default policy.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            now,
            trace: None,
            headers: Headers::default(),
            owner: Owner::default(),
            policy: Policy::shared(),
        }
    }

    /// Returns the metadata of the headers, limited to what one record may have, since it is copied
    /// into each record.
    fn overlay(&self) -> Vec<(String, String)> {
        self.headers.metadata.as_deref().map(fields::shared_tags).unwrap_or_default()
    }

    /// Returns true if the client asked that no content be kept.
    pub fn is_untracked(&self) -> bool {
        self.headers.debug.as_deref().is_some_and(is_off)
    }
}

macro_rules! headers {
    ($($field:ident: $name:literal,)*) => {
        /// The `x-portkey-*` headers that describe the records of a request.
        #[derive(Clone, Default, PartialEq, Eq, Hash)]
        pub struct Headers {
            $(#[doc = concat!("`", $name, "`")] pub $field: Option<String>,)*
        }

        impl Headers {
            /// Reads every header that is present and not empty.
            pub fn read(mut value: impl FnMut(&str) -> Option<String>) -> Self {
                Self { $($field: value($name).filter(|text| !text.is_empty()),)* }
            }

            /// Returns the maximum number of bytes that the headers add to a record.
            pub fn bytes(&self) -> usize {
                0 $(+ self.$field.as_ref().map_or(0, String::len))*
            }

            /// Shortens headers, which are copied into each record of the request.
            ///
            /// A header that is longer than any column keeps one byte more than the limit, so that
            /// records are still refused, or stored without the value. The metadata keeps its
            /// length.
            pub fn cut(mut self) -> Self {
                let metadata = self.metadata.take();
                $(if let Some(text) = &mut self.$field {
                    text.truncate(text.floor_char_boundary(MAX_HEADER_BYTES));
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
        // A config may hold provider keys, and metadata may name people.
        f.write_str("Headers { .. }")
    }
}

/// Reads the records of a chunk. Good records go to the sink, in order and complete; bad ones are
/// returned as rejections.
pub fn read(
    shape: SourceFormat,
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
                context
                    .owner
                    .take(&mut record)
                    .and_then(|()| context.policy.limit(&mut record))
                    .map(|()| record)
            });
            match owned {
                Ok(mut record) => {
                    complete(&mut record, context, new_id);
                    sink(record);
                }
                Err(error) => {
                    let rejection = looked_at(number, error, text, context, rejections.len());
                    rejections.push(rejection.in_line(lines.number_at(range.start)));
                }
            }
            number += 1;
        };
        match read {
            Err(error) => {
                let expected =
                    format!("UTF-8 text (byte {} of the record is not)", error.valid_up_to());
                take(Err(FieldError::silent("json", expected)), new_id);
            }
            Ok(text) => match shape {
                SourceFormat::Native => take(read_native(text, context), new_id),
                SourceFormat::Portkey => portkey.read(&finite(text), new_id, &mut take),
                SourceFormat::LiteLlm => take(litellm::read(&finite(text), context), new_id),
                SourceFormat::GatewayHook => {
                    take(hook::read(&finite(text), context, new_id), new_id)
                }
                SourceFormat::Otlp => {
                    otlp::read(&finite(text), &overlay, context, new_id, &mut take)
                }
            },
        }
    }
    rejections.sort_by_key(|rejection| rejection.record);
    rejections
}

/// Reads a native record. No valid text has a number that [`finite`] replaces, so only a refused
/// text is searched for them.
fn read_native(text: &str, context: &Context) -> Result<Record, FieldError> {
    native::read(text, context).or_else(|error| match finite(text) {
        Cow::Owned(finite) => native::read(&finite, context),
        Cow::Borrowed(_) => Err(error),
    })
}

/// Builds a rejection with what the text says about the record. Only the first rejections of a
/// chunk get an excerpt, since an excerpt costs as much as reading the record.
fn looked_at(
    number: u64,
    error: FieldError,
    text: &str,
    context: &Context,
    before: usize,
) -> Rejection {
    if error.seen.is_some() {
        return Rejection::new(number, error);
    }
    let seen = if before < EXCERPTS_AT_ONCE {
        seen(text, &error, context)
    } else if context.owner.organisation.is_some() {
        Seen::default()
    } else {
        whose(text)
    };
    Rejection::new(number, error.seen(seen))
}

/// Reads a whole request: lines, a JSON array, one object, or several objects in sequence.
pub fn lines(
    shape: SourceFormat,
    text: &[u8],
    context: &Context,
    new_id: &mut dyn FnMut() -> String,
) -> (Vec<Record>, Vec<Rejection>) {
    let mut splitter = Splitter::new();
    let mut records = Vec::new();
    let mut rejections = Vec::new();
    let trace =
        context.trace.clone().or_else(|| (shape == SourceFormat::Portkey).then(&mut *new_id));
    let context = Context { trace, ..context.clone() };
    for chunk in [splitter.push(text), splitter.finish()] {
        rejections
            .extend(read(shape, &chunk, &context, new_id, &mut |record| records.push(record)));
    }
    (records, rejections)
}

/// Fills in the id and the organisation of a record.
pub(crate) fn identify(record: &mut Record, new_id: impl FnOnce() -> String) {
    if record.id.as_deref().is_none_or(str::is_empty) {
        record.id = Some(new_id());
    }
    if record.organisation_id.as_deref().is_none_or(str::is_empty) {
        record.organisation_id = Some(DEFAULT_ORGANISATION.to_owned());
    }
}

/// Fills in the id, organisation and time that every record has, and removes what must not be
/// stored.
pub fn complete(record: &mut Record, context: &Context, new_id: &mut dyn FnMut() -> String) {
    identify(record, new_id);
    record.created_at.get_or_insert(context.now);
    if context.is_untracked() {
        record.do_not_track = Some(true);
    }
    context.policy.protect(record);
}

/// Returns true if a value of `x-portkey-debug` asks that no content be kept.
fn is_off(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("false")
}

/// Returns the error without the client's values if the call is not to be tracked: a bad record may
/// hold content in any place.
fn discreet(error: FieldError, text: &str, context: &Context) -> FieldError {
    let untracked = context.is_untracked()
        || match members(text) {
            None => text.contains("do_not_track"),
            Some(fields) => fields.iter().any(|(key, raw)| {
                key == "do_not_track"
                    && !matches!(*raw, "false" | "0" | "null" | "\"false\"" | "\"0\"" | "\"\"")
            }),
        };
    if !untracked {
        return error;
    }
    match crate::record::column(&error.field) {
        Some(column) => FieldError::silent(column.name, error.expected).because(error.reason),
        None => {
            let expected =
                "a valid record; the details are not shown, because the call is not tracked";
            FieldError::silent("json", expected).because(error.reason)
        }
    }
}
