//! `gatelog key`: API keys. Works beside a running server. The text of a key is printed once, when
//! the key is created, and stored nowhere.

use chrono::Utc;
use clap::Subcommand;

use super::catalog::{
    Form, FormArgs, joined, moment, open, operator, or_dash, print_all, short, tell,
};
use super::exit::Done;
use super::maintain::json;
use super::output::{print, say};
use super::settings::Context;
use gatelog::engine::{CreatedKey, Document, KeyView, NewKey, Scope, key_text, random_bytes};
use gatelog::error::Result;

/// Creates, lists and revokes API keys
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog key create --org acme --scope logs.write --name gateway
  gatelog key create --org acme --workspace search --scope logs.view,analytics.view --expires 90d
  KEY=$(gatelog key create -q --scope admin)     an operator key, for all organisations
  gatelog key list --org acme --format json
  gatelog key revoke 3f2a9c0d11e4

Scopes: logs.write (send), logs.view (SQL, without bodies), logs.read (bodies), logs.export, analytics.view (reports), \
admin (all of these, and keys). A running server sees a change within `refresh_seconds`.")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Creates a key and prints it, only this once
    Create(CreateArgs),
    /// Lists keys, without their texts
    List(ListArgs),
    /// Revokes a key permanently
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Organisation of the key [default: none, for the operator]
    #[arg(long, visible_alias = "organisation", value_name = "ID")]
    org: Option<String>,
    /// Workspace of the key [default: all of the organisation]
    #[arg(long, value_name = "NAME", requires = "org")]
    workspace: Option<String>,
    /// Scopes: logs.write, logs.view, logs.read, logs.export, analytics.view or admin; separate
    /// several by commas
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
    scopes: Vec<String>,
    /// Purpose of the key
    #[arg(long)]
    name: Option<String>,
    /// Expiry, such as 90d, 2027-01-31 (UTC) or 2027-01-31T12:00:00Z [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only keys of this organisation
    #[arg(long, visible_alias = "organisation", value_name = "ID")]
    org: Option<String>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    /// Id of the key, as `gatelog key list` shows it; not the key itself
    id: String,
    #[command(flatten)]
    form: FormArgs,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    match args.verb {
        Verb::Create(args) => create(&context, args).await?,
        Verb::List(args) => list(&context, args).await?,
        Verb::Revoke(args) => revoke(&context, args).await?,
    }
    Ok(Done::Success)
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let CreateArgs { org, workspace, scopes, name, expires, form } = args;
    let now = Utc::now();
    let expires_at = expires.as_deref().map(|text| moment(text, now)).transpose()?;
    let scopes = scopes.iter().map(|name| name.trim().parse::<Scope>()).collect::<Result<_>>()?;
    let wanted = NewKey { name, organisation: org, workspace, scopes, expires_at };
    let key = key_text(random_bytes());
    let add = |document: &mut Document| {
        if let Some(organisation) = &wanted.organisation {
            document.known_organisation(organisation, &operator())?;
        }
        Ok(document.add_key(&key, wanted.clone(), now)?.shown(now))
    };
    let shown = open(context, true).await?.change(add).await?;
    if form.format == Form::Json {
        return print(&json(&CreatedKey { key, shown })?);
    }
    if !context.quiet {
        say!("{}; shown only now:", words(&shown));
    }
    print(&format!("{key}\n"))
}

async fn list(context: &Context, args: ListArgs) -> Result<()> {
    let state = open(context, false).await?.state();
    if let Some(organisation) = &args.org {
        state.document.known_organisation(organisation, &operator())?;
    }
    let access = gatelog::engine::Access { organisation: args.org, ..operator() };
    let shown = state.document.shown_keys(&access, Utc::now());
    let head = ["id", "organisation", "workspace", "scopes", "state", "created", "expires", "name"];
    print_all(args.form.format, head, &shown, |key| {
        [
            key.id.clone(),
            or_dash(key.organisation.as_deref()),
            or_dash(key.workspace.as_deref()),
            joined(&key.scopes),
            key.state.to_owned(),
            short(&key.created_at),
            key.expires_at.as_deref().map_or_else(|| "never".to_owned(), short),
            or_dash(key.name.as_deref()),
        ]
    })
}

async fn revoke(context: &Context, args: RevokeArgs) -> Result<()> {
    let RevokeArgs { id, form } = args;
    let now = Utc::now();
    let revoke =
        |document: &mut Document| Ok(document.revoke_key(&id, &operator(), now)?.shown(now));
    let shown = open(context, false).await?.change(revoke).await?;
    let seconds = context.config().refresh_seconds;
    let words = format!("key {id} revoked; a running server refuses it within {seconds} s");
    tell(context, form.format, &shown, &words)
}

fn words(shown: &KeyView) -> String {
    let whose = match (&shown.organisation, &shown.workspace) {
        (Some(organisation), Some(workspace)) => {
            format!("organisation `{organisation}`, workspace `{workspace}`")
        }
        (Some(organisation), None) => format!("organisation `{organisation}`"),
        (None, _) => "the operator".to_owned(),
    };
    let until = shown
        .expires_at
        .as_deref()
        .map_or_else(|| "does not expire".to_owned(), |at| format!("expires {}", short(at)));
    format!("key {} of {whose} with scopes {}, {until}", shown.id, joined(&shown.scopes))
}
