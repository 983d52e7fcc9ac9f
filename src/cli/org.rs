//! `gatelog org`: organisations and their plans. Works beside a running server.

use std::collections::BTreeSet;

use chrono::Utc;
use clap::Subcommand;
use uuid::Uuid;

use super::catalog::{
    CLI, Form, FormArgs, confirm, joined, open, operator, or_dash, print_all, short, tell,
};
use super::exit::Done;
use super::settings::Context;
use gatelog::engine::{Document, Organisation, OrganisationView};
use gatelog::error::{Error, Result};

/// Creates, changes, lists and deletes organisations
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog org create acme --plan production --name 'Acme Ltd' --workspace search
  gatelog org create harbor --plan enterprise --retention-days 365
  gatelog org list --format json
  gatelog org set-plan acme enterprise --retention-days 90
  gatelog org set-denied-fields acme request response --workspace search
  gatelog org set-denied-fields acme --none
  gatelog org delete acme --yes

Plans: developer (10,000 records a month, kept 3 days, no exports), production (100,000 a month, then $9 for each \
further 100,000; kept 30 days), enterprise (no limit, kept as agreed), and those of `[plans.NAME]` in gatelog.toml. \
A running server sees a change within `refresh_seconds`.")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Creates an organisation
    Create(CreateArgs),
    /// Lists the organisations
    List(FormArgs),
    /// Changes the plan of an organisation, with immediate effect on all its records
    SetPlan(SetPlanArgs),
    /// Adds workspaces, to which keys can be bound
    AddWorkspace(AddWorkspaceArgs),
    /// Sets the fields that the keys of an organisation may not export
    SetDeniedFields(SetDeniedFieldsArgs),
    /// Deletes an organisation: revokes its keys and erases its records
    Delete(DeleteArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Id, as in `organisation_id` of the records: letters, digits and any of - _ . : @
    id: String,
    /// Plan: developer, production, enterprise, or one of gatelog.toml
    #[arg(long)]
    plan: String,
    /// Display name
    #[arg(long)]
    name: Option<String>,
    /// Days to keep the records, 0 for ever; only for plans with agreed retention
    #[arg(long, value_name = "DAYS")]
    retention_days: Option<i32>,
    /// Workspace; can be given several times
    #[arg(long = "workspace", value_name = "NAME")]
    workspaces: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, clap::Args)]
struct SetPlanArgs {
    /// Id of the organisation
    id: String,
    /// New plan: developer, production, enterprise, or one of gatelog.toml
    plan: String,
    /// Days to keep the records, 0 for ever; only for plans with agreed retention
    #[arg(long, value_name = "DAYS")]
    retention_days: Option<i32>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, clap::Args)]
struct AddWorkspaceArgs {
    /// Id of the organisation
    id: String,
    /// Workspaces to add
    #[arg(required = true, value_name = "NAME")]
    workspaces: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("denied").required(true).args(["fields", "none"])),
    // The usage that clap generates for a group puts the group before the organisation.
    override_usage = "gatelog org set-denied-fields [OPTIONS] <ID> <FIELD>...\n       \
                      gatelog org set-denied-fields [OPTIONS] <ID> --none"
)]
struct SetDeniedFieldsArgs {
    /// Id of the organisation
    id: String,
    /// Fields, as exports name them; they replace the fields that were denied before
    #[arg(value_name = "FIELD")]
    fields: Vec<String>,
    /// Removes all denied fields
    #[arg(long)]
    none: bool,
    /// Denies the fields to this workspace only, in addition to those of its organisation
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// Id of the organisation
    id: String,
    /// Skips the confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    form: FormArgs,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    match args.verb {
        Verb::Create(args) => create(&context, args).await?,
        Verb::List(args) => list(&context, args.format).await?,
        Verb::SetPlan(args) => set_plan(&context, args).await?,
        Verb::AddWorkspace(args) => add_workspace(&context, args).await?,
        Verb::SetDeniedFields(args) => set_denied_fields(&context, args).await?,
        Verb::Delete(args) => delete(&context, args).await?,
    }
    Ok(Done::Success)
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let CreateArgs { id, plan, name, retention_days, workspaces, form } = args;
    let catalog = open(context, true).await?;
    let created_at = Utc::now();
    let unknown_days = catalog.unknown_days();
    let create = |document: &mut Document| {
        // Lets a plan of this configuration be used before a server starts with it.
        document.learn_plan(&plan, &context.config().plans);
        let organisation = Organisation {
            name: name.clone(),
            plan: plan.clone(),
            retention_days,
            workspaces: workspaces.iter().cloned().collect(),
            created_at,
            moving: Vec::new(),
            deleted_at: None,
        };
        document.create_organisation(&id, organisation, unknown_days)?;
        document.shown_organisation(&id)
    };
    let shown = catalog.change(create).await?;
    let key =
        format!("create a key for it with `gatelog key create --org {id} --scope logs.write`");
    tell(
        context,
        form.format,
        &shown,
        &format!("organisation `{id}` created on {}; {key}", terms(&shown)),
    )
}

