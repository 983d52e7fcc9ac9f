//! Clocks: times that records state, leaps of the server's clock, and erasures in progress.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration as Time;

use arrow::array::{Array, AsArray};
use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use futures::{StreamExt, TryStreamExt};
use tempfile::TempDir;

use super::{
    Access, Dependencies, Document, Engine, ErasureSelector, Job, NewKey, Organisation, Scope,
};
use crate::catalog::Catalog;
use crate::config::{Config, Schedule};
use crate::error::ErrorKind;
use crate::export;
use crate::parts::RecordPart;
use crate::query::Params;
use crate::record::{Feedback, Record};
use crate::store::Store;

const DAY: i64 = 86_400;
/// Days of an export.
const DAYS: i64 = 30;

/// The clocks of a test: seconds of the wall clock and of the monotonic one after the start.
macro_rules! clocks {
    ($wall:ident, $passed:ident, $parts:ident) => {
        static $wall: AtomicI64 = AtomicI64::new(0);
        static $passed: AtomicI64 = AtomicI64::new(0);
        fn $parts() -> Dependencies {
            Dependencies {
                now: || start() + Duration::seconds($wall.load(Ordering::SeqCst)),
                elapsed: || Time::from_secs($passed.load(Ordering::SeqCst).unsigned_abs()),
                ..Dependencies::default()
            }
        }
    };
}

fn start() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-11-10T12:00:00Z").unwrap().to_utc()
}

fn config(folder: &TempDir) -> Config {
    let never = Schedule::never;
    Config {
        data: folder.path().join("data").display().to_string(),
        flush_seconds: 86_400,
        expire_schedule: never(),
        compact_schedule: never(),
        vacuum_schedule: never(),
        ..Config::default()
    }
}

async fn open(folder: &TempDir, parts: Dependencies) -> Engine {
    let engine = Engine::open_with(config(folder), parts).await.unwrap();
    let now = start();
    let make = |document: &mut Document| {
        if document.organisations.is_empty() {
            document.create_organisation("dev", Organisation::new("developer", now), 0)?;
            document.create_organisation("acme", Organisation::new("enterprise", now), 0)?;
        }
        Ok(())
    };
    engine.catalog().change(make).await.unwrap();
    engine
}

fn record(organisation: &str, id: &str, created_at: DateTime<Utc>) -> Record {
    Record {
        id: Some(id.to_owned()),
        organisation_id: Some(organisation.to_owned()),
        user_id: Some("ada".to_owned()),
        created_at: Some(created_at),
        ..Record::default()
    }
}

async fn ids(engine: &Engine) -> Vec<String> {
    let answer = engine.sql("select id from logs order by id", &Params::new()).await.unwrap();
    let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
    let texts = batches.iter().flat_map(|batch| {
        let texts = batch.column(0).as_string_view().clone();
        (0..texts.len()).map(move |row| texts.value(row).to_owned()).collect::<Vec<_>>()
    });
    texts.collect()
}

#[tokio::test]
async fn a_record_from_the_far_future_gets_the_time_of_its_arrival() {
    clocks!(WALL, PASSED, parts);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, parts()).await;
    let records = [
        record("dev", "a-day", start() + Duration::days(1)),
        record("dev", "far", start() + Duration::days(2)),
        record("dev", "farther", start() + Duration::days(365 * 200)),
        record("dev", "old", start() - Duration::days(2)),
    ];
    engine.append(records.to_vec()).await.unwrap();
    assert_eq!(engine.status().redated_total, 2);
    let query =
        "select count(*) from logs where created_at = '2026-11-10T12:00:00Z' having count(*) = 2";
    assert_eq!(engine.sql(query, &Params::new()).await.unwrap().batches.count().await, 1);
    // So the plan's three days apply to them.
    for (clock, days) in [(&WALL, 3), (&PASSED, 3)] {
        clock.store(days * DAY + 1, Ordering::SeqCst);
    }
    assert_eq!(ids(&engine).await, ["a-day"]);
    engine.close().await.unwrap();
}

