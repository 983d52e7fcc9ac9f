//! gatelog is the log engine for LLM gateways: it keeps a record of every call as Parquet in a
//! Delta table, answers SQL over the records, and streams them out as JSON lines.
//!
//! # The way of a record
//!
//! ```text
//! HTTP or CLI -> ingest (any client's shape -> Record) -> wal (fsync; the ack) -> memtable (visible to SQL at once)
//!   -> flush (one sorted Parquet file a partition, one Delta commit) -> table `logs`
//!   -> maintain: expire, compact, vacuum, checkpoint
//! SQL, reports and exports read one View = table files + rows that are not in them yet, swapped in one step
//! ```
//!
//! Feedback on records goes the same way, through the same log, into a table of its own. A record
//! that comes in parts waits for the rest between log and memtable ([`engine::RecordPart`]), and is
//! seen meanwhile.
//!
//! # What holds at all times
//!
//! 1. **An acked record is never lost.** [`Engine::append`] returns after the log frame that holds
//!    the record is fsynced.
//! 2. **Once.** A record is in its table once, through crash, replay and a client that sends its
//!    `id` again within a day: the flush of a table commits the log's last sequence together with
//!    the files, and replay starts after it for its rows. Feedback that is sent again is a further
//!    state of the same feedback; the latest holds.
//! 3. **Seen at once, seen once.** A query reads one View, which misses no acked record and holds
//!    none twice.
//! 4. **Damage is an error, never a gap.** A write that was cut off before its ack is dropped at
//!    the next open; damage before that stops the open and names file and offset. After a failed
//!    fsync, writes are refused until a restart; a write that fails before it, as on a full disk,
//!    is taken back. A commit whose answer was lost is tried again until its fate is known, and
//!    nothing else changes what queries see meanwhile. What an earlier process left counts as
//!    durable only when this one has synced it, or written it again. Every byte of a data file has
//!    a checksum, with which it is read (`datafile`); no byte that a client sent is ever read as
//!    structure of the log ([`wal`]).
//! 5. **A tenant sees its own rows only**: what a session's key reaches, and what plans keep in
//!    answers, is decided below SQL (`query::security_barrier`), and no expression of a statement
//!    meets a row of others. SQL sees no files, no URLs, and writes nothing.
//! 6. **Memory has a ceiling.** Rows in memory, queries, exports and request bodies each have a
//!    budget, and one organisation has a share of it (`limits`); a full one means waiting for a
//!    while, then a refusal of kind [`ErrorKind::Busy`], never growth.
//! 7. **Time, ids and randomness come in as arguments** ([`engine::Dependencies`]).
//! 8. **Nothing private is logged**: no bodies, keys or header values in our own logs and errors.
//!    What is written is readable by its user alone, and every place with rows of clients is in one
//!    list (`store::places`), with what an erasure does to it.
//! 9. **A log is one store's and one live node's.** A log meets no copy of its store
//!    (`engine::identity`), and no second node has it open (`engine::claim`). A copy of a log that
//!    was left behind is not flushed by sequences, but adopted by ids (`engine::adopt`).
//!
//! # Reading order
//!
//! The modules below stand in the order of the spine: a file imports only from files below it (a
//! test checks it). Begin with [`record`], then `wal`, `view`, `flush`, `query` and [`engine`]; the
//! rest follows from them.
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

#[doc(hidden)]
pub mod cli;
pub mod http;
pub mod engine;
#[doc(hidden)]
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
pub mod table;
mod dedupe;
mod memtable;
pub mod wal;
pub mod refusals;
mod usage;
mod catalog;
mod plan;
pub mod ingest;
mod parts;
pub mod record;
pub mod store;
#[doc(hidden)]
pub mod limits;
mod clock;
pub mod config;
pub mod error;
mod nearest;
pub mod guide;

pub use config::Config;
pub use engine::{Answer, AppendError, Engine, ExportRequest, Job, Params, Reader, Receipt};
pub use error::{Error, ErrorKind, Result};
pub use record::Record;