async fn list(context: &Context, form: Form) -> Result<()> {
    let shown = open(context, false).await?.state().document.shown_organisations(&operator());
    let head = ["id", "plan", "kept", "workspaces", "denied fields", "created", "name", "state"];
    print_all(form, head, &shown, |organisation| {
        let deleted = organisation.deleted_at.as_deref().map(|at| format!("deleted {}", short(at)));
        [
            organisation.id.clone(),
            organisation.plan.clone(),
            kept(organisation),
            joined(&organisation.workspaces),
            denied(organisation),
            short(&organisation.created_at),
            or_dash(organisation.name.as_deref()),
            deleted.unwrap_or_else(|| "active".to_owned()),
        ]
    })
}

async fn set_plan(context: &Context, args: SetPlanArgs) -> Result<()> {
    let SetPlanArgs { id, plan, retention_days, form } = args;
    let catalog = open(context, false).await?;
    let now = Utc::now();
    let change = |document: &mut Document| {
        document.known_organisation(&id, &operator())?;
        document.learn_plan(&plan, &context.config().plans);
        document.set_terms(&id, Some(&plan), retention_days, now)?;
        document.shown_organisation(&id)
    };
    let shown = catalog.change(change).await?;
    tell(context, form.format, &shown, &format!("organisation `{id}` is on {}", terms(&shown)))
}

async fn add_workspace(context: &Context, args: AddWorkspaceArgs) -> Result<()> {
    let AddWorkspaceArgs { id, workspaces, form } = args;
    let change = |document: &mut Document| {
        document.known_organisation(&id, &operator())?;
        document.add_workspaces(&id, workspaces.clone())?;
        document.shown_organisation(&id)
    };
    let shown = open(context, false).await?.change(change).await?;
    let words = format!("organisation `{id}` has workspaces {}", joined(&shown.workspaces));
    tell(context, form.format, &shown, &words)
}

async fn set_denied_fields(context: &Context, args: SetDeniedFieldsArgs) -> Result<()> {
    let SetDeniedFieldsArgs { id, fields, none: _, workspace, form } = args;
    let fields: BTreeSet<String> = fields.into_iter().collect();
    let change = |document: &mut Document| {
        document.known_organisation(&id, &operator())?;
        document.set_denied_fields(&id, workspace.as_deref(), &fields)?;
        document.shown_organisation(&id)
    };
    let shown = open(context, false).await?.change(change).await?;
    let whose =
        workspace.map_or_else(String::new, |workspace| format!("workspace `{workspace}` of "));
    let words = if fields.is_empty() {
        format!("{whose}organisation `{id}` has no denied fields of its own")
    } else {
        format!("{whose}organisation `{id}` may not export {}", joined(&fields))
    };
    tell(context, form.format, &shown, &words)
}

async fn delete(context: &Context, args: DeleteArgs) -> Result<()> {
    let DeleteArgs { id, yes, form } = args;
    let catalog = open(context, false).await?;
    // An unknown organisation is reported before the confirmation.
    catalog.state().document.known_organisation(&id, &operator())?;
    confirm(yes, &format!("Deleting organisation `{id}` with its keys and records"), &id)?;
    let erasure_id = Uuid::now_v7().to_string();
    let now = Utc::now();
    let delete = |document: &mut Document| {
        document.known_organisation(&id, &operator())?;
        document.delete_organisation(&id, CLI, &erasure_id, now)?;
        let all = document.shown_organisations(&operator());
        all.into_iter()
            .find(|shown| shown.id == id)
            .ok_or_else(|| Error::internal("an organisation vanished"))
    };
    let shown = catalog.change(delete).await?;
    let words = format!(
        "organisation `{id}` deleted: its keys are revoked; {}",
        super::delete::what_follows(context)
    );
    tell(context, form.format, &shown, &words)
}

fn terms(shown: &OrganisationView) -> String {
    format!("plan `{}`, records kept {}", shown.plan, kept(shown))
}

/// Lists the fields that the keys of an organisation, and those of its workspaces, may not export.
fn denied(shown: &OrganisationView) -> String {
    let of_workspaces = shown.workspace_denied_fields.iter();
    let of_workspaces = of_workspaces.flat_map(|(workspace, fields)| {
        fields.iter().map(move |field| format!("{workspace}:{field}"))
    });
    joined(shown.denied_fields.iter().cloned().chain(of_workspaces))
}

fn kept(shown: &OrganisationView) -> String {
    match shown.retention_days {
        0 => "for ever".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}
