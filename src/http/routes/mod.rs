//! The handlers, one file per resource. Only [`crate::http::router`] imports from here.

pub(crate) mod admin;
pub(crate) mod analytics;
pub(crate) mod control_plane;
pub(crate) mod docs;
pub(crate) mod export;
pub(crate) mod exports;
pub(crate) mod feedback;
pub(crate) mod health;
pub(crate) mod ingest;
pub(crate) mod insert;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod otlp;
pub(crate) mod refusals;
pub(crate) mod replay;
pub(crate) mod reports;
pub(crate) mod saved_filters;
pub(crate) mod share_links;
pub(crate) mod sql;
