//! What a request may ask: a time frame, filters, and for groups a page and an order.
//!
//! The filters are those of lists of logs ([`Filter`]); the time frame has to be given. A value
//! that cannot be meant is an error; a name that is not known is passed over, as Portkey does, but
//! named in the answer, so that a misspelt filter shows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;

use super::time_range::TimeRange;
use crate::error::{Error, Result};
use crate::logs::{Bounds, Condition, Filter};

/// Parameters that the SDKs send and that are about pages of groups.
const PAGING: [&str; 6] =
    ["current_page", "page_size", "order_by", "order_by_type", "columns", "include_total"];

/// A request, understood.
#[derive(Clone, Debug)]
pub struct AnalyticsRequest {
    pub(super) frame: TimeRange,
    filters: Condition,
    /// The columns that these look for values of.
    filtered: Vec<String>,
    /// Page, order and columns of groups, as they came.
    pub(super) paging: BTreeMap<String, String>,
    /// Names that were not known.
    pub(super) ignored: Vec<String>,
}

impl AnalyticsRequest {
    /// Understands the parameters of a query string.
    pub fn parse(mut given: BTreeMap<String, String>) -> Result<Self> {
        let filter = Filter::read(|name| given.remove(name))?;
        let frame = frame(filter.time)?;
        // The frame is part of the statement itself.
        let filter = Filter { time: Bounds::default(), ..filter };
        given.retain(|_, value| !value.trim().is_empty());
        let paging = PAGING.iter().filter_map(|name| given.remove_entry(*name)).collect();
        let ignored = given.into_keys().collect();
        let mut filtered = filter.columns();
        filtered.push("created_at".to_owned());
        Ok(Self { frame, filters: filter.condition(), filtered, paging, ignored })
    }

    /// The filters, each a condition on `logs`.
    pub(super) fn clauses(&self) -> &[String] {
        &self.filters.parts
    }

    /// The columns that the filters and the time frame look for values of.
    pub(super) fn filtered(&self) -> &[String] {
        &self.filtered
    }

    /// The query that stands for `logs`, if filters ask for one.
    pub(super) fn logs(&self) -> Option<&'static str> {
        self.filters.logs
    }

    /// The values of the placeholders.
    pub(super) fn params(&self) -> Vec<(String, ScalarValue)> {
        let mut params = self.filters.params.clone();
        params.push(("time_of_generation_min".to_owned(), time(self.frame.from)));
        params.push(("time_of_generation_max".to_owned(), time(self.frame.to)));
        params.push(("bucket".to_owned(), self.frame.width().word().into()));
        params
    }
}

fn frame(time: Bounds<DateTime<Utc>>) -> Result<TimeRange> {
    let missing = |name: &str| {
        Error::invalid(format!(
            "parameter `{name}` is missing; send a date or a moment such as 2026-11-21T17:30:00Z"
        ))
    };
    let from = time.min.ok_or_else(|| missing("time_of_generation_min"))?;
    let to = time.max.ok_or_else(|| missing("time_of_generation_max"))?;
    Ok(TimeRange { from, to })
}

fn time(at: DateTime<Utc>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
}
