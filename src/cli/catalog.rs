//! Shared parts of the commands about organisations, keys and deletions: the catalog, output
//! formats, and the confirmation of destructive commands.
//!
//! The catalog can be changed beside a running server, which sees the change within
//! `refresh_seconds`, or while none runs. So none of these commands needs exclusive use of the
//! folder.

use std::io::{BufRead, IsTerminal, Write};

use chrono::{DateTime, TimeDelta, Utc};
use clap::ValueEnum;
use serde::Serialize;

use super::config::columns;
use super::maintain::json;
use super::output::{print, say};
use super::settings::Context;
use gatelog::Store;
use gatelog::engine;
use gatelog::engine::{Access, Catalog};
use gatelog::error::{Error, Result};
use gatelog::time;

/// Name of the caller in the catalog's records.
pub(super) const CLI: &str = "cli";

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For reading
    Table,
    /// For scripts
    Json,
}

/// Output options, as typed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct FormArgs {
    /// Output format
    #[arg(long, value_name = "FORM", default_value = "table")]
    pub(super) format: Form,
}

/// Returns the access of a command: anyone who has the folder may do everything.
pub(super) fn operator() -> Access {
    Access::operator(CLI)
}

/// Opens the catalog. Creates a missing store only with `create`: for other commands its name is
/// mistyped.
pub(super) async fn open(context: &Context, create: bool) -> Result<Catalog> {
    let config = context.config();
    let store = Store::open(config, create)?;
    store.check().await?;
    let catalog =
        Catalog::open(&store, i32::try_from(config.retention_days).unwrap_or(0), Utc::now).await?;
    if !create {
        engine::require_store(&store, &catalog).await?;
    }
    engine::refuse_unfinished(&store, &catalog)?;
    Ok(catalog)
}

/// Prints items as JSON, or as a table with a header.
pub(super) fn print_all<T: Serialize, const N: usize>(
    form: Form,
    head: [&str; N],
    things: &[T],
    line: impl Fn(&T) -> [String; N],
) -> Result<()> {
    match form {
        Form::Json => print(&json(&things)?),
        Form::Table => print(&columns(head, &things.iter().map(line).collect::<Vec<_>>())),
    }
}

/// Prints the result of a change as a message, or as JSON.
pub(super) fn tell(
    context: &Context,
    form: Form,
    done: &impl Serialize,
    words: &str,
) -> Result<()> {
    if form == Form::Json {
        return print(&json(done)?);
    }
    if !context.quiet {
        say!("{words}");
    }
    Ok(())
}

/// Asks a person to type a word before something irreversible is done.
pub(super) fn confirm(yes: bool, what: &str, word: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid(format!(
            "{what} cannot be undone; pass `--yes`, or run the command on a terminal"
        )));
    }
    // The question goes to stderr, since stdout is for data.
    let mut stderr = std::io::stderr().lock();
    let asked = write!(stderr, "{what} cannot be undone. Type `{word}` to confirm: ")
        .and_then(|()| stderr.flush());
    let mut typed = String::new();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut typed));
    read.map_err(|cause| {
        Error::invalid("cannot ask on this terminal; pass `--yes`").with_source(cause)
    })?;
    if typed.trim() != word {
        return Err(Error::invalid(format!("`{word}` was not typed; nothing was done")));
    }
    Ok(())
}

/// Parses the value of `--expires`: a time from now such as `90d`, a date, or a date with time.
pub(super) fn moment(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let span = || TimeDelta::from_std(humantime::parse_duration(text).ok()?).ok();
    let found = span().and_then(|span| now.checked_add_signed(span)).or_else(|| time::parse(text));
    found.ok_or_else(|| {
        Error::invalid(format!(
            "--expires is `{text}`; expected a time such as 90d, 2027-01-31 or 2027-01-31T12:00:00Z"
        ))
    })
}

/// Formats an optional text for a table.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Formats names for a table.
pub(super) fn joined(names: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// Returns the time without its fraction.
pub(super) fn short(at: &str) -> String {
    at.split_once('.').map_or_else(|| at.to_owned(), |(whole, _)| format!("{whole}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_span_a_date_or_a_moment() {
        let now = DateTime::UNIX_EPOCH;
        for (text, at) in [
            ("90d", "1970-04-01T00:00:00Z"),
            ("12h", "1970-01-01T12:00:00Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2027-01-31T12:00:00+02:00", "2027-01-31T10:00:00Z"),
        ] {
            assert_eq!(
                moment(text, now).unwrap(),
                DateTime::parse_from_rfc3339(at).unwrap(),
                "{text}"
            );
        }
        for text in ["", "soon", "90", "2027-13-01"] {
            assert!(moment(text, now).unwrap_err().message().contains("90d"), "{text}");
        }
    }
}
