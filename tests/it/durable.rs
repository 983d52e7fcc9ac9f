//! Durable means synced by this process: a process dies or a sync fails, the next one goes on, and
//! then the power is cut.

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;
use gatelog::config::Schedule;
use gatelog::engine::{Access, Dependencies, NewKey, RecordPart, Scope};
use gatelog::record::Feedback;
use gatelog::store::Store;
use gatelog::{Config, Engine, ErrorKind};
use object_store::local::LocalFileSystem;
use tempfile::TempDir;

use super::engine::{ids, record};
use super::forgetful::{Call, Fault, Forgetful};

fn quiet() -> Config {
    Config {
        flush_seconds: 3600,
        refresh_seconds: 60,
        compact_schedule: Schedule::never(),
        vacuum_schedule: Schedule::never(),
        checkpoint_schedule: Schedule::never(),
        clean_log_schedule: Schedule::never(),
        expire_schedule: Schedule::never(),
        ..Config::default()
    }
}

/// Folders that stand for disks, one after each power cut.
#[derive(Default)]
struct Disks(Vec<TempDir>);

impl Disks {
    fn folder(&mut self) -> std::path::PathBuf {
        let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = scratch.path().canonicalize().unwrap();
        self.0.push(scratch);
        path
    }

    fn empty(&mut self) -> Forgetful {
        Forgetful::new(&self.folder())
    }

    fn cut(&mut self, disk: &Forgetful) -> Forgetful {
        disk.cut(&self.folder())
    }
}

async fn open(disk: &Forgetful) -> gatelog::Result<Engine> {
    let store = Store::on_disk(
        Arc::new(disk.clone()),
        Arc::new(LocalFileSystem::new()),
        &disk.path("data"),
    )?;
    Engine::open_with(quiet(), Dependencies { store: Some(store), ..Dependencies::default() }).await
}

/// Sends a record; answers how many were accepted and how many known, or why it was refused.
async fn send(engine: &Engine, id: &str) -> Result<(u64, u64), String> {
    match engine.append(vec![record(id)]).await {
        Ok(receipt) => Ok((receipt.accepted, receipt.duplicate)),
        Err(refused) => Err(refused.error.message().to_owned()),
    }
}

/// Ends a process that is as good as dead; the next finds what it left.
async fn next(engine: Engine, disk: &Forgetful) -> Forgetful {
    let next = disk.restarted();
    // It can write nothing any more.
    let _ = engine.close().await;
    next
}

fn segments(disk: &Forgetful) -> usize {
    let names =
        std::fs::read_dir(disk.path("data/wal")).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).count()
}

