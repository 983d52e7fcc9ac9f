//! The server around the router: connections with limits, and an end in a named order.
//!
//! A connection is dropped when its client sends no whole header for a while, pauses within a body, or stops reading. The end:
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
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guesses::Peer;
use super::resend::Connection;
use super::stall::Stall;
use super::{App, routes};
use crate::engine::Engine;
use crate::error::Result;

/// Connections served at once; more wait in the kernel's queue. Below the usual limit of 1,024 open files.
const MAX_CONNECTIONS: usize = 768;
/// How long a client may take for its headers, and how long a connection may idle between requests.
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
    free: Arc<Semaphore>,
}

impl Server {
    fn new(router: Router) -> Self {
        Self {
            router,
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
            abort: CancellationToken::new(),
            free: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Takes connections for ever.
    async fn accept(&self, listener: &TcpListener) {
        while let Ok(permit) = Arc::clone(&self.free).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => self.spawn(stream, peer.ip(), permit),
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: IpAddr, permit: tokio::sync::OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (router, own) = (TowerToHyperService::new(self.router.clone()), Connection::default());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(own.clone());
            request.extensions_mut().insert(Peer(peer));
            router.call(request)
        });
        let io = TokioIo::new(Stall::new(stream, Duration::from_secs(UNREAD_SECONDS)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(HEADER_SECONDS))
            .serve_connection(io, service);
        let (stop, abort) = (self.stop.clone(), self.abort.clone());
        self.connections.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
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
            drop(permit);
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
