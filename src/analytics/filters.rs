//! Parameters of a request: a time frame, filters, and for groups a page and an order.
//!
//! The filters are those of lists of logs ([`Filter`]); the time frame is required. An invalid
//! value is an error. An unknown name is ignored, as Portkey does, but named in the response, so
//! that a misspelt filter is noticed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;

use super::time_range::TimeRange;
use crate::error::{Error, Result};
use crate::logs::{Bounds, Condition, Filter};

/// Parameters for pages of groups, which the SDKs send.
const PAGING: [&str; 6] =
    ["current_page", "page_size", "order_by", "order_by_type", "columns", "include_total"];

/// The parsed parameters of a request.
#[derive(Clone, Debug)]
pub struct AnalyticsRequest {
    pub(super) frame: TimeRange,
    filters: Condition,
    /// Columns that the filters read.
    filtered: Vec<String>,
    /// Page, order and columns of groups, unparsed.
    pub(super) paging: BTreeMap<String, String>,
    /// Unknown names.
    pub(super) ignored: Vec<String>,
}

impl AnalyticsRequest {
    /// Parses the parameters of a query string.
    pub fn parse(mut given: BTreeMap<String, String>) -> Result<Self> {
        let filter = Filter::read(|name| given.remove(name))?;
        let frame = frame(filter.time)?;
        // The statement has the time frame itself.
        let filter = Filter { time: Bounds::default(), ..filter };
        given.retain(|_, value| !value.trim().is_empty());
        let paging = PAGING.iter().filter_map(|name| given.remove_entry(*name)).collect();
        let ignored = given.into_keys().collect();
        let mut filtered = filter.columns();
        filtered.push("created_at".to_owned());
        Ok(Self { frame, filters: filter.condition(), filtered, paging, ignored })
    }

    /// Returns the filters, each a condition on `logs`.
    pub(super) fn clauses(&self) -> &[String] {
        &self.filters.parts
    }

    /// Returns the columns that the filters and the time frame read.
    pub(super) fn filtered(&self) -> &[String] {
        &self.filtered
    }

    /// Returns the query that replaces `logs`, if a filter needs one.
    pub(super) fn logs(&self) -> Option<&'static str> {
        self.filters.logs
    }

    /// Returns the values of the placeholders.
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
            "parameter `{name}` is missing; send a date or a time such as 2026-11-21T17:30:00Z"
        ))
    };
    let from = time.min.ok_or_else(|| missing("time_of_generation_min"))?;
    let to = time.max.ok_or_else(|| missing("time_of_generation_max"))?;
    Ok(TimeRange { from, to })
}

fn time(at: DateTime<Utc>) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
}
