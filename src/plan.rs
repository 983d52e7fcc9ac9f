//! The rules of plans, without I/O: the visibility of records, their retention, and the limits of
//! exports.
//!
//! [`Rules`] are derived from one state of the catalog. Queries see a record while the retention of
//! its organisation has not passed, whatever retention class its file is in, and while no erasure
//! names it. Most files can be judged by their statistics ([`Rules::outlook`]) and need not be
//! read.

mod erasing;
mod facts;

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Datelike, NaiveDate, Utc};

use crate::config::{MAX_DAYS, Over, Plan};
use crate::error::{Error, Result};
use crate::time;

pub(crate) use erasing::{Erased, Erasure, Erasures, Named};
pub(crate) use facts::{FileFacts, Row};

/// Most µs by which the date of a record may be later than its arrival: clocks of clients differ.
pub(crate) const MAX_AHEAD_MICROS: i64 = MICROS_A_DAY;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// A month of the UTC calendar, as months since year 0. Records are counted by month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i32);

impl Month {
    /// Returns the month of a time in µs since 1970-01-01.
    pub fn of_micros(micros: i64) -> Self {
        DateTime::from_timestamp_micros(micros)
            .map_or(Self(0), |at| Self(at.year() * 12 + at.month0().cast_signed()))
    }

    /// Returns the first day of the month.
    pub fn first_day(self) -> Option<NaiveDate> {
        NaiveDate::from_ymd_opt(self.0.div_euclid(12), self.0.rem_euclid(12).cast_unsigned() + 1, 1)
    }

    /// Formats the month, such as `2026-11`.
    pub fn text(self) -> String {
        format!("{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }

    /// Parses the format of [`Month::text`].
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.rsplit_once('-')?;
        let year: i32 = year.parse().ok()?;
        let month: i32 = month.parse().ok()?;
        (1..=12).contains(&month).then_some(Self(year * 12 + month - 1))
    }

    /// Returns the month this many months earlier.
    pub fn before(self, months: i32) -> Self {
        Self(self.0 - months)
    }
}

/// The terms that an organisation has agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Name of the plan. `None` for an organisation that the catalog does not know.
    pub plan: Option<String>,
    /// Days that records are kept, 0 for ever.
    pub retention_days: i32,
    /// Most records of a month that are stored. `None` for no limit.
    pub stops_at: Option<u64>,
    /// Days that exports may reach back. 0 for no exports, `None` for any time frame.
    pub export_days: Option<i32>,
    /// Most records that one export job writes. `None` for no limit.
    pub export_rows: Option<u64>,
}

impl Terms {
    /// Returns the terms of an organisation without a plan: everything is stored and kept for this
    /// many days.
    pub fn without_plan(retention_days: i32) -> Self {
        Self { plan: None, retention_days, stops_at: None, export_days: None, export_rows: None }
    }

    /// Returns the terms of a plan, with the agreed retention if the plan leaves it open.
    pub fn new(name: &str, plan: &Plan, agreed_days: Option<i32>) -> Self {
        Self {
            plan: Some(name.to_owned()),
            retention_days: if plan.retention_days == 0 {
                agreed_days.unwrap_or(0)
            } else {
                plan.retention_days
            },
            stops_at: plan.included.filter(|_| plan.over == Over::Stop),
            export_days: plan.export_days,
            export_rows: plan.export_rows,
        }
    }

    /// Returns the start of an export in µs, given the requested start `from` (`None` for the first
    /// record). Returns [`Error::denied`] if the plan does not let exports reach back so far.
    pub fn export_from(&self, from: Option<i64>, now: DateTime<Utc>) -> Result<Option<i64>> {
        let Some(days) = self.export_days else { return Ok(from) };
        let plan = self.plan.as_deref().unwrap_or("");
        if days == 0 {
            return Err(Error::denied(format!(
                "plan `{plan}` has no exports; change to a plan with exports"
            )));
        }
        let earliest =
            now.timestamp_micros().saturating_sub(i64::from(days).saturating_mul(MICROS_A_DAY));
        match from {
            Some(from) if from < earliest => {
                let at = DateTime::<Utc>::from_timestamp_micros(earliest).unwrap_or(now);
                let at = time::seconds(at);
                Err(Error::denied(format!(
                    "exports of plan `{plan}` reach {days} days back; set `from` to {at} or later, or leave it out"
                )))
            }
            Some(from) => Ok(Some(from)),
            None => Ok(Some(earliest)),
        }
    }
}

