//! Files that are not as they were written: nothing is answered from them in silence, and `doctor`
//! names what is wrong.

use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use gatelog::engine::{Access, Finding, Reader, RecordPart, Severity, doctor};
use gatelog::{Config, Engine, ErrorKind, Params};

use super::engine::{ids, record};

fn quiet(data: &Path) -> Config {
    let mut config = Config {
        data: data.display().to_string(),
        flush_seconds: 3600,
        refresh_seconds: 60,
        ..Config::default()
    };
    for job in ["compact", "expire", "vacuum", "checkpoint", "clean_log"] {
        config.set(&format!("{job}_schedule"), "never").unwrap();
    }
    config
}

pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path, extension)),
            false if path.extension().is_some_and(|is| is == extension) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

async fn errors(config: &Config) -> Vec<String> {
    let findings: Vec<Finding> = doctor(config, &|_, _, _| ()).await.unwrap();
    findings
        .into_iter()
        .filter(|found| found.severity == Severity::Error)
        .map(|found| found.what)
        .collect()
}

#[tokio::test]
async fn a_flipped_byte_of_a_page_fails_the_query_that_reads_it_and_is_named_by_doctor() {
    let data = tempfile::tempdir().unwrap();
    let config = quiet(data.path());
    let engine = Engine::open(config.clone()).await.unwrap();
    let costly = |number: u32| gatelog::Record {
        cost: Some(f64::from(number) / 3.0),
        ..record(&format!("r-{number}"))
    };
    engine.append((0..50).map(costly).collect()).await.unwrap();
    engine.close().await.unwrap();
    assert_eq!(errors(&config).await, Vec::<String>::new());
    let path = files(&data.path().join("logs"), "parquet").remove(0);
    let bytes = std::fs::read(&path).unwrap();
    let metadata = metadata_of(&bytes);
    let column = metadata
        .row_group(0)
        .columns()
        .iter()
        .find(|column| column.column_path().string() == "cost")
        .unwrap();
    let (start, length) = column.byte_range();
    let mut flipped = bytes.clone();
    flipped[(start + length - 5) as usize] ^= 4;
    std::fs::write(&path, flipped).unwrap();
    let found = errors(&config).await;
    assert!(
        found.len() == 1 && found[0].contains("a page of column `cost` in row group 0 at offset"),
        "{found:?}"
    );
    assert!(found[0].contains(path.file_name().unwrap().to_str().unwrap()), "{found:?}");
    let engine = Engine::open(config).await.unwrap();
    let answer = async |text: &str| {
        let batches =
            engine.sql(text, &Params::new()).await?.batches.try_collect::<Vec<_>>().await?;
        Ok::<_, gatelog::Error>(batches.iter().map(|batch| batch.num_rows()).sum::<usize>())
    };
    assert_eq!(answer("select id from logs").await.unwrap(), 50);
    let error = answer("select sum(cost) from logs").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    engine.close().await.unwrap();
}

