//! Records on their way in: `/v1/logs` and `/v1/ingest`.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Server, failure, gzip, header, ndjson, record};

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn portkeys_insert_always_answers_ok() {
    let server = Server::start().await;
    let log = |text: &str| {
        json!({
            "request": { "url": "https://api.openai.com/v1/chat/completions", "body": { "model": "gpt-a", "messages": [text] } },
            "response": { "status": 200, "body": { "usage": {} }, "response_time": "0123" },
            "metadata": { "_user": "ann", "traceId": text },
        })
    };
    let one = log("one").to_string();
    let array = json!([log("two"), log("three")]).to_string();
    let numbered = json!({ "0": log("four"), "1": log("five") }).to_string();
    let packed = gzip(log("six").to_string().as_bytes());
    for (body, accepted, rejected) in [
        (Bytes::from(one), "1", "0"),
        (Bytes::from(array), "2", "0"),
        (Bytes::from(numbered), "2", "0"),
        (Bytes::from(packed), "1", "0"),
        (Bytes::new(), "0", "0"),
        (Bytes::from_static(b"{not json"), "0", "1"),
        (Bytes::from_static(&[0x1f, 0x8b, 0, 0]), "0", "1"),
    ] {
        let response = server
            .post("/v1/logs", body.clone())
            .header("content-type", "image/png")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{body:?}");
        assert_eq!(header(&response, "content-type"), "text/plain; charset=UTF-8");
        assert_eq!(header(&response, "x-gatelog-accepted"), accepted, "{body:?}");
        assert_eq!(header(&response, "x-gatelog-rejected"), rejected, "{body:?}");
        assert_eq!(response.text().await.unwrap(), "ok");
    }
    let rows =
        server.sql("select ai_model, response_time, user_id, organisation_id from logs").await;
    assert_eq!(rows.len(), 6);
    assert_eq!(
        rows[0],
        json!({ "ai_model": "gpt-a", "response_time": 123, "user_id": "ann", "organisation_id": "default" })
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_of_the_insert_is_413() {
    let server = Server::start_with(|config| config.max_record_bytes = 64 << 10).await;
    let (message, _) =
        failure(server.post("/v1/logs", vec![b' '; 3 << 20]), StatusCode::PAYLOAD_TOO_LARGE).await;
    assert!(message.contains("/v1/ingest"), "{message}");
    let bomb = gzip(&vec![b' '; 64 << 20]);
    failure(server.post("/v1/logs", bomb), StatusCode::PAYLOAD_TOO_LARGE).await;
    failure(server.post("/v1/sql", vec![b' '; 3 << 20]), StatusCode::PAYLOAD_TOO_LARGE).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_takes_lines_and_arrays_plain_and_packed() {
    let server = Server::start().await;
    let array = |numbers: std::ops::Range<u64>| {
        Value::from(numbers.map(record).collect::<Vec<_>>()).to_string()
    };
    let taken = |accepted: u64, duplicate: u64| json!({ "accepted": accepted, "duplicate": duplicate, "over_quota": 0, "past_retention": 0, "rejected": 0, "rejections": [] });
    assert_eq!(server.ingest(ndjson(0..10)).await, taken(10, 0));
    assert_eq!(server.ingest(array(5..20)).await, taken(10, 5));
    assert_eq!(server.ingest(gzip(ndjson(20..30).as_bytes())).await, taken(10, 0));
    assert_eq!(server.ingest(zstd(array(30..40).as_bytes())).await, taken(10, 0));
    assert_eq!(server.ingest("").await, taken(0, 0));
    assert_eq!(server.ingest("\n \n").await, taken(0, 0));
    let coded = server
        .post("/v1/ingest", gzip(ndjson(40..50).as_bytes()))
        .header("content-encoding", "gzip");
    assert_eq!(coded.send().await.unwrap().json::<Value>().await.unwrap(), taken(10, 0));
    assert_eq!(server.count().await, 50);

    let coded = server.post("/v1/ingest", "x").header("content-encoding", "br");
    failure(coded, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    let (message, _) =
        failure(server.post("/v1/ingest?source=otel", "x"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("native") && message.contains("portkey"), "{message}");
    failure(server.post("/v1/ingest?sauce=native", "x"), StatusCode::BAD_REQUEST).await;

    let portkey =
        json!({ "request": { "body": { "model": "m" } }, "response": { "body": {} } }).to_string();
    let response = server.post("/v1/ingest?source=portkey", portkey).send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap(), taken(1, 0));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_named_and_the_others_kept() {
    let server = Server::start().await;
    let body = format!(
        "{}{}\n{}{}\n",
        ndjson(0..2),
        json!({ "id": "x", "response_time": "soon" }),
        ndjson(2..3),
        "{oops"
    );
    let receipt = server.ingest(body).await;
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(3), &json!(2)));
    let rejections = receipt["rejections"].as_array().unwrap();
    assert_eq!(rejections.len(), 2);
    assert_eq!(
        (&rejections[0]["field"], &rejections[0]["value"]),
        (&json!("response_time"), &json!("\"soon\""))
    );
    assert!(rejections[0]["expected"].is_string() && rejections[0]["record"].is_number());
    assert_eq!((&rejections[0]["line"], &rejections[1]["line"]), (&json!(3), &json!(5)));
    assert_eq!(rejections[0]["excerpt"], "{\"response_time\":\"soon\",\"id\":…}");
    assert!(rejections[1].get("excerpt").is_none(), "{receipt}");
    assert_eq!(
        rejections[1]["record"].as_u64().unwrap() - rejections[0]["record"].as_u64().unwrap(),
        2
    );

    let bad = "{\"nope\": 1}\n".repeat(250);
    let (message, body) = failure(server.post("/v1/ingest", bad), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("nope"), "{message}");
    assert_eq!((&body["accepted"], &body["rejected"]), (&json!(0), &json!(250)));
    assert_eq!(body["rejections"].as_array().unwrap().len(), 100);
    assert_eq!(server.count().await, 3);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_an_error_that_says_what_was_kept() {
    let server = Server::start().await;
    let whole = gzip(ndjson(0..5000).as_bytes());
    let (_, body) = failure(
        server.post("/v1/ingest", whole[..whole.len() / 2].to_vec()),
        StatusCode::BAD_REQUEST,
    )
    .await;
    let kept = body["accepted"].as_u64().unwrap();
    assert_eq!(server.count().await, kept);
    assert_eq!(server.ingest(whole).await["duplicate"], json!(kept));
    assert_eq!(server.count().await, 5000);

    let array = json!([record(9000), record(9001)]).to_string();
    let receipt = server.ingest(array[..array.len() - 1].to_owned()).await;
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(2), &json!(1)), "{receipt}");
    assert!(
        receipt["rejections"][0]["expected"].as_str().unwrap().contains("cut off"),
        "{receipt}"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_over_the_limit_is_rejected_alone() {
    let server = Server::start_with(|config| config.max_record_bytes = 64 << 10).await;
    // Text that packs to more than a thousandth of its size, which would be refused as a whole.
    let text: String = (0..5_000_000).map(|number| number.to_string()).collect();
    let huge = json!({ "id": "huge", "request": { "body": { "text": text } } }).to_string();
    let receipt =
        server.ingest(zstd(format!("{}{huge}\n{}", ndjson(0..1), ndjson(1..2)).as_bytes())).await;
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(2), &json!(1)), "{receipt}");
    assert_eq!(receipt["rejections"][0]["record"], json!(1), "{receipt}");
    server.end().await;
}

/// A body of 192 MB comes in pieces while the memory for rows is 16 MiB; the process must not grow
/// with the body.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_is_streamed_in_little_memory() {
    const RECORDS: u64 = 1920;
    let server = Server::start_with(|config| {
        config.memtable_bytes = 16 << 20;
        config.flush_bytes = 4 << 20;
        config.append_wait_ms = 60_000;
    })
    .await;
    let text = "x".repeat(100_000);
    let before = resident_bytes();
    let lines = futures::stream::iter(0..RECORDS).map(move |number| {
        let line =
            json!({ "id": format!("big-{number}"), "request": { "body": { "text": text } } });
        Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n")))
    });
    let mut sending = Box::pin(server.ingest(reqwest::Body::wrap_stream(lines)));
    let mut most = before;
    let receipt = loop {
        tokio::select! {
            receipt = &mut sending => break receipt,
            () = tokio::time::sleep(Duration::from_millis(5)) => most = most.max(resident_bytes()),
        }
    };
    drop(sending);
    assert_eq!(receipt["accepted"], json!(RECORDS));
    assert_eq!(server.count().await, RECORDS);
    let grown = most.saturating_sub(before) >> 20;
    // Held in memory it would be there twice, as text and as records: 366 MiB. Other tests run
    // beside this one.
    assert!(grown < 183, "the process grew by {grown} MiB");
    server.end().await;
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_engine_answers_429_and_what_it_kept() {
    let server = Server::start_with(|config| {
        config.memtable_bytes = 1 << 20;
        config.flush_bytes = 1 << 20;
        config.flush_seconds = 3_600;
        config.append_wait_ms = 0;
    })
    .await;
    let big = |number: u64| {
        format!(
            "{}\n",
            json!({ "id": format!("b-{number}"), "request": { "body": "x".repeat(100_000) } })
        )
    };
    let body: String = (0..400).map(big).collect();
    let response = server.post("/v1/ingest", body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(header(&response, "retry-after").parse::<u64>().unwrap() >= 1);
    let receipt: Value = response.json().await.unwrap();
    assert!(receipt["message"].as_str().unwrap().contains("id"), "{receipt}");
    assert_eq!(server.count().await, receipt["accepted"].as_u64().unwrap());
    server.end().await;
}

/// List, log, export and SQL agree on a body that has a key twice, on every route that brings
/// bodies.
#[tokio::test(flavor = "multi_thread")]
async fn of_doubled_keys_in_bodies_every_answer_has_the_last() {
    let server = Server::start().await;
    let body = r#"{"model":"first","tools":[{"name":"x","name":"y"}],"n":1e2,"model":"last"}"#;
    let native = format!(r#"{{"id":"native","request":{{"body":{body}}}}}"#);
    let portkey = format!(
        r#"{{"request":{{"body":{body}}},"response":{{}},"metadata":{{"traceId":"portkey"}}}}"#
    );
    for (path, body) in [("/v1/ingest", &native), ("/v1/logs", &portkey)] {
        let answer = server.post(path, body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    let kept = r#"{"tools":[{"name":"y"}],"n":1e2,"model":"last"}"#;
    let told = "select id, request['body'] ->> 'model' as model, \
                json_get_str(request['body'], 'tools', 0, 'name') as tool, request['body'] as body from logs";
    let rows = server.sql(told).await;
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!([&row["model"], &row["tool"], &row["body"]], ["last", "y", kept]);
        let log =
            server.get(&format!("/v1/logs/{}", row["id"].as_str().unwrap())).send().await.unwrap();
        assert!(log.text().await.unwrap().contains(kept));
    }
    let lines =
        server.get("/v1/export?columns=request.body").send().await.unwrap().text().await.unwrap();
    assert_eq!(lines, format!("{{\"request.body\":{kept}}}\n").repeat(2));
    server.end().await;
}
