//! Limits on concurrent requests, streams, exports, downloads and replays: each has a total, and a
//! share that one organisation can hold.
//!
//! Every request holds a place ([`crate::http::middleware::admission`]). A streamed body, an export
//! and a download hold one more.

use crate::config::Config;
use crate::error::Error;
use crate::limits::{self, Full, Holder, MemoryReservation, Pool, Share};

/// Export memory that justifies one more export at a time.
const MEMORY_AN_EXPORT: u64 = 4 << 20;
/// Minimum number of exports at a time.
const MIN_EXPORTS: u64 = 4;

/// The places of one kind.
#[derive(Debug)]
pub(crate) struct Places {
    pool: Pool,
    /// Description of the holders, for error messages.
    what: &'static str,
}

/// All places of a server.
#[derive(Debug)]
pub(crate) struct AllPlaces {
    /// Requests in progress.
    pub(crate) requests: Places,
    /// Bodies that are ingested as they arrive. Each has a thread, which waits for its client.
    pub(crate) streams: Places,
    /// Exports in progress.
    pub(crate) exports: Places,
    /// Downloads of export files in progress.
    pub(crate) downloads: Places,
    /// Replays in progress.
    pub(crate) replays: Places,
}

impl AllPlaces {
    pub(crate) fn new(config: &Config) -> Self {
        // An export holds the rows that were in memory at its start.
        let exports = config.export_memory_bytes / MEMORY_AN_EXPORT;
        Self {
            requests: Places::new(limits::REQUESTS, "requests"),
            streams: Places::new(limits::STREAMS, "streamed bodies"),
            exports: Places::new(exports.clamp(MIN_EXPORTS, limits::EXPORTS), "exports"),
            downloads: Places::new(limits::DOWNLOADS, "downloads of export files"),
            replays: Places::new(limits::REPLAYS, "replays"),
        }
    }
}

impl Places {
    fn new(places: u64, what: &'static str) -> Self {
        Self { pool: Pool::new(places, Share::Half), what }
    }

    /// Takes a place. Dropping the returned room frees it.
    pub(crate) fn take(&self, holder: &Holder) -> Result<MemoryReservation, Error> {
        self.pool.try_take(holder, 1).map_err(|full| {
            let whose = match full {
                Full::Share => "of this organisation ",
                Full::Pool | Full::Closed => "",
            };
            let what = self.what;
            Error::busy(format!(
                "too many {what} {whose}are in progress; try again when one has ended"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_organisation_leaves_places_of_each_kind() {
        let places = AllPlaces::new(&Config { export_memory_bytes: 1 << 30, ..Config::default() });
        let acme = Holder::new(Some("acme"));
        let zen = Holder::new(Some("zen"));
        for kind in
            [&places.requests, &places.streams, &places.exports, &places.downloads, &places.replays]
        {
            let mut held = Vec::new();
            let refused = loop {
                match kind.take(&acme) {
                    Ok(place) => held.push(place),
                    Err(error) => break error,
                }
            };
            assert!(refused.message().contains("of this organisation"), "{refused}");
            assert!(held.len() as u64 >= kind.pool.free(), "half of them");
            assert!(kind.take(&zen).is_ok(), "{}", kind.what);
        }
    }
}
