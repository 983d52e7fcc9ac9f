//! Denied fields follow the rule of bodies: null as plain columns of an answer, which a header
//! names, and an error that names them in any other place. Every statement, report, graph, group,
//! filter and route is gone over.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use gatelog::analytics::{self, Query};
use gatelog::engine::NewKey;
use gatelog::record::COLUMNS;
use serde_json::Value;
use tower::ServiceExt;

use super::*;

/// What a statement gets of somebody to whom fields are denied.
type Case = (&'static [&'static str], &'static str, Gets);

const MAX: &[&str] = &["cost", "request.body", "user_id"];
const COST: &[&str] = &["cost"];
const USER: &[&str] = &["user_id"];
const TAGS: &[&str] = &["metadata.value._user"];

const DENIED: &[Case] = &[
    // Nothing is withheld of what is not read.
    (MAX, "select count(*) from logs", Same),
    (MAX, "select id, ai_model, cost_currency, total_units from logs order by id", Same),
    (MAX, "select response['body'] from logs order by id", Same),
    (
        MAX,
        "select request['headers'] from logs where request['headers'] is not null order by id",
        Same,
    ),
    (MAX, "select metadata['team'] from logs order by id", Same),
    (MAX, "select count(*) from logs where metadata['team'] = 'm3'", Same),
    (MAX, "select metadata['team'], count(*) from logs group by 1 order by 1", Same),
    (MAX, "select count(*) from (select * from logs) where id > 'a'", Same),
    (MAX, "select id from (select id, cost, user_id from logs) order by id", Same),
    (
        MAX,
        "select count(*) from logs where exists (select cost from logs b where b.id = logs.id)",
        Same,
    ),
    (MAX, "select a.id from logs a join logs b on a.id = b.id order by 1", Same),
    (
        MAX,
        "select user_id, metadata['_user'] from feedback where user_id = 'ada-0' order by id",
        Same,
    ),
    (MAX, "select total_units as cost from logs order by cost, id", Same),
    (
        MAX,
        "select id from logs order by (select count(*) from feedback f where f.log_id = logs.id), id",
        Same,
    ),
    (MAX, "select * from latency", Same),
    (MAX, "select id from logs where null is null or cost > 1 order by id", Same),
    // As plain columns they are null.
    (MAX, "select cost from logs", Null(COST)),
    (MAX, "select cost as c, id from logs order by id", Null(COST)),
    (MAX, "select user_id from logs where ai_model = 'gpt-4o'", Null(USER)),
    (MAX, "select metadata from logs", Null(TAGS)),
    (MAX, "select metadata['_user'] from logs", Null(TAGS)),
    (MAX, "select request from logs", Null(REQUEST)),
    (
        MAX,
        "select * from logs order by id",
        Null(&["cost", "metadata.value._user", "request.body", "user_id"]),
    ),
    (
        MAX,
        "with c as (select * from logs) select d.cost from c as d where d.id = 'r-2' limit 1",
        Null(COST),
    ),
    (MAX, "select cost from logs union all select cost from logs", Null(COST)),
    (
        MAX,
        "select a.id, b.cost from logs a left join logs b on a.id = b.id order by a.id",
        Null(COST),
    ),
    (MAX, "select id, (select cost from logs where id = 'r-1') from logs order by id", Null(COST)),
    (MAX, "select distinct on (ai_model) id, cost from logs order by ai_model, id", Null(COST)),
    (MAX, "select id, row_number() over (order by id), cost from logs order by id", Null(COST)),
    (MAX, "select cost, unnest(make_array(1, 2)) from logs", Null(COST)),
    (
        &["created_at"],
        "select date, created_at from logs order by id",
        Null(&["created_at", "date"]),
    ),
    (&["date"], "select created_at from logs order by id", Null(&["created_at"])),
    (&["request"], "select request, id from logs order by id", Null(&["request"])),
    (&["request"], "select request['headers'] from logs", Null(&["request"])),
    (&["request.headers"], "select request from logs", Null(&["request.headers"])),
    (&["request.headers"], "select request['body'] from logs order by request['body']", Same),
    (&["metadata.key"], "select metadata, user_id from logs order by id", Null(&["metadata"])),
    (&["metadata.value"], "select metadata from logs order by id", Null(&["metadata"])),
    (&["metadata"], "select user_id, metadata['team'] from logs", Null(&["metadata", "user_id"])),
    (&["ai_provider"], "select ai_org from logs", Null(&["ai_org"])),
    // Conditions.
    (MAX, "select count(*) from logs where cost > 0", error(COST)),
    (MAX, "select count(*) from logs where cost is null", error(COST)),
    (MAX, "select count(*) from logs where not (cost between 1 and 2 and id > 'a')", error(COST)),
    (MAX, "select id from logs where false and cost = 1", error(COST)),
    (MAX, "select id from logs where user_id in ('ada-1', 'x')", error(USER)),
    (
        MAX,
        "select id from logs where metadata['_user'] = 'ada-1'",
        error(&["metadata.value._user", "user_id"]),
    ),
    (MAX, "select id from logs where metadata is not null", error(TAGS)),
    (MAX, "select id from logs where metadata[ai_model] is null", error(TAGS)),
    (MAX, "select id from (select *, cost as c from logs) where c > 1", error(COST)),
    (
        MAX,
        "with c as (select cost as ai_model from logs) select count(*) from c where ai_model = 0",
        error(COST),
    ),
    (MAX, "select id from logs where cost in (select cost from logs)", error(COST)),
    (MAX, "select id from logs where 1.0 = any (select cost from logs)", error(COST)),
    (
        MAX,
        "select id from logs where exists (select 1 from logs b where b.cost = logs.total_units)",
        error(COST),
    ),
    (
        MAX,
        "select id from logs where exists (select 1 from logs b where b.total_units = logs.cost)",
        error(COST),
    ),
    (MAX, "select id from logs where total_units = (select max(cost) from logs)", error(COST)),
    (MAX, "select id from logs where request['body'] like '%word%'", error(REQUEST)),
    (&["request"], "select id from logs where request['headers'] is null", error(&["request"])),
    (
        &["request.headers"],
        "select id from logs where request['headers'] is null",
        error(&["request.headers"]),
    ),
    (
        &["created_at"],
        "select id from logs where created_at > '2020-01-01'",
        error(&["created_at"]),
    ),
    (
        &["created_at"],
        "select id from logs where date > '2020-01-01'",
        error(&["created_at", "date"]),
    ),
    (
        &["date"],
        "select id from logs where created_at > '2020-01-01'",
        error(&["created_at", "date"]),
    ),
    (
        &["ai_provider"],
        "select id from logs where ai_org = 'openai'",
        error(&["ai_org", "ai_provider"]),
    ),
    (
        &["metadata.key"],
        "select id from logs where metadata['team'] = 'm1'",
        error(&["metadata", "metadata.key"]),
    ),
    (&["is_success"], "select count(*) from logs where is_success", error(&["is_success"])),
    // Functions, aggregates, groups, windows, orders.
    (MAX, "select cost + 1 from logs", error(COST)),
    (MAX, "select cast(cost as text) from logs", error(COST)),
    (MAX, "select coalesce(cost, 0) from logs", error(COST)),
    (MAX, "select case when cost > 1 then 'a' end from logs", error(COST)),
    (MAX, "select upper(user_id) from logs", error(USER)),
    (MAX, "select map_values(metadata) from logs", error(TAGS)),
    (MAX, "select cardinality(metadata) from logs", error(TAGS)),
    (MAX, "select unnest(map_keys(metadata)) from logs", error(TAGS)),
    (MAX, "select make_array(cost) from logs", error(COST)),
    (MAX, "select sum(cost) from logs", error(COST)),
    (MAX, "select count(cost) from logs", error(COST)),
    (MAX, "select count(distinct user_id) from logs", error(USER)),
    (MAX, "select count(*) filter (where cost > 0) from logs", error(COST)),
    (MAX, "select first_value(id order by cost) from logs", error(COST)),
    (MAX, "select cost, count(*) from logs group by cost", error(COST)),
    (MAX, "select user_id, count(*) from logs group by all", error(USER)),
    (MAX, "select ai_model from logs group by ai_model having sum(cost) > 0", error(COST)),
    (MAX, "select count(*) from logs group by rollup (ai_model, user_id)", error(USER)),
    (MAX, "select id, row_number() over (order by cost) from logs", error(COST)),
    (MAX, "select id, lag(cost) over (order by id) from logs", error(COST)),
    (MAX, "select id, count(*) over (partition by user_id) from logs", error(USER)),
    (MAX, "select id from logs order by cost desc limit 1", error(COST)),
    (MAX, "select cost from logs order by 1", error(COST)),
    (MAX, "select * from logs order by user_id", error(USER)),
    (
        MAX,
        "select id from logs order by (select count(*) from feedback f where f.log_id = logs.user_id)",
        error(USER),
    ),
    (
        MAX,
        "select count(*) from logs group by (select count(*) from feedback f where f.log_id = logs.user_id)",
        error(USER),
    ),
    (
        MAX,
        "select id from logs order by total_units - (select max(cost) from logs b where b.id = logs.id)",
        error(COST),
    ),
    (
        &["created_at"],
        "select id from logs order by created_at desc limit 1",
        error(&["created_at"]),
    ),
    // Rows that are compared, joins, recursion.
    (MAX, "select distinct cost from logs", error(COST)),
    (
        MAX,
        "select distinct * from logs",
        error(&["cost", "metadata.value._user", "request.body", "user_id"]),
    ),
    (MAX, "select distinct on (user_id) id from logs", error(USER)),
    (MAX, "select cost from logs union select cost from logs", error(COST)),
    (MAX, "select user_id from logs except select id from logs", error(USER)),
    (MAX, "select id from logs intersect select user_id from logs", error(USER)),
    (MAX, "select a.id from logs a join logs b on a.cost = b.cost", error(COST)),
    (MAX, "select a.id from logs a join feedback b on a.user_id = b.user_id", error(USER)),
    (MAX, "select count(*) from logs join logs as other using (cost)", error(COST)),
    (MAX, "select count(*) from logs natural join logs as other", error(COST)),
    (
        MAX,
        "select count(*) from logs, lateral (select logs.cost as c) as l where l.c is null",
        error(COST),
    ),
    // Views.
    (MAX, "select * from spend_by_model", error(COST)),
    (MAX, "select count(*) from usage_by_month", error(COST)),
    (MAX, "explain select id from logs where cost > 977", error(COST)),
];

