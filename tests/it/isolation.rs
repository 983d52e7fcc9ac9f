//! Nothing of others crosses: whatever an organisation asks, it is answered as if it were alone.
//!
//! Each statement is asked of two engines as the same organisation: one that also holds records of
//! others, records that expired and records that were erased, and one that holds only what the
//! organisation may see. Answers, errors and plans must be the same, and none may hold a text that
//! others planted in every column.

mod feedback;

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use chrono::{DateTime, Duration, Utc};
use futures::TryStreamExt;
use gatelog::config::Schedule;
use gatelog::engine::{Access, Dependencies, ErasureSelector, Organisation, Scope};
use gatelog::record::{Feedback, Message};
use gatelog::{Config, Engine, ErrorKind, ExportRequest, Job, Params, Reader, Record};
use tempfile::TempDir;

/// What others planted; no answer may hold it.
const SECRET: &str = "s3cr3t";
const SECRET_NUMBER: i64 = 777_001;

/// Where the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Memory,
    Flushed,
    Mixed,
}

const MODES: [Mode; 3] = [Mode::Memory, Mode::Flushed, Mode::Mixed];

fn now() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-11-10T12:00:00Z").unwrap().to_utc()
}

fn config(folder: &TempDir) -> Config {
    Config {
        data: folder.path().join("data").display().to_string(),
        flush_seconds: 3600,
        expire_schedule: Schedule::never(),
        compact_schedule: Schedule::never(),
        vacuum_schedule: Schedule::never(),
        ..Config::default()
    }
}

/// A record of acme, which may see it.
fn ours(number: i64) -> Record {
    let body = |side: &str| Some(format!("{{\"{side}\":{number},\"text\":\"word {number}\"}}"));
    Record {
        id: Some(format!("ours-{number:03}")),
        organisation_id: Some("acme".to_owned()),
        workspace_slug: Some("one".to_owned()),
        created_at: Some(now() - Duration::minutes(number * 37)),
        ai_model: Some(["gpt-4o", "mistral"][usize::try_from(number % 2).unwrap()].to_owned()),
        trace_id: Some(format!("{}", number / 2)),
        user_id: Some(format!("{}", number % 5)),
        total_units: Some(number),
        cost: Some(0.25),
        response_status_code: Some(200),
        is_success: Some(1),
        metadata: vec![("_user".to_owned(), format!("{}", number % 5))],
        request: Message {
            body: body("request"),
            headers: Some(format!("{{\"x-id\":\"{number}\"}}")),
        },
        response: Message { body: body("response"), headers: None },
        ..Record::default()
    }
}

/// A record that acme may not see, with a secret wherever one fits.
fn theirs(organisation: &str, number: i64) -> Record {
    // Some are no JSON, no number and no pattern, so that what fails on them would say so.
    let text = Some(format!("\"{SECRET} {number} ((\""));
    let name = || Some(format!("{SECRET}-{organisation}-{number} (("));
    Record {
        id: Some(format!("{SECRET}-{organisation}-{number}")),
        organisation_id: Some(organisation.to_owned()),
        workspace_slug: Some("two".to_owned()),
        created_at: Some(now() - Duration::seconds(number)),
        ai_org: name(),
        ai_model: name(),
        trace_id: name(),
        span_id: name(),
        user_id: name(),
        request_url: name(),
        config: name(),
        prompt_slug: name(),
        total_units: Some(SECRET_NUMBER),
        cost: Some(777_001.5),
        response_status_code: Some(500),
        is_success: Some(0),
        metadata: vec![
            (SECRET.to_owned(), SECRET.to_owned()),
            ("_user".to_owned(), SECRET.to_owned()),
        ],
        request: Message { body: text.clone(), headers: text.clone() },
        response: Message { body: text.clone(), headers: text },
        ..Record::default()
    }
}

