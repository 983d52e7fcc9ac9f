//! What happens where memory and disk space are short: big rows, statements that spill, settings
//! that do not fit.

use std::pin::pin;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use gatelog::engine::{Access, Job};
use gatelog::logs;
use gatelog::record::Message;
use gatelog::{Config, Engine, ErrorKind, ExportRequest, Params, Record};

use crate::engine::{config, number, record};

const GIANT: usize = 3 << 20;

fn of(organisation: &str) -> Access {
    Access { organisation: Some(organisation.to_owned()), ..Access::operator("test") }
}

fn row(id: &str, organisation: &str, bytes: usize) -> Record {
    let request = Message { body: Some(format!("\"{}\"", "x".repeat(bytes))), headers: None };
    Record { organisation_id: Some(organisation.to_owned()), request, ..record(id) }
}

/// Lines and bytes of an export.
async fn exported(engine: &Engine, access: &Access) -> (usize, usize) {
    let lines = engine.reader_as(access).export(&ExportRequest::default()).await.unwrap();
    let chunks: Vec<_> = lines.try_collect().await.unwrap();
    let lines = chunks.iter().flat_map(|chunk| chunk.iter()).filter(|byte| **byte == b'\n').count();
    (lines, chunks.iter().map(|chunk| chunk.len()).sum())
}

#[tokio::test]
async fn giant_rows_stop_neither_the_merge_of_a_day_nor_an_export() {
    // One giant in each file, before the rows of others in its order, or behind them.
    for giants_of in ["acme", "zzz"] {
        let folder = tempfile::tempdir().unwrap();
        let (export, upkeep) = (24 << 20, 16 << 20);
        let config = Config {
            export_memory_bytes: export,
            maintenance_memory_bytes: upkeep,
            ..config(&folder)
        };
        let engine = Engine::open(config).await.unwrap();
        for file in 0..10 {
            let small = (0..20).map(|n| row(&format!("{file}-{n:02}"), "zen", 100));
            let records = small.chain([row(&format!("{file}-giant"), giants_of, GIANT)]).collect();
            engine.append(records).await.unwrap();
            engine.flush().await.unwrap();
        }
        let check = async |when: &str| {
            assert_eq!(exported(&engine, &of("zen")).await.0, 200, "zen {when}");
            let (lines, bytes) = exported(&engine, &Access::operator("test")).await;
            assert!(lines == 210 && bytes > 10 * GIANT, "{lines} lines of {bytes} bytes {when}");
        };
        check("before").await;
        assert_eq!(engine.maintain(Job::Compact, false).await.unwrap().files_after, 1);
        check("after").await;
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_statement_that_spills_too_much_ends_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let spill = folder.path().join("spilled");
    let config = Config {
        query_memory_bytes: 16 << 20,
        spill_bytes: 4 << 20,
        spill_folder: spill.display().to_string(),
        ..config(&folder)
    };
    let engine = Engine::open(config).await.unwrap();
    let sort = "select value, concat('a text that is long enough to fill it', cast(value % 7919 as varchar)) as m \
                from generate_series(1, 3000000) order by 2 desc, 1";
    let asked = engine.reader_as(&of("acme")).sql(sort, &Params::new()).await;
    let error = match asked {
        Ok(answer) => answer.batches.try_collect::<Vec<_>>().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
    assert!(error.message().contains("`spill_bytes`"), "{error:?}");
    assert!(spill.is_dir(), "it spilled to the folder of the setting");
    engine.append(vec![record("a")]).await.unwrap();
    let few = "select count(*) from (select value from generate_series(1, 1000) order by 1 desc)";
    assert_eq!(number(&engine.reader_as(&of("zen")), few).await, 1000);
    engine.close().await.unwrap();
    assert_eq!(std::fs::read_dir(&spill).unwrap().count(), 0, "nothing stays");
}

/// Statements that read bodies, with the rows that each answers over so many records with so many
/// different bodies.
fn statements(records: usize, bodies: usize) -> [(&'static str, usize); 6] {
    [
        (
            "select request['body'] as b, count(*) as n from logs group by 1 order by n desc, b limit 5",
            bodies.min(5),
        ),
        ("select id, request['body'] from logs order by request['body'] limit 100000", records),
        (
            "select id, lag(request['body']) over (partition by ai_model order by created_at, id) from logs",
            records,
        ),
        (
            "select a.id, a.request['body'], b.request['body'] from logs a join logs b on a.id = b.id",
            records,
        ),
        ("select count(*) from logs a join logs b on a.trace_id = b.trace_id and a.id <> b.id", 1),
        ("select * from logs order by created_at, id desc", records),
    ]
}

/// A body that packs badly, as texts of models do.
fn text(seed: usize, bytes: usize) -> String {
    let mut state = seed as u64 + 1;
    let words = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:012x} ", state >> 16)
    });
    words.take(bytes / 13).collect()
}

