//! The embedded engine: acks, duplicates, restarts, reading beside a writer, limits, exports.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use chrono::{DateTime, Duration, Utc};
use futures::TryStreamExt;
use gatelog::engine::{Access, RecordPart};
use gatelog::record::Message;
use gatelog::{
    Config, Engine, ErrorKind, ExportCursor, ExportRequest, Job, Params, Reader, Record,
};
use tempfile::TempDir;

/// Opens an engine whose former owner was dropped: its lock goes away a moment later.
pub(crate) async fn reopened(config: Config) -> Engine {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        match Engine::open(config.clone()).await {
            Err(error) if error.kind() == ErrorKind::Busy && std::time::Instant::now() < end => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn config(folder: &TempDir) -> Config {
    Config {
        data: folder.path().join("data").display().to_string(),
        flush_seconds: 3600,
        compact_schedule: gatelog::config::Schedule::never(),
        ..Config::default()
    }
}

pub(crate) fn record(id: &str) -> Record {
    let created_at = DateTime::parse_from_rfc3339("2026-11-01T10:00:00Z").unwrap().to_utc();
    Record { id: Some(id.to_owned()), created_at: Some(created_at), ..Record::default() }
}

pub(crate) async fn ids(reader: &Reader) -> Vec<String> {
    let answer = reader.sql("select id from logs order by id", &Params::new()).await.unwrap();
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
    let ids = batches.iter().flat_map(|batch| batch.column(0).as_string_view().iter());
    ids.map(|id| id.unwrap().to_owned()).collect()
}

pub(crate) async fn number(reader: &Reader, query: &str) -> i64 {
    let batches: Vec<RecordBatch> =
        reader.sql(query, &Params::new()).await.unwrap().batches.try_collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn exported(reader: &Reader, request: &ExportRequest) -> String {
    let chunks: Vec<_> = reader.export(request).await.unwrap().try_collect().await.unwrap();
    String::from_utf8(chunks.concat()).unwrap()
}

#[tokio::test]
async fn a_row_is_there_right_after_its_ack_also_while_flushes_and_merges_commit() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        flush_bytes: 64 << 10,
        compact_schedule: gatelog::config::Schedule::every_seconds(1),
        ..config(&folder)
    };
    let engine = Engine::open(config).await.unwrap();
    let trials: usize =
        std::env::var("GATELOG_TEST_TRIALS").map_or(400, |text| text.parse().unwrap());
    for trial in 0..trials {
        let id = format!("{trial:06}");
        let body = Message { body: Some(format!("\"{}\"", "x".repeat(2000))), headers: None };
        engine.append(vec![Record { request: body, ..record(&id) }]).await.unwrap();
        let found =
            number(&engine.reader(), &format!("select count(*) from logs where id = '{id}'")).await;
        assert_eq!(found, 1, "trial {trial}");
    }
    assert_eq!(
        number(&engine.reader(), "select count(*) from logs").await,
        i64::try_from(trials).unwrap()
    );
    assert!(engine.status().flushes_total > 0, "{:?}", engine.status());
    engine.close().await.unwrap();
}

#[tokio::test]
async fn an_engine_that_was_dropped_without_closing_has_everything_after_the_next_open() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    engine.flush().await.unwrap();
    engine.append(vec![record("b")]).await.unwrap();
    // The folder's lock goes with the process; within one process closing lets it go, so look from
    // beside instead.
    let beside = Reader::open(&config(&folder)).await.unwrap();
    assert_eq!(ids(&beside).await, ["a", "b"]);
    engine.close().await.unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a", "b"]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn an_id_sent_again_is_kept_once_in_memory_in_a_file_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let receipt = engine.append(vec![record("a"), record("a"), record("b")]).await.unwrap();
    assert_eq!((receipt.accepted, receipt.duplicate), (2, 1));
    assert_eq!(engine.append(vec![record("a")]).await.unwrap().duplicate, 1);
    engine.flush().await.unwrap();
    assert_eq!(engine.append(vec![record("b")]).await.unwrap().duplicate, 1);
    let other = Record { organisation_id: Some("other".to_owned()), ..record("a") };
    assert_eq!(
        engine.append(vec![other]).await.unwrap().accepted,
        1,
        "organisations do not share ids"
    );
    engine.close().await.unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    assert_eq!(engine.append(vec![record("a"), record("c")]).await.unwrap().duplicate, 1);
    assert_eq!(ids(&engine.reader()).await, ["a", "a", "b", "c"]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_second_engine_on_a_folder_is_refused_and_two_folders_are_two_engines() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = Engine::open(config(&first)).await.unwrap();
    let error = Engine::open(config(&first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    let other = Engine::open(config(&second)).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    other.append(vec![record("b")]).await.unwrap();
    assert_eq!(
        (ids(&engine.reader()).await, ids(&other.reader()).await),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
    engine.close().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(engine.append(vec![record("c")]).await.unwrap_err().error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_batch_of_arrow_with_some_columns_is_filled_in() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let schema = Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("total_units", DataType::Int64, true),
        Field::new("mode", DataType::Utf8, true),
    ]);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("a"), None])),
        Arc::new(Int64Array::from(vec![Some(1), Some(2)])),
        Arc::new(StringArray::from(vec![Some("single"), None])),
    ];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    assert_eq!(engine.append_batch(batch).await.unwrap().accepted, 2);
    assert_eq!(
        number(
            &engine.reader(),
            "select sum(total_units) from logs where organisation_id = 'default'"
        )
        .await,
        3
    );
    assert_eq!(
        number(&engine.reader(), "select count(*) from logs where mode = 'SINGLE'").await,
        1
    );
    let strange = Schema::new(vec![Field::new("colour", DataType::Utf8, true)]);
    let batch =
        RecordBatch::try_new(Arc::new(strange), vec![Arc::new(StringArray::from(vec!["red"]))])
            .unwrap();
    let error = engine.append_batch(batch).await.unwrap_err();
    assert!(error.message().contains("column `colour` is unknown"), "{error}");
    engine.close().await.unwrap();
}

