//! Limits on concurrent requests, streams, exports, downloads and replays: each has a total, and a
//! share that one organisation can hold.
//!
//! Every request holds a place from its headers to the last byte of its response ([`admit`]). A
//! streamed body, an export and a download hold one more. The health and metrics routes need no
//! place, so they answer under any load.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::App;
use super::body::discard;
use super::error::Failure;
use crate::catalog::Access;
use crate::error::Error;
use crate::limits::{self, Full, Holder, MemoryReservation, Pool, Share};

/// Routes that need no place.
pub(crate) const ALWAYS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];

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

impl Default for AllPlaces {
    fn default() -> Self {
        Self {
            requests: Places::new(limits::REQUESTS, "requests"),
            streams: Places::new(limits::STREAMS, "streamed bodies"),
            exports: Places::new(limits::EXPORTS, "exports"),
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

/// Middleware: takes a place for each request in the share of its organisation.
pub(crate) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if ALWAYS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let access = request.extensions().get::<Access>();
    let holder =
        access.map_or(Holder::Public, |access| Holder::new(access.organisation.as_deref()));
    match app.places.requests.take(&holder) {
        Ok(place) => held_by(next.run(request).await, place),
        Err(error) => {
            discard(&mut request.into_body().into_data_stream()).await;
            Failure::from(error).into_response()
        }
    }
}

/// Ties `held` to a response: it is dropped after the last byte was sent, or when the client
/// disconnects.
pub(crate) fn held_by<T: Send + Unpin + 'static>(response: Response, held: T) -> Response {
    response.map(|body| Body::new(Holding { body, _held: held }))
}

struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_organisation_leaves_places_of_each_kind() {
        let places = AllPlaces::default();
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
