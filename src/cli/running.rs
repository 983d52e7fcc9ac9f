//! Runs a statement and writes its rows.

use std::time::Instant;

use super::format::FormatArgs;
use super::output::say;
use super::progress::thousands;
use super::settings::Context;
use gatelog::engine::{Params, Reader};
use gatelog::error::Result;

/// Runs one statement, writes its rows and returns their number.
pub(super) async fn statement_run(
    reader: &Reader,
    statement: &str,
    params: &Params,
    format: &FormatArgs,
) -> Result<u64> {
    format.write(reader.sql(statement, params).await?).await
}

/// Runs a statement of the prompt and prints its duration.
pub(super) async fn timed(
    context: &Context,
    statement: &str,
    params: &Params,
    format: &FormatArgs,
) -> Result<()> {
    let started = Instant::now();
    // Opened for each statement, so that it includes the rows that a running server wrote in
    // between.
    let reader = Reader::open(context.config()).await?;
    let rows = statement_run(&reader, statement, params, format).await?;
    if !context.quiet {
        let word = if rows == 1 { "row" } else { "rows" };
        say!("{} {word} in {:.3} s", thousands(rows), started.elapsed().as_secs_f64());
    }
    Ok(())
}