/// Files that each commit of the table of records added.
fn files_of_commits(folder: &TempDir) -> Vec<usize> {
    let log = folder.path().join("data/logs/_delta_log");
    let entries = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let entries =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let adds = |text: String| text.lines().filter(|line| line.starts_with("{\"add\"")).count();
    entries.map(|path| adds(std::fs::read_to_string(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_of_a_bounded_number_of_days_whichever_way_rows_come() {
    const DAYS: usize = gatelog::limits::DAYS;
    let folder = tempfile::tempdir().unwrap();
    let config = Config { join_seconds: 0, append_wait_ms: 300_000, ..config(&folder) };
    let engine = Engine::open(config).await.unwrap();
    let first = DateTime::parse_from_rfc3339("1990-01-01T10:00:00Z").unwrap().to_utc();
    let (number_of_days, day) =
        (DAYS + 10, |day: usize| first + Duration::days(i64::try_from(day).unwrap()));
    let times = (0..number_of_days).map(|number| day(number).timestamp_micros());
    let times =
        arrow::array::TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let schema = Schema::new(vec![Field::new("created_at", times.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times)]).unwrap();
    assert_eq!(engine.append_batch(batch).await.unwrap().accepted, number_of_days as u64);
    // Halves that are stored alone, at once.
    let part_kind =
        |number| Record { created_at: Some(day(number)), ..record(&format!("h{number}")) };
    let record_parts =
        (0..number_of_days).map(|number| (RecordPart::Figures, part_kind(number))).collect();
    let receipt = engine.append_parts_as(&Access::operator("test"), record_parts).await.unwrap();
    assert_eq!(receipt.accepted, number_of_days as u64);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while engine.status().waiting_halves > 0 {
        assert!(std::time::Instant::now() < end, "{} halves wait", engine.status().waiting_halves);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    engine.flush().await.unwrap();
    let all = i64::try_from(2 * number_of_days).unwrap();
    assert_eq!(number(&engine.reader(), "select count(*) from logs").await, all);
    let files = files_of_commits(&folder);
    assert!(files.iter().sum::<usize>() >= number_of_days, "{files:?}");
    assert!(files.iter().all(|files| *files <= 2 * DAYS), "{files:?}");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn queries_end_at_their_limits_with_an_error_and_when_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { query_timeout_seconds: 1, query_max_rows: 10, ..config(&folder) };
    let engine = Engine::open(config).await.unwrap();
    // Both sides are small, so the join makes its rows without reading another one.
    let endless = "select count(*) from range(0, 100000) a, range(0, 100000) b, range(0, 100000) c";
    for (query, words) in
        [(endless, "ran longer than 1 s"), ("select * from range(0, 11)", "more than 10 rows")]
    {
        let answer = engine.sql(query, &Params::new()).await;
        let error = match answer {
            Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
        assert!(error.message().contains(words), "{error}");
    }
    let answer = engine.sql(endless, &Params::new()).await.unwrap();
    assert_eq!(engine.status().queries_running, 1);
    drop(answer);
    while engine.status().queries_running > 0 {
        tokio::task::yield_now().await;
    }
    engine.close().await.unwrap();
}

#[tokio::test]
async fn an_export_comes_in_order_with_its_keys_and_goes_on_after_any_line() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let start = DateTime::parse_from_rfc3339("2026-11-01T22:00:00Z").unwrap().to_utc();
    let records = |range: std::ops::Range<i64>| -> Vec<Record> {
        let at = |n: i64| -> DateTime<Utc> { start + Duration::minutes(n * 7 % 240) };
        range
            .map(|n| Record {
                id: Some(format!("{n:03}")),
                organisation_id: Some(format!("org-{}", n % 3)),
                created_at: Some(at(n)),
                metadata: vec![("_user".to_owned(), format!("u{n}"))],
                ..Record::default()
            })
            .collect()
    };
    // Files of several flushes, a merge, and rows in memory.
    engine.append(records(0..40)).await.unwrap();
    engine.flush().await.unwrap();
    engine.append(records(40..70)).await.unwrap();
    engine.flush().await.unwrap();
    engine.maintain(Job::Compact, false).await.unwrap();
    engine.append(records(70..100)).await.unwrap();
    engine.flush().await.unwrap();
    engine.append(records(100..120)).await.unwrap();

    let columns =
        ["created_at", "id", "metadata.key", "organisation_id"].map(str::to_owned).to_vec();
    let request = ExportRequest { columns: Some(columns), ..ExportRequest::default() };
    let whole = exported(&engine.reader(), &request).await;
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(lines.len(), 120);
    assert!(lines[0].starts_with(
        "{\"created_at\":\"2026-11-01T22:00:00.000Z\",\"id\":\"000\",\"metadata.key\":[\"_user\"],\"organisation_id\":"
    ));
    let keys: Vec<(String, String, String, String)> = lines
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (
                text("created_at")[..10].to_owned(),
                text("organisation_id"),
                text("created_at"),
                text("id"),
            )
        })
        .collect();
    assert!(keys.is_sorted(), "by day, organisation, time and id");

    for cut in [0, 1, 59, 100, 118] {
        let (_, _, created_at, id) = &keys[cut];
        let typed = format!("{created_at},{id}").parse().unwrap();
        let after = Some(ExportCursor::from_line(lines[cut].as_bytes()).unwrap());
        let continued = ExportRequest { after, ..request.clone() };
        let rest = exported(&engine.reader(), &continued).await;
        assert_eq!(rest.lines().collect::<Vec<_>>(), lines[cut + 1..], "after line {cut}");
        let after = Some(typed);
        let rest = exported(&engine.reader(), &ExportRequest { after, ..request.clone() }).await;
        assert_eq!(rest.lines().collect::<Vec<_>>(), lines[cut + 1..], "after line {cut}");
    }
    let limited =
        exported(&engine.reader(), &ExportRequest { limit: Some(50), ..request.clone() }).await;
    assert_eq!(limited.lines().collect::<Vec<_>>(), lines[..50]);
    let frame = ExportRequest {
        from: Some("2026-11-02".into()),
        to: Some("2026-11-02T01:00:00Z".into()),
        ..request.clone()
    };
    let within = |key: &&(String, String, String, String)| {
        key.2.as_str() >= "2026-11-02" && key.2.as_str() < "2026-11-02T01:00"
    };
    assert_eq!(
        exported(&engine.reader(), &frame).await.lines().count(),
        keys.iter().filter(within).count()
    );
    for (request, kind) in [
        (
            ExportRequest { columns: Some(vec!["colour".into()]), ..ExportRequest::default() },
            ErrorKind::Invalid,
        ),
        (
            ExportRequest { from: Some("soon".into()), ..ExportRequest::default() },
            ErrorKind::Invalid,
        ),
        (
            ExportRequest {
                after: Some("2026-11-02,nobody".parse().unwrap()),
                ..ExportRequest::default()
            },
            ErrorKind::NotFound,
        ),
    ] {
        assert_eq!(
            engine.export(&request).await.err().map(|error| error.kind()),
            Some(kind),
            "{request:?}"
        );
    }
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_merge_keeps_every_row_and_vacuum_deletes_what_it_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { vacuum_grace_seconds: 0, ..config(&folder) };
    let engine = Engine::open(config).await.unwrap();
    for n in 0..5 {
        engine.append(vec![record(&format!("{n}")), record(&format!("1{n}"))]).await.unwrap();
        engine.flush().await.unwrap();
    }
    let plan = engine.maintain(Job::Compact, true).await.unwrap();
    assert_eq!((plan.lines.len(), plan.files_after), (1, 5), "a dry run changes nothing");
    let done = engine.maintain(Job::Compact, false).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (5, 1));
    assert_eq!(ids(&engine.reader()).await.len(), 10);
    let vacuum = engine.maintain(Job::Vacuum, false).await.unwrap();
    assert_eq!(vacuum.lines.len(), 5);
    engine.maintain(Job::Checkpoint, false).await.unwrap();
    assert_eq!(engine.status().commits_since_checkpoint, 0);
    engine.close().await.unwrap();
    let engine = Engine::open(crate::engine::config(&folder)).await.unwrap();
    assert_eq!(ids(&engine.reader()).await.len(), 10);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn sql_changes_nothing_and_reaches_nothing_but_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    let file = folder.path().join("out.csv").display().to_string();
    for query in [
        "insert into logs (id) values ('x')",
        "delete from logs",
        "update logs set id = 'x'",
        "drop table logs",
        "create table t as select 1",
        "create view v as select 1",
        "create external table t stored as csv location '/etc/passwd'",
        &format!("copy logs to '{file}' stored as csv"),
        "explain copy logs to 'x.csv' stored as csv",
        "explain analyze insert into logs (id) values ('x')",
        "set datafusion.execution.batch_size = 1",
        "prepare p as select 1",
        "select 1; select 2",
        "select * from '/etc/passwd'",
        "select * from read_csv('/etc/passwd')",
        "begin",
    ] {
        let error = engine
            .sql(query, &Params::new())
            .await
            .err()
            .unwrap_or_else(|| panic!("`{query}` was not refused"));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{query}: {error:?}");
    }
    assert!(!std::path::Path::new(&file).exists());
    assert_eq!(ids(&engine.reader()).await, ["a"]);
    for query in
        ["explain select * from logs", "show tables", "describe logs", "show columns from logs"]
    {
        engine
            .sql(query, &Params::new())
            .await
            .unwrap()
            .batches
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
    }
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_cursor_that_two_organisations_share_must_name_the_one() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let of = |organisation: &str, id: &str| Record {
        organisation_id: Some(organisation.to_owned()),
        ..record(id)
    };
    engine.append(vec![of("a", "x1"), of("b", "x1"), of("b", "x2")]).await.unwrap();
    let columns = Some(vec!["organisation_id".to_owned(), "id".to_owned()]);
    let after = |text: &str| ExportRequest {
        after: Some(text.parse().unwrap()),
        columns: columns.clone(),
        ..ExportRequest::default()
    };
    let error = engine.export(&after("2026-11-01T10:00:00Z,x1")).await.err().unwrap();
    assert!(error.message().contains("2 organisations"), "{error}");
    let rest = exported(&engine.reader(), &after("2026-11-01T10:00:00Z,x1,b")).await;
    assert_eq!(rest, "{\"organisation_id\":\"b\",\"id\":\"x2\"}\n");
    let rest = exported(&engine.reader(), &after("2026-11-01T10:00:00Z,x1,a")).await;
    assert_eq!(rest.lines().count(), 2);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_value_of_arrow_that_does_not_fit_is_an_error_and_a_body_that_is_no_json_becomes_text() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let one = |name: &str, value: &str| {
        let schema = Schema::new(vec![Field::new(name, DataType::Utf8, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(vec![value]))])
            .unwrap()
    };
    let error = engine.append_batch(one("cost", "abc")).await.unwrap_err();
    assert!(error.message().contains("column `cost`"), "{error}");
    let body: arrow::array::ArrayRef = Arc::new(StringArray::from(vec!["not { json"]));
    let request = arrow::array::StructArray::from(vec![(
        Arc::new(Field::new("body", DataType::Utf8, true)),
        body,
    )]);
    let schema = Schema::new(vec![Field::new(
        "request",
        arrow::array::Array::data_type(&request).clone(),
        true,
    )]);
    engine
        .append_batch(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(request)]).unwrap())
        .await
        .unwrap();
    let columns = Some(vec!["request.body".to_owned()]);
    let line =
        exported(&engine.reader(), &ExportRequest { columns, ..ExportRequest::default() }).await;
    assert_eq!(line, "{\"request.body\":\"not { json\"}\n");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_statement_of_any_shape_is_answered_or_refused_and_never_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    let long_sum = format!("select {}", ["1"; 2500].join("+"));
    let long_filter =
        format!("select count(*) from logs where {}", ["id = 'a'"; 1500].join(" or "));
    let answer = engine.sql(&long_sum, &Params::new()).await.unwrap();
    answer.batches.try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(number(&engine.reader(), &long_filter).await, 1);
    let too_long = format!("select '{}'", "x".repeat(200_000));
    assert_eq!(engine.sql(&too_long, &Params::new()).await.err().unwrap().kind(), ErrorKind::Limit);
    let answer = engine.sql("select repeat('x', 2000000000)", &Params::new()).await;
    let error = match answer {
        Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "the value would be too large");
    engine.close().await.unwrap();
}

