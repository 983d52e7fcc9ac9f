//! How many requests the common things take of an object store, by kind, as fixed numbers: each is
//! a round trip of tens of milliseconds to a bucket, and some of them cost money. A store in memory
//! counts what S3 would be sent: of a read of many ranges each one that lies far from the others.
//!
//! The table has thirty days, a file each. "Cold" is the first query of an engine; for a "warm" one
//! the footers are in memory. With the disk cache, which a bucket has, cold means a new disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Duration, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use gatelog::engine::Dependencies;
use gatelog::store::Store;
use gatelog::store::cache::DiskCache;
use gatelog::{Config, Engine, ErrorKind, Params, Record};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use url::Url;
use uuid::Uuid;

const DAYS: i64 = 30;
const A_DAY: usize = 200;

/// Counts requests by kind and by what they are for; or fails all of them.
#[derive(Debug, Default)]
struct Counting {
    inner: InMemory,
    seen: Mutex<BTreeMap<String, u64>>,
    away: std::sync::atomic::AtomicBool,
}

impl Counting {
    fn count(&self, kind: &str, at: &Path) -> Result<()> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(object_store::Error::Generic {
                store: "Counting",
                source: "nobody answers".into(),
            });
        }
        let of = match at.as_ref() {
            path if path.contains("_delta_log/_last_checkpoint") => "checkpoint hint",
            path if path.contains("_delta_log") => "log",
            path if path.ends_with(".parquet") => "file",
            path if path.contains("usage") => "usage",
            path if path.ends_with("catalog.json") => "catalog",
            // Who does upkeep, and who has the log, is renewed by the clock, whatever else goes on.
            path if path.ends_with("upkeep.json") || path.contains("/nodes/") => return Ok(()),
            path => path,
        };
        *self.seen.lock().entry(format!("{kind} {of}")).or_insert(0) += 1;
        Ok(())
    }

    /// What was counted since the last time.
    fn taken(&self) -> String {
        let seen = std::mem::take(&mut *self.seen.lock());
        let lines: Vec<String> =
            seen.iter().map(|(what, count)| format!("{count} {what}")).collect();
        if lines.is_empty() { "none".to_owned() } else { lines.join(", ") }
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.count("put", at)?;
        self.inner.put_opts(at, payload, options).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.count("multipart", at)?;
        self.inner.put_multipart_opts(at, options).await
    }
    // `get_ranges` is the trait's own, which makes one of ranges that lie together, as the client
    // of S3 does.
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.count(if options.head { "head" } else { "get" }, at)?;
        self.inner.get_opts(at, options).await
    }
    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let _ = self.count("delete", &Path::from("some"));
        self.inner.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let _ = self.count("list", prefix.unwrap_or(&Path::default()));
        self.inner.list(prefix)
    }
    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let _ = self.count("list", prefix.unwrap_or(&Path::default()));
        self.inner.list_with_offset(prefix, offset)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count("list", prefix.unwrap_or(&Path::default()))?;
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count("copy", from)?;
        self.inner.copy_opts(from, to, options).await
    }
}

fn day(number: i64) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-10-01T00:00:00Z").unwrap().to_utc() + Duration::days(number)
}

/// A record of a day whose id, like one that gatelog makes, begins with the time.
fn record(of_day: i64, number: usize) -> Record {
    let created_at = day(of_day) + Duration::seconds(number as i64 * 60);
    let bits = u128::from(created_at.timestamp_millis().unsigned_abs()) << 80
        | 7 << 76
        | 2 << 62
        | number as u128;
    Record {
        id: Some(Uuid::from_u128(bits).to_string()),
        created_at: Some(created_at),
        ai_model: Some("gpt-4o".to_owned()),
        cost: Some(1.0),
        response_status_code: Some(200),
        ..Record::default()
    }
}

/// What is between the engine and the store.
#[derive(Clone, Copy, PartialEq)]
enum Cache {
    None,
    Disk,
}

async fn open(store: &Arc<Counting>, log: &FilePath, cache: Cache) -> Engine {
    let mut config = Config {
        flush_seconds: 3600,
        refresh_seconds: 60,
        // Else the ids of new files are read at the start, and their footers with them.
        dedupe_hours: 0,
        ..Config::default()
    };
    for job in ["compact", "expire", "vacuum", "checkpoint", "clean_log"] {
        config.set(&format!("{job}_schedule"), "never").unwrap();
    }
    let mut objects = Arc::clone(store) as Arc<dyn ObjectStore>;
    if cache == Cache::Disk {
        objects = Arc::new(DiskCache::new(objects, log.join("cache"), "memory", 1 << 30));
    }
    let place = Store::with(objects, Url::parse("memory:///state").unwrap()).unwrap();
    let parts = Dependencies {
        store: Some(place),
        log_folder: Some(log.to_owned()),
        ..Dependencies::default()
    };
    Engine::open_with(config, parts).await.unwrap()
}

