//! Refusals: data from clients that was not accepted. They can be looked up because some routes
//! answer `ok` to everything.
//!
//! Every refusal goes through [`Refusals::note`], which counts it by source and reason, logs it at
//! a bounded rate and adds it to a bounded list ([`book`]) with time, source, field, reason and an
//! excerpt that quotes no content. Each node keeps its list in memory and regularly writes it to a
//! file of its own in the store ([`file`]), where commands and other nodes read it. The file is
//! written in the background: a crash loses the refusals of the last seconds, never a record. The
//! list of an organisation is deleted with the organisation. An erasure of some of its records
//! deletes the excerpts, because they may quote the erased user.

mod book;
mod file;
mod list;
mod log_lines;
mod refusal;
mod shown;

#[cfg(test)]
mod tests;

pub use file::{WRITE_SECONDS, read_all};
pub use list::{Figures, Refusals, Refused, Sender};
pub use refusal::{Refusal, Source};
pub use shown::{Ask, MAX_SHOWN, Shown, shown};
