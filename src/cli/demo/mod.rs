//! `gatelog demo`: creates sample records of some days in a folder of their own, serves them, and
//! prints commands to try.
//!
//! The records are generated here from gatelog's own word lists, without text from third parties.
//! They are the same for the same seed and end.

mod applications;
mod bodies;
mod feedback;
mod gateway;
mod generator;
mod plan;
mod words;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::json;

use self::feedback::Opinions;
use self::generator::Generator;
use self::plan::Plan;
use super::exit::Done;
use super::import::appender::append_patiently;
use super::output::{Sink, say};
use super::progress::{Progress, Unit, thousands};
use super::serve;
use super::settings::Context;
use gatelog::engine::{Access, Engine};
use gatelog::error::Result;
use gatelog::record::BatchBuilder;
use gatelog::record::json::Encoder;
use gatelog::time;

/// Default folder of the demo.
const FOLDER: &str = "gatelog-demo";
/// Number of records that are appended at once.
const RECORDS_AT_ONCE: usize = 1_000;

/// Creates sample records, serves them and prints commands to try
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog demo                  three days of records in ./gatelog-demo, on 127.0.0.1:8080
  gatelog demo --days 30 --records 500000 --data /tmp/big-demo --listen 127.0.0.1:0
  gatelog demo --no-serve       only fills the folder
  gatelog demo --records 1000 --jsonl samples.jsonl

The records are invented: conversations, failures, retries, cache hits, fallbacks, load balancing, embeddings, \
calls that are not tracked, feedback on some of the answers. A folder that already has records is served as it is. \
The same seed, end, days and records give the same samples.")]
pub(super) struct Args {
    /// Days over which the records are spread
    #[arg(long, value_name = "DAYS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// Number of records
    #[arg(long, value_name = "RECORDS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Seed of the generator; another seed gives other records
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    seed: u64,
    /// Time before which all records were created [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    end: Option<DateTime<Utc>>,
    /// Address and port of the server; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Fills the folder and exits
    #[arg(long)]
    no_serve: bool,
    /// Only writes the records to this file as JSON lines, `-` for stdout
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_serve", "listen"])]
    jsonl: Option<PathBuf>,
}

fn moment(text: &str) -> std::result::Result<DateTime<Utc>, String> {
    time::parse(text).ok_or_else(|| format!("expected {}", time::EXPECTED))
}

pub(super) async fn run(mut context: Context, args: Args) -> Result<Done> {
    let end = match args.end {
        Some(end) => end,
        None => Utc::now().duration_trunc(TimeDelta::minutes(1)).unwrap_or_else(|_| Utc::now()),
    };
    let plan = Plan { records: args.records, days: args.days, seed: args.seed, end };
    if let Some(path) = &args.jsonl {
        write_samples(plan, path)?;
        return Ok(Done::Success);
    }
    if context.is_default("data") {
        context.set_flag("data", FOLDER)?;
    }
    if let Some(listen) = &args.listen {
        context.set_flag("listen", listen)?;
    }
    let listener =
        if args.no_serve { None } else { Some(serve::bind(&context.config().listen).await?) };
    let engine = context.open_writer("name another folder with `--data`", true).await?;
    fill(&context, &engine, plan).await?;
    let Some(listener) = listener else {
        let key = engine.ensure_admin_key().await?;
        engine.close().await?;
        invite(&context, None, key.as_deref());
        return Ok(Done::Success);
    };
    serve::serve(&context, engine, listener, None, |address, key| {
        invite(&context, Some(address), key)
    })
    .await
}

/// Creates the records, unless the folder already has some.
async fn fill(context: &Context, engine: &Engine, plan: Plan) -> Result<()> {
    let status = engine.status();
    let there = status.file_rows + status.memory_rows;
    if there > 0 {
        if !context.quiet {
            say!(
                "`{}` already has {} records; none were added",
                context.config().data,
                thousands(there)
            );
        }
        return Ok(());
    }
    let mut progress = Progress::start("demo", Unit::Records, Some(plan.records), context.quiet);
    let mut records = Generator::new(plan).peekable();
    let mut opinions = Opinions::new(plan.seed);
    let mut done = 0;
    while records.peek().is_some() {
        let some: Vec<_> = records.by_ref().take(RECORDS_AT_ONCE).collect();
        done += some.len() as u64;
        let feedback = some.iter().filter_map(|record| opinions.feedback_on(record)).collect();
        engine.append_feedback_as(&Access::operator("demo"), feedback).await?;
        append_patiently(engine, some).await?;
        progress.set(done, String::new);
    }
    progress.finish();
    engine.flush().await?;
    if !context.quiet {
        let seconds = progress.seconds();
        let days = plan.days;
        let data = &context.config().data;
        say!(
            "made {} sample records of {days} days in `{data}` in {seconds:.1} s",
            thousands(done)
        );
    }
    Ok(())
}

fn write_samples(plan: Plan, path: &Path) -> Result<()> {
    let mut sink = Sink::open(Some(path))?;
    let watch = sink.watch();
    let encoder = Encoder::new(None)?;
    let mut batch = BatchBuilder::new();
    let mut lines = Vec::new();
    let mut records = Generator::new(plan).peekable();
    while records.peek().is_some() {
        records.by_ref().take(RECORDS_AT_ONCE).for_each(|record| batch.append(&record));
        lines.clear();
        encoder.encode(&batch.finish(), &mut lines)?;
        sink.write_all(&lines).map_err(|cause| watch.error(cause))?;
    }
    sink.finish()
}

/// Prints commands to try.
fn invite(context: &Context, address: Option<SocketAddr>, key: Option<&str>) {
    let data = &context.config().data;
    match key {
        Some(key) => say!("\nadmin key, shown only now:\n  export GATELOG_KEY={key}"),
        None if context.is_default("admin_key") => {
            say!("\nadmin key: the one that the first start printed\n  export GATELOG_KEY=...");
        }
        None => say!("\nadmin key: the value of the setting `admin_key`\n  export GATELOG_KEY=..."),
    }
    if context.quiet {
        return;
    }
    let query = "select ai_model, count(*) as calls, sum(cost) as cents from logs group by 1 order by 2 desc";
    say!("\ntry{}:", if address.is_some() { ", in another terminal" } else { "" });
    say!("  gatelog report status_counts --data {data}");
    say!("  gatelog sql --data {data} \"{query}\"");
    let Some(address) = address else {
        say!("  gatelog serve --data {data}");
        return;
    };
    let curl = "curl -H \"x-portkey-api-key: $GATELOG_KEY\"";
    let record = json!({
        "request": {"url": "https://api.openai.com/v1/chat/completions", "body": {"model": "gpt-5.4"}},
        "response": {"status": 200, "body": {}},
    });
    say!("  {curl} http://{address}/v1/sql -d \"select * from cache\"");
    say!("  {curl} \"http://{address}/v1/export?columns=created_at,ai_model,cost,request.body\"");
    say!("  {curl} http://{address}/v1/logs -d '{record}'");
    say!("\nPress Ctrl-C to stop the server.");
}

#[cfg(test)]
mod tests;
