//! Tests over all routes: a request that writes completes even if its client disconnects, and only
//! while its key is valid.

mod samples;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use tokio::sync::oneshot;
use tower::ServiceExt;

use self::samples::{Sample, sample};
use crate::catalog::{Document, NewKey, Organisation, Scope, encode, read_document};
use crate::config::{Config, Schedule};
use crate::engine::{Dependencies, Engine};
use crate::http::middleware::finish::changes;
use crate::http::route::{Needs, Route};
use crate::http::router::{service, table};
use crate::http::state::App;
use crate::record::Record;
use crate::store::Store;
use crate::store::gate::Gate;

/// Routes that write nothing for their sample request, with the reason.
const UNWRITTEN: [&str; 9] = [
    // Their bodies are accepted and dropped.
    "POST /v1/metrics",
    "POST /v1/otel/v1/metrics",
    "POST /v1/logs/otel/v1/metrics",
    // The test has no gateway.
    "POST /v1/logs/{id}/replay",
    // The job may end before it is cancelled.
    "POST /v1/logs/exports/{id}/cancel",
    // The sample is a dry run.
    "POST /v1/admin/maintain/{job}",
    // The clock is not in doubt.
    "POST /v1/admin/clock",
    // A log record of OpenTelemetry may wait for its span.
    "POST /v1/otel/v1/logs",
    "POST /v1/logs/otel/v1/logs",
];

/// Routes that write at the start of the request, before a test can intervene.
const AT_ONCE: [&str; 2] = ["POST /v1/admin/maintain/{job}", "POST /v1/admin/clock"];

struct Bed {
    app: Arc<App>,
    router: axum::Router,
    gate: Gate,
    folder: tempfile::TempDir,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Returns a number that no test has used before.
fn fresh() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Bed {
    async fn new() -> Self {
        Self::with(Dependencies::default()).await
    }

    async fn with(parts: Dependencies) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gate = Gate::default();
        let root = folder.path().canonicalize().unwrap();
        let store = Store::on_disk(Arc::new(gate.clone()), Arc::new(LocalFileSystem::new()), &root)
            .unwrap();
        let never = Schedule::never;
        let config = Config {
            data: root.display().to_string(),
            share_links: true,
            flush_seconds: 3_600,
            expire_schedule: never(),
            compact_schedule: never(),
            vacuum_schedule: never(),
            ..Config::default()
        };
        let parts = Dependencies { store: Some(store), ..parts };
        let engine = Engine::open_with(config, parts).await.unwrap();
        let now = engine.now();
        let fill = |document: &mut Document| {
            document.create_organisation("acme", Organisation::new("enterprise", now), 0)?;
            let admin = NewKey { scopes: [Scope::Admin].into(), ..NewKey::default() };
            document.add_key("root", admin, now).map(|_| ())
        };
        engine.catalog().change(fill).await.unwrap();
        let record = Record {
            id: Some("log-1".to_owned()),
            organisation_id: Some("acme".to_owned()),
            ..Record::default()
        };
        engine.append(vec![record]).await.unwrap();
        let (app, router) = service(engine);
        Self { router, app, gate, folder }
    }

    fn send(
        &self,
        key: &str,
        sample: &Sample,
        body: Body,
    ) -> impl Future<Output = Response> + Send + use<> {
        let request = Request::builder().method(sample.method.clone()).uri(&sample.path);
        let request =
            request.header("x-portkey-api-key", key).header("content-type", "application/json");
        let response = self.router.clone().oneshot(request.body(body).unwrap());
        async move { response.await.unwrap() }
    }

    async fn status(&self, key: &str, sample: &Sample) -> StatusCode {
        self.send(key, sample, Body::from(sample.body.clone())).await.status()
    }

    /// Checks that the catalog in memory equals the one on disk.
    async fn check_catalog(&self, name: &str) {
        let _held = self.app.engine.catalog().hold().await;
        let there = read_document(self.app.engine.store()).await.unwrap().unwrap();
        assert_eq!(there, self.app.engine.catalog().state().document, "{name}");
    }

    async fn handlers_end(&self) {
        self.app.handlers.close();
        self.app.handlers.wait().await;
        self.app.handlers.reopen();
    }
}

fn mutating() -> Vec<(String, Route)> {
    let (with_key, without_key) = table();
    let without = without_key.into_parts().1;
    assert!(without.iter().all(|route| route.method == "GET"), "a change without a key");
    let all = with_key.into_parts().1.into_iter();
    let all = all.filter(|route| changes(&route.method.parse::<Method>().unwrap(), route.path));
    all.map(|route| (format!("{} {}", route.method, route.path), route)).collect()
}

