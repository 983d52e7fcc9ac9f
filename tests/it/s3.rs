//! One contract for every kind of store: in memory, on disk, and in a bucket of a real S3 server.
//! Then what only a bucket has: settings that are wrong, a cache on disk, and a server that goes
//! away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt};
use gatelog::config::Secret;
use gatelog::engine::{Access, Dependencies, Document, NewExport};
use gatelog::record::{Message, Rows};
use gatelog::store::{Store, data_path};
use gatelog::table::{Commit, DataFile, Table};
use gatelog::{Config, Engine, Error, ErrorKind, ExportRequest, Job, Params, Reader, Record};
use object_store::buffered::BufWriter;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use url::Url;
use uuid::Uuid;

use crate::engine::{ids, record};
use crate::exports::big;
use crate::seaweedfs::{self, Weed};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Memory,
    Disk,
    Bucket,
}

/// A fresh place of one kind, and folders for the logs of nodes that write to it.
struct Place {
    kind: Kind,
    nodes: TempDir,
    config: Config,
    memory: Arc<InMemory>,
}

/// One place of every kind.
async fn places() -> [Place; 3] {
    let mut places = [Kind::Memory, Kind::Disk, Kind::Bucket].map(|kind| {
        let nodes = tempfile::tempdir().unwrap();
        let data = nodes.path().join("data").display().to_string();
        Place { kind, config: Config { data, ..Config::default() }, nodes, memory: Arc::default() }
    });
    places[2].config = seaweedfs::shared().config(places[2].nodes.path()).await;
    places
}

impl Place {
    /// A handle of its own, as another process would have it.
    fn store(&self) -> Store {
        match self.kind {
            Kind::Memory => Store::with(
                Arc::clone(&self.memory) as Arc<dyn ObjectStore>,
                Url::parse("memory:///state").unwrap(),
            )
            .unwrap(),
            Kind::Disk | Kind::Bucket => Store::open(&self.config, true).unwrap(),
        }
    }

    /// The engine of a node, with what its log holds. On disk there is room for one.
    async fn engine(&self, node: &str) -> Engine {
        let wal = self.nodes.path().join(node).display().to_string();
        let config = Config { wal: wal.clone(), ..quiet(&self.config) };
        match self.kind {
            Kind::Memory => {
                let parts = Dependencies {
                    store: Some(self.store()),
                    log_folder: Some(wal.into()),
                    ..Dependencies::default()
                };
                Engine::open_with(config, parts).await.unwrap()
            }
            Kind::Disk | Kind::Bucket => Engine::open(config).await.unwrap(),
        }
    }
}

/// Settings under which nothing happens that a test did not ask for.
fn quiet(config: &Config) -> Config {
    let mut config =
        Config { flush_seconds: 3600, append_wait_ms: 200, refresh_seconds: 60, ..config.clone() };
    for job in ["compact", "expire", "vacuum", "checkpoint", "clean_log"] {
        config.set(&format!("{job}_schedule"), "never").unwrap();
    }
    config
}

