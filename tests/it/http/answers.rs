//! Rows on their way out: `/v1/sql`, `/v1/reports` and `/v1/export`.

use std::io::{Read, Write};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{KEY, Server, eventually, failure, header, lines, ndjson};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_in_every_format() {
    let server = Server::start().await;
    server.ingest(ndjson(0..40)).await;
    let query = "select id, response_time as ms, metadata, request from logs order by response_time limit 3";
    let ask = |format: &'static str| {
        let body = json!({ "query": query, "format": format }).to_string();
        server.post("/v1/sql", body).header("content-type", "application/json").send()
    };

    let jsonl = ask("jsonl").await.unwrap();
    assert_eq!(header(&jsonl, "content-type"), "application/x-ndjson");
    let rows = lines(&jsonl.text().await.unwrap());
    assert_eq!(
        (rows.len(), &rows[1]["id"], &rows[1]["metadata"]),
        (3, &json!("id-1"), &json!({ "team": "search" }))
    );
    assert!(rows[1]["request"]["body"].as_str().unwrap().contains("question 1"));

    let array = ask("json").await.unwrap();
    assert_eq!(header(&array, "content-type"), "application/json");
    assert_eq!(array.json::<Vec<Value>>().await.unwrap(), rows);

    let csv = ask("csv").await.unwrap();
    assert_eq!(header(&csv, "content-type"), "text/csv; charset=utf-8");
    let csv = csv.text().await.unwrap();
    assert!(
        csv.starts_with("id,ms,metadata,request\nid-0,0,\"{\"\"team\"\":\"\"search\"\"}\","),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 4);

    let stream = ask("arrow").await.unwrap();
    assert_eq!(header(&stream, "content-type"), "application/vnd.apache.arrow.stream");
    let stream = stream.bytes().await.unwrap();
    let parquet = ask("parquet").await.unwrap();
    assert_eq!(header(&parquet, "content-type"), "application/vnd.apache.parquet");
    let mut parquet = ParquetRecordBatchReaderBuilder::try_new(parquet.bytes().await.unwrap())
        .unwrap()
        .build()
        .unwrap();
    for batch in
        [StreamReader::try_new(&stream[..], None).unwrap().next().unwrap(), parquet.next().unwrap()]
    {
        let batch = batch.unwrap();
        assert_eq!(
            batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["id-0", "id-1", "id-2"]
        );
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().values(), &[0, 1, 2]);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_is_asked_for_by_name_or_accept() {
    let server = Server::start().await;
    let sql = "/v1/sql?query=select+1+as+a";
    let by_accept =
        server.get(sql).header("accept", "text/html, text/csv;q=0.9").send().await.unwrap();
    assert_eq!(by_accept.text().await.unwrap(), "a\n1\n");
    let named = server
        .get(&format!("{sql}&format=json"))
        .header("accept", "text/csv")
        .send()
        .await
        .unwrap();
    assert_eq!(named.text().await.unwrap(), "[{\"a\":1}]");
    let (message, _) =
        failure(server.get(&format!("{sql}&format=xml")), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("jsonl, json, csv, arrow, parquet"), "{message}");
    failure(server.get(sql).header("accept", "image/png"), StatusCode::NOT_ACCEPTABLE).await;
    let none =
        server.get("/v1/sql?query=select+1+as+a+where+false&format=json").send().await.unwrap();
    assert_eq!(none.text().await.unwrap(), "[]");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_takes_parameters_and_fails_with_words() {
    let server = Server::start().await;
    server.ingest(ndjson(0..10)).await;
    let by_name = "/v1/sql?query=select+id+from+logs+where+response_time+%3D+%24ms+and+ai_model+%3D+%24model\
                   &param.ms=4&param.model=gpt-a";
    let response = server.get(by_name).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "{\"id\":\"id-4\"}\n");
    let body = json!({ "query": "select id from logs where response_time = $1", "params": [5] })
        .to_string();
    let by_place = server
        .post("/v1/sql", body)
        .header("content-type", "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(by_place.text().await.unwrap(), "{\"id\":\"id-5\"}\n");

    for query in
        ["select nope from logs", "selec 1", "drop table logs", "insert into logs values (1)", " "]
    {
        failure(server.post("/v1/sql", query), StatusCode::BAD_REQUEST).await;
    }
    failure(server.get("/v1/sql"), StatusCode::BAD_REQUEST).await;
    failure(server.get("/v1/sql?sql=select+1"), StatusCode::BAD_REQUEST).await;
    assert_eq!(server.count().await, 10);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fails_on_its_way_breaks_the_connection() {
    let server = Server::start_with(|config| config.query_max_rows = 300_000).await;
    let query =
        format!("select value, '{}' as text from generate_series(1, 1000000)", "x".repeat(100));
    let response = server.post("/v1/sql", query).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await.is_err(), "a broken answer looked whole");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_refused_where_answers_are_streamed() {
    let server = Server::start().await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET /v1/export HTTP/1.0\r\nx-portkey-api-key: {KEY}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.contains(" 505 ") && answer.contains("proxy_http_version"), "{answer}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_listed_and_run() {
    let server = Server::start().await;
    server.ingest(ndjson(0..10)).await;
    let list: Value = server.get("/v1/reports").send().await.unwrap().json().await.unwrap();
    let reports = list["data"].as_array().unwrap();
    assert_eq!(list["total"].as_u64().unwrap() as usize, reports.len());
    for report in reports {
        assert!(report["purpose"].is_string() && report["params"].is_array());
        let name = report["name"].as_str().unwrap();
        let response = server.get(&format!("/v1/reports/{name}?format=csv")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        let names: Vec<&str> = report["columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            response.text().await.unwrap().lines().next().unwrap(),
            names.join(","),
            "{name}"
        );
    }
    let (message, _) = failure(server.get("/v1/reports/nope"), StatusCode::NOT_FOUND).await;
    assert!(message.contains("status"), "{message}");
    failure(server.get("/v1/reports/status?nope=1"), StatusCode::BAD_REQUEST).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_json_lines_of_the_columns_named() {
    let server = Server::start().await;
    server.ingest(ndjson(0..40)).await;
    let path = "/v1/export?from=2026-11-03&to=2026-11-05&columns=created_at,id,request.body";
    let response = server.get(path).send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "application/x-ndjson");
    assert!(header(&response, "content-disposition").contains("gatelog-export.jsonl"));
    let rows = lines(&response.text().await.unwrap());
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row.as_object().unwrap().len(), 3, "{row}");
        assert!(row["created_at"].as_str().unwrap().starts_with("2026-11-0"));
    }
    assert!(
        rows[0].to_string().contains(r#"{"content":"#)
            || rows[0].to_string().contains(r#""messages":[{"#),
        "{}",
        rows[0]
    );

    let body = json!({ "from": "2026-11-03", "to": "2026-11-05", "columns": ["created_at", "id", "request.body"] });
    let posted = server.post("/v1/export", body.to_string()).send().await.unwrap();
    assert_eq!(lines(&posted.text().await.unwrap()), rows);

    let first = server.get(&format!("{path}&limit=1")).send().await.unwrap().text().await.unwrap();
    assert_eq!(lines(&first), rows[..1]);
    let cursor =
        format!("{},{}", rows[0]["created_at"].as_str().unwrap(), rows[0]["id"].as_str().unwrap());
    let rest =
        server.get(path).query(&[("after", cursor)]).send().await.unwrap().text().await.unwrap();
    assert_eq!(lines(&rest), rows[1..]);

    let everything = server.post("/v1/export", "").send().await.unwrap().text().await.unwrap();
    assert_eq!(lines(&everything).len(), 40);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_refuses_other_formats_and_unknown_names() {
    let server = Server::start().await;
    let (message, _) = failure(server.get("/v1/export?format=csv"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("`csv`") && message.contains("jsonl"), "{message}");
    failure(server.get("/v1/export").header("accept", "text/csv"), StatusCode::NOT_ACCEPTABLE)
        .await;
    let (message, _) =
        failure(server.get("/v1/export?columns=id,colour"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("`colour`"), "{message}");
    for path in [
        "/v1/export?colums=id",
        "/v1/export?limit=many",
        "/v1/export?from=yesterday",
        "/v1/export?after=x",
    ] {
        failure(server.get(path), StatusCode::BAD_REQUEST).await;
    }
    failure(server.post("/v1/export", "{\"colums\": []}"), StatusCode::BAD_REQUEST).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_given_up_lets_go_of_its_query() {
    let server = Server::start().await;
    let query =
        format!("select a.value, '{}' as text from generate_series(1, 900000) a", "x".repeat(1000));
    let mut response = server.post("/v1/sql", query).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(server.engine.status().queries_running, 1);
    drop(response);
    eventually("the query ends", || async { server.engine.status().queries_running == 0 }).await;

    let slow = "select sum(value) from generate_series(1, 100000000000)";
    let waiting =
        tokio::time::timeout(Duration::from_millis(500), server.post("/v1/sql", slow).send());
    assert!(waiting.await.is_err());
    eventually("the query without an answer ends", || async {
        server.engine.status().queries_running == 0
    })
    .await;
    server.end().await;
}
