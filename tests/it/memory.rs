//! What happens where memory and disk space are short: big rows, statements that spill, settings
//! that do not fit.

use futures::TryStreamExt;
use gatelog::engine::{Access, Job};
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
        let config =
            Config { export_memory_bytes: export, upkeep_memory_bytes: upkeep, ..config(&folder) };
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
