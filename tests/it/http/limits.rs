//! Each line of the table of limits: `acme` asks for all that it can get of a resource, and `zen`
//! goes through.

use std::fs;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use gatelog::limits::{self, table};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::exports::{bed, create, done, ended, fill, start, url};
use super::{Server, eventually, lines};

/// More than any number of places.
const MANY: usize = 600;

/// How a line is shown.
enum Shown {
    /// By a test here.
    Here(fn() -> futures::future::BoxFuture<'static, ()>),
    /// By a unit test of that name in that file.
    Unit(&'static str, &'static str),
}

fn shown(resource: &str) -> Option<Shown> {
    let here = |test| Some(Shown::Here(test));
    match resource {
        "connections" => {
            Some(Shown::Unit("http/serve.rs", "half_headers_leave_room_for_a_new_connection"))
        }
        "requests at once" => here(|| Box::pin(requests())),
        "memory for bodies" => here(|| Box::pin(bodies())),
        "streamed bodies at once" => here(|| Box::pin(streams())),
        "exports at once" => here(|| Box::pin(exports())),
        "downloads of export files at once" => here(|| Box::pin(downloads())),
        "replays at once" => {
            Some(Shown::Unit("http/state/places.rs", "one_organisation_leaves_places_of_each_kind"))
        }
        "export jobs that are written" => here(|| Box::pin(jobs())),
        "files of export jobs" => here(|| Box::pin(files())),
        "rows in memory" => here(|| Box::pin(rows())),
        "days of rows in memory" => here(|| Box::pin(days())),
        "remembered ids" => here(|| Box::pin(ids())),
        "requests of SDKs that are known again" => {
            Some(Shown::Unit("http/state/retry_detection.rs", "memory_is_bounded"))
        }
        "parts that wait for the rest of a record" => Some(Shown::Unit(
            "parts/join_buffer.rs",
            "an_organisation_with_many_parts_uses_up_its_own_share_only",
        )),
        "late parts of stored records" => Some(Shown::Unit(
            "parts/late.rs",
            "parts_stay_until_their_record_has_them_and_later_parts_stay_longer",
        )),
        "queries at once" => {
            Some(Shown::Unit("query/places.rs", "one_organisation_never_holds_more_than_its_share"))
        }
        "queries that wait" => {
            Some(Shown::Unit("query/places.rs", "who_is_over_its_share_is_refused_and_nobody_else"))
        }
        "threads of queries" => Some(Shown::Unit(
            "query/tests/limits.rs",
            "one_organisations_endless_queries_leave_places_and_threads_to_others",
        )),
        "threads that parse large bodies and encode answers" => Some(Shown::Unit(
            "heavy_work.rs",
            "an_organisation_works_in_its_places_and_another_one_has_its_own",
        )),
        "memory of queries" => Some(Shown::Unit(
            "query/memory.rs",
            "an_organisation_takes_half_of_what_the_others_leave",
        )),
        "memory of exports" => Some(Shown::Unit(
            "query/memory.rs",
            "a_giant_row_of_an_export_takes_all_while_nobody_else_is_there",
        )),
        "spilled bytes" => Some(Shown::Unit(
            "query/spill.rs",
            "an_organisation_spills_half_of_what_the_others_leave",
        )),
        "open files of spilled rows" => Some(Shown::Unit(
            "query/spill.rs",
            "an_organisation_opens_half_of_the_files_that_the_others_leave",
        )),
        "entries of the catalog" => {
            Some(Shown::Unit("catalog/limits_tests.rs", "no_organisation_makes_the_document_large"))
        }
        "wrong keys of an address" => Some(Shown::Unit(
            "http/state/guesses.rs",
            "a_guesser_waits_longer_each_time_and_others_do_not",
        )),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_organisation_takes_all_it_can_get_and_another_goes_through() {
    for limit in table::limits() {
        match shown(limit.resource) {
            Some(Shown::Here(test)) => test().await,
            Some(Shown::Unit(file, name)) => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
                let text = fs::read_to_string(&path).unwrap();
                assert!(
                    text.contains(&format!("fn {name}()")),
                    "{} has no test `{name}`",
                    path.display()
                );
            }
            None => panic!("`{}` has no test; write one and name it in `shown`", limit.resource),
        }
    }
}

/// A server, and requests to it that nobody need read the answers of.
struct Bed {
    server: Server,
    router: Router,
}

/// Requests of `acme` whose bodies do not end before [`Crowd::end`].
struct Crowd {
    gate: watch::Sender<bool>,
    asking: Vec<tokio::task::JoinHandle<StatusCode>>,
}

impl Crowd {
    /// Lets the bodies end; answers the statuses.
    async fn end(self) -> Vec<StatusCode> {
        self.gate.send_replace(true);
        let mut statuses = Vec::new();
        for asking in self.asking {
            statuses.push(asking.await.unwrap());
        }
        statuses
    }
}

impl Bed {
    async fn new(change: impl FnOnce(&mut gatelog::Config)) -> Self {
        let server = bed(change).await;
        let router = gatelog::http::router(server.engine.clone());
        Self { server, router }
    }

    async fn ask(&self, key: &str, method: &str, path: &str, body: impl Into<Body>) -> Response {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("x-portkey-api-key", key);
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    /// Sends so many bodies that begin so, and waits until the ones that get no room were refused
    /// and the others, `held` of them, run beside `besides` requests.
    async fn crowd(
        &self,
        number: usize,
        held: usize,
        besides: usize,
        path: &str,
        start: &Bytes,
    ) -> Crowd {
        let (gate, open) = watch::channel(false);
        let asking = (0..number).map(|_| {
            let mut open = open.clone();
            let end = async move {
                open.wait_for(|open| *open).await.unwrap();
                Ok::<_, std::io::Error>(Bytes::new())
            };
            let fragments =
                futures::stream::iter([Ok(start.clone())]).chain(futures::stream::once(end));
            let request = axum::http::Request::post(path).header("x-portkey-api-key", "acme admin");
            let request = request.body(Body::from_stream(fragments)).unwrap();
            let answer = self.router.clone().oneshot(request);
            tokio::spawn(async move { answer.await.unwrap().status() })
        });
        let crowd = Crowd { asking: asking.collect(), gate };
        let running = format!("gatelog_http_requests_running {}\n", besides + held + 1);
        eventually("some are refused and the others run", || async {
            let refused = crowd.asking.iter().filter(|asking| asking.is_finished()).count();
            let told = self.ask(super::KEY, "GET", "/metrics", Body::empty()).await;
            refused == number - held && text(told).await.contains(&running)
        })
        .await;
        crowd
    }

    /// What `zen` does every day goes through.
    async fn zen_is_served(&self) {
        for (path, body) in [
            ("/v1/ingest", "{\"id\":\"z\"}"),
            ("/v1/logs", "{\"request\":{\"url\":\"u\",\"body\":{}}}"),
        ] {
            let answer = self.ask("zen admin", "POST", path, body).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}: {}", text(answer).await);
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(self.ask("", "GET", path, Body::empty()).await.status(), StatusCode::OK);
        }
    }

    /// `acme` asks for the same until it is refused, and holds what it gets; then `zen` asks.
    async fn shared(&self, acme: (&str, &str), zen: (&str, &str)) {
        let mut held = Vec::new();
        for _ in 0..MANY {
            let answer = self.ask(acme.0, "GET", acme.1, Body::empty()).await;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                assert!(answer.headers().contains_key("retry-after"));
                let answer = self.ask(zen.0, "GET", zen.1, Body::empty()).await;
                assert_eq!(answer.status(), StatusCode::OK, "{}", zen.1);
                assert!(held.len() >= 8);
                return;
            }
            assert_eq!(answer.status(), StatusCode::OK, "{}", acme.1);
            held.push(answer);
        }
        panic!("{}: {MANY} were answered at once", acme.1);
    }
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn number_of(statuses: &[StatusCode], status: StatusCode) -> usize {
    statuses.iter().filter(|found| **found == status).count()
}

async fn requests() {
    let bed = Bed::new(|_| {}).await;
    let share = usize::try_from(limits::REQUESTS).unwrap() / 2;
    let crowd = bed.crowd(share + 20, share, 0, "/v1/logs", &Bytes::from_static(b"{}")).await;
    bed.zen_is_served().await;
    let statuses = crowd.end().await;
    assert!(number_of(&statuses, StatusCode::TOO_MANY_REQUESTS) >= 20, "{statuses:?}");
}

async fn bodies() {
    let bed = Bed::new(|_| {}).await;
    // Each is counted three times, as what is made of it.
    let crowd = bed.crowd(6, 4, 0, "/v1/logs", &Bytes::from(vec![b' '; 16 << 20])).await;
    bed.zen_is_served().await;
    let statuses = crowd.end().await;
    assert_eq!(number_of(&statuses, StatusCode::TOO_MANY_REQUESTS), 2, "{statuses:?}");
    bed.zen_is_served().await;
    // What was announced holds nothing.
    let announced = axum::http::Request::post("/v1/analytics/enterprise/analytics")
        .header("content-length", 128 << 20);
    let request = announced.header("x-portkey-api-key", "acme admin");
    let request = request
        .body(Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>()));
    let waiting = tokio::spawn(bed.router.clone().oneshot(request.unwrap()));
    let crowd = bed.crowd(3, 3, 1, "/v1/logs", &Bytes::from(vec![b' '; 16 << 20])).await;
    waiting.abort();
    let statuses = crowd.end().await;
    assert_eq!(number_of(&statuses, StatusCode::OK), 3, "{statuses:?}");
}

async fn streams() {
    let bed = Bed::new(|_| {}).await;
    let share = usize::try_from(limits::STREAMS).unwrap() / 2;
    let crowd = bed.crowd(share + 5, share, 0, "/v1/ingest", &Bytes::from_static(b"{}\n")).await;
    bed.zen_is_served().await;
    let statuses = crowd.end().await;
    assert_eq!(number_of(&statuses, StatusCode::TOO_MANY_REQUESTS), 5, "{statuses:?}");
    assert_eq!(number_of(&statuses, StatusCode::OK), share);
}

async fn exports() {
    let bed = Bed::new(|_| {}).await;
    for organisation in ["acme", "zen"] {
        fill(&bed.server, organisation, 0..3).await;
    }
    bed.shared(("acme exporter", "/v1/export"), ("zen exporter", "/v1/export")).await;
}

async fn downloads() {
    let bed = Bed::new(|_| {}).await;
    let mut urls = Vec::new();
    for organisation in ["acme", "zen"] {
        fill(&bed.server, organisation, 0..3).await;
        let key = format!("{organisation} exporter");
        let id = done(&bed.server, &key, json!({ "requested_data": ["id"] })).await;
        urls.push(
            url(&bed.server, &key, &id).await.strip_prefix(&bed.server.base).unwrap().to_owned(),
        );
    }
    bed.shared(("", &urls[0]), ("", &urls[1])).await;
}

async fn jobs() {
    let bed = Bed::new(|_| {}).await;
    for organisation in ["acme", "zen"] {
        fill(&bed.server, organisation, 0..3).await;
    }
    for _ in 0..5 {
        let id = create(&bed.server, "acme exporter", json!({ "requested_data": ["id"] })).await;
        start(&bed.server, "acme exporter", &id).await;
    }
    done(&bed.server, "zen exporter", json!({ "requested_data": ["id"] })).await;
}

async fn files() {
    let bed = Bed::new(|config| config.export_bytes = 4_000).await;
    for organisation in ["acme", "zen"] {
        fill(&bed.server, organisation, 0..3).await;
    }
    let mut jobs = 0;
    let refused = loop {
        let id =
            create(&bed.server, "acme exporter", json!({ "description": format!("{jobs}") })).await;
        start(&bed.server, "acme exporter", &id).await;
        let job = ended(&bed.server, "acme exporter", &id).await;
        if job["status"] != "success" {
            break job;
        }
        jobs += 1;
    };
    assert!(
        (1..20).contains(&jobs) && refused.to_string().contains("`export_bytes`"),
        "{jobs}: {refused}"
    );
    done(&bed.server, "zen exporter", json!({})).await;
}

async fn rows() {
    let bed = Bed::new(|config| {
        (config.memtable_bytes, config.flush_bytes, config.append_wait_ms) = (4 << 20, 4 << 20, 0);
    })
    .await;
    let record = json!({ "request": { "body": "x".repeat(1 << 20) } }).to_string();
    for _ in 0..8 {
        let asking = (0..4).map(|_| bed.ask("acme admin", "POST", "/v1/ingest", record.clone()));
        let asking = futures::future::join_all(asking);
        // Whatever came of those of acme.
        let (_, ()) = futures::join!(asking, bed.zen_is_served());
    }
}

async fn days() {
    let bed = Bed::new(|config| config.append_wait_ms = 60_000).await;
    let first = chrono::NaiveDate::from_ymd_opt(1990, 1, 1).unwrap();
    let number = 2 * limits::DAYS + 10;
    let records =
        first.iter_days().take(number).map(|day| format!("{{\"created_at\":\"{day}\"}}\n"));
    let asking = bed.ask("acme admin", "POST", "/v1/ingest", records.collect::<String>());
    let (answer, ()) = futures::join!(asking, bed.zen_is_served());
    let receipt: Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(receipt["accepted"], number, "{receipt}");
    bed.server.engine.flush().await.unwrap();
    let log = format!("{}/logs/_delta_log", bed.server.config.data);
    let commits = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let commits =
        commits.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let adds = |path| {
        lines(&fs::read_to_string(path).unwrap())
            .iter()
            .filter(|line| line["add"].is_object())
            .count()
    };
    let files: Vec<usize> = commits.map(adds).collect();
    // A flush may come between the count of rows and the rows; one file is zen's.
    assert!(files.iter().all(|files| *files <= 2 * limits::DAYS + 1), "{files:?}");
    assert!(files.iter().sum::<usize>() >= number, "{files:?}");
}

async fn ids() {
    let bed = Bed::new(|config| config.dedupe_ids = 2_000).await;
    let records: String = (0..100).map(|number| format!("{{\"id\":\"z{number}\"}}\n")).collect();
    for (accepted, duplicate) in [(100, 0), (0, 100)] {
        let answer = bed.ask("zen admin", "POST", "/v1/ingest", records.clone()).await;
        let receipt: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!(
            (&receipt["accepted"], &receipt["duplicate"]),
            (&json!(accepted), &json!(duplicate))
        );
        let answer = bed.ask("acme admin", "POST", "/v1/ingest", "{}\n".repeat(8_000)).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
