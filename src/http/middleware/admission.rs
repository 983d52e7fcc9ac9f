//! Admission of requests, and values that are held until a response was sent.
//!
//! Every request holds a place from its headers to the last byte of its response ([`admit`]). The
//! health and metrics routes need no place, so they answer under any load.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::catalog::Access;
use crate::http::body::discard;
use crate::http::error::Failure;
use crate::http::state::App;
use crate::limits::Holder;

/// Routes that need no place.
pub(crate) const ALWAYS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];

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
