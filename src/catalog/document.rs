//! The catalog as data: the document, its organisations and plans, and what may be done to them. Pure. Keys and erasures have
//! files of their own beside this one, as export jobs, share links and saved filters have.
//!
//! Every change is a method that checks first and then changes, so that a document is changed whole or not at all. Time and
//! randomness come in as arguments. Names are checked once, here: they become parts of SQL answers, URLs and log lines.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::denied::DeniedFields;
use super::erasures::{ErasureEntry, Which};
use super::exports::ExportJob;
use super::identity::Identity;
use super::keys::Key;
use super::limits::MOST_WORKSPACES;
use super::saved::SavedFilter;
use super::share::{Share, ShareSecret};
use crate::config::{MOST_DAYS, Plan, Plans};
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};
use crate::plan::{self, Moving, Rules, Terms};

/// Version of the document's form. Format 1 knew keys only, format 2 no erasures that were set aside.
pub const FORMAT: u32 = 3;
/// How long an erasure or a move stays in force after it was asked for, so that what other nodes still hold is met by it.
pub(super) const IN_FORCE: Duration = Duration::hours(24);
/// Archived providers of an organisation: they are part of a document that is rewritten as a whole.
const MOST_ARCHIVED: usize = 1_000;
/// Longest name of an organisation, a workspace or a plan, in bytes.
const MOST_NAME: usize = 128;

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Version of its form.
    pub format: u32,
    /// Names the change that made it, so that its author knows it again when the answer to the change was lost.
    #[serde(default)]
    pub change: String,
    /// Identity of the store; none until an engine of this version opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Identity>,
    /// Organisations by id.
    #[serde(default)]
    pub organisations: BTreeMap<String, Organisation>,
    /// Own plans by name; those that are built in are not here.
    #[serde(default)]
    pub plans: BTreeMap<String, Plan>,
    /// API keys, oldest first.
    #[serde(default)]
    pub keys: Vec<Key>,
    /// What was erased on request, oldest first: also the record of it.
    #[serde(default)]
    pub erasures: Vec<ErasureEntry>,
    /// How records of organisations that are not here are kept; none until a node that writes said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
    /// Providers that are archived, by organisation: their logs cannot be replayed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub archived_providers: BTreeMap<String, BTreeSet<String>>,
    /// Filters of lists, by organisation and name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub saved_filters: BTreeMap<String, BTreeMap<String, SavedFilter>>,
    /// Links that open one log without a key, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// What they are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_secret: Option<ShareSecret>,
    /// Export jobs, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_jobs: Vec<ExportJob>,
    /// Files of theirs that are to be deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub export_leftovers: BTreeSet<String>,
    /// What may not be exported, by organisation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied_fields: BTreeMap<String, DeniedFields>,
}

/// How records of organisations that the catalog does not know are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// Days to keep, 0 = for ever: `retention_days` of the nodes' configuration.
    pub retention_days: i32,
    /// Classes that their records were stored under before that was changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<Move>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            format: FORMAT,
            change: String::new(),
            store: None,
            organisations: BTreeMap::new(),
            plans: BTreeMap::new(),
            keys: Vec::new(),
            erasures: Vec::new(),
            unknown: None,
            archived_providers: BTreeMap::new(),
            saved_filters: BTreeMap::new(),
            shares: Vec::new(),
            share_secret: None,
            export_jobs: Vec::new(),
            export_leftovers: BTreeSet::new(),
            denied_fields: BTreeMap::new(),
        }
    }
}

/// An organisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of its plan.
    pub plan: String,
    /// Days that its records are kept, where the plan leaves it to agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<i32>,
    /// Its workspaces; keys may be bound to one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub workspaces: BTreeSet<String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Classes that its records were stored under before a change of plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<Move>,
    /// When it was deleted; its records are being erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
}

/// A class that records of an organisation may still lie in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The class: days to keep, 0 = for ever.
    pub from_days: i32,
    /// When the plan changed.
    pub since: DateTime<Utc>,
    /// Files written before this moment hold none of them any more, ms since 1970-01-01.
    #[serde(default)]
    pub clean_before_ms: i64,
}

