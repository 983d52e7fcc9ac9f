//! Limits of the resources that all requests share, and the share of one organisation.
//!
//! [`table`] lists all limits. [`Pool`] divides a counted resource. For remembered values, such as
//! ids, the organisation with the most of them forgets its oldest ones first ([`crate::dedupe`],
//! [`crate::parts`]).

mod days;
mod pool;
pub mod table;

pub(crate) use days::day_of;
pub use days::{DAYS, Days, cut, cut_at};
pub use pool::{Full, Holder, MemoryReservation, Pool, Share};

/// Most open connections; below the usual limit of 1,024 open files.
pub const CONNECTIONS: usize = 768;
/// Most requests that are answered at once; fewer than [`CONNECTIONS`], so that an idle connection
/// can always be closed for a new one.
pub const REQUESTS: u64 = 512;
/// Most bodies that are streamed at once.
pub const STREAMS: u64 = 64;
/// Most exports that are streamed at once.
pub const EXPORTS: u64 = 16;
/// Most files of export jobs that are downloaded at once.
pub const DOWNLOADS: u64 = 16;
/// Most replays that run at once.
pub const REPLAYS: u64 = 16;