async fn text(store: &Store, path: &Path) -> String {
    let bytes = store.object_store().get(path).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn objects_are_made_once_changed_on_condition_and_deleted() {
    for place in places().await {
        let (store, kind) = (place.store(), place.kind);
        let (objects, path) = (store.object_store(), store.export_path("a.jsonl"));
        let missing = objects.get(&path).await.unwrap_err();
        assert!(matches!(missing, object_store::Error::NotFound { .. }), "{kind:?}: {missing}");
        assert!(
            matches!(objects.head(&path).await, Err(object_store::Error::NotFound { .. })),
            "{kind:?}"
        );

        let create = || PutOptions::from(PutMode::Create);
        let first = objects.put_opts(&path, "one".into(), create()).await.unwrap();
        let again =
            place.store().object_store().put_opts(&path, "two".into(), create()).await.unwrap_err();
        assert!(matches!(again, object_store::Error::AlreadyExists { .. }), "{kind:?}: {again}");
        assert_eq!(text(&store, &path).await, "one", "{kind:?}");

        let version = |put: &object_store::PutResult| {
            PutOptions::from(PutMode::Update(UpdateVersion {
                e_tag: put.e_tag.clone(),
                version: put.version.clone(),
            }))
        };
        let changed = objects.put_opts(&path, "three".into(), version(&first)).await;
        if kind == Kind::Disk {
            // There the catalog is changed under a lock instead.
            assert!(
                matches!(changed, Err(object_store::Error::NotImplemented { .. })),
                "{changed:?}"
            );
        } else {
            let changed = changed.unwrap();
            let stale = objects.put_opts(&path, "four".into(), version(&first)).await.unwrap_err();
            assert!(matches!(stale, object_store::Error::Precondition { .. }), "{kind:?}: {stale}");
            assert_eq!(text(&store, &path).await, "three", "{kind:?}");
            let meta = objects.head(&path).await.unwrap();
            assert_eq!((meta.e_tag, meta.size), (changed.e_tag, 5), "{kind:?}");
            let gone = store.export_path("gone");
            let gone = objects.put_opts(&gone, "x".into(), version(&first)).await.unwrap_err();
            assert!(matches!(gone, object_store::Error::Precondition { .. }), "{kind:?}: {gone}");
        }
        objects.put(&path, "five".into()).await.unwrap();
        assert_eq!(text(&place.store(), &path).await, "five", "{kind:?}");
        objects.delete(&path).await.unwrap();
        assert!(
            matches!(objects.head(&path).await, Err(object_store::Error::NotFound { .. })),
            "{kind:?}"
        );
        objects.put_opts(&path, "six".into(), create()).await.unwrap();
    }
}

#[tokio::test]
async fn one_of_many_that_create_at_once_wins() {
    for place in places().await {
        let path = place.store().export_path("race");
        let racers = (0..16).map(|racer| {
            let (store, path) = (place.store(), path.clone());
            async move {
                let put = store
                    .object_store()
                    .put_opts(&path, format!("{racer}").into(), PutMode::Create.into())
                    .await;
                put.is_ok().then_some(racer)
            }
        });
        let won: Vec<i32> = futures::future::join_all(racers).await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "{:?}", place.kind);
        assert_eq!(text(&place.store(), &path).await, won[0].to_string(), "{:?}", place.kind);
    }
}

#[tokio::test]
async fn lists_are_whole_and_in_order() {
    for place in places().await {
        let (store, kind) = (place.store(), place.kind);
        // More than S3 answers at once.
        let count = if kind == Kind::Bucket { 1_050 } else { 50 };
        let folder = store.exports_path();
        let paths: Vec<Path> =
            (0..count).map(|n| folder.clone().join("many").join(format!("{n:05}"))).collect();
        let puts = paths.iter().map(|path| store.object_store().put(path, "x".into()));
        futures::stream::iter(puts).buffer_unordered(16).try_collect::<Vec<_>>().await.unwrap();
        store.object_store().put(&folder.clone().join("top"), "x".into()).await.unwrap();

        let listed = |found: Vec<object_store::ObjectMeta>| {
            let mut found: Vec<Path> = found.into_iter().map(|meta| meta.location).collect();
            if kind != Kind::Bucket {
                found.sort();
            }
            found
        };
        let many = folder.clone().join("many");
        let found = store.object_store().list(Some(&many)).try_collect().await.unwrap();
        assert_eq!(listed(found), paths, "{kind:?}");
        let offset = &paths[count - 10];
        let found =
            store.object_store().list_with_offset(Some(&many), offset).try_collect().await.unwrap();
        assert_eq!(listed(found), paths[count - 9..], "{kind:?}");
        let top = store.object_store().list_with_delimiter(Some(&folder)).await.unwrap();
        assert_eq!(top.common_prefixes, std::slice::from_ref(&many), "{kind:?}");
        assert_eq!(listed(top.objects), [folder.clone().join("top")], "{kind:?}");

        let all = futures::stream::iter(paths.clone()).map(Ok).boxed();
        let deleted: Vec<Path> =
            store.object_store().delete_stream(all).try_collect().await.unwrap();
        assert_eq!(deleted.len(), count, "{kind:?}");
        assert!(store.object_store().list(Some(&many)).next().await.is_none(), "{kind:?}");
    }
}