impl Document {
    /// The plan of that name.
    pub fn plan(&self, name: &str) -> Result<Plan> {
        if let Some(plan) = self.plans.get(name) {
            return Ok(plan.clone());
        }
        Plans::built_in().remove(name).ok_or_else(|| {
            let plans = self.all_plans();
            let hint = hint(name, plans.keys().map(String::as_str), "plans", "`gatelog.toml`");
            Error::invalid(format!("plan `{}` does not exist; {hint}", clip(name)))
        })
    }

    /// Every plan: those built in and the own ones.
    pub fn all_plans(&self) -> BTreeMap<String, Plan> {
        let mut plans = Plans::built_in();
        plans.extend(self.plans.iter().map(|(name, plan)| (name.clone(), plan.clone())));
        plans
    }

    /// Takes over the plans of a configuration; true if that changed something. An own plan that an organisation is on stays,
    /// though the configuration no longer names it.
    pub fn set_plans(&mut self, plans: &Plans, now: DateTime<Utc>) -> bool {
        let built_in = Plans::built_in();
        let used = |name: &String| self.organisations.values().any(|organisation| organisation.plan == *name);
        let stays = |name: &String| used(name) && !built_in.contains_key(name);
        let mut next: BTreeMap<String, Plan> = self
            .plans
            .iter()
            .filter(|(name, _)| stays(name))
            .map(|(name, plan)| (name.clone(), plan.clone()))
            .collect();
        next.extend(plans.0.iter().map(|(name, plan)| (name.clone(), plan.clone())));
        if next == self.plans {
            return false;
        }
        let before: Vec<(String, i32)> =
            self.organisations.iter().filter_map(|(id, of)| Some((id.clone(), self.days(of)?))).collect();
        self.plans = next;
        for (id, days) in before {
            self.moved(&id, days, now);
        }
        true
    }

    pub(super) fn days(&self, organisation: &Organisation) -> Option<i32> {
        let plan = self.plan(&organisation.plan).ok()?;
        Some(Terms::of(&organisation.plan, &plan, organisation.retention_days).retention_days)
    }

    /// Takes over one plan of a configuration, if it is not known yet: a command may come before the server.
    pub fn learn_plan(&mut self, name: &str, plans: &Plans) {
        if let Some(plan) = plans.0.get(name).filter(|_| !self.plans.contains_key(name)) {
            self.plans.insert(name.to_owned(), plan.clone());
        }
    }

    /// Writes down how records of organisations that are not here are kept; true if that changed something.
    pub fn set_unknown_days(&mut self, days: i32, now: DateTime<Utc>) -> bool {
        let is_new = self.unknown.is_none();
        // Nobody writes down that records are kept for ever.
        let unknown = self.unknown.get_or_insert(Unknown { retention_days: 0, moving: Vec::new() });
        if unknown.retention_days == days {
            return is_new;
        }
        let before = std::mem::replace(&mut unknown.retention_days, days);
        unknown.moving.retain(|moving| moving.from_days != before && moving.from_days != days);
        unknown.moving.push(Move { from_days: before, since: now, clean_before_ms: 0 });
        true
    }

    /// Writes down that an organisation's records were of a class until now, if that changed.
    fn moved(&mut self, id: &str, before: i32, now: DateTime<Utc>) {
        let Some(days) = self.organisations.get(id).and_then(|organisation| self.days(organisation)) else { return };
        if let Some(organisation) = self.organisations.get_mut(id).filter(|_| days != before) {
            organisation.moving.retain(|moving| moving.from_days != before && moving.from_days != days);
            organisation.moving.push(Move { from_days: before, since: now, clean_before_ms: 0 });
        }
    }

