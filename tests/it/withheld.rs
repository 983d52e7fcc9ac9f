//! Bodies are withheld from keys without `logs.read`: null where a statement answers with them, an
//! error where it reads them, and never a wrong answer. Each statement is asked with the scope and
//! without it.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use chrono::Utc;
use futures::TryStreamExt;
use gatelog::engine::{Access, Document, NewExport, Organisation, Scope};
use gatelog::record::{Feedback, Message};
use gatelog::{Engine, Error, ErrorKind, ExportRequest, Params, Reader, Record, reports};
use serde_json::json;
use tempfile::TempDir;

mod denied;

/// What a key without the scope gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gets {
    /// The same answer as with the scope: nothing of it is withheld.
    Same,
    /// An answer in which these columns are null.
    Null(&'static [&'static str]),
    /// An error that names the scope and these columns: of several expressions those of the first.
    Error(&'static [&'static str]),
}

use Gets::{Null, Same};

const REQUEST: &[&str] = &["request.body"];
const RESPONSE: &[&str] = &["response.body"];
const BOTH: &[&str] = &["request.body", "response.body"];

const fn error(names: &'static [&'static str]) -> Gets {
    Gets::Error(names)
}

const STATEMENTS: &[(&str, Gets)] = &[
    // Nothing is withheld of what is not read.
    ("select count(*) from logs", Same),
    ("select id, ai_model, cost from logs where total_units > 3 order by id", Same),
    ("select id, request['headers'], response.headers from logs order by id", Same),
    ("select count(*) from logs where request['headers'] like '%x-id%'", Same),
    ("select distinct request['headers'] from logs order by 1", Same),
    (
        "select count(request['headers']), max(json_get_str(request['headers'], 'x-id')) from logs",
        Same,
    ),
    ("select count(*) from (select * from logs) where id > 'a'", Same),
    ("select count(*) from (select request, response['body'] from logs)", Same),
    ("select id from (select * from logs order by created_at) order by id", Same),
    (
        "with c as (select request, id from logs) select id from c where id <> 'r-1' order by id",
        Same,
    ),
    (
        "select count(*) from logs where exists (select request from logs b where b.id = logs.id)",
        Same,
    ),
    ("select a.id from logs a join logs b on a.id = b.id order by 1", Same),
    ("select count(*), ai_model from logs group by ai_model order by 2", Same),
    ("select id, count(*) over () from logs order by id", Same),
    (
        "select count(*) from logs where id in (select id from logs where request['headers'] is not null)",
        Same,
    ),
    ("select * from status order by id", Same),
    ("select * from feedback order by id", Same),
    ("select metadata['team'] from logs order by id", Same),
    ("select unnest(map_keys(metadata)) from logs order by 1", Same),
    ("select 'request', 'request[''body'']' from logs limit 1", Same),
    ("select cost as request from logs where cost > 0 order by request, id", Same),
    ("select body from (select id as body from logs) where body like 'r%' order by body", Same),
    // As plain columns of the answer they are null.
    ("select * from logs order by id", Null(BOTH)),
    ("select request from logs", Null(REQUEST)),
    ("select request['body'] from logs", Null(REQUEST)),
    ("select logs.request.body, id from logs order by id", Null(REQUEST)),
    ("select response['body'] as b from logs", Null(RESPONSE)),
    ("select request['body'], response['body'] from logs order by created_at", Null(BOTH)),
    ("select r['body'] from (select response as r from logs where id > 'a')", Null(RESPONSE)),
    (
        "with c as (select * from logs) select d.request from c as d where d.id = 'r-2' limit 1",
        Null(REQUEST),
    ),
    ("select request['body'] from logs union all select response['body'] from logs", Null(BOTH)),
    ("select request['body'] from logs union all select id from logs", Null(REQUEST)),
    (
        "select a.id, b.request from logs a left join logs b on a.id = b.id order by a.id",
        Null(REQUEST),
    ),
    (
        "select id, (select request['body'] from logs where id = 'r-1') from logs order by id",
        Null(REQUEST),
    ),
    ("select id, row_number() over (order by id), request from logs order by id", Null(REQUEST)),
    ("select distinct on (ai_model) id, request from logs order by ai_model, id", Null(REQUEST)),
    ("select * from logs where request['headers'] is not null order by id offset 1", Null(BOTH)),
    ("select l.* from logs l, (select 1) order by l.id", Null(BOTH)),
    ("select request, unnest(make_array(1, 2)) from logs", Null(REQUEST)),
    (
        "select logs.response from (values ('r-1')) as v(id) join logs on v.id = logs.id",
        Null(RESPONSE),
    ),
    // Conditions.
    ("select count(*) from logs where request['body'] like '%word%'", error(REQUEST)),
    ("select count(*) from logs where request is null", error(REQUEST)),
    (
        "select count(*) from logs where not (response['body'] is not null and id > 'a')",
        error(RESPONSE),
    ),
    ("select id from logs where false and request['body'] = 'x'", error(REQUEST)),
    ("select id from (select * from logs) where response.body ilike '%w%'", error(RESPONSE)),
    ("select id from (select id, request['body'] as b from logs) where b is null", error(REQUEST)),
    (
        "with c as (select response as r from logs) select count(*) from c where r['body'] = ''",
        error(RESPONSE),
    ),
    (
        "select count(*) from (select request as id from logs) where id['body'] is null",
        error(REQUEST),
    ),
    ("select id from logs where request['body'] in ('a', 'b')", error(REQUEST)),
    ("select id from logs where id in (select request['body'] from logs)", error(REQUEST)),
    ("select id from logs where 'x' = any (select response['body'] from logs)", error(RESPONSE)),
    (
        "select id from logs where exists (select 1 from logs b where b.request['body'] = logs.id)",
        error(REQUEST),
    ),
    (
        "select id from logs where exists (select 1 from logs b where b.id = logs.request['body'])",
        error(REQUEST),
    ),
    ("select id from logs where id = (select max(response['body']) from logs)", error(RESPONSE)),
    (
        "select id from logs where (select request['body'] from logs limit 1) is null",
        error(REQUEST),
    ),
    (
        "select id from (select id, (select request['body'] from logs limit 1) as b from logs) where b is null",
        error(REQUEST),
    ),
    // Functions and expressions.
    ("select json_get_str(request['body'], 'model') from logs", error(REQUEST)),
    ("select request['body'] ->> 'model' from logs", error(REQUEST)),
    ("select coalesce(request['body'], response['body']) from logs", error(REQUEST)),
    ("select request['body'] || '' from logs", error(REQUEST)),
    ("select cast(request['body'] as int) from logs", error(REQUEST)),
    ("select case when response['body'] is null then 0 else 1 end from logs", error(RESPONSE)),
    ("select length(b) from (select request['body'] as b from logs)", error(REQUEST)),
    ("select named_struct('a', request) from logs", error(REQUEST)),
    ("select make_array(request['body']) from logs", error(REQUEST)),
    ("select map(make_array('k'), make_array(request['body'])) from logs", error(REQUEST)),
    ("select unnest(request) from logs", error(REQUEST)),
    ("select unnest(make_array(response['body'])) from logs", error(RESPONSE)),
    ("select metadata[request['body']] from logs", error(REQUEST)),
    ("select arrow_typeof(request) from logs", error(REQUEST)),
    ("select request = response from logs", error(REQUEST)),
    // Aggregates, groups, windows, orders.
    ("select count(request) from logs", error(REQUEST)),
    ("select count(distinct request['body']) from logs", error(REQUEST)),
    ("select max(request['body']), string_agg(response['body'], ',') from logs", error(REQUEST)),
    ("select count(*) filter (where request['body'] is null) from logs", error(REQUEST)),
    ("select first_value(id order by response['body']) from logs", error(RESPONSE)),
    ("select count(*) from logs group by request['body']", error(REQUEST)),
    ("select request['body'], count(*) from logs group by 1", error(REQUEST)),
    ("select request['body'], count(*) from logs group by all", error(REQUEST)),
    (
        "select ai_model from logs group by ai_model having count(response['body']) > 0",
        error(RESPONSE),
    ),
    ("select count(*) from logs group by rollup (ai_model, request)", error(REQUEST)),
    ("select id, row_number() over (order by request['body']) from logs", error(REQUEST)),
    ("select id, lag(response['body']) over (order by id) from logs", error(RESPONSE)),
    ("select id, count(*) over (partition by request) from logs", error(REQUEST)),
    (
        "select id from logs qualify row_number() over (partition by request['body'] order by id) = 1",
        error(REQUEST),
    ),
    ("select id from logs order by request['body'] desc limit 1", error(REQUEST)),
    ("select request['body'] from logs order by 1", error(REQUEST)),
    ("select response['body'] as b from logs order by b limit 2", error(RESPONSE)),
    ("select * from logs order by request", error(REQUEST)),
    // Rows that are compared, joins, recursion.
    ("select distinct request['body'] from logs", error(REQUEST)),
    ("select distinct * from logs", error(BOTH)),
    ("select distinct on (request['body']) id from logs", error(REQUEST)),
    ("select request['body'] from logs union select response['body'] from logs", error(BOTH)),
    ("select response['body'] from logs except select id from logs", error(RESPONSE)),
    ("select id from logs intersect select request['body'] from logs", error(REQUEST)),
    (
        "select a.id from logs a join logs b on a.request['body'] = b.request['body']",
        error(REQUEST),
    ),
    (
        "select a.id from logs a join logs b on a.id = b.id and length(b.response['body']) > 1",
        error(RESPONSE),
    ),
    ("select count(*) from logs natural join logs as other", error(REQUEST)),
    ("select count(*) from logs join logs as other using (request)", error(REQUEST)),
    (
        "select count(*) from logs, lateral (select logs.request['body'] as b) as l where l.b is null",
        error(REQUEST),
    ),
    (
        "with recursive r(n, b) as (select 0, request['body'] from logs union all select n + 1, b from r where n < 2) \
         select n from r",
        error(REQUEST),
    ),
    // Views.
    ("select * from errors", error(RESPONSE)),
    ("select count(*) from errors where records > 0", error(RESPONSE)),
    ("explain select id from logs where request['body'] like '%word 7%'", error(REQUEST)),
];

