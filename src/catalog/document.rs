//! Changes to organisations and plans in the catalog document. Pure.
//! Keys, erasures, export jobs, share links and saved filters have files of their own beside this
//! one.
//!
//! Every change is a method that checks first and then changes, so a document changes as a whole or
//! not at all. Time and randomness are arguments. Names are checked here only, because they become
//! parts of SQL results, URLs and log lines.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono::{DateTime, Utc};

use super::erasures::{ErasureSelector, IN_FORCE};
use super::limits::MAX_WORKSPACES;
use super::model::{Document, Organisation, RetentionChange, Unknown};
use crate::config::{MAX_DAYS, Plan, Plans};
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};
use crate::plan::{self, Moving, Rules, Terms};

/// Most archived providers of an organisation: they are part of a document that every change
/// rewrites as a whole.
const MAX_ARCHIVED: usize = 1_000;
/// Longest name of an organisation, a workspace or a plan, in bytes.
const MAX_NAME: usize = 128;

impl Document {
    /// Returns the plan with the given name.
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

    /// Returns every plan, built-in and custom.
    pub fn all_plans(&self) -> BTreeMap<String, Plan> {
        let mut plans = Plans::built_in();
        plans.extend(self.plans.iter().map(|(name, plan)| (name.clone(), plan.clone())));
        plans
    }

    /// Takes over the plans of a configuration; returns true if that changed something. Keeps a
    /// custom plan that an organisation uses even if the configuration no longer names it.
    pub fn set_plans(&mut self, plans: &Plans, now: DateTime<Utc>) -> bool {
        let built_in = Plans::built_in();
        let used = |name: &String| {
            self.organisations.values().any(|organisation| organisation.plan == *name)
        };
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
        let before: Vec<(String, i32)> = self
            .organisations
            .iter()
            .filter_map(|(id, of)| Some((id.clone(), self.days(of)?)))
            .collect();
        self.plans = next;
        for (id, days) in before {
            self.moved(&id, days, now);
        }
        true
    }

    pub(super) fn days(&self, organisation: &Organisation) -> Option<i32> {
        let plan = self.plan(&organisation.plan).ok()?;
        Some(Terms::new(&organisation.plan, &plan, organisation.retention_days).retention_days)
    }

    /// Adds one plan of a configuration if the document does not have it: a command may run before
    /// the first server does.
    pub fn learn_plan(&mut self, name: &str, plans: &Plans) {
        if let Some(plan) = plans.0.get(name).filter(|_| !self.plans.contains_key(name)) {
            self.plans.insert(name.to_owned(), plan.clone());
        }
    }

    /// Records the retention of organisations that are not in the catalog; returns true if that
    /// changed something.
    pub fn set_unknown_days(&mut self, days: i32, now: DateTime<Utc>) -> bool {
        let is_new = self.unknown.is_none();
        // Retention for ever is the default that nobody has to record.
        let unknown = self.unknown.get_or_insert(Unknown { retention_days: 0, moving: Vec::new() });
        if unknown.retention_days == days {
            return is_new;
        }
        let before = std::mem::replace(&mut unknown.retention_days, days);
        unknown.moving.retain(|moving| moving.from_days != before && moving.from_days != days);
        unknown.moving.push(RetentionChange { from_days: before, since: now, clean_before_ms: 0 });
        true
    }

    /// Records that the records of an organisation were in class `before` until now, if its class
    /// has changed.
    fn moved(&mut self, id: &str, before: i32, now: DateTime<Utc>) {
        let Some(days) =
            self.organisations.get(id).and_then(|organisation| self.days(organisation))
        else {
            return;
        };
        if let Some(organisation) = self.organisations.get_mut(id).filter(|_| days != before) {
            organisation
                .moving
                .retain(|moving| moving.from_days != before && moving.from_days != days);
            organisation.moving.push(RetentionChange {
                from_days: before,
                since: now,
                clean_before_ms: 0,
            });
        }
    }