    /// Adds an organisation. `unknown_days` is the class that its records, if it sent any before, were stored under, where no
    /// node has said it yet.
    pub fn create_organisation(
        &mut self,
        id: &str,
        organisation: Organisation,
        unknown_days: i32,
    ) -> Result<&Organisation> {
        check_name("organisation", id)?;
        organisation.name.as_deref().map_or(Ok(()), check_label)?;
        organisation.workspaces.iter().try_for_each(|workspace| check_name("workspace", workspace))?;
        check_workspaces(id, organisation.workspaces.len())?;
        self.check_agreed(&organisation.plan, organisation.retention_days)?;
        match self.organisations.get(id) {
            Some(Organisation { deleted_at: Some(_), .. }) => {
                return Err(Error::invalid(format!(
                    "organisation `{id}` was deleted and its records are being erased; its id is free a day later"
                )));
            }
            Some(_) => return Err(Error::invalid(format!("organisation `{id}` exists already"))),
            None => {}
        }
        let now = organisation.created_at;
        let (days, before) = match &self.unknown {
            Some(unknown) => (unknown.retention_days, unknown.moving.clone()),
            None => (unknown_days, Vec::new()),
        };
        self.organisations.insert(id.to_owned(), Organisation { moving: before, ..organisation });
        self.moved(id, days, now);
        self.organisation(id)
    }

    /// The organisation of that id, unless it was deleted.
    pub fn organisation(&self, id: &str) -> Result<&Organisation> {
        let known = self.organisations.get(id).filter(|organisation| organisation.deleted_at.is_none());
        known.ok_or_else(|| no_organisation(id))
    }

    /// Gives an organisation another name.
    pub fn rename(&mut self, id: &str, name: String) -> Result<()> {
        self.organisation(id)?;
        check_label(&name)?;
        if let Some(organisation) = self.organisations.get_mut(id) {
            organisation.name = Some(name);
        }
        Ok(())
    }

    /// Puts an organisation on another plan, agrees on another retention, or both. What was agreed stays while the plan does.
    pub fn agree(
        &mut self,
        id: &str,
        plan: Option<&str>,
        retention_days: Option<i32>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let Organisation { plan: before, retention_days: agreed, .. } = self.organisation(id)?.clone();
        let plan = plan.unwrap_or(&before);
        self.set_plan(id, plan, retention_days.or(agreed.filter(|_| plan == before)), now)
    }

    /// Puts an organisation on a plan; `retention_days` is what was agreed, where the plan leaves it open.
    pub fn set_plan(&mut self, id: &str, plan: &str, retention_days: Option<i32>, now: DateTime<Utc>) -> Result<()> {
        let before = self.organisation(id)?.clone();
        self.check_agreed(plan, retention_days)?;
        let days = self.days(&before);
        if let Some(organisation) = self.organisations.get_mut(id) {
            (organisation.plan, organisation.retention_days) = (plan.to_owned(), retention_days);
        }
        if let Some(days) = days {
            self.moved(id, days, now);
        }
        Ok(())
    }

    fn check_agreed(&self, plan: &str, retention_days: Option<i32>) -> Result<()> {
        let fixed = self.plan(plan)?.retention_days;
        match retention_days {
            Some(_) if fixed != 0 => Err(Error::invalid(format!(
                "plan `{plan}` keeps records {fixed} days; a retention of its own needs a plan that leaves it open, such as enterprise"
            ))),
            Some(days) if !(0..=MOST_DAYS).contains(&days) => {
                Err(Error::invalid(format!("`retention_days` is {days}; expected 0 (for ever) to {MOST_DAYS}")))
            }
            _ => Ok(()),
        }
    }

    /// Adds workspaces to an organisation.
    pub fn add_workspaces(&mut self, id: &str, workspaces: impl IntoIterator<Item = String>) -> Result<()> {
        self.organisation(id)?;
        let workspaces: Vec<String> = workspaces.into_iter().collect();
        workspaces.iter().try_for_each(|workspace| check_name("workspace", workspace))?;
        let known = &self.organisation(id)?.workspaces;
        let all: BTreeSet<&String> = known.iter().chain(&workspaces).collect();
        check_workspaces(id, all.len())?;
        if let Some(organisation) = self.organisations.get_mut(id) {
            organisation.workspaces.extend(workspaces);
        }
        Ok(())
    }