/// Visibility of the rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Every row is visible.
    Seen,
    /// Some rows may be visible and others not: each row must be checked.
    Mixed,
    /// No row is visible.
    Hidden,
}

/// An organisation that may have records in a retention class that is no longer its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// The organisation. Empty for every organisation without a plan.
    pub organisation: String,
    /// The class that may still hold its records.
    pub from_days: i32,
    /// Files written before this time, in ms since 1970-01-01, hold none of these records any more.
    pub clean_before_ms: i64,
}

/// The rules that follow from one state of the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    unknown: Terms,
    terms: HashMap<String, Terms>,
    gone: HashSet<String>,
    erasures: Erasures,
    moving: Vec<Moving>,
}

impl Rules {
    /// Creates rules without any organisation: everything is kept for this many days.
    pub fn without_plans(retention_days: i32) -> Self {
        Self::new(
            Terms::without_plan(retention_days),
            HashMap::new(),
            HashSet::new(),
            Vec::new(),
            Vec::new(),
        )
    }

    /// Creates the rules of these organisations. `unknown` are the terms of every other
    /// organisation, `gone` the deleted organisations.
    pub fn new(
        unknown: Terms,
        terms: HashMap<String, Terms>,
        gone: HashSet<String>,
        erasures: Vec<Erasure>,
        moving: Vec<Moving>,
    ) -> Self {
        Self { unknown, terms, gone, erasures: Erasures::new(erasures), moving }
    }

    /// Returns the terms of an organisation.
    pub fn terms(&self, organisation: &str) -> &Terms {
        self.terms.get(organisation).unwrap_or(&self.unknown)
    }

    /// Returns true if an organisation was deleted. New records of it are refused; an erasure
    /// deletes its old ones.
    pub fn is_gone(&self, organisation: &str) -> bool {
        self.gone.contains(organisation)
    }

    /// Returns the most records of a month that are stored for an organisation. `None` for no
    /// limit.
    pub fn stops_at(&self, organisation: &str) -> Option<u64> {
        if self.is_gone(organisation) { Some(0) } else { self.terms(organisation).stops_at }
    }

    /// Returns the retention class of a new record of an organisation.
    pub fn retention_days(&self, organisation: &str) -> i32 {
        self.terms(organisation).retention_days
    }

    /// Returns the erasures.
    pub fn erasures(&self) -> &[Erasure] {
        self.erasures.list()
    }

    /// Returns the erasures in a form in which rows and files can be looked up.
    pub fn erased(&self) -> &Erasures {
        &self.erasures
    }

    /// Returns the erasures of these rules that the rules `before` do not have.
    pub fn erased_since(&self, before: &Self) -> Erasures {
        let known: HashSet<&str> =
            before.erasures().iter().map(|erasure| erasure.id.as_str()).collect();
        let new = self.erasures().iter().filter(|erasure| !known.contains(erasure.id.as_str()));
        Erasures::new(new.cloned().collect())
    }

    /// Returns the organisations whose records must move to another retention class.
    pub fn moving(&self) -> &[Moving] {
        &self.moving
    }

    /// Returns the time from which records of an organisation are visible, in µs since 1970-01-01.
    pub fn seen_since(&self, organisation: &str, now_micros: i64) -> i64 {
        kept_since(self.retention_days(organisation), now_micros)
    }

    /// Returns true if a record is visible.
    pub fn sees(&self, row: Row<'_>, now_micros: i64) -> bool {
        row.created_at >= self.seen_since(row.organisation, now_micros) && !self.erases(row)
    }

