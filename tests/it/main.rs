//! Tests of the whole, through its interfaces: one binary, for each links the query engine again.

mod cli;
mod engine;
mod faults;
mod http;
mod layers;
