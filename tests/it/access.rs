//! Permissions: every route with every kind of key, foreign things that must look like unknown
//! ones, and the commands that make organisations and keys.

use std::collections::BTreeSet;
use std::process::Output;
use std::time::{Duration as Time, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use chrono::{DateTime, Duration, Utc};
use gatelog::config::{Config, Plans};
use gatelog::engine::{Document, Engine, NewKey, Organisation, Scope};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::cli::Home;

/// An engine with organisations `acme` and `zen` and keys of every kind, behind the router.
struct Bed {
    engine: Engine,
    router: Router,
    _folder: tempfile::TempDir,
}

#[derive(Debug, PartialEq)]
struct Told {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|cause| panic!("{cause}: {}", self.text))
    }

    /// Checks that it is a failure in the one envelope; gives its message.
    #[track_caller]
    fn failure(&self, status: StatusCode) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/json");
        let body = self.json();
        let message = body["message"].as_str().unwrap().to_owned();
        assert_eq!((&body["status"], &body["success"]), (&json!("failure"), &json!(false)));
        assert_eq!(
            (&body["error"]["message"], &body["data"]["message"]),
            (&json!(message), &json!(message))
        );
        assert!(
            body["error"]["code"].is_string()
                && body["data"]["errorCode"].as_str().unwrap().starts_with("AB")
        );
        message
    }
}

fn organisation(plan: &str) -> Organisation {
    Organisation {
        name: None,
        plan: plan.to_owned(),
        retention_days: None,
        workspaces: ["search".to_owned()].into(),
        created_at: Utc::now(),
        moving: Vec::new(),
        deleted_at: None,
    }
}

fn key(organisation: Option<&str>, scopes: impl IntoIterator<Item = Scope>) -> NewKey {
    NewKey {
        organisation: organisation.map(str::to_owned),
        scopes: scopes.into_iter().collect(),
        ..NewKey::default()
    }
}

/// Every scope but one and `admin`, which stands for all of them.
fn all_but(scope: Scope) -> impl Iterator<Item = Scope> {
    Scope::ALL.into_iter().filter(move |other| *other != scope && *other != Scope::Admin)
}

/// The id of a key of that text.
fn id_of(text: &str) -> String {
    Document::default().add_key(text, key(None, [Scope::View]), Utc::now()).unwrap().id.clone()
}

/// Keys are named after what they are for: `acme logs.view`, `acme not logs.view`, `acme admin`,
/// `operator`, …
fn fill(document: &mut Document) -> gatelog::error::Result<()> {
    let now = Utc::now();
    for id in ["acme", "zen"] {
        document.create_organisation(id, organisation("production"), 0)?;
        for scope in Scope::ALL {
            document.add_key(&format!("{id} {scope}"), key(Some(id), [scope]), now)?;
            document.add_key(&format!("{id} not {scope}"), key(Some(id), all_but(scope)), now)?;
        }
    }
    document.create_organisation("tiny", organisation("tiny"), 0)?;
    document.create_organisation("doomed", organisation("production"), 0)?;
    document.add_key("tiny", key(Some("tiny"), [Scope::Write, Scope::View]), now)?;
    document.add_key(
        "acme all",
        key(Some("acme"), [Scope::View, Scope::Read, Scope::Export]),
        now,
    )?;
    let search =
        NewKey { workspace: Some("search".to_owned()), ..key(Some("acme"), [Scope::Admin]) };
    document.add_key("acme search", search, now)?;
    document.add_key("operator", key(None, [Scope::Admin]), now)?;
    document.add_key("reader of all", key(None, all_but(Scope::Admin)), now)?;
    let ended = NewKey { expires_at: Some(now - Duration::hours(1)), ..key(None, [Scope::Admin]) };
    document.add_key("expired", ended, now - Duration::hours(2))?;
    let id = document.add_key("revoked", key(None, [Scope::Admin]), now)?.id.clone();
    let operator = gatelog::engine::Access::operator("test");
    document.revoke_key(&id, &operator, now).map(|_| ())
}

impl Bed {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").display().to_string();
        let plans = Plans::parse("[tiny]\nincluded = 3\nover = 'stop'").unwrap();
        let config = Config { data, plans, share_links: true, ..Config::default() };
        let engine = Engine::open(config).await.unwrap();
        engine.catalog().change(fill).await.unwrap();
        engine.catalog_changed();
        let router = gatelog::http::router(engine.clone());
        Self { engine, router, _folder: folder }
    }

    async fn ask(
        &self,
        key: Option<&str>,
        method: Method,
        path: &str,
        body: impl Into<String>,
    ) -> Told {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("x-portkey-api-key", key);
        }
        let response = self
            .router
            .clone()
            .oneshot(request.body(Body::from(body.into())).unwrap())
            .await
            .unwrap();
        let (status, mut headers) = (response.status(), response.headers().clone());
        assert!(headers.remove("x-portkey-request-id").is_some());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        Told { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn get(&self, key: &str, path: &str) -> Told {
        self.ask(Some(key), Method::GET, path, "").await
    }

    async fn post(&self, key: &str, path: &str, body: impl Into<String>) -> Told {
        self.ask(Some(key), Method::POST, path, body).await
    }

    /// The rows of a statement, as that key sees them.
    async fn sql(&self, key: &str, query: &str) -> Vec<Value> {
        let told = self.post(key, "/v1/sql", query).await;
        assert_eq!(told.status, StatusCode::OK, "{}", told.text);
        told.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const CONTROL_PLANE_LOG: &str = r#"{"logObject":{"_id":"cp","created_at":"2026-11-21 10:00:00.000",
    "request":{"url":"u"},"response":{"status":200},"metrics":{}}}"#;
const CONTROL_PLANE_ROWS: &str = r#"{"table":"generations","data":[{"id":"cp"}]}"#;

/// What a route needs: a scope, or an operator's key.
#[derive(Clone, Copy)]
enum Needs {
    Scope(Scope),
    Operator,
}

