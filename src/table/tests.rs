//! Tables in memory, on disk, and over a store that loses answers.

use std::fmt;
use std::ops::Range;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parking_lot::Mutex;
use uuid::Uuid;

use super::*;
use crate::error::ErrorKind;
use crate::record::Rows;
use crate::store::{data_path, staged};

const DAY: i32 = 20_778;

fn memory() -> Store {
    over(Arc::new(InMemory::new()))
}

fn on_disk(folder: &std::path::Path) -> Store {
    let config = crate::config::Config { data: folder.display().to_string(), ..Default::default() };
    Store::open(&config, true).unwrap()
}

fn over(object_store: Arc<dyn ObjectStore>) -> Store {
    Store::with(object_store, Url::parse("memory:///state").unwrap()).unwrap()
}

async fn make(store: &Store) -> Table {
    Table::create_or_open(store, Rows::Logs).await.unwrap()
}

async fn reopen(store: &Store) -> Table {
    Table::open(store, Rows::Logs).await.unwrap().unwrap()
}

fn file(retention_days: i32, date: i32, number: u128) -> DataFile {
    let start = i64::from(date) * 86_400_000_000;
    DataFile {
        path: data_path(retention_days, date, Uuid::from_u128(number), false),
        bytes: 1000 + number as u64,
        rows: 10 + number as u64,
        retention_days,
        date,
        modified_ms: start / 1000,
        min_created_at: start + 1,
        max_created_at: start + 86_399_999_999,
        min_organisation: Some("acme \"1\"".into()),
        max_organisation: Some("züri".into()),
        min_id: Some(format!("a{number}")),
        max_id: None,
    }
}

fn append(files: Vec<DataFile>, app: Option<(&str, i64)>) -> Commit {
    let app = app.map(|(app, version)| (app.to_owned(), version));
    Commit { add: files, remove: Vec::new(), app, data_change: true, operation: "WRITE" }
}

fn swap(add: Vec<DataFile>, remove: &[&DataFile]) -> Commit {
    let remove = remove.iter().map(|file| file.path.clone()).collect();
    Commit { add, remove, app: None, data_change: false, operation: "OPTIMIZE" }
}

fn paths(index: &FileIndex) -> Vec<String> {
    index.iter().map(|file| file.path.clone()).collect()
}

#[tokio::test]
async fn a_table_is_made_once_and_found_again() {
    let store = memory();
    assert!(Table::open(&store, Rows::Logs).await.unwrap().is_none());
    let table = make(&store).await;
    assert_eq!((table.index().version, table.index().len()), (0, 0));
    assert_eq!(make(&store).await.index(), table.index());
    assert_eq!(table.url().as_str(), "memory:///state/logs/");
    let other = Schema::new(vec![arrow::datatypes::Field::new(
        "cost",
        arrow::datatypes::DataType::Utf8,
        true,
    )]);
    let error = Table::with_columns(&store, Rows::Logs, &other).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message().contains("`cost`")),
        (ErrorKind::Damaged, true),
        "{error}"
    );
}

#[tokio::test]
async fn commits_are_there_after_a_reopen() {
    let store = memory();
    let table = make(&store).await;
    let a = file(30, DAY, 1);
    let b = file(30, DAY, 2);
    let c = file(0, DAY + 1, 3);
    let d = file(30, DAY, 4);
    let unknown = DataFile {
        min_created_at: i64::MIN,
        max_created_at: i64::MAX,
        min_organisation: None,
        max_organisation: None,
        min_id: None,
        ..c.clone()
    };
    let index =
        table.commit(append(vec![b.clone(), a.clone(), unknown.clone()], None)).await.unwrap();
    assert_eq!(index.iter().map(AsRef::as_ref).collect::<Vec<_>>(), [&a, &b, &unknown]);
    assert_eq!((index.rows(), index.bytes(), index.len()), (36, 3006, 3));
    assert_eq!(reopen(&store).await.index(), index);
    let index = table.commit(swap(vec![d.clone()], &[&a, &b])).await.unwrap();
    assert_eq!(paths(&index), [&*d.path, &*unknown.path]);
    assert_eq!(index.partition(DAY, 30).unwrap().len(), 1);
    assert_eq!(index.days(DAY + 1, i32::MAX).count(), 1);
    assert_eq!(index.days(DAY + 1, DAY).count(), 0);
    let again = reopen(&store).await;
    assert_eq!(again.index(), index);
    let gone = table.commit(swap(vec![file(30, DAY, 5)], &[&a])).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let index = table
        .commit(Commit { data_change: true, operation: "DELETE", ..swap(vec![], &[&d, &unknown]) })
        .await
        .unwrap();
    assert!(
        index.is_empty()
            && index.rows() == 0
            && index.bytes() == 0
            && index.partitions().next().is_none()
    );
    assert_eq!(again.refresh().await.unwrap(), index);
}

