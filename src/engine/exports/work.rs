//! Export jobs at work: taken in turn, written in the background, and their ends told to the
//! catalog.
//!
//! One node does it, the one that holds the lease of upkeep; [`AT_ONCE`] jobs are written at a
//! time, of an organisation one, and the others wait in the order of their starts. What the catalog
//! says is what holds: a job that is in progress there and not here is begun anew, after a restart
//! and after another node's end alike, and one that is no longer wanted there is broken off,
//! whoever said so. A node that overslept its lease writes for nothing and takes its file back
//! ([`Document::end_export`]).
//!
//! A file gets its name in the store when it is whole. How far a job is stands in the memory of the
//! node that writes it; the catalog hears of the end. However the task of a job ends, its place is
//! free afterwards.
//!
//! [`Document::end_export`]: crate::catalog::Document::end_export

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blocks::Packing;
use super::upload::Upload;
use super::{Inner, Reader, checked};
use crate::catalog::{Ended, ExportEnd, ExportFile, ExportJob};
use crate::error::{Error, Result};
use crate::store::export_name;

/// Jobs that are written at a time.
const AT_ONCE: usize = 2;
/// How often it is looked what is to be done.
const TICK: Duration = Duration::from_secs(1);
/// How long the end of an engine waits for uploads to be taken back.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often the end of a job is told to a catalog that does not answer, before the job is begun
/// anew.
const TELLS: u32 = 5;

/// What is being written on this node.
#[derive(Debug, Default)]
pub(in crate::engine) struct Exports {
    pub(super) running: Mutex<HashMap<String, Running>>,
    pub(super) wanted: Notify,
    /// Somebody's turn is over.
    ended: Notify,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) run: u64,
    organisation: Option<String>,
    /// Name of the file that is being written, until the catalog was told.
    file: String,
    /// Records and bytes so far, and bytes where they lie.
    pub(super) written: Arc<[AtomicU64; 3]>,
    cancel: CancellationToken,
}

/// A job's place among those that are written here, given back when this is dropped, whatever
/// happened.
struct ExportTurn {
    inner: Arc<Inner>,
    job: ExportJob,
    running: Running,
}

impl ExportTurn {
    /// Writes the job until it is over, one way or another.
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

impl Exports {
    /// Names of files that are being written.
    pub(super) fn writing(&self) -> HashSet<String> {
        self.running.lock().values().map(|running| running.file.clone()).collect()
    }

    fn cancel_all(&self) {
        self.running.lock().values().for_each(|running| running.cancel.cancel());
    }
}

impl Inner {
    /// Writes what is started, for as long as the engine lives.
    pub(in crate::engine) async fn run_exports(self: Arc<Self>) {
        let lease = Duration::from_secs(self.config.lease_seconds);
        let (mut tasks, mut held, mut cleared) = (JoinSet::new(), Instant::now(), BTreeSet::new());
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.exports.wanted.notified() => {}
                Some(Err(error)) = tasks.join_next() => {
                    tracing::error!(error = %error, "the task of an export broke; it begins anew");
                    tokio::time::sleep(TICK).await;
                }
            }
            self.stop_unwanted();
            let (idle, state) = (self.exports.running.lock().is_empty(), self.catalog.state());
            let left = &state.document.export_leftovers;
            if idle && state.document.started_exports().is_empty() && *left == cleared {
                continue;
            }
            if !self.holds_lease().await {
                // Another node begins anew what this one was writing.
                if held.elapsed() >= lease {
                    self.exports.cancel_all();
                }
                continue;
            }
            held = Instant::now();
            // Once; what a store does not let go of is left to upkeep.
            if *left != cleared {
                cleared.clone_from(left);
                if let Err(error) = self.delete_exports(left).await {
                    tracing::warn!(error = error.chain(), "upkeep deletes files of exports later");
                }
            }
            while let Some(turn) = self.next_export() {
                tasks.spawn(turn.take());
            }
        }
    }

    /// Breaks off what is written here and no longer wanted.
    fn stop_unwanted(&self) {
        let state = self.catalog.state();
        for (id, running) in self.exports.running.lock().iter() {
            if !state.document.wants_export(id, running.run) {
                running.cancel.cancel();
            }
        }
    }

    /// The job whose turn it is, if there is room for one.
    fn next_export(self: &Arc<Self>) -> Option<ExportTurn> {
        let state = self.catalog.state();
        let mut running = self.exports.running.lock();
        // Looked at under the lock: whoever closes the engine takes it after saying so.
        if running.len() >= AT_ONCE || self.closing.load(Ordering::Acquire) {
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

    /// Moves rows into files: those are merged in order, while rows in memory must be sorted, all
    /// of a day at once. Where that fails they are read from memory.
    async fn flush_first(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        // A task of its own: a job that is called off must not leave a commit half taken over.
        if let Ok(Err(error)) = tokio::spawn(async move { inner.flush_all().await }).await {
            tracing::debug!(error = error.chain(), "an export reads rows from memory");
        }
    }

    /// Writes a file and tells the catalog.
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
            Some(end) => self.tell_end(job, end, running).await,
            None => Some(Ended::Overtaken),
        };
        // Where the catalog did not answer it may name the file; if not, upkeep finds it.
        if ended.is_some()
            && !matches!((&end, ended), (Some(ExportEnd::Written(..)), Some(Ended::Taken)))
        {
            let _ = self.delete_export(name).await;
        }
    }

    async fn tell_end(&self, job: &ExportJob, end: &ExportEnd, running: &Running) -> Option<Ended> {
        let mut wait = TICK;
        for _ in 0..TELLS {
            let now = (self.now)();
            let told = self
                .catalog
                .change(|document| Ok(document.end_export(&job.id, job.run, end, now)))
                .await;
            match told {
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

    /// Writes the file of a job, as far as it is not called off.
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
        let (name, written_at) = (name.to_owned(), (self.now)());
        // One of an organisation holds that one's.
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

    /// Refuses to write on where the files of all exports, or of the job's organisation, have come
    /// to their limit.
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

    /// Calls off what is written here; the next open, or another node, begins it anew.
    pub(in crate::engine) async fn stop_exports(&self) {
        self.exports.cancel_all();
        let ended = async {
            while !self.exports.running.lock().is_empty() {
                self.exports.ended.notified().await;
            }
        };
        // What is not over by then leaves parts of an upload, which have no name.
        let _ = tokio::time::timeout(STOP_WITHIN, ended).await;
    }
}

/// Writes lines to an object that has its name when this is over. Called off or failed, it never
/// gets one, or, where that came too late, the caller deletes it.
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
        () = running.cancel.cancelled() => Err(Error::closed("the export was called off")),
    };
    if sent.is_err() {
        packing.abort().await;
    }
    sent
}

fn unwritten(cause: object_store::Error, stored: u64) -> Error {
    let why = match is_full(&cause) {
        true => format!(
            "no space left on the device, {stored} bytes written; free space, then start the export again"
        ),
        false => "the file of the export cannot be written".to_owned(),
    };
    Error::storage(why).with_source(cause)
}

/// Whether a failure comes of a disk, or a quota of one, that is full.
fn is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let io_error = cause.downcast_ref::<io::Error>();
    io_error.is_some_and(|cause| full.contains(&cause.kind()))
        || cause.source().is_some_and(is_full)
}
