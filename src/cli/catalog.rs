//! What the commands about organisations, keys and deletions share: the catalog, the forms of an answer, and asking before
//! harm is done.
//!
//! The catalog is changed beside a running server, which sees the change within `refresh_seconds`; without one, the next start
//! does. So none of these commands needs the folder for itself.

use std::io::{BufRead, IsTerminal, Write};

use chrono::{DateTime, TimeDelta, Utc};
use clap::ValueEnum;
use serde::Serialize;

use super::config::columns;
use super::maintain::json;
use super::output::{print, say};
use super::settings::Context;
use crate::catalog::{Access, Catalog};
use crate::engine;
use crate::error::{Error, Result};
use crate::record;
use crate::store::Store;

/// Who asks, in what is written down.
pub(super) const CLI: &str = "cli";

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For reading
    Table,
    /// For scripts
    Json,
}

/// How an answer is shown, as typed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct FormArgs {
    /// Form of the answer
    #[arg(long, value_name = "FORM", default_value = "table")]
    pub(super) format: Form,
}

/// The access of a command: whoever has the folder may do everything.
pub(super) fn operator() -> Access {
    Access::operator(CLI)
}

/// Opens the catalog. A place that is no store yet is made one only with `create`: for other commands it is a mistyped name.
pub(super) async fn open(context: &Context, create: bool) -> Result<Catalog> {
    let config = context.config();
    let store = Store::open(config, create)?;
    store.check().await?;
    let catalog = Catalog::open(&store, i32::try_from(config.retention_days).unwrap_or(0), Utc::now).await?;
    if !create {
        engine::require_store(&store, &catalog).await?;
    }
    engine::refuse_unfinished(&store, &catalog)?;
    Ok(catalog)
}

/// Prints things: as JSON, or as lines with a head.
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

/// Says in words what was done, or prints it as JSON.
pub(super) fn tell(context: &Context, form: Form, done: &impl Serialize, words: &str) -> Result<()> {
    if form == Form::Json {
        return print(&json(done)?);
    }
    if !context.quiet {
        say!("{words}");
    }
    Ok(())
}

/// Lets a person type a word before something is done that cannot be undone.
pub(super) fn confirm(yes: bool, what: &str, word: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid(format!("{what} cannot be undone; say `--yes`, or run this on a terminal")));
    }
    // Asked on stderr: stdout is for data.
    let mut stderr = std::io::stderr().lock();
    let asked = write!(stderr, "{what} cannot be undone. Type `{word}` to do it: ").and_then(|()| stderr.flush());
    let mut typed = String::new();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut typed));
    read.map_err(|cause| Error::invalid("cannot ask on this terminal; say `--yes`").with_source(cause))?;
    match typed.trim() == word {
        true => Ok(()),
        false => Err(Error::invalid(format!("`{word}` was not typed; nothing was done"))),
    }
}

/// The moment that `--expires` names: a time from now such as `90d`, a date, or a moment.
pub(super) fn moment(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let span = || TimeDelta::from_std(humantime::parse_duration(text).ok()?).ok();
    let found = span().and_then(|span| now.checked_add_signed(span)).or_else(|| record::json::moment(text));
    found.ok_or_else(|| {
        Error::invalid(format!("--expires is `{text}`; expected such as 90d, 2027-01-31 or 2027-01-31T12:00:00Z"))
    })
}

/// An optional text in a table.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Names in a table.
pub(super) fn joined(names: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// The moment without its fraction.
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
            assert_eq!(moment(text, now).unwrap(), DateTime::parse_from_rfc3339(at).unwrap(), "{text}");
        }
        for text in ["", "soon", "90", "2027-13-01"] {
            assert!(moment(text, now).unwrap_err().message().contains("90d"), "{text}");
        }
    }
}
