//! Selection of the records of an export job, from the `filters` that Portkey's clients send.
//!
//! Besides the filters of lists ([`Filter`]), it accepts a page (`page_size`, `current_page`) and
//! the time range of Portkey's guide, `created_at: {gte, lte}`. An unknown name is an error:
//! ignoring it would export more than requested. Without a page, the number of records is not
//! limited.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::logs::{Bounds, FILTER_NAMES, Filter};
use crate::nearest::{clip, hint};

/// Records per page if only the page number is given.
const PAGE_SIZE: u64 = 50_000;
const FURTHER: [&str; 3] = ["page_size", "current_page", "created_at"];

/// Selection of the records of an export job, in the order of exports.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selection {
    /// Condition that the records match.
    pub filter: Filter,
    /// Number of records to skip.
    pub skip: u64,
    /// Maximum number of records. `None` means no limit.
    pub limit: Option<u64>,
}

impl Selection {
    /// Parses `filters`. Numbers may be strings. Null and empty values are ignored.
    pub(crate) fn read(fields: &Map<String, Value>) -> Result<Self> {
        let known = || FILTER_NAMES.split(", ").chain(FURTHER);
        let given = |value: &Value| !value.is_null() && value != "";
        let is_unknown = |name: &str| known().all(|known| known != name);
        if let Some((name, _)) =
            fields.iter().find(|(name, value)| given(value) && is_unknown(name))
        {
            let hint = hint(name, known(), "filters", "`/openapi.json`");
            return Err(Error::invalid(format!("filter `{}` is unknown; {hint}", clip(name))));
        }
        let mut filter = Filter::from_object(fields)?;
        if let Some(frame) = fields.get("created_at").filter(|frame| given(frame)) {
            let frame = created_at(frame)?;
            let time = &mut filter.time;
            (time.min, time.max) = (time.min.max(frame.min), earlier(time.max, frame.max));
        }
        let size = number(fields, "page_size")?;
        if size == Some(0) {
            return Err(Error::invalid(
                "`page_size` is 0; expected 1 or more, or leave it out for all records",
            ));
        }
        let page = number(fields, "current_page")?.unwrap_or(0);
        let limit = size.or((page > 0).then_some(PAGE_SIZE));
        Ok(Self { filter, skip: limit.unwrap_or(0).saturating_mul(page), limit })
    }
}

fn number(fields: &Map<String, Value>, name: &str) -> Result<Option<u64>> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let found = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64(),
    };
    found.map(Some).ok_or_else(|| {
        Error::invalid(format!("`{name}` is `{value}`; expected a whole number, 0 or more"))
    })
}

/// Parses a time range given as comparisons.
fn created_at(frame: &Value) -> Result<Bounds<DateTime<Utc>>> {
    let wrong = || {
        Error::invalid(format!(
            "`created_at` is `{frame}`; expected an object of `gte`, `gt`, `lte`, `lt` with a date or a time each"
        ))
    };
    let fields = frame.as_object().ok_or_else(wrong)?;
    let mut bounds = Bounds::default();
    for (operator, value) in fields {
        let text = Map::from_iter([("time_of_generation_min".to_owned(), value.clone())]);
        let at =
            Filter::from_object(&text).ok().and_then(|filter| filter.time.min).ok_or_else(wrong)?;
        let beside = |micros| at.checked_add_signed(TimeDelta::microseconds(micros));
        match operator.as_str() {
            "gte" => bounds.min = bounds.min.max(Some(at)),
            "gt" => bounds.min = bounds.min.max(beside(1)),
            "lte" => bounds.max = earlier(bounds.max, Some(at)),
            "lt" => bounds.max = earlier(bounds.max, beside(-1)),
            _ => return Err(wrong()),
        }
    }
    Ok(bounds)
}

/// Returns the earlier of two ends. `None` means no end.
fn earlier(a: Option<DateTime<Utc>>, b: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(filters: Value) -> Result<Selection> {
        let Value::Object(fields) = filters else { panic!("{filters} is no object") };
        Selection::read(&fields)
    }

    fn at(text: &str) -> Option<DateTime<Utc>> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_guides_time_frame_is_the_contracts() {
        let portkeys = json!({ "time_of_generation_min": "2026-11-01", "time_of_generation_max": "2026-11-02T10:00:00Z" });
        let guides =
            json!({ "created_at": { "gte": "2026-11-01", "lte": "2026-11-02T10:00:00Z" } });
        assert_eq!(read(guides).unwrap(), read(portkeys).unwrap());
        let open = read(json!({ "created_at": { "gt": "2026-11-01", "lt": "2026-11-02" } }))
            .unwrap()
            .filter
            .time;
        assert_eq!(
            (open.min, open.max),
            (at("2026-11-01T00:00:00.000001Z"), at("2026-11-01T23:59:59.999999Z"))
        );
        let both =
            read(json!({ "created_at": { "gte": "2026-11-01" }, "time_of_generation_min": "2026-11-03" })).unwrap();
        assert_eq!(both.filter.time.min, at("2026-11-03T00:00:00Z"));
        for wrong in [
            json!("2026-11-01"),
            json!({ "from": "2026-11-01" }),
            json!({ "gte": "soon" }),
            json!([1]),
        ] {
            assert!(
                read(json!({ "created_at": wrong }))
                    .unwrap_err()
                    .message()
                    .contains("`created_at`")
            );
        }
    }

    #[test]
    fn a_page_limits_only_where_one_is_named() {
        let page = |filters| read(filters).map(|selection| (selection.skip, selection.limit));
        assert_eq!(page(json!({})).unwrap(), (0, None));
        assert_eq!(page(json!({ "current_page": 0 })).unwrap(), (0, None));
        assert_eq!(page(json!({ "page_size": 10 })).unwrap(), (0, Some(10)));
        assert_eq!(page(json!({ "page_size": "10", "current_page": 2 })).unwrap(), (20, Some(10)));
        assert_eq!(
            page(json!({ "current_page": 1, "page_size": null })).unwrap(),
            (50_000, Some(50_000))
        );
        assert!(page(json!({ "page_size": 0 })).is_err());
        assert!(page(json!({ "page_size": -1 })).is_err());
    }

    #[test]
    fn a_misspelt_filter_is_refused_by_name() {
        let refused = read(json!({ "ai_models": "gpt-4o" })).unwrap_err();
        assert!(
            refused.message().contains("`ai_models` is unknown")
                && refused.message().contains("did you mean `ai_model`")
        );
        assert!(read(json!({ "ai_models": null, "nothing": "" })).is_ok());
        let all = json!({
            "time_of_generation_min": "2024-10-20", "total_units_min": 1, "cost_max": 0.5, "ai_model": "gpt-4o",
            "prompt_token_min": 1, "completion_token_max": "9", "status_code": "200, 429", "metadata": { "team": "search" },
            "ai_org_model": "openai__gpt-3.5-turbo, anthropic__claude-2.1", "weighted_feedback_min": -1, "virtual_keys": "a, b",
            "trace_id": "t", "configs": "pc-1", "workspace_slug": "w", "prompt_slug": "p", "page_size": 50000,
            "current_page": 0, "span_id": "s", "api_key_ids": "k", "cache_status": "HIT",
        });
        assert_eq!(read(all).unwrap().limit, Some(50_000));
    }
}
