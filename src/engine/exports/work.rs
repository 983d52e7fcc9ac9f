//! Runs export jobs: takes them in turn, writes them in the background, and reports their ends to
//! the catalog.
//!
//! Only one node does it, the holder of the maintenance lease. It writes [`AT_ONCE`] jobs at a
//! time, at most one of an organisation; the others wait in the order of their starts. The catalog
//! is authoritative. A job that is in progress there and not on this node starts again, after a
//! restart as after the end of another node. A job that is no longer wanted there is cancelled. A
//! node whose lease ended while it wrote discards its result and deletes its file
//! ([`Document::end_export`]).
//!
//! A file gets its name in the store when it is complete. The progress of a job is in the memory of
//! the node that writes it; the catalog is informed of the end. A job frees its slot, whatever way
//! its task ends.
//!
//! [`Document::end_export`]: crate::catalog::Document::end_export

use std::collections::BTreeSet;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blocks::Packing;
use super::check::checked;
use super::running::Running;
use super::upload::Upload;
use crate::catalog::{Ended, ExportEnd, ExportFile, ExportJob};
use crate::engine::handle::Inner;
use crate::engine::reader::Reader;
use crate::error::{Error, Result};
use crate::store::export_name;

/// Jobs that are written at a time.
const AT_ONCE: usize = 2;
/// Interval at which jobs are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Time that the end of an engine waits for uploads to be aborted.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Attempts to report the end of a job to a catalog that does not answer, before the job starts
/// again.
const MAX_REPORTS: u32 = 5;

/// The slot of a job that is written here. Freed on drop, whatever happened.
struct ExportTurn {
    inner: Arc<Inner>,
    job: ExportJob,
    running: Running,
}

impl ExportTurn {
    /// Writes the job until it ends in any way.
    async fn take(self) {
        let Self { inner, job, running } = &self;
        inner.flush_first().await;
        let name = export_name((inner.new_uuid)());
        if let Some(entry) = inner.exports.running.lock().get_mut(&job.id) {
            entry.file.clone_from(&name);
        }
        inner.attempt(job, &name, running).await;
    }
}

impl Drop for ExportTurn {
    fn drop(&mut self) {
        let exports = &self.inner.exports;
        exports.running.lock().remove(&self.job.id);
        exports.wanted.notify_one();
        exports.ended.notify_one();
    }
}