#[tokio::test]
async fn the_application_transaction_is_kept() {
    let store = memory();
    let table = make(&store).await;
    assert_eq!(table.app_version("wal-1").await.unwrap(), None);
    table.commit(append(vec![file(30, DAY, 1)], Some(("wal-1", 7)))).await.unwrap();
    table.commit(append(vec![file(30, DAY, 2)], Some(("wal-2", 3)))).await.unwrap();
    table.checkpoint().await.unwrap();
    table.commit(append(vec![file(30, DAY, 3)], Some(("wal-1", 9)))).await.unwrap();
    for table in [&table, &reopen(&store).await] {
        assert_eq!(table.app_version("wal-1").await.unwrap(), Some(9));
        assert_eq!(table.app_version("wal-2").await.unwrap(), Some(3));
    }
    let before = table.index();
    let late = table.commit(append(vec![file(30, DAY, 4)], Some(("wal-1", 9)))).await.unwrap();
    assert_eq!(late, before, "rows up to 9 are in the table");
}

#[tokio::test]
async fn two_writers_lose_nothing() {
    let store = memory();
    let tables = [make(&store).await, make(&store).await];
    let mut expected = Vec::new();
    for number in 0..20 {
        let table = &tables[number as usize % 2];
        let app = format!("wal-{}", number % 2);
        let new = file(30, DAY, number);
        expected.push(new.path.clone());
        table.commit(append(vec![new], Some((&app, number as i64)))).await.unwrap();
    }
    for table in &tables {
        assert_eq!(paths(&table.refresh().await.unwrap()), expected);
    }
    assert_eq!(reopen(&store).await.index(), tables[0].index());
    let one = file(30, DAY, 0);
    let two = file(30, DAY, 1);
    tables[0].commit(swap(vec![file(30, DAY, 50)], &[&one, &two])).await.unwrap();
    let beaten = tables[1].commit(swap(vec![file(30, DAY, 51)], &[&one])).await.unwrap_err();
    assert_eq!(beaten.kind(), ErrorKind::NotFound, "its input was merged by the other");
}

#[tokio::test]
async fn writers_at_once_converge() {
    let store = memory();
    let tables = [make(&store).await, make(&store).await, make(&store).await];
    let write = async |writer: usize| {
        for number in 0..10 {
            let app = format!("wal-{writer}");
            let new = file(30, DAY + number, (writer * 100 + number as usize) as u128);
            tables[writer]
                .commit(append(vec![new], Some((&app, i64::from(number)))))
                .await
                .unwrap();
        }
    };
    tokio::join!(write(0), write(1), write(2));
    let index = tables[0].refresh().await.unwrap();
    assert_eq!((index.len(), index.version), (30, 30));
    assert_eq!(reopen(&store).await.index(), index);
}

