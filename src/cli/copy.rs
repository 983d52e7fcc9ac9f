//! `gatelog copy`: copies all data from one place to another and verifies it. The same command
//! resumes an interrupted copy.

use std::path::Path;

use chrono::Utc;
use uuid::Uuid;

use super::exit::{Done, interruptible};
use super::export::rate;
use super::maintain::{Format, json};
use super::output::{print, say};
use super::progress::{Progress, Unit, bytes, thousands};
use super::settings::Context;
use gatelog::Store;
use gatelog::config::{Config, Schedule};
use gatelog::copy;
use gatelog::engine::Catalog;
use gatelog::engine::{self, Engine};
use gatelog::error::{Error, Result};

/// Copies all data from one folder or bucket to another, and verifies it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog copy gatelog-data s3://bucket/gatelog      move to a bucket
  gatelog copy s3://bucket/gatelog restored          restore to a disk
  gatelog copy gatelog-data backup-2026-11-21        a backup

If FROM is a folder, no server may use it during the copy; its write-ahead log is flushed first, so nothing is missing. \
From a bucket, one version of the table is copied while nodes keep writing; rows that they have not flushed yet are not \
included. Every object is read back and compared (SHA-256), and data files are verified with their checksums, as doctor \
does: a file that is damaged already is copied as it is and named, with exit code 1. The same command resumes an \
interrupted copy; a target with another store is refused. Credentials and endpoint of a bucket come from the settings s3_* \
or the AWS_* variables, for both places.

The copy is a store of its own: the write-ahead log of FROM is never used with it. A copy that is copied back over FROM \
leaves FROM with its own log. FROM may also be a backup, and TO a new place to restore it to.")]
pub(super) struct Args {
    /// Folder or bucket to copy from
    #[arg(value_name = "FROM")]
    from: String,
    /// Folder or bucket to copy to; empty, or started by the same copy
    #[arg(value_name = "TO")]
    to: String,
    /// Output format
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    interruptible(copy(&context, &args)).await
}

async fn copy(context: &Context, args: &Args) -> Result<Done> {
    let place = |data: &str| Config { data: data.to_owned(), ..context.config().clone() };
    if args.from == args.to {
        return Err(Error::invalid(format!(
            "FROM and TO are both `{}`; give another place to copy to",
            args.to
        )));
    }
    let from = Store::open(&place(&args.from), false)?;
    from.check().await?;
    let catalog = Catalog::open(&from, 0, Utc::now).await?;
    engine::require_store(&from, &catalog).await?;
    engine::refuse_unfinished(&from, &catalog)?;
    let to = Store::open(&place(&args.to), true)?;
    let inside = |a: &Store, b: &Store| a.root().as_str().starts_with(b.root().as_str());
    if inside(&to, &from) || inside(&from, &to) {
        let from = from.root();
        let to = to.root();
        return Err(Error::invalid(format!(
            "one of {from} and {to} lies inside the other; give another place to copy to"
        )));
    }
    // The open engine keeps other processes out of the folder until the copy is done.
    let engine = if from.is_shared() {
        None
    } else {
        Some(flushed(source(context, &args.from, &from, &catalog).await?).await?)
    };
    to.check().await?;
    let _nobody_serves_the_target = engine::lock(&to)?;
    let plan = copy::plan(&from).await?;
    let mut progress = Progress::start("copy", Unit::Bytes, Some(plan.bytes()), context.quiet);
    let shared = parking_lot::Mutex::new(&mut progress);
    let copied = copy::run(&from, &to, &plan, Uuid::new_v4().to_string(), &|done| {
        shared.lock().set(done, String::new)
    })
    .await;
    progress.finish();
    let seconds = progress.seconds();
    if let Some(engine) = engine {
        engine.close().await?;
    }
    let copied = copied?;
    if args.format == Format::Json {
        print(&json(&copied)?)?;
    } else if !context.quiet {
        say!(
            "{} objects, {} in {seconds:.1} s, {}; {} were there already; {} records, all verified",
            thousands(copied.objects),
            bytes(copied.bytes),
            rate(copied.bytes, seconds),
            thousands(copied.unchanged),
            thousands(plan.rows),
        );
    }
    for what in &copied.damaged {
        say!("damaged before it was copied: {what}");
    }
    if copied.damaged.is_empty() {
        return Ok(Done::Success);
    }
    say!(
        "{} data files are damaged at both places now; restore them from an older copy",
        copied.damaged.len()
    );
    Ok(Done::Problems)
}

/// Returns the settings with which to open a folder. The setting `wal` belongs to the place that
/// `data` names: for another folder it is used only if that log belongs to it.
async fn source(context: &Context, named: &str, from: &Store, catalog: &Catalog) -> Result<Config> {
    let config = Config { data: named.to_owned(), ..context.config().clone() };
    let is_data =
        Store::open(context.config(), false).is_ok_and(|data| data.place() == from.place());
    if is_data
        || config.wal.is_empty()
        || engine::owns_log(from, Path::new(&config.wal), catalog).await?
    {
        return Ok(config);
    }
    Ok(Config { wal: String::new(), ..config })
}

/// Opens a folder without maintenance and moves the rows of its log into the table.
async fn flushed(config: Config) -> Result<Engine> {
    let config = without_maintenance(config);
    let engine = Engine::builder(config).sets_terms(false).open().await?;
    engine.flush().await?;
    Ok(engine)
}

/// Returns the settings of an engine that only moves the rows of a log into the table.
pub(super) fn without_maintenance(config: Config) -> Config {
    let never = Schedule::never;
    Config {
        compact_schedule: never(),
        expire_schedule: never(),
        vacuum_schedule: never(),
        checkpoint_schedule: never(),
        clean_log_schedule: never(),
        // The log ends here, so partial records no longer wait for their other parts.
        join_seconds: 0,
        ..config
    }
}