    /// Returns true if an erasure names the record.
    pub fn erases(&self, row: Row<'_>) -> bool {
        self.erasures.first(row).is_some()
    }

    /// Returns the visibility that is certain for all rows of a file.
    pub fn outlook(&self, file: FileFacts<'_>, now_micros: i64) -> Outlook {
        let (shortest, longest) = self.days_of_class(file);
        // Rows that are dated far ahead count as old as their file, if its time is known.
        let latest = match file.modified_ms {
            ..=0 => i64::MAX,
            written_ms => written_ms.saturating_mul(1000).saturating_add(MAX_AHEAD_MICROS),
        };
        if file.max_created_at.min(latest) < kept_since(longest, now_micros) {
            return Outlook::Hidden;
        }
        let touched = self.erasures.may_be_in(file);
        if file.min_created_at >= kept_since(shortest, now_micros) && !touched {
            return Outlook::Seen;
        }
        Outlook::Mixed
    }

    /// Returns true if rows of the file must move to another retention class, or must be deleted
    /// before the whole class expires.
    pub fn must_rewrite(&self, file: FileFacts<'_>) -> bool {
        self.movers(file).next().is_some() || self.erasures.may_be_in(file)
    }

    /// Returns the shortest and the longest retention, in days, of the organisations that may have
    /// rows in a file.
    fn days_of_class(&self, file: FileFacts<'_>) -> (i32, i32) {
        let days = self.movers(file).map(|moving| self.retention_days(&moving.organisation));
        days.fold((file.retention_days, file.retention_days), |(shortest, longest), days| {
            (shorter(shortest, days), longer(longest, days))
        })
    }

    fn movers<'a>(&'a self, file: FileFacts<'a>) -> impl Iterator<Item = &'a Moving> {
        self.moving.iter().filter(move |moving| {
            moving.from_days == file.retention_days
                && file.modified_ms >= moving.clean_before_ms
                && (moving.organisation.is_empty() || file.may_hold(&moving.organisation))
        })
    }
}

/// Returns the time from which records of a retention class are kept, in µs since 1970-01-01.
pub(crate) fn kept_since(retention_days: i32, now_micros: i64) -> i64 {
    match retention_days {
        0 => i64::MIN,
        days => {
            now_micros.saturating_sub(i64::from(days.min(MAX_DAYS)).saturating_mul(MICROS_A_DAY))
        }
    }
}

fn shorter(a: i32, b: i32) -> i32 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

fn longer(a: i32, b: i32) -> i32 {
    if a == 0 || b == 0 { 0 } else { a.max(b) }
}

