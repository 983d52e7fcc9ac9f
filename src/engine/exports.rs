//! Export jobs at work: made, counted, written in the background, handed out, and cleared away.
//!
//! One node does it, the one that holds the lease of upkeep; [`AT_ONCE`] jobs are written at a time, of an organisation one, and
//! the others wait in the order of their starts. What the catalog says is what holds: a job that is in progress there and not
//! here is begun anew, after a restart and after another node's end alike, and one that is no longer wanted there is broken off,
//! whoever said so. A node that overslept its lease writes for nothing and takes its file back ([`Document::end_export`]).
//!
//! A file gets its name in the store when it is whole. Memory for one is a few batches and [`PART_BYTES`] a few times over.
//! How far a job is stands in the memory of the node that writes it; the catalog hears of the end.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, Inner, Reader};
use crate::catalog::{
    Access, Denied, Document, Ended, ExportChange, ExportEnd, ExportFile, ExportJob, ExportStatus, LINK_SECONDS, Scope,
    ShownExport, StaleExport, export_workspace, holds_bodies,
};
use crate::error::{Error, Result};
use crate::export::Selection;
use crate::record::json::Encoder;
use crate::store::{export_name, is_export_name};

/// Jobs that are written at a time.
const AT_ONCE: usize = 2;
/// How often it is looked what is to be done.
const TICK: Duration = Duration::from_secs(1);
/// Bytes of a part of an upload: an S3 object has at most 10,000 of them.
const PART_BYTES: usize = 16 << 20;
/// Parts that are on their way beside the one that is being filled.
const PARTS_AHEAD: usize = 2;
/// How long the end of an engine waits for uploads to be taken back.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often the end of a job is told to a catalog that does not answer, before the job is begun anew.
const TELLS: u32 = 5;
/// A file is handed out in pieces of so many bytes, of which so many are fetched ahead.
const PIECE_BYTES: usize = 1 << 20;
const PIECES_AHEAD: usize = 4;

/// A job to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewExport {
    /// Names it; one that is there already is answered as it is.
    pub id: String,
    /// The workspace whose records it reads; none = the key's.
    pub workspace: Option<String>,
    /// Which records, in the form of Portkey's `filters`.
    pub filters: Map<String, Value>,
    /// Keys of each line; none = all that may be exported.
    pub columns: Option<Vec<String>>,
    /// What it is for.
    pub description: Option<String>,
}

/// What is being written on this node.
#[derive(Debug, Default)]
pub(super) struct Exports {
    running: Mutex<HashMap<String, Running>>,
    /// Names of files that are being written.
    names: Mutex<HashSet<String>>,
    wanted: Notify,
}

#[derive(Clone, Debug)]
struct Running {
    run: u64,
    organisation: Option<String>,
    /// Records and bytes so far.
    written: Arc<[AtomicU64; 2]>,
    cancel: CancellationToken,
}

impl Engine {
    /// Makes a job, a draft, and counts what matches it.
    pub async fn create_export(&self, access: &Access, new: NewExport) -> Result<ExportJob> {
        let now = self.now();
        let mut job = ExportJob {
            id: new.id,
            organisation: access.organisation.clone(),
            workspace: export_workspace(access, new.workspace)?,
            bodies: access.may(Scope::Read),
            filters: new.filters,
            columns: new.columns,
            description: new.description,
            status: ExportStatus::Draft,
            total: 0,
            run: 0,
            error: None,
            created_by: access.key_id.clone(),
            created_at: now,
            updated_at: now,
            started_at: None,
            ended_at: None,
            file: None,
            file_gone: None,
        };
        job.total = self.inner.count_export(&job).await?;
        let add = |document: &mut Document| {
            document.add_export(job.clone())?;
            document.export(&job.id, access).cloned()
        };
        self.inner.catalog.change(add).await
    }

    /// Changes a job that is not in progress; it is a draft then.
    pub async fn update_export(&self, access: &Access, id: &str, change: &ExportChange) -> Result<ExportJob> {
        let job = self.inner.catalog.state().document.export(id, access)?.updated(access, change)?;
        let (total, now) = (self.inner.count_export(&job).await?, self.now());
        let update = |document: &mut Document| document.update_export(id, access, change, total, now).cloned();
        self.inner.catalog.change(update).await
    }