const ORGANISATION: &str = "acme";

fn record(number: i64) -> Record {
    let body = |side: &str| Some(format!("{{\"model\":\"gpt-4o\",\"{side}\":\"word {number}\"}}"));
    Record {
        id: Some(format!("r-{number}")),
        organisation_id: Some(ORGANISATION.to_owned()),
        created_at: Some(Utc::now() - chrono::Duration::minutes(number)),
        ai_org: Some("openai".to_owned()),
        ai_model: Some(["gpt-4o", "mistral"][usize::try_from(number % 2).unwrap()].to_owned()),
        trace_id: Some(format!("t-{}", number / 2)),
        total_units: Some(number),
        cost: Some(0.25),
        response_status_code: Some(if number % 3 == 0 { 500 } else { 200 }),
        user_id: Some(format!("ada-{}", number % 3)),
        metadata: vec![
            ("_user".to_owned(), format!("ada-{}", number % 3)),
            ("team".to_owned(), format!("m{number}")),
        ],
        request: Message {
            body: body("question"),
            headers: Some(format!("{{\"x-id\":\"{number}\"}}")),
        },
        response: Message { body: body("reply"), headers: None },
        ..Record::default()
    }
}

/// An engine with records in a file and in memory.
async fn filled() -> (Engine, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(crate::engine::config(&folder)).await.unwrap();
    let make = |document: &mut Document| {
        let acme = Organisation::new("enterprise", Utc::now());
        document.create_organisation(ORGANISATION, acme, 0).map(|_| ())
    };
    engine.catalog().change(make).await.unwrap();
    engine.catalog_changed();
    let said = Feedback {
        organisation_id: Some(ORGANISATION.to_owned()),
        trace_id: Some("t-1".to_owned()),
        value: Some(3.0),
        weight: Some(1.0),
        user_id: Some("ada-0".to_owned()),
        ..Feedback::default()
    };
    engine.append((0..6).map(record).collect()).await.unwrap();
    engine.append_feedback_as(&access(&[Scope::Admin]), vec![said]).await.unwrap();
    engine.flush().await.unwrap();
    engine.append((6..12).map(record).collect()).await.unwrap();
    (engine, folder)
}

