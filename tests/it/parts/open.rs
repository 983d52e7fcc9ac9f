//! Records that a later part may complete, and those that it may not: the data files say so, also
//! to a restarted engine and to other nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatelog::engine::{Dependencies, Document, ErasureSelector, RecordPart};
use gatelog::store::Store;
use gatelog::{Config, Engine, Job, Record};
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use url::Url;

use super::late::{amended, hasty};
use super::{content, figures, part_kind, rows};
use crate::engine::{config, reopened};
use crate::files::entries;

const SAID: &str = "select id, metadata['late'], request.body is not null from logs order by id";
/// The records when each was sent a late part: only `half` took it.
const COMPLETED: [&str; 3] = ["half yes true", "pair  true", "whole  false"];

/// Returns a part with content that no other part has.
fn late(id: &str) -> (RecordPart, Record) {
    let (kind, record) = content(id);
    (kind, Record { metadata: vec![("late".to_owned(), "yes".to_owned())], ..record })
}

/// Stores three records: `half` without its content, `pair` when both of its parts were there, and
/// `whole` as one.
async fn stored(folder: &TempDir) -> Engine {
    let engine = reopened(config(folder)).await;
    for part in [figures("pair"), content("pair"), figures("half")] {
        part_kind(&engine, part).await;
    }
    engine.append(vec![figures("whole").1]).await.unwrap();
    engine.flush().await.unwrap();
    assert_eq!((engine.status().file_rows, engine.status().waiting_halves), (2, 1));
    engine.close().await.unwrap();
    let engine = hasty(folder).await;
    engine.flush().await.unwrap();
    assert_eq!((engine.status().file_rows, engine.status().waiting_halves), (3, 0));
    engine
}

/// Sends a late part to each record; returns the ids of those that took it.
async fn took(engine: &Engine, part: impl Fn(&str) -> (RecordPart, Record)) -> Vec<&'static str> {
    let mut ids = Vec::new();
    for id in ["half", "pair", "whole"] {
        if part_kind(engine, part(id)).await == 1 {
            ids.push(id);
        }
    }
    amended(engine).await;
    ids
}

/// The data files of records.
fn data_files(folder: &TempDir) -> Vec<PathBuf> {
    let logs = folder.path().join("data/logs");
    let is_data = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "parquet")
            && !path.components().any(|part| part.as_os_str() == "_delta_log")
    };
    entries(&logs).into_iter().filter(is_data).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Upkeep {
    None,
    Seal,
    Erase,
}

/// Has every file rewritten in a way.
async fn keep_up(engine: &Engine, folder: &TempDir, upkeep: Upkeep) {
    match upkeep {
        Upkeep::None => {}
        Upkeep::Seal => {
            let done = engine.maintain(Job::Compact, false).await.unwrap();
            assert_eq!((done.files_before, done.files_after), (2, 1));
            engine.maintain(Job::Checkpoint, false).await.unwrap();
            let is_sealed =
                |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("sealed-");
            assert!(data_files(folder).iter().any(is_sealed));
        }
        Upkeep::Erase => {
            engine.append(vec![figures("gone").1]).await.unwrap();
            engine.flush().await.unwrap();
            engine.maintain(Job::Compact, false).await.unwrap();
            let ids = ErasureSelector::Ids(vec!["gone".to_owned()]);
            let erase = |document: &mut Document| {
                document.erase("e", "default", ids.clone(), "k", engine.now()).map(|_| ())
            };
            engine.catalog().change(erase).await.unwrap();
            let done = engine.maintain(Job::Expire, false).await.unwrap();
            assert_eq!((done.lines.len(), engine.status().file_rows), (1, 3), "{:?}", done.lines);
        }
    }
}

