//! The JSON form of a record, for reading and writing. Import, API answers and export share it.
//!
//! A record is one object on one line. Its keys are the columns of the table; `request` and
//! `response` are objects of raw JSON (`body`, `headers`), and `metadata` is an object of strings.
//! [`parse`] reads it, including the spellings that other tools produce (dotted keys, parallel
//! arrays, numbers as text). [`Encoder`] writes it from Arrow.
//!
//! Guarantees:
//!
//! - A body keeps the text that the client sent (digits, key order), without line breaks between
//!   its tokens.
//! - A key that is not a column is refused, so nothing is dropped silently.
//! - No input makes this code panic.
//! - For a record that came through [`parse`], encoding and parsing again give the same line.

mod decode;
mod doubled;
mod encode;
pub(super) mod field_error;
mod finite;
pub(super) mod reader;
pub(super) mod reason;
mod text;
pub(super) mod value;

#[cfg(test)]
mod tests;

pub use decode::{MAX_RECORD_BYTES, parse, read_batch};
pub use encode::{Encoder, column_of};
pub use field_error::FieldError;
pub use reason::{Reason, Seen};
pub use text::{MAX_DEPTH, check_json, embeddable};

pub(crate) use decode::{derive, too_large};
pub(crate) use doubled::KeyScan;
#[cfg(test)]
pub(crate) use doubled::last_keys;
pub(crate) use finite::finite;
pub(crate) use text::{Checks, next_special, unquote, value_end, write_string};
pub(crate) use value::{Read, keep_last, list, members};
