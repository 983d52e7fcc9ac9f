//! `gatelog import`: imports files or stdin into the engine, and reports the result for each
//! record.
//!
//! Reading, parsing and appending overlap ([`pipeline`]). Every stage has a bounded queue, so
//! memory stays flat however large the input is. Several appends are in flight at once, so that an
//! fsync does not block parsing. No record is lost: the import waits for a full engine, reports
//! every rejected record, and keeps the records that were acknowledged before Ctrl-C or an error.
//! Erased records stay out, however long ago they were erased. The log store of another gateway,
//! which has one file per record, is read by [`bucket`].

pub(super) mod appender;
mod bucket;
mod input;
mod object_listing;
mod pipeline;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::appender::{APPENDS_AT_ONCE, Appended, Appender, joined, sender};
use self::input::Input;
use self::pipeline::{Counts, Parsed, Pipeline};
use super::exit::Done;
use super::export::rate;
use super::output::{Sink, Watch, say};
use super::progress::{Progress, Unit, bytes, thousands};
use super::settings::Context;
use gatelog::engine::Engine;
use gatelog::error::Result;
use gatelog::ingest::{Rejection, SourceFormat};

/// Number of rejections that are printed one by one; the others are only counted.
const REJECTIONS_TOLD: u64 = 20;
/// Interval between updates of the progress.
const TICK: Duration = Duration::from_millis(200);

/// Imports records from JSON files, plain, gzip or zstd, or a Portkey log store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog import november.jsonl december.jsonl.gz archive/*.zst
  zcat logs.gz | gatelog import -
  gatelog import --source portkey captured-requests.jsonl
  gatelog import --source litellm callbacks.ndjson
  gatelog import --source gateway-hook hooks.jsonl
  gatelog import --source otlp traces.json
  gatelog import --source portkey-bucket s3://logs/prefix   or a folder
  gatelog import big.jsonl --rejects bad.jsonl              fix those lines, then import bad.jsonl

Compression is detected from the content, not from the name. Rejections name the line, counted from 1, and show a \
masked and redacted excerpt of the record, unless its call must not be tracked. A record that arrives again with the \
same id within 24 hours is a duplicate, so an interrupted import can be run again. Erased records stay out. Exit \
code 1: some records were rejected.

A log store has one file per log, below any prefix. Records that are stored already, however long ago, are left out, \
so that import can be run again at any time. Files and folders that cannot be read are listed at the end, with the \
reason, and do not stop the import. Symbolic links in a folder are listed too and not followed. Records past the \
retention of their plan are removed by the next maintenance. Access to a bucket is set by the settings s3_* or the \
AWS_* variables, as for --data.

The folder must not be in use by a running server; send the file to that server instead:
  curl -H \"x-portkey-api-key: $GATELOG_KEY\" --data-binary @FILE http://ADDRESS/v1/ingest")]
pub(super) struct Args {
    /// Files to read, `-` for stdin; for portkey-bucket, folders or s3://bucket/prefix
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Format of the records: native is the format of gatelog and its exports, portkey that of POST
    /// /v1/logs, litellm that of LiteLLM's generic_api callback, gateway-hook that of default.log
    /// and default.webhook of Portkey's open-source gateway, otlp traces in files of an
    /// OpenTelemetry collector, portkey-bucket the log store of a Portkey gateway
    #[arg(long, value_name = "SHAPE", default_value_t = Source::SourceFormat(SourceFormat::Native), value_parser = source)]
    source: Source,
    /// File for the text of rejected records, one per line; for portkey-bucket, the paths of unread
    /// files with the reason
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

/// Source of the records.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Files of records.
    SourceFormat(SourceFormat),
    /// The log store of a Portkey gateway.
    PortkeyBucket,
}

const PORTKEY_BUCKET: &str = "portkey-bucket";

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceFormat(shape) => shape.fmt(f),
            Self::PortkeyBucket => f.write_str(PORTKEY_BUCKET),
        }
    }
}

fn source(name: &str) -> Result<Source, String> {
    if name.eq_ignore_ascii_case(PORTKEY_BUCKET) {
        return Ok(Source::PortkeyBucket);
    }
    name.parse().map(Source::SourceFormat).map_err(|_| format!("expected one of {}", sources()))
}

fn sources() -> String {
    format!("{}, {PORTKEY_BUCKET}", SourceFormat::ALL.map(SourceFormat::name).join(", "))
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    match args.source {
        Source::SourceFormat(shape) => files(context, args, shape).await,
        Source::PortkeyBucket => bucket::run(context, &args.files, args.rejects.as_deref()).await,
    }
}