/// A month of records in a counted store, and an engine that has read nothing of them yet.
async fn bed(cache: Cache) -> (Arc<Counting>, tempfile::TempDir, Engine) {
    let (store, log) = (Arc::new(Counting::default()), tempfile::tempdir().unwrap());
    let engine = open(&store, log.path(), cache).await;
    for of_day in 0..DAYS {
        engine.append((0..A_DAY).map(|number| record(of_day, number)).collect()).await.unwrap();
    }
    engine.flush().await.unwrap();
    assert_eq!(engine.status().files, DAYS.unsigned_abs());
    engine.close().await.unwrap();
    let engine = open(&store, log.path(), cache).await;
    store.taken();
    (store, log, engine)
}

async fn rows(engine: &Engine, query: &str) -> gatelog::Result<usize> {
    let batches: Vec<_> = engine.sql(query, &Params::new()).await?.batches.try_collect().await?;
    Ok(batches.iter().map(|batch: &arrow::array::RecordBatch| batch.num_rows()).sum())
}

#[tokio::test]
async fn a_report_over_one_day_reads_one_file() {
    // The footer; the column of the day; the other columns. The file is small, so the
    // cache has it whole.
    for (cache, cold, warm) in
        [(Cache::None, "3 get file", "2 get file"), (Cache::Disk, "1 get file", "none")]
    {
        let (store, _log, engine) = bed(cache).await;
        for expected in [cold, warm] {
            let time = |at: DateTime<Utc>| serde_json::Value::from(at.to_rfc3339());
            let params = Params::from([
                ("from".to_owned(), time(day(10))),
                ("to".to_owned(), time(day(11))),
            ]);
            let answer = engine.report("spend_by_model", &params).await.unwrap();
            let batches: Vec<arrow::array::RecordBatch> =
                answer.batches.try_collect().await.unwrap();
            assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
            assert_eq!(store.taken(), expected);
        }
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_look_up_by_id_reads_the_file_that_has_it() {
    // The footer; the page index; the bloom filter; the ids; the other columns.
    for (cache, cold, warm) in
        [(Cache::None, "5 get file", "4 get file"), (Cache::Disk, "1 get file", "none")]
    {
        let (store, _log, engine) = bed(cache).await;
        let id = record(7, 100).id.unwrap();
        for expected in [cold, warm] {
            assert_eq!(
                rows(&engine, &format!("select * from logs where id = '{id}'")).await.unwrap(),
                1
            );
            assert_eq!(store.taken(), expected);
        }
        // The time in the id says that no file has it.
        let unknown = "select * from logs where id = '01a00000-0000-7000-8000-000000000000'";
        assert_eq!(rows(&engine, unknown).await.unwrap(), 0);
        assert_eq!(store.taken(), "none");
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_the_index_in_memory_knows_takes_no_request() {
    let (store, _log, engine) = bed(Cache::None).await;
    let count = "select count(*), min(created_at), max(created_at) from logs";
    assert_eq!(rows(&engine, count).await.unwrap(), 1);
    assert_eq!(
        rows(&engine, "select id from logs where created_at >= '2027-01-01'").await.unwrap(),
        0
    );
    engine.append(vec![record(29, A_DAY)]).await.unwrap();
    assert_eq!(store.taken(), "none", "an append is the log's business");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_flush_puts_files_counts_and_a_commit() {
    let (store, _log, engine) = bed(Cache::None).await;
    for round in 0..3 {
        engine.append(vec![record(29, A_DAY + round)]).await.unwrap();
        engine.flush().await.unwrap();
        assert_eq!(
            store.taken(),
            "1 head log, 1 put file, 1 put log, 1 put usage",
            "flush {round}"
        );
    }
    engine.append((0..DAYS).map(|of_day| record(of_day, A_DAY + 9)).collect()).await.unwrap();
    engine.flush().await.unwrap();
    assert_eq!(
        store.taken(),
        "1 head log, 30 put file, 1 put log, 1 put usage",
        "a file for each day"
    );
    engine.flush().await.unwrap();
    assert_eq!(store.taken(), "none", "nothing to flush");
    engine.close().await.unwrap();
    assert_eq!(store.taken(), "none");
}

/// A store that is away is reported as such, whether a footer is read or, with that in memory, the
/// rows.
#[tokio::test]
async fn a_store_that_does_not_answer_is_no_damage() {
    let (store, _log, engine) = bed(Cache::None).await;
    let query = "select sum(cost) from logs where created_at < '2026-10-05'";
    let away = |away| store.away.store(away, std::sync::atomic::Ordering::Relaxed);
    for footers in ["cold", "warm"] {
        away(true);
        let error = rows(&engine, query).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{footers}: {error:?}");
        assert!(error.chain().contains("nobody answers"), "{error:?}");
        away(false);
        assert_eq!(rows(&engine, query).await.unwrap(), 1);
    }
    engine.close().await.unwrap();
}
