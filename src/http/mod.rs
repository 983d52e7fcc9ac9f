//! The HTTP server: every route on this screen, one file a resource.
//!
//! Handlers decode, call the engine and encode; no rule of the product lives here. Around all of them, outermost first: an id
//! and a count ([`observe`]), an answer for a panic, and the key ([`auth`]). Every failure, a wrong route and a wrong method
//! included, has the one envelope ([`error`]). [`router`] is apart from [`serve`], so that
//! tests and programs that embed the server drive it without a socket.

mod answer;
mod auth;
mod body;
mod error;
mod export;
mod feed;
pub mod format;
mod health;
mod ingest;
mod input;
mod intake;
mod logs;
mod metrics;
mod observe;
mod reports;
mod serve;
mod shape;
mod sql;
mod stall;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use self::body::Budget;
use self::error::Failure;
use self::metrics::Metrics;
use crate::engine::Engine;

pub use serve::serve;

/// The least memory set aside for bodies of requests; four times the largest record where that is more.
const BODY_BUDGET_BYTES: u64 = 256 << 20;

/// Bodies that are streamed in at once: each has a thread, which waits for its client.
const STREAMS: usize = 64;

/// What every handler is given.
pub(crate) struct App {
    engine: Engine,
    metrics: Arc<Metrics>,
    bodies: Budget,
    streams: Semaphore,
    closing: AtomicBool,
}

impl App {
    fn new(engine: Engine) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new(engine.clone()));
        let bodies = Budget::new(BODY_BUDGET_BYTES.max(engine.config().max_record_bytes.saturating_mul(4)));
        let (streams, closing) = (Semaphore::new(STREAMS), AtomicBool::new(false));
        Arc::new(Self { engine, metrics, bodies, streams, closing })
    }
}

/// The service of an engine.
pub fn router(engine: Engine) -> Router {
    routes(App::new(engine))
}

fn routes(app: Arc<App>) -> Router {
    let with_key = Router::new()
        .route("/v1/logs", post(logs::insert))
        .route("/v1/ingest", post(ingest::ingest))
        .route("/v1/sql", get(sql::get).post(sql::post))
        .route("/v1/reports", get(reports::list))
        .route("/v1/reports/{name}", get(reports::run))
        .route("/v1/export", get(export::get).post(export::post))
        .route("/metrics", get(metrics::show))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), auth::admin));
    let without_key = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .method_not_allowed_fallback(wrong_method);
    with_key
        .merge(without_key)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}

async fn unknown_route(uri: Uri) -> Failure {
    let routes = "/v1/logs, /v1/ingest, /v1/sql, /v1/reports, /v1/export, /healthz, /readyz, /metrics";
    Failure::new(StatusCode::NOT_FOUND, format!("route `{}` does not exist; the routes are {routes}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let message = format!("method {method} is not taken by `{}`; header `allow` names those that are", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
