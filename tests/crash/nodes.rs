//! Two servers on one bucket, each with a log of its own, killed in turn again and again: what the
//! clients of either were acked is there once, read through either. `GATELOG_TEST_NODE_ROUNDS`
//! changes the number of rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::seaweedfs::Weed;
use super::{Journal, Server, compare, stored, write};

const ROUNDS: u64 = 100;

/// Settings of a node whose log lies below `folder`.
fn settings(weed: &Weed, bucket: &str, folder: &Path) -> Vec<(&'static str, String)> {
    let config = weed.config_for(bucket, folder);
    vec![
        ("GATELOG_DATA", config.data),
        ("GATELOG_WAL", config.wal),
        ("GATELOG_S3_ENDPOINT", config.s3_endpoint),
        ("GATELOG_S3_REGION", config.s3_region),
        ("GATELOG_S3_ACCESS_KEY_ID", config.s3_access_key_id),
        ("GATELOG_S3_SECRET_ACCESS_KEY", config.s3_secret_access_key.0),
        ("GATELOG_REFRESH_SECONDS", "1".to_owned()),
        ("GATELOG_LEASE_SECONDS", "5".to_owned()),
    ]
}

/// Returns the rows of a node, once it has seen the flushes of the other one.
async fn settled(address: &str, journal: &Journal) -> BTreeMap<String, u64> {
    let started = Instant::now();
    loop {
        let found = stored(address).await;
        if journal.acked.iter().all(|id| found.contains_key(id))
            || started.elapsed() > Duration::from_secs(60)
        {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_on_one_bucket_keep_every_acked_record_once() {
    let rounds =
        std::env::var("GATELOG_TEST_NODE_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let weed = Weed::start();
    let bucket = weed.bucket().await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings = folders.each_ref().map(|folder| settings(&weed, &bucket, folder.path()));
    let start = async |node: usize| Server::start_with(folders[node].path(), &settings[node]).await;
    let journal = Arc::new(Mutex::new(Journal::default()));
    let mut random = SmallRng::seed_from_u64(23);
    let mut nodes = [Some(start(0).await), Some(start(1).await)];
    for round in 0..rounds {
        let writers: Vec<_> = [0, 1]
            .map(|node: usize| {
                let address = nodes[node].as_ref().unwrap().address.clone();
                let (seed, writer) = (round * 2 + node as u64, node as u64);
                tokio::spawn(write(
                    address,
                    Arc::clone(&journal),
                    round,
                    writer,
                    SmallRng::seed_from_u64(seed),
                ))
            })
            .into();
        tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
        // One is killed while the other writes on; then the other one too, so that both writers
        // end.
        let first = random.random_range(0..2);
        for node in [first, 1 - first] {
            nodes[node].take().unwrap().kill();
            if random.random_bool(0.5) {
                nodes[node] = Some(start(node).await);
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        for node in [0, 1] {
            if nodes[node].is_none() {
                nodes[node] = Some(start(node).await);
            }
        }
    }
    let journal = std::mem::take(&mut *journal.lock().unwrap());
    for node in &nodes {
        compare(&settled(&node.as_ref().unwrap().address, &journal).await, &journal, rounds);
    }
    println!(
        "{rounds} rounds: {} acked, {} sent without an ack",
        journal.acked.len(),
        journal.unacked.len()
    );
    nodes.into_iter().flatten().for_each(Server::kill);
}