    /// Adds an organisation. `unknown_days` is the retention class of records that it sent before
    /// its creation; it applies if no node has recorded that class yet.
    pub fn create_organisation(
        &mut self,
        id: &str,
        organisation: Organisation,
        unknown_days: i32,
    ) -> Result<&Organisation> {
        check_name("organisation", id)?;
        organisation.name.as_deref().map_or(Ok(()), check_label)?;
        organisation
            .workspaces
            .iter()
            .try_for_each(|workspace| check_name("workspace", workspace))?;
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

    /// Returns the organisation with the given id unless it was deleted.
    pub fn organisation(&self, id: &str) -> Result<&Organisation> {
        let known =
            self.organisations.get(id).filter(|organisation| organisation.deleted_at.is_none());
        known.ok_or_else(|| no_organisation(id))
    }

    /// Changes the display name of an organisation.
    pub fn rename(&mut self, id: &str, name: String) -> Result<()> {
        self.organisation(id)?;
        check_label(&name)?;
        if let Some(organisation) = self.organisations.get_mut(id) {
            organisation.name = Some(name);
        }
        Ok(())
    }

    /// Changes the plan of an organisation, its agreed retention, or both. Keeps the agreed
    /// retention while the plan stays the same.
    pub fn set_terms(
        &mut self,
        id: &str,
        plan: Option<&str>,
        retention_days: Option<i32>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let Organisation { plan: before, retention_days: agreed, .. } =
            self.organisation(id)?.clone();
        let plan = plan.unwrap_or(&before);
        self.set_plan(id, plan, retention_days.or(agreed.filter(|_| plan == before)), now)
    }

    /// Puts an organisation on a plan; `retention_days` is the agreed retention if the plan leaves
    /// it open.
    pub fn set_plan(
        &mut self,
        id: &str,
        plan: &str,
        retention_days: Option<i32>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let before = self.organisation(id)?.clone();
        self.check_agreed(plan, retention_days)?;
        let days = self.days(&before);
        if let Some(organisation) = self.organisations.get_mut(id) {
            organisation.plan = plan.to_owned();
            organisation.retention_days = retention_days;
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
            Some(days) if !(0..=MAX_DAYS).contains(&days) => Err(Error::invalid(format!(
                "`retention_days` is {days}; expected 0 (for ever) to {MAX_DAYS}"
            ))),
            _ => Ok(()),
        }
    }

    /// Adds workspaces to an organisation.
    pub fn add_workspaces(
        &mut self,
        id: &str,
        workspaces: impl IntoIterator<Item = String>,
    ) -> Result<()> {
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

    /// Deletes an organisation: revokes its keys, erases its records and removes what it has set
    /// up.
    pub fn delete_organisation(
        &mut self,
        id: &str,
        by: &str,
        erasure_id: &str,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.organisation(id)?;
        if let Some(organisation) = self.organisations.get_mut(id) {
            organisation.deleted_at = Some(now);
        }
        for key in self.keys.iter_mut().filter(|key| key.organisation.as_deref() == Some(id)) {
            key.revoked_at.get_or_insert(now);
        }
        self.drop_belongings(id);
        self.erase(erasure_id, id, ErasureSelector::All, by, now)?;
        Ok(())
    }

    /// Removes everything that belongs to an organisation, so that a later organisation with the
    /// same id does not inherit it.
    fn drop_belongings(&mut self, id: &str) {
        self.drop_exports(id);
        self.saved_filters.remove(id);
        self.denied_fields.remove(id);
        self.archived_providers.remove(id);
        self.shares.retain(|share| share.organisation != id);
    }

    /// Archives a provider of an organisation, or restores it. The organisation need not be in the
    /// catalog.
    pub fn archive_provider(
        &mut self,
        organisation: &str,
        provider: &str,
        archived: bool,
    ) -> Result<()> {
        check_label(provider)?;
        let providers = self.archived_providers.entry(organisation.to_owned()).or_default();
        if archived && providers.len() >= MAX_ARCHIVED {
            return Err(Error::limit(format!(
                "{MAX_ARCHIVED} providers are archived; restore some first"
            )));
        }
        if archived {
            providers.insert(provider.to_owned());
        } else {
            providers.remove(provider);
        }
        self.archived_providers.retain(|_, providers| !providers.is_empty());
        Ok(())
    }

    /// Returns the archived providers of an organisation.
    pub fn archived_providers(&self, organisation: &str) -> BTreeSet<String> {
        self.archived_providers.get(organisation).cloned().unwrap_or_default()
    }

    /// Records the end of a maintenance run: files written before `clean_before_ms` hold nothing
    /// any more that `rules` erase or move. `erased` has the number of erased records by erasure.
    pub fn cleaned(
        &mut self,
        rules: &Rules,
        erased: &[(String, u64)],
        clean_before_ms: i64,
        now: DateTime<Utc>,
    ) {
        let named: HashSet<&str> =
            rules.erasures().iter().map(|erasure| erasure.id.as_str()).collect();
        for entry in self.erasures.iter_mut().filter(|entry| named.contains(entry.id.as_str())) {
            entry.erased += erased
                .iter()
                .filter(|(id, _)| *id == entry.id)
                .map(|(_, count)| count)
                .sum::<u64>();
            entry.clean_before_ms = entry.clean_before_ms.max(clean_before_ms);
            entry.last_run_at = Some(now);
        }
        for moving in rules.moving() {
            let moves = if moving.organisation.is_empty() {
                self.unknown.as_mut().map(|unknown| &mut unknown.moving)
            } else {
                self.organisations
                    .get_mut(&moving.organisation)
                    .map(|organisation| &mut organisation.moving)
            };
            // Skips a change of plan that came after the files were listed.
            let same = |of: &&mut RetentionChange| {
                of.from_days == moving.from_days && of.since.timestamp_millis() <= clean_before_ms
            };
            for of in moves.into_iter().flatten().filter(same) {
                of.clean_before_ms = of.clean_before_ms.max(clean_before_ms);
            }
        }
    }

    /// Ends retention changes and erasures that have been in force long enough and were carried out
    /// after that; frees the ids of deleted organisations. Returns true if that changed something.
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
        let done =
            |(id, of): &(&String, &Organisation)| of.deleted_at.is_some() && !busy.contains(id);
        let gone: Vec<String> =
            self.organisations.iter().filter(done).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.organisations.remove(id);
            // A request that was running during the deletion may have left something.
            self.drop_belongings(id);
        }
        *self != before
    }

