//! Every place where rows lie: nobody but the user of the process may read it, and after an erasure
//! none holds what was erased.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use gatelog::engine::{Access, Dependencies, ErasureSelector, NewExport};
use gatelog::record::{Feedback, Message};
use gatelog::store::Store;
use gatelog::store::places::{PLACES, Root};
use gatelog::{Config, Engine, Job, Params, Record};
use object_store::ObjectStoreExt;

use super::engine::record;
use super::exports::until;
use super::files::{contents, entries};
use super::seaweedfs;

/// Stands in the body of the record that is erased, and in no other. It has no pattern, so zstd
/// keeps it as it is.
const MARKER: &str = "Zq8vR3xKwP1nT7bYc5Lh";

/// What a bucket waits for before it deletes files.
const GRACE: u64 = 900;

/// How far the clock is ahead, seconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn now() -> DateTime<Utc> {
    Utc::now() + TimeDelta::seconds(AHEAD.load(Ordering::Relaxed))
}

async fn open(config: &Config) -> Engine {
    Engine::open_with(config.clone(), Dependencies { now, ..Dependencies::default() })
        .await
        .unwrap()
}

fn quiet(config: &Config) -> Config {
    let mut config = Config {
        flush_seconds: 3600,
        refresh_seconds: 60,
        vacuum_grace_seconds: GRACE,
        ..config.clone()
    };
    for job in ["compact", "expire", "vacuum", "checkpoint", "clean_log"] {
        config.set(&format!("{job}_schedule"), "never").unwrap();
    }
    config
}

fn marked(id: &str) -> Record {
    let body = Some(format!("{{\"text\":\"{MARKER}\"}}"));
    Record {
        request: Message { body, headers: None },
        organisation_id: Some("acme".into()),
        ..record(id)
    }
}

/// Has an engine keep rows in as many places as there are: files, the log, an export, the cache of
/// a bucket.
async fn fill(engine: &Engine) {
    engine.append(vec![marked("bad"), record("good")]).await.unwrap();
    engine.flush().await.unwrap();
    let text = "select request['body'] from logs where id in ('bad', 'good')";
    let rows: Vec<_> =
        engine.sql(text, &Params::new()).await.unwrap().batches.try_collect().await.unwrap();
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
    let access = Access::operator("test");
    let job = engine
        .create_export(&access, NewExport { id: engine.new_id(), ..NewExport::default() })
        .await
        .unwrap();
    engine.start_export(&access, &job.id).await.unwrap();
    until("the export ends", || {
        engine.export_job(&access, &job.id).unwrap().status.name() == "success"
    })
    .await;
    engine.append(vec![marked("worse"), record("fine")]).await.unwrap();
    let given = Feedback { id: Some("f".into()), value: Some(3.into()), ..Feedback::default() };
    engine.append_feedback_as(&Access::operator("test"), vec![given]).await.unwrap();
}

/// Returns whether bytes hold the marker, also within what zstd packed.
fn holds_marker(bytes: &[u8]) -> bool {
    use std::io::Read;
    let holds = |bytes: &[u8]| memchr::memmem::find(bytes, MARKER.as_bytes()).is_some();
    let frames = memchr::memmem::find_iter(bytes, &[0x28, 0xb5, 0x2f, 0xfd]);
    let unpacked = |at: usize| {
        let mut text = Vec::new();
        // What is no frame, or cut off, ends in an error; what came before counts.
        let _ = zstd::Decoder::with_buffer(&bytes[at..])
            .map(|frame| frame.single_frame().read_to_end(&mut text));
        text
    };
    holds(bytes) || frames.into_iter().any(|at| holds(&unpacked(at)))
}

fn marked_files(folder: &Path) -> Vec<PathBuf> {
    let marked = contents(folder).into_iter().filter(|(_, bytes)| holds_marker(bytes));
    marked.map(|(path, _)| path).collect()
}

