//! The command line: the commands and the files that run them.
//!
//! [`Command`] and the arguments of each command are raw, as clap parsed them.
//! [`settings::Context`] is what a command works with: the merged configuration and the verbosity.
//! Data goes to stdout, messages to stderr, and only this folder prints. One small file per
//! command; exit codes are decided only in [`exit`].

mod catalog;
mod config;
mod copy;
mod delete;
mod demo;
mod doctor;
mod exit;
mod export;
mod format;
mod guide;
mod import;
mod key;
mod maintain;
mod org;
mod output;
mod progress;
mod refusals;
mod repl;
mod report;
mod running;
mod serve;
mod settings;
mod sql;
mod statements;
mod wal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use exit::{Done, exit};
use settings::{Context, Global};

use gatelog::error::Result;

/// The log engine for LLM gateways: stores a record of every call as Parquet in a Delta table,
/// answers SQL, streams JSONL.
#[derive(Debug, Parser)]
#[command(
    name = "gatelog",
    version,
    about,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    after_help = exit::AFTER_HELP
)]
pub(crate) struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Args),
    Serve(serve::Args),
    Import(import::Args),
    Sql(sql::Args),
    Report(report::Args),
    Export(export::Args),
    Refusals(refusals::Args),
    Copy(copy::Args),
    Org(org::Args),
    Key(key::Args),
    Delete(delete::Args),
    Maintain(maintain::Args),
    Wal(wal::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Guide(guide::Args),
}

/// Parses the command line. Help, the version and usage errors are printed here and returned as an
/// exit code.
pub(crate) fn parse() -> Result<Command, ExitCode> {
    Command::try_parse().map_err(|usage| {
        // Help goes to stdout. A closed pipe there is not an error.
        let _ = usage.print();
        exit::usage(usage.exit_code())
    })
}

/// Prepares a command: commands in its messages name the data that it works on, and the log of the
/// program goes to stderr, as `-q`, `--log-format` and `GATELOG_LOG` say. A server logs more than a
/// command.
pub(crate) fn start(command: &Command) -> Result<()> {
    output::set_place(command.global.place());
    let serves = matches!(command.verb, Verb::Serve(_) | Verb::Demo(_));
    command.global.start_tracing(serves)
}

/// Runs the command.
pub(crate) async fn run(command: Command) -> Result<Done> {
    let context = Context::resolve(&command.global)?;
    match command.verb {
        Verb::Demo(args) => demo::run(context, args).await,
        Verb::Serve(args) => serve::run(context, args).await,
        Verb::Import(args) => import::run(context, args).await,
        Verb::Sql(args) => sql::run(context, args).await,
        Verb::Report(args) => report::run(context, args).await,
        Verb::Export(args) => export::run(context, args).await,
        Verb::Refusals(args) => refusals::run(context, args).await,
        Verb::Copy(args) => copy::run(context, args).await,
        Verb::Org(args) => org::run(context, args).await,
        Verb::Key(args) => key::run(context, args).await,
        Verb::Delete(args) => delete::run(context, args).await,
        Verb::Maintain(args) => maintain::run(context, args).await,
        Verb::Wal(args) => wal::run(context, args).await,
        Verb::Doctor(args) => doctor::run(context, args).await,
        Verb::Config(args) => config::run(&context, &args),
        Verb::Guide(args) => guide::run(&args),
    }
}

#[cfg(test)]
mod tests;