    /// Deletes an organisation: its keys are revoked, its records erased, and what it set up goes.
    pub fn delete_organisation(&mut self, id: &str, by: &str, erasure_id: &str, now: DateTime<Utc>) -> Result<()> {
        self.organisation(id)?;
        if let Some(organisation) = self.organisations.get_mut(id) {
            organisation.deleted_at = Some(now);
        }
        for key in self.keys.iter_mut().filter(|key| key.organisation.as_deref() == Some(id)) {
            key.revoked_at.get_or_insert(now);
        }
        self.drop_belongings(id);
        self.erase(erasure_id, id, Which::All, by, now)?;
        Ok(())
    }

    /// Takes out what stands here under the id of an organisation, so that a later one of that id inherits none of it.
    fn drop_belongings(&mut self, id: &str) {
        self.drop_exports(id);
        self.saved_filters.remove(id);
        self.denied_fields.remove(id);
        self.archived_providers.remove(id);
        self.shares.retain(|share| share.organisation != id);
    }

    /// Archives a provider of an organisation, or takes it back. The organisation need not be in the catalog.
    pub fn archive_provider(&mut self, organisation: &str, provider: &str, archived: bool) -> Result<()> {
        check_label(provider)?;
        let providers = self.archived_providers.entry(organisation.to_owned()).or_default();
        match archived {
            true if providers.len() >= MOST_ARCHIVED => {
                return Err(Error::limit(format!("{MOST_ARCHIVED} providers are archived; take some back first")));
            }
            true => providers.insert(provider.to_owned()),
            false => providers.remove(provider),
        };
        self.archived_providers.retain(|_, providers| !providers.is_empty());
        Ok(())
    }

    /// The archived providers of an organisation.
    pub fn archived_providers(&self, organisation: &str) -> BTreeSet<String> {
        self.archived_providers.get(organisation).cloned().unwrap_or_default()
    }

    /// Writes down that files were gone through: files written before `clean_before_ms` hold nothing any more of what the
    /// rules named. `erased` says how many records went, by erasure.
    pub fn cleaned(&mut self, rules: &Rules, erased: &[(String, u64)], clean_before_ms: i64, now: DateTime<Utc>) {
        let named: HashSet<&str> = rules.erasures().iter().map(|erasure| erasure.id.as_str()).collect();
        for entry in self.erasures.iter_mut().filter(|entry| named.contains(entry.id.as_str())) {
            entry.erased += erased.iter().filter(|(id, _)| *id == entry.id).map(|(_, count)| count).sum::<u64>();
            entry.clean_before_ms = entry.clean_before_ms.max(clean_before_ms);
            entry.last_run_at = Some(now);
        }
        for moving in rules.moving() {
            let moves = match moving.organisation.is_empty() {
                true => self.unknown.as_mut().map(|unknown| &mut unknown.moving),
                false => self.organisations.get_mut(&moving.organisation).map(|organisation| &mut organisation.moving),
            };
            // A change of plan that came meanwhile began after the files were looked at.
            let same =
                |of: &&mut Move| of.from_days == moving.from_days && of.since.timestamp_millis() <= clean_before_ms;
            for of in moves.into_iter().flatten().filter(same) {
                of.clean_before_ms = of.clean_before_ms.max(clean_before_ms);
            }
        }
    }