fn access(scopes: &[Scope]) -> Access {
    Access {
        key_id: "test".to_owned(),
        organisation: Some(ORGANISATION.to_owned()),
        workspace: None,
        scopes: scopes.iter().copied().collect::<BTreeSet<_>>(),
    }
}

const WITHOUT: &[Scope] = &[Scope::View, Scope::Export, Scope::Analytics, Scope::Write];
const WITH: &[Scope] = &[Scope::View, Scope::Export, Scope::Analytics, Scope::Write, Scope::Read];

/// The columns that are withheld, and the rows as text.
type Asked = Result<(Vec<String>, String), Error>;

async fn asked(reader: &Reader, statement: &str) -> Asked {
    let answer = reader.sql(statement, &Params::new()).await?;
    let withheld = answer.withheld;
    let rows: Vec<RecordBatch> = answer.batches.try_collect().await?;
    Ok((withheld, pretty_format_batches(&rows).unwrap().to_string()))
}

/// The rows without their order, where the statement has none.
fn rows(statement: &str, text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if !statement.contains("order by") {
        lines.sort_unstable();
    }
    lines
}

#[track_caller]
fn assert_refused(error: &Error, names: &[&str], what: &str) {
    assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error}");
    assert!(error.message().contains("`logs.read`"), "{what}: {error}");
    for name in names {
        assert!(error.message().contains(&format!("`{name}`")), "{what}: {error}");
    }
    assert!(!error.chain().contains("word "), "{what}: {error}");
}

