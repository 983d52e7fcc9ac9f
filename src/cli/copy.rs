//! `gatelog copy`: everything from one place to another, verified; the same command again goes on.

use super::exit::Done;
use super::export::rate;
use super::maintain::{Format, json};
use super::output::{print, say};
use super::progress::{Progress, Unit, bytes, thousands};
use super::settings::Context;
use super::sql::interruptible;
use crate::config::{Config, Schedule};
use crate::copy;
use crate::engine::{Engine, Parts};
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
is read back and compared (SHA-256). After an interruption the same command goes on; a target that holds other data is refused. \
Credentials and endpoint of a bucket come from the settings s3_* or the AWS_* variables, for both places.")]
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
    interruptible(copy(&context, &args)).await?;
    Ok(Done::Fine)
}

async fn copy(context: &Context, args: &Args) -> Result<()> {
    let place = |data: &str| Config { data: data.to_owned(), ..context.config().clone() };
    if args.from == args.to {
        return Err(Error::invalid(format!("FROM and TO are both `{}`; give another place to copy to", args.to)));
    }
    let from = Store::open(&place(&args.from), false)?;
    from.check().await?;
    let to = Store::open(&place(&args.to), true)?;
    let inside = |a: &Store, b: &Store| a.root().as_str().starts_with(b.root().as_str());
    if inside(&to, &from) || inside(&from, &to) {
        let (from, to) = (from.root(), to.root());
        return Err(Error::invalid(format!(
            "one of {from} and {to} lies inside the other; give another place to copy to"
        )));
    }
    // Holding the engine keeps everybody else out of the folder until the copy is done.
    let engine = if from.is_shared() { None } else { Some(flushed(place(&args.from)).await?) };
    to.check().await?;
    let _nobody_serves_the_target = crate::engine::lock(&to)?;
    let plan = copy::plan(&from).await?;
    let mut progress = Progress::start("copy", Unit::Bytes, Some(plan.bytes()), context.quiet);
    let shared = parking_lot::Mutex::new(&mut progress);
    let copied = copy::run(&from, &to, &plan, &|done| shared.lock().set(done, String::new)).await;
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
    Ok(())
}

/// Opens a folder without any upkeep and moves the rows of its log into the table.
async fn flushed(config: Config) -> Result<Engine> {
    let never = Schedule::never;
    let config = Config {
        compact_schedule: never(),
        expire_schedule: never(),
        vacuum_schedule: never(),
        checkpoint_schedule: never(),
        clean_log_schedule: never(),
        // The log is not copied, so parts of records wait no longer for the rest.
        join_seconds: 0,
        ..config
    };
    let parts = Parts { sets_terms: false, ..Parts::default() };
    let engine = Engine::open_with(config, parts).await?;
    engine.flush().await?;
    Ok(engine)
}
