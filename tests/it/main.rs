//! Tests of the whole, through its interfaces: one binary, for each links the query engine again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a test that cannot go on says so by panicking"
)]

mod access;
mod answers;
mod catalog;
mod cli;
mod conflict;
mod copies;
mod copy;
mod damage;
mod durable;
mod engine;
mod exports;
mod faults;
mod files;
mod forgetful;
mod guide;
mod http;
mod identity;
mod import_bucket;
mod isolation;
mod layers;
mod memory;
mod models;
mod odd_names;
mod parts;
mod places;
mod plans;
mod public_api;
mod refusals;
mod requests;
mod s3;
mod said;
mod seaweedfs;
mod style;
mod withheld;