/// Runs every statement, all at once, beside an export of everything.
async fn check_small(engine: &Engine, records: usize, bodies: usize, bytes: usize) {
    let access = of("acme");
    let reader = engine.reader_as(&access);
    let rows = async |statement: &str| {
        let answer = reader.sql(statement, &Params::new()).await.unwrap();
        let batches: Vec<_> = answer.batches.try_collect().await.unwrap_or_else(|error| {
            panic!("{statement}: {error:?}");
        });
        batches.iter().map(|batch| batch.num_rows()).sum::<usize>()
    };
    let all = futures::future::join_all(
        statements(records, bodies).map(|(statement, _)| rows(statement)),
    );
    let (found, (lines, written)) = futures::future::join(all, exported(engine, &access)).await;
    for ((statement, expected), found) in statements(records, bodies).into_iter().zip(found) {
        assert_eq!(found, expected, "{statement}");
    }
    assert_eq!(lines, records);
    assert!(written > bytes, "{written} bytes of {bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_exports_of_more_than_their_memory_pass() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        query_memory_bytes: 32 << 20,
        query_concurrency: 1,
        export_memory_bytes: 8 << 20,
        maintenance_memory_bytes: 16 << 20,
        max_record_bytes: 1 << 20,
        threads: 2,
        ..config(&folder)
    };
    let engine = Engine::open(config).await.unwrap();
    let (mut records, mut bytes) = (0, 0);
    for file in 0..6 {
        let rows = (0..600).map(|place| {
            let body = text(file * 600 + place, if place % 100 == 99 { 200_000 } else { 4_000 });
            bytes += body.len();
            records += 1;
            Record {
                ai_model: Some(format!("model-{}", place % 3)),
                trace_id: Some(format!("{file}-{}", place / 4)),
                request: Message { body: Some(format!("\"{body}\"")), headers: None },
                ..row(&format!("{file}-{place:03}"), "acme", 0)
            }
        });
        engine.append(rows.collect()).await.unwrap();
        // The last rows stay in memory.
        if file < 5 {
            engine.flush().await.unwrap();
        }
    }
    check_small(&engine, records, records, bytes).await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_giant_body_passes_through_statements_and_exports_of_little_memory() {
    const BYTES: usize = 20 << 20;
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        query_memory_bytes: 256 << 20,
        query_concurrency: 1,
        export_memory_bytes: 128 << 20,
        max_record_bytes: BYTES as u64 + (1 << 20),
        threads: 2,
        ..config(&folder)
    };
    let engine = Engine::open(config).await.unwrap();
    for file in 0..3 {
        let small = (0..200).map(|place| row(&format!("{file}-{place:03}"), "acme", 5_000));
        let giant = Record {
            request: Message { body: Some(format!("\"{}\"", text(file, BYTES))), headers: None },
            ..row(&format!("{file}-giant"), "acme", 0)
        };
        engine.append(small.chain((file == 1).then_some(giant)).collect()).await.unwrap();
        if file < 2 {
            engine.flush().await.unwrap();
        }
    }
    check_small(&engine, 601, 2, BYTES).await;
    engine.close().await.unwrap();
}

/// A waiting statement that had its view already would keep rows in memory after their flush.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waited_reads_what_was_acknowledged_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { query_concurrency: 1, ..config(&folder) };
    let engine = Engine::open(config).await.unwrap();
    engine.append((0..3).map(|place| row(&place.to_string(), "acme", 0)).collect()).await.unwrap();
    let reader = engine.reader_as(&of("acme"));
    let none = Params::new();
    // An answer that nobody reads keeps its place.
    let unread = "select a.id from logs a, logs b, range(0, 100000)";
    let running = reader.sql(unread, &none).await.unwrap();
    let page = &logs::Ask { page_size: 10, ..logs::Ask::default() };
    let count = async {
        let answer = reader.sql("select id from logs", &none).await.unwrap();
        answer
            .batches
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum()
    };
    let list = async { reader.logs(page).await.unwrap().records.len() };
    let mut waiting = pin!(futures::future::join(count, list));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    engine.append(vec![row("later", "acme", 0)]).await.unwrap();
    drop(running);
    assert_eq!(waiting.await, (4, 4));
    engine.close().await.unwrap();
}

#[tokio::test]
async fn shares_that_do_not_fit_stop_the_open() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { memory: 128 << 20, query_memory_bytes: 1 << 30, ..config(&folder) };
    let error = Engine::open(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.message().contains("`query_memory_bytes`") && error.message().contains("128 MiB"),
        "{error}"
    );
}
