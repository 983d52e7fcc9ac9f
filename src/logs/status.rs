//! The four Status labels of a record: their values for a row, and the SQL conditions that find
//! rows with a label.
//!
//! The words and rules are those of `sql/status.sql`; a test runs both over the same records. A
//! label matches in any case, with `_` or `-` for a blank, and `Retry Success` matches any number
//! of tries. `mode` does not show a strategy nested in another one, so only the outermost strategy
//! has its label.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::record::Record;

/// SQL expression for the success of a call. It is null if the outcome is unknown.
const SUCCEEDED: &str = "coalesce(is_success = 1, response_status_code between 200 and 299)";
/// Labels that a filter accepts, for messages.
const KNOWN: &str = "Cache Disabled, Cache Miss, Cache Refreshed, Cache Hit, Cache Semantic Hit, Retry Not Triggered, \
                     Retry Success, Retry Success on N Tries, Retry Failed, Fallback Disabled, Fallback Active, \
                     Loadbalancer Disabled, Loadbalancer Active";

/// Labels of one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Label of the cache.
    pub cache: &'static str,
    /// Label of retries.
    pub retry: String,
    /// Label of the fallback.
    pub fallback: &'static str,
    /// Label of load balancing.
    pub loadbalance: &'static str,
}

/// Subject of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Use of the cache.
    Cache,
    /// Retries of the call.
    Retry,
    /// Existence of fallback targets.
    Fallback,
    /// Load balancing between targets.
    Loadbalance,
}

/// A label that a filter accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// `Cache Disabled`
    CacheDisabled,
    /// `Cache Miss`
    CacheMiss,
    /// `Cache Refreshed`
    CacheRefreshed,
    /// `Cache Hit`
    CacheHit,
    /// `Cache Semantic Hit`
    CacheSemanticHit,
    /// `Retry Not Triggered`
    RetryNotTriggered,
    /// `Retry Success on {n} Tries`. `None` means any number of tries.
    RetrySuccess(Option<u32>),
    /// `Retry Failed`
    RetryFailed,
    /// `Fallback Active`, or `Fallback Disabled`
    Fallback(bool),
    /// `Loadbalancer Active`, or `Loadbalancer Disabled`
    Loadbalance(bool),
}

impl Status {
    /// Returns the labels of a record.
    pub fn from_record(record: &Record) -> Self {
        let upper = |text: &Option<String>| text.as_deref().unwrap_or_default().to_uppercase();
        let mode = upper(&record.mode);
        let cache = match upper(&record.cache_status).as_str() {
            "HIT" => "Cache Hit",
            "SEMANTIC HIT" => "Cache Semantic Hit",
            "REFRESH" => "Cache Refreshed",
            "MISS" | "SEMANTIC MISS" => "Cache Miss",
            _ => "Cache Disabled",
        };
        let by_code = || record.response_status_code.map(|code| (200..=299).contains(&code));
        let succeeded = record.is_success.map(|success| success == 1).or_else(by_code);
        // A retry that ended in an error has failed. If the outcome is unknown, the gateway's count
        // decides.
        let retry = match record.retry_success_count.unwrap_or(0) {
            0 => "Retry Not Triggered".to_owned(),
            count if count < 0 || succeeded == Some(false) => "Retry Failed".to_owned(),
            count => format!("Retry Success on {count} Tries"),
        };
        Self {
            cache,
            retry,
            fallback: if mode == "FALLBACK" { "Fallback Active" } else { "Fallback Disabled" },
            loadbalance: if mode == "LOADBALANCE" {
                "Loadbalancer Active"
            } else {
                "Loadbalancer Disabled"
            },
        }
    }
}

impl Label {
    /// Parses a label.
    pub fn parse(text: &str) -> Result<Self> {
        let even = text.trim().to_lowercase().replace(['_', '-'], " ");
        let label = match even.as_str() {
            "cache disabled" => Self::CacheDisabled,
            "cache miss" => Self::CacheMiss,
            "cache refreshed" => Self::CacheRefreshed,
            "cache hit" => Self::CacheHit,
            "cache semantic hit" => Self::CacheSemanticHit,
            "retry not triggered" => Self::RetryNotTriggered,
            "retry success" => Self::RetrySuccess(None),
            // A newer version of Portkey's page uses this word.
            "retry failed" | "retry exhausted" => Self::RetryFailed,
            "fallback disabled" => Self::Fallback(false),
            "fallback active" => Self::Fallback(true),
            "loadbalancer disabled" => Self::Loadbalance(false),
            "loadbalancer active" => Self::Loadbalance(true),
            other => {
                let tries = other
                    .strip_prefix("retry success on ")
                    .and_then(|rest| rest.strip_suffix(" tries"));
                let tries = tries.and_then(|tries| tries.parse().ok()).filter(|tries| *tries > 0);
                let unknown =
                    || Error::invalid(format!("`status` is `{text}`; expected labels of {KNOWN}"));
                Self::RetrySuccess(Some(tries.ok_or_else(unknown)?))
            }
        };
        Ok(label)
    }

    /// Returns the subject of the label.
    pub fn kind(self) -> Kind {
        match self {
            Self::CacheDisabled
            | Self::CacheMiss
            | Self::CacheRefreshed
            | Self::CacheHit
            | Self::CacheSemanticHit => Kind::Cache,
            Self::RetryNotTriggered | Self::RetrySuccess(_) | Self::RetryFailed => Kind::Retry,
            Self::Fallback(_) => Kind::Fallback,
            Self::Loadbalance(_) => Kind::Loadbalance,
        }
    }

    /// Returns the SQL condition for rows of `logs` with the label. It is never null.
    pub fn condition(self) -> String {
        let cache = "coalesce(upper(cache_status), '')";
        let mode = |name: &str, is: bool| {
            format!("coalesce(upper(mode), '') {} '{name}'", if is { "=" } else { "<>" })
        };
        match self {
            Self::CacheDisabled => {
                format!(
                    "{cache} not in ('HIT', 'SEMANTIC HIT', 'REFRESH', 'MISS', 'SEMANTIC MISS')"
                )
            }
            Self::CacheMiss => format!("{cache} in ('MISS', 'SEMANTIC MISS')"),
            Self::CacheRefreshed => format!("{cache} = 'REFRESH'"),
            Self::CacheHit => format!("{cache} = 'HIT'"),
            Self::CacheSemanticHit => format!("{cache} = 'SEMANTIC HIT'"),
            Self::RetryNotTriggered => "coalesce(retry_success_count, 0) = 0".to_owned(),
            Self::RetryFailed => {
                format!(
                    "coalesce(retry_success_count < 0 or (retry_success_count > 0 and not {SUCCEEDED}), false)"
                )
            }
            Self::RetrySuccess(tries) => {
                let count = tries.map_or_else(|| "> 0".to_owned(), |tries| format!("= {tries}"));
                format!(
                    "coalesce(retry_success_count {count}, false) and coalesce({SUCCEEDED}, true)"
                )
            }
            Self::Fallback(active) => mode("FALLBACK", active),
            Self::Loadbalance(active) => mode("LOADBALANCE", active),
        }
    }
}
