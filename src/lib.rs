//! gatelog is the log engine for LLM gateways. It stores a record of every call as Parquet in a
//! Delta table, answers SQL queries over the records, and exports them as JSON lines.
//!
//! # The path of a record
//!
//! ```text
//! HTTP or CLI -> ingest (any format -> Record) -> wal (fsync, ack) -> memtable (visible to SQL)
//!   -> flush (one sorted Parquet file a partition, one Delta commit) -> table `logs`
//!   -> maintain: expire, compact, vacuum, checkpoint
//! SQL, reports and exports read one View: table files and the newer rows, swapped in one step
//! ```
//!
//! Feedback takes the same path through the same log into its own table. A record that arrives in
//! parts waits for the rest between log and memtable ([`engine::RecordPart`]); queries see it in
//! the meantime.
//!
//! # Invariants
//!
//! 1. **An acknowledged record is never lost.** [`Engine::append`] returns after the log frame with
//!    the record is fsynced.
//! 2. **Exactly once.** The table has each record once, after a crash, a replay, and a client that
//!    repeats an `id` within a day: a flush commits the last sequence number of the log together
//!    with the files, and replay starts after it. Feedback that is sent again is a new state of the
//!    same feedback; the latest state counts.
//! 3. **Visible at once, and once.** A query reads one View, which has every acknowledged record
//!    exactly once.
//! 4. **Damage is an error, never a gap.** A write that was interrupted before its acknowledgement
//!    is dropped at the next open. Damage before that point stops the open with an error that names
//!    file and offset. After a failed fsync, writes are refused until a restart. A write that fails
//!    earlier, for example on a full disk, is rolled back. A commit without a response is retried
//!    until its outcome is known; until then nothing else changes the results of queries. Data of
//!    an earlier process counts as durable only after this process has synced or rewritten it.
//!    Every byte of a data file is covered by a checksum that reads verify (`datafile`). No byte of
//!    a client is ever read as structure of the log ([`wal`]).
//! 5. **A tenant sees only its own rows.** The scope of the key and the retention of the plan are
//!    enforced below SQL (`query::security_barrier`), and no expression of a statement is evaluated
//!    on a row of another tenant. SQL has no access to files and URLs, and writes nothing.
//! 6. **Memory is bounded.** Rows in memory, queries, exports and request bodies each have a
//!    budget, and each organisation has a share of it (`limits`). When a budget is used up, a
//!    request waits for a while and is then refused with kind [`ErrorKind::Busy`].
//! 7. **Time, ids and randomness are arguments** ([`engine::EngineBuilder`]).
//! 8. **Nothing private is logged**: gatelog's own logs and errors contain no bodies, keys or
//!    header values. Only the user of the process can read the files. One list (`store::places`)
//!    has every place with rows of clients, and the effect of an erasure on it.
//! 9. **A log belongs to one store and one running node.** A log is not used with a copy of its
//!    store (`engine::identity`), and no second node opens it (`engine::claim`). If a copy of a log
//!    was left behind, its records are adopted by id instead of flushed by sequence number
//!    (`engine::adopt`).
//!
//! # Reading order
//!
//! The modules below are in order of dependency: a file imports only from files below it (a test
//! checks this). Begin with [`record`], then `wal`, `view`, `flush`, `query` and [`engine`].
//!
//! # Example
//!
//! ```
//! use futures::TryStreamExt;
//! use gatelog::{Config, Engine, ExportRequest, Params, Record};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().display().to_string();
//! let engine = Engine::open(Config { data: path, ..Config::default() }).await?;
//!
//! let record = Record { ai_model: Some("gpt-4o".into()), total_units: Some(120), ..Record::default() };
//! let receipt = engine.append(vec![record]).await?; // on the disk when this returns
//! assert_eq!(receipt.accepted, 1);
//!
//! let answer = engine.sql("select ai_model, sum(total_units) from logs group by 1", &Params::new()).await?;
//! let batches: Vec<_> = answer.batches.try_collect().await?;
//! assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
//!
//! let columns = Some(vec!["ai_model".to_owned(), "total_units".to_owned()]);
//! let lines = engine.export(&ExportRequest { columns, ..ExportRequest::default() }).await?;
//! let lines: Vec<_> = lines.try_collect().await?;
//! assert_eq!(lines.concat(), b"{\"ai_model\":\"gpt-4o\",\"total_units\":120}\n");
//!
//! engine.close().await?;
//! # Ok(())
//! # }
//! ```

// The list of public items in `tests/it/public_api.txt` relies on it.
#![warn(unreachable_pub)]
// Without the server, nothing calls what only its routes need.
#![cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]

#[cfg(feature = "server")]
pub mod http;
pub mod engine;
pub mod copy;
mod maintain;
pub mod analytics;
pub mod reports;
mod export;
pub mod logs;
mod replay;
mod query;
mod flush;
mod view;
mod datafile;
#[doc(hidden)]
pub mod table;
mod dedupe;
mod memtable;
#[doc(hidden)]
pub mod wal;
pub mod refusals;
mod usage;
mod catalog;
mod plan;
pub mod ingest;
mod parts;
pub mod record;
#[doc(hidden)]
pub mod store;
pub mod encode;
mod heavy_work;
#[doc(hidden)]
pub mod limits;
pub mod guide;
mod clock;
mod threads;
pub mod config;
pub mod time;
pub mod error;
pub mod nearest;

pub use config::Config;
pub use engine::{
    Answer, AppendError, Engine, EngineBuilder, ExportCursor, ExportRequest, Job, Params, Reader,
    Receipt,
};
pub use error::{Error, ErrorKind, Result};
pub use record::Record;
pub use store::Store;
