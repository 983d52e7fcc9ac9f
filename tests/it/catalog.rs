//! The catalog at its largest: ten thousand organisations with a key each.

use std::time::Instant;

use chrono::Utc;
use gatelog::config::Config;
use gatelog::engine::{Catalog, Document, Engine, NewKey, Organisation, Scope};
use gatelog::store::Store;

const MANY: usize = 10_000;

fn fill(document: &mut Document) -> gatelog::error::Result<()> {
    let now = Utc::now();
    for number in 0..MANY {
        let id = format!("organisation-{number}");
        let plan = ["developer", "production", "enterprise"][number % 3].to_owned();
        let organisation = Organisation {
            name: Some(format!("Organisation number {number}")),
            plan,
            retention_days: None,
            workspaces: ["default".to_owned()].into(),
            created_at: now,
            moving: Vec::new(),
            deleted_at: None,
        };
        document.create_organisation(&id, organisation, 0)?;
        let scopes = [Scope::Write, Scope::View].into();
        let key = NewKey { organisation: Some(id), scopes, ..NewKey::default() };
        document.add_key(&format!("key-{number}"), key, now)?;
    }
    Ok(())
}

/// Prints times and does not judge them: machines that run tests are busy.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_organisations_open_and_their_keys_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        Config { data: folder.path().join("data").display().to_string(), ..Config::default() };
    let store = Store::open(&config, true).unwrap();
    let catalog = Catalog::open(&store, 0, Utc::now).await.unwrap();
    let started = Instant::now();
    catalog.change(fill).await.unwrap();
    let bytes = std::fs::metadata(folder.path().join("data/catalog.json")).unwrap().len();
    println!(
        "{MANY} organisations and keys: {bytes} bytes, made and written in {:?}",
        started.elapsed()
    );

    let started = Instant::now();
    let engine = Engine::open(config).await.unwrap();
    println!("engine opened in {:?}", started.elapsed());
    let mut times = Vec::with_capacity(2 * MANY);
    for number in (0..2 * MANY).map(|step| step * 7_919 % (2 * MANY)) {
        let key = format!("key-{number}");
        let started = Instant::now();
        let access = engine.access(&key);
        times.push(started.elapsed());
        let organisation = (number < MANY).then(|| format!("organisation-{number}"));
        assert_eq!(access.and_then(|access| access.organisation), organisation);
    }
    times.sort();
    println!(
        "key check: p50 {:?}, p99 {:?}, most {:?}",
        times[MANY],
        times[MANY * 2 * 99 / 100],
        times[2 * MANY - 1]
    );

    let started = Instant::now();
    let revoke = |document: &mut Document| {
        let id = document.keys[MANY / 2].id.clone();
        document.revoke_key(&id, &gatelog::engine::Access::operator("test"), Utc::now()).map(|_| ())
    };
    catalog.change(revoke).await.unwrap();
    println!("one change: {:?}", started.elapsed());
    let started = Instant::now();
    assert!(engine.catalog().refresh().await.unwrap());
    println!("refresh after it: {:?}", started.elapsed());
    assert!(
        engine.access(&format!("key-{}", MANY / 2)).is_none() && engine.access("key-0").is_some()
    );
    engine.close().await.unwrap();
}
