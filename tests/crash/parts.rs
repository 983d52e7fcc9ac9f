//! Records whose halves come apart, and feedback, to a server that is killed again and again: what
//! was acked of a record is in its one row, whichever half came first, however often, and however
//! late, and acked feedback is there with the value that was given last. In every second round no
//! half waits for the other, so what comes second is added to a stored record.
//!
//! `GATELOG_TEST_PARTS_ROUNDS` changes the number of rounds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{KEY, Server};

const ROUNDS: u64 = 40;
const WRITERS: u64 = 4;

/// Acked data: of a record its metrics and its content, of feedback its value.
#[derive(Clone, Default)]
struct Journal {
    record_parts: BTreeMap<String, [bool; 2]>,
    feedback: BTreeMap<String, i64>,
    /// Feedback whose change was sent without an answer: it may hold either value.
    unsure: BTreeMap<String, i64>,
}

/// Sends a half; true if it was acked.
async fn send_part(client: &reqwest::Client, address: &str, id: &str, content: bool) -> bool {
    let (path, body) = if content {
        let log = json!({
            "_id": id, "organisation_id": "org-1", "created_at": "Sun Nov 01 2026 10:00:00 GMT+0000 (UTC)",
            "request": { "url": "http://127.0.0.1/v1/chat/completions", "method": "POST", "body": { "text": "x".repeat(300) } },
            "response": { "status": 200, "body": { "said": id } },
        });
        (
            "/v1/logs/enterprise/logs?organisation_id=org-1",
            json!({ "logObject": log, "logOptions": {} }),
        )
    } else {
        let row = json!({
            "id": id, "organisation_id": "org-1", "created_at": "2026-11-01 10:00:00.000", "is_success": true,
            "ai_org": "openai", "ai_model": "gpt-4o", "req_units": 9, "res_units": 9, "total_units": 18, "cost": 0.01125,
            "response_status_code": 200, "trace_id": id,
        });
        ("/v1/analytics/enterprise/analytics", json!({ "table": "generations", "data": [row] }))
    };
    let request =
        client.post(format!("http://{address}{path}")).header("authorization", KEY).json(&body);
    match request.send().await {
        Ok(answer) => {
            let status = answer.status();
            assert_eq!(status, 200, "{}", answer.text().await.unwrap_or_default());
            true
        }
        Err(_) => false,
    }
}