    /// Starts a job; it is written in the background.
    pub async fn start_export(&self, access: &Access, id: &str) -> Result<()> {
        let now = self.now();
        let job = self.inner.catalog.state().document.export(id, access)?.clone();
        Reader::over(&self.inner, job.access()).may_export()?;
        let start = |document: &mut Document| document.start_export(id, access, now).map(|_| ());
        self.inner.catalog.change(start).await?;
        self.inner.exports.wanted.notify_one();
        Ok(())
    }

    /// Stops a job that is in progress.
    pub async fn cancel_export(&self, access: &Access, id: &str) -> Result<()> {
        let now = self.now();
        let cancel = |document: &mut Document| document.cancel_export(id, access, now).map(|_| ());
        self.inner.catalog.change(cancel).await?;
        self.inner.exports.wanted.notify_one();
        Ok(())
    }

    /// The jobs that a key reaches, newest first; of one workspace, or of all.
    pub fn exports(&self, access: &Access, workspace: Option<&str>) -> Vec<ShownExport> {
        let state = self.inner.catalog.state();
        let jobs = state.document.exports(access, workspace);
        jobs.into_iter().map(|job| self.inner.shown_export(&state.document, job)).collect()
    }

    /// A job that a key reaches.
    pub fn export_job(&self, access: &Access, id: &str) -> Result<ShownExport> {
        let state = self.inner.catalog.state();
        Ok(self.inner.shown_export(&state.document, state.document.export(id, access)?))
    }

    /// A token that opens the file of a job for whoever has it, and until when.
    pub async fn export_token(&self, access: &Access, id: &str) -> Result<(String, DateTime<Utc>)> {
        let (now, keep_days, random) = (self.now(), self.inner.config.export_keep_days, self.random());
        let expires_at = now + TimeDelta::seconds(LINK_SECONDS);
        let token = |document: &Document| {
            let file = document.export_file(id, access, now, keep_days)?;
            Ok::<_, Error>(document.export_token(file, expires_at))
        };
        if let Some(token) = token(&self.inner.catalog.state().document)? {
            return Ok((token, expires_at));
        }
        let make = |document: &mut Document| {
            document.ensure_secret(random);
            token(document)
        };
        let made = self.inner.catalog.change(make).await?;
        Ok((made.ok_or_else(|| Error::internal("a secret vanished"))?, expires_at))
    }

    /// The file that a token opens, with the id of its job.
    pub fn open_export(&self, token: &str) -> Option<(String, ExportFile)> {
        let state = self.inner.catalog.state();
        let opened = state.document.open_export(token, self.now(), self.inner.config.export_keep_days);
        opened.map(|(job, file)| (job.id.clone(), file.clone()))
    }

    /// Bytes of a file, in pieces that are fetched a few ahead of the reader.
    pub fn read_export(&self, file: &ExportFile, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let (store, path) = (Arc::clone(self.inner.store.object_store()), self.inner.store.export_path(&file.name));
        let end = range.end;
        let pieces = range.step_by(PIECE_BYTES).map(move |start| {
            let (store, path) = (Arc::clone(&store), path.clone());
            async move {
                let bytes = store.get_range(&path, start..end.min(start + PIECE_BYTES as u64)).await;
                bytes.map_err(|cause| Error::storage("the file of an export cannot be read").with_source(cause))
            }
        });
        stream::iter(pieces).buffered(PIECES_AHEAD).boxed()
    }
}

