//! Plans kept by themselves: retention to the second, quotas, changes of plan, erasures; over
//! restarts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Duration, Utc};
use futures::TryStreamExt;
use gatelog::config::{Plans, Schedule};
use gatelog::engine::{Access, Dependencies, ErasureSelector, Organisation, Scope};
use gatelog::{Config, Engine, ErrorKind, ExportRequest, Job, Reader, Record};
use tempfile::TempDir;

use super::engine::{ids, number};

/// The clock of these tests, seconds after [`start`]; each test that moves it has one of its own.
macro_rules! clock {
    ($clock:ident, $now:ident) => {
        static $clock: AtomicI64 = AtomicI64::new(0);
        fn $now() -> DateTime<Utc> {
            start() + Duration::seconds($clock.load(Ordering::SeqCst))
        }
        /// Time passes; it does not leap.
        fn passed() -> std::time::Duration {
            std::time::Duration::from_secs($clock.load(Ordering::SeqCst).unsigned_abs())
        }
    };
}

const DAY: i64 = 86_400;

fn start() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-11-10T12:00:00Z").unwrap().to_utc()
}

fn config(folder: &TempDir) -> Config {
    let never = Schedule::never;
    Config {
        data: folder.path().join("data").display().to_string(),
        flush_seconds: 3600,
        expire_schedule: never(),
        compact_schedule: never(),
        vacuum_schedule: never(),
        ..Config::default()
    }
}

async fn open(
    folder: &TempDir,
    now: fn() -> DateTime<Utc>,
    elapsed: fn() -> std::time::Duration,
) -> Engine {
    Engine::open_with(config(folder), Dependencies { now, elapsed, ..Dependencies::default() })
        .await
        .unwrap()
}

async fn organisation(engine: &Engine, id: &str, plan: &str) {
    let new = Organisation::new(plan, engine.now());
    engine
        .catalog()
        .change(|document| document.create_organisation(id, new.clone(), 0).map(|_| ()))
        .await
        .unwrap();
}

fn record(organisation: &str, id: &str, created_at: DateTime<Utc>) -> Record {
    Record {
        id: Some(id.to_owned()),
        organisation_id: Some(organisation.to_owned()),
        user_id: Some(format!("user-{}", &id[..1])),
        created_at: Some(created_at),
        ..Record::default()
    }
}

fn admin_of(organisation: &str) -> Access {
    Access {
        key_id: "test".to_owned(),
        organisation: Some(organisation.to_owned()),
        workspace: None,
        scopes: BTreeSet::from([Scope::Admin]),
    }
}

