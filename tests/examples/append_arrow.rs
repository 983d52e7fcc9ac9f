//! Appends an Arrow batch. Its columns are any of the record's, by name; missing ones are filled in.
//!
//! Run it with `cargo run --example append_arrow`.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use gatelog::{Config, Engine, Params};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let engine = Engine::open(Config { data, ..Config::default() }).await?;

    let ids: ArrayRef = Arc::new(StringArray::from(vec!["call-1", "call-2", "call-3"]));
    let models: ArrayRef = Arc::new(StringArray::from(vec!["gpt-4o", "gpt-4o", "o3"]));
    let tokens: ArrayRef = Arc::new(Int64Array::from(vec![120, 80, 300]));
    let batch =
        RecordBatch::try_from_iter([("id", ids), ("ai_model", models), ("total_units", tokens)])?;
    let receipt = engine.append_batch(batch.clone()).await?;
    println!("{} records stored", receipt.accepted);
    // An id counts once, so a batch may be sent again if its receipt was lost.
    let again = engine.append_batch(batch).await?;
    println!("{} records stored, {} duplicates", again.accepted, again.duplicate);

    let sum = "select ai_model, sum(total_units) as tokens from logs group by 1 order by 1";
    let answer = engine.sql(sum, &Params::new()).await?;
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&batches)?);

    engine.close().await?;
    Ok(())
}