#[tokio::test]
async fn big_files_go_up_in_parts_and_are_seen_when_whole() {
    let bytes: Vec<u8> = (0..25 << 20).map(|at: u32| (at ^ (at >> 9)) as u8).collect();
    for place in places().await {
        let (store, kind) = (place.store(), place.kind);
        let path = store.export_path("big");
        let mut writer = BufWriter::new(Arc::clone(store.object_store()), path.clone());
        for fragment in bytes.chunks(1 << 20) {
            writer.write_all(fragment).await.unwrap();
        }
        assert!(
            store.object_store().head(&path).await.is_err(),
            "{kind:?}: seen before it is whole"
        );
        writer.shutdown().await.unwrap();
        let found = store.object_store().get(&path).await.unwrap().bytes().await.unwrap();
        assert!(found == bytes, "{kind:?}: {} bytes", found.len());
        if kind == Kind::Bucket {
            let e_tag = store.object_store().head(&path).await.unwrap().e_tag.unwrap();
            assert!(e_tag.contains("-3"), "{e_tag} is not that of an object in three parts");
        }
        // Apart, overlapping, out of order, and wider than one request.
        let ranges =
            [20 << 20..(20 << 20) + 7, 5..10, 8..12, 1 << 20..19 << 20, (25 << 20) - 3..25 << 20];
        let parts = store.object_store().get_ranges(&path, &ranges).await.unwrap();
        for (range, part) in ranges.iter().zip(parts) {
            assert!(part == bytes[range.start as usize..range.end as usize], "{kind:?}: {range:?}");
        }
        let end = store.object_store().get_range(&path, (25 << 20) - 3..26 << 20).await.unwrap();
        assert_eq!(end, bytes[(25 << 20) - 3..], "{kind:?}");
        assert!(
            store.object_store().get_range(&path, 25 << 20..26 << 20).await.is_err(),
            "{kind:?}: past the end"
        );

        let path = store.export_path("given-up");
        let mut writer = BufWriter::new(Arc::clone(store.object_store()), path.clone());
        writer.write_all(&bytes[..12 << 20]).await.unwrap();
        writer.abort().await.unwrap();
        assert!(store.object_store().head(&path).await.is_err(), "{kind:?}");
    }
}

const DAY: i32 = 20_778;

fn file(number: u128) -> DataFile {
    let start = i64::from(DAY) * 86_400_000_000;
    DataFile {
        path: data_path(30, DAY, Uuid::from_u128(number), false),
        bytes: 1000,
        rows: 10,
        retention_days: 30,
        date: DAY,
        modified_ms: start / 1000,
        min_created_at: start,
        max_created_at: start + 1,
        min_organisation: Some("a".to_owned()),
        max_organisation: Some("b".to_owned()),
        min_id: None,
        max_id: None,
    }
}

fn append(file: DataFile, app: &str, version: i64) -> Commit {
    let app = Some((app.to_owned(), version));
    Commit { add: vec![file], remove: Vec::new(), app, data_change: true, operation: "WRITE" }
}