#[tokio::test]
async fn a_late_part_completes_only_what_was_stored_incomplete_whatever_came_between() {
    for upkeep in [Upkeep::None, Upkeep::Seal, Upkeep::Erase] {
        for restart in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut engine = stored(&folder).await;
            keep_up(&engine, &folder, upkeep).await;
            if restart {
                engine.close().await.unwrap();
                engine = hasty(&folder).await;
            }
            assert_eq!(took(&engine, late).await, ["half"], "{upkeep:?} {restart}");
            assert_eq!(engine.status().duplicate_total, 2, "{upkeep:?} {restart}");
            assert_eq!(rows(&engine.reader(), SAID).await, COMPLETED, "{upkeep:?} {restart}");
            engine.close().await.unwrap();
            // A record that took a part may take another, and those beside it still none.
            let engine = hasty(&folder).await;
            let again = |id: &str| (RecordPart::Fragment, late(id).1);
            assert_eq!(took(&engine, again).await, ["half"], "{upkeep:?} {restart}");
            assert_eq!(rows(&engine.reader(), SAID).await, COMPLETED, "{upkeep:?} {restart}");
            engine.close().await.unwrap();
        }
    }
}

/// Writes a file as a program does that knows of no marks, and sets its size in the table's log.
fn strip_marks(path: &Path, log: &Path) {
    let bytes = bytes::Bytes::from(fs::read(path).unwrap());
    let before = format!("\"size\":{}", bytes.len());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(reader.schema()), None).unwrap();
    for batch in reader.build().unwrap() {
        writer.write(&batch.unwrap()).unwrap();
    }
    let stripped = writer.into_inner().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let is_entry = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    for entry in entries(log).into_iter().filter(is_entry) {
        let said = fs::read_to_string(&entry).unwrap();
        let lines = said.lines().map(|line| {
            let after = format!("\"size\":{}", stripped.len());
            if line.contains(name) { line.replace(&before, &after) } else { line.to_owned() }
        });
        fs::write(&entry, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    fs::write(path, stripped).unwrap();
}

#[tokio::test]
async fn every_record_of_a_file_without_marks_takes_late_parts_also_when_it_is_merged() {
    for merged in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        stored(&folder).await.close().await.unwrap();
        let log = folder.path().join("data/logs/_delta_log");
        // The file with two rows is the older one.
        let older = data_files(&folder).into_iter().next().unwrap();
        strip_marks(&older, &log);
        let mut engine = hasty(&folder).await;
        if merged {
            engine.maintain(Job::Compact, false).await.unwrap();
            engine.close().await.unwrap();
            engine = hasty(&folder).await;
        }
        assert_eq!(took(&engine, late).await, ["half", "pair", "whole"], "{merged}");
        assert_eq!(
            rows(&engine.reader(), SAID).await,
            ["half yes true", "pair yes true", "whole yes true"],
            "{merged}"
        );
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_part_that_waits_on_one_node_completes_only_what_another_stored_incomplete() {
    let memory = Arc::new(InMemory::new());
    let folder = tempfile::tempdir().unwrap();
    let node = async |name: &str, join_seconds| {
        let url = Url::parse("memory:///state").unwrap();
        let dependencies = Dependencies {
            store: Some(Store::with(Arc::clone(&memory) as _, url).unwrap()),
            log_folder: Some(folder.path().join(name)),
            ..Dependencies::default()
        };
        let settings = Config { join_seconds, refresh_seconds: 1, ..config(&folder) };
        Engine::open_with(settings, dependencies).await.unwrap()
    };
    let storing = node("storing", 0).await;
    let waiting = node("waiting", 600).await;
    storing.append(vec![figures("pair").1, figures("whole").1]).await.unwrap();
    part_kind(&storing, figures("half")).await;
    for id in ["half", "pair", "whole"] {
        assert_eq!(part_kind(&waiting, late(id)).await, 1);
    }
    storing.flush().await.unwrap();
    amended(&waiting).await;
    assert_eq!(
        rows(&waiting.reader(), SAID).await,
        ["half yes true", "pair  false", "whole  false"]
    );
    let further = |id: &str| (RecordPart::Fragment, late(id).1);
    assert_eq!(took(&waiting, further).await, ["half"]);
    storing.close().await.unwrap();
    waiting.close().await.unwrap();
}