impl Inner {
    /// Writes started jobs, for as long as the engine lives.
    pub(in crate::engine) async fn run_exports(self: Arc<Self>) {
        let lease = Duration::from_secs(self.config.lease_seconds);
        let mut tasks = JoinSet::new();
        let mut held = Instant::now();
        let mut cleared = BTreeSet::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.exports.wanted.notified() => {}
                Some(Err(error)) = tasks.join_next() => {
                    tracing::error!(error = %error, "the task of an export failed; the job starts again");
                    tokio::time::sleep(TICK).await;
                }
            }
            self.stop_unwanted();
            let idle = self.exports.running.lock().is_empty();
            let state = self.catalog.state();
            let left = &state.document.export_leftovers;
            if idle && state.document.started_exports().is_empty() && *left == cleared {
                continue;
            }
            if !self.lease.hold().await {
                // Another node starts the jobs again that this one was writing.
                if held.elapsed() >= lease {
                    self.exports.cancel_all();
                }
                continue;
            }
            held = Instant::now();
            // Only once: maintenance deletes the files that the store refuses to delete now.
            if *left != cleared {
                cleared.clone_from(left);
                if let Err(error) = self.delete_exports(left).await {
                    tracing::warn!(
                        error = error.chain(),
                        "maintenance deletes files of exports later"
                    );
                }
            }
            while let Some(turn) = self.next_export() {
                tasks.spawn(turn.take());
            }
        }
    }

    /// Cancels jobs that are written here and no longer wanted.
    fn stop_unwanted(&self) {
        let state = self.catalog.state();
        for (id, running) in self.exports.running.lock().iter() {
            if !state.document.wants_export(id, running.run) {
                running.cancel.cancel();
            }
        }
    }

    /// Returns the next job, if there is a free slot.
    fn next_export(self: &Arc<Self>) -> Option<ExportTurn> {
        let state = self.catalog.state();
        let mut running = self.exports.running.lock();
        // Read under the lock: the closing engine takes the lock after setting the flag.
        if running.len() >= AT_ONCE || self.health.is_closing() {
            return None;
        }
        let has_one = |job: &ExportJob| {
            running.contains_key(&job.id)
                || running.values().any(|other| other.organisation == job.organisation)
        };
        let job = state.document.started_exports().into_iter().find(|job| !has_one(job))?.clone();
        let started = Running {
            run: job.run,
            organisation: job.organisation.clone(),
            file: String::new(),
            written: Arc::default(),
            cancel: CancellationToken::new(),
        };
        running.insert(job.id.clone(), started.clone());
        Some(ExportTurn { inner: Arc::clone(self), job, running: started })
    }

    /// Moves rows into files, because files are merged in order, while rows in memory must be
    /// sorted, all rows of a day at once. If the flush fails, the rows are read from memory.
    async fn flush_first(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        // A separate task: cancelling the job must not interrupt a commit.
        if let Ok(Err(error)) = tokio::spawn(async move { inner.flush_all().await }).await {
            tracing::debug!(error = error.chain(), "an export reads rows from memory");
        }
    }

    /// Writes a file and reports it to the catalog.
    async fn attempt(&self, job: &ExportJob, name: &str, running: &Running) {
        let written = AssertUnwindSafe(self.write_export(job, name, running)).catch_unwind().await;
        let written =
            written.unwrap_or_else(|_| Err(Error::internal("writing the export panicked")));
        let end = match written {
            _ if running.cancel.is_cancelled() => None,
            Ok(end) => Some(end),
            Err(error) => {
                tracing::warn!(job = job.id, error = error.chain(), "an export failed");
                Some(ExportEnd::Failed(error.message().to_owned()))
            }
        };
        let ended = match &end {
            Some(end) => self.report_end(job, end, running).await,
            None => Some(Ended::Overtaken),
        };
        // If the catalog did not answer, it may name the file. If it does not, maintenance finds
        // the file.
        if ended.is_some()
            && !matches!((&end, ended), (Some(ExportEnd::Written(..)), Some(Ended::Taken)))
        {
            let _ = self.delete_export(name).await;
        }
    }

    async fn report_end(
        &self,
        job: &ExportJob,
        end: &ExportEnd,
        running: &Running,
    ) -> Option<Ended> {
        let mut wait = TICK;
        for _ in 0..MAX_REPORTS {
            let now = (self.now)();
            let reported = self
                .catalog
                .change(|document| Ok(document.end_export(&job.id, job.run, end, now)))
                .await;
            match reported {
                Ok(ended) => return Some(ended),
                Err(error) => tracing::warn!(
                    job = job.id,
                    error = error.chain(),
                    "the end of an export was not noted"
                ),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait *= 2,
                () = running.cancel.cancelled() => return None,
            }
        }
        None
    }

    /// Writes the file of a job until it ends or is cancelled.
    async fn write_export(
        &self,
        job: &ExportJob,
        name: &str,
        running: &Running,
    ) -> Result<ExportEnd> {
        let state = self.catalog.state();
        let (columns, selection) = checked(&state.document, job)?;
        let most = state.document.most_exported(job.organisation.as_deref());
        let limit = selection.limit.into_iter().chain(most).min();
        let reader = Reader::over(self, job.access());
        let noted = Arc::default();
        let lines = reader.export_selected(&selection, columns.clone(), limit, &noted).await?;
        let upload =
            Upload::new(Arc::clone(self.store.object_store()), self.store.export_path(name));
        write(lines, Packing::new(upload), running, || self.check_room(job)).await?;
        let [records, bytes, stored] =
            [0, 1, 2].map(|place| running.written[place].load(Ordering::Relaxed));
        let whole = selection.limit.is_none() && limit.is_none_or(|limit| records < limit);
        let name = name.to_owned();
        let written_at = (self.now)();
        // The records of an organisation's job are all its own.
        let organisations = noted.names().filter(|_| job.organisation.is_none());
        let file = ExportFile {
            name,
            bytes,
            stored_bytes: Some(stored),
            records,
            columns,
            organisations,
            written_at,
        };
        Ok(ExportEnd::Written(file, whole.then_some(records)))
    }

    /// Returns an error if the files of all exports, or of the job's organisation, have reached
    /// their limit.
    fn check_room(&self, job: &ExportJob) -> Result<()> {
        let most = self.config.export_bytes;
        let [mut all, mut own] =
            self.catalog.state().document.export_bytes(job.organisation.as_deref());
        for other in self.exports.running.lock().values() {
            let stored = other.written[2].load(Ordering::Relaxed);
            all += stored;
            own += if other.organisation == job.organisation { stored } else { 0 };
        }
        let left = most.saturating_sub(all);
        if most == 0 || (all <= most && (own <= left || job.organisation.is_none())) {
            return Ok(());
        }
        let whose = if all <= most { "this organisation's" } else { "the" };
        Err(Error::limit(format!(
            "{whose} files of exports fill their part of `export_bytes` ({most}); export fewer records or columns, start older \
             jobs again with fewer, or wait until their files are gone"
        )))
    }

    /// Cancels the jobs that are written here. The next open, or another node, starts them again.
    pub(in crate::engine) async fn stop_exports(&self) {
        self.exports.cancel_all();
        let ended = async {
            while !self.exports.running.lock().is_empty() {
                self.exports.ended.notified().await;
            }
        };
        // An upload that has not ended by then leaves parts without a name.
        let _ = tokio::time::timeout(STOP_WITHIN, ended).await;
    }
}

