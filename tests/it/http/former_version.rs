//! A data folder that a former version left behind, killed: today's build answers from it as that
//! version did, and loses nothing of it.
//!
//! `tests/data/folder-1/make.py` made the folder and asked that version.

use std::process::Command;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, TimeDelta, Utc};
use gatelog::config::{Config, Secret};
use gatelog::engine::{Dependencies, Severity, doctor};
use gatelog::store::Store;
use gatelog::{Engine, Job};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{Server, lines};
use crate::engine::ids;
use crate::files::contents;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/folder-1");
const ANSWERS: &str = include_str!("../../data/folder-1/answers.jsonl");
/// The admin key of `tests/clients`.
const KEY: &str = "clients-test-key";

/// A request, and the answer of the former version.
#[derive(Debug, Deserialize)]
struct Asked {
    key: Option<String>,
    method: String,
    path: String,
    body: Option<String>,
    is_json: bool,
    is_change: bool,
    status: u16,
    answer: Value,
}

impl Asked {
    fn statement(&self) -> Option<&str> {
        self.body.as_deref().filter(|_| self.path.starts_with("/v1/sql"))
    }

    /// Returns whether flushes and upkeep leave the answer as [`steady`] has it.
    fn is_of_rows(&self) -> bool {
        let is_rows = |text: &str| !text.contains("count(*)") && !text.contains("from partitions");
        !self.is_change && self.statement().is_some_and(is_rows)
    }
}

/// Records whose late parts are filled in by a flush.
fn is_late(row: &Value) -> bool {
    row["id"]
        .as_str()
        .is_some_and(|id| id.starts_with("late-") || id.ends_with("-0000000000000007"))
}

/// Takes an answer without what flushes and upkeep change: records whose parts came late, and the
/// class of retention, which follows the plan.
fn steady(mut answer: Value) -> Value {
    if let Value::Array(rows) = &mut answer {
        rows.retain(|row| !is_late(row));
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            row.remove("retention_days");
        }
    }
    answer
}

