//! `gatelog wal`: manual operations on a write-ahead log: confirms that its data was moved, or
//! takes over the log of a node that is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use super::catalog::open;
use super::copy::without_maintenance;
use super::exit::Done;
use super::maintain::{Format, json};
use super::output::{print, say};
use super::progress::thousands;
use super::settings::Context;
use gatelog::Store;
use gatelog::config::Config;
use gatelog::engine::{self, Engine, LeftBehind};
use gatelog::error::{Error, Result};

/// Maximum number of flushes until late parts are merged into their records, and the pause between
/// two flushes.
const MAX_FLUSHES: u32 = 100;
const BETWEEN_FLUSHES: Duration = Duration::from_millis(200);

/// Confirms that data was moved, or takes over the write-ahead log of a node that is gone
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog wal rebind --data /new/mount/gatelog --set wal=/var/lib/gatelog/wal
  gatelog wal adopt /mnt/dead-node/wal --data s3://bucket/prefix
  gatelog wal adopt gatelog-data/wal --after-loss    after an older backup of it was restored

A write-ahead log notes its store and the last location of that store. A log of another store is always refused; \
the same store at another location is refused until `rebind` confirms that it was moved and is not a copy. A log inside \
its own data folder needs no confirmation.

`adopt` writes the records of the log in FOLDER that are not in the table of `--data` into it, exactly once, even beside running \
nodes of a bucket. Stop the node that wrote the log first: the log of a running node is refused. If another copy of a log was \
opened since, as on a cloned machine, every other command refuses it as long as it holds frames; `adopt` finds the missing \
records by their ids, and retires the folder.")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Confirms that the data of the log was moved to the location of `--data`
    Rebind(FormatArgs),
    /// Writes the rows in the log of a node that is gone into the table
    Adopt(AdoptArgs),
}

#[derive(Debug, clap::Args)]
struct FormatArgs {
    /// Output format
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct AdoptArgs {
    /// Folder of that node's log
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Continues if frames are missing between the table and the log, because the table into which
    /// they were flushed is lost
    #[arg(long)]
    after_loss: bool,
    #[command(flatten)]
    form: FormatArgs,
}

/// Result of `rebind`.
#[derive(Serialize)]
struct Rebound {
    log: String,
    place: String,
    /// Previous location. `None` if it is the same.
    before: Option<String>,
}

/// Result of `adopt`.
#[derive(Serialize)]
struct Adopted {
    log: String,
    place: String,
    /// Records that were not in the table.
    rows: u64,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    match args.verb {
        Verb::Rebind(args) => rebind(&context, args.format).await,
        Verb::Adopt(args) => adopt(&context, &args).await,
    }
}

async fn rebind(context: &Context, format: Format) -> Result<Done> {
    let catalog = open(context, false).await?;
    let store = Store::open(context.config(), false)?;
    let folder = store.wal_folder().ok_or_else(|| Error::internal("the store has no log"))?;
    refuse_no_log(&folder)?;
    let _nobody_writes = engine::lock(&store)?;
    let before = engine::rebind(&store, &folder, &catalog).await?;
    let done = Rebound { log: folder.display().to_string(), place: store.place(), before };
    let words = match &done.before {
        Some(before) => {
            format!("log `{}` now belongs to `{}`; it belonged to `{before}`", done.log, done.place)
        }
        None => format!("log `{}` belongs to `{}`, as before", done.log, done.place),
    };
    tell(context, format, &done, &words)
}

async fn adopt(context: &Context, args: &AdoptArgs) -> Result<Done> {
    let folder = args.folder.as_path();
    refuse_no_log(folder)?;
    open(context, false).await?;
    // The cache of the dead node is not needed.
    let config = Config {
        wal: folder.display().to_string(),
        disk_cache_bytes: 0,
        ..context.config().clone()
    };
    let left_behind = LeftBehind::find(&config).await?;
    let (rows, place) = match &left_behind {
        None => bring_in(config, args.after_loss).await?,
        Some(left) => match left.fresh_log(&config).await? {
            Some(fresh) => {
                bring_in(Config { wal: fresh.display().to_string(), ..config }, false).await?
            }
            None => (0, Store::open(&config, false)?.place()),
        },
    };
    if let Some(left) = left_behind {
        left.retire()?;
    }
    let done = Adopted { log: folder.display().to_string(), place, rows };
    let words = match done.rows {
        0 => format!("`{1}` already has all records of log `{0}`", done.log, done.place),
        rows => {
            format!("{} records of log `{}` are now in `{}`", thousands(rows), done.log, done.place)
        }
    };
    tell(context, args.form.format, &done, &words)
}

/// Opens a log, flushes it and returns the number of rows and the location of the table.
async fn bring_in(config: Config, after_loss: bool) -> Result<(u64, String)> {
    let builder = Engine::builder(without_maintenance(config)).sets_terms(false);
    let engine = builder.after_loss(after_loss).open().await?;
    let rows = engine.status().memory_rows;
    let flushed = flush_all(&engine).await;
    let closed = engine.close().await;
    flushed?;
    closed?;
    Ok((rows, engine.store().place()))
}

/// Flushes until the log is empty, including parts that arrive late for a record in a file.
async fn flush_all(engine: &Engine) -> Result<()> {
    for _ in 0..MAX_FLUSHES {
        engine.flush().await?;
        if engine.status().waiting_halves == 0 {
            return Ok(());
        }
        tokio::time::sleep(BETWEEN_FLUSHES).await;
    }
    Err(Error::storage(
        "some parts of records could not be added to their records; keep the folder and run this again",
    ))
}

/// Refuses a folder without a log: its name is probably mistyped.
fn refuse_no_log(folder: &Path) -> Result<()> {
    if engine::has_log(folder)? {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "there is no write-ahead log in `{}`; name its folder",
        folder.display()
    )))
}

fn tell(context: &Context, format: Format, done: &impl Serialize, words: &str) -> Result<Done> {
    match format {
        Format::Json => print(&json(done)?)?,
        Format::Text if !context.quiet => say!("{words}"),
        Format::Text => {}
    }
    Ok(Done::Success)
}
