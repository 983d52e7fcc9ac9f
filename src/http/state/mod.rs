//! State that handlers and middleware share: [`App`] and what it holds.

pub(crate) mod gateway;
pub(crate) mod guesses;
pub(crate) mod metrics;
pub(crate) mod places;
pub(crate) mod retry_detection;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use self::gateway::Gateway;
use self::guesses::Guesses;
use self::metrics::Metrics;
use self::places::AllPlaces;
use self::retry_detection::Resends;
use crate::catalog::Access;
use crate::engine::Engine;
use crate::http::route::Route;
use crate::limits::{MemoryReservation, Pool, Share};

/// State that every handler receives.
pub(crate) struct App {
    pub(crate) engine: Engine,
    /// All routes of the server.
    pub(crate) routes: Vec<Route>,
    /// The serialised API document, made at the first request for it.
    pub(crate) document: OnceLock<Bytes>,
    pub(crate) metrics: Arc<Metrics>,
    /// Memory in bytes for request bodies and what is parsed from them.
    pub(crate) bodies: Pool,
    pub(crate) places: AllPlaces,
    pub(crate) resends: Resends,
    pub(crate) guesses: Guesses,
    /// Held by a request that reads stored feedback to decide which states to store.
    pub(crate) feedback_turn: Mutex<()>,
    pub(crate) gateway: Gateway,
    /// Handlers that run to their end, even without a client.
    pub(crate) handlers: TaskTracker,
    pub(crate) closing: AtomicBool,
}

impl App {
    pub(crate) fn new(engine: Engine, routes: Vec<Route>) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new(engine.clone()));
        let bodies = engine.config().body_memory_bytes;
        let gateway = Gateway::new(engine.config());
        let places = AllPlaces::new(engine.config());
        Arc::new(Self {
            engine,
            routes,
            document: OnceLock::new(),
            metrics,
            bodies: Pool::new(bodies, Share::ThreeQuarters),
            places,
            resends: Resends::default(),
            guesses: Guesses::default(),
            feedback_turn: Mutex::new(()),
            gateway,
            handlers: TaskTracker::new(),
            closing: AtomicBool::new(false),
        })
    }

    /// Returns an empty room for the body of a key's request.
    pub(crate) fn room(&self, access: &Access) -> MemoryReservation {
        self.bodies.room(&access.holder())
    }
}
