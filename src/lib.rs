//! gatelog: the log engine for LLM gateways.
#[doc(hidden)]
pub mod cli;
pub mod http;
pub mod engine;
mod maintain;
pub mod reports;
mod export;
mod query;
mod flush;
mod view;
mod datafile;
pub mod table;
mod dedupe;
mod memtable;
mod wal;
mod catalog;
mod plan;
pub mod ingest;
pub mod record;
pub mod store;
pub mod config;
pub mod error;
