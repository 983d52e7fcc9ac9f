//! `gatelog maintain`: maintenance jobs on request, their last results, and the state of the data.
//!
//! A job on request needs exclusive use of the data folder. A running server runs the jobs by
//! itself. `status` works beside a server.

use std::fmt::Write as _;

use clap::{Subcommand, ValueEnum};

use super::exit::Done;
use super::output::{print, say};
use super::progress::{bytes, thousands};
use super::settings::Context;
use gatelog::Store;
use gatelog::engine::maintenance::{self, MaintenanceState, Run};
use gatelog::engine::{Job, Outcome, Reader, Status};
use gatelog::error::{Error, Result};

/// Runs a maintenance job, or shows the state of the data folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog maintain status
  gatelog maintain compact --dry-run
  gatelog maintain vacuum --format json

A running server runs these jobs by itself (settings expire_schedule, compact_schedule, vacuum_schedule, \
checkpoint_schedule and clean_log_schedule: intervals such as 5m, or cron expressions in UTC). This command needs \
exclusive use of the folder and exits with code 4 if a server holds it. `status` also works beside a server.")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Removes records past their retention, and erased records
    Expire(JobArgs),
    /// Merges small files of a day into large ones, and recompresses past days
    Compact(JobArgs),
    /// Deletes files that no version of the table references
    Vacuum(JobArgs),
    /// Writes a checkpoint, so that opening the table does not read every commit
    Checkpoint(JobArgs),
    /// Deletes entries of the Delta log before the last checkpoint
    CleanLog(JobArgs),
    /// Shows rows, files, memory, the write-ahead log, and the last and next run of each job
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
struct JobArgs {
    /// Shows what the job would do, without doing it
    #[arg(long)]
    dry_run: bool,
    /// Output format
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// Output format
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

/// Output formats of commands whose result is not rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    match args.verb {
        Verb::Expire(args) => job(&context, Job::Expire, &args).await,
        Verb::Compact(args) => job(&context, Job::Compact, &args).await,
        Verb::Vacuum(args) => job(&context, Job::Vacuum, &args).await,
        Verb::Checkpoint(args) => job(&context, Job::Checkpoint, &args).await,
        Verb::CleanLog(args) => job(&context, Job::CleanLog, &args).await,
        Verb::Status(args) => status(&context, args.format).await,
    }
}

async fn job(context: &Context, job: Job, args: &JobArgs) -> Result<Done> {
    let name = job.name();
    let when = job.schedule(context.config());
    let instead = format!("the server runs this job by itself (`{name}_schedule` = {when})");
    // Opening for writing creates a missing folder. A maintenance job on a missing folder means
    // that its name is mistyped.
    Reader::open(context.config()).await?;
    let engine = context.open_writer(&instead, false).await?;
    let outcome = engine.maintain(job, args.dry_run).await;
    let closed = engine.close().await;
    let outcome = outcome?;
    closed?;
    match args.format {
        Format::Json => print(&json(&outcome)?)?,
        Format::Text => {
            print(&outcome.lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
            if !context.quiet {
                say!("{}", summary(&outcome));
            }
        }
    }
    Ok(Done::Success)
}

fn summary(outcome: &Outcome) -> String {
    let Outcome { job, dry_run, files_before, files_after, bytes_before, bytes_after, .. } =
        outcome;
    format!(
        "{job}{}: {} files of {} before, {} files of {} after",
        if *dry_run { " (dry run; nothing was changed)" } else { "" },
        thousands(*files_before),
        bytes(*bytes_before),
        thousands(*files_after),
        bytes(*bytes_after),
    )
}

async fn status(context: &Context, format: Format) -> Result<Done> {
    let reader = Reader::open(context.config()).await?;
    let status = reader.status();
    let (state, _) = maintenance::read(&Store::open(context.config(), false)?).await?;
    print(&match format {
        Format::Json => json(&Whole { status: &status, maintenance: &state })?,
        Format::Text => text(&context.config().data, &status) + &jobs(context, &state),
    })?;
    Ok(Done::Success)
}

/// State of the data and of the maintenance jobs.
#[derive(serde::Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(rename = "upkeep")]
    maintenance: &'a MaintenanceState,
}

/// Returns one line per job: schedule, result of the last run, and time of the next one.
fn jobs(context: &Context, state: &MaintenanceState) -> String {
    let mut text = String::new();
    for job in Job::ALL {
        let never = Run::default();
        let run = state.jobs.get(job.name()).unwrap_or(&never);
        let time = |at: Option<chrono::DateTime<chrono::Utc>>| {
            at.map_or("never".to_owned(), |at| at.format("%F %T").to_string())
        };
        let result = match (&run.error, run.ended_at) {
            (Some(error), _) => format!("FAILED {} times: {error}", run.failures),
            (None, None) => "has not run".to_owned(),
            (None, Some(_)) if run.did.is_empty() => "nothing to do".to_owned(),
            (None, Some(_)) => format!("{} steps in {:.1} s", run.did.len(), run.seconds),
        };
        let when = job.schedule(context.config());
        let now = chrono::Utc::now();
        let next = match state.due(job, context.config(), now) {
            Some(due) if due <= now => "now".to_owned(),
            due => time(due),
        };
        let last = time(run.ended_at);
        let _ = writeln!(text, "{:18}{when}; last {last}, {result}; next {next}", job.name());
    }
    text
}

fn text(data: &str, status: &Status) -> String {
    let none = || "none".to_owned();
    let span =
        (status.oldest.clone().unwrap_or_else(none), status.newest.clone().unwrap_or_else(none));
    let rows = [
        ("data", data.to_owned()),
        ("rows", thousands(status.file_rows + status.memory_rows)),
        ("oldest", span.0),
        ("newest", span.1),
        (
            "in files",
            format!(
                "{} rows, {} files, {}, {} partitions",
                thousands(status.file_rows),
                thousands(status.files),
                bytes(status.file_bytes),
                thousands(status.partitions)
            ),
        ),
        (
            "not yet in files",
            format!("{} rows, {}", thousands(status.memory_rows), bytes(status.memory_bytes)),
        ),
        (
            "write-ahead log",
            format!("{} segments, {}", status.wal_segments, bytes(status.wal_bytes)),
        ),
        (
            "table version",
            format!(
                "{}, {} commits since the last checkpoint",
                status.table_version, status.commits_since_checkpoint
            ),
        ),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:18}{value}");
    }
    if let Some(failure) = &status.failure {
        let _ = writeln!(text, "{:18}{failure}", "writes refused");
    }
    text
}

/// Returns a value as an indented JSON document that ends with a line break.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|cause| Error::internal("cannot write the answer as JSON").with_source(cause))?;
    Ok(text + "\n")
}
