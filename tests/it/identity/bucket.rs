//! The same for buckets: backups of one, names of its endpoint, cloned machines, and nodes that
//! never come back.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use gatelog::engine::Dependencies;
use gatelog::store::Store;
use gatelog::{Config, Engine};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use super::{Home, in_log};
use crate::engine::record;

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_bucket_is_never_flushed_into_its_backup() {
    let home = Home::with_bucket().await;
    tokio::task::block_in_place(|| {
        let bucket = home.bucket.as_str();
        home.import(bucket, "wal", "a");
        home.ok(&["copy", bucket, "backup", "--set", "wal=wal"]);
        home.leave_in_log(bucket, "wal", &["b"]);
        home.refused(
            "backup",
            "wal",
            &["is of other data", bucket, "name another folder with the setting `wal`"],
        );
        let said = home.fails(2, &["--data", "backup", "--set", "wal=wal", "wal", "rebind"]);
        assert!(said.contains("is of other data"), "a copy is not a moved store: {said}");
        // The setting `wal` is the bucket's; a copy of the backup does not use that log.
        home.ok(&["--data", bucket, "--set", "wal=wal", "copy", "backup", "second"]);
        assert_eq!(home.ids("second", ""), ["a"]);
        assert_eq!(home.ids(bucket, "wal"), ["a", "b"]);
        home.import(bucket, "wal", "c");
        assert_eq!(home.ids(bucket, "elsewhere"), ["a", "b", "c"], "all in the bucket");
        assert_eq!(home.ids("backup", ""), ["a"]);
        // The same from a version without UUIDs: its log is known by its lock.
        home.leave_in_log(bucket, "wal", &["d"]);
        home.make_old_log("wal");
        let backup = home.catalog("backup");
        assert_eq!(backup["store"]["copy_of"].as_array().unwrap().len(), 1, "{backup}");
        home.refused("backup", "wal", &["is of other data"]);
        home.cp("backup", "old");
        let mut catalog = backup.clone();
        catalog.as_object_mut().unwrap().remove("store");
        fs::write(home.path("old/catalog.json"), catalog.to_string()).unwrap();
        home.refused("old", "wal", &["is of other data"]);
        assert_eq!(home.ids(bucket, "wal"), ["a", "b", "c", "d"]);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn another_name_of_the_endpoint_is_confirmed() {
    let mut home = Home::with_bucket().await;
    tokio::task::block_in_place(|| {
        let bucket = home.bucket.clone();
        home.import(&bucket, "wal", "a");
        home.leave_in_log(&bucket, "wal", &["b"]);
        let endpoint = home.settings[0].1.clone();
        home.settings[0].1 = endpoint.replace("127.0.0.1", "localhost");
        let places = [format!("at {endpoint}`"), "at http://localhost:".to_owned()];
        home.refused(&bucket, "wal", &[&places[0], &places[1], "`gatelog wal rebind --data "]);
        let said =
            home.ok(&["--data", &bucket, "--set", "wal=wal", "wal", "rebind", "--format", "json"]);
        assert!(said.contains(&endpoint), "{said}");
        assert_eq!(home.ids(&bucket, "wal"), ["a", "b"]);
        home.import(&bucket, "wal", "c");
        assert_eq!(home.ids(&bucket, "elsewhere"), ["a", "b", "c"]);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_refuses_a_cloned_machine_and_lets_a_moved_disk_in() {
    let home = Home::with_bucket().await;
    tokio::task::block_in_place(|| {
        let bucket = home.bucket.as_str();
        home.import(bucket, "wal", "a");
        let node = home.serve(bucket, "wal");
        node.send("b");
        home.cp("wal", "clone");
        fs::write(home.path("one.jsonl"), "{\"id\":\"lost?\"}\n").unwrap();
        let said = home.fails(4, &["--data", bucket, "--set", "wal=clone", "import", "one.jsonl"]);
        assert!(
            said.contains("in use by another live node") && said.contains("a cloned machine"),
            "{said}"
        );
        let said = home.fails(4, &["--data", bucket, "wal", "adopt", "clone"]);
        assert!(said.contains("in use by another live node"), "{said}");
        node.send("c");
        node.stop();
        // Its disk in another machine: the node let its log go.
        home.rename("wal", "moved");
        home.import(bucket, "moved", "d");
        assert_eq!(home.ids(bucket, "elsewhere"), ["a", "b", "c", "d"]);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_node_that_is_gone_is_adopted_once() {
    let home = Home::with_bucket().await;
    tokio::task::block_in_place(|| {
        let bucket = home.bucket.as_str();
        home.import(bucket, "wal", "a");
        home.leave_in_log(bucket, "wal", &["b", "c"]);
        // From its disk, which hangs at another place now; beside a node that runs.
        home.cp("wal", "disk");
        let node = home.serve(bucket, "other");
        node.send("n");
        let adopt = |folder: &str| -> Value {
            let said = home.ok(&["--data", bucket, "wal", "adopt", folder, "--format", "json"]);
            serde_json::from_str(&said).unwrap()
        };
        assert_eq!(adopt("disk")["rows"], 2);
        assert!(!in_log(&home.path("disk")));
        assert_eq!(adopt("disk")["rows"], 0);
        // And once only, though a second copy of the log still holds them.
        assert!(in_log(&home.path("wal")));
        assert_eq!(adopt("wal")["rows"], 0);
        node.stop();
        assert_eq!(home.ids(bucket, "elsewhere"), ["a", "b", "c", "n"]);
        for (folder, code) in [("nowhere", 3), ("disk/cache", 3)] {
            let said = home.fails(code, &["--data", bucket, "wal", "adopt", folder]);
            assert!(said.contains(&format!("no write-ahead log in `{folder}`")), "{said}");
        }
    });
}

/// A node that went on for a while after its machine was cloned, and fell silent with records in
/// its log that nobody flushed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_acked_before_a_clone_took_its_log_over_is_adopted_once() {
    let home = Home::with_bucket().await;
    tokio::task::block_in_place(|| {
        let bucket = home.bucket.as_str();
        home.import(bucket, "wal", "a");
        let node = home.serve(bucket, "wal");
        node.send("b");
        node.feedback("fb", 1);
        home.cp("wal", "clone");
        for id in ["c", "d", "e"] {
            node.send(id);
        }
        node.feedback("fd", 2);
        node.kill();
        // The clone numbers other records as the node numbered its own. One of them was sent again,
        // to the clone.
        for id in ["x", "d", "y", "z"] {
            home.import(bucket, "clone", id);
        }
        let feedback = || {
            home.ok(&[
                "--data",
                bucket,
                "--set",
                "wal=elsewhere",
                "sql",
                "--format",
                "csv",
                FEEDBACK,
            ])
        };
        assert_eq!(home.ids(bucket, "elsewhere"), ["a", "b", "d", "x", "y", "z"]);
        assert_eq!(feedback().lines().nth(1), Some("1,1"));
        home.refused_until_adopted(bucket, "wal", "clone");
        // An attempt that was broken off leaves a folder behind.
        fs::create_dir(home.path("wal/adopting")).unwrap();
        fs::write(home.path("wal/adopting/00000000000000000001.wal"), "half").unwrap();
        let adopt = |folder: &str| -> Value {
            let said = home.ok(&["--data", bucket, "wal", "adopt", folder, "--format", "json"]);
            serde_json::from_str(&said).unwrap()
        };
        home.cp("wal", "disk");
        assert_eq!(adopt("wal")["rows"], 2);
        assert!(!in_log(&home.path("wal")) && !home.path("wal/adopting").exists());
        assert_eq!(home.ids(bucket, "elsewhere"), ["a", "b", "c", "d", "e", "x", "y", "z"]);
        assert_eq!(feedback().lines().nth(1), Some("2,3"));
        // Another copy of the same log brings nothing more.
        assert_eq!(adopt("disk")["rows"], 0);
        assert!(!in_log(&home.path("disk")));
        assert_eq!(home.ids(bucket, "elsewhere").len(), 8);
        assert_eq!(feedback().lines().nth(1), Some("2,3"));
        let said = home.fails(3, &["--data", bucket, "wal", "adopt", "wal"]);
        assert!(said.contains("no write-ahead log in"), "{said}");
        // Both go on: the folder is that of a log that was never used.
        let node = home.serve(bucket, "clone");
        node.send("v");
        home.import(bucket, "wal", "w");
        node.stop();
        assert_eq!(
            home.ids(bucket, "elsewhere"),
            ["a", "b", "c", "d", "e", "v", "w", "x", "y", "z"]
        );
    });
}

/// What all feedback comes to: how often it was given, and the sum.
const FEEDBACK: &str = "select count(*), cast(sum(value) as bigint) from feedback";

impl Home {
    /// Every command but `adopt` refuses the log, and says by which node a copy of it was opened.
    #[track_caller]
    fn refused_until_adopted(&self, data: &str, wal: &str, by: &str) {
        let words = [
            format!("`gatelog wal adopt {}", self.path(wal).canonicalize().unwrap().display()),
            by.to_owned(),
        ];
        let setting = format!("wal={wal}");
        let tails: [&[&str]; 4] = [
            &["import", "one.jsonl"],
            &["serve", "--listen", "127.0.0.1:0"],
            &["sql", "select count(*) from logs"],
            &["export"],
        ];
        for tail in tails {
            let said = self.fails(2, &[&["--data", data, "--set", &setting][..], tail].concat());
            assert!(words.iter().all(|word| said.contains(word)), "{tail:?}: {said}");
        }
        let said = self.ok_or_problems(&["--data", data, "--set", &setting, "doctor"]);
        assert!(said.contains("error ") && words.iter().all(|word| said.contains(word)), "{said}");
    }
}

/// A reboot, or a disk in another machine, is no copy: the log is opened as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_machine_was_started_anew_opens_with_what_it_holds() {
    let home = Home::with_bucket().await;
    tokio::task::block_in_place(|| {
        let bucket = home.bucket.as_str();
        home.leave_in_log(bucket, "wal", &["a"]);
        // Of other files on the same disk: another machine, for all that can be told.
        home.cp("wal", "disk");
        fs::remove_dir_all(home.path("wal")).unwrap();
        home.leave_in_log(bucket, "disk", &["b"]);
        assert_eq!(home.ids(bucket, "disk"), ["a", "b"]);
        home.import(bucket, "disk", "c");
        assert_eq!(home.ids(bucket, "elsewhere"), ["a", "b", "c"]);
    });
}

/// A node that was paused while a clone took its log over.
#[tokio::test]
async fn a_node_whose_log_was_taken_over_commits_nothing_more() {
    let (memory, log) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let objects = Arc::clone(&memory) as Arc<dyn ObjectStore>;
    let store = Store::with(objects, url::Url::parse("memory:///state").unwrap()).unwrap();
    let parts = Dependencies {
        store: Some(store.clone()),
        log_folder: Some(log.path().to_owned()),
        ..Dependencies::default()
    };
    let config = Config { lease_seconds: 5, flush_seconds: 3600, ..Config::default() };
    let engine = Engine::open_with(config, parts).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    engine.flush().await.unwrap();
    engine.append(vec![record("b")]).await.unwrap();
    let nodes = store.prefix().clone().join("nodes");
    let claim = memory.list(Some(&nodes)).try_next().await.unwrap().unwrap().location;
    let clone =
        r#"{"site":"s","node":"process 1 on clone","until":"2999-01-01T00:00:00Z","change":"c"}"#;
    memory.put(&claim, clone.into()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while engine.status().writable {
        assert!(Instant::now() < end, "it never saw that its log is another's");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows = engine.status().file_rows;
    let refused = engine.append(vec![record("c")]).await.unwrap_err().error;
    assert!(
        refused.message().contains("was taken over by another node (process 1 on clone)"),
        "{refused}"
    );
    let refused = engine.flush().await.unwrap_err();
    assert!(refused.message().contains("was taken over"), "{refused}");
    engine.close().await.unwrap();
    let kept = memory.get(&claim).await.unwrap().bytes().await.unwrap();
    assert_eq!(kept, clone.as_bytes(), "the claim is the clone's");
    assert_eq!(engine.status().file_rows, rows);
}