/// A route, what it needs, and what is answered to: a key of `acme` with everything but that, one
/// with nothing but that, an admin of `acme`, an admin of `zen`, and the operator.
type Line = (Method, &'static str, &'static str, Needs, [u16; 5]);

fn table() -> Vec<Line> {
    use Needs::Operator;
    let [write, view, read, export, analytics, admin] =
        [Scope::Write, Scope::View, Scope::Read, Scope::Export, Scope::Analytics, Scope::Admin]
            .map(Needs::Scope);
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let all = [403, 200, 200, 200, 200];
    let (none, own, operators) =
        ([403, 404, 404, 404, 404], [403, 200, 200, 404, 200], [403, 403, 403, 403, 200]);
    vec![
        (post.clone(), "/v1/logs", r#"{"request":{},"response":{}}"#, write, all),
        (post.clone(), "/v1/traces", "", write, all),
        (post.clone(), "/v1/metrics", "", write, all),
        (post.clone(), "/v1/otel/v1/traces", r#"{"resourceSpans":[]}"#, write, all),
        (post.clone(), "/v1/otel/v1/logs", "", write, all),
        (post.clone(), "/v1/otel/v1/metrics", "", write, all),
        (post.clone(), "/v1/logs/otel", "", write, all),
        (post.clone(), "/v1/logs/otel/v1/traces", "", write, all),
        (post.clone(), "/v1/logs/otel/v1/logs", "", write, all),
        (post.clone(), "/v1/logs/otel/v1/metrics", "", write, all),
        (post.clone(), "/v1/ingest", r#"{"ai_model":"m"}"#, write, all),
        (get.clone(), "/v1/logs", "", view, all),
        (get.clone(), "/v1/logs/none", "", view, none),
        (get.clone(), "/logs/none", "", view, none),
        (
            get.clone(),
            "/v1/logs/groups/model?time_of_generation_min=2026-11-01&time_of_generation_max=2026-11-02",
            "",
            analytics,
            all,
        ),
        (get.clone(), "/v1/refusals", "", view, all),
        (get.clone(), "/v1/logs/filters", "", view, all),
        (
            Method::PUT,
            "/v1/logs/filters/mine?organisation_id=acme",
            r#"{"query":"ai_model=m"}"#,
            view,
            own,
        ),
        (delete.clone(), "/v1/logs/filters/none?organisation_id=acme", "", view, none),
        (get.clone(), "/v1/logs/none/replay", "", read, none),
        // `logs.read` is needed beside it.
        (post.clone(), "/v1/logs/none/replay", "", write, [403, 403, 404, 404, 404]),
        (get.clone(), "/v1/logs/none/share", "", view, none),
        (post.clone(), "/v1/logs/none/share", "", view, none),
        (get.clone(), "/v1/shares", "", view, all),
        (delete.clone(), "/v1/shares/none", "", view, none),
        (get.clone(), "/v1/admin/archived-providers", "", admin, all),
        (
            post.clone(),
            "/v1/admin/archived-providers",
            r#"{"organisation":"acme","provider":"p"}"#,
            admin,
            own,
        ),
        (delete.clone(), "/v1/admin/archived-providers/p?organisation=acme", "", admin, own),
        (post.clone(), "/v1/feedback", r#"{"trace_id":"t","value":1}"#, write, all),
        (get.clone(), "/v1/feedback", "", view, all),
        (Method::PUT, "/v1/feedback/none", r#"{"value":1}"#, write, none),
        (post.clone(), "/v1/feedback/none", r#"{"value":1}"#, write, none),
        (get.clone(), "/v1/feedback/none", "", view, none),
        (post.clone(), "/v1/ingest/litellm", r#"{"model":"m"}"#, write, all),
        (post.clone(), "/v1/ingest/gateway-hook", "", write, all),
        (get.clone(), "/v2/api-keys/self/details", "", write, all),
        (post.clone(), "/v1/logs/enterprise/logs", CONTROL_PLANE_LOG, write, all),
        (post.clone(), "/v1/analytics/enterprise/analytics", CONTROL_PLANE_ROWS, write, all),
        (post.clone(), "/dp/metrics", CONTROL_PLANE_ROWS, write, all),
        (get.clone(), "/v1/sql?query=select+1", "", view, all),
        (post.clone(), "/v1/sql", "select 1", view, all),
        (get.clone(), "/v1/reports", "", analytics, all),
        (get.clone(), "/v1/reports/status_counts", "", analytics, all),
        (
            get.clone(),
            "/v1/analytics/graphs/errors/rate?time_of_generation_min=2026-11-01&time_of_generation_max=2026-11-02",
            "",
            analytics,
            all,
        ),
        (
            get.clone(),
            "/v1/analytics/groups/metadata/team?time_of_generation_min=2026-11-01&time_of_generation_max=2026-11-02",
            "",
            analytics,
            all,
        ),
        (
            get.clone(),
            "/v1/analytics/summary/cache?time_of_generation_min=2026-11-01&time_of_generation_max=2026-11-02",
            "",
            analytics,
            all,
        ),
        (get.clone(), "/v1/export", "", export, all),
        (post.clone(), "/v1/export", "{}", export, all),
        (get.clone(), "/v1/logs/exports", "", export, all),
        (post.clone(), "/v1/logs/exports", "", export, all),
        (get.clone(), "/v1/logs/exports/field-restrictions", "", export, all),
        (get.clone(), "/v1/logs/exports/none", "", export, none),
        (Method::PUT, "/v1/logs/exports/none", "", export, none),
        (post.clone(), "/v1/logs/exports/none/start", "", export, none),
        (post.clone(), "/v1/logs/exports/none/cancel", "", export, none),
        (get.clone(), "/v1/logs/exports/none/download", "", export, none),
        (get.clone(), "/metrics", "", Operator, operators),
        (get.clone(), "/v1/admin/organisations", "", admin, all),
        (
            post.clone(),
            "/v1/admin/organisations",
            r#"{"id":"new","plan":"developer"}"#,
            Operator,
            [403, 403, 403, 403, 201],
        ),
        (get.clone(), "/v1/admin/organisations/acme", "", admin, own),
        (get.clone(), "/v1/admin/organisations/ghost", "", admin, none),
        (patch.clone(), "/v1/admin/organisations/acme", r#"{"name":"A"}"#, Operator, operators),
        (
            patch,
            "/v1/admin/organisations/ghost",
            r#"{"name":"A"}"#,
            Operator,
            [403, 403, 403, 403, 404],
        ),
        (delete.clone(), "/v1/admin/organisations/doomed", "", Operator, [403, 403, 403, 403, 202]),
        (delete.clone(), "/v1/admin/organisations/ghost", "", Operator, [403, 403, 403, 403, 404]),
        (get.clone(), "/v1/admin/keys", "", admin, all),
        (get.clone(), "/v1/admin/keys?organisation=acme", "", admin, own),
        (
            post.clone(),
            "/v1/admin/keys",
            r#"{"organisation":"acme","scopes":["logs.view"]}"#,
            admin,
            [403, 201, 201, 404, 201],
        ),
        // The id of `acme logs.read`; revoking it again is as good as once.
        (delete.clone(), "/v1/admin/keys/KEY", "", admin, own),
        (delete, "/v1/admin/keys/000000000000", "", admin, none),
        (get.clone(), "/v1/admin/erasures", "", admin, all),
        (get.clone(), "/v1/admin/erasures?organisation=acme", "", admin, own),
        (
            post.clone(),
            "/v1/admin/erasures",
            r#"{"organisation":"acme","user":"nobody"}"#,
            admin,
            [403, 202, 202, 404, 202],
        ),
        (get.clone(), "/v1/admin/plans", "", admin, all),
        (get.clone(), "/v1/admin/maintain", "", Operator, operators),
        (get, "/v1/admin/clock", "", Operator, operators),
        (post.clone(), "/v1/admin/clock", "", Operator, operators),
        (post.clone(), "/v1/admin/maintain/vacuum?dry_run=true", "", Operator, operators),
        (post.clone(), "/v1/admin/maintain/sweep", "", Operator, [403, 403, 403, 403, 404]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_every_kind_of_key_as_the_table_says() {
    let bed = Bed::new().await;
    let key_id = id_of("acme logs.read");
    let mut unauthorised = BTreeSet::new();
    for (method, path, body, needs, expected) in table() {
        let path = path.replace("KEY", &key_id);
        for key in [None, Some(""), Some("never made"), Some("revoked"), Some("expired")] {
            let told = bed.ask(key, method.clone(), &path, body).await;
            told.failure(StatusCode::UNAUTHORIZED);
            assert!(
                told.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"),
                "{path}"
            );
            unauthorised.insert(told.text);
        }
        let scope = match needs {
            Needs::Scope(scope) => scope,
            Needs::Operator => Scope::Admin,
        };
        let lacking = match needs {
            Needs::Scope(scope) => format!("acme not {scope}"),
            Needs::Operator => "reader of all".to_owned(),
        };
        let keys =
            [lacking.as_str(), &format!("acme {scope}"), "acme admin", "zen admin", "operator"];
        for (key, status) in keys.into_iter().zip(expected) {
            let told = bed.ask(Some(key), method.clone(), &path, body).await;
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(told.status, status, "{method} {path} with key `{key}`: {}", told.text);
            if !status.is_success() {
                let message = told.failure(status);
                assert!(
                    status != StatusCode::FORBIDDEN || message.contains(&format!("`{scope}`")),
                    "{message}"
                );
            }
        }
    }
    // One text for a missing key, one for all that open nothing: neither says which routes or keys
    // there are.
    assert_eq!(unauthorised.len(), 2, "{unauthorised:?}");
    bed.engine.close().await.unwrap();
}

/// A `dry_run` that a route ignored would be a change.
#[tokio::test(flavor = "multi_thread")]
async fn admin_routes_that_change_something_refuse_fields_that_they_do_not_know() {
    let bed = Bed::new().await;
    // Without what maintenance writes meanwhile.
    let kept = || {
        let mut document = bed.engine.catalog().state().document.clone();
        document.change = String::new();
        document.organisations.values_mut().for_each(|organisation| organisation.moving.clear());
        document
    };
    let before = kept();
    let mut asked = 0;
    for (method, path, body, ..) in table() {
        if method == Method::GET || !path.starts_with("/v1/admin/") {
            continue;
        }
        let path = path.replace("KEY", &id_of("acme logs.read"));
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}dry_ran=true");
        let told = bed.ask(Some("operator"), method.clone(), &path, body).await;
        if told.status != StatusCode::NOT_FOUND {
            let message = told.failure(StatusCode::BAD_REQUEST);
            assert!(message.contains("`dry_ran` is unknown"), "{method} {path}: {message}");
            asked += 1;
        }
    }
    assert!(asked > 8, "{asked}");
    assert_eq!(kept(), before);
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_has_every_route_and_others_are_unknown() {
    let bed = Bed::new().await;
    bed.ask(None, Method::GET, "/v1/nowhere", "").await.failure(StatusCode::UNAUTHORIZED);
    bed.get("revoked", "/v1/nowhere").await.failure(StatusCode::UNAUTHORIZED);
    let message = bed.get("acme logs.write", "/v1/logz").await.failure(StatusCode::NOT_FOUND);
    assert_eq!(message, "route `/v1/logz` does not exist; see `/openapi.json`; nearest: /v1/logs");
    let described = bed.ask(None, Method::GET, "/openapi.json", "").await.json();
    let routes: BTreeSet<&str> = described["paths"]
        .as_object()
        .unwrap()
        .keys()
        .filter_map(|path| path.split("/{").next())
        .collect();
    assert!(routes.len() > 20, "{routes:?}");
    let open = ["/healthz", "/readyz", "/openapi.json", "/docs"];
    // Who has a link needs no key.
    let links = ["/exports", "/shared"];
    for route in routes.iter().filter(|route| !open.contains(route) && !links.contains(route)) {
        // All graphs are served by one handler, as are groups, summaries and reports.
        let families = [
            "/v1/analytics/graphs/",
            "/v1/analytics/groups/",
            "/v1/analytics/summary/",
            "/v1/logs/groups/",
            "/v1/reports/",
        ];
        let family = families.into_iter().find(|family| route.starts_with(family)).unwrap_or(route);
        let known = table().iter().any(|(_, path, ..)| path.starts_with(family));
        assert!(known, "`{route}` is not in the table of this test");
    }
    bed.ask(Some("acme logs.write"), Method::DELETE, "/v1/logs", "")
        .await
        .failure(StatusCode::METHOD_NOT_ALLOWED);
    for path in open {
        assert_eq!(bed.ask(None, Method::GET, path, "").await.status, StatusCode::OK);
    }
    bed.engine.close().await.unwrap();
}

/// Each request is made before the thing that it names exists, and again when another organisation
/// has it: the answers are the same, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_looks_like_what_does_not_exist() {
    let bed = Bed::new().await;
    let key_id = id_of("late admin");
    let cursor = "/v1/export?after=2026-11-21T10:00:00.000Z,late-record";
    let requests = [
        (Method::GET, "/v1/admin/organisations/late".to_owned(), String::new()),
        (Method::GET, "/v1/admin/keys?organisation=late".to_owned(), String::new()),
        (Method::GET, "/v1/admin/erasures?organisation=late".to_owned(), String::new()),
        (
            Method::POST,
            "/v1/admin/keys".to_owned(),
            json!({"organisation": "late", "scopes": ["admin"]}).to_string(),
        ),
        (Method::POST, "/v1/admin/keys".to_owned(), json!({"organisation": "late"}).to_string()),
        (
            Method::POST,
            "/v1/admin/erasures".to_owned(),
            json!({"organisation": "late", "all": true}).to_string(),
        ),
        (
            Method::PATCH,
            "/v1/admin/organisations/late".to_owned(),
            json!({"plan": "enterprise"}).to_string(),
        ),
        (Method::DELETE, "/v1/admin/organisations/late".to_owned(), String::new()),
        (Method::DELETE, format!("/v1/admin/keys/{key_id}"), String::new()),
        (Method::GET, "/v1/admin/organisations".to_owned(), String::new()),
        (Method::GET, "/v1/admin/keys".to_owned(), String::new()),
        (Method::GET, "/v1/admin/erasures".to_owned(), String::new()),
        (Method::GET, cursor.to_owned(), String::new()),
        (Method::GET, "/v1/logs/late-record".to_owned(), String::new()),
        (Method::GET, "/logs/late-record".to_owned(), String::new()),
        (Method::GET, "/v1/logs/late-record/replay".to_owned(), String::new()),
        (Method::POST, "/v1/logs/late-record/replay".to_owned(), String::new()),
        (Method::POST, "/v1/logs/late-record/share".to_owned(), String::new()),
        (Method::GET, "/v1/logs?organisation_id=late&include_total=true".to_owned(), String::new()),
        (Method::GET, "/v1/feedback?trace_id=late-trace".to_owned(), String::new()),
        (
            Method::POST,
            "/v1/feedback".to_owned(),
            json!({"log_id": "late-record", "value": 1}).to_string(),
        ),
        (
            Method::POST,
            "/v1/sql".to_owned(),
            "select * from logs where id = 'late-record'".to_owned(),
        ),
        (
            Method::POST,
            "/v1/sql".to_owned(),
            "select count(*) from logs where organisation_id = 'late'".to_owned(),
        ),
    ];
    let ask_all = async || {
        let mut told = Vec::new();
        for (method, path, body) in &requests {
            told.push(bed.ask(Some("zen admin"), method.clone(), path, body.as_str()).await);
        }
        told
    };
    let before = ask_all().await;
    let now = Utc::now();
    let arrive = |document: &mut Document| {
        document.create_organisation("late", organisation("production"), 0)?;
        document.add_key("late admin", key(Some("late"), [Scope::Admin]), now)?;
        document
            .erase("e", "late", gatelog::engine::ErasureSelector::User("ada".to_owned()), "k", now)
            .map(|_| ())
    };
    bed.engine.catalog().change(arrive).await.unwrap();
    bed.engine.catalog_changed();
    let record =
        json!({"id": "late-record", "created_at": "2026-11-21T10:00:00.000Z", "ai_model": "m"});
    assert_eq!(
        bed.post("late admin", "/v1/ingest", record.to_string()).await.json()["accepted"],
        1
    );
    assert_eq!(bed.sql("late admin", "select id from logs").await.len(), 1);
    for ((before, after), (method, path, _)) in before.iter().zip(&ask_all().await).zip(&requests) {
        assert_eq!(before, after, "{method} {path}");
    }
    for foreign in &before[..3] {
        assert_eq!(foreign.failure(StatusCode::NOT_FOUND), "organisation `late` does not exist");
    }
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisations_admin_makes_sees_and_revokes_its_own_keys_only() {
    let bed = Bed::new().await;
    let body =
        json!({"scopes": ["logs.write", "logs.view"], "name": "gateway", "expires_in_days": 30})
            .to_string();
    let made = bed.post("acme admin", "/v1/admin/keys", body).await;
    assert_eq!(
        (made.status, &made.headers["cache-control"]),
        (StatusCode::CREATED, &"no-store".parse().unwrap())
    );
    let made = made.json();
    let text = made["key"].as_str().unwrap();
    assert_eq!(
        (&made["organisation"], &made["workspace"], &made["state"]),
        (&json!("acme"), &Value::Null, &json!("active"))
    );
    let expires_at: DateTime<Utc> = made["expires_at"].as_str().unwrap().parse().unwrap();
    let days = (expires_at - Utc::now()).num_hours();
    assert!((29 * 24..=30 * 24).contains(&days), "{expires_at}");
    assert_eq!(bed.post(text, "/v1/ingest", r#"{"ai_model":"m"}"#).await.status, StatusCode::OK);
    assert_eq!(
        bed.sql(text, "select distinct organisation_id as o from logs").await,
        [json!({"o": "acme"})]
    );
    bed.get(text, "/v1/export").await.failure(StatusCode::FORBIDDEN);

    let listed = bed.get("acme admin", "/v1/admin/keys").await;
    assert!(
        !listed.text.contains(text)
            && !listed.text.contains("sha256")
            && !listed.text.contains("zen")
    );
    let keys = listed.json()["data"].as_array().unwrap().clone();
    assert!(
        keys.iter().all(|key| key["organisation"] == "acme")
            && keys.iter().any(|key| key["id"] == made["id"])
    );
    let all = bed.get("operator", "/v1/admin/keys").await.json();
    let state = |text: &str| {
        let found = all["data"].as_array().unwrap().iter().find(|key| key["id"] == id_of(text));
        found.unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        [state("revoked"), state("expired"), state("operator")],
        ["revoked", "expired", "active"]
    );

    let path = format!("/v1/admin/keys/{}", made["id"].as_str().unwrap());
    let revoked = bed.ask(Some("acme admin"), Method::DELETE, &path, "").await.json();
    assert!(revoked["state"] == "revoked" && revoked["revoked_at"].is_string(), "{revoked}");
    bed.post(text, "/v1/ingest", "{}").await.failure(StatusCode::UNAUTHORIZED);
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_workspace_does_not_reach_the_rest_of_its_organisation() {
    let bed = Bed::new().await;
    let made = bed.post("acme search", "/v1/admin/keys", r#"{"scopes":["admin"]}"#).await.json();
    assert_eq!((&made["organisation"], &made["workspace"]), (&json!("acme"), &json!("search")));
    bed.post("acme search", "/v1/admin/keys", r#"{"scopes":["admin"],"workspace":"ads"}"#)
        .await
        .failure(StatusCode::FORBIDDEN);
    for told in [
        bed.post("acme search", "/v1/admin/erasures", r#"{"all":true}"#).await,
        bed.get("acme search", "/v1/admin/erasures").await,
    ] {
        assert!(told.failure(StatusCode::FORBIDDEN).contains("`admin`"));
    }
    let keys = bed.get("acme search", "/v1/admin/keys").await.json();
    assert!(
        keys["data"].as_array().unwrap().iter().all(|key| key["workspace"] == "search"),
        "{keys}"
    );
    let admin = format!("/v1/admin/keys/{}", id_of("acme admin"));
    bed.ask(Some("acme search"), Method::DELETE, &admin, "").await.failure(StatusCode::NOT_FOUND);

    let records = json!([{"id": "1", "workspace_slug": "ads"}, {"id": "2", "workspace_slug": "search"}, {"id": "3"}]);
    let receipt = bed.post("acme search", "/v1/ingest", records.to_string()).await.json();
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(2), &json!(1)), "{receipt}");
    assert_eq!(receipt["rejections"][0]["field"], "workspace_slug");
    bed.post("acme admin", "/v1/ingest", records.to_string()).await;
    let ids = "select id from logs order by id";
    assert_eq!(bed.sql("acme search", ids).await, [json!({"id": "2"}), json!({"id": "3"})]);
    // The third is of no workspace this time, and so another record.
    assert_eq!(bed.sql("acme admin", ids).await.len(), 4);
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_key_sends_and_sees_its_organisation_and_bodies_need_their_scope() {
    let bed = Bed::new().await;
    let body = json!({"model": "secret-model"});
    let records = json!([
        {"id": "own", "organisation_id": "acme", "request": {"body": body}},
        {"id": "unnamed", "request": {"body": body}},
        {"id": "foreign", "organisation_id": "zen", "request": {"body": body}},
    ]);
    let receipt = bed.post("acme logs.write", "/v1/ingest", records.to_string()).await.json();
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(2), &json!(1)), "{receipt}");
    let rejection = &receipt["rejections"][0];
    assert_eq!(
        (&rejection["record"], &rejection["field"]),
        (&json!(2), &json!("organisation_id")),
        "{receipt}"
    );
    assert!(rejection["expected"].as_str().unwrap().contains("`acme`"), "{receipt}");
    let only = r#"{"organisation_id":"zen"}"#;
    let message =
        bed.post("acme logs.write", "/v1/ingest", only).await.failure(StatusCode::BAD_REQUEST);
    assert!(message.contains("organisation_id"), "{message}");
    assert_eq!(
        bed.post("operator", "/v1/ingest", r#"{"id":"z","organisation_id":"zen"}"#).await.json()["accepted"],
        1
    );

    let query = "select id, request['body'] as body from logs order by id";
    let seen = bed.sql("acme logs.view", query).await;
    assert_eq!(seen, [json!({"id": "own", "body": null}), json!({"id": "unnamed", "body": null})]);
    let seen = bed.sql("acme all", query).await;
    assert!(
        seen.len() == 2
            && seen.iter().all(|row| row["body"].as_str().unwrap().contains("secret-model")),
        "{seen:?}"
    );
    assert_eq!(bed.sql("zen logs.view", "select id from logs").await, [json!({"id": "z"})]);
    assert_eq!(bed.sql("operator", "select id from logs").await.len(), 3);
    let lines = bed.get("acme all", "/v1/export").await.text;
    assert!(lines.lines().count() == 2 && !lines.contains("\"zen\""), "{lines}");
    let report = bed.get("zen analytics.view", "/v1/reports/spend_by_model").await;
    assert!(report.status == StatusCode::OK && !report.text.contains("acme"), "{}", report.text);
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_breaks_nobodys_app_and_is_told() {
    let bed = Bed::new().await;
    let records: String = (0..5).map(|number| format!("{{\"id\":\"r-{number}\"}}\n")).collect();
    let told = bed.post("tiny", "/v1/ingest", records.as_str()).await;
    let receipt = told.json();
    assert_eq!(told.status, StatusCode::OK, "{receipt}");
    assert_eq!(
        (&receipt["accepted"], &receipt["over_quota"], &receipt["rejected"]),
        (&json!(3), &json!(2), &json!(0))
    );
    let message = receipt["message"].as_str().unwrap();
    for words in ["`tiny`", "stores 3 records", "another plan"] {
        assert!(message.contains(words), "{message}");
    }
    let again = bed.post("tiny", "/v1/ingest", format!("{records}oops\n")).await;
    assert_eq!(again.status, StatusCode::OK, "over the quota is no error: {}", again.text);
    let insert = r#"[{"request":{},"response":{}},{"request":{},"response":{}}]"#;
    let told = bed.post("tiny", "/v1/logs", insert).await;
    assert_eq!((told.status, told.text.as_str()), (StatusCode::OK, "ok"));
    let counts = ["over-quota", "accepted", "rejected"]
        .map(|name| &told.headers[&format!("x-gatelog-{name}")]);
    assert_eq!(counts, ["2", "0", "0"]);
    assert_eq!(bed.sql("tiny", "select count(*) as n from logs").await, [json!({"n": 3})]);

    let free = bed.post("acme logs.write", "/v1/ingest", "{}").await.json();
    assert!(free["over_quota"] == 0 && free.get("message").is_none(), "{free}");
    let shown = bed.get("operator", "/v1/admin/organisations/tiny").await.json();
    assert_eq!(
        (&shown["records_this_month"], &shown["plan"]),
        (&json!(3), &json!("tiny")),
        "{shown}"
    );
    assert!(shown["not_stored_this_month"].as_u64().unwrap() >= 4, "{shown}");
    let wider = r#"{"plan":"production"}"#;
    let told =
        bed.ask(Some("operator"), Method::PATCH, "/v1/admin/organisations/tiny", wider).await;
    assert_eq!((told.status, &told.json()["retention_days"]), (StatusCode::OK, &json!(30)));
    assert_eq!(bed.post("tiny", "/v1/ingest", r#"{"id":"r-9"}"#).await.json()["accepted"], 1);
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn organisations_are_managed_over_http() {
    let bed = Bed::new().await;
    let path = "/v1/admin/organisations";
    let body = json!({"id": "harbor", "plan": "enterprise", "retention_days": 365, "name": "Harbor", "workspaces": ["a"]});
    let made = bed.post("operator", path, body.to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let one = format!("{path}/harbor");
    assert_eq!(made.json(), bed.get("operator", &one).await.json());
    let change = json!({"retention_days": 90, "add_workspaces": ["b"]}).to_string();
    let changed = bed.ask(Some("operator"), Method::PATCH, &one, change).await.json();
    assert_eq!(
        (&changed["retention_days"], &changed["workspaces"]),
        (&json!(90), &json!(["a", "b"]))
    );
    for (body, words) in [
        (
            json!({"id": "x"}),
            "`plan` is missing; name one of developer, enterprise, production, tiny",
        ),
        (json!({"id": "x", "plan": "gold"}), "plan `gold` does not exist"),
        (json!({"id": "x", "plan": "developer", "colour": "red"}), "field `colour` is unknown"),
        (json!({"id": "x y", "plan": "developer"}), "`x y` is not a valid name"),
        (json!({"id": "acme", "plan": "developer"}), "exists already"),
        (json!({"plan": "developer"}), "missing field `id`"),
    ] {
        let message =
            bed.post("operator", path, body.to_string()).await.failure(StatusCode::BAD_REQUEST);
        assert!(message.contains(words), "{message}");
    }
    let message =
        bed.ask(Some("operator"), Method::PATCH, &one, "{}").await.failure(StatusCode::BAD_REQUEST);
    assert!(message.contains("changes nothing"), "{message}");
    let large = json!({"id": "x", "name": "x".repeat(2 << 20)}).to_string();
    bed.post("operator", path, large).await.failure(StatusCode::PAYLOAD_TOO_LARGE);

    let deleted = bed.ask(Some("operator"), Method::DELETE, &format!("{path}/acme"), "").await;
    assert!(
        deleted.status == StatusCode::ACCEPTED && deleted.json()["deleted_at"].is_string(),
        "{}",
        deleted.text
    );
    bed.get("acme admin", path).await.failure(StatusCode::UNAUTHORIZED);
    bed.get("operator", &format!("{path}/acme")).await.failure(StatusCode::NOT_FOUND);
    let all = bed.get("operator", path).await.json();
    let acme = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|organisation| organisation["id"] == "acme")
        .unwrap();
    assert!(acme["deleted_at"].is_string(), "{all}");
    let plans = bed.get("zen admin", "/v1/admin/plans").await.json();
    let production =
        plans["data"].as_array().unwrap().iter().find(|plan| plan["name"] == "production").unwrap();
    assert_eq!(
        (&production["included"], &production["over"]),
        (&json!(100_000), &json!("bill")),
        "{plans}"
    );
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_hides_at_once_and_is_written_down() {
    let bed = Bed::new().await;
    let record = |id: &str, user: &str| json!({"id": id, "metadata": {"_user": user}});
    let records = json!([record("1", "ada"), record("2", "bob"), record("3", "cy")]).to_string();
    for key in ["acme admin", "zen admin"] {
        assert_eq!(bed.post(key, "/v1/ingest", records.as_str()).await.json()["accepted"], 3);
    }
    let count = "select count(*) as n from logs";
    let asked = bed.post("acme admin", "/v1/admin/erasures", r#"{"user":"ada"}"#).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{}", asked.text);
    assert_eq!(bed.sql("acme admin", count).await, [json!({"n": 2})]);
    bed.post(
        "operator",
        "/v1/admin/erasures",
        r#"{"organisation":"acme","ids":["2","no such record"]}"#,
    )
    .await;
    assert_eq!(bed.sql("acme admin", "select id from logs").await, [json!({"id": "3"})]);
    assert_eq!(bed.sql("zen admin", count).await, [json!({"n": 3})]);
    let written = bed.get("acme admin", "/v1/admin/erasures").await.json();
    let (first, second) = (&written["data"][0], &written["data"][1]);
    assert_eq!(
        (&first["what"], &first["user"], &first["requested_by"]),
        (&json!("user"), &json!("ada"), &json!(id_of("acme admin")))
    );
    assert_eq!(
        (&second["what"], &second["requested_by"]),
        (&json!("ids"), &json!(id_of("operator")))
    );
    assert_eq!(
        (
            &written["total"],
            bed.get("zen admin", "/v1/admin/erasures").await.json()["total"].clone()
        ),
        (&json!(2), json!(0))
    );
    for (body, words) in [
        (json!({"user": "a"}), "`organisation` is missing"),
        (json!({"organisation": "acme"}), "give one of `user`, `ids`"),
        (json!({"organisation": "acme", "all": true, "user": "a"}), "give one of `user`, `ids`"),
        (json!({"organisation": "acme", "ids": []}), "names no record"),
        (
            json!({"organisation": "acme", "usr": "a"}),
            "field `usr` is unknown; did you mean `user`?",
        ),
    ] {
        let message = bed
            .post("operator", "/v1/admin/erasures", body.to_string())
            .await
            .failure(StatusCode::BAD_REQUEST);
        assert!(message.contains(words), "{message}");
    }
    bed.engine.close().await.unwrap();
}

/// What the command line says, to people and to programs.
impl Home {
    #[track_caller]
    fn told(&self, code: i32, args: &[&str]) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(code), "{args:?}: {stdout}{stderr}");
        if code != 0 {
            crate::said::once(&stderr);
        }
        (stdout, stderr)
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{args:?}: {cause}: {text}"))
    }
}

struct Serving {
    child: std::process::Child,
    base: String,
}

impl Serving {
    fn start(home: &Home) -> Self {
        let address = home.0.path().join("address");
        let mut command =
            home.command(&["serve", "--listen", "127.0.0.1:0", "--address-file", "address"]);
        let stderr = std::fs::File::create(home.0.path().join("serve.txt")).unwrap();
        let mut child =
            command.args(["--set", "refresh_seconds=1"]).stderr(stderr).spawn().unwrap();
        let end = Instant::now() + Time::from_secs(60);
        while !address.exists() {
            assert!(
                child.try_wait().unwrap().is_none() && Instant::now() < end,
                "the server does not come up"
            );
            std::thread::sleep(Time::from_millis(10));
        }
        let base = format!("http://{}", std::fs::read_to_string(address).unwrap().trim());
        Self { child, base }
    }

    async fn post(&self, key: &str, path: &str, body: &str) -> (u16, String) {
        let request = reqwest::Client::new().post(format!("{}{path}", self.base)).bearer_auth(key);
        let response = request.body(body.to_owned()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn eventually(
        &self,
        key: &str,
        path: &str,
        body: &str,
        wanted: impl Fn(u16, &str) -> bool,
    ) {
        let end = Instant::now() + Time::from_secs(60);
        loop {
            let (status, text) = self.post(key, path, body).await;
            if wanted(status, &text) {
                return;
            }
            assert!(Instant::now() < end, "{path} still answers {status}: {text}");
            tokio::time::sleep(Time::from_millis(100)).await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A script sets up a new folder, and goes on while a server runs on it.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_work_on_a_fresh_folder_and_beside_a_server() {
    let home = Home::new();
    let made =
        home.json(&["org", "create", "acme", "--plan", "production", "--workspace", "search"]);
    assert_eq!((&made["id"], &made["retention_days"]), (&json!("acme"), &json!(30)));
    let fresh = home.json(&[
        "key",
        "create",
        "--org",
        "acme",
        "--scope",
        "logs.write,logs.view",
        "--expires",
        "90d",
    ]);
    let key = fresh["key"].as_str().unwrap();
    assert!(
        fresh["expires_at"].is_string() && fresh["scopes"] == json!(["logs.write", "logs.view"]),
        "{fresh}"
    );

    let serving = Serving::start(&home);
    let said = std::fs::read_to_string(home.0.path().join("serve.txt")).unwrap();
    let admin = said
        .split("export GATELOG_KEY=")
        .nth(1)
        .unwrap_or_else(|| panic!("no admin key in: {said}"));
    let admin = admin.lines().next().unwrap().trim();
    let records =
        r#"[{"id":"1","metadata":{"_user":"ada"}},{"id":"2","metadata":{"_user":"bob"}}]"#;
    assert_eq!(serving.post(key, "/v1/ingest", records).await.0, 200);
    let count = "select count(*) as n from logs";
    assert_eq!(serving.post(admin, "/v1/sql", count).await.1.trim(), r#"{"n":2}"#);

    let (operator, words) =
        home.told(0, &["key", "create", "--scope", "admin", "--name", "script"]);
    assert!(
        words.contains("of the operator with scopes admin, does not expire; shown only now"),
        "{words}"
    );
    let quiet = home.told(0, &["-q", "key", "create", "--scope", "admin"]);
    assert!(
        quiet.0.starts_with("gl-") && quiet.0.lines().count() == 1 && quiet.1.is_empty(),
        "{quiet:?}"
    );
    serving.eventually(operator.trim(), "/v1/sql", count, |status, _| status == 200).await;

    assert_eq!(serving.post(key, "/v1/feedback", r#"{"log_id":"1","value":5}"#).await.0, 200);
    let done = home.json(&["delete", "--org", "acme", "--user", "ada", "--yes"]);
    assert_eq!(
        (&done["found"], &done["what"], &done["requested_by"]),
        (&json!(1), &json!("user"), &json!("cli"))
    );
    assert_eq!((&done["found_feedback"], &done["feedback"]), (&json!(1), &json!(1)));
    serving.eventually(key, "/v1/sql", count, |_, text| text.trim() == r#"{"n":1}"#).await;

    let changed = home.json(&["org", "set-plan", "acme", "enterprise", "--retention-days", "90"]);
    assert_eq!((&changed["plan"], &changed["retention_days"]), (&json!("enterprise"), &json!(90)));
    let id = fresh["id"].as_str().unwrap();
    assert!(home.told(0, &["key", "revoke", id]).1.contains("revoked"));
    serving.eventually(key, "/v1/sql", count, |status, _| status == 401).await;
    let keys = home.json(&["key", "list"]);
    assert_eq!(
        keys.as_array().unwrap().len(),
        4,
        "the server's own, one of acme, two of the operator: {keys}"
    );
    assert!(!keys.to_string().contains(key) && !keys.to_string().contains("sha256"), "{keys}");
    for name in ["--org", "--organisation"] {
        assert_eq!(home.json(&["key", "list", name, "acme"])[0]["state"], "revoked");
    }

    assert!(home.json(&["org", "delete", "acme", "--yes"])["deleted_at"].is_string());
    serving.eventually(admin, "/v1/sql", count, |_, text| text.trim() == r#"{"n":0}"#).await;
    let table = home.ok(&["org", "list"]);
    assert!(
        table.starts_with("id ") && table.contains("acme") && table.contains("deleted 2"),
        "{table}"
    );
}

#[test]
fn the_commands_refuse_what_is_wrong_and_ask_before_harm() {
    let home = Home::new();
    for args in [
        &["org", "list"][..],
        &["key", "list"],
        &["org", "set-plan", "acme", "developer"],
        &["org", "delete", "acme", "--yes"],
        &["key", "revoke", "0"],
        &["delete", "--organisation", "acme", "--yes"],
    ] {
        home.told(3, args);
    }
    assert!(!home.0.path().join("gatelog-data").exists(), "a mistyped folder was made");
    let (stdout, words) =
        home.told(0, &["org", "create", "acme", "--plan", "enterprise", "--retention-days", "90"]);
    assert!(
        stdout.is_empty() && words.contains("plan `enterprise`, records kept 90 days"),
        "{words}"
    );
    for (code, args, words) in [
        (2, &["org", "create", "acme", "--plan", "developer"][..], "exists already"),
        (
            2,
            &["org", "create", "x y", "--plan", "developer"],
            "is not a valid name for organisation",
        ),
        (
            2,
            &["org", "create", "zen", "--plan", "gold"],
            "the plans are developer, enterprise, production",
        ),
        (2, &["org", "create", "zen"], "--plan"),
        (3, &["org", "set-plan", "zen", "developer"], "`zen` does not exist"),
        (2, &["org", "delete", "acme"], "--yes"),
        (3, &["org", "delete", "zen"], "`zen` does not exist"),
        (2, &["delete", "--organisation", "acme"], "--yes"),
        (2, &["delete", "--organisation", "acme", "--user", "a", "--id", "1"], "--user"),
        (2, &["key", "create", "--org", "acme"], "--scope"),
        (2, &["key", "create", "--scope", "logs.all"], "the scopes are logs.write"),
        (3, &["key", "create", "--org", "zen", "--scope", "logs.view"], "`zen` does not exist"),
        (
            2,
            &["key", "create", "--org", "acme", "--workspace", "a", "--scope", "logs.view"],
            "org add-workspace",
        ),
        (2, &["key", "create", "--scope", "admin", "--expires", "2020-01-01"], "which is past"),
        (2, &["key", "create", "--scope", "admin", "--expires", "soon"], "such as 90d"),
        (3, &["key", "list", "--org", "zen"], "`zen` does not exist"),
        (3, &["key", "revoke", "nothing"], "`nothing` does not exist"),
    ] {
        let stderr = home.told(code, args).1;
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
    assert_eq!(home.json(&["org", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(home.json(&["key", "list"]), json!([]));
    let shown = home.json(&["org", "add-workspace", "acme", "search", "ads"]);
    assert_eq!(shown["workspaces"], json!(["ads", "search"]));
    let shown = home.json(&["org", "set-denied-fields", "acme", "cost", "request"]);
    assert_eq!(shown["denied_fields"], json!(["cost", "request"]));
    let shown = home.json(&["org", "set-denied-fields", "acme", "metadata", "--workspace", "ads"]);
    assert_eq!(shown["workspace_denied_fields"], json!({ "ads": ["metadata"] }));
    assert!(
        home.told(2, &["org", "set-denied-fields", "acme", "price"])
            .1
            .contains("column `price` is unknown")
    );
    let table = home.ok(&["org", "list"]);
    assert!(
        table.contains("enterprise  90 days  ads,search  cost,request,ads:metadata "),
        "{table}"
    );
    assert!(home.told(2, &["org", "set-denied-fields", "acme"]).1.contains("--none"));
    assert!(
        home.told(2, &["org", "set-denied-fields", "acme", "cost", "--none"]).1.contains("--none")
    );
    let shown = home.json(&["org", "set-denied-fields", "acme", "--none"]);
    assert_eq!(
        (&shown["denied_fields"], &shown["workspace_denied_fields"]["ads"]),
        (&json!([]), &json!(["metadata"]))
    );
    let words =
        home.told(0, &["delete", "--organisation", "acme", "--id", "1", "--id", "2", "--yes"]).1;
    assert!(
        words
            .contains("0 records and 0 feedback erased: records with 2 ids of organisation `acme`"),
        "{words}"
    );
    assert!(
        words.contains("gatelog maintain expire") && words.contains("check the names"),
        "{words}"
    );
}
