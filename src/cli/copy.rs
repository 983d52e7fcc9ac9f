//! `gatelog copy`: everything from one place to another, verified; the same command again goes on.

use std::path::Path;

use chrono::Utc;
use uuid::Uuid;

use super::exit::{Done, interruptible};
use super::export::rate;
use super::maintain::{Format, json};
use super::output::{print, say};
use super::progress::{Progress, Unit, bytes, thousands};
use super::settings::Context;
use crate::catalog::Catalog;
use crate::config::{Config, Schedule};
use crate::copy;
use crate::engine::{self, Engine, Parts};
use crate::error::{Error, Result};
use crate::store::Store;

/// Copies all data from one folder or bucket to another, and verifies it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog copy gatelog-data s3://bucket/gatelog      move to a bucket
  gatelog copy s3://bucket/gatelog restored          bring it back to a disk
  gatelog copy gatelog-data backup-2026-11-21        a backup

FROM, if it is a folder, must not be served meanwhile: its write-ahead log is flushed first, so nothing is missing. From a \
bucket one version of the table is copied while nodes go on writing; what they have not flushed yet is not in it. Every object \
is read back and compared (SHA-256), and data files are compared with the checksums in them, as doctor does: what is \
damaged already is copied as it is and named, with exit code 1. After an interruption the same command goes on; a target that holds other data is refused. \
Credentials and endpoint of a bucket come from the settings s3_* or the AWS_* variables, for both places.

The copy is a store of its own: a write-ahead log of FROM is never used with it. Copied back over FROM, a copy leaves FROM what \
it was, with its log. FROM may also be a backup, and TO a new place to restore it to.")]
pub(super) struct Args {
    /// Folder or bucket to copy from
    #[arg(value_name = "FROM")]
    from: String,
    /// Folder or bucket to copy to; empty, or begun by the same copy
    #[arg(value_name = "TO")]
    to: String,
    /// Form of the answer
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    interruptible(copy(&context, &args)).await
}

async fn copy(context: &Context, args: &Args) -> Result<Done> {
    let place = |data: &str| Config { data: data.to_owned(), ..context.config().clone() };
    if args.from == args.to {
        return Err(Error::invalid(format!("FROM and TO are both `{}`; give another place to copy to", args.to)));
    }
    let from = Store::open(&place(&args.from), false)?;
    from.check().await?;
    let catalog = Catalog::open(&from, 0, Utc::now).await?;
    engine::require_store(&from, &catalog).await?;
    engine::refuse_unfinished(&from, &catalog)?;
    let to = Store::open(&place(&args.to), true)?;
    let inside = |a: &Store, b: &Store| a.root().as_str().starts_with(b.root().as_str());
    if inside(&to, &from) || inside(&from, &to) {
        let (from, to) = (from.root(), to.root());
        return Err(Error::invalid(format!(
            "one of {from} and {to} lies inside the other; give another place to copy to"
        )));
    }
    // Holding the engine keeps everybody else out of the folder until the copy is done.
    let engine = match from.is_shared() {
        true => None,
        false => Some(flushed(source(context, &args.from, &from, &catalog).await?).await?),
    };
    to.check().await?;
    let _nobody_serves_the_target = engine::lock(&to)?;
    let plan = copy::plan(&from).await?;
    let mut progress = Progress::start("copy", Unit::Bytes, Some(plan.bytes()), context.quiet);
    let shared = parking_lot::Mutex::new(&mut progress);
    let copied =
        copy::run(&from, &to, &plan, Uuid::new_v4().to_string(), &|done| shared.lock().set(done, String::new)).await;
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
        return Ok(Done::Fine);
    }
    say!("{} data files are damaged at both places now; restore them from an older copy", copied.damaged.len());
    Ok(Done::Problems)
}

/// The settings that a folder is opened with. The setting `wal` was made for the place that `data` names: for another folder it
/// counts only if that log is its own.
async fn source(context: &Context, named: &str, from: &Store, catalog: &Catalog) -> Result<Config> {
    let config = Config { data: named.to_owned(), ..context.config().clone() };
    let is_data = Store::open(context.config(), false).is_ok_and(|data| data.place() == from.place());
    if is_data || config.wal.is_empty() || engine::owns_log(from, Path::new(&config.wal), catalog).await? {
        return Ok(config);
    }
    Ok(Config { wal: String::new(), ..config })
}

/// Opens a folder without any upkeep and moves the rows of its log into the table.
async fn flushed(config: Config) -> Result<Engine> {
    let config = without_upkeep(config);
    let parts = Parts { sets_terms: false, ..Parts::default() };
    let engine = Engine::open_with(config, parts).await?;
    engine.flush().await?;
    Ok(engine)
}

/// The settings of an engine that only moves the rows of a log into the table.
pub(super) fn without_upkeep(config: Config) -> Config {
    let never = Schedule::never;
    Config {
        compact_schedule: never(),
        expire_schedule: never(),
        vacuum_schedule: never(),
        checkpoint_schedule: never(),
        clean_log_schedule: never(),
        // The log does not live on, so parts of records wait no longer for the rest.
        join_seconds: 0,
        ..config
    }
}
