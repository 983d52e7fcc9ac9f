//! The one error of the crate: what kind it is, what happened, and what caused it.
//!
//! The kind tells the caller what to do; the message names the thing and its value. No message holds a body, a key or a
//! header value. This file knows neither HTTP nor exit codes: `http` and `cli` map a kind to a status or a code once.

use std::error::Error as StdError;
use std::fmt;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of an [`Error`], each of which says what the caller should do. Adding a kind is a design decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: correct it; the same request fails again.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The key is missing, unknown or may not do this.
    Denied,
    /// The thing named is in a state that does not allow this: look at it, and ask for what its state allows.
    Conflict,
    /// A budget or the queue is full: wait a moment and send again. Nothing of the request was kept.
    Busy,
    /// The work passed its limit of time, rows or memory: ask for less, or raise the limit.
    Limit,
    /// A stored file is damaged or was changed by another hand: `gatelog doctor` says what can be done.
    Damaged,
    /// The disk or the object store failed, or an earlier failure closed the engine to writes: see the message.
    Storage,
    /// The engine is closed or closing.
    Closed,
    /// A defect of gatelog: report it.
    Internal,
}

/// An error with its kind, a message and, where there is one, its cause.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Bytes of a text that is too short to be looked for in a cause.
const SHORT: usize = 12;

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {$(
        #[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        }
    )*};
}

impl Error {
    /// An error of the given kind, without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    constructors! {
        invalid => Invalid, not_found => NotFound, denied => Denied, conflict => Conflict, busy => Busy, limit => Limit,
        damaged => Damaged, storage => Storage, closed => Closed, internal => Internal,
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind, which says what the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message alone, without the chain of causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message and every cause behind it, joined by `: `, each said once: many libraries repeat
    /// in an error what its cause says, and the other way round.
    pub fn chain(&self) -> String {
        let mut said = vec![self.message.clone()];
        let mut cause = StdError::source(self);
        while let Some(next) = cause {
            say_once(&mut said, &next.to_string());
            cause = next.source();
        }
        said.join(": ")
    }
}

/// Adds what a cause says, unless it was said already; in the place of a piece that it says too.
fn say_once(said: &mut Vec<String>, next: &str) {
    let words = next.trim();
    if words.is_empty() || said.iter().any(|piece| piece.contains(words)) {
        return;
    }
    // Short words, such as a name alone, may stand in a longer text by chance.
    match said.iter().position(|piece| piece.len() > SHORT && words.contains(piece.as_str())) {
        Some(at) => said[at] = words.to_owned(),
        None => said.push(words.to_owned()),
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
        let error = Error::storage("cannot sync `a.wal`").with_source(std::io::Error::other("disk full"));
        assert_eq!(error.chain(), "cannot sync `a.wal`: disk full");
        let outer = Error::closed("closed to writes: disk full").with_source(std::io::Error::other("disk full"));
        assert_eq!(outer.chain(), "closed to writes: disk full");
    }

    /// A cause that says what its own cause says, as many libraries do.
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
        let wrapped = Error::storage("cannot read").with_source(Wrapper("request failed", refused()));
        assert_eq!(wrapped.chain(), "cannot read: request failed: connection refused by 127.0.0.1");
        let inside =
            Error::storage("request failed: connection refused by 127.0.0.1; try again").with_source(refused());
        assert_eq!(inside.chain(), "request failed: connection refused by 127.0.0.1; try again");
        let repeated = Error::storage("request failed").with_source(Wrapper("request failed", refused()));
        assert_eq!(repeated.chain(), "request failed: connection refused by 127.0.0.1");
        let nested = Error::storage("cannot flush").with_source(Error::storage("cannot flush").with_source(refused()));
        assert_eq!(nested.chain(), "cannot flush: connection refused by 127.0.0.1");
    }
}