/// Ways in which the second record comes to be in the log and not on the disk.
fn unsynced() -> [Fault; 2] {
    [Fault::dies_before(Call::Sync, ".wal$"), Fault::sync(".wal$")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_not_synced_is_durable_before_its_second_copy_is_acked() {
    for fault in unsynced() {
        for id in ["b", "c"] {
            let mut disks = Disks::default();
            let disk = disks.empty();
            let engine = open(&disk).await.unwrap();
            assert_eq!(send(&engine, "a").await, Ok((1, 0)));
            disk.fail(fault.clone());
            assert!(send(&engine, "b").await.is_err());
            let disk = next(engine, &disk).await;
            let engine = open(&disk).await.unwrap();
            assert_eq!(
                send(&engine, id).await,
                Ok(if id == "b" { (0, 1) } else { (1, 0) }),
                "{fault:?}"
            );
            let disk = disks.cut(&disk);
            let engine = open(&disk).await.unwrap();
            let found = ids(&engine.reader()).await;
            assert!(
                found.contains(&"a".to_owned()) && found.contains(&id.to_owned()),
                "{fault:?}, {id}: {found:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_dies_while_it_writes_the_log_anew_loses_nothing() {
    let mut steps = 0;
    for fault in unsynced() {
        for step in 0.. {
            let mut disks = Disks::default();
            let disk = disks.empty();
            let engine = open(&disk).await.unwrap();
            send(&engine, "a").await.unwrap();
            disk.fail(fault.clone());
            send(&engine, "b").await.unwrap_err();
            let disk = next(engine, &disk).await;
            disk.fail(Fault::dies_after(Call::Any, "data/wal").after(step));
            let opened = open(&disk).await;
            let is_done = !disk.has_failed();
            // At once, and after the next open.
            for again in [false, true] {
                let disk = disk.restarted();
                if again {
                    let engine = open(&disk).await.unwrap();
                    assert_eq!(send(&engine, "b").await, Ok((0, 1)));
                }
                let disk = disks.cut(&disk);
                let engine = open(&disk).await.unwrap();
                let found = ids(&engine.reader()).await;
                assert!(
                    found == ["a", "b"] || (!again && found == ["a"]),
                    "{fault:?}, step {step}: {found:?}"
                );
            }
            drop(opened);
            steps += 1;
            if is_done {
                break;
            }
        }
    }
    assert!(steps > 8, "{steps} steps");
}

async fn revoke(engine: &Engine, id: &str) -> gatelog::Result<()> {
    let by = Access::operator("test");
    engine.catalog().change(|document| document.revoke_key(id, &by, Utc::now()).map(|_| ())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_catalog_shows_already_is_durable_before_it_is_acked() {
    let failed = Fault::sync("/data$");
    let faults = [
        Fault::dies_after(Call::Rename, "data/catalog.json$"),
        failed.clone(),
        failed.and_forgets_names(),
    ];
    for fault in faults {
        for restarts in [false, true] {
            let mut disks = Disks::default();
            let disk = disks.empty();
            let mut engine = open(&disk).await.unwrap();
            let key = NewKey { scopes: [Scope::Write].into(), ..NewKey::default() };
            let add = |document: &mut gatelog::engine::Document| {
                document.add_key("text", key.clone(), Utc::now()).map(|key| key.id.clone())
            };
            let id = engine.catalog().change(add).await.unwrap();
            disk.fail(fault.clone());
            let error = revoke(&engine, &id).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Storage);
            let dies = !format!("{fault:?}").contains("Fails");
            assert!(
                dies || error.message().contains("failed to sync"),
                "the refusal says why: {error}"
            );
            let mut disk = disk;
            if restarts || dies {
                disk = next(engine, &disk).await;
                engine = open(&disk).await.unwrap();
            }
            revoke(&engine, &id).await.unwrap();
            let disk = disks.cut(&disk);
            let engine = open(&disk).await.unwrap();
            assert!(
                engine.access("text").is_none(),
                "{fault:?}, restarts {restarts}: the revocation is undone"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_a_change_of_the_catalog_and_says_so() {
    let mut disks = Disks::default();
    let disk = disks.empty();
    let engine = open(&disk).await.unwrap();
    disk.fail(Fault::full(".staging"));
    let key = NewKey { scopes: [Scope::Write].into(), ..NewKey::default() };
    let add = |document: &mut gatelog::engine::Document| {
        document.add_key("text", key.clone(), Utc::now()).map(|_| ())
    };
    let error = engine.catalog().change(add).await.unwrap_err();
    assert!(error.message().contains("the disk is full; nothing was changed"), "{error}");
    engine.catalog().change(add).await.unwrap();
    assert!(engine.access("text").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_a_commit_closes_writes_and_keeps_the_log() {
    let failed = Fault::sync("logs/_delta_log$");
    for (fault, restarts) in [
        (failed.clone(), false),
        (failed.clone(), true),
        (failed.clone().and_forgets_names(), false),
        (failed.and_forgets_names(), true),
    ] {
        commit_fails(fault, restarts).await;
    }
}

async fn commit_fails(fault: Fault, restarts: bool) {
    let mut disks = Disks::default();
    let disk = disks.empty();
    let engine = open(&disk).await.unwrap();
    send(&engine, "a").await.unwrap();
    disk.fail(fault.clone());
    engine.flush().await.unwrap_err();
    assert!(disk.has_failed());
    engine.flush().await.unwrap_err();
    let refused = send(&engine, "b").await.unwrap_err();
    assert!(refused.contains("refused until a restart"), "{refused}");
    assert!(!engine.status().writable);
    // The next process makes the entry durable, and nothing is there twice or lost.
    let mut disk = next(engine, &disk).await;
    assert_eq!(segments(&disk), 1, "the log is not trimmed");
    if restarts {
        let engine = open(&disk).await.unwrap();
        assert_eq!(send(&engine, "b").await, Ok((1, 0)));
        engine.close().await.unwrap();
        assert_eq!(segments(&disk), 0);
        disk = next(engine, &disk).await;
    }
    let disk = disks.cut(&disk);
    let engine = open(&disk).await.unwrap();
    assert_eq!(
        ids(&engine.reader()).await,
        if restarts { vec!["a", "b"] } else { vec!["a"] },
        "{fault:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_an_earlier_process_left_is_durable_before_the_log_is_trimmed() {
    for flushes_feedback in [false, true] {
        let mut disks = Disks::default();
        let disk = disks.empty();
        let engine = open(&disk).await.unwrap();
        send(&engine, "a").await.unwrap();
        disk.fail(Fault::dies_after(Call::Link, "logs/_delta_log/"));
        engine.flush().await.unwrap_err();
        let disk = next(engine, &disk).await;
        let engine = open(&disk).await.unwrap();
        assert_eq!(send(&engine, "a").await, Ok((0, 1)), "it is in the table");
        if flushes_feedback {
            // Its flush trims the log, and changes nothing in the folder of the other table.
            let given = Feedback { id: Some("f".to_owned()), ..Feedback::default() };
            engine.append_feedback_as(&Access::operator("test"), vec![given]).await.unwrap();
        } else {
            send(&engine, "b").await.unwrap();
        }
        engine.close().await.unwrap();
        assert_eq!(segments(&disk), 0);
        let disk = disks.cut(&disk);
        let engine = open(&disk).await.unwrap();
        let found = ids(&engine.reader()).await;
        assert_eq!(found, if flushes_feedback { vec!["a"] } else { vec!["a", "b"] });
    }
}

/// Opens, sends a record and flushes; dies after so many calls. Answers whether it came to an end.
async fn life(disk: &Forgetful, id: &str) -> bool {
    let Ok(engine) = open(disk).await else { return false };
    let done = send(&engine, id).await.is_ok() && engine.flush().await.is_ok();
    let _ = engine.close().await;
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_a_killed_process_made_are_durable_before_anything_in_them_is_acked() {
    let mut killed = 0;
    for step in 0.. {
        let mut disks = Disks::default();
        let disk = disks.empty();
        disk.fail(Fault::dies_after(Call::Any, "").after(step));
        let first = life(&disk, "a").await;
        let is_done = !disk.has_failed();
        let disk = disk.restarted();
        assert!(life(&disk, "b").await, "step {step}");
        let disk = disks.cut(&disk);
        let engine = open(&disk).await.unwrap_or_else(|error| panic!("step {step}: {error:?}"));
        let mut found = ids(&engine.reader()).await;
        if !first {
            found.retain(|id| id != "a");
        }
        assert_eq!(found, if first { vec!["a", "b"] } else { vec!["b"] }, "step {step}");
        if is_done {
            break;
        }
        killed += 1;
    }
    assert!(killed > 60, "{killed} steps");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_whose_sync_failed_closes_writes_and_keeps_the_log() {
    let mut disks = Disks::default();
    let disk = disks.empty();
    let engine = open(&disk).await.unwrap();
    send(&engine, "a").await.unwrap();
    disk.fail(Fault::sync("data/logs$"));
    engine.flush().await.unwrap_err();
    assert!(disk.has_failed());
    send(&engine, "b").await.unwrap_err();
    let _ = engine.close().await;
    assert_eq!(segments(&disk), 1);
    let disk = disks.cut(&disk);
    let engine = open(&disk).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_when_a_full_disk_has_room_again() {
    let operator = Access::operator("test");
    for begun in [false, true] {
        let mut disks = Disks::default();
        let disk = disks.empty();
        let engine = open(&disk).await.unwrap();
        if begun {
            send(&engine, "a").await.unwrap();
        }
        disk.fail(Fault::full(".wal$").for_ever());
        for _ in 0..2 {
            let refused = send(&engine, "b").await.unwrap_err();
            assert!(refused.contains("the disk is full; nothing of this is kept"), "{refused}");
            let record_parts = vec![(RecordPart::Figures, record("h"))];
            engine.append_parts_as(&operator, record_parts).await.unwrap_err();
        }
        assert!(engine.status().writable);
        let counted = engine.usage().list(None).iter().map(|used| used.records).sum::<u64>();
        assert_eq!(counted, u64::from(begun), "what was refused does not count");
        disk.heal();
        assert_eq!(send(&engine, "b").await, Ok((1, 0)), "it is not known from the refusal");
        assert_eq!(
            engine
                .append_parts_as(&operator, vec![(RecordPart::Figures, record("h"))])
                .await
                .unwrap()
                .accepted,
            1
        );
        let disk = disks.cut(&disk);
        let engine = open(&disk).await.unwrap();
        assert_eq!(
            ids(&engine.reader()).await,
            if begun { vec!["a", "b", "h"] } else { vec!["b", "h"] }
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_drains_though_parts_wait() {
    let operator = Access::operator("test");
    let mut disks = Disks::default();
    let disk = disks.empty();
    let engine = open(&disk).await.unwrap();
    engine.append_parts_as(&operator, vec![(RecordPart::Figures, record("h"))]).await.unwrap();
    send(&engine, "a").await.unwrap();
    disk.fail(Fault::full("/wal/").for_ever());
    // There is no room to write the waiting part to the log again, so it becomes a record.
    engine.flush().await.unwrap();
    // The writer has trimmed the log when it answers the next one.
    engine.flush().await.unwrap();
    assert_eq!(segments(&disk), 0, "the flush made room");
    let disk = disks.cut(&disk);
    let engine = open(&disk).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a", "h"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_until_the_entry_before_it_is_durable() {
    let mut disks = Disks::default();
    let disk = disks.empty();
    let engine = open(&disk).await.unwrap();
    send(&engine, "a").await.unwrap();
    disk.fail(Fault::sync("data/logs/_delta_log$"));
    engine.flush().await.unwrap_err();
    let disk = next(engine, &disk).await;
    disk.fail(Fault::full("data/logs/_delta_log/").for_ever());
    let engine = open(&disk).await.unwrap();
    send(&engine, "b").await.unwrap();
    disk.heal();
    engine.flush().await.unwrap();
    let disk = disks.cut(&disk);
    let engine = open(&disk).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_opens_on_a_full_disk_and_takes_records_when_there_is_room() {
    let mut disks = Disks::default();
    let disk = disks.empty();
    let engine = open(&disk).await.unwrap();
    send(&engine, "a").await.unwrap();
    disk.fail(Fault::dies_before(Call::Sync, ".wal$"));
    send(&engine, "b").await.unwrap_err();
    let disk = next(engine, &disk).await;
    disk.fail(Fault::full("/wal/").for_ever());
    let engine = open(&disk).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a", "b"]);
    for id in ["a", "b", "c"] {
        let refused = send(&engine, id).await.unwrap_err();
        assert!(refused.contains("the disk is full"), "{refused}");
    }
    disk.heal();
    assert_eq!(send(&engine, "b").await, Ok((0, 1)));
    assert_eq!(send(&engine, "c").await, Ok((1, 0)));
    let disk = disks.cut(&disk);
    let engine = open(&disk).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a", "b", "c"]);
}

#[test]
fn a_disk_forgets_what_was_not_synced() {
    use gatelog::store::disk::Disk;

    let mut disks = Disks::default();
    let disk = disks.empty();
    let write = |name: &str, is_synced: bool| {
        let mut file = disk.create(&disk.path(name)).unwrap();
        file.append(b"one").unwrap();
        file.sync().unwrap();
        file.append(b"two").unwrap();
        if is_synced {
            file.sync().unwrap();
        }
    };
    write("a", true);
    write("b", false);
    disk.sync_folder(&disk.path("")).unwrap();
    write("c", true);
    disk.rename(&disk.path("a"), &disk.path("d")).unwrap();
    let left = disks.cut(&disk);
    let read = |name: &str| {
        std::fs::read(left.path(name)).map(|bytes| String::from_utf8(bytes).unwrap()).ok()
    };
    let expected = [("a", Some("onetwo")), ("b", Some("one")), ("c", None), ("d", None)];
    for (name, bytes) in expected {
        assert_eq!(read(name).as_deref(), bytes, "{name}");
    }
    assert!(Path::new(&left.path("a")).exists());
}
