//! Tests of the whole, through its interfaces: one binary, for each links the query engine again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a test that cannot go on says so by panicking"
)]

mod access;
mod catalog;
mod cli;
mod copy;
mod engine;
mod exports;
mod faults;
mod http;
mod identity;
mod import_bucket;
mod isolation;
mod layers;
mod odd_names;
mod parts;
mod places;
mod plans;
mod requests;
mod s3;
mod weed;