    /// Derives the rules as of `now`. `unknown_days` is the retention of organisations that are not
    /// in the catalog; it applies if no node has recorded it yet.
    pub fn rules(&self, unknown_days: i32, now: DateTime<Utc>) -> Rules {
        let plans = self.all_plans();
        let live = self.organisations.iter().filter(|(_, of)| of.deleted_at.is_none());
        let named = live.map(|(id, of)| (id.as_str(), of.plan.as_str(), of.retention_days));
        let terms = plan::terms_of(named, &plans);
        let gone = self.organisations.iter().filter(|(_, of)| of.deleted_at.is_some());
        let gone: HashSet<String> = gone.map(|(id, _)| id.clone()).collect();
        let erasures = self
            .erasures
            .iter()
            .filter(|erasure| erasure.is_in_force(now))
            .map(|e| e.rule(&gone))
            .collect();
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
        Rules::new(
            Terms::without_plan(unknown_days),
            terms,
            gone.clone(),
            erasures,
            moving.collect(),
        )
    }
}

/// Refuses more workspaces than the document can hold.
fn check_workspaces(organisation: &str, count: usize) -> Result<()> {
    if count > MAX_WORKSPACES {
        return Err(Error::limit(format!(
            "organisation `{organisation}` would have {count} workspaces; at most {MAX_WORKSPACES} are kept: use another \
             organisation for the rest"
        )));
    }
    Ok(())
}

/// Error for an organisation that does not exist or that the caller may not know of. Both cases
/// have the same text.
pub(crate) fn no_organisation(id: &str) -> Error {
    Error::not_found(format!("organisation `{}` does not exist", clip(id)))
}

/// Checks a name: it must stand in URLs, SQL results and log lines without quoting. `.` and `..`
/// are refused because a URL gives them a meaning.
fn check_name(what: &str, name: &str) -> Result<()> {
    let fine = |letter: char| {
        letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | ':' | '@')
    };
    let has_letter = name.chars().any(|letter| letter.is_ascii_alphanumeric());
    if !has_letter || name.len() > MAX_NAME || !name.chars().all(fine) {
        return Err(Error::invalid(format!(
            "`{name}` is not a valid name for {what}; expected 1 to {MAX_NAME} letters, digits and any of - _ . : @"
        )));
    }
    Ok(())
}

/// Checks a display name: any text that fits on one line.
pub(super) fn check_label(label: &str) -> Result<()> {
    if label.trim().is_empty() || label.len() > MAX_NAME || label.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "`name` is not valid; expected 1 to {MAX_NAME} bytes of text on one line"
        )));
    }
    Ok(())
}