/// Of acme, but hidden: expired, erased by id, or of another workspace.
fn hidden_of_ours(workspace: bool) -> Vec<Record> {
    let mut hidden: Vec<Record> = (0..8).map(|number| theirs("acme", number)).collect();
    for (number, record) in hidden.iter_mut().enumerate() {
        record.workspace_slug = Some("one".to_owned());
        match number % 2 {
            0 => record.created_at = Some(now() - Duration::days(30) - Duration::microseconds(1)),
            _ => record.id = Some(format!("erased-{SECRET}-{number}")),
        }
    }
    if workspace {
        hidden.extend((0..8).map(|number| theirs("acme", 100 + number)));
    }
    hidden
}

async fn open(folder: &TempDir) -> Engine {
    let engine = Engine::open_with(config(folder), Dependencies { now, ..Dependencies::default() })
        .await
        .unwrap();
    for (id, plan) in [("aaa", "enterprise"), ("acme", "production"), ("zulu", "developer")] {
        let new =
            Organisation { name: Some(format!("{SECRET} {id}")), ..Organisation::new(plan, now()) };
        let new = if id == "acme" { Organisation { name: None, ..new } } else { new };
        engine
            .catalog()
            .change(|document| document.create_organisation(id, new.clone(), 0).map(|_| ()))
            .await
            .unwrap();
    }
    engine.catalog_changed();
    engine
}

/// Cuts rows into those for two files and those for memory.
fn parts<T: Clone>(mut files: Vec<T>, mode: Mode) -> ([Vec<T>; 2], Vec<T>) {
    let part_kind = match mode {
        Mode::Memory => 0,
        Mode::Flushed => files.len(),
        Mode::Mixed => files.len() / 2,
    };
    let memory = files.split_off(part_kind);
    ([0, 1].map(|part| files.iter().skip(part).step_by(2).cloned().collect()), memory)
}

async fn fill(engine: &Engine, records: Vec<Record>, said: Vec<Feedback>, mode: Mode) {
    let operator = Access::operator("test");
    let ((files, memory), (said_files, said_memory)) = (parts(records, mode), parts(said, mode));
    for (part, said) in files.into_iter().zip(said_files) {
        if !part.is_empty() {
            engine.append(part).await.unwrap();
            engine.append_feedback_as(&operator, said).await.unwrap();
            engine.flush().await.unwrap();
        }
    }
    if mode == Mode::Mixed {
        engine.maintain(Job::Compact, false).await.unwrap();
    }
    if !memory.is_empty() {
        engine.append(memory).await.unwrap();
        engine.append_feedback_as(&operator, said_memory).await.unwrap();
    }
}

/// One engine with everything, one with what acme may see.
struct Pair {
    crowded: Engine,
    alone: Engine,
    _folders: [TempDir; 2],
}

impl Pair {
    async fn open(mode: Mode, workspace: bool) -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (crowded, alone) = (open(&folders[0]).await, open(&folders[1]).await);
        let seen: Vec<Record> = (0..40).map(ours).collect();
        let mut all = hidden_of_ours(workspace);
        for number in 0..12 {
            all.extend([
                theirs("aaa", number),
                theirs("zulu", number),
                theirs("nobody-knows", number),
            ]);
        }
        // Dealt out, so that every file has rows of everybody.
        let mut dealt = seen.clone();
        for (place, record) in all.into_iter().enumerate() {
            dealt.insert((place * 7) % dealt.len(), record);
        }
        fill(&crowded, dealt, feedback::of_everybody(workspace), mode).await;
        fill(&alone, seen, feedback::seen(), mode).await;
        for id in [1, 3, 5, 7] {
            let which = ErasureSelector::Ids(vec![format!("erased-{SECRET}-{id}")]);
            crowded.erase("acme", which, "test").await.unwrap();
        }
        Self { crowded, alone, _folders: folders }
    }

    async fn close(self) {
        self.crowded.close().await.unwrap();
        self.alone.close().await.unwrap();
    }
}

fn access(workspace: Option<&str>, scopes: &[Scope]) -> Access {
    Access {
        key_id: "test".to_owned(),
        organisation: Some("acme".to_owned()),
        workspace: workspace.map(str::to_owned),
        scopes: scopes.iter().copied().collect::<BTreeSet<_>>(),
    }
}