#[tokio::test]
async fn a_checkpoint_keeps_everything() {
    let store = memory();
    let table = make(&store).await;
    let behind = reopen(&store).await;
    for number in 0..5 {
        table.commit(append(vec![file(30, DAY, number)], None)).await.unwrap();
    }
    assert_eq!(table.commits_since_checkpoint(), 5);
    assert_eq!(table.checkpoint().await.unwrap(), 5);
    assert_eq!(table.commits_since_checkpoint(), 0);
    table.commit(swap(vec![file(30, DAY, 9)], &[&file(30, DAY, 0)])).await.unwrap();
    let again = reopen(&store).await;
    assert_eq!((again.index(), again.commits_since_checkpoint()), (table.index(), 1));
    assert_eq!(
        behind.refresh().await.unwrap(),
        table.index(),
        "the entries between are behind the checkpoint"
    );
    assert_eq!(table.checkpoint().await.unwrap(), 6);
    assert_eq!(table.checkpoint().await.unwrap(), 6);
}

#[tokio::test]
async fn a_lost_answer_is_no_second_commit() {
    for fault in [Fault::Lost, Fault::Taken, Fault::Before] {
        for app in [Some(("wal", 5)), None] {
            let faulty = Arc::new(Faulty::default());
            let store = over(Arc::clone(&faulty) as _);
            let table = make(&store).await;
            *faulty.fault.lock() = Some(fault);
            let index = table.commit(append(vec![file(30, DAY, 1)], app)).await.unwrap();
            assert!(faulty.fault.lock().is_none(), "{fault:?} was met");
            assert_eq!((index.version, index.len()), (1, 1), "{fault:?} {app:?}");
            let index = table.commit(append(vec![file(30, DAY, 2)], None)).await.unwrap();
            assert_eq!((index.version, index.len()), (2, 2));
            assert_eq!(reopen(&store).await.index(), index);
        }
    }
}

#[tokio::test]
async fn a_failed_sync_is_an_error() {
    let faulty = Arc::new(Faulty::default());
    let store = over(Arc::clone(&faulty) as _);
    let table = make(&store).await;
    *faulty.fault.lock() = Some(Fault::Unsynced);
    let error = table.commit(append(vec![file(30, DAY, 1)], Some(("wal", 5)))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error:?}");
    assert!(table.index().is_empty());
}

#[tokio::test]
async fn an_abandoned_commit_is_whole() {
    let store = memory();
    let table = make(&store).await;
    let commit = table.commit(append(vec![file(30, DAY, 1)], None));
    let _ = tokio::time::timeout(std::time::Duration::ZERO, commit).await;
    let index = table.commit(append(vec![file(30, DAY, 2)], None)).await.unwrap();
    assert_eq!(index.version as usize, index.len());
    assert_eq!(reopen(&store).await.index(), index);
}

#[tokio::test]
async fn only_unreferenced_files_are_orphans() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(&folder.path().join("my data"));
    let table = make(&store).await;
    let live = file(30, DAY, 1);
    let merged = file(30, DAY, 2);
    let lost = file(0, DAY, 3);
    for file in [&live, &merged, &lost] {
        store.object_store().put(&table.object_store_path(file), "rows".into()).await.unwrap();
    }
    table.commit(append(vec![live.clone(), merged.clone()], None)).await.unwrap();
    table.commit(Commit { operation: "DELETE", ..swap(vec![], &[&merged]) }).await.unwrap();
    table.checkpoint().await.unwrap();
    let now = chrono::Utc::now().timestamp_millis();
    assert_eq!(table.orphans(now - 60_000).await.unwrap(), [], "all is too new");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for file in [&live, &merged, &lost] {
        let path = store.folder().unwrap().join("logs").join(&file.path);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    let lost = Orphan { path: lost.path, bytes: 4 };
    assert_eq!(
        table.orphans(now - 60_000).await.unwrap(),
        std::slice::from_ref(&lost),
        "the merged one may still be read"
    );
    let orphans = table.orphans(now + 60_000).await.unwrap();
    assert_eq!(orphans.len(), 2);
    assert_eq!(table.remove_objects(&[live.path]).await.unwrap_err().kind(), ErrorKind::Internal);
    assert!(table.remove_objects(&["_delta_log/00000000000000000000.json".into()]).await.is_err());
    let paths: Vec<_> = orphans.into_iter().map(|orphan| orphan.path).collect();
    table.remove_objects(&paths).await.unwrap();
    table.remove_objects(&paths).await.unwrap();
    assert_eq!(table.orphans(now + 60_000).await.unwrap(), []);
    assert_eq!(reopen(&store).await.index(), table.index());
}

