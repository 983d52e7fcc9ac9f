//! Failing disks and stores: one fault at every place in turn, then a restart, then a count of what
//! was acked.

use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use gatelog::config::Schedule;
use gatelog::engine::{Access, Dependencies, RecordPart};
use gatelog::record::Feedback;
use gatelog::store::Store;
use gatelog::{Config, Engine, ErrorKind, Job, Params};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

use super::engine::{ids, record};
use super::forgetful::{Fault, Forgetful};

/// A store that fails one write, the one that `countdown` reaches, before it happens or after it
/// did; or one that takes no Parquet file at all.
#[derive(Debug)]
struct Faulty {
    inner: Arc<InMemory>,
    countdown: AtomicI64,
    happens: bool,
    takes_files: bool,
}

impl Faulty {
    fn over(inner: &Arc<InMemory>, countdown: i64, happens: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            countdown: AtomicI64::new(countdown),
            happens,
            takes_files: true,
        })
    }

    fn without_files(inner: &Arc<InMemory>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            countdown: AtomicI64::new(-1),
            happens: true,
            takes_files: false,
        })
    }

    fn writes(&self) -> i64 {
        -self.countdown.load(Ordering::SeqCst)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let failed =
            || object_store::Error::Generic { store: "Faulty", source: "the store says no".into() };
        let fails = self.countdown.fetch_sub(1, Ordering::SeqCst) == 0;
        let is_file = at.extension() == Some("parquet") && !at.as_ref().contains("_delta_log");
        if (fails && !self.happens) || (is_file && !self.takes_files) {
            return Err(failed());
        }
        let done = self.inner.put_opts(at, payload, options).await?;
        if fails { Err(failed()) } else { Ok(done) }
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
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
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn parts(store: Arc<dyn ObjectStore>, log: &FilePath) -> Dependencies {
    let store = Store::with(store, Url::parse("memory:///state").unwrap()).unwrap();
    Dependencies { store: Some(store), log_folder: Some(log.to_owned()), ..Dependencies::default() }
}

fn quiet() -> Config {
    Config {
        flush_seconds: 3600,
        compact_schedule: Schedule::never(),
        vacuum_schedule: Schedule::never(),
        append_wait_ms: 200,
        ..Config::default()
    }
}

/// What was acked: ids of records, whole and in halves, and of feedback.
#[derive(Debug, Default, PartialEq)]
struct Acked {
    records: Vec<String>,
    feedback: Vec<String>,
}

/// Appends, flushes and merges until something fails; answers what was acked.
async fn workload(parts: Dependencies) -> Acked {
    let mut acked = Acked::default();
    let Ok(engine) = Engine::open_with(quiet(), parts).await else { return acked };
    let operator = Access::operator("test");
    for round in 1..4 {
        for n in 0..2 {
            let id = format!("{round}{n}");
            if engine.append(vec![record(&id)]).await.is_ok() {
                acked.records.push(id);
            }
        }
        // Half of a record in each round, whose other half comes a flush later.
        let (figures, content) = (format!("{round}h"), format!("{}h", round - 1));
        if acked.records.contains(&content) {
            // Whether it is taken or not, the record is one.
            let _ = engine
                .append_parts_as(&operator, vec![(RecordPart::Content, record(&content))])
                .await;
        }
        if engine
            .append_parts_as(&operator, vec![(RecordPart::Figures, record(&figures))])
            .await
            .is_ok()
        {
            acked.records.push(figures);
        }
        let given = Feedback { id: Some(format!("f{round}")), ..Feedback::default() };
        if let Ok(ids) = engine.append_feedback_as(&operator, vec![given]).await {
            acked.feedback.extend(ids);
        }
        // A failed flush leaves the rows in the log, which is what this is about.
        let _ = engine.flush().await;
    }
    let _ = engine.maintain(Job::Compact, false).await;
    let _ = engine.maintain(Job::Checkpoint, false).await;
    let _ = engine.close().await;
    acked
}

#[tokio::test]
async fn a_store_that_fails_once_at_any_write_loses_and_doubles_nothing() {
    let clean = Faulty::over(&Arc::new(InMemory::new()), 0, true);
    clean.countdown.store(-1, Ordering::SeqCst);
    let log = tempfile::tempdir().unwrap();
    let acked = workload(parts(Arc::clone(&clean) as Arc<dyn ObjectStore>, log.path())).await;
    assert_eq!((acked.records.len(), acked.feedback.len()), (9, 3));
    let writes = clean.writes();
    assert!(writes > 8, "{writes} writes");
    for happens in [false, true] {
        for place in 0..writes {
            let (store, log) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
            let acked = workload(parts(Faulty::over(&store, place, happens), log.path())).await;
            let engine = Engine::open_with(quiet(), parts(store, log.path())).await.unwrap();
            let found =
                Acked { records: ids(&engine.reader()).await, feedback: feedback(&engine).await };
            assert_eq!(found, acked, "write {place} failed, happened: {happens}");
            engine.append(vec![record("z")]).await.unwrap();
            engine.close().await.unwrap();
        }
    }
}

/// Flushes until no part waits for its record, the engine takes no more writes, or so often that
/// something must be wrong.
async fn settle(engine: &Engine) {
    for _ in 0..500 {
        let _ = engine.flush().await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        if engine.status().waiting_halves == 0 || !engine.status().writable {
            return;
        }
    }
}

#[tokio::test]
async fn a_late_part_is_in_its_record_though_adding_it_fails_once_at_any_write() {
    let hasty = || Config { join_seconds: 0, ..quiet() };
    let operator = Access::operator("test");
    let mut writes = 1;
    for happens in [false, true] {
        let mut place = -1;
        while place < writes {
            let (store, log) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
            let engine =
                Engine::open_with(hasty(), parts(Arc::clone(&store) as Arc<_>, log.path()))
                    .await
                    .unwrap();
            engine
                .append_parts_as(&operator, vec![(RecordPart::Figures, record("a"))])
                .await
                .unwrap();
            engine.append(vec![record("b")]).await.unwrap();
            engine.close().await.unwrap();
            // The first run counts the writes, and fails at none of them.
            let faulty = Faulty::over(&store, place, happens);
            let request = gatelog::record::Message { body: Some("[1]".to_owned()), headers: None };
            let late = gatelog::Record { request, ..record("a") };
            let mut acked = false;
            if let Ok(engine) =
                Engine::open_with(hasty(), parts(Arc::clone(&faulty) as Arc<_>, log.path())).await
            {
                acked = engine
                    .append_parts_as(&operator, vec![(RecordPart::Content, late)])
                    .await
                    .is_ok();
                settle(&engine).await;
                let _ = engine.close().await;
            }
            if place < 0 {
                writes = faulty.writes();
                assert!(acked && writes > 3, "{writes} writes");
            }
            let engine = Engine::open_with(hasty(), parts(store, log.path())).await.unwrap();
            settle(&engine).await;
            assert_eq!(
                engine.status().waiting_halves,
                0,
                "write {place} failed, happened: {happens}"
            );
            assert_eq!(
                ids(&engine.reader()).await,
                ["a", "b"],
                "write {place} failed, happened: {happens}"
            );
            let answer = engine
                .sql("select id from logs where request.body is not null", &Params::new())
                .await
                .unwrap();
            let batches: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
            let whole = batches.iter().map(RecordBatch::num_rows).sum::<usize>() == 1;
            assert!(whole || !acked, "write {place} failed, happened: {happens}");
            engine.close().await.unwrap();
            place += 1;
        }
    }
}

async fn feedback(engine: &Engine) -> Vec<String> {
    let answer =
        engine.sql("select id from feedback_history order by id", &Params::new()).await.unwrap();
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
    let ids = batches.iter().flat_map(|batch| batch.column(0).as_string_view().iter().flatten());
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn after_a_failed_fsync_writes_are_refused_and_reads_go_on() {
    let (store, log) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let disk = Arc::new(Forgetful::new(log.path()));
    // The first group; the header of the segment is synced before the file has that name.
    disk.fail(Fault::sync(".wal$").after(1).for_ever());
    let files = Dependencies {
        log_disk: Some(disk),
        ..parts(Arc::clone(&store) as Arc<dyn ObjectStore>, log.path())
    };
    let engine = Engine::open_with(quiet(), files).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    let refused = engine.append(vec![record("b")]).await.unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Storage);
    let refused = engine.append(vec![record("c")]).await.unwrap_err();
    assert!(refused.error.message().contains("refused until a restart"), "{}", refused.error);
    assert_eq!(refused.records.len(), 1, "what was not tried comes back");
    assert!(!engine.status().writable);
    assert_eq!(ids(&engine.reader()).await, ["a"]);
    engine.close().await.unwrap();
    let engine = Engine::open_with(quiet(), parts(store, log.path())).await.unwrap();
    let found = ids(&engine.reader()).await;
    assert!(found == ["a"] || found == ["a", "b"], "{found:?}");
    engine.close().await.unwrap();
}

/// A store that takes no Parquet file: a full disk, as far as flushes can tell.
#[tokio::test]
async fn a_full_disk_means_waiting_then_a_refusal_that_gives_the_records_back() {
    let log = tempfile::tempdir().unwrap();
    let config = Config { memtable_bytes: 1 << 20, flush_bytes: 64 << 10, ..quiet() };
    let store = Arc::new(InMemory::new());
    let stuck = Faulty::without_files(&store);
    let engine = Engine::open_with(config.clone(), parts(stuck, log.path())).await.unwrap();
    let mut acked = Vec::new();
    let refused = loop {
        let id = format!("{:05}", acked.len());
        let text = format!("\"{}\"", "x".repeat(20_000));
        let body = gatelog::record::Message { body: Some(text), headers: None };
        match engine.append(vec![gatelog::Record { request: body, ..record(&id) }]).await {
            Ok(_) => acked.push(id),
            Err(refused) => break refused,
        }
        assert!(acked.len() < 1000, "memory grows without a bound");
    };
    assert_eq!((refused.error.kind(), refused.records.len()), (ErrorKind::Busy, 1));
    assert_eq!(ids(&engine.reader()).await, acked);
    let _ = engine.close().await;
    let engine = Engine::open_with(config, parts(store, log.path())).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, acked, "the log has all of them");
    engine.close().await.unwrap();
}