    /// Ends moves and erasures that have been in force long enough and were carried out since; frees the ids of organisations
    /// that were deleted. True if that changed something.
    pub fn settle(&mut self, now: DateTime<Utc>) -> bool {
        let before = self.clone();
        let over = |since: DateTime<Utc>, clean_before_ms: i64| {
            now - since >= IN_FORCE && clean_before_ms >= (since + IN_FORCE).timestamp_millis()
        };
        for organisation in self.organisations.values_mut() {
            organisation.moving.retain(|moving| !over(moving.since, moving.clean_before_ms));
        }
        if let Some(unknown) = &mut self.unknown {
            unknown.moving.retain(|moving| !over(moving.since, moving.clean_before_ms));
        }
        let busy: HashSet<&String> = self
            .erasures
            .iter()
            .filter(|erasure| !over(erasure.requested_at, erasure.clean_before_ms))
            .map(|erasure| &erasure.organisation)
            .collect();
        let done = |(id, of): &(&String, &Organisation)| of.deleted_at.is_some() && !busy.contains(id);
        let gone: Vec<String> = self.organisations.iter().filter(done).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.organisations.remove(id);
            // A request that was under way when it was deleted may have left something.
            self.drop_belongings(id);
        }
        *self != before
    }

    /// The rules that follow, as of `now`. `unknown_days` is the retention of organisations that are not in the catalog, where
    /// no node has said it yet.
    pub fn rules(&self, unknown_days: i32, now: DateTime<Utc>) -> Rules {
        let plans = self.all_plans();
        let live = self.organisations.iter().filter(|(_, of)| of.deleted_at.is_none());
        let named = live.map(|(id, of)| (id.as_str(), of.plan.as_str(), of.retention_days));
        let terms = plan::terms_of(named, &plans);
        let gone = self.organisations.iter().filter(|(_, of)| of.deleted_at.is_some());
        let gone: HashSet<String> = gone.map(|(id, _)| id.clone()).collect();
        let erasures = self.erasures.iter().filter(|erasure| erasure.is_in_force(now)).map(|e| e.rule(&gone)).collect();
        let unknown = self.unknown.as_ref();
        let moves = self.organisations.iter().map(|(id, of)| (id.as_str(), &of.moving));
        let moves = moves.chain(unknown.map(|unknown| ("", &unknown.moving)));
        let moving = moves.flat_map(|(organisation, moves)| {
            moves.iter().map(|moving| Moving {
                organisation: organisation.to_owned(),
                from_days: moving.from_days,
                clean_before_ms: moving.clean_before_ms,
            })
        });
        let unknown_days = unknown.map_or(unknown_days, |unknown| unknown.retention_days);
        Rules::new(Terms::without_plan(unknown_days), terms, gone.clone(), erasures, moving.collect())
    }
}

impl Organisation {
    /// A new organisation on a plan.
    pub fn new(plan: &str, created_at: DateTime<Utc>) -> Self {
        Self {
            name: None,
            plan: plan.to_owned(),
            retention_days: None,
            workspaces: BTreeSet::new(),
            created_at,
            moving: Vec::new(),
            deleted_at: None,
        }
    }
}

/// Refuses more workspaces than the document can hold.
fn check_workspaces(organisation: &str, count: usize) -> Result<()> {
    if count > MOST_WORKSPACES {
        return Err(Error::limit(format!(
            "organisation `{organisation}` would have {count} workspaces; at most {MOST_WORKSPACES} are kept: use another \
             organisation for the rest"
        )));
    }
    Ok(())
}

/// The error of an organisation that is not there, or that whoever asks must not know of: the same for both.
pub fn no_organisation(id: &str) -> Error {
    Error::not_found(format!("organisation `{}` does not exist", clip(id)))
}

/// Names that can stand in URLs, SQL answers and log lines without quoting; `.` and `..` are places in a URL.
fn check_name(what: &str, name: &str) -> Result<()> {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | ':' | '@');
    let has_letter = name.chars().any(|letter| letter.is_ascii_alphanumeric());
    if !has_letter || name.len() > MOST_NAME || !name.chars().all(fine) {
        return Err(Error::invalid(format!(
            "`{name}` is no name for {what}; expected 1 to {MOST_NAME} letters, digits and any of - _ . : @"
        )));
    }
    Ok(())
}

/// What people call a thing: any text that fits on a line.
pub(super) fn check_label(label: &str) -> Result<()> {
    if label.trim().is_empty() || label.len() > MOST_NAME || label.chars().any(char::is_control) {
        return Err(Error::invalid(format!("`name` is no name: expected 1 to {MOST_NAME} bytes of text on one line")));
    }
    Ok(())
}
