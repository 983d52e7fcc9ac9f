//! `gatelog sql`: runs SQL statements from the command line, a file, stdin or a prompt.
//!
//! Works beside a running server. Each statement sees every record that was acknowledged before the
//! statement began.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use super::exit::{Done, interruptible};
use super::format::{Format, FormatArgs};
use super::output::file_error;
use super::running::statement_run;
use super::settings::{self, Context};
use super::{repl, statements};
use gatelog::engine::Reader;
use gatelog::error::{Error, Result};

/// Runs SQL over the records; without a query, opens a prompt with history
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog sql \"select ai_model, count(*) as calls, sum(cost) / 100 as dollars from logs group by 1\"
  gatelog sql --format csv -f monthly.sql --out monthly.csv
  gatelog sql --param user=amara.o 'select created_at, cost from logs where user_id = $user'
  echo 'select count(*) from logs' | gatelog sql --format jsonl
  gatelog sql                   a prompt: statements end with `;`, \\d lists tables, \\q leaves

The table `logs` has one row per call; `describe logs` lists its columns. cost is in US cents, durations are in ms, \
times in UTC. Statements can only read. The value of a parameter is a number, true, false, null or a quoted text as in \
JSON; anything else is text.")]
pub(super) struct Args {
    /// SQL statement; separate several by `;`
    #[arg(value_name = "QUERY", conflicts_with = "file")]
    query: Option<String>,
    /// File with SQL statements, `-` for stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Value of `$NAME` in the statements, such as `--param model=gpt-5-mini`
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    args.format.check()?;
    let params = settings::params(&args.params)?;
    let text = match (args.query, args.file) {
        (Some(query), _) => query,
        (None, Some(path)) => read(&path)?,
        (None, None) if !std::io::stdin().is_terminal() => read(Path::new("-"))?,
        (None, None) => {
            // Opened once before the prompt, so that a wrong folder is reported before the first
            // statement.
            Reader::open(context.config()).await?;
            return repl::run(context, params, args.format).await;
        }
    };
    let cut = statements::split(&text);
    let all: Vec<&str> =
        cut.complete.into_iter().chain((!cut.rest.is_empty()).then_some(cut.rest)).collect();
    match all.len() {
        0 => {
            return Err(Error::invalid(
                "the query is empty; expected a statement such as `select count(*) from logs`",
            ));
        }
        1 => {}
        count if args.format.out.is_some() || args.format.format == Format::Parquet => {
            return Err(Error::invalid(format!(
                "`--out` is given for {count} statements; run them one by one, each with its own file"
            )));
        }
        _ => {}
    }
    let reader = Reader::open(context.config()).await?;
    for statement in all {
        interruptible(statement_run(&reader, statement, &params, &args.format)).await?;
    }
    Ok(Done::Success)
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().lock().read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(cause) => {
                Err(Error::invalid("cannot read statements from stdin").with_source(cause))
            }
        };
    }
    std::fs::read_to_string(path).map_err(|cause| file_error("read", path, cause))
}