/// Writes lines to an object that gets its name at the end. If it fails or is cancelled, the object
/// gets no name, or, if that came too late, the caller deletes it.
async fn write(
    mut lines: BoxStream<'static, Result<Bytes>>,
    mut packing: Packing,
    running: &Running,
    check_room: impl Fn() -> Result<()>,
) -> Result<()> {
    let sending = async {
        while let Some(chunk) = lines.try_next().await? {
            packing.put(&chunk).await.map_err(|cause| unwritten(cause, packing.uploaded()))?;
            running.written[2].store(packing.stored(), Ordering::Relaxed);
            check_room()?;
            let records = memchr::memchr_iter(b'\n', &chunk).count() as u64;
            running.written[0].fetch_add(records, Ordering::Relaxed);
            running.written[1].fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        packing.finish().await.map_err(|cause| unwritten(cause, packing.uploaded()))?;
        running.written[2].store(packing.stored(), Ordering::Relaxed);
        Ok(())
    };
    let sent = tokio::select! {
        sent = sending => sent,
        () = running.cancel.cancelled() => Err(Error::closed("the export was cancelled")),
    };
    if sent.is_err() {
        packing.abort().await;
    }
    sent
}

fn unwritten(cause: object_store::Error, stored: u64) -> Error {
    let why = if is_full(&cause) {
        format!(
            "no space left on the device, {stored} bytes written; free space, then start the export again"
        )
    } else {
        "the file of the export cannot be written".to_owned()
    };
    Error::storage(why).with_source(cause)
}

/// Returns true if an error says that a disk or its quota is full.
fn is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let io_error = cause.downcast_ref::<io::Error>();
    io_error.is_some_and(|cause| full.contains(&cause.kind()))
        || cause.source().is_some_and(is_full)
}