/// The answer or the error with all its causes, as text; lines sorted where the statement does not
/// sort them.
async fn said(reader: &Reader, statement: &str, params: &Params) -> String {
    let answer = async {
        let answer = reader.sql(statement, params).await?;
        answer.batches.try_collect::<Vec<RecordBatch>>().await
    };
    match answer.await {
        Ok(batches) => {
            let table = pretty_format_batches(&batches).unwrap().to_string();
            let mut lines: Vec<&str> = table.lines().collect();
            if !statement.contains("order by") && !statement.starts_with("explain") {
                lines.sort_unstable();
            }
            lines.join("\n")
        }
        Err(error) => format!("{:?}: {}", error.kind(), error.chain()),
    }
}

const STATEMENTS: &[&str] = &[
    // Everything there is, and what can be counted without looking.
    "select * from logs order by id",
    "select count(*) from logs",
    "select count(id), count(request), count(distinct organisation_id), count(distinct ai_model) from logs",
    "select min(created_at), max(created_at), min(organisation_id), max(organisation_id), min(id), max(id) from logs",
    "select min(retention_days), max(retention_days), min(date), max(date) from logs",
    "select retention_days, date, count(*) from logs group by 1, 2",
    "select count(*) from logs where organisation_id <> 'acme'",
    "select count(*) from logs where organisation_id is null or workspace_slug <> 'one'",
    "select organisation_id, count(*) from logs group by rollup (organisation_id)",
    "select distinct organisation_id, workspace_slug, ai_model from logs",
    "select count(*) from logs where is_success = 0 or response_status_code = 500",
    "select sum(total_units), avg(cost), max(cost), median(total_units), round(stddev(total_units), 6) from logs",
    "select approx_distinct(ai_model), approx_percentile_cont(total_units, 0.99) from logs",
    "select array_agg(ai_model order by id), string_agg(id, ',' order by id) from logs order by 1",
    "select bool_or(total_units > 1000), bit_or(total_units), first_value(id order by cost desc, id) from logs",
    // The first, the last, and any.
    "select id from logs order by created_at desc limit 5",
    "select id from logs order by created_at, id limit 5",
    "select id from logs order by id desc limit 3",
    "select ai_model from logs order by total_units desc, id limit 3",
    "select id from logs order by created_at desc offset 38",
    "select count(*) from (select 1 from logs limit 45)",
    "select count(*) from (select id from logs limit 1)",
    "select organisation_id from logs limit 1",
    "select id, row_number() over (order by created_at desc), lag(id) over (order by created_at) from logs order by id",
    "select id, sum(total_units) over (partition by ai_model) from logs order by id",
    // Around the table.
    "select id from logs union all select id from gatelog.public.logs order by 1",
    "select id from public.logs union select ai_model from logs order by 1",
    "select count(*) from (select id from logs where false union all select trace_id from logs)",
    "select id from logs except select id from logs where organisation_id = 'acme'",
    "select id from logs where organisation_id = 'zulu' intersect select id from logs",
    "with logs2 as (select * from logs), more as (select * from logs2) select count(*) from more",
    "with recursive r(n) as (select 0 union all select n + 1 from r join logs on total_units = n where n < 60) select max(n) from r",
    "select count(*) from logs a join logs b on a.trace_id = b.trace_id",
    "select count(*) from logs a left join logs b on a.user_id = b.trace_id and b.organisation_id <> 'acme'",
    "select count(*) from logs a full join logs b on a.id = b.id and a.organisation_id = 'zulu'",
    "select count(*) from logs a cross join logs b where a.organisation_id < b.organisation_id",
    "select count(*) from logs a where exists (select 1 from logs b where b.organisation_id <> a.organisation_id)",
    "select count(*) from logs where id not in (select id from logs where organisation_id = 'acme')",
    "select (select max(organisation_id) from logs), (select count(*) from logs where cost > 1)",
    "select (select id from logs)",
    "select o.id from logs o where total_units = (select max(total_units) from logs i where i.user_id = o.user_id) order by 1",
    "select count(*) from logs natural join logs as other",
    "select key, count(*) from (select unnest(map_keys(metadata)) as key from logs) group by key",
    "select count(*) from logs where metadata['s3cr3t'[1]] is not null",
    "select count(*) from logs where metadata['_user'] like 's3%'",
    // Views and reports.
    "select * from status order by id",
    "select * from status_counts order by 1, 2, 3, 4, 5",
    "select * from errors order by records",
    "select * from spend_by_model order by 1, 2, 3",
    "select * from feedback_by_model order by 1, 2, 3",
    "select * from latency order by 1, 2, 3",
    "select * from retries order by 1",
    "select retention_days, records, files, bytes, oldest, next_to_expire from retention order by 1",
    "select organisation_id, plan, included, over_blocks, dollars from quota order by 1",
    "select * from organisations order by 1",
    "select * from plans order by 1",
    "select * from partitions order by 1",
    "select distinct organisation_id from usage order by 1",
    "select count(*) from usage where organisation_id <> 'acme'",
    // What tools ask.
    "select * from information_schema.tables order by table_name",
    "select * from information_schema.columns order by table_name, ordinal_position",
    "select * from information_schema.views order by table_name",
    "select * from information_schema.df_settings order by name",
    "select * from information_schema.schemata order by schema_name",
    "show tables",
    "show all",
    "show columns from logs",
    "describe logs",
    "describe select * from status",
    // What fails on a value, and would name it.
    "select cast(request['body'] as int) from logs",
    "select cast(ai_model as int) from logs where ai_model not in ('gpt-4o', 'mistral')",
    "select count(*) from logs where cast(trace_id as int) >= 0",
    "select count(*) from logs where cast(user_id as bigint) < 10 and organisation_id > ''",
    "select id from logs where cast(user_id as int) = 1 order by created_at desc limit 1",
    "select id from logs order by cast(trace_id as int), id limit 2",
    "select sum(cast(user_id as int)) filter (where cast(trace_id as int) > 0) from logs",
    "select count(*) from logs group by cast(trace_id as int) having min(cast(user_id as int)) >= 0",
    "select 1 / (case when organisation_id = 'acme' then 1 else 0 end) from logs",
    "select count(*) from logs where 1 / (total_units - 777001) = 0",
    "select count(*) from logs where 1 % (777001 - total_units) = 1",
    "select max(total_units * 12000000000000) from logs",
    "select count(*) from logs where total_units * 12000000000000 > 0",
    "select cast(total_units as smallint) from logs order by 1",
    "select chr(cast(cost as int) * 2 + 65) from logs",
    "select count(*) from logs where regexp_like('text', trace_id)",
    "select count(*) from logs where 'text' ~ user_id",
    "select count(*) from logs where regexp_count('a', concat(trace_id, user_id)) > 0",
    "select count(*) from logs where ai_model like concat(trace_id, '%')",
    "select count(*) from logs where json_get_int(request['body'], 'request') >= 0",
    "select count(*) from logs where cast(json_get_str(request['body'], 'text') as int) = 1",
    "select json_get(request['body'], 'text') from logs order by id",
    "select count(*) from logs where make_array(1, 2, 3)[total_units] = 1",
    "select count(*) from logs where to_timestamp(user_id) is not null",
    "select count(*) from logs where date_trunc(ai_model, created_at) is not null",
    "select count(*) from logs where arrow_cast(trace_id, 'Int32') >= 0",
    "select count(*) from logs where decode(user_id, 'hex') is not null",
    "select count(*) from logs where cast(ai_model as date) is not null",
    "select count(*) from logs where cast(id as timestamp) > created_at",
    "select count(*) from logs where to_char(created_at, ai_model) is not null",
    "select count(*) from logs where split_part(id, '-', cast(user_id as int) + 1) <> ''",
    "select count(*) from logs where created_at + cast(ai_model as interval) > created_at",
    "select count(*) from logs where case when organisation_id <> 'acme' then cast(id as int) > 0 else true end",
    "select count(*) from logs where coalesce(nullif(organisation_id, 'acme'), '1') = '1' and cast(trace_id as int) < 99",
    "select count(*) from logs where organisation_id = 'zulu' and cast(id as int) = 1",
    "select count(*) from logs where organisation_id = 'zulu' or cast(trace_id as int) > 3",
    "select a.id from logs a join logs b on cast(a.trace_id as int) = cast(b.user_id as int) order by 1 limit 2",
    "select unnest(string_to_array(ai_model, '-')) from logs",
    "select nope from logs",
    "select * from secrets",
    "select nope(id) from logs",
    // Plans.
    "explain select * from logs where total_units > 3",
    "explain select count(*) from logs",
    "explain select id from logs where cast(request['body'] as int) = 1 order by created_at desc limit 2",
    "explain format tree select count(*) from logs where organisation_id = 'acme'",
    "explain format pgjson select * from logs",
    "explain analyze select count(*) from logs",
    "explain verbose select count(*) from logs",
    "explain analyze verbose select count(*) from logs",
    "select * from (explain select 1)",
    // What may not be said at all.
    "set datafusion.explain.show_statistics = true",
    "prepare p as select * from logs",
    "create view v as select * from logs",
    "copy logs to '/tmp/gatelog-isolation.parquet'",
    "select * from 'logs/retention_days=30'",
];

