//! Sixteen clients of an organisation whose plan stops at 10,000 records a month, and a server that
//! is killed fifty times.
//!
//! Never more than 10,000 are stored, never fewer than were acked as stored, and in the end exactly
//! 10,000, whatever the log, the counts beside the table and the kills left behind.
//! `GATELOG_TEST_QUOTA_ROUNDS` changes the number of rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{KEY, Server};

const LIMIT: u64 = 10_000;
const ROUNDS: u64 = 50;
const WRITERS: u64 = 16;

/// Sends batches until the server dies or `batches` are sent; counts what was acked as stored.
async fn write(
    address: String,
    prefix: String,
    batches: u64,
    acked: Arc<AtomicU64>,
    mut random: SmallRng,
) {
    let client = reqwest::Client::new();
    for batch in 0..batches {
        let lines = (0..random.random_range(1..20)).map(|n| {
            format!("{{\"id\":\"{prefix}-{batch}-{n}\",\"organisation_id\":\"small\"}}\n")
        });
        let request =
            client.post(format!("http://{address}/v1/ingest")).header("x-portkey-api-key", KEY);
        let Ok(answer) = request.body(lines.collect::<String>()).send().await else { return };
        assert_eq!(answer.status(), 200);
        let Ok(receipt) = answer.json::<serde_json::Value>().await else { return };
        acked.fetch_add(receipt["accepted"].as_u64().unwrap(), Ordering::SeqCst);
    }
}

/// Records that are in answers, and records that are counted.
async fn counts(address: &str) -> (u64, u64) {
    let text = "select (select count(*) from logs) as stored, \
        (select coalesce(sum(records), 0) from usage where organisation_id = 'small') as used";
    let url = reqwest::Url::parse_with_params(
        &format!("http://{address}/v1/sql"),
        [("query", text), ("format", "csv")],
    );
    let answer = reqwest::Client::new()
        .get(url.unwrap())
        .header("x-portkey-api-key", KEY)
        .send()
        .await
        .unwrap();
    let text = answer.text().await.unwrap();
    let (stored, used) =
        text.lines().nth(1).unwrap_or_else(|| panic!("{text}")).split_once(',').unwrap();
    (stored.parse().unwrap(), used.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_exact_through_kills() {
    let rounds =
        std::env::var("GATELOG_TEST_QUOTA_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let create =
        reqwest::Client::new().post(format!("http://{}/v1/admin/organisations", server.address));
    let create =
        create.header("x-portkey-api-key", KEY).body(r#"{"id":"small","plan":"developer"}"#);
    assert_eq!(
        create.header("content-type", "application/json").send().await.unwrap().status(),
        201
    );
    server.kill();

    let acked = Arc::new(AtomicU64::new(0));
    let mut random = SmallRng::seed_from_u64(11);
    for round in 0..rounds {
        let server = Server::start(folder.path()).await;
        let (stored, used) = counts(&server.address).await;
        assert_eq!(stored, used, "round {round}: stored and counted differ");
        let known = acked.load(Ordering::SeqCst);
        assert!(
            (known..=LIMIT).contains(&stored),
            "round {round}: {stored} stored, {known} acked as stored"
        );
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let random = SmallRng::seed_from_u64(round * WRITERS + writer);
                let prefix = format!("r{round}-w{writer}");
                tokio::spawn(write(
                    server.address.clone(),
                    prefix,
                    u64::MAX,
                    Arc::clone(&acked),
                    random,
                ))
            })
            .collect();
        // Killed in the midst of it, after some hundred records or, once the quota is used up, some
        // time.
        let (wanted, started) = (known + random.random_range(1..500), Instant::now());
        let most = if known < LIMIT { Duration::from_secs(5) } else { Duration::from_millis(400) };
        while acked.load(Ordering::SeqCst) < wanted && started.elapsed() < most {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let server = Server::start(folder.path()).await;
    let before = counts(&server.address).await.0;
    let random = SmallRng::seed_from_u64(1);
    write(server.address.clone(), "last".to_owned(), 1_500, Arc::clone(&acked), random).await;
    assert_eq!(counts(&server.address).await, (LIMIT, LIMIT));
    println!(
        "{rounds} kills: {before} stored before the last round, {} acked as stored",
        acked.load(Ordering::SeqCst)
    );
    server.kill();
}