/// A client that disconnects during a write takes no lock from it, and the change completes.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_request_completes_its_change_on_every_route() {
    let bed = Bed::new().await;
    let mut unwritten = Vec::new();
    for (name, route) in mutating() {
        let sample = sample(&bed, route).await;
        bed.gate.close();
        let mut request = Box::pin(bed.send("root", &sample, Body::from(sample.body.clone())));
        let held = tokio::select! {
            biased;
            response = &mut request => { unwritten.push((name.clone(), response.status())); false }
            () = bed.gate.reached() => true,
        };
        drop(request);
        if held && !UNWRITTEN.contains(&name.as_str()) {
            assert!(!bed.app.handlers.is_empty(), "{name}: the handler went with its client");
            let is_catalog = bed.gate.holds_catalog();
            assert!(
                !is_catalog || bed.app.engine.catalog().is_changing(),
                "{name}: the catalog is not locked"
            );
        }
        bed.gate.open();
        bed.handlers_end().await;
        bed.check_catalog(&name).await;
    }
    let unexpected: Vec<_> =
        unwritten.iter().filter(|(name, _)| !UNWRITTEN.contains(&name.as_str())).collect();
    assert!(unexpected.is_empty(), "these wrote nothing: {unexpected:?}");
}

/// A request that is dropped after any number of its steps completes as a whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_dropped_after_any_step_is_done_whole_or_not_at_all() {
    let bed = Bed::new().await;
    for (name, route) in mutating() {
        for steps in 0..4 {
            let sample = sample(&bed, route).await;
            let mut request = Box::pin(bed.send("root", &sample, Body::from(sample.body.clone())));
            for _ in 0..steps {
                if futures::poll!(&mut request).is_ready() {
                    break;
                }
            }
            drop(request);
            bed.handlers_end().await;
            bed.check_catalog(&name).await;
        }
    }
    // Acknowledged changes are there after a restart, and every stored change is complete.
    let count = async |engine: &Engine| {
        let rows: Vec<_> = engine
            .sql("select id from logs", &Default::default())
            .await
            .unwrap()
            .batches
            .collect()
            .await;
        rows.into_iter().map(|batch| batch.unwrap().num_rows()).sum::<usize>()
    };
    let before = count(&bed.app.engine).await;
    bed.app.engine.close().await.unwrap();
    let data = bed.folder.path().canonicalize().unwrap().display().to_string();
    let again = Engine::open(Config { data, ..Config::default() }).await.unwrap();
    assert_eq!(count(&again).await, before);
    again.close().await.unwrap();
}

/// A key that is revoked between the arrival of its request and the write changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_during_a_request_changes_nothing_on_any_route() {
    let bed = Bed::new().await;
    let engine = bed.app.engine.clone();
    for (name, route) in mutating() {
        if AT_ONCE.contains(&name.as_str()) {
            continue;
        }
        let sample = sample(&bed, route).await;
        let scope = match route.needs {
            Some(Needs::Scope(scope)) => scope,
            _ => Scope::Admin,
        };
        let scopes = [scope, Scope::Read, Scope::View].into();
        let text = format!("key {}", fresh());
        let now = engine.now();
        let add = |document: &mut Document| {
            let key =
                NewKey { scopes: std::collections::BTreeSet::clone(&scopes), ..NewKey::default() };
            Ok(document.add_key(&text, key, now)?.id.clone())
        };
        let id = engine.catalog().change(add).await.unwrap();
        let rows = engine.status().accepted_total;
        let held = engine.catalog().hold().await;
        let (go, gone) = oneshot::channel::<()>();
        let body = Bytes::from(sample.body.clone());
        let first = body.slice(..body.len() / 2);
        let rest = body.slice(body.len() / 2..);
        let pieces = futures::stream::once(async move { Ok::<_, std::io::Error>(first) }).chain(
            futures::stream::once(async move {
                let _ = gone.await;
                Ok(rest)
            }),
        );
        let request = tokio::spawn(bed.send(&text, &sample, Body::from_stream(pieces)));
        while bed.app.handlers.is_empty() && !request.is_finished() {
            tokio::task::yield_now().await;
        }
        // Another node revokes the key.
        let mut document = engine.catalog().state().document.clone();
        document.revoke_key(&id, &crate::catalog::Access::operator("test"), now).unwrap();
        document.change = format!("revoked {id}");
        let revoked = document.clone();
        std::fs::write(bed.folder.path().join("catalog.json"), encode(&document).unwrap()).unwrap();
        drop(held);
        engine.catalog().refresh().await.unwrap();
        let _ = go.send(());
        let status = request.await.unwrap().status();
        assert!(status.is_client_error() || UNWRITTEN.contains(&name.as_str()), "{name}: {status}");
        let found = settled(&engine.catalog().state().document);
        assert_eq!(found, settled(&revoked), "{name}: {status}");
        assert_eq!(engine.status().accepted_total, rows, "{name}");
        // The same request succeeds with a valid key, so the key was the reason.
        let status = bed.status("root", &sample).await;
        assert!(status.is_success() || UNWRITTEN.contains(&name.as_str()), "{name}: {status}");
        bed.handlers_end().await;
    }
}

