//! Plans: limits of storage, retention and exports for an organisation. Plain data; [`crate::plan`]
//! derives the rules.
//!
//! Three plans are built in, with Portkey's terms. `[plans.NAME]` in `gatelog.toml` adds a plan, or
//! overrides terms of a built-in one:
//!
//! ```toml
//! [plans.team]
//! retention_days = 90        # 0 keeps records for ever, or as agreed with each organisation
//! included = 500000          # records in a calendar month, UTC; no limit without it
//! over = "bill"              # or "stop": the treatment of records beyond `included`
//! block_records = 100000     # overage is billed in started blocks of this many records,
//! block_cents = 900          # at this many US cents each
//! export_days = 90           # exports reach back so far; 0: no exports; no limit without it
//! export_rows = 50000        # most records that one export writes; no limit without it
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest retention that can be agreed, in days.
pub const MAX_DAYS: i32 = 36_500;

/// The terms of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Days that records are kept. 0 keeps them for ever unless an organisation agreed on less.
    #[serde(default)]
    pub retention_days: i32,
    /// Records in a calendar month (UTC) that the plan includes. `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub included: Option<u64>,
    /// Treatment of records beyond `included`.
    #[serde(default)]
    pub over: Over,
    /// Records in a block of overage. A started block is billed as a whole.
    #[serde(default = "block_records")]
    pub block_records: u64,
    /// Price of a block, in US cents.
    #[serde(default = "block_cents")]
    pub block_cents: u64,
    /// Days that an export may reach back. 0 for no exports, `None` for any time frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_days: Option<i32>,
    /// Most records that one export job writes. `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_rows: Option<u64>,
}

/// Treatment of records beyond those that a plan includes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// The records are counted but not stored.
    #[default]
    Stop,
    /// The records are stored and billed by the block.
    Bill,
}

fn block_records() -> u64 {
    100_000
}

fn block_cents() -> u64 {
    900
}

impl Plan {
    /// Checks ranges. Errors contain `name`.
    pub fn validate(&self, name: &str) -> Result<()> {
        let wrong = |field: &str, value: &dyn fmt::Display, expected: &str| {
            Err(Error::invalid(format!("plan `{name}`: `{field}` is {value}; expected {expected}")))
        };
        if !(0..=MAX_DAYS).contains(&self.retention_days) {
            return wrong("retention_days", &self.retention_days, "0 (for ever) to 36500");
        }
        match self.export_days {
            Some(days) if !(0..=MAX_DAYS).contains(&days) => {
                wrong("export_days", &days, "0 (no exports) to 36500")
            }
            _ if self.export_rows == Some(0) => {
                wrong("export_rows", &0, "at least 1; set `export_days = 0` for no exports")
            }
            _ if self.block_records == 0 => wrong("block_records", &0, "at least 1"),
            _ => Ok(()),
        }
    }
}

/// Custom plans of a configuration, by name, without the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plans(pub BTreeMap<String, Plan>);

impl Plans {
    /// Returns the built-in plans:
    ///
    /// - developer: 10,000 records a month, then stop; kept for 3 days; no exports
    /// - production: 100,000 records a month, $9 for each further 100,000; kept for 30 days, which
    ///   exports may reach back
    /// - enterprise: no limit, retention as agreed, any export
    pub fn built_in() -> BTreeMap<String, Plan> {
        let plan = |retention_days, included, over, export_days| Plan {
            retention_days,
            included,
            over,
            block_records: block_records(),
            block_cents: block_cents(),
            export_days,
            export_rows: None,
        };
        let plans = [
            ("developer", plan(3, Some(10_000), Over::Stop, Some(0))),
            ("production", plan(30, Some(100_000), Over::Bill, Some(30))),
            ("enterprise", plan(0, None, Over::Bill, None)),
        ];
        plans.into_iter().map(|(name, plan)| (name.to_owned(), plan)).collect()
    }

    /// Reads plans from TOML: one table for each plan, or one inline table with all of them.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Inline {
            plans: BTreeMap<String, toml::Table>,
        }
        let plans = if text.trim().starts_with('{') {
            toml::from_str(&format!("plans = {}", text.trim())).map(|inline: Inline| inline.plans)
        } else {
            toml::from_str(text)
        };
        let whole = |plans: BTreeMap<String, toml::Table>| -> Result<BTreeMap<String, Plan>, toml::de::Error> {
            plans.into_iter().map(|(name, terms)| Ok((name.clone(), over_built_in(&name, terms)?))).collect()
        };
        let plans = plans.and_then(whole).map_err(|cause| {
            Error::invalid(format!("setting `plans` is not a table of plans: {}", cause.message()))
        })?;
        plans.iter().try_for_each(|(name, plan)| plan.validate(name))?;
        Ok(Self(plans))
    }
}

/// Builds a plan from its terms. A plan with the name of a built-in one takes missing terms from
/// it.
fn over_built_in(name: &str, terms: toml::Table) -> Result<Plan, toml::de::Error> {
    let built_in = Plans::built_in().remove(name).and_then(|plan| toml::Table::try_from(plan).ok());
    let mut whole = built_in.unwrap_or_default();
    whole.extend(terms);
    toml::Value::Table(whole).try_into()
}

impl fmt::Display for Plans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plans = toml::Table::try_from(&self.0).map_err(|_| fmt::Error)?;
        fmt::Display::fmt(&toml::Value::Table(plans), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_needs_only_what_differs() {
        let plans = Plans::parse(
            "[team]\nretention_days = 90\nincluded = 5\nover = 'bill'\n[trial]\nexport_days = 0",
        )
        .unwrap();
        let team = &plans.0["team"];
        assert_eq!(
            (team.retention_days, team.included, team.over, team.block_cents),
            (90, Some(5), Over::Bill, 900)
        );
        assert_eq!((plans.0["trial"].included, plans.0["trial"].export_days), (None, Some(0)));
    }

    #[test]
    fn a_built_in_plan_keeps_the_terms_that_are_not_named() {
        let plans = Plans::parse("[developer]\nincluded = 50").unwrap();
        let built_in = Plans::built_in();
        assert_eq!(
            plans.0["developer"],
            Plan { included: Some(50), ..built_in["developer"].clone() }
        );
    }

    #[test]
    fn plans_are_shown_as_they_are_read() {
        let plans =
            Plans::parse("[team]\nretention_days = 90\nincluded = 5\n[trial]\nexport_days = 0")
                .unwrap();
        assert_eq!(Plans::parse(&plans.to_string()).unwrap(), plans);
        assert!(!plans.to_string().contains('\n'));
        assert_eq!(Plans::parse(&Plans::default().to_string()).unwrap(), Plans::default());
    }

    #[test]
    fn impossible_plans_are_refused_by_name() {
        for (text, words) in [
            ("[team]\nretention_days = -1", "plan `team`: `retention_days` is -1"),
            ("[team]\nblock_records = 0", "plan `team`: `block_records` is 0"),
            ("[team]\nexport_rows = 0", "plan `team`: `export_rows` is 0"),
            ("[team]\nover = 'shrug'", "unknown variant `shrug`"),
            ("[team]\nkept = 3", "unknown field `kept`"),
        ] {
            let error = Plans::parse(text).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
    }
}