fn asked() -> Vec<Asked> {
    ANSWERS.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The time at which the former version was asked, so that nothing has expired since.
fn now() -> DateTime<Utc> {
    static RECORDED: LazyLock<DateTime<Utc>> = LazyLock::new(|| {
        let first: Value = serde_json::from_str(ANSWERS.lines().next().unwrap()).unwrap();
        let time = first["recorded_at"].as_str().unwrap();
        DateTime::parse_from_rfc3339(time).unwrap().to_utc()
    });
    *RECORDED
}

/// Time by which a node that was killed has lost its claim of the log, and the lease of upkeep.
fn later() -> DateTime<Utc> {
    now() + TimeDelta::minutes(10)
}

fn unpacked(archive: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let archive = format!("{FOLDER}/{archive}");
    let status =
        Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
    assert!(status.success(), "tar cannot unpack it");
    folder
}

fn config(folder: &tempfile::TempDir) -> Config {
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    let mut config = Config {
        data,
        admin_key: Secret(KEY.to_owned()),
        share_links: true,
        flush_seconds: 86_400,
        ..Config::default()
    };
    for job in ["compact", "expire", "vacuum", "checkpoint", "clean_log"] {
        config.set(&format!("{job}_schedule"), "never").unwrap();
    }
    config
}

async fn serve(folder: tempfile::TempDir) -> Server {
    let config = config(&folder);
    let dependencies = Dependencies { now, ..Dependencies::default() };
    let engine = Engine::open_with(config.clone(), dependencies).await.unwrap();
    Server::over(engine, config, folder).await
}

/// Reads an answer: JSON, lines of JSON, or text.
fn read(text: &str) -> Value {
    let lines = || text.lines().map(serde_json::from_str::<Value>).collect::<Result<Value, _>>();
    serde_json::from_str(text).or_else(|_| lines()).unwrap_or_else(|_| text.into())
}

/// Removes the message of an answer: its words may change between versions.
fn without_message(mut answer: Value) -> Value {
    if let Value::Object(fields) = &mut answer {
        fields.remove("message");
    }
    answer
}

impl Server {
    /// Says how the answer differs from that of the former version, both as `part` has them.
    async fn difference(&self, asked: &Asked, part: fn(Value) -> Value) -> Option<String> {
        let method = Method::from_bytes(asked.method.as_bytes()).unwrap();
        let mut request = self.bare(method, &asked.path);
        if let Some(key) = &asked.key {
            request = request.header("x-portkey-api-key", key);
        }
        if asked.is_json {
            request = request.header("content-type", "application/json");
        }
        if let Some(body) = &asked.body {
            request = request.body(body.clone());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap().replace(&self.base, "http://HOST");
        let now = part(without_message(read(&text)));
        let then = part(without_message(asked.answer.clone()));
        let body = asked.body.as_deref().unwrap_or_default();
        let asked_for = format!("{} {} {body}", asked.method, asked.path);
        (status != asked.status || now != then)
            .then(|| format!("{asked_for}\n  then {} {then}\n  now  {status} {now}", asked.status))
    }

    async fn assert_same(&self, questions: &[Asked], part: fn(Value) -> Value) {
        let mut found = Vec::new();
        for asked in questions {
            found.extend(self.difference(asked, part).await);
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    /// Checks the rows, and that the late parts are where they belong.
    async fn assert_rows_kept(&self, questions: &[Asked]) {
        self.assert_same(questions, steady).await;
        let statement = "select id, total_units, request['body'] is not null and \
                         response['body'] is not null as is_whole from logs order by id";
        let request = self.bare(Method::POST, "/v1/sql").header("x-portkey-api-key", KEY);
        let rows = lines(&request.body(statement).send().await.unwrap().text().await.unwrap());
        let late: Vec<_> = rows.into_iter().filter(is_late).collect();
        let figures = |row: &Value| row["total_units"].as_i64();
        assert_eq!(late.iter().map(figures).collect::<Vec<_>>(), [None, Some(34), Some(34)]);
        assert!(late.iter().all(|row| row["is_whole"] == true), "{late:?}");
    }
}

async fn assert_sound(config: &Config) {
    let findings = doctor(config, &|_, _, _| ()).await.unwrap();
    let errors: Vec<_> =
        findings.into_iter().filter(|found| found.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_a_former_version_is_answered_and_its_waiting_parts_join() {
    let server = serve(unpacked("data.tar.gz")).await;
    assert_sound(&server.config).await;
    // Three wait for the rest of their record, and three for the flush that adds them to theirs.
    assert_eq!(server.engine.status().waiting_halves, 6);
    server.assert_same(&asked(), |answer| answer).await;
    // Nothing more is missing of two; of a record in pieces more may come.
    assert_eq!(server.engine.status().waiting_halves, 4);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_a_former_version_keeps_its_rows_through_flushes_and_upkeep() {
    let mut server = serve(unpacked("data.tar.gz")).await;
    let questions: Vec<_> = asked().into_iter().filter(Asked::is_of_rows).collect();
    for job in [Job::Expire, Job::Compact, Job::Checkpoint, Job::Vacuum, Job::CleanLog] {
        server.engine.flush().await.unwrap();
        server.engine.maintain(job, false).await.unwrap();
        server.assert_rows_kept(&questions).await;
    }
    server.stop();
    let Server { done, engine, config, _folder: folder, .. } = server;
    done.await.unwrap().unwrap();
    drop(engine);
    assert_sound(&config).await;
    let server = serve(folder).await;
    server.assert_rows_kept(&questions).await;
    server.end().await;
}

/// Binds a log to the store of the test, as `gatelog wal rebind` does when a bucket was moved.
fn rebind(note: &std::path::Path) {
    let mut bound: Value = serde_json::from_slice(&std::fs::read(note).unwrap()).unwrap();
    bound["place"] = "memory:///state/".into();
    std::fs::write(note, bound.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_a_former_version_is_taken_over_with_its_log_claim_and_lease() {
    let folder = unpacked("bucket.tar.gz");
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let bucket = folder.path().join("bucket");
    for (path, bytes) in contents(&bucket) {
        let name = path.strip_prefix(&bucket).unwrap().to_str().unwrap();
        objects.put(&Path::parse(name).unwrap(), bytes.into()).await.unwrap();
    }
    rebind(&folder.path().join("wal/store.json"));
    let open = async || {
        let url = Url::parse("memory:///state").unwrap();
        let store = Store::with(Arc::clone(&objects), url).unwrap();
        let dependencies = Dependencies {
            now: later,
            store: Some(store),
            log_folder: Some(folder.path().join("wal")),
            ..Dependencies::default()
        };
        Engine::open_with(config(&folder), dependencies).await.unwrap()
    };
    let expected: Vec<_> = (0..6).map(|place| format!("acme-{place:02}")).collect();
    for _ in 0..2 {
        let engine = open().await;
        assert_eq!(ids(&engine.reader()).await, expected);
        engine.flush().await.unwrap();
        engine.maintain(Job::Compact, false).await.unwrap();
        assert_eq!(ids(&engine.reader()).await, expected);
        engine.close().await.unwrap();
    }
}
