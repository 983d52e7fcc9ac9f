//! Export jobs where things go wrong: stores that fail while a file is written, restarts, other
//! nodes, erasures meanwhile.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use gatelog::config::Schedule;
use gatelog::engine::{Access, Dependencies, Document, ErasureSelector, ExportView, NewExport};
use gatelog::record::Message;
use gatelog::store::Store;
use gatelog::{Config, Engine, Job, Record};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::sync::watch;
use url::Url;

use super::engine::record;

/// What happens to writes of export files.
#[derive(Debug)]
struct Gate {
    /// So many more writes and parts succeed, and the one after them fails; below 0 = all succeed.
    left: AtomicI64,
    /// Whether it fails because the disk is full.
    full: AtomicBool,
    /// Whether they go on, or wait until they may.
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
    aborted: AtomicUsize,
    /// The same for lists of export files.
    lists: watch::Sender<bool>,
    listing: AtomicUsize,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            left: AtomicI64::new(-1),
            full: AtomicBool::new(false),
            open: watch::Sender::new(true),
            waiting: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
            lists: watch::Sender::new(true),
            listing: AtomicUsize::new(0),
        })
    }

    async fn pass(self: Arc<Self>) -> Result<()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some((left - 1).max(-1)));
        match left {
            Ok(0) => Err(object_store::Error::Generic {
                store: "Gated",
                source: if self.full.load(Ordering::SeqCst) {
                    io::Error::from(io::ErrorKind::StorageFull).into()
                } else {
                    "the store says no".into()
                },
            }),
            _ => Ok(()),
        }
    }
}

/// A store whose writes of export files go through a gate.
#[derive(Debug)]
struct Gated {
    inner: Arc<InMemory>,
    gate: Arc<Gate>,
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gated({})", self.inner)
    }
}

fn is_export(at: &Path) -> bool {
    at.as_ref().contains("/exports/")
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if is_export(at) {
            Arc::clone(&self.gate).pass().await?;
        }
        self.inner.put_opts(at, payload, options).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(at, options).await?;
        if !is_export(at) {
            return Ok(inner);
        }
        Ok(Box::new(Upload { inner, gate: Arc::clone(&self.gate) }))
    }
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }
    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }
    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, gate, prefix) =
            (Arc::clone(&self.inner), Arc::clone(&self.gate), prefix.cloned());
        if !prefix.as_ref().is_some_and(|prefix| prefix.as_ref().ends_with("/exports")) {
            return inner.list(prefix.as_ref());
        }
        let passed = async move {
            gate.listing.fetch_add(1, Ordering::SeqCst);
            let _ = gate.lists.subscribe().wait_for(|open| *open).await;
        };
        stream::once(passed).flat_map(move |()| inner.list(prefix.as_ref())).boxed()
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    gate: Arc<Gate>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (gate, part) = (Arc::clone(&self.gate), self.inner.put_part(data));
        async move {
            gate.pass().await?;
            part.await
        }
        .boxed()
    }
    async fn complete(&mut self) -> Result<PutResult> {
        Arc::clone(&self.gate).pass().await?;
        self.inner.complete().await
    }
    async fn abort(&mut self) -> Result<()> {
        self.gate.aborted.fetch_add(1, Ordering::SeqCst);
        self.inner.abort().await
    }
}

