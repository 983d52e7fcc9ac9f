//! `gatelog report`: runs a named report, or lists the reports.

use std::fmt::Write as _;

use serde_json::Value;

use super::exit::{Done, interruptible};
use super::format::FormatArgs;
use super::output::print;
use super::settings::{self, Context};
use gatelog::engine::{Params, Reader};
use gatelog::error::Result;
use gatelog::reports::{self, Param};

/// Runs a named report; without a name, lists the reports and their parameters
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog report                the reports, with their parameters and columns
  gatelog report status_counts
  gatelog report spend_by_model --from 2026-11-01 --to 2026-12-01 --format csv
  gatelog report latency --param organisation_id=harbor-bank

Costs are in cents, times in ms. --from is inclusive, --to exclusive; a date means its start in UTC. \
Every report is also a view: gatelog sql 'select * from status_counts'.")]
pub(super) struct Args {
    /// Name of the report
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Value of a parameter of the report
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "name")]
    params: Vec<String>,
    /// Start of the time range, inclusive, such as 2026-11-20 or 2026-11-20T08:00:00Z; short for
    /// --param from=
    #[arg(long, value_name = "TIME", requires = "name")]
    from: Option<String>,
    /// End of the time range, exclusive; short for --param to=
    #[arg(long, value_name = "TIME", requires = "name")]
    to: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    let Some(name) = &args.name else {
        print(&list())?;
        return Ok(Done::Success);
    };
    args.format.check()?;
    let params = params(&args)?;
    // Checked before the folder is opened: a wrong name or value is an error whatever the folder
    // contains.
    reports::check(reports::find(name)?, &params)?;
    let reader = Reader::open(context.config()).await?;
    interruptible(async { args.format.write(reader.report(name, &params).await?).await }).await?;
    Ok(Done::Success)
}

/// Returns the parameters as text. The report converts them to its own types.
fn params(args: &Args) -> Result<Params> {
    let given = args.params.iter().map(|pair| settings::split_pair("--param", pair));
    let mut params: Params = given
        .map(|pair| pair.map(|(name, text)| (name, Value::String(text))))
        .collect::<Result<_>>()?;
    for (name, text) in [("from", &args.from), ("to", &args.to)] {
        if let Some(text) = text {
            params.insert(name.to_owned(), Value::String(text.clone()));
        }
    }
    Ok(params)
}

fn list() -> String {
    let mut text = String::new();
    for report in reports::list() {
        let _ = writeln!(text, "{}\n    {}", report.name, report.purpose);
        for Param { name, kind, default, doc, .. } in &report.params {
            let default = default.map(|value| format!(" [default: {value}]")).unwrap_or_default();
            let _ = writeln!(text, "    --param {name}=<{}>  {doc}{default}", kind.word());
        }
        let columns: Vec<&str> = report.columns.iter().map(|column| column.name).collect();
        let _ = writeln!(text, "    columns: {}\n", columns.join(", "));
    }
    text
}