/// Says what is wrong with the two answers to a statement, with the scope and without.
fn judged(statement: &str, gets: Gets, whole: &Asked, part: &Asked) -> Result<(), String> {
    let check = |fine: bool, what: &str| if fine { Ok(()) } else { Err(what.to_owned()) };
    match (gets, whole, part) {
        (Gets::Same, Ok((none, whole)), Ok((withheld, text))) => {
            check(none.is_empty() && withheld.is_empty(), "something is said to be withheld")?;
            check(rows(statement, text) == rows(statement, whole), "the answers differ")
        }
        (Gets::Null(names), Ok((none, whole)), Ok((withheld, text))) => {
            check(none.is_empty() && withheld == names, "something else is said to be withheld")?;
            check(
                whole.contains("word ") && !text.contains("word "),
                "bodies are not where they should be",
            )?;
            check(text.lines().count() == whole.lines().count(), "rows are missing")
        }
        (Gets::Error(names), whole, Err(error)) => {
            check(error.kind() == ErrorKind::Denied, "it is refused for something else")?;
            let named = names.iter().all(|name| error.message().contains(&format!("`{name}`")));
            check(
                named && error.message().contains("`logs.read`"),
                "column or scope is not named",
            )?;
            check(!error.chain().contains("word "), "the error tells a body")?;
            // With the scope it is answered, or fails for what it says and not for who asks.
            let fair = whole.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Invalid);
            check(fair, "it fails with the scope too")
        }
        _ => Err("the kind of answer is another".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_reads_bodies_is_refused_and_one_that_answers_with_them_says_so() {
    let (engine, _folder) = filled().await;
    let (with, without) = (engine.reader_as(&access(WITH)), engine.reader_as(&access(WITHOUT)));
    let mut wrong = Vec::new();
    for (statement, gets) in STATEMENTS {
        let (whole, part) = (asked(&with, statement).await, asked(&without, statement).await);
        if let Err(what) = judged(statement, *gets, &whole, &part) {
            wrong.push(format!(
                "{statement}\n  {what}: expected {gets:?}\n  with: {whole:?}\n  without: {part:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_needs_the_scope_only_where_it_reads_bodies() {
    let (engine, _folder) = filled().await;
    let (with, without) =
        (engine.reader_as(&access(WITH)), engine.reader_as(&access(&[Scope::Analytics])));
    let run = async |reader: &Reader, name: &str| {
        let answer = reader.report(name, &Params::new()).await?;
        let withheld = answer.withheld.clone();
        let rows: Vec<RecordBatch> = answer.batches.try_collect().await?;
        Ok::<_, Error>((withheld, pretty_format_batches(&rows).unwrap().to_string()))
    };
    for report in reports::list() {
        let whole = run(&with, report.name).await.unwrap();
        match report.name {
            "errors" => assert_refused(
                &run(&without, report.name).await.unwrap_err(),
                RESPONSE,
                report.name,
            ),
            // It counts to the moment at which it is asked.
            "quota" | "retention" => drop(run(&without, report.name).await.unwrap()),
            name => assert_eq!(run(&without, name).await.unwrap(), whole, "{name}"),
        }
    }
    engine.close().await.unwrap();
}

async fn lines(reader: &Reader, request: &ExportRequest) -> Result<String, Error> {
    let chunks: Vec<_> = reader.export(request).await?.try_collect().await?;
    Ok(String::from_utf8(chunks.concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_says_what_it_lacks_and_refuses_what_is_named() {
    let (engine, _folder) = filled().await;
    let (with, without) = (engine.reader_as(&access(WITH)), engine.reader_as(&access(WITHOUT)));
    let all = ExportRequest::default();
    assert!(lines(&with, &all).await.unwrap().contains("word 3"));
    assert!(with.withheld_from_export(&all).is_empty());
    assert!(!lines(&without, &all).await.unwrap().contains("word"));
    assert_eq!(without.withheld_from_export(&all), BOTH);
    let named = |names: &[&str]| ExportRequest {
        columns: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..ExportRequest::default()
    };
    assert!(without.withheld_from_export(&named(&["id", "request.headers"])).is_empty());
    for name in ["request", "response", "request.body", "response.body"] {
        let error = lines(&without, &named(&["id", name])).await.unwrap_err();
        assert_refused(&error, &[name], name);
    }

    // Denied fields are left out of what names no columns, which says so, and refused where they
    // are named.
    let deny = |document: &mut Document| {
        let fields = ["cost", "request.body"].map(str::to_owned).into();
        document.set_denied_fields(ORGANISATION, None, &fields)
    };
    engine.catalog().change(deny).await.unwrap();
    assert_eq!(with.withheld_from_export(&all), ["cost", "request"]);
    assert_eq!(without.withheld_from_export(&all), ["cost", "request", "response"]);
    let text = lines(&with, &all).await.unwrap();
    assert!(
        !text.contains("\"cost\"") && !text.contains("question") && text.contains("reply"),
        "{text}"
    );
    for (filters, columns) in [
        (json!({ "cost_min": 0.1 }), None),
        (json!({}), Some(vec!["id".to_owned(), "cost".to_owned()])),
    ] {
        let filters = filters.as_object().unwrap().clone();
        let new = NewExport { id: engine.new_id(), filters, columns, ..NewExport::default() };
        let error = engine.create_export(&access(WITH), new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.message().contains("`cost`"), "{error}");
    }
    let new = NewExport { id: engine.new_id(), ..NewExport::default() };
    let job = engine.create_export(&access(WITH), new).await.unwrap();
    assert_eq!(engine.export_job(&access(WITH), &job.id).unwrap().withheld, ["cost", "request"]);
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_their_filters_are_the_same_without_the_scope() {
    let (engine, _folder) = filled().await;
    let (with, without) = (engine.reader_as(&access(WITH)), engine.reader_as(&access(WITHOUT)));
    for query in [
        "",
        "ai_model=gpt-4o&total_units_min=3",
        "status_code=500",
        "weighted_feedback_min=1",
        "metadata={\"team\":\"m3\"}",
        "status=Cache Disabled",
    ] {
        let mut fields: std::collections::BTreeMap<String, String> = query
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect();
        let filter = gatelog::logs::Filter::read(|name| fields.remove(name)).unwrap();
        let ask = gatelog::logs::Ask { filter, total: true, ..gatelog::logs::Ask::default() };
        let page = with.logs(&ask).await.unwrap();
        assert!(page.total.unwrap() > 0, "{query}");
        assert_eq!(without.logs(&ask).await.unwrap(), page, "{query}");
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_names_what_is_withheld() {
    use axum::body::Body;
    use axum::http::{Method, Request, StatusCode};
    use tower::ServiceExt;

    let (engine, _folder) = filled().await;
    let add = |document: &mut Document| {
        for (text, scopes) in [("with", WITH), ("without", WITHOUT)] {
            let key = gatelog::engine::NewKey {
                organisation: Some(ORGANISATION.to_owned()),
                scopes: scopes.iter().copied().collect(),
                ..gatelog::engine::NewKey::default()
            };
            document.add_key(text, key, Utc::now())?;
        }
        Ok(())
    };
    engine.catalog().change(add).await.unwrap();
    let router = gatelog::http::router(engine.clone());
    let ask = async |key: &str, path: &str, body: Option<&str>| {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let request = Request::builder().method(method).uri(path).header("x-portkey-api-key", key);
        let request = request.body(Body::from(body.unwrap_or_default().to_owned())).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let withheld =
            headers.get("x-gatelog-withheld").map(|names| names.to_str().unwrap().to_owned());
        (status, withheld, String::from_utf8(bytes.to_vec()).unwrap())
    };
    let both = Some("request.body,response.body".to_owned());
    for (path, body, withheld) in [
        ("/v1/sql", Some("select * from logs"), both.clone()),
        (
            "/v1/sql?format=json",
            Some("select response from logs"),
            Some("response.body".to_owned()),
        ),
        ("/v1/sql", Some("select request['body'] as b from logs"), Some("request.body".to_owned())),
        ("/v1/sql", Some("select id from logs"), None),
        ("/v1/export", None, both.clone()),
        ("/v1/export?columns=id", None, None),
        ("/v1/reports/status", None, None),
        ("/v1/logs", None, None),
        ("/v1/logs/r-3", None, both.clone()),
        ("/logs/r-3", None, both.clone()),
    ] {
        let (status, named, text) = ask("without", path, body).await;
        assert_eq!((status, named), (StatusCode::OK, withheld), "{path} {body:?}: {text}");
        assert!(!text.contains("word "), "{path} {body:?}: {text}");
        let (status, named, _) = ask("with", path, body).await;
        assert_eq!((status, named), (StatusCode::OK, None), "{path} {body:?}");
    }
    let shown = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(shown(&ask("without", "/v1/logs/r-3", None).await.2)["withheld"], json!(BOTH));
    assert!(shown(&ask("with", "/v1/logs/r-3", None).await.2).get("withheld").is_none());
    for (path, body) in [
        ("/v1/sql", Some("select count(*) from logs where request['body'] like '%word%'")),
        ("/v1/sql?query=select+max(response['body'])+from+logs", None),
        ("/v1/reports/errors", None),
        ("/v1/export?columns=id,request.body", None),
    ] {
        let (status, named, text) = ask("without", path, body).await;
        assert_eq!((status, named), (StatusCode::FORBIDDEN, None), "{path}: {text}");
        assert!(text.contains("`logs.read`"), "{path}: {text}");
        assert_eq!(ask("with", path, body).await.0, StatusCode::OK, "{path}");
    }
    engine.close().await.unwrap();
}
