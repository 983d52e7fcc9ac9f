//! The server around the router: limited connections, and an ordered shutdown.
//!
//! A connection is dropped if its client does not finish a header in time, sends a body or reads a
//! response too slowly, or if it is idle and another connection needs its place. The shutdown has
//! four steps: accept no more connections; finish requests in progress, for a limited time; cut the
//! remaining connections visibly; flush and close the engine.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::error::Result;
use crate::http::middleware::admission::held_by;
use crate::http::middleware::connections::{Connections, Place};
use crate::http::middleware::write_timeout::WriteTimeout;
use crate::http::router::service;
use crate::http::state::guesses::Peer;
use crate::http::state::retry_detection::Connection;
use crate::limits::CONNECTIONS;

/// Time limit for the headers of the first request on a new connection.
const FIRST_HEADER_SECONDS: u64 = 20;
/// Maximum number of received bytes that a connection buffers. Larger request headers are refused
/// with 431.
const BUFFER_BYTES: usize = 128 << 10;
/// Time limit for idling between requests and for the headers of the next one.
const HEADER_SECONDS: u64 = 75;
/// Time for which a client may leave a response unread.
const UNREAD_SECONDS: u64 = 60;
/// Time for which the shutdown waits for requests in progress.
const DRAIN_SECONDS: u64 = 30;
/// Time for which the shutdown waits for cut connections to release their resources.
const ABORT_SECONDS: u64 = 5;
/// Pause after a failed accept. The cause is almost always too many open files.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Serves until `shutdown` is ready, then shuts down in order and closes the engine.
pub async fn serve(
    engine: Engine,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let (app, router) = service(engine.clone());
    let server = Server::new(router);
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening");
    }
    tokio::select! {
        () = server.accept(&listener) => {}
        () = shutdown => {}
    }
    app.closing.store(true, Ordering::Relaxed);
    drop(listener);
    tracing::info!("shutdown 1 of 4: accepting no more connections");
    server.drain().await;
    app.handlers.close();
    if tokio::time::timeout(Duration::from_secs(ABORT_SECONDS), app.handlers.wait()).await.is_err()
    {
        tracing::warn!(
            handlers = app.handlers.len(),
            "requests whose clients had disconnected were still running"
        );
    }
    tracing::info!("shutdown 4 of 4: flushing and closing the engine");
    engine.close().await?;
    tracing::info!("closed");
    Ok(())
}

/// The connections of one server.
struct Server {
    router: Router,
    stop: CancellationToken,
    connections: TaskTracker,
    abort: CancellationToken,
    open: Connections,
}

impl Server {
    fn new(router: Router) -> Self {
        Self {
            router,
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
            abort: CancellationToken::new(),
            open: Connections::new(CONNECTIONS),
        }
    }

    /// Accepts connections until it is cancelled.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => match self.open.admit(address.ip()) {
                    Some(place) => self.spawn(stream, address.ip(), place),
                    None => {
                        tracing::debug!(
                            connections = CONNECTIONS,
                            "all connections are busy; a new one was dropped"
                        )
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: IpAddr, place: Arc<Place>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let router = TowerToHyperService::new(self.router.clone());
        let own = Connection::default();
        let here = Arc::clone(&place);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(own.clone());
            request.extensions_mut().insert(Peer(peer));
            let answering = here.answering();
            let answer = router.call(request);
            async move { answer.await.map(|response| held_by(response, answering)) }
        });
        let io = TokioIo::new(WriteTimeout::new(stream, Duration::from_secs(UNREAD_SECONDS)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(HEADER_SECONDS))
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(io, service);
        let stop = self.stop.clone();
        let abort = self.abort.clone();
        self.connections.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = place.gone.cancelled() => Ok(()),
                () = no_request(&place) => Ok(()),
                () = stop.cancelled() => {
                    // An idle connection ends at once, another one after its current response.
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = abort.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }

    /// Waits for requests in progress, then cuts the remaining connections.
    async fn drain(self) {
        self.connections.close();
        self.stop.cancel();
        tracing::info!(
            connections = self.connections.len(),
            "shutdown 2 of 4: finishing requests in progress"
        );
        let drained =
            tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS), self.connections.wait()).await;
        tracing::info!(
            connections = self.connections.len(),
            "shutdown 3 of 4: cutting the remaining connections"
        );
        self.abort.cancel();
        if drained.is_err() {
            tracing::warn!(seconds = DRAIN_SECONDS, "requests did not finish in time and were cut");
        }
        let gone =
            tokio::time::timeout(Duration::from_secs(ABORT_SECONDS), self.connections.wait()).await;
        if gone.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "connections did not close in time"
            );
        }
    }
}

/// Completes if a new connection sent no request in time.
async fn no_request(place: &Place) {
    tokio::time::sleep(Duration::from_secs(FIRST_HEADER_SECONDS)).await;
    if !place.is_fresh() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn half_headers_leave_room_for_a_new_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/healthz", get(|| async { "ok" }));
        let server = Server { open: Connections::new(4), ..Server::new(router) };
        let serving = tokio::spawn(async move { server.accept(&listener).await });
        let mut halves = Vec::new();
        for _ in 0..12 {
            let mut half = TcpStream::connect(address).await.unwrap();
            half.write_all(b"GET /healthz HTTP/1.1\r\nHost").await.unwrap();
            halves.push(half);
        }
        for _ in 0..3 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        }
        // The oldest connections were dropped.
        let mut nothing = Vec::new();
        let _ = halves[0].read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
        serving.abort();
    }
}