/// Texts that are in a statement itself may come back; what is told by others may not.
fn assert_nothing_crossed(statement: &str, said: &str, mode: Mode) {
    for planted in [SECRET, &SECRET_NUMBER.to_string(), "777001.5", "nobody-knows", "zulu", "aaa"] {
        assert!(
            statement.contains(planted) || !said.contains(planted),
            "{mode:?}: {statement}\n{said}"
        );
    }
    if statement.starts_with("explain") {
        assert!(!said.contains(".parquet"), "{mode:?}: {statement}\n{said}");
    }
}

/// An error without which of its own rows an organisation met first.
fn same_error(said: &str) -> String {
    if said.starts_with('+') {
        return said.to_owned();
    }
    let said = said.replace("gpt-4o", "MODEL").replace("mistral", "MODEL");
    said.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

async fn compare(mode: Mode, workspace: Option<&str>, statements: &[&str]) {
    let pair = Pair::open(mode, workspace.is_some()).await;
    let everything =
        access(workspace, &[Scope::View, Scope::Read, Scope::Export, Scope::Analytics]);
    let (crowded, alone) = (pair.crowded.reader_as(&everything), pair.alone.reader_as(&everything));
    let none = Params::new();
    let mut differing = Vec::new();
    for statement in statements {
        let (crowded, alone) =
            (said(&crowded, statement, &none).await, said(&alone, statement, &none).await);
        assert_nothing_crossed(statement, &crowded, mode);
        // How many files there are may differ, and with it how they are dealt out.
        if same_error(&crowded) != same_error(&alone) && !statement.starts_with("explain") {
            differing
                .push(format!("{statement}\n-- among others:\n{crowded}\n-- alone:\n{alone}\n"));
        }
    }
    assert!(differing.is_empty(), "{mode:?} {workspace:?}:\n{}", differing.join("\n"));
    for (text, value) in [
        ("select count(*) from logs where organisation_id = $name", "zulu"),
        ("select id from logs where id = $name or ai_model = $name", "s3cr3t-zulu-1"),
        (
            "select count(*) from logs where cast(trace_id as int) > 2 and organisation_id <= $name",
            "zzz",
        ),
        ("select max(id) from logs where organisation_id like $name", "%u%"),
        ("select $name from logs where organisation_id > $name limit 1", "acme"),
    ] {
        let params = Params::from([("name".to_owned(), value.into())]);
        let (crowded, alone) =
            (said(&crowded, text, &params).await, said(&alone, text, &params).await);
        assert_eq!(crowded, alone, "{mode:?}: {text}");
    }
    for (report, name, value) in [
        ("status", "organisation_id", "zulu"),
        ("errors", "ai_model", "gpt-4o"),
        ("quota", "organisation_id", "aaa"),
    ] {
        let params = Params::from([(name.to_owned(), value.into())]);
        let rows = |reader: Reader| {
            let params = params.clone();
            async move {
                let answer = reader.report(report, &params).await.unwrap();
                pretty_format_batches(&answer.batches.try_collect::<Vec<_>>().await.unwrap())
                    .unwrap()
                    .to_string()
            }
        };
        assert_eq!(rows(crowded.clone()).await, rows(alone.clone()).await, "{mode:?}: {report}");
    }
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_is_answered_as_if_it_were_alone() {
    for mode in MODES {
        compare(mode, None, STATEMENTS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_answered_as_if_it_were_alone() {
    for mode in MODES {
        compare(mode, Some("one"), STATEMENTS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_scope_for_bodies_reads_none() {
    let bodies = [
        "select * from logs",
        "select request from logs",
        "select request['body'], response['body'] from logs",
        "select cast(request['body'] as int) from logs",
        "select id from logs where request['body'] like '%word%' or json_get_int(response['body'], 'response') = 3",
        "select id from logs order by request['body'] desc limit 1",
        "select max(request['body']), string_agg(response['body'], ',') from logs",
        "select id from logs where request = (select max(request) from logs)",
        "select a.id from logs a join logs b on a.request['body'] = b.request['body'] limit 1",
        "select * from errors",
        "explain select id from logs where request['body'] like '%word 7%'",
    ];
    for mode in MODES {
        let pair = Pair::open(mode, false).await;
        let reader = pair.alone.reader_as(&access(None, &[Scope::View]));
        for statement in bodies {
            let said = said(&reader, statement, &Params::new()).await;
            assert!(
                statement.contains("word") || !said.contains("word "),
                "{mode:?}: {statement}\n{said}"
            );
            assert!(!said.contains("{\"request\""), "{mode:?}: {statement}\n{said}");
        }
        let none = Params::new();
        let with_body = "select count(*) from logs where request['body'] is not null or response['body'] is not null";
        let with_headers = "select count(*) from logs where request['headers'] is not null";
        let refused = said(&reader, with_body, &none).await;
        assert!(
            refused.starts_with("Denied") && refused.contains("`logs.read`"),
            "{mode:?}: {refused}"
        );
        assert!(said(&reader, with_headers, &none).await.contains("| 40 "), "{mode:?}");
        pair.close().await;
    }
}

async fn exported(reader: &Reader, request: &ExportRequest) -> Result<String, gatelog::Error> {
    let chunks: Vec<_> = reader.export(request).await?.try_collect().await?;
    Ok(String::from_utf8(chunks.concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_what_its_key_may_see() {
    for mode in MODES {
        let pair = Pair::open(mode, false).await;
        let whole = access(None, &[Scope::Read, Scope::Export]);
        let (crowded, alone) = (pair.crowded.reader_as(&whole), pair.alone.reader_as(&whole));
        let all = exported(&crowded, &ExportRequest::default()).await.unwrap();
        assert_eq!(all.lines().count(), 40);
        assert_eq!(all, exported(&alone, &ExportRequest::default()).await.unwrap());
        assert!(!all.contains(SECRET) && all.contains("word 7"));

        // A record of others is as unknown as one that never was.
        let after = |id: &str, seconds: i64| ExportRequest {
            after: Some(
                format!("{},{id}", (now() - Duration::seconds(seconds)).to_rfc3339())
                    .parse()
                    .unwrap(),
            ),
            ..ExportRequest::default()
        };
        for request in
            [after(&format!("{SECRET}-zulu-3"), 3), after(&format!("{SECRET}-zulu-3,zulu"), 3)]
        {
            let (there, not_there) = (
                exported(&crowded, &request).await.unwrap_err(),
                exported(&alone, &request).await.unwrap_err(),
            );
            assert_eq!((there.kind(), there.message()), (ErrorKind::NotFound, not_there.message()));
        }
        let rest = exported(&crowded, &after("ours-010", 370 * 60)).await.unwrap();
        assert_eq!(rest.lines().count(), 10);

        let headers_only = pair.crowded.reader_as(&access(None, &[Scope::View, Scope::Export]));
        let columns = |names: &[&str]| ExportRequest {
            columns: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..ExportRequest::default()
        };
        for name in ["request", "response", "request.body", "response.body"] {
            let error = exported(&headers_only, &columns(&["id", name])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(
                error.message().contains(&format!("`{name}`"))
                    && error.message().contains("`logs.read`"),
                "{error}"
            );
        }
        let native = exported(&headers_only, &ExportRequest::default()).await.unwrap();
        assert!(
            native.lines().count() == 40 && native.contains("x-id") && !native.contains("word")
        );
        let headers = exported(&headers_only, &columns(&["id", "request.headers"])).await.unwrap();
        assert!(
            headers.starts_with("{\"id\":\"ours-039\",\"request.headers\":{\"x-id\":\"39\"}}\n"),
            "{headers}"
        );
        assert!(
            pair.crowded.reader_as(&whole).export_estimate(&ExportRequest::default()).unwrap()
                > 1_000_000
        );
        pair.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_finds_its_own_terms_and_counts_beside_its_records() {
    let pair = Pair::open(Mode::Mixed, false).await;
    let reader = pair.crowded.reader_as(&access(None, &[Scope::View, Scope::Analytics]));
    let text = |statement: &'static str| {
        let reader = reader.clone();
        async move { said(&reader, statement, &Params::new()).await }
    };
    assert!(
        text("select organisation_id, plan, retention_days from organisations")
            .await
            .contains("| acme            | production | 30 ")
    );
    assert!(text("select count(*) from organisations").await.contains("| 1 "));
    assert!(
        text("select count(*), min(plan) from plans").await.contains("| 1        | production")
    );
    assert!(text("select sum(records) from usage").await.contains("| 48 "));
    assert!(text("select count(*) from partitions").await.contains("| 0 "));
    // 30 of its 40 records are 30 days old within a day of this moment; the files are shared, so
    // they tell nothing.
    let at = (now() + Duration::hours(28 * 24 + 18)).to_rfc3339();
    let answer =
        reader.report("retention", &Params::from([("at".to_owned(), at.into())])).await.unwrap();
    let rows = pretty_format_batches(&answer.batches.try_collect::<Vec<_>>().await.unwrap())
        .unwrap()
        .to_string();
    let row = "| 30             | 40      |       |       | 2026-11-09T11:57:00Z | 2026-12-09T11:57:00Z | 30       |";
    assert!(rows.contains(row), "{rows}");

    let operator = pair.crowded.reader();
    let none = Params::new();
    let classes = "select bool_and(files > 0 and bytes > 0) from retention";
    assert!(said(&operator, classes, &none).await.contains("| true "), "a class without files");
    assert!(said(&operator, "select count(*) from organisations", &none).await.contains("| 3 "));
    assert!(said(&operator, "select count(*) from plans", &none).await.contains("| 3 "));
    let unknown = "select records from usage where organisation_id = 'nobody-knows'";
    assert!(said(&operator, unknown, &none).await.contains("| 12 "));
    // The operator sees everything that is not expired or erased: 40 + 3 * 12.
    assert!(said(&operator, "select count(*) from logs", &none).await.contains("| 76 "));
    pair.close().await;
}

#[tokio::test]
async fn rows_in_memory_that_stand_among_those_of_others_take_no_more_room_than_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(crate::engine::config(&folder)).await.unwrap();
    let record = |number: usize, organisation: &str| Record {
        id: Some(format!("{number:05}")),
        organisation_id: Some(organisation.to_owned()),
        request: Message { body: Some(format!("\"{}\"", "x".repeat(8_000))), headers: None },
        ..Record::default()
    };
    let mut records: Vec<Record> = (0..3_000).map(|number| record(number, "ours")).collect();
    records.push(record(9_999, "theirs"));
    for some in records.chunks(500) {
        engine.append(some.to_vec()).await.unwrap();
    }
    let ours = Access { organisation: Some("ours".to_owned()), ..Access::operator("test") };
    for (access, rows) in [(ours, 3_000), (Access::operator("test"), 3_001)] {
        let lines = engine.reader_as(&access).export(&ExportRequest::default()).await.unwrap();
        let lines: Vec<_> = lines.try_collect().await.unwrap();
        assert_eq!(lines.concat().iter().filter(|byte| **byte == b'\n').count(), rows);
    }
    engine.close().await.unwrap();
}