#[tokio::test]
async fn files_of_big_rows_are_merged_and_exported_within_the_memory_of_queries() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { query_memory_bytes: 40 << 20, ..config(&folder) };
    let engine = Engine::open(config).await.unwrap();
    // Text that packs so well that the size of the files says nothing about the size of the rows.
    let body =
        |n: usize| Message { body: Some(format!("\"{}{n}\"", "x".repeat(200_000))), headers: None };
    for file in 0..6 {
        let records = (0..20)
            .map(|n| Record { request: body(n), ..record(&format!("{file}-{n:02}")) })
            .collect();
        engine.append(records).await.unwrap();
        engine.flush().await.unwrap();
    }
    let request = ExportRequest {
        columns: Some(vec!["request.body".to_owned()]),
        ..ExportRequest::default()
    };
    assert_eq!(exported(&engine.reader(), &request).await.lines().count(), 120);
    assert_eq!(engine.maintain(Job::Compact, false).await.unwrap().files_after, 1);
    assert_eq!(exported(&engine.reader(), &request).await.lines().count(), 120);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn an_emptied_commit_of_the_table_stops_the_open() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    engine.close().await.unwrap();
    let commit = folder.path().join("data/logs/_delta_log/00000000000000000001.json");
    std::fs::write(&commit, "").unwrap();
    let error = Engine::open(config(&folder)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains("00000000000000000001.json"), "{error}");
}