async fn send_feedback(
    client: &reqwest::Client,
    address: &str,
    id: Option<&str>,
    value: i64,
) -> Option<String> {
    let request = match id {
        None => client.post(format!("http://{address}/v1/feedback")),
        Some(id) => client.put(format!("http://{address}/v1/feedback/{id}")),
    };
    let request =
        request.header("x-portkey-api-key", KEY).json(&json!({ "trace_id": "t", "value": value }));
    let answer: Value = request.send().await.ok()?.json().await.ok()?;
    Some(answer["feedback_ids"][0].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}

/// Sends parts until the server dies.
async fn write(
    address: String,
    journal: Arc<Mutex<Journal>>,
    prefix: String,
    mut random: SmallRng,
) {
    let client = reqwest::Client::new();
    let mut waiting: Vec<(String, bool)> = Vec::new();
    for number in 0.. {
        let id = format!("{prefix}-{number}");
        waiting.extend([(id.clone(), false), (id, true)]);
        waiting.shuffle(&mut random);
        let record_parts: Vec<_> = waiting.drain(..random.random_range(0..waiting.len())).collect();
        for (id, content) in record_parts {
            let sends = if random.random_bool(0.2) { 2 } else { 1 };
            for _ in 0..sends {
                if !send_part(&client, &address, &id, content).await {
                    return;
                }
                journal.lock().unwrap().record_parts.entry(id.clone()).or_default()
                    [usize::from(content)] = true;
            }
        }
        if random.random_bool(0.3) {
            let Some(id) = send_feedback(&client, &address, None, 1).await else { return };
            journal.lock().unwrap().feedback.insert(id.clone(), 1);
            let value = random.random_range(-10..=10);
            journal.lock().unwrap().unsure.insert(id.clone(), value);
            if send_feedback(&client, &address, Some(&id), value).await.is_none() {
                return;
            }
            let mut journal = journal.lock().unwrap();
            journal.unsure.remove(&id);
            journal.feedback.insert(id, value);
        }
    }
}

/// The rows of a statement, without its head.
async fn rows(address: &str, query: &str) -> Vec<Vec<String>> {
    let url = reqwest::Url::parse_with_params(
        &format!("http://{address}/v1/sql"),
        [("query", query), ("format", "csv")],
    );
    let answer = reqwest::Client::new()
        .get(url.unwrap())
        .header("x-portkey-api-key", KEY)
        .send()
        .await
        .unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// Returns the acked parts that are missing from the rows. Late parts arrive after a flush.
async fn missing(address: &str, journal: &Journal, round: u64) -> Vec<String> {
    let mut found: BTreeMap<String, [bool; 2]> = BTreeMap::new();
    let query = "select id, total_units is not null, response.body is not null from logs";
    for row in rows(address, query).await {
        let parts = [row[1] == "true", row[2] == "true"];
        assert!(
            found.insert(row[0].clone(), parts).is_none(),
            "round {round}: {} is stored twice",
            row[0]
        );
    }
    let mut missing = Vec::new();
    for (id, acked) in &journal.record_parts {
        let stored = found.get(id).unwrap_or_else(|| panic!("round {round}: {id} is lost"));
        if acked.iter().zip(stored).any(|(acked, stored)| *acked && !stored) {
            missing.push(format!(
                "of {id} was acked {acked:?}, but there is {stored:?} (figures, content)"
            ));
        }
    }
    missing
}

async fn compare(address: &str, journal: &Journal, round: u64) {
    let started = Instant::now();
    while let missing = missing(address, journal, round).await
        && !missing.is_empty()
    {
        assert!(started.elapsed() < Duration::from_secs(60), "round {round}: {missing:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let values: BTreeMap<String, String> =
        rows(address, "select id, cast(value as bigint) from feedback")
            .await
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
    for (id, value) in &journal.feedback {
        let stored =
            values.get(id).unwrap_or_else(|| panic!("round {round}: feedback {id} is lost"));
        let unsure = journal.unsure.get(id).is_some_and(|value| value.to_string() == *stored);
        assert!(
            *stored == value.to_string() || unsure,
            "round {round}: feedback {id} is {stored}, {value} was acked"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_and_feedback_come_through_kills() {
    let rounds =
        std::env::var("GATELOG_TEST_PARTS_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(Mutex::new(Journal::default()));
    let mut random = SmallRng::seed_from_u64(13);
    for round in 0..rounds {
        let join_seconds = if round % 2 == 0 { "600" } else { "0" };
        let data = folder.path().join("data").display().to_string();
        let settings = [("GATELOG_DATA", data), ("GATELOG_JOIN_SECONDS", join_seconds.to_owned())];
        let server = Server::start_with(folder.path(), &settings).await;
        if round % 5 == 0 {
            let known = journal.lock().unwrap().clone();
            compare(&server.address, &known, round).await;
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let random = SmallRng::seed_from_u64(round * WRITERS + writer);
                let prefix = format!("r{round}-w{writer}");
                tokio::spawn(write(server.address.clone(), Arc::clone(&journal), prefix, random))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(20..1_500))).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let server = Server::start(folder.path()).await;
    let journal = journal.lock().unwrap().clone();
    compare(&server.address, &journal, rounds).await;
    let whole =
        journal.record_parts.values().filter(|record_parts| **record_parts == [true, true]).count();
    println!(
        "{rounds} kills: {} records, {whole} whole, {} of feedback",
        journal.record_parts.len(),
        journal.feedback.len()
    );
    assert!(whole > 100 && journal.feedback.len() > 20, "too little was sent to show anything");
    server.kill();
}