/// Flips a bit of each page of a column in all files of records.
fn flip(data: &Path, name: &str) {
    for path in files(&data.join("logs"), "parquet") {
        let mut bytes = std::fs::read(&path).unwrap();
        let metadata = metadata_of(&bytes);
        for group in metadata.row_groups() {
            let column = group
                .columns()
                .iter()
                .find(|column| column.column_path().string() == name)
                .unwrap();
            let (start, length) = column.byte_range();
            bytes[(start + length - 1) as usize] ^= 4;
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

pub(crate) fn metadata_of(bytes: &[u8]) -> parquet::file::metadata::ParquetMetaData {
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize + 8;
    let footer = &bytes[bytes.len() - footer..bytes.len() - 8];
    parquet::file::metadata::ParquetMetaDataReader::decode_metadata(footer).unwrap()
}

#[tokio::test]
async fn an_unknown_id_is_not_looked_for_in_pages_of_files() {
    let data = tempfile::tempdir().unwrap();
    let config = quiet(data.path());
    let engine = Engine::open(config.clone()).await.unwrap();
    let of_litellm = |id: &str, call: &str| gatelog::Record {
        source: Some("litellm".to_owned()),
        internal_trace_id: Some(call.to_owned()),
        ..record(id)
    };
    // One file without calls of LiteLLM, and one of such calls alone.
    engine.append((0..50).map(|number| record(&format!("r-{number}"))).collect()).await.unwrap();
    engine.flush().await.unwrap();
    let calls = (0..50).map(|number| of_litellm(&format!("a-{number}"), &format!("call-{number}")));
    engine.append(calls.collect()).await.unwrap();
    engine.flush().await.unwrap();
    let by_call = engine.reader().log("call-7", None, None).await.unwrap();
    assert_eq!(by_call.id.as_deref(), Some("a-7"));
    // Who reads these pages finds them damaged.
    for column in ["id", "source", "internal_trace_id"] {
        flip(data.path(), column);
    }
    for unknown in ["nobody", "call-99", "0199f2c4-77aa-7000-8000-000000000000"] {
        let error = engine.reader().log(unknown, None, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{unknown}: {error:?}");
    }
    assert_eq!(
        engine.reader().log("call-8", None, None).await.unwrap_err().kind(),
        ErrorKind::Damaged
    );
    engine.close().await.unwrap();
}

/// A data folder whose log has frames of two groups that are in no table.
async fn with_log(data: &Path) -> Config {
    let config = quiet(data);
    let engine = Engine::open(config.clone()).await.unwrap();
    engine.append(vec![record("flushed")]).await.unwrap();
    engine.flush().await.unwrap();
    for id in ["a", "b"] {
        engine.append(vec![record(id)]).await.unwrap();
    }
    // As it is when the process is killed now.
    let left = data.with_file_name("left");
    copy(data, &left);
    engine.close().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
    std::fs::rename(left, data).unwrap();
    config
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target)
        } else {
            let _ = std::fs::copy(path, target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_log_that_was_emptied_or_cut_stops_the_start_and_a_torn_last_write_does_not() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let config = with_log(&data).await;
    let segments = files(&data.join("wal"), "wal");
    let (last, bytes) =
        (segments.last().unwrap(), std::fs::read(segments.last().unwrap()).unwrap());
    std::fs::write(last, &bytes[..bytes.len() - 10]).unwrap();
    let engine = Engine::open(config.clone()).await.unwrap();
    assert_eq!(
        ids(&engine.reader()).await,
        ["a", "flushed"],
        "the last write may have been interrupted"
    );
    engine.close().await.unwrap();
    for length in [None, Some(0), Some(bytes.len() / 3)] {
        std::fs::remove_dir_all(&data).unwrap();
        let config = with_log(&data).await;
        let last = files(&data.join("wal"), "wal").pop().unwrap();
        match length {
            None => std::fs::remove_file(&last).unwrap(),
            Some(length) => {
                std::fs::write(&last, &std::fs::read(&last).unwrap()[..length]).unwrap()
            }
        }
        assert!(!errors(&config).await.is_empty(), "{length:?}");
        let error = Engine::open(config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{length:?}: {error}");
        if length.is_some_and(|length| length > 0) {
            continue;
        }
        assert!(error.message().contains("was cut or emptied"), "{error}");
        // Who knows of the loss goes on without.
        let note = data.join("wal-last");
        assert!(error.message().contains(&note.display().to_string()), "{error}");
        std::fs::remove_dir_all(note).unwrap();
        let engine = Engine::open(config).await.unwrap();
        assert_eq!(ids(&engine.reader()).await, ["flushed"]);
        engine.close().await.unwrap();
    }
}

/// A data folder whose log holds part of a record that waits for the rest, as an orderly end leaves
/// it.
async fn closed_with_part(data: &Path) -> Config {
    let config = Config { join_seconds: 3600, ..quiet(data) };
    let engine = Engine::open(config.clone()).await.unwrap();
    let record_parts = vec![(RecordPart::Figures, record("part"))];
    engine.append_parts_as(&Access::operator("test"), record_parts).await.unwrap();
    engine.close().await.unwrap();
    config
}

/// The error of an open, once the lock of the attempt before is gone.
async fn refusal(config: &Config) -> gatelog::Error {
    for _ in 0..3_000 {
        let refused = Engine::open(config.clone()).await.unwrap_err();
        if refused.kind() != ErrorKind::Busy {
            return refused;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the lock stays");
}

#[tokio::test]
async fn a_byte_flipped_in_the_last_group_that_was_acked_is_told_by_doctor_readers_and_the_start() {
    for is_closed in [false, true] {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let config = if is_closed { closed_with_part(&data).await } else { with_log(&data).await };
        assert_eq!(errors(&config).await, Vec::<String>::new());
        let segment = files(&data.join("wal"), "wal").pop().unwrap();
        let bytes = std::fs::read(&segment).unwrap();
        // All bytes are flipped one by one in the tests of the log itself.
        for place in (1..=10).map(|back| bytes.len() - 37 * back) {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            std::fs::write(&segment, &flipped).unwrap();
            let found = errors(&config).await;
            assert!(
                found.iter().any(|what| what.contains("is damaged at offset")),
                "flip at {place}: {found:?}"
            );
            let refused = Reader::open(&config).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Damaged, "flip at {place}: {refused}");
            let refused = refusal(&config).await;
            assert_eq!(refused.kind(), ErrorKind::Damaged, "flip at {place}: {refused}");
            let note = data.join("wal-last").display().to_string();
            assert!(refused.message().contains(&note), "the remedy is named: {refused}");
            assert_eq!(std::fs::read(&segment).unwrap(), flipped, "nothing is cut");
        }
        std::fs::write(&segment, &bytes).unwrap();
        Engine::open(config).await.unwrap().close().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_cut_within_its_last_group_is_an_error_for_doctor_until_the_next_start() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let config = with_log(&data).await;
    let segment = files(&data.join("wal"), "wal").pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();
    let found = errors(&config).await;
    assert!(found.iter().any(|what| what.contains("were acked and are lost")), "{found:?}");
    let engine = Engine::open(config.clone()).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a", "flushed"]);
    engine.close().await.unwrap();
    assert_eq!(errors(&config).await, Vec::<String>::new());
    // After an orderly end no write was going on.
    let data = scratch.path().join("closed");
    let config = closed_with_part(&data).await;
    let segment = files(&data.join("wal"), "wal").pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 10]).unwrap();
    assert_eq!(Engine::open(config).await.unwrap_err().kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let config = with_log(&data).await;
    std::fs::rename(data.join("wal"), scratch.path().join("moved")).unwrap();
    let found = errors(&config).await;
    assert!(found.iter().any(|what| what.contains("has acked frames up to sequence")), "{found:?}");
    let engine = Engine::open(config.clone()).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["flushed"]);
    engine.close().await.unwrap();
    assert_eq!(errors(&config).await.len(), 1, "it is said until the log is back");
}

#[tokio::test]
async fn a_store_inside_a_store_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    with_log(&data).await;
    for inside in ["logs", "logs/_delta_log", "logs/new/deep", "other"] {
        let error = Engine::open(quiet(&data.join(inside))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains("is inside `"), "{error}");
    }
    assert!(!data.join("other").exists() && !data.join("logs/new").exists());
}

#[tokio::test]
async fn counts_that_are_gone_are_noticed() {
    let data = tempfile::tempdir().unwrap();
    let config = quiet(data.path());
    let engine = Engine::open(config.clone()).await.unwrap();
    engine.append(vec![record("a")]).await.unwrap();
    engine.close().await.unwrap();
    assert_eq!(errors(&config).await, Vec::<String>::new());
    let counts = files(&data.path().join("usage"), "json").remove(0);
    std::fs::remove_file(counts).unwrap();
    let found = errors(&config).await;
    assert!(found.len() == 1 && found[0].contains("are missing"), "{found:?}");
}

#[tokio::test]
async fn a_second_process_is_kept_out_also_when_the_lock_file_was_deleted() {
    let data = tempfile::tempdir().unwrap();
    let config = quiet(data.path());
    let engine = Engine::open(config.clone()).await.unwrap();
    std::fs::remove_file(data.path().join("gatelog.lock")).unwrap();
    assert_eq!(Engine::open(config.clone()).await.unwrap_err().kind(), ErrorKind::Busy);
    engine.append(vec![record("a")]).await.unwrap();
    engine.close().await.unwrap();
    let engine = Engine::open(config).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a"]);
    engine.close().await.unwrap();
}
