//! Grouped analytics: the grouping key, and the page, order and columns of a request.
//!
//! Calls without a value of the grouping key are in no group. The default order is by number of
//! requests, descending.

use datafusion::common::ScalarValue;
use serde_json::{Map, Value, json};

use super::filters::AnalyticsRequest;
use super::shape::Row;
use super::sql_files::file;
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};
use crate::reports::Report;

/// Column with the total number of groups.
pub(super) const TOTAL: &str = "groups";
/// Default size of a page, in groups.
pub const PAGE: u64 = 100;
/// Maximum size of a page, in groups.
pub const MAX: u64 = 10_000;
const METADATA: &str = "metadata/";
/// SQL expression for the canonical name of a model, one for all spellings, as in reports.
const MODEL: &str = "canonical_model(ai_org, ai_model)";

/// A grouping of calls.
#[derive(Debug)]
pub(super) struct Group {
    /// Last part of the path.
    pub(super) path: &'static str,
    /// Name and text of the SQL file.
    pub(super) file: (&'static str, &'static str),
    /// SQL expression of the grouping key for a call.
    pub(super) key: &'static str,
    /// Name of the grouping key in responses.
    pub(super) name: &'static str,
    /// Default columns of an item, beside the grouping key.
    columns: &'static [&'static str],
    /// True if figures are encoded as texts, as in Portkey's API.
    pub(super) texts: bool,
    /// True if the grouping reads feedback.
    pub(super) feedback: bool,
}

const fn by(path: &'static str, key: &'static str) -> Group {
    Group {
        path,
        file: file!("group_by"),
        key,
        name: path,
        columns: &["requests"],
        texts: false,
        feedback: false,
    }
}

/// Every grouping.
pub(super) static GROUPS: [Group; 12] = [
    Group {
        path: "users",
        file: file!("group_users"),
        key: "user_id",
        name: "user",
        columns: &["requests", "cost"],
        texts: true,
        feedback: false,
    },
    Group {
        path: "ai-models",
        file: file!("group_ai_models"),
        key: MODEL,
        name: "ai_model",
        columns: &["requests"],
        texts: true,
        feedback: false,
    },
    Group {
        path: "workspaces",
        file: file!("group_workspaces"),
        key: "workspace_slug",
        name: "workspace",
        columns: &["requests", "cost"],
        texts: false,
        feedback: false,
    },
    Group {
        path: "metadata/KEY",
        file: file!("group_metadata"),
        key: "metadata[$metadata_key]",
        name: "metadata_value",
        columns: &[
            "requests",
            "cost",
            "avg_tokens",
            "avg_weighted_feedback",
            "requests_with_feedback",
            "last_seen",
        ],
        texts: false,
        feedback: true,
    },
    by("ai_service", "ai_org"),
    by("model", MODEL),
    by("status_code", "response_status_code"),
    by("api_key", "api_key_id"),
    by("config", "config"),
    by("workspace", "workspace_slug"),
    by("provider", "virtual_key"),
    by("prompt", "prompt_slug"),
];

/// Returns the grouping at a path.
pub(super) fn find(path: &str) -> Result<&'static Group> {
    let name = if path.strip_prefix(METADATA).is_some_and(|key| !key.is_empty()) {
        "metadata/KEY"
    } else {
        path
    };
    GROUPS.iter().find(|group| group.path == name).ok_or_else(|| {
        let hint = hint(path, GROUPS.iter().map(|group| group.path), "groups", "`/openapi.json`");
        Error::not_found(format!("group `{}` does not exist; {hint}", clip(path)))
    })
}

/// Groups as a request selects them.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) group: &'static Group,
    /// The metadata key, if calls are grouped by one.
    metadata_key: Option<String>,
    /// The grouping key, which is the first column of the file, then the requested columns.
    columns: Vec<&'static str>,
    /// Columns that the request names, including the one to order by.
    pub(super) named: Vec<&'static str>,
    order: &'static str,
    ascending: bool,
    page: u64,
    page_size: u64,
}