/// Returns the names of the log's objects by version.
async fn log_names(store: &Store, table: &Table) -> Vec<String> {
    let log = table.inner.path.clone().join("_delta_log");
    let objects: Vec<_> = store.object_store().list(Some(&log)).try_collect().await.unwrap();
    let mut names: Vec<_> =
        objects.iter().map(|object| object.location.filename().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn commit_name(version: u64) -> String {
    format!("{version:020}.json")
}

fn checkpoint_name(version: u64) -> String {
    format!("{version:020}.checkpoint.parquet")
}

const LATER: i64 = i64::MAX;

#[tokio::test]
async fn the_log_is_cleaned_up_to_the_last_checkpoint() {
    let store = memory();
    let table = make(&store).await;
    for number in 0..5 {
        table
            .commit(append(vec![file(30, DAY, number)], Some(("wal", number as i64))))
            .await
            .unwrap();
    }
    assert_eq!(
        table.clean_log(LATER, false).await.unwrap(),
        [],
        "no checkpoint, so every entry is needed"
    );
    table.checkpoint().await.unwrap();
    table.commit(swap(vec![file(30, DAY, 9)], &[&file(30, DAY, 0)])).await.unwrap();
    assert_eq!(table.clean_log(0, false).await.unwrap(), [], "all is too new");
    let names = log_names(&store, &table).await;
    let would = table.clean_log(LATER, true).await.unwrap();
    assert_eq!(log_names(&store, &table).await, names, "a dry run");
    assert_eq!(table.clean_log(LATER, false).await.unwrap(), would);
    let paths: Vec<_> = would.iter().map(|orphan| orphan.path.clone()).collect();
    assert_eq!(
        paths,
        (0..5).map(|version| format!("_delta_log/{}", commit_name(version))).collect::<Vec<_>>()
    );
    let left = [checkpoint_name(5), commit_name(5), commit_name(6), "_last_checkpoint".to_owned()];
    assert_eq!(log_names(&store, &table).await, left);
    assert_eq!(table.clean_log(LATER, false).await.unwrap(), []);
    let again = reopen(&store).await;
    assert_eq!((again.index(), again.commits_since_checkpoint()), (table.index(), 1));
    for table in [&table, &again] {
        assert_eq!(table.app_version("wal").await.unwrap(), Some(4), "it is in the checkpoint");
    }
    let index = table.commit(append(vec![file(30, DAY, 10)], Some(("wal", 5)))).await.unwrap();
    assert_eq!(again.refresh().await.unwrap(), index);
    table.checkpoint().await.unwrap();
    table.clean_log(LATER, false).await.unwrap();
    assert_eq!(
        log_names(&store, &table).await,
        [checkpoint_name(7), commit_name(7), "_last_checkpoint".to_owned()]
    );
    let reopened = reopen(&store).await;
    assert_eq!((reopened.index(), reopened.app_version("wal").await.unwrap()), (index, Some(5)));
    assert_eq!(reopened.orphans(LATER).await.unwrap(), []);
}

#[tokio::test]
async fn versions_that_are_young_enough_can_still_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(folder.path());
    let table = make(&store).await;
    for number in 0..10 {
        table.commit(append(vec![file(30, DAY, number)], None)).await.unwrap();
        if [2, 5, 8].contains(&number) {
            table.checkpoint().await.unwrap();
        }
    }
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let log = folder.path().join("logs/_delta_log");
    for version in 0..8 {
        std::fs::File::options()
            .write(true)
            .open(log.join(commit_name(version)))
            .unwrap()
            .set_modified(hour_ago)
            .unwrap();
    }
    let now = chrono::Utc::now().timestamp_millis();
    // Checkpoints are at 3, 6 and 9. Version 8 is young, and is read through checkpoint 6.
    table.clean_log(now - 60_000, false).await.unwrap();
    let commits = (6..=10).map(commit_name);
    let mut left: Vec<_> = commits
        .chain([checkpoint_name(6), checkpoint_name(9), "_last_checkpoint".to_owned()])
        .collect();
    left.sort();
    assert_eq!(log_names(&store, &table).await, left);
    assert_eq!(reopen(&store).await.index(), table.index());
}

#[tokio::test]
async fn a_clean_up_that_was_interrupted_leaves_a_log_without_holes() {
    for deletes in 0..7 {
        let faulty = Arc::new(Faulty::default());
        let store = over(Arc::clone(&faulty) as _);
        let table = make(&store).await;
        for number in 0..6 {
            table
                .commit(append(vec![file(30, DAY, number)], Some(("wal", number as i64))))
                .await
                .unwrap();
            if number == 2 {
                table.checkpoint().await.unwrap();
            }
        }
        table.checkpoint().await.unwrap();
        *faulty.deletes.lock() = Some(deletes);
        assert_eq!(table.clean_log(LATER, false).await.unwrap_err().kind(), ErrorKind::Storage);
        let names = log_names(&store, &table).await;
        assert_eq!(names.len(), 10 - deletes, "{names:?}");
        let commits: Vec<u64> =
            names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        assert!(
            commits.is_sorted_by(|a, b| a + 1 == *b) && commits.last() == Some(&6),
            "{commits:?}"
        );
        for table in [&table, &reopen(&store).await] {
            assert_eq!(table.app_version("wal").await.unwrap(), Some(5));
            assert_eq!((table.index().len(), table.index().version), (6, 6));
        }
        *faulty.deletes.lock() = None;
        assert_eq!(table.clean_log(LATER, false).await.unwrap().len(), 7 - deletes);
        assert_eq!(reopen(&store).await.index(), table.index());
    }
}

#[tokio::test]
async fn another_writer_goes_on_after_the_log_was_cleaned() {
    let store = memory();
    let table = make(&store).await;
    let other = make(&store).await;
    let idle = make(&store).await;
    for number in 0..6 {
        table
            .commit(append(vec![file(30, DAY, number)], Some(("a", number as i64))))
            .await
            .unwrap();
        if number == 2 {
            other.commit(append(vec![file(0, DAY, 50)], Some(("b", 7)))).await.unwrap();
        }
    }
    table.checkpoint().await.unwrap();
    assert!(!table.clean_log(LATER, false).await.unwrap().is_empty());
    let index = other.commit(append(vec![file(0, DAY, 51)], Some(("b", 8)))).await.unwrap();
    assert_eq!(other.app_version("a").await.unwrap(), Some(5));
    assert_eq!(idle.refresh().await.unwrap(), index);
    assert_eq!(idle.app_version("b").await.unwrap(), Some(8));
    assert_eq!(table.refresh().await.unwrap(), index);
    assert_eq!(reopen(&store).await.index(), index);
}

#[tokio::test]
async fn a_log_whose_checkpoint_differs_from_its_commits_is_not_cleaned() {
    let store = memory();
    let table = make(&store).await;
    table.commit(append(vec![file(30, DAY, 1)], None)).await.unwrap();
    let checkpoint =
        |version| table.inner.path.clone().join("_delta_log").join(checkpoint_name(version));
    table.checkpoint().await.unwrap();
    let other = store.object_store().get(&checkpoint(1)).await.unwrap().bytes().await.unwrap();
    table.commit(append(vec![file(30, DAY, 2)], None)).await.unwrap();
    table.checkpoint().await.unwrap();
    store.object_store().put(&checkpoint(2), other.into()).await.unwrap();
    let names = log_names(&store, &table).await;
    let error = table.clean_log(LATER, false).await.unwrap_err();
    assert!(error.message().contains("nothing was deleted"), "{error}");
    assert_eq!(log_names(&store, &table).await, names);
}

#[tokio::test]
async fn half_a_checkpoint_does_not_count_and_foreign_objects_stay() {
    let store = memory();
    let table = make(&store).await;
    for number in 0..4 {
        table.commit(append(vec![file(30, DAY, number)], None)).await.unwrap();
    }
    let put = async |name: &str, text: &'static str| {
        let path = table
            .inner
            .path
            .clone()
            .join("_delta_log")
            .parts()
            .chain(Path::from(name).parts())
            .collect();
        store.object_store().put(&path, text.into()).await.unwrap();
    };
    put("00000000000000000003.checkpoint.0000000001.0000000002.parquet", "half").await;
    put("_last_checkpoint", r#"{"version":3,"size":1}"#).await;
    assert_eq!(table.clean_log(LATER, false).await.unwrap(), []);
    table.checkpoint().await.unwrap();
    put("00000000000000000002.crc", "{}").await;
    put("00000000000000000001.00000000000000000003.compacted.json", "{}").await;
    put("00000000000000000001.notes", "mine").await;
    put("_sidecars/00000000000000000001.json", "{}").await;
    let gone = table.clean_log(LATER, false).await.unwrap();
    assert_eq!(gone.len(), 7, "{gone:?}");
    let left = log_names(&store, &table).await;
    let kept = ["00000000000000000001.json", "00000000000000000001.notes"].map(str::to_owned);
    assert_eq!(left[..2], kept, "the one of the sidecars");
    assert_eq!(left[2..], [checkpoint_name(4), commit_name(4), "_last_checkpoint".to_owned()]);
}

#[tokio::test]
async fn the_log_reads_as_delta() {
    let store = memory();
    let table = make(&store).await;
    table.commit(append(vec![file(30, DAY, 1)], Some(("wal", 1)))).await.unwrap();
    table.commit(swap(vec![file(30, DAY, 2)], &[&file(30, DAY, 1)])).await.unwrap();
    let mut actions = Vec::new();
    for version in 0..3 {
        let path = table.inner.path.clone().join("_delta_log").join(format!("{version:020}.json"));
        let text = store.object_store().get(&path).await.unwrap().bytes().await.unwrap();
        for action in serde_json::Deserializer::from_slice(&text).into_iter::<serde_json::Value>() {
            println!("{version} {}", action.as_ref().unwrap());
            actions.push(action.unwrap());
        }
    }
    let all = |name: &str| actions.iter().filter_map(|action| action.get(name)).collect::<Vec<_>>();
    assert_eq!(
        all("metaData")[0]["partitionColumns"],
        serde_json::json!(["retention_days", "date"])
    );
    assert_eq!(all("txn")[0]["appId"], "wal");
    let add = all("add")[0];
    assert_eq!(
        add["partitionValues"],
        serde_json::json!({ "retention_days": "30", "date": "2026-11-21" })
    );
    let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["maxValues"]["created_at"], "2026-11-21T23:59:59.999999Z");
    assert_eq!(stats["numRecords"], 11);
    assert!(stats["maxValues"].get("id").is_none());
    let remove = all("remove")[0];
    assert_eq!((&remove["path"], &remove["dataChange"]), (&add["path"], &serde_json::json!(false)));
}