/// A client's clock is a little ahead: records sent before the erasure are erased, later ones stay.
#[tokio::test]
async fn an_erasure_includes_records_with_a_future_date_that_had_arrived() {
    clocks!(WALL, PASSED, parts);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, parts()).await;
    let ahead = || start() + Duration::minutes(5);
    engine
        .append(vec![record("acme", "flushed", ahead()), record("acme", "now", start())])
        .await
        .unwrap();
    engine.flush().await.unwrap();
    engine
        .append(vec![record("acme", "in memory", ahead()), record("dev", "other", ahead())])
        .await
        .unwrap();
    engine.erase("acme", ErasureSelector::User("ada".to_owned()), "k").await.unwrap();
    assert_eq!(ids(&engine).await, ["other"]);
    WALL.store(1, Ordering::SeqCst);
    PASSED.store(1, Ordering::SeqCst);
    engine.append(vec![record("acme", "later", ahead())]).await.unwrap();
    assert_eq!(ids(&engine).await, ["later", "other"], "it arrived afterwards");
    engine.flush().await.unwrap();
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(ids(&engine).await, ["later", "other"]);
    let erasures = engine.catalog().state().document.erasures.clone();
    assert_eq!(erasures[0].erased, 3, "they are removed from the files");
    engine.erase("acme", ErasureSelector::All, "k").await.unwrap();
    assert_eq!(ids(&engine).await, ["other"]);
    engine.close().await.unwrap();
}

/// A part of a call with a future date waits for the other part.
#[tokio::test]
async fn an_erasure_includes_waiting_parts_with_a_future_date() {
    clocks!(WALL, PASSED, parts);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, parts()).await;
    let operator = Access::operator("test");
    let ahead = || start() + Duration::minutes(5);
    let record_parts = vec![
        (RecordPart::Figures, record("acme", "ahead", ahead())),
        (RecordPart::Fragment, record("acme", "piece ahead", ahead())),
        (RecordPart::Figures, record("acme", "now", start())),
        (RecordPart::Figures, record("dev", "other", ahead())),
    ];
    engine.append_parts_as(&operator, record_parts).await.unwrap();
    assert_eq!(ids(&engine).await, ["ahead", "now", "other", "piece ahead"]);
    engine.erase("acme", ErasureSelector::User("ada".to_owned()), "k").await.unwrap();
    assert_eq!(ids(&engine).await, ["other"]);
    WALL.store(1, Ordering::SeqCst);
    PASSED.store(1, Ordering::SeqCst);
    engine
        .append_parts_as(&operator, vec![(RecordPart::Figures, record("acme", "later", ahead()))])
        .await
        .unwrap();
    assert_eq!(ids(&engine).await, ["later", "other"], "it arrived afterwards");
    engine.close().await.unwrap();
    // A replay of the log restores none of them.
    let engine = open(&folder, parts()).await;
    assert_eq!(ids(&engine).await, ["later", "other"]);
    engine.flush().await.unwrap();
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(ids(&engine).await, ["later", "other"]);
    engine.close().await.unwrap();
}