#[tokio::test]
async fn two_handles_commit_to_one_table_and_lose_nothing() {
    for place in places().await {
        let kind = place.kind;
        let (one, two) = (place.store(), place.store());
        assert!(Table::open(&one, Rows::Logs).await.unwrap().is_none(), "{kind:?}");
        let opened = tokio::join!(
            Table::create_or_open(&one, Rows::Logs),
            Table::create_or_open(&two, Rows::Logs)
        );
        let tables = [opened.0.unwrap(), opened.1.unwrap()];
        let writers = tables.iter().enumerate().map(|(n, table)| async move {
            for version in 0..10 {
                let file = file(n as u128 * 100 + version as u128);
                table.commit(append(file, &format!("node-{n}"), version)).await.unwrap();
            }
            // The same transaction once more, as after an answer that was lost: it is there
            // already.
            table.commit(append(file(999), &format!("node-{n}"), 9)).await.unwrap();
        });
        futures::future::join_all(writers).await;
        for table in &tables {
            let index = table.refresh().await.unwrap();
            assert_eq!((index.len(), index.version), (20, 20), "{kind:?}");
            assert_eq!(table.app_version("node-0").await.unwrap(), Some(9), "{kind:?}");
            assert_eq!(table.app_version("node-1").await.unwrap(), Some(9), "{kind:?}");
        }
        // Both merge the same files: one does, the other is told to plan again.
        let paths: Vec<String> =
            tables[0].index().iter().take(2).map(|file| file.path.clone()).collect();
        let merge = |number| Commit {
            add: vec![file(number)],
            remove: paths.clone(),
            app: None,
            data_change: false,
            operation: "OPTIMIZE",
        };
        let merged = tokio::join!(tables[0].commit(merge(500)), tables[1].commit(merge(501)));
        let failed: Vec<Error> = [merged.0, merged.1].into_iter().filter_map(Result::err).collect();
        assert_eq!(
            failed.iter().map(Error::kind).collect::<Vec<_>>(),
            [ErrorKind::NotFound],
            "{kind:?}"
        );
        tables[0].checkpoint().await.unwrap();
        let again = Table::open(&place.store(), Rows::Logs).await.unwrap().unwrap();
        assert_eq!(again.index(), tables[1].refresh().await.unwrap(), "{kind:?}");
        assert_eq!((again.index().len(), again.commits_since_checkpoint()), (19, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn an_engine_keeps_and_finds_its_records() {
    for place in places().await {
        let kind = place.kind;
        let engine = place.engine("node").await;
        let body = |text: &str| Message { body: Some(format!("\"{text}\"")), headers: None };
        engine
            .append(vec![Record { request: body("hello"), ..record("a") }, record("b")])
            .await
            .unwrap();
        engine.flush().await.unwrap();
        engine.append(vec![record("c"), record("a")]).await.unwrap();
        assert_eq!(ids(&engine.reader()).await, ["a", "b", "c"], "{kind:?}");
        engine.append(vec![record("d")]).await.unwrap();
        engine.flush().await.unwrap();
        engine.append(vec![record("e")]).await.unwrap();
        engine.maintain(Job::Compact, false).await.unwrap();
        engine.maintain(Job::Checkpoint, false).await.unwrap();
        engine.maintain(Job::Vacuum, false).await.unwrap();
        let found =
            number(&engine.reader(), "select count(*) from logs where request.body like '%hello%'")
                .await;
        assert_eq!(found, 1, "{kind:?}");
        engine.close().await.unwrap();

        let engine = place.engine("node").await;
        assert_eq!(ids(&engine.reader()).await, ["a", "b", "c", "d", "e"], "{kind:?}");
        engine.append(vec![record("b"), record("f")]).await.unwrap();
        let columns = Some(vec!["id".to_owned()]);
        let lines =
            engine.export(&ExportRequest { columns, ..ExportRequest::default() }).await.unwrap();
        let mut lines: Vec<String> =
            String::from_utf8(lines.try_collect::<Vec<_>>().await.unwrap().concat())
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
        lines.sort();
        let expected: Vec<String> =
            ["a", "b", "c", "d", "e", "f"].map(|id| format!("{{\"id\":\"{id}\"}}")).into();
        assert_eq!(lines, expected, "{kind:?}");
        if kind != Kind::Memory {
            let config = Config {
                wal: place.nodes.path().join("node").display().to_string(),
                ..place.config.clone()
            };
            let beside = Reader::open(&config).await.unwrap();
            assert_eq!(
                ids(&beside).await,
                ["a", "b", "c", "d", "e", "f"],
                "{kind:?}: beside a running engine"
            );
        }
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn two_nodes_write_and_read_one_store_together() {
    for place in places().await.into_iter().filter(|place| place.kind != Kind::Disk) {
        let kind = place.kind;
        let (one, two) = (place.engine("one").await, place.engine("two").await);
        assert!(one.store().is_shared());
        for round in 0..5 {
            let append = |engine: &Engine, name: &str| {
                let (engine, id) = (engine.clone(), format!("{name}{round}"));
                async move {
                    engine.append(vec![record(&id)]).await.unwrap();
                    engine.flush().await.unwrap();
                }
            };
            tokio::join!(append(&one, "one"), append(&two, "two"));
        }
        let plans = |name: &str| {
            let mut config = Config::default();
            config.set("plans", &format!("[{name}]\nretention_days = 7\n")).unwrap();
            config.plans
        };
        for round in 0..5 {
            let change = |engine: &Engine, name: &str| {
                let (engine, name) = (engine.clone(), format!("{name}{round}"));
                let plans = plans(&name);
                let learn = move |document: &mut Document| {
                    document.learn_plan(&name, &plans);
                    Ok(())
                };
                async move { engine.catalog().change(learn).await }
            };
            let changed = tokio::join!(change(&one, "one"), change(&two, "two"));
            assert!(changed.0.is_ok() && changed.1.is_ok(), "{kind:?}");
        }
        for engine in [&one, &two] {
            engine.catalog().refresh().await.unwrap();
            assert_eq!(
                engine.catalog().state().document.plans.len(),
                10,
                "{kind:?}: a change was lost"
            );
            engine.close().await.unwrap();
        }
        let again = place.engine("one").await;
        let expected: Vec<String> = ["one", "two"]
            .iter()
            .flat_map(|name| (0..5).map(move |round| format!("{name}{round}")))
            .collect();
        assert_eq!(ids(&again.reader()).await, expected, "{kind:?}");
        again.close().await.unwrap();
    }
}

/// A node's folder is its own: a second process on it is refused, and what is not a node's may be
/// shared.
#[tokio::test]
async fn one_process_has_the_log_of_a_bucket() {
    let node = tempfile::tempdir().unwrap();
    let config = quiet(&seaweedfs::shared().config(node.path()).await);
    let engine = Engine::open(config.clone()).await.unwrap();
    let second = Engine::open(config).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Busy, "{second:?}");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_wrong_setting_is_told_at_the_start_and_by_name() {
    let node = tempfile::tempdir().unwrap();
    let good = Config {
        s3_session_token: Secret::default(),
        ..seaweedfs::shared().config(node.path()).await
    };
    let endpoint = seaweedfs::shared().endpoint();
    let secret = || Secret("another-secret".to_owned());
    let cases = [
        (
            Config { data: "s3://no-such-bucket/x".to_owned(), ..good.clone() },
            "there is no bucket `no-such-bucket` at",
        ),
        (
            Config { s3_secret_access_key: secret(), ..good.clone() },
            "refused the key (SignatureDoesNotMatch); check",
        ),
        (
            Config { s3_access_key_id: "nobody".to_owned(), ..good.clone() },
            "refused the key (InvalidAccessKeyId); check",
        ),
    ];
    for (config, words) in cases {
        let error = Engine::open(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{error:?}");
        assert!(error.message().contains(words) && error.message().contains(&endpoint), "{error}");
        assert!(!format!("{error:?}").contains("another-secret"), "{error:?}");
    }
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = Config { s3_endpoint: format!("http://127.0.0.1:{port}"), ..good };
    let started = Instant::now();
    let error = Engine::open(nobody.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error:?}");
    assert!(error.message().contains("does not answer; check `s3_endpoint`"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let error = Reader::open(&nobody).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Storage && error.chain().contains("does not answer"),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_was_read_once_comes_from_the_disk() {
    let node = tempfile::tempdir().unwrap();
    let config = quiet(&seaweedfs::shared().config(node.path()).await);
    let engine = Engine::open(config.clone()).await.unwrap();
    engine.append((0..100).map(|n| record(&format!("{n:03}"))).collect()).await.unwrap();
    engine.flush().await.unwrap();
    let query = "select count(*) from logs where id >= '050'";
    assert_eq!(number(&engine.reader(), query).await, 50);
    let cold = engine.store().cache_stats().unwrap();
    assert!(cold.misses > 0 && cold.bytes > 0, "{cold:?}");
    engine.close().await.unwrap();
    assert!(node.path().join("wal/cache").is_dir());

    let engine = Engine::open(config.clone()).await.unwrap();
    assert_eq!(number(&engine.reader(), query).await, 50);
    let warm = engine.store().cache_stats().unwrap();
    assert!(warm.misses == 0 && warm.hits > 0, "{warm:?}");
    engine.close().await.unwrap();

    let uncached = Config { disk_cache_bytes: 0, ..config };
    let engine = Engine::open(uncached).await.unwrap();
    assert_eq!(number(&engine.reader(), query).await, 50);
    assert_eq!(engine.store().cache_stats(), None);
    engine.close().await.unwrap();
}

async fn number(reader: &Reader, query: &str) -> i64 {
    try_number(reader, query).await.unwrap()
}

async fn try_number(reader: &Reader, query: &str) -> gatelog::Result<i64> {
    let batches: Vec<RecordBatch> =
        reader.sql(query, &Params::new()).await?.batches.try_collect().await?;
    Ok(batches[0].column(0).as_primitive::<Int64Type>().value(0))
}

/// Appends until it is refused, and says which ids were acked.
async fn fill(engine: &Engine, acked: &mut Vec<String>) -> Error {
    let text = format!("\"{}\"", "x".repeat(10_000));
    loop {
        let id = format!("{:06}", acked.len());
        let request = Message { body: Some(text.clone()), headers: None };
        match engine.append(vec![Record { request, ..record(&id) }]).await {
            Ok(_) => acked.push(id),
            Err(refused) => return refused.error,
        }
        assert!(acked.len() < 5_000, "nothing bounds what waits for a server that is away");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_under_load_costs_time_and_no_record() {
    let (server, node) = (Weed::start(), tempfile::tempdir().unwrap());
    let config = Config {
        memtable_bytes: 4 << 20,
        flush_bytes: 256 << 10,
        disk_cache_bytes: 0,
        cache_bytes: 1 << 20,
        refresh_seconds: 1,
        ..quiet(&server.config(node.path()).await)
    };
    let engine = Engine::open(config.clone()).await.unwrap();
    let mut acked = Vec::new();
    while engine.status().flushes_total < 3 {
        let id = format!("{:06}", acked.len());
        let request = Message { body: Some(format!("\"{}\"", "x".repeat(10_000))), headers: None };
        engine.append(vec![Record { request, ..record(&id) }]).await.unwrap();
        acked.push(id);
    }
    // A server that hangs for a while only takes longer.
    server.pause();
    let slow = tokio::spawn({
        let engine = engine.clone();
        async move {
            (
                engine.flush().await,
                number(&engine.reader(), "select sum(length(id)) from logs").await,
            )
        }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!slow.is_finished(), "nobody answered");
    server.resume();
    let (flushed, letters) = slow.await.unwrap();
    flushed.unwrap();
    assert_eq!(letters, 6 * i64::try_from(acked.len()).unwrap());

    let before = acked.len();
    server.kill();
    let refused = fill(&engine, &mut acked).await;
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused:?}");
    assert!(acked.len() > before + 100, "{before} acked before, {} after", acked.len());

    let query = "select count(*) from logs where request.body is not null";
    let error = try_number(&engine.reader(), query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error:?}");
    assert!(engine.status().writable, "{:?}", engine.status().failure);
    assert_eq!(fill(&engine, &mut acked).await.kind(), ErrorKind::Busy);

    server.restart();
    let started = Instant::now();
    while engine.status().memory_rows > 60 {
        assert!(
            started.elapsed() < Duration::from_secs(90),
            "it does not recover: {:?}",
            engine.status()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let id = format!("{:06}", acked.len());
    engine.append(vec![record(&id)]).await.unwrap();
    acked.push(id);
    assert_eq!(ids(&engine.reader()).await, acked, "each acked record once");
    engine.close().await.unwrap();
    let engine = Engine::open(config).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, acked, "each acked record once, after a restart too");
    assert_eq!(number(&engine.reader(), query).await, i64::try_from(acked.len() - 1).unwrap());
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_job_writes_one_file_in_parts_and_hands_out_ranges_of_it() {
    for place in places().await {
        let (engine, kind) = (place.engine("a").await, place.kind);
        engine.append(big(0..24)).await.unwrap();
        let operator = Access::operator("test");
        let columns = Some(vec!["id".to_owned(), "request.body".to_owned()]);
        let new = NewExport { id: engine.new_id(), columns, ..NewExport::default() };
        let id = engine.create_export(&operator, new).await.unwrap().id;
        engine.start_export(&operator, &id).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while engine.export_job(&operator, &id).unwrap().status.name() == "in_progress" {
            assert!(Instant::now() < deadline, "{kind:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let job = engine.export_job(&operator, &id).unwrap();
        assert_eq!(
            (job.status.name(), job.records_written),
            ("success", Some(24)),
            "{kind:?}: {:?}",
            job.error
        );
        let (token, _) = engine.export_token(&operator, &id).await.unwrap();
        let (_, file) = engine.open_export(&token).unwrap();
        assert!(file.bytes > 24 << 20, "{kind:?}");
        let read = async |range: std::ops::Range<u64>| {
            engine.read_export(&file, range).try_collect::<Vec<_>>().await.unwrap().concat()
        };
        let whole = read(0..file.bytes).await;
        let lines: Vec<Vec<u8>> = engine
            .export(&ExportRequest {
                columns: Some(vec!["id".to_owned(), "request.body".to_owned()]),
                ..ExportRequest::default()
            })
            .await
            .unwrap()
            .map_ok(|chunk| chunk.to_vec())
            .try_collect()
            .await
            .unwrap();
        assert!(whole == lines.concat(), "{kind:?}");
        let middle = file.bytes / 2;
        assert!(read(middle..file.bytes).await == whole[middle as usize..], "{kind:?}");
        engine.close().await.unwrap();
    }
}
