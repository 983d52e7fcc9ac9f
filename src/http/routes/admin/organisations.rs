//! `/v1/admin/organisations`: the operator creates, changes and deletes them; an organisation's
//! admin sees its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::body::Body;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::{Document, Organisation, OrganisationView, no_organisation};
use crate::error::{Error, Result};
use crate::http::answer::{Answer, answer, list as listed};
use crate::http::body::read_object;
use crate::http::error::Failure;
use crate::http::input::{Id, NoFields, id};
use crate::http::middleware::auth::Caller;
use crate::http::state::App;
use crate::plan::Month;

const NEW_FIELDS: &str = "id, plan, name, retention_days, workspaces";
const CHANGE_FIELDS: &str =
    "plan, retention_days, name, add_workspaces, denied_fields, workspace_denied_fields";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    id: String,
    plan: Option<String>,
    name: Option<String>,
    retention_days: Option<i32>,
    #[serde(default)]
    workspaces: BTreeSet<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    plan: Option<String>,
    retention_days: Option<i32>,
    name: Option<String>,
    #[serde(default)]
    add_workspaces: BTreeSet<String>,
    denied_fields: Option<BTreeSet<String>>,
    #[serde(default)]
    workspace_denied_fields: BTreeMap<String, BTreeSet<String>>,
}

/// An organisation with its usage of the current month.
#[derive(Debug, Serialize)]
pub(crate) struct OrganisationUsage {
    #[serde(flatten)]
    shown: OrganisationView,
    records_this_month: u64,
    /// Records that were not stored because of the plan's quota.
    not_stored_this_month: u64,
}

/// `GET /v1/admin/organisations`.
pub(crate) async fn list(Caller { app, access }: Caller) -> Answer<Value> {
    let used = used(&app, access.organisation.as_deref());
    let shown = app.engine.catalog().state().document.shown_organisations(&access);
    listed(&shown.into_iter().map(|shown| with_usage(shown, &used)).collect::<Vec<_>>())
}

/// `POST /v1/admin/organisations`.
pub(crate) async fn create(
    Caller { app, access }: Caller,
    _: NoFields,
    body: Body,
) -> Result<Answer<OrganisationUsage>, Failure> {
    let New { id, plan, name, retention_days, workspaces } = read_object(body, NEW_FIELDS).await?;
    let unknown_days = app.engine.catalog().unknown_days();
    let created_at = app.engine.now();
    let create = |document: &mut Document| {
        let plan = plan.clone().ok_or_else(|| no_plan(document))?;
        let name = name.clone();
        let workspaces = workspaces.clone();
        let moving = Vec::new();
        let deleted_at = None;
        let organisation =
            Organisation { name, plan, retention_days, workspaces, created_at, moving, deleted_at };
        document.create_organisation(&id, organisation, unknown_days)?;
        document.shown_organisation(&id)
    };
    changed(&app, StatusCode::CREATED, app.engine.catalog().change_as(&access, create).await)
}

/// `GET /v1/admin/organisations/{id}`.
pub(crate) async fn show(
    Caller { app, access }: Caller,
    path: Id,
) -> Result<Answer<OrganisationUsage>, Failure> {
    let id = id(path)?;
    let document = &app.engine.catalog().state().document;
    document.known_organisation(&id, &access)?;
    let shown = document.shown_organisation(&id)?;
    Ok(answer(StatusCode::OK, with_usage(shown, &used(&app, Some(&id)))))
}

/// `PATCH /v1/admin/organisations/{id}`.
pub(crate) async fn change(
    Caller { app, access }: Caller,
    _: NoFields,
    path: Id,
    body: Body,
) -> Result<Answer<OrganisationUsage>, Failure> {
    let id = id(path)?;
    let wanted: Change = read_object(body, CHANGE_FIELDS).await?;
    if wanted == Change::default() {
        return Err(Failure::invalid(format!(
            "the body changes nothing; the fields are {CHANGE_FIELDS}"
        )));
    }
    let now = app.engine.now();
    let change = |document: &mut Document| {
        document.known_organisation(&id, &access)?;
        if wanted.plan.is_some() || wanted.retention_days.is_some() {
            document.set_terms(&id, wanted.plan.as_deref(), wanted.retention_days, now)?;
        }
        if let Some(name) = &wanted.name {
            document.rename(&id, name.clone())?;
        }
        document.add_workspaces(&id, wanted.add_workspaces.clone())?;
        if let Some(fields) = &wanted.denied_fields {
            document.set_denied_fields(&id, None, fields)?;
        }
        for (workspace, fields) in &wanted.workspace_denied_fields {
            document.set_denied_fields(&id, Some(workspace), fields)?;
        }
        document.shown_organisation(&id)
    };
    changed(&app, StatusCode::OK, app.engine.catalog().change_as(&access, change).await)
}

/// `DELETE /v1/admin/organisations/{id}`. When the response is sent, the keys are revoked and the
/// records are hidden. Their files are removed later.
pub(crate) async fn delete(
    Caller { app, access }: Caller,
    _: NoFields,
    path: Id,
) -> Result<Answer<OrganisationUsage>, Failure> {
    let id = id(path)?;
    let erasure_id = app.engine.new_id();
    let now = app.engine.now();
    let delete = |document: &mut Document| {
        document.known_organisation(&id, &access)?;
        document.delete_organisation(&id, &access.key_id, &erasure_id, now)?;
        let all = document.shown_organisations(&access);
        all.into_iter()
            .find(|organisation| organisation.id == id)
            .ok_or_else(|| no_organisation(&id))
    };
    changed(&app, StatusCode::ACCEPTED, app.engine.catalog().change_as(&access, delete).await)
}

fn changed(
    app: &App,
    status: StatusCode,
    done: Result<OrganisationView>,
) -> Result<Answer<OrganisationUsage>, Failure> {
    let shown = done?;
    app.engine.catalog_changed();
    let used = used(app, Some(&shown.id));
    Ok(answer(status, with_usage(shown, &used)))
}

/// Returns the numbers of stored and not stored records of this month, of one organisation or of
/// all.
fn used(app: &App, organisation: Option<&str>) -> HashMap<String, (u64, u64)> {
    let month = Month::of_micros(app.engine.now().timestamp_micros());
    let this_month =
        app.engine.usage().list(organisation).into_iter().filter(|used| used.month == month);
    this_month.map(|used| (used.organisation, (used.records, used.not_stored))).collect()
}

fn with_usage(shown: OrganisationView, used: &HashMap<String, (u64, u64)>) -> OrganisationUsage {
    let (records_this_month, not_stored_this_month) =
        used.get(&shown.id).copied().unwrap_or_default();
    OrganisationUsage { shown, records_this_month, not_stored_this_month }
}

fn no_plan(document: &Document) -> Error {
    let names: Vec<String> = document.all_plans().into_keys().collect();
    Error::invalid(format!("`plan` is missing; name one of {}", names.join(", ")))
}
