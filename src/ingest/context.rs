//! Properties of a request that apply to all of its records: arrival time, headers, owner and
//! policy.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::fields;
use super::policy::Policy;
use crate::record::Record;
use crate::record::json::{FieldError, Reason};

/// Bytes of a header that are copied into records: one more than the longest text of a column.
const MAX_HEADER_BYTES: usize = (8 << 10) + 1;

/// Properties of a request other than its body.
#[derive(Clone, Debug)]
pub struct Context {
    /// Arrival time, for records that state no creation time.
    pub now: DateTime<Utc>,
    /// Trace id of records that name none. A caller that reads one request in several chunks sets
    /// it, so that the chunks share it. Without it each call of [`read`](super::read) generates its own.
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
    pub(super) fn overlay(&self) -> Vec<(String, String)> {
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

/// Returns true if a value of `x-portkey-debug` asks that no content be kept.
pub(super) fn is_off(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("false")
}
