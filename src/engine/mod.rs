//! The embedded API: open a folder, append records, query, export, close.
//!
//! An [`Engine`] owns its folder, its threads and its memory, and shares nothing with another
//! engine. An append is acknowledged when the write-ahead log has it on the disk; from then on
//! every query sees it. [`Engine::close`] works in this order: refuse appends, acknowledge waiting
//! ones, flush, stop the background tasks, release the folder. Dropping the last handle without
//! closing loses nothing either: the next open replays the log.
//!
//! # Order of locks
//!
//! A task takes these locks in this order, and holds them while it waits for the disk or the store:
//!
//! 1. `LateQueue::turn`: late parts are added to their records.
//! 2. `Tables::compacting`: stored files are merged, rewritten or deleted.
//! 3. `Tables::commits`: a table and the view of it change. A flush that holds it waits for the
//!    writer thread, which therefore takes none of these locks.
//! 4. The lock of one subject, whose code takes no other of this list: the catalog's changes, a
//!    table's commit, the lease, the claim.
//!
//! All other locks are held for a few instructions and never across an `await`.

mod admission;
mod adopt;
mod append;
mod append_parts;
mod builder;
mod built_append;
mod claim;
mod dependencies;
mod doctor;
mod erased;
mod exports;
mod fair_queue;
mod flush_loop;
mod flush_trigger;
mod flushed_seq;
mod gate;
mod handle;
mod health;
mod identity;
mod jobs;
mod late_parts;
mod late_queue;
mod left_logs;
mod lock;
pub mod maintenance;
mod maintenance_loop;
mod node;
mod open;
mod part_join;
mod pending_parts;
mod prepared;
mod read_beside;
mod reader;
mod refusals;
mod replay;
mod rights;
mod status;
mod system_tables;
mod table_state;
#[cfg(test)]
mod time_tests;
mod work_threads;
mod write_queue;
mod writer;

pub use crate::catalog::arrival;
pub use crate::catalog::{
    Access, Catalog, CreatedKey, Document, ErasureEntry, ErasureSelector, ErasureView,
    ExportChange, ExportFile, ExportJob, ExportStatus, ExportView, Key, KeyView, NewKey,
    Organisation, OrganisationView, PlanView, RetentionChange, Scope, Share, ShareLinkView,
    State as CatalogState, key_text,
};
pub use crate::clock::Leap as ClockLeap;
pub use crate::export::{Cursor as ExportCursor, Request as ExportRequest};
pub use crate::parts::RecordPart;
pub use crate::query::{Answer, Params};
pub use adopt::LeftBehind;
pub use builder::EngineBuilder;
pub(crate) use built_append::BuiltAppend;
pub use dependencies::{Dependencies, random_bytes};
pub use doctor::{Finding, Severity, doctor, doctor_of};
pub use erased::ErasedRecords;
pub use exports::NewExport;
pub use handle::Engine;
pub use identity::{has_log, owns_log, rebind, refuse_unfinished, require_store};
pub use lock::{FolderLock, lock};
pub use reader::Reader;
pub use status::{AppendError, Job, Outcome, Receipt, Status};
