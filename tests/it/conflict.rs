//! A server of buckets that answers 409 to a put: another request is at work, and nothing was
//! written. It is no answer that the object exists, so the put is sent again, and a flush goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use gatelog::config::Secret;
use gatelog::engine::Document;
use gatelog::store::Store;
use gatelog::{Config, Engine, Job};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::engine::{ids, record};

/// A bucket in memory, as much of S3 as an engine asks for.
#[derive(Debug, Default)]
struct Double {
    objects: Mutex<BTreeMap<String, (Bytes, u64)>>,
    /// Puts on the condition that the key is free which are answered with 409 from now on.
    conflicts: AtomicUsize,
    /// What such a key ends with; empty = any.
    of: Mutex<&'static str>,
    /// How many were.
    answered: AtomicUsize,
}

impl Double {
    /// Starts it; gives settings of an engine in it.
    async fn start(folder: &TempDir) -> (Arc<Self>, Config) {
        let double = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&double));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = Config {
            data: "s3://bucket/state".to_owned(),
            wal: folder.path().join("wal").display().to_string(),
            s3_endpoint: endpoint,
            s3_region: "us-east-1".to_owned(),
            s3_access_key_id: "test".to_owned(),
            s3_secret_access_key: Secret("test-secret".to_owned()),
            flush_seconds: 3600,
            disk_cache_bytes: 0,
            ..Config::default()
        };
        (double, config)
    }

    fn conflict(&self, times: usize, of: &'static str) {
        *self.of.lock().unwrap() = of;
        self.conflicts.store(times, Ordering::SeqCst);
    }

    fn conflicts_now(&self, key: &str, headers: &HeaderMap) -> bool {
        let creates = headers.contains_key("if-none-match");
        if !creates || !key.ends_with(*self.of.lock().unwrap()) {
            return false;
        }
        let less = |left: usize| left.checked_sub(1);
        let conflicts =
            self.conflicts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        self.answered.fetch_add(usize::from(conflicts), Ordering::SeqCst);
        conflicts
    }

    fn put(&self, key: &str, headers: &HeaderMap, body: Bytes) -> Response {
        if self.conflicts_now(key, headers) {
            return failed(StatusCode::CONFLICT, "ConditionalRequestConflict");
        }
        let mut objects = self.objects.lock().unwrap();
        let known = objects.get(key).map(|(_, version)| format!("\"{version}\""));
        let wanted = headers.get("if-match").map(|tag| tag.to_str().unwrap().to_owned());
        if (headers.contains_key("if-none-match") && known.is_some())
            || (wanted.is_some() && wanted != known)
        {
            return failed(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let version =
            objects.values().map(|(_, version)| version).max().map_or(1, |newest| newest + 1);
        objects.insert(key.to_owned(), (body, version));
        ([("etag", format!("\"{version}\""))], "").into_response()
    }

    fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let objects = self.objects.lock().unwrap();
        let Some((body, version)) = objects.get(key) else {
            return failed(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let about = [
            ("etag", format!("\"{version}\"")),
            ("last-modified", "Sat, 21 Nov 2026 16:26:58 GMT".to_owned()),
        ];
        let range = headers
            .get("range")
            .map(|range| range.to_str().unwrap().trim_start_matches("bytes=").to_owned());
        let Some(range) = range else { return (about, body.clone()).into_response() };
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) => (from, (to + 1).min(body.len())),
            (Ok(from), Err(_)) => (from, body.len()),
            (Err(_), last) => (body.len().saturating_sub(last.unwrap()), body.len()),
        };
        if from >= to {
            return failed(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        }
        let told = [("content-range", format!("bytes {from}-{}/{}", to - 1, body.len()))];
        (StatusCode::PARTIAL_CONTENT, about, told, body.slice(from..to)).into_response()
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Response {
        let of = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (prefix, delimiter, after) = (of("prefix"), of("delimiter"), of("start-after"));
        let (mut found, mut folders) = (String::new(), BTreeSet::new());
        for (key, (body, version)) in
            self.objects.lock().unwrap().iter().filter(|(key, _)| key.starts_with(&prefix))
        {
            let rest = &key[prefix.len()..];
            match rest.find(&delimiter).filter(|_| !delimiter.is_empty()) {
                Some(place) => drop(folders.insert(format!("{prefix}{}", &rest[..=place]))),
                None if *key > after => found.push_str(&format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-11-21T16:26:58.000Z</LastModified><ETag>\"{version}\"</ETag>\
                     <Size>{}</Size></Contents>",
                    body.len()
                )),
                None => {}
            }
        }
        let folders = folders
            .iter()
            .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
        let folders: String = folders.collect();
        format!(
            "<ListBucketResult><IsTruncated>false</IsTruncated>{found}{folders}</ListBucketResult>"
        )
        .into_response()
    }

    fn delete_all(&self, body: &str) -> Response {
        let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        let mut objects = self.objects.lock().unwrap();
        let gone = keys.map(|(key, _)| {
            objects.remove(key);
            format!("<Deleted><Key>{key}</Key></Deleted>")
        });
        format!("<DeleteResult>{}</DeleteResult>", gone.collect::<String>()).into_response()
    }
}

fn failed(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code></Error>")).into_response()
}

async fn answer(State(double): State<Arc<Double>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 30).await.unwrap();
    let path = parts.uri.path().trim_start_matches("/bucket").trim_start_matches('/');
    // `%3D` of partitions, as the client escapes paths.
    let key: String =
        url::form_urlencoded::parse(format!("k={}", path.replace('+', "%2B")).as_bytes())
            .map(|(_, key)| key.into_owned())
            .collect();
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    match parts.method {
        Method::PUT => double.put(&key, &parts.headers, body),
        Method::GET if query.contains_key("list-type") => double.list(&query),
        // The server leaves out the body of an answer to HEAD by itself.
        Method::GET | Method::HEAD => double.get(&key, &parts.headers),
        Method::DELETE => {
            double.objects.lock().unwrap().remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        Method::POST if query.contains_key("delete") => {
            double.delete_all(std::str::from_utf8(&body).unwrap())
        }
        _ => failed(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_passes_costs_no_record_and_doubles_none() {
    let folder = tempfile::tempdir().unwrap();
    let (double, config) = Double::start(&folder).await;
    let engine = Engine::open(config.clone()).await.unwrap();
    let mut acked = Vec::new();
    for (round, of) in [".json", "", ".parquet", ".json"].into_iter().enumerate() {
        let id = format!("{round}");
        engine.append(vec![record(&id)]).await.unwrap();
        acked.push(id);
        let before = double.answered.load(Ordering::SeqCst);
        double.conflict(1, of);
        engine.flush().await.unwrap();
        if of != ".parquet" {
            assert_eq!(
                double.answered.load(Ordering::SeqCst),
                before + 1,
                "a put with a condition was answered with 409"
            );
        }
        double.conflict(0, "");
        assert!(engine.status().writable, "{:?}", engine.status());
        assert_eq!(engine.status().memory_rows, 0, "what was flushed is in the table");
        assert_eq!(ids(&engine.reader()).await, acked);
    }
    double.conflict(2, "");
    engine.maintain(Job::Compact, false).await.unwrap();
    double.conflict(2, "");
    engine.maintain(Job::Checkpoint, false).await.unwrap();
    double.conflict(1, "");
    let add = |document: &mut Document| {
        let acme = gatelog::engine::Organisation::new("enterprise", chrono::Utc::now());
        document.create_organisation("acme", acme, 0).map(|_| ())
    };
    engine.catalog().change(add).await.unwrap();
    double.conflict(0, "");
    assert_eq!(ids(&engine.reader()).await, acked);
    engine.close().await.unwrap();
    let engine = Engine::open(config).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, acked, "after a restart too");
    assert!(engine.catalog().state().document.organisations.contains_key("acme"));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_not_told_as_an_object_that_exists() {
    let folder = tempfile::tempdir().unwrap();
    let (double, config) = Double::start(&folder).await;
    let store = Store::open(&config, true).unwrap();
    let (objects, path) = (store.object_store(), store.export_path("a.jsonl"));
    let create = || PutOptions::from(PutMode::Create);
    double.conflict(2, "");
    objects.put_opts(&path, "one".into(), create()).await.unwrap();
    assert_eq!(double.answered.load(Ordering::SeqCst), 2);
    let exists = objects.put_opts(&path, "two".into(), create()).await.unwrap_err();
    assert!(matches!(exists, object_store::Error::AlreadyExists { .. }), "{exists}");

    // A conflict that stays is a failure of the store: nothing is there.
    double.conflict(usize::MAX, "");
    let other = store.export_path("b.jsonl");
    let failed = objects.put_opts(&other, "one".into(), create()).await.unwrap_err();
    assert!(matches!(failed, object_store::Error::Generic { .. }), "{failed}");
    assert!(
        failed.to_string().contains("(409)") && failed.to_string().contains("bucket `bucket`"),
        "{failed}"
    );
    assert!(objects.head(&other).await.is_err());
    // Some servers say so of an object that exists.
    let exists = objects.put_opts(&path, "two".into(), create()).await.unwrap_err();
    assert!(matches!(exists, object_store::Error::AlreadyExists { .. }), "{exists}");
    double.conflict(0, "");
    assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "one");
}