/// Returns the terms of all organisations with a plan, given the name of the plan and the agreed
/// retention of each.
pub(crate) fn terms_of<'a>(
    organisations: impl IntoIterator<Item = (&'a str, &'a str, Option<i32>)>,
    plans: &BTreeMap<String, Plan>,
) -> HashMap<String, Terms> {
    let terms = organisations.into_iter().filter_map(|(organisation, name, agreed)| {
        Some((organisation.to_owned(), Terms::new(name, plans.get(name)?, agreed)))
    });
    terms.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Plans;

    const NOW: i64 = 20_000 * MICROS_A_DAY;

    fn rules() -> Rules {
        let plans = Plans::built_in();
        let terms = terms_of(
            [
                ("dev", "developer", None),
                ("pro", "production", None),
                ("ent", "enterprise", Some(90)),
            ],
            &plans,
        );
        Rules::new(Terms::without_plan(0), terms, HashSet::new(), Vec::new(), Vec::new())
    }

    fn row<'a>(organisation: &'a str, id: &'a str, created_at: i64) -> Row<'a> {
        Row {
            feedback: false,
            organisation,
            id,
            user: Some("ada"),
            created_at,
            written_ms: i64::MAX,
        }
    }

    fn file(retention_days: i32, min: i64, max: i64) -> FileFacts<'static> {
        FileFacts {
            retention_days,
            min_created_at: min,
            max_created_at: max,
            min_organisation: Some("a"),
            max_organisation: Some("z"),
            modified_ms: NOW / 1000,
        }
    }

    #[test]
    fn a_record_is_in_answers_to_the_microsecond_of_its_plan() {
        let rules = rules();
        let edge = NOW - 3 * MICROS_A_DAY;
        assert!(rules.sees(row("dev", "1", edge), NOW));
        assert!(!rules.sees(row("dev", "1", edge - 1), NOW));
        assert!(rules.sees(row("pro", "1", NOW - 30 * MICROS_A_DAY), NOW));
        assert!(!rules.sees(row("ent", "1", NOW - 91 * MICROS_A_DAY), NOW));
        assert!(rules.sees(row("nobody", "1", 0), NOW));
    }

    #[test]
    fn a_file_is_judged_by_its_class_until_a_plan_changed() {
        let mut rules = rules();
        let old = file(30, NOW - 31 * MICROS_A_DAY, NOW - 31 * MICROS_A_DAY);
        assert_eq!(rules.outlook(old, NOW), Outlook::Hidden);
        assert_eq!(rules.outlook(file(30, NOW - 31 * MICROS_A_DAY, NOW), NOW), Outlook::Mixed);
        assert_eq!(rules.outlook(file(30, NOW - 29 * MICROS_A_DAY, NOW), NOW), Outlook::Seen);
        // `ent` had 30 days and now has 90; `dev` had 30 and now has 3.
        let moving = |organisation: &str| Moving {
            organisation: organisation.to_owned(),
            from_days: 30,
            clean_before_ms: 0,
        };
        rules.moving = vec![moving("ent")];
        assert_eq!(rules.outlook(old, NOW), Outlook::Mixed);
        rules.moving = vec![moving("dev")];
        assert_eq!(rules.outlook(file(30, NOW - 29 * MICROS_A_DAY, NOW), NOW), Outlook::Mixed);
        assert!(rules.must_rewrite(old));
        rules.moving[0].clean_before_ms = NOW / 1000 + 1;
        assert!(!rules.must_rewrite(old));
        assert_eq!(rules.outlook(file(30, NOW - 29 * MICROS_A_DAY, NOW), NOW), Outlook::Seen);
    }

    #[test]
    fn erasures_name_records_of_one_organisation_only() {
        let mut rules = rules();
        let erasure = |what| {
            let [id, organisation] = ["e", "pro"].map(str::to_owned);
            Erasure {
                id,
                organisation,
                what,
                feedback: HashSet::new(),
                arrived_ms: 0,
                clean_before_ms: 0,
            }
        };
        let user = "ada".to_owned();
        rules.erasures = Erasures::new(vec![erasure(Erased::User { user, until: NOW })]);
        assert!(rules.erases(row("pro", "1", NOW)));
        assert!(!rules.erases(row("pro", "1", NOW + 1)));
        assert!(!rules.erases(row("ent", "1", NOW)));
        assert_eq!(rules.outlook(file(30, NOW, NOW), NOW), Outlook::Mixed);
        assert_eq!(rules.outlook(file(30, NOW + 1, NOW + 2), NOW), Outlook::Seen);
        rules.erasures = Erasures::new(vec![erasure(Erased::Ids(HashSet::from(["7".to_owned()])))]);
        assert!(rules.erases(row("pro", "7", NOW + 9)) && !rules.erases(row("pro", "8", NOW)));
        let attempt = row("pro", "7-0123456789abcdef", NOW);
        assert!(rules.erases(attempt), "the id of a call names its attempts");
        assert!(
            !rules.erases(Row { feedback: true, ..attempt })
                && !rules.erases(row("pro", "7-x", NOW))
        );
    }

    #[test]
    fn feedback_that_goes_with_records_takes_no_record_of_its_id() {
        let mut rules = rules();
        let [id, organisation, user] = ["e", "pro", "ada"].map(str::to_owned);
        let feedback = HashSet::from(["7".to_owned()]);
        let what = Erased::User { user, until: NOW };
        let erasure =
            Erasure { id, organisation, what, feedback, arrived_ms: 0, clean_before_ms: 0 };
        rules.erasures = Erasures::new(vec![erasure]);
        let record = Row { user: None, ..row("pro", "7", NOW + 9) };
        let feedback = Row { feedback: true, ..record };
        assert!(
            rules.erases(feedback)
                && !rules.erases(record)
                && !rules.erases(Row { organisation: "ent", ..feedback })
        );
        assert!(
            !rules.erases(Row { id: "8", ..feedback })
                && rules.erases(Row { user: Some("ada"), ..row("pro", "8", NOW) })
        );
        // `created_at` is what the sender reported.
        assert_eq!(rules.outlook(file(30, NOW + 1, NOW + 2), NOW), Outlook::Mixed);
    }

    #[test]
    fn rows_that_are_dated_far_ahead_are_as_old_as_their_file() {
        let rules = rules();
        let century = NOW + 100 * 365 * MICROS_A_DAY;
        let ahead = |days: i64| FileFacts {
            modified_ms: (NOW - days * MICROS_A_DAY) / 1000,
            ..file(3, century, century)
        };
        assert_eq!(rules.outlook(ahead(3), NOW), Outlook::Seen, "a day later than others");
        assert_eq!(rules.outlook(ahead(5), NOW), Outlook::Hidden);
        assert_eq!(rules.outlook(FileFacts { retention_days: 0, ..ahead(5) }, NOW), Outlook::Seen);
    }

    #[test]
    fn exports_reach_as_far_back_as_the_plan_says() {
        let rules = rules();
        let now = DateTime::from_timestamp_micros(NOW).unwrap();
        assert!(
            rules
                .terms("dev")
                .export_from(None, now)
                .unwrap_err()
                .message()
                .contains("has no exports")
        );
        let window = NOW - 30 * MICROS_A_DAY;
        assert_eq!(rules.terms("pro").export_from(None, now).unwrap(), Some(window));
        assert_eq!(rules.terms("pro").export_from(Some(window), now).unwrap(), Some(window));
        assert!(
            rules
                .terms("pro")
                .export_from(Some(window - 1), now)
                .unwrap_err()
                .message()
                .contains("30 days back")
        );
        assert_eq!(rules.terms("ent").export_from(Some(0), now).unwrap(), Some(0));
    }

    #[test]
    fn a_new_retention_without_a_plan_moves_records() {
        let mut rules = rules();
        rules.unknown.retention_days = 90;
        let file = file(30, NOW - 40 * MICROS_A_DAY, NOW - 40 * MICROS_A_DAY);
        assert_eq!(rules.outlook(file, NOW), Outlook::Hidden, "of the class that production has");
        rules.moving =
            vec![Moving { organisation: String::new(), from_days: 30, clean_before_ms: 0 }];
        assert_eq!(rules.outlook(file, NOW), Outlook::Mixed);
        assert!(
            rules.must_rewrite(file)
                && rules.sees(row("nobody", "1", NOW - 40 * MICROS_A_DAY), NOW)
        );
        assert!(!rules.sees(row("pro", "1", NOW - 40 * MICROS_A_DAY), NOW));
    }

    #[test]
    fn months_are_those_of_the_utc_calendar() {
        let month = Month::of_micros(
            DateTime::parse_from_rfc3339("2026-11-30T23:59:59.999999Z").unwrap().timestamp_micros(),
        );
        assert_eq!(month.text(), "2026-11");
        assert_eq!(Month::parse("2026-11"), Some(month));
        assert_eq!(month.before(11).text(), "2025-12");
        assert_eq!(month.first_day().unwrap().to_string(), "2026-11-01");
        assert_eq!(Month::parse("2026-13"), None);
    }
}
