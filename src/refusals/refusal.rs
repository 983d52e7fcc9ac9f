//! An entry of the list of refusals, and the source of the refused data.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ingest::SourceFormat;
use crate::record::json::Reason;

const SEVERAL: &str = "several records or requests were refused for this reason";

/// Source of refused data: the shape of the records, or the kind of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// gatelog's own format.
    Native,
    /// Portkey's insert API.
    Portkey,
    /// LiteLLM's callback.
    Litellm,
    /// Hooks of Portkey's gateway.
    GatewayHook,
    /// Files of the OpenTelemetry collector.
    Otlp,
    /// OpenTelemetry spans.
    OtlpTraces,
    /// OpenTelemetry log records.
    OtlpLogs,
    /// OpenTelemetry metrics.
    OtlpMetrics,
    /// Log objects of a Portkey gateway.
    ControlPlaneLogs,
    /// Rows of metrics of a Portkey gateway.
    ControlPlaneRows,
    /// Feedback.
    Feedback,
    /// The log store of a Portkey gateway.
    PortkeyBucket,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 12] = [
        Self::Native,
        Self::Portkey,
        Self::Litellm,
        Self::GatewayHook,
        Self::Otlp,
        Self::OtlpTraces,
        Self::OtlpLogs,
        Self::OtlpMetrics,
        Self::ControlPlaneLogs,
        Self::ControlPlaneRows,
        Self::Feedback,
        Self::PortkeyBucket,
    ];

    /// Returns its name in metrics and responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Portkey => "portkey",
            Self::Litellm => "litellm",
            Self::GatewayHook => "gateway-hook",
            Self::Otlp => "otlp",
            Self::OtlpTraces => "otlp-traces",
            Self::OtlpLogs => "otlp-logs",
            Self::OtlpMetrics => "otlp-metrics",
            Self::ControlPlaneLogs => "control-plane-logs",
            Self::ControlPlaneRows => "control-plane-rows",
            Self::Feedback => "feedback",
            Self::PortkeyBucket => "portkey-bucket",
        }
    }
}

impl From<SourceFormat> for Source {
    fn from(shape: SourceFormat) -> Self {
        match shape {
            SourceFormat::Native => Self::Native,
            SourceFormat::Portkey => Self::Portkey,
            SourceFormat::LiteLlm => Self::Litellm,
            SourceFormat::GatewayHook => Self::GatewayHook,
            SourceFormat::Otlp => Self::Otlp,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|source| source.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("`source` is `{name}`; expected one of {known}"))
        })
    }
}

/// An entry of the list of refusals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Time of the refusal.
    pub at: DateTime<Utc>,
    /// The organisation of the sender's key, or else the one that the record names.
    pub organisation: String,
    /// The workspace, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Source of the data.
    pub source: Source,
    /// Method and route, or the command.
    pub route: Arc<str>,
    /// Reason of the refusal.
    pub reason: Reason,
    /// The refused field. Empty if the refusal is about the whole record or request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Expected value.
    pub message: String,
    /// Index of the record in the request, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// Number of refusals that the entry stands for.
    pub count: u64,
    /// Field names of the record, the refused one first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl Refusal {
    /// Merges another entry for the same reason into this one.
    pub(super) fn join(&mut self, other: &Self) {
        self.count += other.count;
        if self.field != other.field {
            self.field.clear();
        }
        if self.message != other.message {
            self.message = SEVERAL.to_owned();
        }
    }
}