/// A node is down while an erasure is requested, and its log has rows and parts with a future date.
#[tokio::test]
async fn an_erasure_includes_records_with_a_future_date_in_the_log_of_a_node_that_was_down() {
    clocks!(WALL, PASSED, parts);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, parts()).await;
    let operator = Access::operator("test");
    let ahead = || start() + Duration::hours(5);
    let figures = |id| vec![(RecordPart::Figures, record("acme", id, ahead()))];
    let feedback = |id: &str| Feedback {
        id: Some(id.to_owned()),
        organisation_id: Some("acme".to_owned()),
        user_id: Some("ada".to_owned()),
        created_at: Some(ahead()),
        ..Feedback::default()
    };
    let records = vec![record("acme", "ahead", ahead()), record("dev", "other", ahead())];
    engine.append(records).await.unwrap();
    engine.append_parts_as(&operator, figures("part")).await.unwrap();
    engine.append_feedback_as(&operator, vec![feedback("f-ahead")]).await.unwrap();
    assert_eq!(ids(&engine).await, ["ahead", "other", "part"]);
    drop(engine);

    let store = Store::open(&config(&folder), false).unwrap();
    let catalog = Catalog::open(&store, 0, chrono::Utc::now).await.unwrap();
    let request = |document: &mut Document| {
        let which = ErasureSelector::User("ada".to_owned());
        document.erase("e-1", "acme", which, "k", start() + Duration::seconds(1)).map(|_| ())
    };
    catalog.change(request).await.unwrap();

    for clock in [&WALL, &PASSED] {
        clock.store(2, Ordering::SeqCst);
    }
    let engine = reopened(&folder, parts).await;
    assert_eq!(ids(&engine).await, ["other"]);
    assert!(feedback_ids(&engine).await.is_empty());
    engine.append(vec![record("acme", "later", ahead())]).await.unwrap();
    engine.append_parts_as(&operator, figures("later part")).await.unwrap();
    engine.append_feedback_as(&operator, vec![feedback("f-later")]).await.unwrap();
    drop(engine);

    let engine = reopened(&folder, parts).await;
    assert_eq!(ids(&engine).await, ["later", "later part", "other"], "they arrived afterwards");
    assert_eq!(feedback_ids(&engine).await, ["f-later"]);
    engine.flush().await.unwrap();
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(ids(&engine).await, ["later", "later part", "other"]);
    engine.close().await.unwrap();
}