async fn files(context: Context, args: Args, shape: SourceFormat) -> Result<Done> {
    let inputs = args.files.iter().map(|path| Input::find(path)).collect::<Result<Vec<_>>>()?;
    let total = inputs.iter().map(|input| input.bytes).sum();
    let rejects = args.rejects.as_deref().map(|path| Sink::open(Some(path))).transpose()?;
    let instead = "send the file to that server instead: \
                   curl -H \"x-portkey-api-key: $GATELOG_KEY\" --data-binary @FILE http://ADDRESS/v1/ingest";
    let engine = context.open_writer(instead, false).await?;
    let names = inputs.iter().map(|input| input.name.clone()).collect();
    let progress = Progress::start("import", Unit::Bytes, total, context.quiet);
    let mut account = Account::new(names, shape, rejects, progress);
    let pipeline = Pipeline::start(inputs, shape, &engine);
    let outcome = pump(&engine, pipeline, &mut account).await;
    account.progress.finish();
    account.done.note_left_out(&engine, &sender(shape));
    // Imported records are flushed and reported before an error is, however the import ended.
    let closed = engine.close().await;
    if !context.quiet {
        account.tell();
    }
    account.close_rejects()?;
    let done = outcome?;
    closed?;
    Ok(if done == Done::Success && account.rejected > 0 { Done::Problems } else { done })
}

/// Appends parsed records to the engine until the input ends or Ctrl-C.
async fn pump(engine: &Engine, mut pipeline: Pipeline, account: &mut Account) -> Result<Done> {
    let counts = Arc::clone(&pipeline.counts);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut appends: JoinSet<Result<Appended>> = JoinSet::new();
    let appender = Appender::new(engine).await?;
    let mut open = true;
    while open || !appends.is_empty() {
        let is_free = open && appends.len() < APPENDS_AT_ONCE;
        tokio::select! {
            parsed = pipeline.parsed.try_next(), if is_free => match parsed? {
                None => open = false,
                Some(Parsed { file, records, rejected }) => {
                    for (rejection, text) in &rejected {
                        account.reject(file, rejection, text)?;
                    }
                    let rejections = rejected.into_iter().map(|(rejection, _)| rejection);
                    engine.refusals().records(&sender(account.shape), rejections);
                    if !records.is_empty() {
                        let appender = appender.clone();
                        appends.spawn(async move { appender.append(records).await });
                    }
                }
            },
            Some(appended) = appends.join_next() => account.done.add(joined(appended)?),
            _ = &mut interrupt, if open => {
                account.progress.say("stopping: records in flight are still written");
                while let Some(appended) = appends.join_next().await {
                    account.done.add(joined(appended)?);
                }
                account.take(&counts);
                return Ok(Done::Interrupted);
            }
            _ = ticks.tick() => account.take(&counts),
        }
    }
    account.take(&counts);
    pipeline.finish()?;
    Ok(Done::Success)
}

/// Results of the records so far.
struct Account {
    names: Vec<String>,
    shape: SourceFormat,
    done: Appended,
    rejected: u64,
    text_bytes: u64,
    rejects: Option<(Sink, Watch)>,
    progress: Progress,
}

impl Account {
    fn new(
        names: Vec<String>,
        shape: SourceFormat,
        rejects: Option<Sink>,
        progress: Progress,
    ) -> Self {
        let rejects = rejects.map(|sink| {
            let watch = sink.watch();
            (sink, watch)
        });
        Self {
            names,
            shape,
            done: Appended::default(),
            rejected: 0,
            text_bytes: 0,
            rejects,
            progress,
        }
    }

    /// Reports a rejection, and saves the text of the record so that it can be corrected.
    fn reject(&mut self, file: usize, rejection: &Rejection, text: &[u8]) -> Result<()> {
        self.rejected += 1;
        let name = &self.names[file];
        match self.rejected {
            1..=REJECTIONS_TOLD => {
                let excerpt = rejection
                    .excerpt()
                    .map_or_else(String::new, |fragment| format!("; near {fragment}"));
                self.progress.say(&format!("rejected: {name}: {rejection}{excerpt}"));
            }
            count if count == REJECTIONS_TOLD + 1 => {
                self.progress.say("further rejections are only counted")
            }
            _ => {}
        }
        if let Some((sink, watch)) = &mut self.rejects
            && !text.is_empty()
        {
            // A record of several lines is put on one line: its line breaks can only stand between
            // tokens.
            let mut line: Vec<u8> = text
                .iter()
                .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
                .collect();
            line.push(b'\n');
            sink.write_all(&line).map_err(|cause| watch.error(cause))?;
        }
        Ok(())
    }

    fn take(&mut self, counts: &Counts) {
        let (read, text) = counts.get();
        self.text_bytes = text;
        let seconds = self.progress.seconds();
        let records = self.done.known();
        self.progress.set(read, || {
            format!("{} of JSON, {} records", rate(text, seconds), thousands(records))
        });
    }

    fn tell(&self) {
        let Self { shape, done, rejected, text_bytes, .. } = self;
        let seconds = self.progress.seconds();
        done.tell_left_out();
        if done.known() == 0 && *rejected > 0 {
            say!(
                "no record could be read as `{shape}`; set their format with `--source`: {}",
                sources()
            );
        }
        say!(
            "{} records imported, {} duplicates, {} rejected; {} of JSON in {seconds:.1} s, {}",
            thousands(done.receipt.accepted),
            thousands(done.receipt.duplicate),
            thousands(*rejected),
            bytes(*text_bytes),
            rate(*text_bytes, seconds),
        );
    }

    fn close_rejects(&mut self) -> Result<()> {
        self.rejects.take().map_or(Ok(()), |(sink, _)| sink.finish())
    }
}
