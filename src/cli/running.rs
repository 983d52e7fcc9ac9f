//! Runs a statement and writes its rows.

use std::time::Instant;

use super::format::FormatArgs;
use super::output::say;
use super::progress::thousands;
use super::settings::Context;
use crate::engine::{Params, Reader};
use crate::error::Result;

/// Runs one statement and writes its rows; says how many there were.
pub(super) async fn statement_run(
    reader: &Reader,
    statement: &str,
    params: &Params,
    format: &FormatArgs,
) -> Result<u64> {
    format.write(reader.sql(statement, params).await?).await
}

/// Runs a statement of the prompt and says how long it took.
pub(super) async fn timed(
    context: &Context,
    statement: &str,
    params: &Params,
    format: &FormatArgs,
) -> Result<()> {
    let started = Instant::now();
    // Opened afresh, so that the rows of a server that goes on writing are seen.
    let reader = Reader::open(context.config()).await?;
    let rows = statement_run(&reader, statement, params, format).await?;
    if !context.quiet {
        let word = if rows == 1 { "row" } else { "rows" };
        say!("{} {word} in {:.3} s", thousands(rows), started.elapsed().as_secs_f64());
    }
    Ok(())
}