/// Returns the document without the fields that the export writer changes by itself.
fn settled(document: &Document) -> Document {
    let mut document = document.clone();
    document.export_jobs.iter_mut().for_each(|job| {
        job.status = crate::catalog::ExportStatus::Draft;
        job.error = None;
        job.file = None;
        job.file_gone = None;
        job.narrowed.clear();
        job.started_at = None;
        job.ended_at = None;
        job.updated_at = job.created_at;
        job.run = 0;
        job.total = 0;
    });
    document.change.clear();
    document
}

static PASSED: AtomicU64 = AtomicU64::new(0);

fn passed() -> Duration {
    Duration::from_secs(PASSED.load(Ordering::SeqCst))
}

/// A node that cannot read the catalog refuses everything that depends on it, and ingests records
/// of known keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_old_catalog_only_takes_records() {
    let bed = Bed::with(Dependencies { elapsed: passed, ..Dependencies::default() }).await;
    let now = bed.app.engine.now();
    let add = |document: &mut Document| {
        let key = NewKey { scopes: [Scope::Write].into(), ..NewKey::default() };
        Ok(document.add_key("other", key, now)?.id.clone())
    };
    let other = bed.app.engine.catalog().change(add).await.unwrap();
    let path = bed.folder.path().join("catalog.json");
    let away = bed.folder.path().join("away.json");
    std::fs::rename(&path, &away).unwrap();
    let get =
        |path: &str| Sample { method: Method::GET, path: path.to_owned(), body: String::new() };
    assert_eq!(bed.status("root", &get("/v1/logs/log-1")).await, StatusCode::OK, "not at once");
    PASSED.fetch_add(61, Ordering::SeqCst);
    let (with_key, without_key) = table();
    for route in with_key.into_parts().1.into_iter().chain(without_key.into_parts().1) {
        let name = format!("{} {}", route.method, route.path);
        let request = if changes(&route.method.parse().unwrap(), route.path) {
            sample_without_catalog(route)
        } else {
            get(&route.path.replace("{page}", "clients").replace(['{', '}', '*'], ""))
        };
        let status = bed.status("root", &request).await;
        let is_open =
            ["/healthz", "/openapi.json", "/docs", "/docs/{page}", "/v2/api-keys/self/details"]
                .contains(&route.path);
        match route.needs {
            _ if is_open => assert_eq!(status, StatusCode::OK, "{name}"),
            // These routes look up a log or feedback first.
            Some(Needs::Scope(Scope::Write)) if route.path.contains("{id}") => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
            }
            Some(Needs::Scope(Scope::Write)) => {
                assert!(!status.is_server_error(), "{name}: {status}")
            }
            _ => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{name}"),
        }
    }
    let ingest = Sample {
        method: Method::POST,
        path: "/v1/ingest".to_owned(),
        body: r#"{"id":"kept"}"#.to_owned(),
    };
    assert_eq!(bed.status("root", &ingest).await, StatusCode::OK);
    assert_eq!(bed.status("stranger", &ingest).await, StatusCode::UNAUTHORIZED);
    assert!(
        bed.app.engine.flush().await.is_err(),
        "records go into files by a catalog that is known"
    );
    // Another node had revoked a key long before.
    let late = Sample { body: r#"{"id":"late"}"#.to_owned(), ..ingest };
    assert_eq!(bed.status("other", &late).await, StatusCode::OK);
    let mut document = bed.app.engine.catalog().state().document.clone();
    document.revoke_key(&other, &crate::catalog::Access::operator("test"), now).unwrap();
    document.change = "elsewhere".to_owned();
    std::fs::write(&away, encode(&document).unwrap()).unwrap();
    std::fs::rename(&away, &path).unwrap();
    PASSED.fetch_add(2, Ordering::SeqCst);
    assert_eq!(bed.status("root", &get("/v1/logs/kept")).await, StatusCode::OK);
    assert_eq!(bed.status("root", &get("/readyz")).await, StatusCode::OK);
    bed.app.engine.flush().await.unwrap();
    assert_eq!(bed.status("root", &get("/v1/logs/kept")).await, StatusCode::OK);
    assert_eq!(
        bed.status("root", &get("/v1/logs/late")).await,
        StatusCode::NOT_FOUND,
        "its key had been revoked"
    );
}

fn sample_without_catalog(route: Route) -> Sample {
    samples::sample_of(route, "1", &samples::Things::nowhere())
}
