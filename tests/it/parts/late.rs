//! Halves that come when their record is stored already, and what the log holds of halves that came
//! to nothing.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Duration, Utc};
use gatelog::engine::{Dependencies, Document, ErasureSelector, Organisation, RecordPart};
use gatelog::record::Message;
use gatelog::{Config, Engine, Job, Reader, Record};

use super::{at, content, figures, operator, part_kind, rows};
use crate::engine::{config, ids, reopened};
use crate::files::containing;

const BOTH: &str = "select id, total_units, request.body from logs order by id";

/// Waits until no late part is left, flushing as the engine itself would, only sooner. Looks of 20
/// ms after which something never happens: a minute, since other tests run beside these.
const TRIES: u32 = 3_000;

pub(super) async fn amended(engine: &Engine) {
    for _ in 0..TRIES {
        engine.flush().await.unwrap();
        if engine.status().waiting_halves == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("late parts were not added: {:?}", engine.status());
}

/// Waits until no file of a folder contains a text: the log is cut in the background.
async fn until_gone(folder: &Path, text: &[u8]) {
    for _ in 0..TRIES {
        if containing(folder, text).is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it stays in {:?}", containing(folder, text));
}

/// An engine whose halves wait for nothing.
pub(super) async fn hasty(folder: &tempfile::TempDir) -> Engine {
    reopened(Config { join_seconds: 0, ..config(folder) }).await
}

#[tokio::test]
async fn late_part_completes_the_stored_record_whichever_is_late_also_across_a_restart() {
    for late_is_content in [false, true] {
        for restart in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let engine = hasty(&folder).await;
            let (first, second) = if late_is_content {
                (figures("a"), content("a"))
            } else {
                (content("a"), figures("a"))
            };
            for one in
                [first.clone(), (first.0, Record { id: Some("b".to_owned()), ..first.1.clone() })]
            {
                part_kind(&engine, one).await;
            }
            engine.flush().await.unwrap();
            assert_eq!(
                (engine.status().file_rows, engine.status().waiting_halves),
                (2, 0),
                "stored alone"
            );
            assert_eq!(part_kind(&engine, second.clone()).await, 1, "late, and taken");
            assert_eq!(part_kind(&engine, second.clone()).await, 0, "once");
            let beside = Reader::open(&config(&folder)).await.unwrap();
            assert_eq!(
                ids(&beside).await,
                ["a", "b"],
                "a late part is no record of its own beside the engine"
            );
            let engine = if restart {
                drop(engine);
                hasty(&folder).await
            } else {
                engine
            };
            assert_eq!(engine.status().waiting_halves, 1);
            amended(&engine).await;
            let whole = r#"a 18 {"model":"gpt-4o"}"#;
            let alone = if late_is_content { "b 18 " } else { r#"b  {"model":"gpt-4o"}"# };
            assert_eq!(
                rows(&engine.reader(), BOTH).await,
                [whole, alone],
                "{late_is_content} {restart}"
            );
            assert_eq!(engine.usage().list(None)[0].records, 2, "it counts once");
            // Whatever comes again changes nothing.
            for again in [first, second] {
                part_kind(&engine, again).await;
            }
            amended(&engine).await;
            engine.close().await.unwrap();
            let engine = hasty(&folder).await;
            assert_eq!(rows(&engine.reader(), BOTH).await, [whole, alone]);
            engine.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn late_events_join_their_span_and_stay_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let engine = hasty(&folder).await;
    let fragment = |body: &str| {
        let request = Message { body: Some(body.to_owned()), headers: None };
        (RecordPart::Fragment, Record { request, ..figures("a").1 })
    };
    part_kind(&engine, fragment(r#"{"messages":[1]}"#)).await;
    engine.flush().await.unwrap();
    part_kind(&engine, fragment(r#"{"messages":[2]}"#)).await;
    part_kind(&engine, fragment(r#"{"messages":[3]}"#)).await;
    amended(&engine).await;
    assert_eq!(rows(&engine.reader(), BOTH).await, [r#"a 18 {"messages":[1,2,3]}"#]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn late_figures_that_say_not_tracked_take_the_content_out_of_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let engine =
        Engine::open(Config { join_seconds: 0, vacuum_grace_seconds: 0, ..config(&folder) })
            .await
            .unwrap();
    let (kind, mut said) = content("a");
    said.request.body = Some("\"planted-text\"".to_owned());
    part_kind(&engine, (kind, said.clone())).await;
    engine.flush().await.unwrap();
    let (figured, untracked) = figures("a");
    part_kind(&engine, (figured, Record { do_not_track: Some(true), ..untracked })).await;
    amended(&engine).await;
    let query = "select total_units, do_not_track, request.body is null from logs";
    assert_eq!(rows(&engine.reader(), query).await, ["18 true true"]);
    // Once that is known, what was said does not come back: not to the record, and not to the log.
    said.request.body = Some("\"planted-again\"".to_owned());
    part_kind(&engine, (kind, said)).await;
    assert_eq!(containing(folder.path(), b"planted-again"), [""; 0]);
    amended(&engine).await;
    assert_eq!(rows(&engine.reader(), query).await, ["18 true true"]);
    engine.close().await.unwrap();
}

static CLOCK: AtomicI64 = AtomicI64::new(0);

fn now() -> DateTime<Utc> {
    at("2026-11-10T12:00:00Z").unwrap() + Duration::seconds(CLOCK.load(Ordering::SeqCst))
}

#[tokio::test]
async fn content_that_came_before_its_call_was_said_not_to_be_tracked_leaves_the_log_within_seconds()
 {
    // Pieces wait on and are carried to the new log.
    for kinds in [[RecordPart::Content, RecordPart::Figures], [RecordPart::Fragment; 2]] {
        CLOCK.store(0, Ordering::SeqCst);
        let folder = tempfile::tempdir().unwrap();
        let parts = Dependencies { now, ..Dependencies::default() };
        let engine = Engine::open_with(Config { flush_seconds: 86_400, ..config(&folder) }, parts)
            .await
            .unwrap();
        let (_, mut said) = content("a");
        said.request.body = Some("\"planted-text\"".to_owned());
        part_kind(&engine, (kinds[0], said)).await;
        assert_eq!(
            containing(folder.path(), b"planted-text").len(),
            1,
            "it must be durable before it is known"
        );
        let (_, untracked) = figures("a");
        part_kind(&engine, (kinds[1], Record { do_not_track: Some(true), ..untracked })).await;
        CLOCK.store(5, Ordering::SeqCst);
        until_gone(folder.path(), b"planted-text").await;
        assert_eq!(rows(&engine.reader(), "select id, do_not_track from logs").await, ["a true"]);
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_fragment_that_says_the_same_at_another_time_is_another_fragment() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let yes = |seconds| {
        let (_, mut said) = content("a");
        said.created_at = said.created_at.map(|at| at + Duration::seconds(seconds));
        said.request.body = Some(r#"{"messages":["yes"]}"#.to_owned());
        (RecordPart::Fragment, said)
    };
    let said = "select request.body from logs";
    for (seconds, accepted) in [(1, 1), (3, 1), (1, 0), (3, 0)] {
        assert_eq!(part_kind(&engine, yes(seconds)).await, accepted, "{seconds}");
    }
    assert_eq!(rows(&engine.reader(), said).await, [r#"{"messages":["yes","yes"]}"#]);
    drop(engine);
    let engine = reopened(config(&folder)).await;
    for (seconds, accepted) in [(1, 0), (3, 0), (5, 1)] {
        assert_eq!(part_kind(&engine, yes(seconds)).await, accepted, "{seconds}");
    }
    assert_eq!(rows(&engine.reader(), said).await, [r#"{"messages":["yes","yes","yes"]}"#]);
    engine.close().await.unwrap();
}

/// Plan `developer` stores 10,000 records a month.
const LEFT_IN_PLAN: u64 = 3;

async fn planned(folder: &tempfile::TempDir) -> Engine {
    let engine = reopened(Config { flush_bytes: 1 << 20, ..config(folder) }).await;
    if engine.status().file_rows == 0 {
        let new = Organisation::new("developer", engine.now());
        let create = |document: &mut Document| {
            document.create_organisation("acme", new.clone(), 0).map(|_| ())
        };
        engine.catalog().change(create).await.unwrap();
        let records =
            (LEFT_IN_PLAN..10_000).map(|number| of_acme(figures(&format!("whole-{number}"))).1);
        engine.append(records.collect()).await.unwrap();
        engine.flush().await.unwrap();
    }
    engine
}

async fn of_parts(reader: &Reader) -> u64 {
    rows(reader, "select count(*) from logs where request.body is not null").await[0]
        .parse()
        .unwrap()
}

fn of_acme((part_kind, record): (RecordPart, Record)) -> (RecordPart, Record) {
    (part_kind, Record { organisation_id: Some("acme".to_owned()), created_at: None, ..record })
}

#[tokio::test]
async fn parts_over_a_quota_are_not_stored_by_a_replay_and_do_not_fill_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let engine = planned(&folder).await;
    for number in 0..5 {
        let id = number.to_string();
        part_kind(&engine, of_acme(figures(&id))).await;
        part_kind(&engine, of_acme(content(&id))).await;
    }
    assert_eq!(
        (of_parts(&engine.reader()).await, engine.status().over_quota_total),
        (LEFT_IN_PLAN, 2)
    );
    // As a kill leaves it.
    drop(engine);
    let engine = planned(&folder).await;
    assert_eq!(
        (of_parts(&engine.reader()).await, engine.status().over_quota_total),
        (LEFT_IN_PLAN, 2)
    );
    engine.flush().await.unwrap();
    let body = serde_json::to_string(&"x".repeat(200_000)).unwrap();
    for number in 10..60 {
        let id = number.to_string();
        let (kind, mut said) = of_acme(content(&id));
        said.request.body = Some(format!("[{body},{number}]"));
        part_kind(&engine, (kind, said)).await;
        part_kind(&engine, of_acme(figures(&id))).await;
    }
    for _ in 0..TRIES {
        if engine.status().wal_bytes < 3 << 20 {
            assert_eq!(of_parts(&engine.reader()).await, LEFT_IN_PLAN);
            engine.close().await.unwrap();
            assert_eq!(
                of_parts(&Reader::open(&config(&folder)).await.unwrap()).await,
                LEFT_IN_PLAN
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} bytes of a log that stores nothing", engine.status().wal_bytes);
}

#[tokio::test]
async fn whole_record_takes_the_place_of_its_waiting_part_also_where_no_ids_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config { dedupe_hours: 0, ..config(&folder) }).await.unwrap();
    part_kind(&engine, content("a")).await;
    engine.append(vec![figures("a").1]).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a"]);
    assert_eq!(engine.status().waiting_halves, 0);
    engine.close().await.unwrap();
}

/// An id is a workspace's own, and those of records of no workspace are apart from all: nobody adds
/// to, takes away from or hides what another owner sent.
#[tokio::test]
async fn one_id_in_different_workspaces_is_different_records_whichever_came_how() {
    let of = |workspace: Option<&str>, mut record: Record, word: &str| {
        record.workspace_slug = workspace.map(str::to_owned);
        record.request.body = Some(format!("{{\"said\":\"{word}\"}}"));
        record
    };
    let query = "select coalesce(workspace_slug, '-'), request['body'], do_not_track from logs order by 1, 2";
    // What comes first, what comes from the others, and what is flushed or replayed between.
    for first in
        [None, Some(RecordPart::Figures), Some(RecordPart::Content), Some(RecordPart::Fragment)]
    {
        for second in
            [None, Some(RecordPart::Figures), Some(RecordPart::Content), Some(RecordPart::Fragment)]
        {
            let folder = tempfile::tempdir().unwrap();
            let mut engine = hasty(&folder).await;
            let send = async |engine: &Engine, part_kind: Option<RecordPart>, record: Record| {
                match part_kind {
                    None => engine.append(vec![record]).await.unwrap(),
                    Some(part_kind) => engine
                        .append_parts_as(&operator(), vec![(part_kind, record)])
                        .await
                        .unwrap(),
                }
            };
            send(&engine, first, of(None, figures("a").1, "none")).await;
            engine.flush().await.unwrap();
            engine.close().await.unwrap();
            engine = hasty(&folder).await;
            for owner in ["one", "two"] {
                let taken = send(&engine, second, of(Some(owner), figures("a").1, owner)).await;
                assert_eq!((taken.accepted, taken.duplicate), (1, 0), "{first:?} {second:?}");
                let untracked =
                    Record { do_not_track: Some(true), ..of(Some(owner), figures("a").1, owner) };
                send(&engine, Some(RecordPart::Figures), untracked).await;
            }
            amended(&engine).await;
            let seen = rows(&engine.reader(), query).await;
            assert_eq!(seen[0], "- {\"said\":\"none\"} ", "{first:?} {second:?}: {seen:?}");
            assert_eq!(seen.len(), 3, "{first:?} {second:?}: {seen:?}");
            // Who names no workspace is shown the record of none, though others are newer.
            for (asked, shown) in [
                (None, None),
                (Some(""), None),
                (Some("one"), Some("one")),
                (Some("two"), Some("two")),
            ] {
                let record = engine.reader().log("a", None, asked).await.unwrap();
                assert_eq!(record.workspace_slug.as_deref(), shown, "{asked:?}");
            }
            engine.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn fragments_beyond_those_that_are_put_together_are_late_and_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let fragment = |number: usize| {
        let request =
            Message { body: Some(format!(r#"{{"messages":[{number}]}}"#)), headers: None };
        (RecordPart::Fragment, Record { request, ..figures("a").1 })
    };
    for number in 0..258 {
        assert_eq!(part_kind(&engine, fragment(number)).await, 1, "{number}");
    }
    drop(engine);
    let engine = reopened(config(&folder)).await;
    assert_eq!(engine.status().waiting_halves, 2);
    amended(&engine).await;
    let all = (0..258).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(rows(&engine.reader(), BOTH).await, [format!(r#"a 18 {{"messages":[{all}]}}"#)]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn another_workspace_says_nothing_of_a_stored_record() {
    let folder = tempfile::tempdir().unwrap();
    let engine = hasty(&folder).await;
    let of = |workspace: &str, (part_kind, record): (RecordPart, Record)| {
        (part_kind, Record { workspace_slug: Some(workspace.to_owned()), ..record })
    };
    part_kind(&engine, of("one", figures("a"))).await;
    engine.flush().await.unwrap();
    let (kind, hostile) = of("two", content("a"));
    part_kind(&engine, (kind, Record { do_not_track: Some(true), ..hostile })).await;
    amended(&engine).await;
    assert_eq!(part_kind(&engine, of("one", content("a"))).await, 1);
    amended(&engine).await;
    let own = "select id, total_units, request.body from logs where workspace_slug = 'one'";
    assert_eq!(rows(&engine.reader(), own).await, [r#"a 18 {"model":"gpt-4o"}"#]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn erased_part_leaves_the_log_too() {
    for restart in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(config(&folder)).await.unwrap();
        let (kind, mut said) = content("a");
        said.request.body = Some("\"planted-text\"".to_owned());
        part_kind(&engine, (kind, said)).await;
        engine.erase("default", ErasureSelector::Ids(vec!["a".to_owned()]), "test").await.unwrap();
        let engine = if restart {
            drop(engine);
            reopened(config(&folder)).await
        } else {
            engine
        };
        engine.maintain(Job::Expire, false).await.unwrap();
        engine.flush().await.unwrap();
        until_gone(folder.path(), b"planted-text").await;
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn late_part_that_says_whose_the_record_is_takes_it_along_when_that_user_is_erased() {
    for late_first in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let engine = hasty(&folder).await;
        for id in ["a", "b"] {
            part_kind(&engine, content(id)).await;
        }
        engine.flush().await.unwrap();
        let erase = async || {
            drop(
                engine
                    .erase("default", ErasureSelector::User("ann".to_owned()), "test")
                    .await
                    .unwrap(),
            )
        };
        if !late_first {
            erase().await;
        }
        part_kind(&engine, figures("a")).await;
        if late_first {
            erase().await;
        }
        amended(&engine).await;
        assert_eq!(ids(&engine.reader()).await, ["b"], "{late_first}");
        // The erasure starts `expire`, which takes the record out of its file.
        for _ in 0..TRIES {
            if engine.status().file_rows == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(engine.status().file_rows, 1, "not hidden, but gone");
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn late_content_leaves_the_log_when_a_later_part_says_not_tracked() {
    let folder = tempfile::tempdir().unwrap();
    let engine = hasty(&folder).await;
    part_kind(&engine, figures("a")).await;
    engine.flush().await.unwrap();
    let (kind, mut said) = content("a");
    said.request.body = Some("\"planted-text\"".to_owned());
    part_kind(&engine, (kind, said)).await;
    let (kind, untracked) = figures("a");
    part_kind(&engine, (kind, Record { do_not_track: Some(true), ..untracked })).await;
    engine.flush().await.unwrap();
    let log = folder.path().join("data/wal");
    until_gone(&log, b"planted-text").await;
    amended(&engine).await;
    assert_eq!(
        rows(&engine.reader(), "select do_not_track, request.body from logs").await,
        ["true "]
    );
    engine.close().await.unwrap();
}

#[tokio::test]
async fn two_records_of_one_id_in_one_file_both_stay() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Config { join_seconds: 0, dedupe_ids: 4, ..config(&folder) };
    let engine = Engine::open(settings).await.unwrap();
    engine
        .append(vec![Record { ai_model: Some("first".to_owned()), ..figures("a").1 }])
        .await
        .unwrap();
    for number in 0..50 {
        engine.append(vec![figures(&format!("other-{number}")).1]).await.unwrap();
    }
    part_kind(&engine, content("a")).await;
    engine.flush().await.unwrap();
    part_kind(&engine, figures("a")).await;
    amended(&engine).await;
    let query =
        "select ai_model, total_units, request.body is null from logs where id = 'a' order by 1";
    assert_eq!(rows(&engine.reader(), query).await, ["first 18 true", " 18 false"]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn parts_that_came_too_much_can_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let engine = planned(&folder).await;
    let both = |id: &str| [of_acme(figures(id)), of_acme(content(id))];
    for id in ["0", "1", "2", "3"] {
        for one in both(id) {
            part_kind(&engine, one).await;
        }
    }
    assert_eq!(
        (of_parts(&engine.reader()).await, engine.status().over_quota_total),
        (LEFT_IN_PLAN, 1)
    );
    let enlarge =
        |document: &mut Document| document.set_plan("acme", "production", None, engine.now());
    engine.catalog().change(enlarge).await.unwrap();
    for one in both("3") {
        assert_eq!(part_kind(&engine, one).await, 1);
    }
    assert_eq!(of_parts(&engine.reader()).await, LEFT_IN_PLAN + 1);
    engine.close().await.unwrap();
}
