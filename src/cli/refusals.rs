//! `gatelog refusals`: lists refused records, feedback and requests. Works beside a running server,
//! which writes its list every few seconds.

use chrono::Utc;

use super::catalog::{FormArgs, open, operator, or_dash, print_all, short};
use super::exit::Done;
use super::output::say;
use super::progress::thousands;
use super::settings::Context;
use gatelog::Store;
use gatelog::error::Result;
use gatelog::record::json::Reason;
use gatelog::refusals::{Ask, Source, read_all, shown};

/// Lists recently refused records, feedback and requests, with the reason
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog refusals
  gatelog refusals --org acme --reason missing
  gatelog refusals --source portkey --limit 5 --format json

A running server writes its list every 5 s, to a bucket every 30 s. Each organisation keeps at most 1,000 entries, for \
7 days. An entry may stand for several refusals of one request. A record that must not be tracked, or that could not \
be parsed, has no excerpt. Over HTTP: GET /v1/refusals.")]
pub(super) struct Args {
    /// Only refusals of this organisation
    #[arg(long, visible_alias = "organisation", value_name = "ID")]
    org: Option<String>,
    /// Only refusals of this workspace
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Only refusals of this source format, such as portkey, litellm, otlp-traces or feedback
    #[arg(long, value_name = "SOURCE", value_parser = source)]
    source: Option<Source>,
    /// Only refusals for this reason, such as missing, invalid, not_readable or over_quota
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
    /// Number of entries to list, newest first
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    form: FormArgs,
}

fn source(name: &str) -> Result<Source, String> {
    name.parse()
        .map_err(|_| format!("expected one of {}", Source::ALL.map(Source::name).join(", ")))
}

fn reason(name: &str) -> Result<Reason, String> {
    name.parse()
        .map_err(|_| format!("expected one of {}", Reason::ALL.map(Reason::name).join(", ")))
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    let Args { org: organisation, workspace, source, reason, limit, form } = args;
    let state = open(&context, false).await?.state();
    let entries = read_all(&Store::open(context.config(), false)?, None).await?;
    let unknown =
        organisation.as_deref().map(|id| state.document.known_organisation(id, &operator()));
    let ask = Ask { organisation, workspace, source, reason };
    let mut found = shown(entries, &ask, &operator(), &state, Utc::now());
    let all = found.len();
    found.truncate(limit);
    let head = [
        "time",
        "organisation",
        "workspace",
        "source",
        "reason",
        "count",
        "field",
        "message",
        "excerpt",
    ];
    print_all(form.format, head, &found, |entry| {
        [
            short(&entry.created_at),
            entry.organisation_id.clone(),
            or_dash(entry.workspace_slug.as_deref()),
            entry.source.to_string(),
            entry.reason.to_string(),
            entry.count.to_string(),
            or_dash(entry.field.as_deref()),
            entry.message.clone(),
            or_dash(entry.excerpt.as_deref()),
        ]
    })?;
    // The organisation of a refusal need not be in the catalog, so an unknown one is not an error.
    if let Some(Err(unknown)) = unknown
        && found.is_empty()
        && !context.quiet
    {
        say!("{unknown}");
    }
    if all > found.len() && !context.quiet {
        say!(
            "{} of {}; `--limit` shows more",
            thousands(found.len() as u64),
            thousands(all as u64)
        );
    }
    Ok(Done::Success)
}