async fn erase(engine: &Engine) {
    engine
        .erase("acme", ErasureSelector::Ids(vec!["bad".into(), "worse".into()]), "test")
        .await
        .unwrap();
    // The second run takes over the version of the first: what a node remembers it does not delete.
    for _ in 0..2 {
        engine.maintain(Job::Expire, false).await.unwrap();
    }
    AHEAD.store(2 * GRACE.cast_signed(), Ordering::Relaxed);
    engine.maintain(Job::Vacuum, false).await.unwrap();
}

fn assert_private(folder: &Path) {
    for path in entries(folder) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{} has mode {mode:o}", path.display());
    }
}

#[tokio::test]
async fn all_that_a_folder_gets_is_private_and_an_erasure_leaves_nothing_of_a_record() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("deep/data");
    let config = quiet(&Config { data: data.display().to_string(), ..Config::default() });
    let engine = open(&config).await;
    fill(&engine).await;
    assert_private(&scratch.path().join("deep"));
    let marked = marked_files(&data);
    for place in ["logs", "exports", "wal"] {
        assert!(
            marked.iter().any(|path| path.starts_with(data.join(place))),
            "{place} is not looked into: {marked:?}"
        );
    }
    erase(&engine).await;
    assert_eq!(marked_files(&data), Vec::<PathBuf>::new());
    assert_private(&scratch.path().join("deep"));
    // Whatever is made there is in the list of places.
    let known: BTreeSet<&str> =
        PLACES.iter().filter(|place| place.root == Root::Store).map(|place| place.name).collect();
    for entry in std::fs::read_dir(&data).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(name.as_str()), "`{name}` is not in `store::places::PLACES`");
    }
    engine.close().await.unwrap();
}

#[tokio::test]
async fn the_log_and_the_cache_of_a_bucket_are_private_and_an_erasure_leaves_nothing_of_a_record() {
    let node = tempfile::tempdir().unwrap();
    let config = quiet(&seaweedfs::shared().config(node.path()).await);
    let engine = open(&config).await;
    fill(&engine).await;
    let log = engine.store().wal_folder().unwrap();
    assert_private(&log);
    let marked = marked_files(&log);
    let is_cached = |path: &PathBuf| path.starts_with(log.join("cache"));
    assert!(marked.iter().any(is_cached) && !marked.iter().all(is_cached), "{marked:?}");
    // A node that was killed leaves its cache to the next one.
    let kept = scratch_copy(&log.join("cache"));
    erase(&engine).await;
    assert_eq!(marked_files(&log), Vec::<PathBuf>::new());
    assert_private(&log);
    let store = Store::open(&config, false).unwrap();
    let objects: Vec<_> = store.object_store().list(None).try_collect().await.unwrap();
    for object in objects {
        let bytes =
            store.object_store().get(&object.location).await.unwrap().bytes().await.unwrap();
        assert!(!holds_marker(&bytes), "{}", object.location);
    }
    engine.close().await.unwrap();
    for path in entries(kept.path()).iter().filter(|path| path.is_file()) {
        let target = log.join("cache").join(path.strip_prefix(kept.path()).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    }
    assert_ne!(marked_files(&log), Vec::<PathBuf>::new());
    let engine = open(&config).await;
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(marked_files(&log), Vec::<PathBuf>::new());
    engine.close().await.unwrap();
    let known: Vec<&str> =
        PLACES.iter().filter(|place| place.root == Root::Log).map(|place| place.name).collect();
    for entry in std::fs::read_dir(&log).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_known =
            |known: &&str| known.split(", ").any(|known| known == name || is_pattern(known, &name));
        assert!(known.iter().any(is_known), "`{name}` is not in `store::places::PLACES`");
    }
}

fn is_pattern(known: &str, name: &str) -> bool {
    known.strip_prefix('*').is_some_and(|end| name.ends_with(end))
}

fn scratch_copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for path in entries(folder).iter().filter(|path| path.is_file()) {
        let target = copy.path().join(path.strip_prefix(folder).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    }
    copy
}