#[tokio::test]
async fn other_writers_statistics_are_read_with_care() {
    let store = memory();
    let table = make(&store).await;
    let entry = |stats: &str| {
        let add = serde_json::json!({
            "path": "retention_days=30/date=2026-11-21/x%20y.parquet", "size": 5, "modificationTime": 6,
            "partitionValues": { "retention_days": "30", "date": "2026-11-21" }, "dataChange": true, "stats": stats,
        });
        serde_json::json!({ "add": add }).to_string()
    };
    let put = async |version: u32, text: String| {
        let path = table.inner.path.clone().join("_delta_log").join(format!("{version:020}.json"));
        store.object_store().put(&path, text.into()).await.unwrap();
    };
    put(1, entry(r#"{"numRecords":3,"maxValues":{"created_at":"2026-11-21T10:00:00.123Z"}}"#))
        .await;
    let index = table.refresh().await.unwrap();
    let file = index.iter().next().unwrap();
    assert_eq!(
        (file.rows, file.min_created_at, file.max_created_at % 1_000_000),
        (3, i64::MIN, 123_999)
    );
    assert!(table.object_store_path(file).as_ref().ends_with("/x y.parquet"));
    assert!(index.contains("retention_days=30/date=2026-11-21/x%20y.parquet"));
    table.commit(swap(vec![], &[&file.as_ref().clone()])).await.unwrap();
    assert!(reopen(&store).await.index().is_empty());
    put(3, entry("{}")).await;
    assert_eq!(table.refresh().await.unwrap_err().kind(), ErrorKind::Damaged);
}

/// Prints the cost of commits. Run with `--nocapture`.
#[tokio::test]
async fn commit_cost_does_not_grow_with_files() {
    for files in [100, 5000] {
        let folder = tempfile::tempdir().unwrap();
        for store in [memory(), on_disk(folder.path())] {
            let table = make(&store).await;
            let many =
                (0..files).map(|number| file(30, DAY - (number % 50) as i32, number)).collect();
            table.commit(append(many, None)).await.unwrap();
            let start = Instant::now();
            table.checkpoint().await.unwrap();
            let checkpoint = start.elapsed();
            let start = Instant::now();
            for number in 0..50 {
                let new = vec![file(30, DAY, files + number)];
                table.commit(append(new, Some(("wal", number as i64)))).await.unwrap();
            }
            let appended = start.elapsed() / 50;
            let start = Instant::now();
            let old: Vec<_> = (0..10).map(|number| file(30, DAY, files + number)).collect();
            table
                .commit(swap(vec![file(30, DAY, files + 100)], &old.iter().collect::<Vec<_>>()))
                .await
                .unwrap();
            let swapped = start.elapsed();
            let start = Instant::now();
            let again = reopen(&store).await;
            let opened = start.elapsed();
            assert_eq!(again.index(), table.index());
            let place = if store.folder().is_some() { "disk, synced" } else { "memory" };
            print!("{files} files, {place}: append {appended:?}, merge 10 into 1 {swapped:?}, ");
            println!("checkpoint {checkpoint:?}, open {opened:?}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The commit is written, and the answer says that the store failed.
    Lost,
    /// The commit is written, and the answer says that the version is taken, as after a client's
    /// own retry.
    Taken,
    /// The commit is not written.
    Before,
    /// The commit is written but may not be durable.
    Unsynced,
}

/// A store in memory whose next put to the log fails.
#[derive(Debug, Default)]
struct Faulty {
    inner: InMemory,
    fault: Mutex<Option<Fault>>,
    /// Number of deletes that succeed before all others fail. `None` means that all succeed.
    deletes: Mutex<Option<usize>>,
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
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let fault =
            if at.as_ref().contains("_delta_log") { self.fault.lock().take() } else { None };
        let failed =
            || object_store::Error::Generic { store: "Faulty", source: "connection reset".into() };
        if fault == Some(Fault::Before) {
            return Err(failed());
        }
        let result = self.inner.put_opts(at, payload, opts).await?;
        match fault {
            None => Ok(result),
            Some(Fault::Taken) => Err(object_store::Error::AlreadyExists {
                path: at.to_string(),
                source: "retried".into(),
            }),
            Some(Fault::Unsynced) => Err(staged::sync_failure()),
            Some(_) => Err(failed()),
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(
        &self,
        at: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match &mut *self.deletes.lock() {
            Some(0) => {
                let failed = object_store::Error::Generic {
                    store: "Faulty",
                    source: "connection reset".into(),
                };
                futures::stream::iter([Err(failed)]).boxed()
            }
            left => {
                *left = left.map(|left| left - 1);
                self.inner.delete_stream(paths)
            }
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
