//! Layers around the handlers, and limits on connections.

pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod connections;
pub(crate) mod finish;
pub(crate) mod pace;
pub(crate) mod refusals;
pub(crate) mod telemetry;
pub(crate) mod write_timeout;