/// A place that nodes share, with a gate before its export files.
struct Place {
    memory: Arc<InMemory>,
    gate: Arc<Gate>,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { memory: Arc::default(), gate: Gate::new(), folder: tempfile::tempdir().unwrap() }
    }

    async fn node(&self, name: &str) -> Engine {
        self.node_with_grace(name, Config::default().vacuum_grace_seconds).await
    }

    async fn node_with_grace(&self, name: &str, vacuum_grace_seconds: u64) -> Engine {
        let config = Config {
            vacuum_grace_seconds,
            flush_seconds: 3600,
            refresh_seconds: 1,
            lease_seconds: 5,
            compact_schedule: Schedule::never(),
            vacuum_schedule: Schedule::never(),
            expire_schedule: Schedule::never(),
            ..Config::default()
        };
        Engine::open_with(config, self.parts(&self.folder.path().join(name))).await.unwrap()
    }

    fn parts(&self, log: &FilePath) -> Dependencies {
        let gated = Gated { inner: Arc::clone(&self.memory), gate: Arc::clone(&self.gate) };
        let store = Store::with(Arc::new(gated), Url::parse("memory:///state").unwrap()).unwrap();
        Dependencies {
            store: Some(store),
            log_folder: Some(log.to_owned()),
            ..Dependencies::default()
        }
    }

    fn shut(&self) {
        self.gate.open.send_replace(false);
        self.gate.waiting.store(0, Ordering::SeqCst);
    }

    fn open(&self) {
        self.gate.open.send_replace(true);
    }

    /// A node with records `a` and `b` whose export of ids is being written, as long as the gate is
    /// shut.
    async fn writing(&self) -> (Engine, String) {
        let engine = self.node("a").await;
        engine.append(vec![record("a"), record("b")]).await.unwrap();
        self.shut();
        let id = started(&engine, &["id"]).await;
        self.somebody_waits().await;
        (engine, id)
    }

    async fn somebody_waits(&self) {
        until("a file is being written", || self.gate.waiting.load(Ordering::SeqCst) > 0).await;
    }

    async fn files(&self) -> Vec<Path> {
        let all: Vec<ObjectMeta> = self.memory.list(None).try_collect().await.unwrap();
        all.into_iter().map(|object| object.location).filter(is_export).collect()
    }

    async fn text(&self) -> String {
        let files = self.files().await;
        assert_eq!(files.len(), 1, "{files:?}");
        let bytes = self
            .memory
            .get_opts(&files[0], GetOptions::default())
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        // Packed blocks, then the length of each, and 16 bytes that say how many there are.
        let blocks = bytes.len() - 12..bytes.len() - 8;
        let blocks = u32::from_le_bytes(bytes[blocks].try_into().unwrap()) as usize;
        if blocks == 0 {
            return String::new();
        }
        String::from_utf8(zstd::decode_all(&bytes[..bytes.len() - 16 - 4 * blocks]).unwrap())
            .unwrap()
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn operator() -> Access {
    Access::operator("test")
}

async fn started(engine: &Engine, columns: &[&str]) -> String {
    let columns = Some(columns.iter().map(|name| (*name).to_owned()).collect());
    let new = NewExport { id: engine.new_id(), columns, ..NewExport::default() };
    let job = engine.create_export(&operator(), new).await.unwrap();
    engine.start_export(&operator(), &job.id).await.unwrap();
    job.id
}

fn shown(engine: &Engine, id: &str) -> ExportView {
    engine.export_job(&operator(), id).unwrap()
}

async fn ended(engine: &Engine, id: &str) -> ExportView {
    until("the export ends", || shown(engine, id).status.name() != "in_progress").await;
    shown(engine, id)
}

/// Records of about 1 MiB each that do not compress, so that a file of them is written in parts.
pub(crate) fn big(numbers: Range<u64>) -> Vec<Record> {
    let mut state = 1u64;
    let mut noise = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    };
    let mut body = || Some(format!("\"{}\"", (0..1 << 17).map(|_| noise()).collect::<String>()));
    let message = |body| Message { body, headers: None };
    numbers
        .map(|number| Record { request: message(body()), ..record(&format!("{number:03}")) })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_fails_the_job_with_the_reason_and_leaves_no_half_file() {
    let place = Place::new();
    let engine = place.node("a").await;
    engine.append(big(0..40)).await.unwrap();
    let mut aborted = 0;
    // A small file is one write; of a big one the first part fails, the last, and then its
    // completion.
    for (columns, left) in [
        (&["id"][..], 0),
        (&["id", "request"], 0),
        (&["id", "request"], 1),
        (&["id", "request"], 2),
    ] {
        place.gate.left.store(left, Ordering::SeqCst);
        let id = started(&engine, columns).await;
        let failed = ended(&engine, &id).await;
        assert_eq!(failed.status.name(), "failed", "{columns:?}, after {left}: {failed:?}");
        assert_eq!(failed.error.as_deref(), Some("the file of the export cannot be written"));
        assert_eq!(
            (failed.bytes_written, place.files().await.len()),
            (None, 0),
            "{columns:?}, after {left}"
        );
        aborted += usize::from(columns.len() > 1);
        assert_eq!(
            place.gate.aborted.load(Ordering::SeqCst),
            aborted,
            "taken back: {columns:?}, after {left}"
        );
        place.gate.left.store(-1, Ordering::SeqCst);
        engine.start_export(&operator(), &id).await.unwrap();
        let done = ended(&engine, &id).await;
        assert_eq!(
            (done.status.name(), done.error, done.records_written),
            ("success", None, Some(40))
        );
        assert_eq!(place.text().await.lines().count(), 40);
        engine
            .update_export(&operator(), &id, &gatelog::engine::ExportChange::default())
            .await
            .unwrap();
        engine.maintain(Job::Expire, false).await.unwrap();
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_breaks_off_at_once_and_takes_the_upload_back() {
    let place = Place::new();
    let engine = place.node("a").await;
    engine.append(big(0..40)).await.unwrap();
    place.shut();
    let id = started(&engine, &["id", "request"]).await;
    place.somebody_waits().await;
    let going = shown(&engine, &id);
    assert_eq!(going.status.name(), "in_progress");
    assert!(
        going.records_written.unwrap() > 0 && going.bytes_written.unwrap() > 1 << 20,
        "{going:?}"
    );
    let waiting = started(&engine, &["id"]).await;
    assert_eq!(
        shown(&engine, &waiting).records_written,
        None,
        "of one organisation one is written at a time"
    );
    engine.cancel_export(&operator(), &id).await.unwrap();
    assert_eq!(shown(&engine, &id).status.name(), "stopped");
    until("the upload is taken back", || place.gate.aborted.load(Ordering::SeqCst) == 1).await;
    place.open();
    assert_eq!(
        ended(&engine, &waiting).await.status.name(),
        "success",
        "the next one has its turn"
    );
    assert_eq!(shown(&engine, &id).status.name(), "stopped");
    assert_eq!(place.files().await.len(), 1);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_file_stays_while_nothing_that_is_in_it_may_be_seen_less() {
    let place = Place::new();
    let engine = place.node("a").await;
    engine.append(vec![record("a"), record("b")]).await.unwrap();
    let held = shown(&engine, &started(&engine, &["id"]).await).organisation_id;
    assert_eq!(held, None);
    let id = started(&engine, &["id"]).await;
    ended(&engine, &id).await;
    let create = async |name: &'static str| {
        let new = gatelog::engine::Organisation::new("developer", engine.now());
        let create = |document: &mut Document| {
            document.create_organisation(name, new.clone(), 0).map(|_| ())
        };
        engine.catalog().change(create).await.unwrap();
        shown(&engine, &id).file_gone
    };
    assert_eq!(create("new").await, None, "no record of it was written");
    let gone = create(gatelog::ingest::DEFAULT_ORGANISATION).await.unwrap();
    assert!(gone.starts_with("records are kept shorter"), "{gone}");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_progress_begins_anew_after_a_restart() {
    let place = Place::new();
    let (engine, id) = place.writing().await;
    engine.close().await.unwrap();
    place.open();
    assert!(place.files().await.is_empty());
    let engine = place.node("a").await;
    assert_eq!(ended(&engine, &id).await.records_written, Some(2));
    assert_eq!(place.text().await, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_writes_another_stops_it_and_takes_over() {
    let place = Place::new();
    let a = place.node("a").await;
    a.append(vec![record("a")]).await.unwrap();
    a.flush().await.unwrap();
    until("the first node does upkeep", || a.maintenance_state().holder.is_some()).await;
    let b = place.node("b").await;
    // Said on one node, done by the other.
    let id = started(&b, &["id"]).await;
    assert_eq!(ended(&b, &id).await.status.name(), "success");
    assert_eq!(place.files().await.len(), 1);
    let (_, file) = {
        let (token, _) = b.export_token(&operator(), &id).await.unwrap();
        b.open_export(&token).unwrap()
    };
    let read: Vec<Bytes> = b.read_export(&file, 0..file.bytes).try_collect().await.unwrap();
    assert_eq!(read.concat(), b"{\"id\":\"a\"}\n");

    place.shut();
    let stopped = started(&b, &["id"]).await;
    place.somebody_waits().await;
    assert_eq!(place.gate.waiting.load(Ordering::SeqCst), 1, "one node writes");
    b.cancel_export(&operator(), &stopped).await.unwrap();
    until("the other node hears of it", || shown(&a, &stopped).status.name() == "stopped").await;
    let left = started(&b, &["id"]).await;
    until("the place is free again", || place.gate.waiting.load(Ordering::SeqCst) == 2).await;
    a.close().await.unwrap();
    place.open();
    assert_eq!(ended(&b, &left).await.status.name(), "success", "the other node took over");
    assert_eq!(shown(&b, &stopped).status.name(), "stopped");
    assert_eq!(place.files().await.len(), 2);
    b.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_while_a_file_is_written_is_not_in_it() {
    let place = Place::new();
    let (engine, id) = place.writing().await;
    engine.erase("default", ErasureSelector::Ids(vec!["a".to_owned()]), "test").await.unwrap();
    place.open();
    assert_eq!(ended(&engine, &id).await.records_written, Some(1));
    assert_eq!(place.text().await, "{\"id\":\"b\"}\n");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_retention_stops_what_is_being_written_too() {
    let place = Place::new();
    let (engine, id) = place.writing().await;
    // As another node does that is started with another `retention_days`; the records are older
    // than a day.
    let shorten = |document: &mut Document| Ok(document.set_unknown_days(1, chrono::Utc::now()));
    engine.catalog().change(shorten).await.unwrap();
    place.open();
    assert_eq!(ended(&engine, &id).await.records_written, Some(0));
    assert_eq!(place.text().await, "");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_a_file_that_was_replaced_goes_at_once() {
    let place = Place::new();
    let engine = place.node("a").await;
    engine.append(big(0..40)).await.unwrap();
    let id = started(&engine, &["id", "request"]).await;
    ended(&engine, &id).await;
    let first = place.files().await;
    // Packed it has two parts.
    place.gate.left.store(1, Ordering::SeqCst);
    place.gate.full.store(true, Ordering::SeqCst);
    engine.start_export(&operator(), &id).await.unwrap();
    let failed = ended(&engine, &id).await.error.unwrap();
    let written =
        failed.strip_prefix("no space left on the device, ").unwrap_or_else(|| panic!("{failed}"));
    let (bytes, remedy) = written.split_once(' ').unwrap();
    assert_eq!(remedy, "bytes written; free space, then start the export again");
    // The first part of a file has 5 MiB.
    assert!([0, 5 << 20].contains(&bytes.parse::<u64>().unwrap()), "whole parts: {failed}");
    engine.start_export(&operator(), &id).await.unwrap();
    assert_eq!(ended(&engine, &id).await.status.name(), "success");
    let deadline = Instant::now() + Duration::from_secs(60);
    while place.files().await.len() > 1 {
        assert!(Instant::now() < deadline, "never: the former file is deleted, without upkeep");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(place.files().await, first);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_job_knows_of_are_deleted_after_the_grace_time() {
    let place = Place::new();
    let engine = place.node("a").await;
    engine.append(vec![record("a")]).await.unwrap();
    let id = started(&engine, &["id"]).await;
    ended(&engine, &id).await;
    let put = |name: &str| {
        let (memory, path) = (Arc::clone(&place.memory), engine.store().export_path(name));
        async move { memory.put_opts(&path, "x".into(), PutOptions::default()).await.unwrap() }
    };
    put("01990000-0000-7000-8000-000000000000.jsonl").await;
    put("notes.txt").await;
    let dry = engine.maintain(Job::Expire, true).await.unwrap();
    assert!(dry.lines.is_empty(), "it is young, and may be about to be named: {:?}", dry.lines);
    engine.close().await.unwrap();
    let config = Config { vacuum_grace_seconds: 0, flush_seconds: 3600, ..Config::default() };
    let engine =
        Engine::open_with(config, place.parts(&place.folder.path().join("a"))).await.unwrap();
    let dry = engine.maintain(Job::Expire, true).await.unwrap();
    assert_eq!(dry.lines, ["delete export file `01990000-0000-7000-8000-000000000000.jsonl`"]);
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(place.files().await.len(), 2, "that of the job, and what is none of ours");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_named_while_files_are_cleared_away_is_kept() {
    let place = Place::new();
    let engine = Arc::new(place.node_with_grace("a", 0).await);
    engine.append(vec![record("a")]).await.unwrap();
    let clear = || {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.maintain(Job::Expire, false).await.unwrap().lines })
    };
    place.shut();
    let id = started(&engine, &["id"]).await;
    place.somebody_waits().await;
    // The job succeeds between the begin of the clearing and its list.
    place.gate.lists.send_replace(false);
    let cleared = clear();
    until("files are listed", || place.gate.listing.load(Ordering::SeqCst) == 1).await;
    place.open();
    assert_eq!(ended(&engine, &id).await.status.name(), "success");
    place.gate.lists.send_replace(true);
    assert!(cleared.await.unwrap().is_empty());
    assert_eq!(place.text().await, "{\"id\":\"a\"}\n");

    // What nobody knows of may be what another node is about to tell of, as long as a job is in
    // progress.
    let orphan = engine.store().export_path("01990000-0000-7000-8000-000000000000.jsonl");
    place.memory.put_opts(&orphan, "x".into(), PutOptions::default()).await.unwrap();
    place.shut();
    let other = started(&engine, &["id"]).await;
    place.somebody_waits().await;
    assert!(clear().await.unwrap().is_empty());
    place.open();
    assert_eq!(ended(&engine, &other).await.status.name(), "success");
    assert_eq!(clear().await.unwrap().len(), 1);
    let left = place.files().await;
    assert!(left.len() == 2 && !left.contains(&orphan), "{left:?}");
    engine.close().await.unwrap();
}
