//! The server around the router: connections with limits, and an end in a named order.
//!
//! A connection is dropped when its client sends no whole header for a while, sends a body or reads an answer too slowly, or when
//! it is idle and others need its place. The end:
//! stop taking connections; answer what is held, for a while; break off what is left, visibly; flush and close the engine.

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

use super::connections::{Connections, Place};
use super::guesses::Peer;
use super::places::held_by;
use super::resend::Connection;
use super::stall::Stall;
use super::{App, routes};
use crate::engine::Engine;
use crate::error::Result;
use crate::limits::CONNECTIONS;

/// How long a new connection may take for the headers of its first request.
const FIRST_HEADER_SECONDS: u64 = 20;
/// How long a connection may idle between requests, and take for the headers of the next one.
const HEADER_SECONDS: u64 = 75;
/// How long a client may leave an answer unread.
const UNREAD_SECONDS: u64 = 60;
/// How long the end waits for requests that are being answered.
const DRAIN_SECONDS: u64 = 30;
/// How long broken-off connections may take to let go of what they hold.
const ABORT_SECONDS: u64 = 5;
/// The pause after a failed accept, which is almost always too many open files.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Serves until `shutdown` is ready, then ends in order and closes the engine.
pub async fn serve(engine: Engine, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
    let app = App::new(engine.clone());
    let server = Server::new(routes(Arc::clone(&app)));
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening");
    }
    tokio::select! {
        () = server.accept(&listener) => {}
        () = shutdown => {}
    }
    app.closing.store(true, Ordering::Relaxed);
    drop(listener);
    tracing::info!("shutdown 1 of 4: taking no more connections");
    server.drain().await;
    app.handlers.close();
    if tokio::time::timeout(Duration::from_secs(ABORT_SECONDS), app.handlers.wait()).await.is_err() {
        tracing::warn!(handlers = app.handlers.len(), "requests whose clients are gone were still being worked on");
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

    /// Takes connections for ever.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => match self.open.admit(address.ip()) {
                    Some(place) => self.spawn(stream, address.ip(), place),
                    None => {
                        tracing::debug!(connections = CONNECTIONS, "all connections are busy; a new one is dropped")
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
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
        let io = TokioIo::new(Stall::new(stream, Duration::from_secs(UNREAD_SECONDS)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(HEADER_SECONDS))
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
                    // An idle connection ends at once, another after the answer that it is giving.
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

    /// Waits for what is being answered, then breaks off what is left.
    async fn drain(self) {
        self.connections.close();
        self.stop.cancel();
        tracing::info!(connections = self.connections.len(), "shutdown 2 of 4: answering what is held");
        let drained = tokio::time::timeout(Duration::from_secs(DRAIN_SECONDS), self.connections.wait()).await;
        tracing::info!(connections = self.connections.len(), "shutdown 3 of 4: breaking off what is left");
        self.abort.cancel();
        if drained.is_err() {
            tracing::warn!(seconds = DRAIN_SECONDS, "requests were still being answered and were broken off");
        }
        let gone = tokio::time::timeout(Duration::from_secs(ABORT_SECONDS), self.connections.wait()).await;
        if gone.is_err() {
            tracing::warn!(connections = self.connections.len(), "connections did not end");
        }
    }
}

/// Ends when no request came on a new connection in time.
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
            client.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        }
        // The oldest were dropped.
        let mut nothing = Vec::new();
        let _ = halves[0].read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
        serving.abort();
    }
}