/// Sets what is denied to the organisation.
async fn deny(engine: &Engine, fields: &[&str]) {
    let fields: BTreeSet<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    let deny = |document: &mut Document| document.set_denied_fields(ORGANISATION, None, &fields);
    engine.catalog().change(deny).await.unwrap();
}

/// Says what is wrong with the answers to a statement, without denied fields and with them.
fn judged_denied(case: &Case, whole: &Asked, part: &Asked) -> Result<(), String> {
    let (denied, statement, gets) = case;
    let check = |fine: bool, what: &str| if fine { Ok(()) } else { Err(what.to_owned()) };
    match (gets, whole, part) {
        (Same, Ok((none, whole)), Ok((withheld, text))) => {
            check(none.is_empty() && withheld.is_empty(), "something is said to be withheld")?;
            check(rows(statement, text) == rows(statement, whole), "the answers differ")
        }
        (Null(names), Ok((none, whole)), Ok((withheld, text))) => {
            check(none.is_empty() && withheld == names, "something else is said to be withheld")?;
            check(text != whole, "nothing is withheld")?;
            check(text.lines().count() == whole.lines().count(), "rows are missing")
        }
        (Gets::Error(names), whole, Err(error)) => {
            check(error.kind() == ErrorKind::Denied, "it is refused for something else")?;
            check(
                names.iter().all(|name| error.message().contains(&format!("`{name}`"))),
                "a column is not named",
            )?;
            check(!error.message().contains("logs.read"), "a scope is named that would not help")?;
            check(!error.chain().contains("977."), "the error tells a value")?;
            let fair = whole.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Invalid);
            check(fair, "it fails without denied fields too")
        }
        _ => Err(format!("the kind of answer is another with {denied:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_reads_denied_fields_is_refused_and_one_that_answers_with_them_says_so() {
    let (engine, _folder) = filled().await;
    let reader = engine.reader_as(&access(WITH));
    let (mut wrong, mut wholes) = (Vec::new(), BTreeMap::new());
    for case in DENIED {
        deny(&engine, &[]).await;
        if !wholes.contains_key(case.1) {
            wholes.insert(case.1, asked(&reader, case.1).await);
        }
        deny(&engine, case.0).await;
        let (whole, part) = (&wholes[case.1], asked(&reader, case.1).await);
        if let Err(what) = judged_denied(case, whole, &part) {
            wrong.push(format!(
                "{}\n  {what}: expected {:?}\n  whole: {whole:?}\n  got: {part:?}",
                case.1, case.2
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    engine.close().await.unwrap();
}

/// What is true of bodies without the scope is true of bodies that are denied, whatever the scope.
#[tokio::test(flavor = "multi_thread")]
async fn denied_bodies_are_withheld_as_those_without_the_scope_are() {
    let (engine, _folder) = filled().await;
    let reader = engine.reader_as(&access(WITH));
    let mut wrong = Vec::new();
    for (statement, gets) in STATEMENTS {
        deny(&engine, &[]).await;
        let whole = asked(&reader, statement).await;
        deny(&engine, BOTH).await;
        let case: Case = (BOTH, statement, *gets);
        let part = asked(&reader, statement).await;
        if let Err(what) = judged_denied(&case, &whole, &part) {
            wrong.push(format!(
                "{statement}\n  {what}: expected {gets:?}\n  whole: {whole:?}\n  got: {part:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // Both reasons are named where both hold.
    let both = engine.reader_as(&access(WITHOUT));
    deny(&engine, COST).await;
    let error = asked(&both, "select concat(cost, request['body']) from logs").await.unwrap_err();
    for part in ["`cost`", "`request.body`", "`logs.read`", "denied fields"] {
        assert!(error.message().contains(part), "{error}");
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_of_a_workspace_binds_its_keys_and_nobody_else() {
    let (engine, _folder) = filled().await;
    let fields = BTreeSet::from(["cost".to_owned()]);
    let deny = |document: &mut Document| {
        document.add_workspaces(ORGANISATION, ["search".to_owned(), "ads".to_owned()])?;
        document.set_denied_fields(ORGANISATION, Some("search"), &fields)
    };
    engine.catalog().change(deny).await.unwrap();
    let of = |workspace: Option<&str>| Access {
        workspace: workspace.map(str::to_owned),
        ..access(WITH)
    };
    let statement = "select sum(cost) from logs";
    let refused = asked(&engine.reader_as(&of(Some("search"))), statement).await.unwrap_err();
    assert!(refused.message().contains("`cost`"), "{refused}");
    for open in [of(None), of(Some("ads")), Access::operator("test")] {
        assert!(asked(&engine.reader_as(&open), statement).await.is_ok(), "{open:?}");
    }
    engine.close().await.unwrap();
}

async fn report_of(reader: &Reader, name: &str) -> Asked {
    let answer = reader.report(name, &Params::new()).await?;
    let withheld = answer.withheld.clone();
    let rows: Vec<RecordBatch> = answer.batches.try_collect().await?;
    Ok((withheld, pretty_format_batches(&rows).unwrap().to_string()))
}

/// The reports that need a column in more than a plain column of their answer.
fn reports_of(column: &str) -> BTreeSet<&'static str> {
    let all = || reports::list().iter().map(|report| report.name);
    let named = |names: &[&'static str]| names.iter().copied().collect();
    match column {
        "cost" => named(&["cache", "spend_by_model", "usage_by_month"]),
        "req_units" | "res_units" => named(&["usage_by_month"]),
        "upstream_response_time"
        | "runtime"
        | "sdk_version"
        | "request"
        | "parent_span_id"
        | "prompt_slug" => BTreeSet::new(),
        "response" => named(&["errors"]),
        "time_to_last_token" => named(&["latency"]),
        "last_used_option" => named(&["fallbacks"]),
        "span_name" => named(&["feedback_by_model"]),
        "organisation_id" => all().filter(|name| *name != "quota").collect(),
        _ => all().collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_reads_a_denied_field_names_it_and_the_others_go_on() {
    let (engine, _folder) = filled().await;
    let reader = engine.reader_as(&access(WITH));
    let mut whole = BTreeMap::new();
    for report in reports::list() {
        whole.insert(report.name, report_of(&reader, report.name).await.unwrap().1);
    }
    let mut wrong = Vec::new();
    // What is certain of some fields; others are in a condition or group of most reports.
    let certain =
        ["cost", "req_units", "request", "response", "last_used_option", "time_to_last_token"];
    for column in COLUMNS {
        deny(&engine, &[column.name]).await;
        let expected = reports_of(column.name);
        let mut refused = BTreeSet::new();
        for report in reports::list() {
            let name = report.name;
            match report_of(&reader, name).await {
                Err(error) => {
                    refused.insert(name);
                    let named = error.message().contains(&format!("`{}`", column.name))
                        && error.message().contains(&format!("report `{name}`"));
                    if error.kind() != ErrorKind::Denied || !named || !expected.contains(name) {
                        wrong.push(format!("{name} without {}: {error}", column.name));
                    }
                }
                // These count to the moment at which they are asked.
                Ok(_) if ["quota", "retention"].contains(&name) => {}
                Ok((withheld, text)) if withheld.is_empty() && text == whole[name] => {}
                Ok((withheld, text))
                    if withheld.iter().any(|name| name.starts_with(column.name))
                        && text != whole[name] => {}
                Ok((withheld, text)) => {
                    wrong.push(format!(
                        "{name} without {}: {withheld:?}\n{text}\n{}",
                        column.name, whole[name]
                    ));
                }
            }
        }
        if certain.contains(&column.name) && refused != expected {
            wrong.push(format!("{} is read by {refused:?}", column.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    engine.close().await.unwrap();
}

fn question(path: &str, further: &[(&str, &str)]) -> analytics::AnalyticsRequest {
    let mut given = BTreeMap::from([
        (
            "time_of_generation_min".to_owned(),
            (Utc::now() - chrono::Duration::hours(2)).to_rfc3339(),
        ),
        ("time_of_generation_max".to_owned(), Utc::now().to_rfc3339()),
    ]);
    given.extend(further.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    analytics::AnalyticsRequest::parse(given).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_denied_fields_are_null_or_refused_and_the_others_go_on() {
    let (engine, _folder) = filled().await;
    let reader = engine.reader_as(&access(WITH));
    let graph =
        async |path: &str| reader.analytics(&Query::graph(path, question(path, &[]))?).await;
    let group = async |path: &str, given: &[(&str, &str)]| {
        reader.analytics(&Query::group(path, question(path, given))?).await
    };
    deny(&engine, COST).await;
    for facts in analytics::graph_facts().unwrap() {
        let path = facts.paths[0];
        match (path, graph(path).await) {
            ("cost", answer) => {
                let error = answer.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
                assert!(error.message().starts_with("graph `cost` reads `cost`"), "{error}");
            }
            ("cache/hit-rate", answer) => {
                let answer = answer.unwrap();
                assert_eq!(answer["withheld"], json!(["cost"]));
                let point = &answer["data_points"][0];
                assert_eq!(point["cumulative_simple_cache_savings"], Value::Null);
                assert_eq!(point["simple_hits"], 0);
            }
            (path, answer) => assert!(answer.unwrap().get("withheld").is_none(), "{path}"),
        }
    }
    let models = group("ai-models", &[]).await.unwrap();
    assert_eq!((&models["total"], models.get("withheld")), (&json!(2), None), "{models}");
    let users = group("users", &[]).await.unwrap();
    assert_eq!(users["withheld"], json!(["cost"]));
    assert_eq!((&users["data"][0]["cost"], &users["total"]), (&Value::Null, &json!(3)), "{users}");
    let status = group("status_code", &[("columns", "total_tokens")]).await.unwrap();
    assert!(
        status.get("withheld").is_none() && status["data"][0]["total_tokens"].is_number(),
        "{status}"
    );
    for given in [[("columns", "cost")], [("order_by", "cost")], [("cost_min", "1")]] {
        let error = group("users", &given).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{given:?}: {error}");
        assert!(error.message().contains("`cost`"), "{given:?}: {error}");
    }
    // What calls are grouped by, or joined by, decides on rows.
    for (denied, path) in
        [("user_id", "users"), ("ai_model", "ai-models"), ("metadata", "metadata/team")]
    {
        deny(&engine, &[denied]).await;
        let error = group(path, &[]).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Denied && error.message().contains(&format!("`{denied}`")),
            "{error}"
        );
        assert!(group("config", &[]).await.is_ok(), "{denied}");
    }
    deny(&engine, USER).await;
    assert!(group("metadata/team", &[]).await.is_ok());
    assert!(group("metadata/_user", &[]).await.unwrap_err().message().contains("`user_id`"));
    engine.close().await.unwrap();
}

/// The router, and what a request to it is answered: status, withheld columns, text.
struct Web {
    router: Router,
}

type Told = (StatusCode, Option<String>, String);

impl Web {
    async fn of(engine: &Engine) -> Self {
        let add = |document: &mut Document| {
            let scopes = WITH.iter().copied().collect();
            let key =
                NewKey { organisation: Some(ORGANISATION.to_owned()), scopes, ..NewKey::default() };
            document.add_key("key", key, Utc::now()).map(|_| ())
        };
        engine.catalog().change(add).await.unwrap();
        Self { router: gatelog::http::router(engine.clone()) }
    }

    async fn ask(&self, path: &str, body: Option<&str>, accept: &str) -> Told {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let request =
            Request::builder().method(method).uri(path).header("x-portkey-api-key", "key");
        let request = request
            .header("accept", accept)
            .body(Body::from(body.unwrap_or_default().to_owned()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let withheld =
            headers.get("x-gatelog-withheld").map(|names| names.to_str().unwrap().to_owned());
        (status, withheld, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

/// A text that stands in a record for this column alone.
fn marker(column: &str) -> &'static str {
    match column {
        "cost" => "977.0625",
        "total_units" => "7310077",
        "req_units" => "7310010",
        "res_units" => "7310067",
        "response_time" => "7310901",
        "response_status_code" => "\"response_status_code\":599",
        "created_at" => "03:04:05",
        "user_id" => "ada-0",
        "metadata" => "m0",
        "request" => "question",
        "response" => "reply",
        "ai_model" => "marked-model",
        "trace_id" => "t-marked",
        _ => "",
    }
}

/// A record of which every column in question has a value that stands nowhere else.
fn marked() -> Record {
    Record {
        id: Some("marked".to_owned()),
        created_at: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
        ai_model: Some("marked-model".to_owned()),
        cost: Some(977.0625),
        total_units: Some(7_310_077),
        req_units: Some(7_310_010),
        res_units: Some(7_310_067),
        response_time: Some(7_310_901),
        response_status_code: Some(599),
        cache_status: Some("HIT".to_owned()),
        mode: Some("FALLBACK".to_owned()),
        trace_id: Some("t-marked".to_owned()),
        user_id: Some("ada-0".to_owned()),
        request_url: Some("https://api.openai.com/v1/chat/completions".to_owned()),
        metadata: vec![
            ("_user".to_owned(), "ada-0".to_owned()),
            ("team".to_owned(), "m0".to_owned()),
        ],
        ..record(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_tells_a_denied_field() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(crate::engine::config(&folder)).await.unwrap();
    let make = |document: &mut Document| {
        document
            .create_organisation(ORGANISATION, Organisation::new("enterprise", Utc::now()), 0)
            .map(|_| ())
    };
    engine.catalog().change(make).await.unwrap();
    engine.append(vec![marked()]).await.unwrap();
    engine.flush().await.unwrap();
    let web = Web::of(&engine).await;
    let frame = "time_of_generation_min=2020-01-01&time_of_generation_max=2100-01-01";
    let mut paths: Vec<(String, Option<&str>)> = vec![
        ("/v1/sql".to_owned(), Some("select * from logs")),
        (
            "/v1/sql?format=csv".to_owned(),
            Some("select * from (select * from logs) as l, (select 1) as one"),
        ),
        ("/v1/logs".to_owned(), None),
        ("/v1/logs?include_total=true&saved=".to_owned(), None),
        ("/v1/logs/marked".to_owned(), None),
        ("/logs/marked".to_owned(), None),
        ("/v1/logs/marked/replay".to_owned(), None),
        ("/v1/export".to_owned(), None),
    ];
    paths.extend(
        reports::list().iter().map(|report| (format!("/v1/reports/{}", report.name), None)),
    );
    let graphs = analytics::graph_facts().unwrap();
    paths.extend(
        graphs
            .iter()
            .map(|graph| (format!("/v1/analytics/graphs/{}?{frame}", graph.paths[0]), None)),
    );
    for group in
        ["users", "ai-models", "workspaces", "metadata/team", "status_code", "api_key", "model"]
    {
        paths.push((format!("/v1/analytics/groups/{group}?{frame}"), None));
    }
    paths.push((format!("/v1/analytics/summary/cache?{frame}"), None));
    let plain: Vec<Told> = {
        let mut plain = Vec::new();
        for (path, body) in &paths {
            plain.push(web.ask(path, *body, "*/*").await);
        }
        plain
    };
    let (mut wrong, mut told) = (Vec::new(), 0);
    for column in COLUMNS.iter().map(|column| column.name).filter(|name| !marker(name).is_empty()) {
        deny(&engine, &[column]).await;
        for ((path, body), (was, _, whole)) in paths.iter().zip(&plain) {
            let (status, withheld, text) = web.ask(path, *body, "*/*").await;
            told += usize::from(whole.contains(marker(column)));
            let named = withheld.as_deref().is_some_and(|names| names.contains(column));
            let refused = status == StatusCode::FORBIDDEN && text.contains(&format!("`{column}"));
            if text.contains(marker(column)) {
                wrong.push(format!("{path} tells {column}: {text}"));
            }
            if whole.contains(marker(column)) && !(named || refused) {
                wrong.push(format!(
                    "{path} does not say that {column} is withheld: {status} {withheld:?} {text}"
                ));
            }
            if !refused && status != *was {
                wrong.push(format!("{path} without {column}: {status} {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(told > 60, "the markers stand in {told} answers only");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn single_logs_and_lists_have_null_for_denied_fields_and_refuse_their_filters() {
    let (engine, _folder) = filled().await;
    let web = Web::of(&engine).await;
    deny(&engine, &["cost", "cache_status", "user_id", "request.body"]).await;
    let (status, withheld, text) = web.ask("/v1/logs/r-3", None, "*/*").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let names = "cost,cache_status,user_id,metadata.value._user,request.body";
    assert_eq!(withheld.as_deref(), Some(names));
    let log: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(log["withheld"], json!(names.split(',').collect::<Vec<_>>()));
    assert_eq!(log["metrics"]["cost"], Value::Null);
    assert_eq!(log["metrics"]["user_id"], Value::Null);
    assert_eq!(log["metrics"]["metadata.key"], json!(["team"]));
    assert_eq!(log["status"]["cache"], Value::Null);
    assert_eq!(log["status"]["retry"], "Retry Not Triggered");
    assert_eq!(log["request"]["body"], Value::Null);
    assert!(log["response"]["body"].is_object());
    let (_, _, page) = web.ask("/logs/r-3", None, "text/html").await;
    assert!(
        page.contains("<h1>Log r-3</h1>") && !page.contains("Cache") && !page.contains("question"),
        "{page}"
    );

    let (status, withheld, text) =
        web.ask("/v1/logs?page_size=3&ai_model=gpt-4o", None, "*/*").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(withheld.as_deref(), Some("cost,cache_status,user_id,metadata.value._user"));
    let page: Value = serde_json::from_str(&text).unwrap();
    let first = &page["data"][0];
    assert_eq!((&first["cost"], &first["status"]["cache"]), (&Value::Null, &Value::Null));
    assert_eq!(first["metadata"].as_object().unwrap().keys().collect::<Vec<_>>(), ["team"]);
    assert!(page["next"].is_string());

    for filter in ["cost_min=1", "cache_status=HIT", "status=Cache%20Hit", "user_id=ada-0"] {
        let (status, _, text) = web.ask(&format!("/v1/logs?{filter}"), None, "*/*").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{filter}: {text}");
    }
    let by_user = "/v1/logs?metadata=%7B%22_user%22%3A%22ada-0%22%7D";
    assert_eq!(web.ask(by_user, None, "*/*").await.0, StatusCode::FORBIDDEN);
    assert_eq!(
        web.ask("/v1/logs?metadata=%7B%22team%22%3A%22m3%22%7D", None, "*/*").await.0,
        StatusCode::OK
    );
    let (status, _, text) = web.ask("/v1/logs/r-3/replay", None, "*/*").await;
    assert!(status == StatusCode::FORBIDDEN && text.contains("`request.body`"), "{text}");
    // What a list is ordered by, and a log is found by.
    for (denied, path) in [("created_at", "/v1/logs"), ("id", "/v1/logs"), ("id", "/v1/logs/r-3")] {
        deny(&engine, &[denied]).await;
        let (status, _, text) = web.ask(path, None, "*/*").await;
        assert!(
            status == StatusCode::FORBIDDEN && text.contains(&format!("`{denied}`")),
            "{path}: {text}"
        );
    }
    // Feedback on a trace would tell the trace.
    deny(&engine, &["trace_id"]).await;
    let (_, _, text) = web.ask("/v1/logs/r-3", None, "*/*").await;
    let log: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&log["feedback"], &log["weighted_feedback"]), (&json!([]), &Value::Null), "{text}");
    // Feedback itself is no record.
    let said = json!({ "trace_id": "t-1", "value": 4 }).to_string();
    assert_eq!(web.ask("/v1/feedback", Some(&said), "*/*").await.0, StatusCode::OK);
    let said = json!({ "log_id": "r-3", "value": 4 }).to_string();
    assert_eq!(web.ask("/v1/feedback", Some(&said), "*/*").await.0, StatusCode::OK);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_when_fields_of_it_are_denied_meanwhile() {
    let (engine, _folder) = filled().await;
    let reader = engine.reader_as(&access(WITH));
    let mut answer = reader.sql("select cost from logs", &Params::new()).await.unwrap().batches;
    deny(&engine, COST).await;
    let error = answer.try_next().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.message().contains("`cost`"), "{error}");
    engine.close().await.unwrap();
}
