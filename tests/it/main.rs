//! Tests of the whole, through its interfaces: one binary, for each links the query engine again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a test that cannot go on says so by panicking"
)]

mod cli;
mod engine;
mod faults;
mod http;
mod layers;
