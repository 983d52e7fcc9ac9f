//! Kills the real server with `kill -9` at random moments, again and again, and compares what it
//! then answers with a journal of what it acked: every acked id exactly once, every other id at
//! most once, and nothing that was never sent.
//!
//! Four writers send small batches, sometimes the same batch twice, as retrying clients do.
//! Flushes, commits and merges are made so frequent that kills fall into them.
//! `GATELOG_TEST_ROUNDS` changes the number of rounds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a test that cannot go on says so by panicking"
)]

mod disk;
mod nodes;
mod parts;
mod quota;
#[path = "../it/seaweedfs.rs"]
mod seaweedfs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const ROUNDS: u64 = 100;
const WRITERS: u64 = 4;
const KEY: &str = "crash-test-key";

/// Knowledge of the clients.
#[derive(Default)]
struct Journal {
    acked: BTreeSet<String>,
    unacked: BTreeSet<String>,
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// Starts a server on the data folder below `folder`.
    async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[("GATELOG_DATA", folder.join("data").display().to_string())])
            .await
    }

    /// Starts a server with settings of its own; `folder` is where it says its address.
    #[expect(
        clippy::zombie_processes,
        reason = "`kill` waits, and a test that panics before it ends the process"
    )]
    async fn start_with(folder: &Path, settings: &[(&str, String)]) -> Self {
        let address_file = folder.join("address");
        let _ = std::fs::remove_file(&address_file);
        let process = Command::new(env!("CARGO_BIN_EXE_gatelog"))
            .args(["--quiet", "serve", "--listen", "127.0.0.1:0", "--address-file"])
            .arg(&address_file)
            .env("GATELOG_ADMIN_KEY", KEY)
            .env("GATELOG_FLUSH_BYTES", "64KiB")
            .env("GATELOG_FLUSH_SECONDS", "1")
            .env("GATELOG_COMPACT_SCHEDULE", "1s")
            .env("GATELOG_CHECKPOINT_COMMITS", "10")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            if let Ok(address) = std::fs::read_to_string(&address_file)
                && !address.trim().is_empty()
            {
                return Self { process, address: address.trim().to_owned() };
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the server does not start after a kill"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn line(id: &str, round: u64) -> String {
    // Several days and organisations, so that a flush writes several files.
    let (day, organisation) = (1 + round % 3, round % 5);
    format!(
        "{{\"id\":\"{id}\",\"organisation_id\":\"org-{organisation}\",\"created_at\":\"2026-11-0{day}T10:00:00Z\",\
         \"request\":{{\"body\":{{\"text\":\"{}\"}}}}}}\n",
        "x".repeat(400)
    )
}

/// Sends batches until the server dies.
async fn write(
    address: String,
    journal: Arc<Mutex<Journal>>,
    round: u64,
    writer: u64,
    mut random: SmallRng,
) {
    let client = reqwest::Client::new();
    for batch in 0.. {
        let ids: Vec<String> = (0..random.random_range(1..20))
            .map(|n| format!("r{round}-w{writer}-b{batch}-{n}"))
            .collect();
        let body: String = ids.iter().map(|id| line(id, round)).collect();
        journal.lock().unwrap().unacked.extend(ids.iter().cloned());
        let sends = if random.random_bool(0.2) { 2 } else { 1 };
        for _ in 0..sends {
            let request =
                client.post(format!("http://{address}/v1/ingest")).header("x-portkey-api-key", KEY);
            let Ok(answer) = request.body(body.clone()).send().await else { return };
            if answer.status() != 200 {
                return;
            }
            let mut journal = journal.lock().unwrap();
            for id in &ids {
                journal.unacked.remove(id);
                journal.acked.insert(id.clone());
            }
        }
    }
}

/// Every id that the server has, and how often.
async fn stored(address: &str) -> BTreeMap<String, u64> {
    let query = [("query", "select id from logs"), ("format", "csv")];
    let url = reqwest::Url::parse_with_params(&format!("http://{address}/v1/sql"), query).unwrap();
    let answer =
        reqwest::Client::new().get(url).header("x-portkey-api-key", KEY).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    let mut ids = BTreeMap::new();
    for id in text.lines().skip(1) {
        *ids.entry(id.to_owned()).or_insert(0) += 1;
    }
    ids
}

fn compare(stored: &BTreeMap<String, u64>, journal: &Journal, round: u64) {
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "round {round}: stored more than once: {twice:?}");
    let lost: Vec<_> =
        journal.acked.iter().filter(|id| !stored.contains_key(*id)).take(5).collect();
    assert!(lost.is_empty(), "round {round}: acked but not stored: {lost:?}");
    let known = |id: &String| journal.acked.contains(id) || journal.unacked.contains(id);
    let strange: Vec<_> = stored.keys().filter(|id| !known(id)).take(5).collect();
    assert!(strange.is_empty(), "round {round}: stored but never sent: {strange:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_has_every_acked_record_once() {
    let rounds = std::env::var("GATELOG_TEST_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(Mutex::new(Journal::default()));
    let mut random = SmallRng::seed_from_u64(7);
    for round in 0..rounds {
        let server = Server::start(folder.path()).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let random = SmallRng::seed_from_u64(round * WRITERS + writer);
                tokio::spawn(write(
                    server.address.clone(),
                    Arc::clone(&journal),
                    round,
                    writer,
                    random,
                ))
            })
            .collect();
        if round % 10 == 9 {
            // Also while the writers write.
            let before = journal.lock().unwrap().acked.clone();
            let stored = stored(&server.address).await;
            assert!(
                before.iter().all(|id| stored.contains_key(id)),
                "round {round}: an acked record is not visible"
            );
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(20..600))).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let server = Server::start(folder.path()).await;
    let stored = stored(&server.address).await;
    let journal = journal.lock().unwrap();
    compare(&stored, &journal, rounds);
    println!(
        "{rounds} kills: {} acked, {} stored, {} sent without an ack",
        journal.acked.len(),
        stored.len(),
        journal.unacked.len()
    );
    server.kill();
}