impl Inner {
    /// Writes what is started, for as long as the engine lives.
    pub(super) async fn run_exports(self: Arc<Self>) {
        let lease = Duration::from_secs(self.config.lease_seconds);
        let (mut tasks, mut held) = (JoinSet::new(), Instant::now());
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.exports.wanted.notified() => {}
                Some(_) = tasks.join_next() => {}
            }
            self.stop_unwanted();
            let idle = self.exports.running.lock().is_empty();
            if idle && self.catalog.state().document.started_exports().is_empty() {
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
            while let Some((job, running)) = self.next_export() {
                tasks.spawn(Arc::clone(&self).run_export(job, running));
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
    fn next_export(&self) -> Option<(ExportJob, Running)> {
        let state = self.catalog.state();
        let mut running = self.exports.running.lock();
        // Looked at under the lock: whoever closes the engine takes it after saying so.
        if running.len() >= AT_ONCE || self.refuse_if_closed().is_err() {
            return None;
        }
        let has_one = |job: &ExportJob| {
            running.contains_key(&job.id) || running.values().any(|other| other.organisation == job.organisation)
        };
        let job = state.document.started_exports().into_iter().find(|job| !has_one(job))?.clone();
        let started = Running {
            run: job.run,
            organisation: job.organisation.clone(),
            written: Arc::default(),
            cancel: CancellationToken::new(),
        };
        running.insert(job.id.clone(), started.clone());
        Some((job, started))
    }

    /// Writes a job until it is over, one way or another.
    async fn run_export(self: Arc<Self>, job: ExportJob, running: Running) {
        loop {
            self.flush_first().await;
            let name = export_name((self.new_uuid)());
            self.exports.names.lock().insert(name.clone());
            let ended = self.attempt(&job, &name, &running).await;
            self.exports.names.lock().remove(&name);
            if !matches!(ended, Some(Ended::Again)) {
                break;
            }
            running.written.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        self.exports.running.lock().remove(&job.id);
        self.exports.wanted.notify_one();
    }

    /// Moves rows into files: those are merged in order, while rows in memory must be sorted, all of a day at once. Where that
    /// fails they are read from memory.
    async fn flush_first(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        // A task of its own: a job that is called off must not leave a commit half taken over.
        if let Ok(Err(error)) = tokio::spawn(async move { inner.flush_all().await }).await {
            tracing::debug!(error = error.chain(), "an export reads rows from memory");
        }
    }

    /// Writes a file and tells the catalog; none if that is not known, or the job was broken off.
    async fn attempt(&self, job: &ExportJob, name: &str, running: &Running) -> Option<Ended> {
        let written = AssertUnwindSafe(self.write_export(job, name, running)).catch_unwind().await;
        let written = written.unwrap_or_else(|_| Err(Error::internal("writing the export panicked")));
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
        if ended.is_some() && !matches!((&end, ended), (Some(ExportEnd::Written(..)), Some(Ended::Taken))) {
            let _ = self.delete_export(name).await;
        }
        ended
    }

    async fn tell_end(&self, job: &ExportJob, end: &ExportEnd, running: &Running) -> Option<Ended> {
        let mut wait = TICK;
        for _ in 0..TELLS {
            let now = (self.now)();
            let told = self.catalog.change(|document| Ok(document.end_export(&job.id, job.run, end, now))).await;
            match told {
                Ok(ended) => return Some(ended),
                Err(error) => tracing::warn!(job = job.id, error = error.chain(), "the end of an export was not noted"),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait *= 2,
                () = running.cancel.cancelled() => return None,
            }
        }
        None
    }

    /// Writes the file of a job, as far as it is not called off.
    async fn write_export(&self, job: &ExportJob, name: &str, running: &Running) -> Result<ExportEnd> {
        let state = self.catalog.state();
        // Counted before anything is read: what is erased later is told by a greater number.
        let erasures = state.document.erasures_of(job.organisation.as_deref());
        let columns = self.export_columns(&state.document, job)?;
        let selection = Selection::read(&job.filters)?;
        let most = state.document.most_exported(job.organisation.as_deref());
        let limit = selection.limit.into_iter().chain(most).min();
        let reader = Reader::over(self, job.access());
        let writing = async {
            let lines = reader.export_selected(&selection, columns.clone(), limit).await?;
            let path = self.store.export_path(name);
            let writer = BufWriter::with_capacity(Arc::clone(self.store.object_store()), path, PART_BYTES);
            write(lines, writer.with_max_concurrency(PARTS_AHEAD), running).await
        };
        writing.await?;
        let [records, bytes] = [0, 1].map(|place| running.written[place].load(Ordering::Relaxed));
        let whole = selection.limit.is_none() && limit.is_none_or(|limit| records < limit);
        let (name, written_at) = (name.to_owned(), (self.now)());
        let file = ExportFile { name, bytes, records, columns, erasures, written_at };
        Ok(ExportEnd::Written(file, whole.then_some(records)))
    }

    /// The keys of a job's lines, if they may be exported.
    fn export_columns(&self, document: &Document, job: &ExportJob) -> Result<Vec<String>> {
        let denied = document.denied(job.organisation.as_deref(), job.workspace.as_deref());
        checked_columns(&denied, job)
    }

    /// How many records match a job that is to be made, if it can be.
    async fn count_export(&self, job: &ExportJob) -> Result<u64> {
        self.export_columns(&self.catalog.state().document, job)?;
        let selection = Selection::read(&job.filters)?;
        Reader::over(self, job.access()).count_selected(&selection).await
    }

    fn shown_export(&self, document: &Document, job: &ExportJob) -> ShownExport {
        let running = self.exports.running.lock();
        let here =
            running.get(&job.id).filter(|running| running.run == job.run && job.status == ExportStatus::InProgress);
        let progress = here.map(|running| {
            let [records, bytes] = [0, 1].map(|place| running.written[place].load(Ordering::Relaxed));
            (records, bytes)
        });
        document.shown_export(job, progress, self.config.export_keep_days)
    }

    /// Calls off what is written here; the next open, or another node, begins it anew.
    pub(super) async fn stop_exports(&self) {
        self.exports.cancel_all();
        let ended = async {
            while !self.exports.running.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // What is not over by then leaves parts of an upload, which have no name.
        let _ = tokio::time::timeout(STOP_WITHIN, ended).await;
    }

    /// Deletes the files that may no longer be read, and those that no job knows of and that are older than the grace time.
    pub(super) async fn expire_exports(&self, dry_run: bool) -> Result<Vec<String>> {
        self.catalog.refresh().await?;
        let (state, now) = (self.catalog.state(), (self.now)());
        let mut stale = state.document.stale_exports(now, self.config.export_keep_days);
        stale.extend(self.orphans(&state.document, now).await?);
        let lines = stale.iter().map(|stale| format!("delete export file `{}`", stale.name)).collect();
        if dry_run || stale.is_empty() {
            return Ok(lines);
        }
        for stale in &stale {
            self.delete_export(&stale.name).await?;
        }
        self.catalog
            .change(|document| {
                document.forget_exports(&stale);
                Ok(())
            })
            .await?;
        Ok(lines)
    }

    async fn orphans(&self, document: &Document, now: DateTime<Utc>) -> Result<Vec<StaleExport>> {
        let known = document.known_export_files();
        let grace = i64::try_from(self.config.vacuum_grace_seconds).ok().and_then(TimeDelta::try_seconds);
        let unlisted = |cause| Error::storage("the files of exports cannot be listed").with_source(cause);
        let exports = self.store.exports_path();
        let objects: Vec<_> = self.store.object_store().list(Some(&exports)).try_collect().await.map_err(unlisted)?;
        let writing = self.exports.names.lock();
        let orphan = |object: object_store::ObjectMeta| {
            let name = object.location.filename().filter(|name| is_export_name(name))?;
            let old = grace.is_some_and(|grace| now - object.last_modified >= grace);
            (old && !known.contains(name) && !writing.contains(name))
                .then(|| StaleExport { name: name.to_owned(), of: None })
        };
        Ok(objects.into_iter().filter_map(orphan).collect())
    }

    async fn delete_export(&self, name: &str) -> Result<()> {
        match self.store.object_store().delete(&self.store.export_path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(Error::storage("the file of an export cannot be deleted").with_source(cause)),
        }
    }
}

impl Exports {
    fn cancel_all(&self) {
        self.running.lock().values().for_each(|running| running.cancel.cancel());
    }
}

/// Writes lines to an object that has its name when this is over. Called off or failed, it never gets one, or, where that came
/// too late, the caller deletes it.
async fn write(mut lines: BoxStream<'static, Result<Bytes>>, mut writer: BufWriter, running: &Running) -> Result<()> {
    let unwritten =
        |cause: std::io::Error| Error::storage("the file of the export cannot be written").with_source(cause);
    let mut all_sent = false;
    let sending = async {
        while let Some(chunk) = lines.try_next().await? {
            writer.write_all(&chunk).await.map_err(unwritten)?;
            let records = memchr::memchr_iter(b'\n', &chunk).count() as u64;
            running.written[0].fetch_add(records, Ordering::Relaxed);
            running.written[1].fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        all_sent = true;
        writer.shutdown().await.map_err(unwritten)
    };
    let sent = tokio::select! {
        sent = sending => sent,
        () = running.cancel.cancelled() => Err(Error::closed("the export was called off")),
    };
    if sent.is_err() && !all_sent {
        // What was begun has no name; if it cannot be taken back, the store drops it in its own time.
        let _ = writer.abort().await;
    }
    sent
}

/// The keys of a job's lines; refused where the key that made the job may not export one of them.
fn checked_columns(denied: &Denied, job: &ExportJob) -> Result<Vec<String>> {
    let Some(columns) = &job.columns else { return Ok(denied.allowed(job.bodies)) };
    Encoder::new(Some(columns))?;
    denied.check(columns)?;
    match columns.iter().find(|name| !job.bodies && holds_bodies(name)) {
        Some(name) => Err(Error::denied(format!(
            "column `{name}` holds bodies, and the key lacks the scope `logs.read`; leave the column out"
        ))),
        None => Ok(columns.clone()),
    }
}
