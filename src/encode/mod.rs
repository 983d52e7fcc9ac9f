//! Output formats of rows, used alike by the HTTP server, the command line and exports.
//!
//! [`Writer`] encodes batches in a [`Format`]. It knows nothing of HTTP.

mod format;
mod formulas;
mod schema;
mod writer;

pub use format::Format;
pub use writer::Writer;
