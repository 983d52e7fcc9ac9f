//! Limits of what all requests share, and the share of one organisation.
//!
//! [`table`] lists them all. [`Pool`] is how a counted resource is shared; what is remembered, not held, is shared by whoever has
//! most of it forgetting first ([`crate::dedupe`], [`crate::halves`]).

mod days;
mod pool;
pub mod table;

pub use days::{Days, cut, cut_at};
pub use pool::{Full, Holder, Pool, Room, Share};

/// Connections that are open at once; below the usual limit of 1,024 open files.
pub const CONNECTIONS: usize = 768;
/// Requests that are answered at once; fewer than [`CONNECTIONS`], so that a new connection always finds one that is idle.
pub const REQUESTS: u64 = 512;
/// Bodies that are taken piece by piece at once.
pub const STREAMS: u64 = 64;
/// Exports that are read at once.
pub const EXPORTS: u64 = 16;
/// Files of export jobs that are read at once.
pub const DOWNLOADS: u64 = 16;
/// Replays that run at once.
pub const REPLAYS: u64 = 16;
/// Days of which rows of one organisation are in memory. A memtable ends at so many days of all
/// organisations, since a flush writes one file or more for each: about three seconds of work.
pub const DAYS: usize = 1_000;
