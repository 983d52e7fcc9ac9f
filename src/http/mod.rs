//! The HTTP server.
//!
//! Handlers ([`routes`], one file per resource) decode, call the engine and encode; they contain no
//! business rules. The route table and the layers around it are in [`mod@router`]. All failures
//! have the same envelope ([`error`]), including unknown routes and unsupported methods.
//! [`router()`] is separate from [`serve()`], so that tests and programs that embed the server can
//! use it without a socket.
//!
//! Imports go one way: from [`mod@router`] to [`routes`], from there to [`ingest`], [`middleware`]
//! and [`state`], and from these to the files that know no server ([`error`], [`input`],
//! [`route`]). Nothing else imports from a route.

mod accept;
mod answer;
mod body;
#[cfg(test)]
mod deeds;
mod error;
mod ingest;
mod input;
mod log_response;
mod middleware;
mod named;
mod openapi;
mod organisation;
mod packed;
mod public_url;
mod route;
mod route_table;
mod router;
mod routes;
mod serve;
mod state;
mod stream_response;

pub use router::router;
pub use serve::serve;