impl Listing {
    pub(super) fn new(
        group: &'static Group,
        path: &str,
        header: &Report,
        asked: &AnalyticsRequest,
    ) -> Result<Self> {
        let given = |name: &str| asked.paging.get(name).map(|value| value.trim());
        let names: Vec<&'static str> = header.columns.iter().map(|column| column.name).collect();
        let key = *names
            .first()
            .ok_or_else(|| Error::internal(format!("sql/{}.sql has no columns", header.name)))?;
        let named = |param: &str, name: &str| {
            let name = if name == group.name { key } else { name };
            let found = names.iter().find(|known| **known == name).copied();
            let known = std::iter::once(group.name).chain(names[1..].iter().copied());
            found.ok_or_else(|| {
                let hint = hint(name, known, "columns", "`/openapi.json`");
                let name = clip(name);
                Error::invalid(format!(
                    "parameter `{param}` is `{name}`, which is not a column here; {hint}"
                ))
            })
        };
        let mut columns = vec![key];
        let mut asked_for = Vec::new();
        match given("columns") {
            None => columns.extend(group.columns),
            Some(text) => {
                columns.push("requests");
                for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    let column = named("columns", name)?;
                    asked_for.push(column);
                    if !columns.contains(&column) {
                        columns.push(column);
                    }
                }
            }
        }
        let order = given("order_by").map_or(Ok("requests"), |name| named("order_by", name))?;
        asked_for.push(order);
        let ascending = match given("order_by_type").map(str::to_lowercase).as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(other) => return Err(wrong("order_by_type", other, "asc or desc")),
        };
        let metadata_key = path.strip_prefix(METADATA).map(str::to_owned);
        let page = whole("current_page", given("current_page"), 0, 0..=u64::from(u32::MAX))?;
        let page_size = whole("page_size", given("page_size"), PAGE, 1..=MAX)?;
        Ok(Self {
            group,
            metadata_key,
            columns,
            named: asked_for,
            order,
            ascending,
            page,
            page_size,
        })
    }

    /// Returns the request for the first page of the same groups. `None` if this is the first page.
    pub(super) fn first_page(&self) -> Option<Self> {
        (self.page > 0).then(|| Self { page: 0, page_size: 1, ..self.clone() })
    }

    /// Returns the query of the page over the query of the file. Names of columns come from the
    /// file's header. Columns that are not requested are not computed.
    pub(super) fn page_of(&self, query: &str) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("\"{column}\"")).collect();
        let key = self.columns[0];
        let order = self.order;
        let way = if self.ascending { "asc" } else { "desc" };
        format!(
            "select {}, count(*) over () as {TOTAL} from (\n{query}\n)\n\
             order by \"{order}\" {way} nulls last, \"{key}\" limit $page_size offset $page_start",
            columns.join(", ")
        )
    }

    pub(super) fn params(&self) -> Vec<(String, ScalarValue)> {
        let count = |number: u64| ScalarValue::from(i64::try_from(number).unwrap_or(i64::MAX));
        let mut params = vec![
            ("page_size".to_owned(), count(self.page_size)),
            ("page_start".to_owned(), count(self.page.saturating_mul(self.page_size))),
        ];
        params.extend(
            self.metadata_key
                .as_deref()
                .map(|key| ("metadata_key".to_owned(), ScalarValue::from(key))),
        );
        params
    }

    pub(super) fn json(&self, rows: Vec<Row>) -> Value {
        let total =
            rows.first().and_then(|row| row.get(TOTAL)).cloned().unwrap_or_else(|| json!(0));
        let items: Vec<Value> = rows.into_iter().map(|row| self.item(row)).collect();
        json!({ "object": "list", "total": total, "data": items })
    }

    fn item(&self, mut row: Row) -> Value {
        let mut item = Map::new();
        for (place, column) in self.columns.iter().enumerate() {
            let value = row.remove(*column).unwrap_or(Value::Null);
            let value = match value {
                Value::Number(number) if self.group.texts => Value::String(number.to_string()),
                value => value,
            };
            let name = if place == 0 { self.group.name } else { *column };
            item.insert(name.to_owned(), value);
        }
        item.insert("object".to_owned(), json!("analytics-group"));
        Value::Object(item)
    }
}

fn whole(
    name: &str,
    given: Option<&str>,
    default: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<u64> {
    let Some(text) = given else { return Ok(default) };
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    let expected = || format!("a whole number from {} to {}", allowed.start(), allowed.end());
    number.ok_or_else(|| wrong(name, text, &expected()))
}

/// Returns an error about a parameter's value.
fn wrong(name: &str, value: &str, expected: &str) -> Error {
    Error::invalid(format!("parameter `{name}` is `{value}`; expected {expected}"))
}