/// Opens a folder once the writer of an engine that was dropped has released it.
async fn reopened(folder: &TempDir, parts: fn() -> Dependencies) -> Engine {
    loop {
        match Engine::open_with(config(folder), parts()).await {
            Err(error) if error.kind() == ErrorKind::Busy => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

async fn feedback_ids(engine: &Engine) -> Vec<String> {
    let text = "select id from feedback order by id";
    let batches = engine.sql(text, &Params::new()).await.unwrap().batches;
    let batches: Vec<_> = batches.try_collect().await.unwrap();
    batches
        .iter()
        .flat_map(|batch| batch.column(0).as_string_view().iter().flatten().map(str::to_owned))
        .collect()
}

/// A late part names the user, whom its stored record did not name.
#[tokio::test]
async fn an_erasure_includes_a_record_whose_late_part_names_the_user() {
    clocks!(WALL, PASSED, parts);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, parts()).await;
    let operator = Access::operator("test");
    let ahead = || start() + Duration::hours(5);
    let nameless = Record { user_id: None, ..record("acme", "a", ahead()) };
    engine.append_parts_as(&operator, vec![(RecordPart::Figures, nameless)]).await.unwrap();
    // The record is stored without the part when the wait is over.
    for clock in [&WALL, &PASSED] {
        clock.store(3_600, Ordering::SeqCst);
    }
    engine.flush().await.unwrap();
    let late = Record {
        user_id: Some("ada".to_owned()),
        created_at: None,
        ..record("acme", "a", ahead())
    };
    engine.append_parts_as(&operator, vec![(RecordPart::Content, late)]).await.unwrap();
    engine.erase("acme", ErasureSelector::User("ada".to_owned()), "k").await.unwrap();
    assert!(ids(&engine).await.is_empty());
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_leap_of_the_clock_deletes_nothing_until_the_time_is_confirmed() {
    clocks!(WALL, PASSED, parts);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, parts()).await;
    engine.append(vec![record("dev", "1", start())]).await.unwrap();
    engine.flush().await.unwrap();
    WALL.store(3650 * DAY, Ordering::SeqCst);
    for job in [Job::Expire, Job::Vacuum, Job::CleanLog] {
        let refused = engine.maintain(job, false).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{job:?}");
        assert!(refused.message().contains("/v1/admin/clock"), "{refused}");
    }
    engine.maintain(Job::Compact, false).await.unwrap();
    assert!(engine.status().clock_in_doubt && engine.status().writable);
    assert_eq!(engine.status().files, 1);
    engine.close().await.unwrap();
    // A restart does not confirm the time.
    let engine = open(&folder, parts()).await;
    assert!(engine.maintain(Job::Expire, false).await.is_err());
    // With the clock corrected, everything works as before.
    WALL.store(60, Ordering::SeqCst);
    assert!(!engine.status().clock_in_doubt);
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(ids(&engine).await, ["1"]);
    // An operator confirms.
    WALL.store(3650 * DAY, Ordering::SeqCst);
    assert!(engine.maintain(Job::Expire, false).await.is_err());
    assert!(engine.confirm_clock().await.is_some());
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(engine.status().files, 0);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn an_idle_server_and_one_started_after_a_pause_expire_records() {
    clocks!(WALL, PASSED, parts);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, parts()).await;
    engine.append(vec![record("dev", "1", start())]).await.unwrap();
    engine.flush().await.unwrap();
    WALL.store(4 * DAY, Ordering::SeqCst);
    PASSED.store(4 * DAY, Ordering::SeqCst);
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(engine.status().files, 0, "idle");
    engine.append(vec![record("dev", "2", start() + Duration::days(4))]).await.unwrap();
    engine.close().await.unwrap();
    WALL.store(40 * DAY, Ordering::SeqCst);
    let engine = open(&folder, parts()).await;
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(engine.status().files, 0, "a pause");
    engine.close().await.unwrap();
}

async fn lines(
    chunks: impl futures::Stream<Item = crate::error::Result<Bytes>>,
) -> crate::error::Result<Vec<String>> {
    let chunks: Vec<Bytes> = chunks.try_collect().await?;
    let text = String::from_utf8(chunks.concat()).unwrap();
    Ok(text.lines().map(str::to_owned).collect())
}

/// An export of many days with a slow reader: it reads ahead by a few days only.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_leaves_out_erased_records_and_ends_when_its_key_does() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, Dependencies::default()).await;
    let days = (0..DAYS).map(|day| Record {
        user_id: Some(if day % 2 == 0 { "ada" } else { "bob" }.to_owned()),
        ..record("acme", &format!("{day:02}"), start() - Duration::days(DAYS - day))
    });
    engine.append(days.collect()).await.unwrap();
    let scopes = [Scope::Export, Scope::View].into();
    let now = Utc::now();
    let key = NewKey { organisation: Some("acme".to_owned()), scopes, ..NewKey::default() };
    let id = engine
        .catalog()
        .change(|document| Ok(document.add_key("k", key.clone(), now)?.id.clone()))
        .await
        .unwrap();
    let access = engine.access("k").unwrap();
    let columns = Some(vec!["id".to_owned()]);
    let request = export::Request { columns, ..export::Request::default() };

    let mut slow = engine.reader_as(&access).export(&request).await.unwrap();
    let mut cut = engine.reader_as(&access).export(&request).await.unwrap();
    let first = slow.next().await.unwrap().unwrap();
    assert_eq!(first, "{\"id\":\"00\"}\n");
    assert!(cut.next().await.unwrap().is_ok());
    engine.erase("acme", ErasureSelector::User("ada".to_owned()), "k").await.unwrap();
    let rest = lines(slow).await.unwrap();
    let ada = rest
        .iter()
        .filter(|line| line.chars().nth(8).is_some_and(|last| "02468".contains(last)))
        .count();
    let bob = rest.len() - ada;
    assert!(ada <= 4, "{ada} of the erased user: {rest:?}");
    assert_eq!(bob, 15);

    let mut sql =
        engine.reader_as(&access).sql("select id from logs", &Params::new()).await.unwrap().batches;
    let operator = Access::operator("test");
    engine
        .catalog()
        .change(|document| document.revoke_key(&id, &operator, now).map(|_| ()))
        .await
        .unwrap();
    let refused = cut.next().await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(cut.next().await.is_none(), "the stream has ended");
    assert_eq!(sql.next().await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
    let reader = engine.reader_as(&access);
    assert_eq!(reader.export(&request).await.err().unwrap().kind(), ErrorKind::Denied);
    engine.close().await.unwrap();
}

/// Appends enough records for many batches, since the queue of a statement holds a few.
async fn fill_with_many(engine: &Engine) {
    let record = |number: usize| Record {
        user_id: Some(if number.is_multiple_of(2) { "ada" } else { "bob" }.to_owned()),
        ..record("acme", &format!("{number:06}"), start() - Duration::seconds(1))
    };
    for batch in 0..10 {
        engine
            .append((0..5_000).map(|number| record(batch * 5_000 + number)).collect())
            .await
            .unwrap();
    }
}

async fn viewer(engine: &Engine) -> (Access, String) {
    let scopes = [Scope::Export, Scope::View, Scope::Analytics].into();
    let now = Utc::now();
    let key = NewKey { organisation: Some("acme".to_owned()), scopes, ..NewKey::default() };
    let id = engine
        .catalog()
        .change(|document| Ok(document.add_key("k", key.clone(), now)?.id.clone()))
        .await
        .unwrap();
    (engine.access("k").unwrap(), id)
}

/// Reads an answer to its end. Returns the number of rows and the final error.
async fn read_out(answer: crate::query::Answer) -> (usize, Option<ErrorKind>) {
    let mut rows = 0;
    let mut batches = answer.batches;
    while let Some(batch) = batches.next().await {
        match batch {
            Ok(batch) => rows += batch.num_rows(),
            Err(error) => {
                assert!(batches.next().await.is_none(), "the stream has ended with {error}");
                return (rows, Some(error.kind()));
            }
        }
    }
    (rows, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_when_records_that_its_reader_sees_are_erased() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, Dependencies::default()).await;
    fill_with_many(&engine).await;
    let (access, _) = viewer(&engine).await;
    let ours = engine.reader_as(&access);
    let all = engine.reader();
    let nothing = Params::new();
    let statement = "select id, user_id from logs order by id";
    // Another organisation's erasure changes nothing for this one.
    let mine = ours.sql(statement, &nothing).await.unwrap();
    let whole = all.sql(statement, &nothing).await.unwrap();
    engine.erase("dev", ErasureSelector::User("ada".to_owned()), "k").await.unwrap();
    assert_eq!(read_out(mine).await, (50_000, None));
    assert_eq!(read_out(whole).await.1, Some(ErrorKind::Conflict));
    for statement in
        [statement, "select count(*) from logs", "select user_id, count(*) from logs group by 1"]
    {
        let answer = ours.sql(statement, &nothing).await.unwrap();
        engine.erase("acme", ErasureSelector::Ids(vec!["000001".to_owned()]), "k").await.unwrap();
        assert_eq!(read_out(answer).await, (0, Some(ErrorKind::Conflict)), "{statement}");
    }
    let report = ours.report("status_counts", &nothing).await.unwrap();
    engine.erase("acme", ErasureSelector::User("ada".to_owned()), "k").await.unwrap();
    assert_eq!(read_out(report).await.1, Some(ErrorKind::Conflict));
    let (rows, ended) = read_out(ours.sql(statement, &nothing).await.unwrap()).await;
    assert_eq!((rows, ended), (24_999, None), "a new statement is answered without them");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_no_rows_yet_ends_when_its_key_does() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, Dependencies::default()).await;
    let (access, id) = viewer(&engine).await;
    let endless = "select count(*) from generate_series(1, 1000000000) a, generate_series(1, 1000000000) b \
                   where a.value * b.value % 7 = 11";
    let answer = engine.reader_as(&access).sql(endless, &Params::new()).await.unwrap();
    let operator = Access::operator("test");
    engine
        .catalog()
        .change(|document| document.revoke_key(&id, &operator, Utc::now()).map(|_| ()))
        .await
        .unwrap();
    assert_eq!(read_out(answer).await, (0, Some(ErrorKind::Denied)));
    // The query is cancelled, not only abandoned.
    for _ in 0..6_000 {
        if engine.status().queries_running == 0 {
            break;
        }
        tokio::time::sleep(Time::from_millis(10)).await;
    }
    assert_eq!(engine.status().queries_running, 0);
    engine.close().await.unwrap();
}
