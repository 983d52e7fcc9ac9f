//! Any client's shape to [`Record`]s, or a rejection that names the record, the field and what was expected.
//!
//! A request or file goes through a [`Splitter`], which finds the records in a stream of bytes, and each [`Chunk`] of whole
//! records through [`read`]. Bad records never cost the good ones beside them. A record that is told not to keep its
//! content loses it here, before anything is written.

mod mask;
mod native;
mod portkey;
mod split;
mod usage;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::Error;
use crate::record::json::FieldError;
use crate::record::{Message, Record};

pub use split::{Chunk, Splitter};

/// The organisation of a record that names none.
pub const DEFAULT_ORGANISATION: &str = "default";

/// A record that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Which record of the request, from 0.
    pub record: u64,
    /// The field, `json` where the text is not a JSON object at all.
    pub field: String,
    /// The beginning of its value; empty where it may be private.
    pub value: String,
    /// What was expected.
    pub expected: String,
}

impl Rejection {
    fn new(record: u64, error: FieldError) -> Self {
        Self { record, field: error.field, value: error.value, expected: error.expected }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, field, value, expected } = self;
        if value.is_empty() {
            write!(f, "record {record}: field `{field}`: expected {expected}")
        } else {
            write!(f, "record {record}: field `{field}` is `{value}`; expected {expected}")
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
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 2] = [Self::Native, Self::Portkey];

    /// Its name in flags and queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Portkey => "portkey",
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
        own("organisation_id", &mut record.organisation_id, self.organisation.as_deref())?;
        own("workspace_slug", &mut record.workspace_slug, self.workspace.as_deref())
    }
}

fn own(field: &'static str, value: &mut Option<String>, owner: Option<&str>) -> Result<(), FieldError> {
    let Some(owner) = owner else { return Ok(()) };
    match value.as_deref().filter(|value| !value.is_empty()) {
        Some(named) if named != owner => {
            Err(FieldError::silent(field, format!("`{owner}`, which the API key is bound to, or none")))
        }
        _ => {
            *value = Some(owner.to_owned());
            Ok(())
        }
    }
}

impl Context {
    /// A request without headers.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { now, trace: None, headers: Headers::default(), owner: Owner::default() }
    }
}

macro_rules! headers {
    ($($field:ident: $name:literal,)*) => {
        /// The `x-portkey-*` headers that say something about the records of a request.
        #[derive(Clone, Default, PartialEq, Eq)]
        pub struct Headers {
            $(#[doc = concat!("`", $name, "`")] pub $field: Option<String>,)*
        }

        impl Headers {
            /// Reads every header that is there and not empty.
            pub fn read(mut value: impl FnMut(&str) -> Option<String>) -> Self {
                Self { $($field: value($name).filter(|text| !text.is_empty()),)* }
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
    let mut portkey = portkey::Reader::new(context);
    for (first, range) in &chunk.records {
        let mut number = *first;
        let mut take = |read: Result<Record, FieldError>, new_id: &mut dyn FnMut() -> String| {
            match read {
                Ok(mut record) => match context.owner.take(&mut record) {
                    Ok(()) => {
                        complete(&mut record, context, new_id);
                        sink(record);
                    }
                    Err(error) => rejections.push(Rejection::new(number, error)),
                },
                Err(error) => rejections.push(Rejection::new(number, error)),
            }
            number += 1;
        };
        match str::from_utf8(&chunk.text[range.clone()]) {
            Err(error) => {
                let expected = format!("UTF-8 text (byte {} of the record is not)", error.valid_up_to());
                take(Err(FieldError::silent("json", expected)), new_id);
            }
            Ok(text) => match shape {
                Shape::Native => take(native::read(text), new_id),
                Shape::Portkey => portkey.read(text, new_id, &mut take),
            },
        }
    }
    rejections.sort_by_key(|rejection| rejection.record);
    rejections
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

/// Fills in what every record has: an id, an organisation and a time; and drops the content of one that must not be kept.
pub fn complete(record: &mut Record, context: &Context, new_id: &mut dyn FnMut() -> String) {
    if record.id.as_deref().is_none_or(str::is_empty) {
        record.id = Some(new_id());
    }
    if record.organisation_id.as_deref().is_none_or(str::is_empty) {
        record.organisation_id = Some(DEFAULT_ORGANISATION.to_owned());
    }
    record.created_at.get_or_insert(context.now);
    if context.headers.debug.as_deref().is_some_and(is_off) {
        record.do_not_track = Some(true);
    }
    if record.do_not_track == Some(true) {
        record.request = Message::default();
        record.response = Message::default();
    }
}

/// Whether a value of `x-portkey-debug` asks that no content be kept.
fn is_off(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("false")
}
