//! The error type of the crate: a kind, a message and a cause.
//!
//! The kind tells the caller what to do; the message names the thing and its value. No message
//! contains a body, a key or a header value. This module knows neither HTTP nor exit codes: `http`
//! and `cli` map a kind to a status or a code in one place each.

use std::error::Error as StdError;
use std::fmt;

/// Result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of an [`Error`]. Each kind tells the caller what to do; adding one is a design decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong and fails again if it is repeated: correct it.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The key is missing or unknown, or does not permit this.
    Denied,
    /// The named thing is in a state that does not allow this: read its state, and request what the
    /// state allows.
    Conflict,
    /// A budget or the queue is full: wait a moment and send again. Nothing of the request was
    /// kept.
    Busy,
    /// The work exceeded its limit of time, rows or memory: ask for less, or raise the limit.
    Limit,
    /// A stored file is damaged or was changed by another program: `gatelog doctor` lists the
    /// options.
    Damaged,
    /// The disk or the object store failed, or an earlier failure closed the engine to writes: see
    /// the message.
    Storage,
    /// The engine is closed or closing.
    Closed,
    /// A defect of gatelog: report it.
    Internal,
}

/// An error with a kind, a message and an optional cause.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Longest text, in bytes, that is too short to be searched for in a cause.
const SHORT: usize = 12;

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {$(
        #[doc = concat!("Creates an error of kind [`ErrorKind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    /// Creates an error of the given kind, without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    constructors! {
        invalid => Invalid, not_found => NotFound, denied => Denied, conflict => Conflict,
        busy => Busy, limit => Limit,
        damaged => Damaged, storage => Storage, closed => Closed, internal => Internal,
    }

    /// Returns the error with a cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the kind, which tells the caller what to do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the message alone, without the chain of causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the message and every cause behind it, joined by `: `, without repetitions: in many
    /// libraries an error repeats the text of its cause, or the other way round.
    pub fn chain(&self) -> String {
        let mut texts = vec![self.message.clone()];
        let mut cause = StdError::source(self);
        while let Some(next) = cause {
            add_once(&mut texts, &next.to_string());
            cause = next.source();
        }
        texts.join(": ")
    }
}

/// Adds the text of a cause unless the chain already contains it. Replaces a piece that the text
/// contains.
fn add_once(texts: &mut Vec<String>, next: &str) {
    let words = next.trim();
    if words.is_empty() || texts.iter().any(|piece| piece.contains(words)) {
        return;
    }
    // A short text, such as a name alone, may occur in a longer one by chance.
    match texts.iter().position(|piece| piece.len() > SHORT && words.contains(piece.as_str())) {
        Some(at) => texts[at] = words.to_owned(),
        None => texts.push(words.to_owned()),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::storage("input or output failed").with_source(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let error =
            Error::storage("cannot sync `a.wal`").with_source(std::io::Error::other("disk full"));
        assert_eq!(error.chain(), "cannot sync `a.wal`: disk full");
        let outer = Error::closed("closed to writes: disk full")
            .with_source(std::io::Error::other("disk full"));
        assert_eq!(outer.chain(), "closed to writes: disk full");
    }

    /// A cause whose text repeats that of its own cause, as in many libraries.
    #[derive(Debug)]
    struct Wrapper(&'static str, std::io::Error);

    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}: {}", self.0, self.1)
        }
    }

    impl StdError for Wrapper {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn a_chain_says_nothing_twice() {
        let refused = || std::io::Error::other("connection refused by 127.0.0.1");
        let wrapped =
            Error::storage("cannot read").with_source(Wrapper("request failed", refused()));
        assert_eq!(wrapped.chain(), "cannot read: request failed: connection refused by 127.0.0.1");
        let inside = Error::storage("request failed: connection refused by 127.0.0.1; try again")
            .with_source(refused());
        assert_eq!(inside.chain(), "request failed: connection refused by 127.0.0.1; try again");
        let repeated =
            Error::storage("request failed").with_source(Wrapper("request failed", refused()));
        assert_eq!(repeated.chain(), "request failed: connection refused by 127.0.0.1");
        let nested = Error::storage("cannot flush")
            .with_source(Error::storage("cannot flush").with_source(refused()));
        assert_eq!(nested.chain(), "cannot flush: connection refused by 127.0.0.1");
    }
}
