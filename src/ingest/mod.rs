//! Reads any client's format into [`Record`]s, or into a rejection that names the record, the field
//! and the expected value.
//!
//! A request or file goes through a [`Splitter`], which finds the records in a stream of bytes.
//! Each [`Chunk`] of whole records then goes through [`read`]. A bad record never causes the
//! rejection of a good one in the same request. [`Policy`] removes what must not be stored before
//! anything is written: content of calls that are not tracked, keys, and values that redaction
//! rules name.

pub(crate) mod arrow;
mod context;
pub mod control_plane;
mod excerpt;
pub mod feedback;
mod fields;
mod hook;
mod limits;
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
mod rejection;
mod split;
mod targets;
mod usage;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::record::Record;
use crate::record::json::{FieldError, Seen, finite};

pub use context::{Context, Headers, Owner};
pub use excerpt::{seen, whose};
use limits::EXCERPTS_AT_ONCE;
pub use limits::{MAX_MADE_BYTES, MAX_RECORDS, RECORD_BYTES, made_bytes};
pub use policy::Policy;
pub use rejection::Rejection;
pub use split::{Chunk, Splitter};

/// Organisation of a record that names none.
pub const DEFAULT_ORGANISATION: &str = "default";

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
