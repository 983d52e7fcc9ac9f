//! What is not a whole record: halves that join, and feedback, through restarts, flushes and
//! upkeep.

mod late;
mod open;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use chrono::{DateTime, Duration, Utc};
use futures::TryStreamExt;
use gatelog::engine::{Access, Dependencies, ErasureSelector, Organisation, RecordPart};
use gatelog::record::{Feedback, Message};
use gatelog::{Config, Engine, ErrorKind, Job, Params, Reader, Record};
use tempfile::TempDir;

use crate::engine::{config, ids};
use crate::files::{self, containing};

fn operator() -> Access {
    Access::operator("test")
}

fn at(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).unwrap().to_utc())
}

fn figures(id: &str) -> (RecordPart, Record) {
    let record = Record {
        id: Some(id.to_owned()),
        created_at: at("2026-11-01T10:00:00Z"),
        total_units: Some(18),
        cost: Some(0.01125),
        user_id: Some("ann".to_owned()),
        ..Record::default()
    };
    (RecordPart::Figures, record)
}

fn content(id: &str) -> (RecordPart, Record) {
    let request = Message { body: Some(r#"{"model":"gpt-4o"}"#.to_owned()), headers: None };
    let response = Message { body: Some(r#"{"choices":[]}"#.to_owned()), headers: None };
    let created_at = at("2026-11-01T10:00:00Z");
    (
        RecordPart::Content,
        Record { id: Some(id.to_owned()), created_at, request, response, ..Record::default() },
    )
}

async fn part_kind(engine: &Engine, part_kind: (RecordPart, Record)) -> u64 {
    engine.append_parts_as(&operator(), vec![part_kind]).await.unwrap().accepted
}

/// Rows as text, one a line.
async fn rows(reader: &Reader, query: &str) -> Vec<String> {
    let answer = reader.sql(query, &Params::new()).await.unwrap();
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await.unwrap();
    let mut lines = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &arrow::array::ArrayRef| {
                arrow::util::display::array_value_to_string(column, row).unwrap()
            };
            lines.push(batch.columns().iter().map(cell).collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

const WHOLE: &str = "select id, total_units, request.body, response.body from logs order by id";

#[tokio::test]
async fn parts_are_seen_at_once_and_are_one_record_whichever_comes_first() {
    for first_is_content in [false, true] {
        for flush_between in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let engine = Engine::open(config(&folder)).await.unwrap();
            let (first, second) = if first_is_content {
                (content("a"), figures("a"))
            } else {
                (figures("a"), content("a"))
            };
            assert_eq!(part_kind(&engine, first.clone()).await, 1);
            assert_eq!(ids(&engine.reader()).await, ["a"], "half is seen at once");
            assert_eq!(engine.status().waiting_halves, 1);
            if flush_between {
                // Something else makes the flush commit and the log be trimmed.
                engine
                    .append(vec![Record { id: Some("z".to_owned()), ..figures("z").1 }])
                    .await
                    .unwrap();
                engine.flush().await.unwrap();
                assert_eq!(ids(&engine.reader()).await, ["a", "z"]);
            }
            assert_eq!(
                part_kind(&engine, first.clone()).await,
                0,
                "the same half again is a duplicate"
            );
            assert_eq!(part_kind(&engine, second.clone()).await, 1);
            let whole = rows(&engine.reader(), WHOLE).await;
            assert_eq!(whole[0], r#"a 18 {"model":"gpt-4o"} {"choices":[]}"#);
            assert_eq!(engine.status().waiting_halves, 0);
            for again in [first, second] {
                assert_eq!(
                    part_kind(&engine, again).await,
                    0,
                    "both halves are known after they met"
                );
            }
            engine.close().await.unwrap();
            let engine = Engine::open(config(&folder)).await.unwrap();
            assert_eq!(rows(&engine.reader(), WHOLE).await, whole);
            engine.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn parts_meet_across_a_restart_also_when_the_log_was_trimmed_between() {
    let folder = tempfile::tempdir().unwrap();
    for (place, id) in ["a", "b", "c"].into_iter().enumerate() {
        let engine = Engine::open(config(&folder)).await.unwrap();
        assert_eq!(part_kind(&engine, figures(id)).await, 1);
        for round in 0..place {
            let other = Record { id: Some(format!("{id}{round}")), ..figures("x").1 };
            engine.append(vec![other]).await.unwrap();
            engine.flush().await.unwrap();
        }
        // Beside the engine, too.
        let beside = Reader::open(&config(&folder)).await.unwrap();
        assert!(ids(&beside).await.contains(&id.to_owned()));
        engine.close().await.unwrap();
        let engine = Engine::open(config(&folder)).await.unwrap();
        assert_eq!(engine.status().waiting_halves, 1, "{id}");
        assert_eq!(part_kind(&engine, content(id)).await, 1);
        engine.close().await.unwrap();
        let beside = Reader::open(&config(&folder)).await.unwrap();
        let query = format!("select total_units, request.body from logs where id = '{id}'");
        assert_eq!(rows(&beside, &query).await, [r#"18 {"model":"gpt-4o"}"#]);
    }
}

#[tokio::test]
async fn fragments_gather_until_their_time_also_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let fragment = |(_, record): (RecordPart, Record)| (RecordPart::Fragment, record);
    let engine = Engine::open(config(&folder)).await.unwrap();
    assert_eq!(part_kind(&engine, fragment(content("a"))).await, 1);
    assert_eq!(part_kind(&engine, fragment(content("a"))).await, 0, "a piece that came already");
    engine.append(vec![Record { id: Some("z".to_owned()), ..figures("z").1 }]).await.unwrap();
    engine.flush().await.unwrap();
    engine.close().await.unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    assert_eq!(part_kind(&engine, fragment(figures("a"))).await, 1);
    assert_eq!(engine.status().waiting_halves, 1, "there may be more");
    assert_eq!(rows(&engine.reader(), WHOLE).await[0], r#"a 18 {"model":"gpt-4o"} {"choices":[]}"#);
    engine.close().await.unwrap();
    let beside = Reader::open(&config(&folder)).await.unwrap();
    assert_eq!(rows(&beside, WHOLE).await[0], r#"a 18 {"model":"gpt-4o"} {"choices":[]}"#);
}

#[tokio::test]
async fn a_reader_beside_the_engine_sees_parts_joined_and_alone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    for one in [figures("a"), content("a"), figures("b")] {
        part_kind(&engine, one).await;
    }
    let beside = Reader::open(&config(&folder)).await.unwrap();
    assert_eq!(
        rows(&beside, "select id, total_units, request.body is null from logs order by id").await,
        ["a 18 false", "b 18 true"]
    );
    engine.close().await.unwrap();
}

static CLOCK: AtomicI64 = AtomicI64::new(0);

fn now() -> DateTime<Utc> {
    at("2026-11-10T12:00:00Z").unwrap() + Duration::seconds(CLOCK.load(Ordering::SeqCst))
}

#[tokio::test]
async fn part_that_waited_long_enough_stands_alone_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        Engine::open_with(config(&folder), Dependencies { now, ..Dependencies::default() })
            .await
            .unwrap()
    };
    let engine = open().await;
    part_kind(&engine, figures("a")).await;
    CLOCK.store(599, Ordering::SeqCst);
    engine.flush().await.unwrap();
    assert_eq!((engine.status().waiting_halves, engine.status().file_rows), (1, 0));
    CLOCK.store(600, Ordering::SeqCst);
    engine.flush().await.unwrap();
    assert_eq!((engine.status().waiting_halves, engine.status().file_rows), (0, 1));
    assert_eq!(part_kind(&engine, content("a")).await, 1, "late; the record is stored once");
    assert_eq!(ids(&engine.reader()).await, ["a"]);
    engine.close().await.unwrap();
    let engine = open().await;
    assert_eq!(ids(&engine.reader()).await, ["a"]);
    engine.close().await.unwrap();
}

static LATER: AtomicI64 = AtomicI64::new(0);

fn later() -> DateTime<Utc> {
    at("2026-11-10T12:00:00Z").unwrap() + Duration::seconds(LATER.load(Ordering::SeqCst))
}

/// Events of a call come while it runs: its end, which says what it cost, may come minutes after
/// them.
#[tokio::test]
async fn fragments_wait_for_the_one_that_says_how_the_call_went() {
    let folder = tempfile::tempdir().unwrap();
    let engine =
        Engine::open_with(config(&folder), Dependencies { now: later, ..Dependencies::default() })
            .await
            .unwrap();
    let fragment = |(_, record): (RecordPart, Record)| (RecordPart::Fragment, record);
    let ended = |id: &str| (RecordPart::Fragment, Record { is_success: Some(1), ..figures(id).1 });
    part_kind(&engine, fragment(content("a"))).await;
    part_kind(&engine, fragment(content("b"))).await;
    part_kind(&engine, ended("c")).await;
    let settled = async |seconds: i64| {
        LATER.store(seconds, Ordering::SeqCst);
        engine.flush().await.unwrap();
        (engine.status().waiting_halves, engine.status().file_rows)
    };
    assert_eq!(settled(19).await, (3, 0));
    assert_eq!(settled(20).await, (2, 1));
    assert_eq!(settled(100).await, (2, 1));
    assert_eq!(part_kind(&engine, ended("a")).await, 1);
    assert_eq!(settled(119).await, (2, 1));
    assert_eq!(settled(120).await, (1, 2));
    assert_eq!(settled(599).await, (1, 2));
    assert_eq!(settled(600).await, (0, 3));
    let query = "select id, total_units, request.body from logs order by id";
    let both = [r#"a 18 {"model":"gpt-4o"}"#, r#"b  {"model":"gpt-4o"}"#, "c 18 "];
    assert_eq!(rows(&engine.reader(), query).await, both);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn parts_keep_to_memory_and_to_their_own_organisation() {
    let folder = tempfile::tempdir().unwrap();
    let engine =
        Engine::open(Config { memtable_bytes: 4 << 20, flush_bytes: 4 << 20, ..config(&folder) })
            .await
            .unwrap();
    for number in 0..30 {
        let (part_kind, mut record) = content(&format!("{number:02}"));
        record.request.body = Some(format!("\"{}\"", "x".repeat(100_000)));
        engine.append_parts_as(&operator(), vec![(part_kind, record)]).await.unwrap();
    }
    assert!(
        engine.status().waiting_halves <= 20,
        "{} take more than half of it",
        engine.status().waiting_halves
    );
    assert_eq!(ids(&engine.reader()).await.len(), 30);

    let of = |organisation: &str, (part_kind, record): (RecordPart, Record)| {
        (part_kind, Record { organisation_id: Some(organisation.to_owned()), ..record })
    };
    let both = vec![of("acme", figures("one")), of("globex", content("one"))];
    assert_eq!(engine.append_parts_as(&operator(), both).await.unwrap().accepted, 2);
    let query =
        "select organisation_id, request.body is null from logs where id = 'one' order by 1";
    assert_eq!(
        rows(&engine.reader(), query).await,
        ["acme true", "globex false"],
        "an id is one organisation's"
    );
    let bound = Access { organisation: Some("acme".to_owned()), ..operator() };
    let refused =
        engine.append_parts_as(&bound, vec![of("globex", figures("two"))]).await.unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Denied);
    let nameless = (RecordPart::Figures, Record::default());
    let refused = engine.append_parts_as(&operator(), vec![nameless]).await.unwrap_err();
    assert!(refused.error.message().contains("`id`"), "{}", refused.error);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_not_tracked_keeps_no_content_though_only_its_figures_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    part_kind(&engine, content("a")).await;
    let (kind, untracked) = figures("a");
    part_kind(&engine, (kind, Record { do_not_track: Some(true), ..untracked })).await;
    assert_eq!(
        rows(
            &engine.reader(),
            "select do_not_track, request.body is null, response.body is null from logs"
        )
        .await,
        ["true true true"]
    );
    engine.close().await.unwrap();
}

#[tokio::test]
async fn an_erased_part_does_not_come_back_with_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    part_kind(&engine, figures("a")).await;
    part_kind(&engine, figures("b")).await;
    let which = ErasureSelector::Ids(vec!["a".to_owned()]);
    engine.erase("default", which, "test").await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["b"]);
    engine.maintain(Job::Expire, false).await.unwrap();
    part_kind(&engine, content("a")).await;
    assert_eq!(ids(&engine.reader()).await, ["b"]);
    engine.close().await.unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["b"]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_part_that_does_not_say_whose_it_is_is_erased_with_the_others_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let fragment = |(_, record): (RecordPart, Record)| (RecordPart::Fragment, record);
    part_kind(&engine, fragment(content("a"))).await;
    part_kind(&engine, fragment(figures("a"))).await;
    engine.erase("default", ErasureSelector::User("ann".to_owned()), "test").await.unwrap();
    assert_eq!(ids(&engine.reader()).await, [""; 0]);
    engine.close().await.unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    assert_eq!((ids(&engine.reader()).await.len(), engine.status().waiting_halves), (0, 0));
    engine.close().await.unwrap();
}

#[tokio::test]
async fn content_of_a_call_that_is_known_not_to_be_tracked_never_reaches_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let (kind, untracked) = figures("a");
    part_kind(&engine, (kind, Record { do_not_track: Some(true), ..untracked })).await;
    let (kind, mut planted) = content("a");
    planted.request.body = Some("\"planted-text\"".to_owned());
    part_kind(&engine, (kind, planted)).await;
    assert_eq!(containing(folder.path(), b"planted-text"), [""; 0]);
    engine.close().await.unwrap();
}

fn feedback(id: &str, trace: &str, value: f64, updated: &str) -> Feedback {
    Feedback {
        id: Some(id.to_owned()),
        trace_id: Some(trace.to_owned()),
        created_at: at("2026-11-01T10:00:00Z"),
        updated_at: at(updated),
        value: Some(value),
        weight: Some(1.0),
        ..Feedback::default()
    }
}

async fn give(engine: &Engine, feedback: Feedback) {
    engine.append_feedback_as(&operator(), vec![feedback]).await.unwrap();
}

const FEEDBACK: &str = "select id, trace_id, value from feedback order by id";

#[tokio::test]
async fn feedback_is_kept_as_records_are_and_its_last_state_holds() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    give(&engine, feedback("f1", "t1", 5.0, "2026-11-01T10:00:00Z")).await;
    assert_eq!(rows(&engine.reader(), FEEDBACK).await, ["f1 t1 5.0"]);
    engine.flush().await.unwrap();
    assert_eq!(
        rows(&engine.reader(), "select table_name, rows from partitions").await,
        ["feedback 1"]
    );
    give(&engine, feedback("f1", "t1", -2.5, "2026-11-01T10:00:01Z")).await;
    give(&engine, feedback("f2", "t1", 1.0, "2026-11-01T10:00:01Z")).await;
    let expected = ["f1 t1 -2.5", "f2 t1 1.0"];
    assert_eq!(rows(&engine.reader(), FEEDBACK).await, expected);
    let beside = Reader::open(&config(&folder)).await.unwrap();
    assert_eq!(rows(&beside, FEEDBACK).await, expected, "beside the engine");
    engine.close().await.unwrap();

    let engine = Engine::open(config(&folder)).await.unwrap();
    assert_eq!(rows(&engine.reader(), FEEDBACK).await, expected);
    assert_eq!(rows(&engine.reader(), "select count(*) from feedback_history").await, ["3"]);
    engine.maintain(Job::Compact, false).await.unwrap();
    assert_eq!(engine.status().feedback_rows, 3);
    assert_eq!(rows(&engine.reader(), FEEDBACK).await, expected);
    for job in [Job::Checkpoint, Job::Expire, Job::Vacuum, Job::CleanLog] {
        engine.maintain(job, false).await.unwrap();
    }
    assert_eq!(rows(&engine.reader(), FEEDBACK).await, expected);
    // The logs are untouched by all of it.
    assert_eq!(ids(&engine.reader()).await, [""; 0]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn of_two_states_of_one_microsecond_none_is_lost_and_one_holds() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let first = feedback("f1", "t1", 0.0, "2026-11-01T10:00:00Z");
    let at_once = |value: f64, weight: f64| Feedback {
        weight: Some(weight),
        ..feedback("f1", "t1", value, "2026-11-01T10:00:01Z")
    };
    for state in
        [first.clone(), at_once(2.0, 1.0), at_once(5.0, 0.5), at_once(5.0, 1.0), at_once(-3.0, 1.0)]
    {
        give(&engine, state).await;
    }
    // What is sent again is the same state.
    for state in [first, at_once(5.0, 0.5), at_once(-3.0, 1.0)] {
        give(&engine, state).await;
    }
    for _ in 0..2 {
        assert_eq!(rows(&engine.reader(), "select count(*) from feedback_history").await, ["5"]);
        assert_eq!(
            rows(&engine.reader(), "select id, value, weight from feedback").await,
            ["f1 5.0 1.0"]
        );
        engine.flush().await.unwrap();
    }
    engine.close().await.unwrap();
}

#[tokio::test]
async fn feedback_and_records_of_one_log_come_back_from_it_whichever_table_was_flushed() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let engine = Engine::open(config(&folder)).await.unwrap();
        engine
            .append(vec![Record { id: Some(format!("r{round}")), ..figures("r").1 }])
            .await
            .unwrap();
        engine.flush().await.unwrap();
        give(&engine, feedback(&format!("f{round}"), "t", 1.0, "2026-11-01T10:00:01Z")).await;
        engine.flush().await.unwrap();
        engine
            .append(vec![Record { id: Some(format!("s{round}")), ..figures("s").1 }])
            .await
            .unwrap();
        give(&engine, feedback(&format!("g{round}"), "t", 1.0, "2026-11-01T10:00:01Z")).await;
        let beside = Reader::open(&config(&folder)).await.unwrap();
        assert_eq!(ids(&beside).await.len(), 2 * (round + 1));
        assert_eq!(rows(&beside, FEEDBACK).await.len(), 2 * (round + 1));
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn feedback_goes_with_its_user_its_organisation_and_its_plan() {
    let folder = tempfile::tempdir().unwrap();
    let engine =
        Engine::open_with(config(&folder), Dependencies { now: late, ..Dependencies::default() })
            .await
            .unwrap();
    for (organisation, plan) in [("acme", "developer"), ("globex", "enterprise")] {
        let new = Organisation::new(plan, engine.now());
        engine
            .catalog()
            .change(|document| {
                document.create_organisation(organisation, new.clone(), 0).map(|_| ())
            })
            .await
            .unwrap();
    }
    let of = |organisation: &str, user: &str, id: &str, created: &str| Feedback {
        organisation_id: Some(organisation.to_owned()),
        user_id: Some(user.to_owned()),
        created_at: at(created),
        ..feedback(id, "t", 1.0, created)
    };
    for (organisation, user, id, created) in [
        ("acme", "ann", "a-old", "2026-10-01T00:00:00Z"),
        ("acme", "ann", "a-new", "2026-11-20T00:00:00Z"),
        ("acme", "bob", "a-bob", "2026-11-20T00:00:00Z"),
        ("globex", "ann", "g-old", "2026-10-01T00:00:00Z"),
    ] {
        give(&engine, of(organisation, user, id, created)).await;
    }
    let seen = async |access: &Access| -> BTreeSet<String> {
        rows(&engine.reader_as(access), "select id from feedback").await.into_iter().collect()
    };
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let bound =
        |organisation: &str| Access { organisation: Some(organisation.to_owned()), ..operator() };
    assert_eq!(
        seen(&operator()).await,
        set(&["a-new", "a-bob", "g-old"]),
        "past its retention at once"
    );
    assert_eq!(seen(&bound("acme")).await, set(&["a-new", "a-bob"]));
    assert_eq!(
        rows(&engine.reader_as(&bound("acme")), "select count(*) from feedback_history").await,
        ["2"]
    );
    engine.flush().await.unwrap();
    let which = ErasureSelector::User("ann".to_owned());
    engine.erase("acme", which, "test").await.unwrap();
    assert_eq!(seen(&operator()).await, set(&["a-bob", "g-old"]));
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(engine.status().feedback_rows, 2, "the erased and the expired have left the files");
    assert_eq!(seen(&operator()).await, set(&["a-bob", "g-old"]));
    let change = |document: &mut gatelog::engine::Document| {
        document.delete_organisation("globex", "test", "gone", late())
    };
    engine.catalog().change(change).await.unwrap();
    assert_eq!(seen(&operator()).await, set(&["a-bob"]));
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(engine.status().feedback_rows, 1);
    engine.close().await.unwrap();
}

fn late() -> DateTime<Utc> {
    at("2026-11-21T12:00:00Z").unwrap()
}

#[tokio::test]
async fn other_programs_read_the_table_of_feedback() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    give(&engine, feedback("f1", "t1", 5.0, "2026-11-01T10:00:00Z")).await;
    engine.flush().await.unwrap();
    engine.close().await.unwrap();
    let files = files::entries(&folder.path().join("data/feedback"));
    let file =
        files.iter().find(|path| path.extension().is_some_and(|end| end == "parquet")).unwrap();
    let file = file.display().to_string();
    assert!(file.contains("retention_days=0/date=2026-11-01/"), "{file}");
    let open = std::fs::File::open(&file).unwrap();
    let mut batches = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(open)
        .unwrap()
        .build()
        .unwrap();
    let batch = batches.next().unwrap().unwrap();
    assert_eq!(batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().value(0), 5.0);
}