#[tokio::test]
async fn a_record_past_its_retention_is_in_no_answer_and_goes_with_the_next_upkeep() {
    clock!(CLOCK, now);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, now, passed).await;
    organisation(&engine, "dev", "developer").await;
    organisation(&engine, "pro", "production").await;
    engine
        .append(vec![
            record("dev", "a", now()),
            record("pro", "b", now()),
            record("none", "c", now()),
        ])
        .await
        .unwrap();
    engine.flush().await.unwrap();
    engine.append(vec![record("dev", "d", now() + Duration::seconds(1))]).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a", "b", "c", "d"]);

    CLOCK.store(3 * DAY, Ordering::SeqCst);
    assert_eq!(ids(&engine.reader()).await, ["a", "b", "c", "d"]);
    CLOCK.store(3 * DAY + 1, Ordering::SeqCst);
    assert_eq!(ids(&engine.reader()).await, ["b", "c", "d"], "to the second");
    CLOCK.store(3 * DAY + 2, Ordering::SeqCst);
    assert_eq!(ids(&engine.reader()).await, ["b", "c"], "also a row in memory");
    assert_eq!(number(&engine.reader(), "select count(*) from logs").await, 2);

    engine.flush().await.unwrap();
    CLOCK.store(4 * DAY, Ordering::SeqCst);
    let outcome = engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!((outcome.files_before, outcome.files_after), (4, 2), "{:?}", outcome.lines);
    assert_eq!(ids(&engine.reader()).await, ["b", "c"]);
    CLOCK.store(31 * DAY, Ordering::SeqCst);
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["c"]);
    let vacuum = engine.maintain(Job::Vacuum, false).await.unwrap();
    assert_eq!(vacuum.lines.len(), 3, "{:?}", vacuum.lines);
    assert_eq!(ids(&engine.reader()).await, ["c"]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_change_of_plan_takes_effect_at_once_and_nothing_that_the_new_plan_keeps_is_dropped() {
    clock!(CLOCK, now);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, now, passed).await;
    organisation(&engine, "up", "developer").await;
    organisation(&engine, "down", "production").await;
    organisation(&engine, "stays", "developer").await;
    let old = now() - Duration::days(2);
    engine
        .append(vec![record("up", "a", old), record("down", "b", old), record("stays", "c", old)])
        .await
        .unwrap();
    engine.flush().await.unwrap();
    let change = |organisation: &'static str, plan: &'static str| {
        engine.catalog().change(move |document| document.set_plan(organisation, plan, None, now()))
    };
    change("up", "production").await.unwrap();
    change("down", "developer").await.unwrap();

    CLOCK.store(2 * DAY, Ordering::SeqCst);
    assert_eq!(ids(&engine.reader()).await, ["a"], "`up` keeps 30 days now, `down` 3");
    engine.append(vec![record("up", "d", now())]).await.unwrap();
    let outcome = engine.maintain(Job::Expire, false).await.unwrap();
    assert!(!outcome.lines.is_empty());
    assert_eq!(ids(&engine.reader()).await, ["a", "d"]);
    let classes = "select count(*) from logs where retention_days = 30";
    assert_eq!(number(&engine.reader(), classes).await, 2, "old rows moved to the new class");

    // What is in the files is what is in answers: nothing of the others is left.
    let status = engine.status();
    assert_eq!(status.file_rows, 2);
    let again = engine.maintain(Job::Expire, false).await.unwrap();
    assert!(again.lines.is_empty(), "{:?}", again.lines);
    engine.close().await.unwrap();
    let engine = open(&folder, now, passed).await;
    assert_eq!(ids(&engine.reader()).await, ["a", "d"]);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_quota_stops_exactly_whoever_writes_and_counts_over_restarts_and_expiry() {
    clock!(CLOCK, now);
    let folder = tempfile::tempdir().unwrap();
    let mut stored = 0;
    for round in 0..4 {
        let engine = open(&folder, now, passed).await;
        if round == 0 {
            organisation(&engine, "dev", "developer").await;
        }
        let writers = (0..16).map(|writer| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut accepted = 0;
                for batch in 0..10 {
                    let ids = (0..20)
                        .map(|n| record("dev", &format!("{round}-{writer}-{batch}-{n}"), now()));
                    let receipt = engine.append(ids.collect()).await.unwrap();
                    assert_eq!(receipt.accepted + receipt.over_quota, 20);
                    accepted += receipt.accepted;
                }
                accepted
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            stored += writer.await.unwrap();
        }
        if round % 2 == 0 {
            engine.flush().await.unwrap();
        }
        assert_eq!(stored, (3_200 * (round + 1)).min(10_000));
        let used = "select sum(records) from usage where organisation_id = 'dev'";
        assert_eq!(number(&engine.reader(), used).await, i64::try_from(stored).unwrap());
        engine.close().await.unwrap();
    }
    // Expired records were used all the same; a new month begins anew.
    CLOCK.store(10 * DAY, Ordering::SeqCst);
    let engine = open(&folder, now, passed).await;
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(engine.status().file_rows, 0);
    assert_eq!(engine.append(vec![record("dev", "x", now())]).await.unwrap().over_quota, 1);
    assert_eq!(
        number(&engine.reader(), "select sum(not_stored) from usage where organisation_id = 'dev'")
            .await,
        2_801
    );
    CLOCK.store(25 * DAY, Ordering::SeqCst);
    assert_eq!(
        engine.append(vec![record("dev", "x", now())]).await.unwrap().accepted,
        1,
        "it was not kept, so not known"
    );
    // A plan without an end takes what the other refused, under the same id.
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_beside_a_server_see_what_a_quota_refused_though_nothing_is_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let plans = Plans::parse("[tiny]\nincluded = 2\nover = 'stop'").unwrap();
    let config = Config { refresh_seconds: 1, plans, ..config(&folder) };
    let engine = Engine::open(config.clone()).await.unwrap();
    organisation(&engine, "tiny", "tiny").await;
    let append = async |ids: &[&str]| {
        let rows = ids.iter().map(|id| record("tiny", id, Utc::now())).collect();
        engine.append(rows).await.unwrap().over_quota
    };
    let seen_beside = async |not_stored: i64| {
        let by = std::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            let reader = Reader::open(&config).await.unwrap();
            let stored =
                number(&reader, "select sum(records) from usage where organisation_id = 'tiny'")
                    .await;
            assert_eq!(stored, 2);
            let seen =
                number(&reader, "select sum(not_stored) from usage where organisation_id = 'tiny'")
                    .await;
            if seen == not_stored {
                return;
            }
            assert!(
                std::time::Instant::now() < by,
                "{seen} of {not_stored} are seen beside the server"
            );
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    assert_eq!(append(&["a", "b", "c", "d", "e"]).await, 3);
    seen_beside(3).await;
    // After a flush, with the rows in files.
    engine.flush().await.unwrap();
    assert_eq!(append(&["f"]).await, 1);
    seen_beside(4).await;
    engine.close().await.unwrap();
    let engine = Engine::open(config.clone()).await.unwrap();
    let kept =
        "select sum(records) * 10 + sum(not_stored) from usage where organisation_id = 'tiny'";
    assert_eq!(number(&engine.reader(), kept).await, 24);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn erased_records_leave_answers_at_once_and_files_with_upkeep_and_it_is_written_down() {
    clock!(CLOCK, now);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, now, passed).await;
    organisation(&engine, "pro", "production").await;
    organisation(&engine, "other", "production").await;
    let rows = ["a1", "a2", "b1", "b2", "c1"].map(|id| record("pro", id, now()));
    engine.append(rows.into_iter().chain([record("other", "a1x", now())]).collect()).await.unwrap();
    engine.flush().await.unwrap();
    engine.append(vec![record("pro", "a3", now())]).await.unwrap();
    CLOCK.store(10, Ordering::SeqCst);

    let entry =
        engine.erase("pro", ErasureSelector::User("user-a".to_owned()), "key-1").await.unwrap();
    assert_eq!(
        ids(&engine.reader()).await,
        ["a1x", "b1", "b2", "c1"],
        "in memory and in files, of that organisation only"
    );
    engine.erase("pro", ErasureSelector::Ids(vec!["b2".to_owned()]), "key-1").await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a1x", "b1", "c1"]);
    assert_eq!(engine.status().file_rows + engine.status().memory_rows, 7, "still stored");
    CLOCK.store(20, Ordering::SeqCst);
    engine.append(vec![record("pro", "a4", now())]).await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a1x", "a4", "b1", "c1"], "what comes later stays");

    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!((engine.status().file_rows, ids(&engine.reader()).await.len()), (4, 4));
    let written = engine.catalog().state().document.erasures.clone();
    assert_eq!(
        (written[0].id.clone(), written[0].erased, written[0].requested_by.as_str()),
        (entry.id, 3, "key-1")
    );
    assert_eq!(written[1].erased, 1);
    // A second send of an erased record within the day is met by the erasure too.
    engine.close().await.unwrap();

    let engine = open(&folder, now, passed).await;
    assert_eq!(ids(&engine.reader()).await, ["a1x", "a4", "b1", "c1"]);
    let delete = |id: &'static str| {
        engine.catalog().change(move |d| d.delete_organisation(id, "key-1", "e3", now()))
    };
    delete("pro").await.unwrap();
    assert_eq!(ids(&engine.reader()).await, ["a1x"]);
    assert_eq!(
        engine.append(vec![record("pro", "z", now())]).await.unwrap().over_quota,
        1,
        "no more of it is stored"
    );
    engine.maintain(Job::Expire, false).await.unwrap();
    assert_eq!(engine.status().file_rows, 1);
    CLOCK.store(2 * DAY, Ordering::SeqCst);
    engine.maintain(Job::Expire, false).await.unwrap();
    assert!(
        !engine.catalog().state().document.organisations.contains_key("pro"),
        "its id is free again"
    );
    engine.close().await.unwrap();
}

#[tokio::test]
async fn exports_of_an_organisation_reach_as_far_back_as_its_plan() {
    clock!(CLOCK, now);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, now, passed).await;
    CLOCK.store(1, Ordering::SeqCst);
    for plan in ["developer", "production", "enterprise"] {
        organisation(&engine, plan, plan).await;
        engine.append(vec![record(plan, &format!("{plan}-now"), now())]).await.unwrap();
    }
    engine
        .append(vec![record("enterprise", "ent-old", now() - Duration::days(400))])
        .await
        .unwrap();
    let export = async |organisation: &str, from: Option<&str>| {
        let request = ExportRequest {
            from: from.map(str::to_owned),
            columns: Some(vec!["id".to_owned()]),
            ..ExportRequest::default()
        };
        let lines = engine.reader_as(&admin_of(organisation)).export(&request).await?;
        let lines: Vec<_> = lines.try_collect().await?;
        Ok::<String, gatelog::Error>(String::from_utf8(lines.concat()).unwrap())
    };
    let refused = export("developer", None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(refused.message().contains("has no exports"), "{refused}");
    assert_eq!(export("production", None).await.unwrap(), "{\"id\":\"production-now\"}\n");
    let refused = export("production", Some("2026-10-01")).await.unwrap_err();
    assert!(
        refused.message().contains("reach 30 days back; set `from` to 2026-10-11T12:00:01Z"),
        "{refused}"
    );
    let all = "{\"id\":\"ent-old\"}\n{\"id\":\"enterprise-now\"}\n";
    assert_eq!(export("enterprise", Some("2020-01-01")).await.unwrap(), all);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_month_to_come_has_no_quota_of_its_own_and_what_was_not_stored_is_counted_over_a_restart()
{
    clock!(CLOCK, now);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, now, passed).await;
    CLOCK.store(1, Ordering::SeqCst);
    organisation(&engine, "dev", "developer").await;
    let dated = |days: i64, ids: std::ops::Range<usize>| {
        ids.map(move |id| record("dev", &format!("{days}-{id}"), now() + Duration::days(days)))
            .collect::<Vec<_>>()
    };
    assert_eq!(engine.append(dated(0, 0..6_000)).await.unwrap().accepted, 6_000);
    assert_eq!(engine.append(dated(40, 0..6_000)).await.unwrap().over_quota, 2_000);
    engine.flush().await.unwrap();
    assert_eq!(engine.append(dated(400, 0..10)).await.unwrap().over_quota, 10);
    engine.close().await.unwrap();
    let engine = open(&folder, now, passed).await;
    assert_eq!(number(&engine.reader(), "select sum(records) from usage").await, 10_000);
    assert_eq!(number(&engine.reader(), "select sum(not_stored) from usage").await, 2_010);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_log_that_slept_does_not_bring_back_what_was_erased_meanwhile() {
    clock!(CLOCK, now);
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, now, passed).await;
    organisation(&engine, "ent", "enterprise").await;
    engine.append(vec![record("ent", "a", now()), record("ent", "b", now())]).await.unwrap();
    // The folder as it is after a crash now, and days later: erased, carried out, and out of force.
    let later = tempfile::tempdir().unwrap();
    let copy = std::process::Command::new("cp")
        .arg("-r")
        .arg(folder.path().join("data"))
        .arg(later.path())
        .status();
    assert!(copy.unwrap().success());
    engine.close().await.unwrap();
    let path = later.path().join("data/catalog.json");
    let mut catalog: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    catalog["erasures"] = serde_json::json!([{
        "id": "e", "organisation": "ent", "user": "user-a", "requested_at": start() + Duration::seconds(5),
        "requested_by": "k", "clean_before_ms": (start() + Duration::days(2)).timestamp_millis(),
    }]);
    std::fs::write(&path, catalog.to_string()).unwrap();
    CLOCK.store(10 * DAY, Ordering::SeqCst);
    let engine = open(&later, now, passed).await;
    assert_eq!(ids(&engine.reader()).await, ["b"]);
    engine.flush().await.unwrap();
    assert_eq!(engine.status().file_rows, 1);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_catalog_that_is_gone_and_a_log_of_other_data_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(&folder, Utc::now, std::time::Duration::default).await;
    organisation(&engine, "dev", "developer").await;
    engine.close().await.unwrap();
    open(&folder, Utc::now, std::time::Duration::default).await.close().await.unwrap();
    std::fs::remove_file(folder.path().join("data/catalog.json")).unwrap();
    let refused = Engine::open(config(&folder)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    assert!(refused.message().contains("is missing; restore it from a copy"), "{refused}");
    let refused = gatelog::Reader::open(&config(&folder)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged, "what was erased would be back: {refused}");

    let wal = folder.path().join("data/wal").display().to_string();
    let other = tempfile::tempdir().unwrap();
    let refused = Engine::open(Config { wal, ..config(&other) }).await.unwrap_err();
    assert!(refused.message().contains("is of other data: it was last used for"), "{refused}");
    assert!(refused.message().contains("name another folder with the setting `wal`"), "{refused}");
}
