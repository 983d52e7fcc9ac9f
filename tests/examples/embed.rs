//! Embeds the engine in a program: appends records, asks SQL, exports JSON lines.
//!
//! Run it with `cargo run --example embed`.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use gatelog::record::Message;
use gatelog::{Config, Engine, ExportRequest, Params, Record};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let engine = Engine::open(Config { data, ..Config::default() }).await?;

    let call = |model: &str, tokens: i64| Record {
        ai_model: Some(model.to_owned()),
        total_units: Some(tokens),
        response_status_code: Some(200),
        request: Message {
            body: Some(r#"{"messages":[{"role":"user","content":"Hello"}]}"#.to_owned()),
            ..Message::default()
        },
        ..Record::default()
    };
    // The records are on the disk and visible to queries when this returns.
    let receipt = engine.append(vec![call("gpt-4o", 120), call("claude-sonnet-4-5", 80)]).await?;
    println!("{} records stored", receipt.accepted);

    let params = Params::from([("least".to_owned(), 100.into())]);
    let answer = engine
        .sql("select ai_model, total_units from logs where total_units >= $least", &params)
        .await?;
    let batches: Vec<_> = answer.batches.try_collect().await?;
    println!("{}", pretty_format_batches(&batches)?);

    let columns = Some(vec!["ai_model".to_owned(), "request.body".to_owned()]);
    let mut lines = engine.export(&ExportRequest { columns, ..ExportRequest::default() }).await?;
    while let Some(chunk) = lines.try_next().await? {
        print!("{}", String::from_utf8_lossy(&chunk));
    }

    // Flushes what is in memory to the table. A program that ends without it loses nothing.
    engine.close().await?;
    Ok(())
}
