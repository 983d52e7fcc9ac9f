//! The kinds of data in OTLP requests, and the encodings of the requests.

/// Encoding of a request, and so of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

/// Kind of data in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics, which are not stored.
    Metrics,
}

impl Encoding {
    /// Returns the encoding that a content type names. For any other content type, or none, guesses
    /// from the bytes.
    pub fn detect(content_type: &str, bytes: &[u8]) -> Self {
        let media_type =
            content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Self::Json,
            "application/x-protobuf" | "application/protobuf" => Self::Protobuf,
            // A protobuf request begins with the tag of its first field, a line feed, followed by a
            // length.
            _ => {
                let text = bytes.trim_ascii();
                let is_object = text.first() == Some(&b'{') && text.last() == Some(&b'}');
                if is_object || text.is_empty() { Self::Json } else { Self::Protobuf }
            }
        }
    }

    /// Returns the content type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }
}

impl Signal {
    /// Returns the names of the three levels in JSON: as OTLP spells them, and as the protobuf
    /// files do, which some writers keep.
    pub(super) fn json_names(self) -> [[&'static str; 2]; 3] {
        match self {
            Self::Traces => {
                [["resourceSpans", "resource_spans"], ["scopeSpans", "scope_spans"], ["spans"; 2]]
            }
            Self::Logs => [
                ["resourceLogs", "resource_logs"],
                ["scopeLogs", "scope_logs"],
                ["logRecords", "log_records"],
            ],
            Self::Metrics => [
                ["resourceMetrics", "resource_metrics"],
                ["scopeMetrics", "scope_metrics"],
                ["metrics"; 2],
            ],
        }
    }

    /// Returns the end of the path for requests of the signal.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// Returns the name of the count of rejected items.
    pub(super) fn rejected_name(self) -> &'static str {
        match self {
            Self::Traces => "rejectedSpans",
            Self::Logs => "rejectedLogRecords",
            Self::Metrics => "rejectedDataPoints",
        }
    }
}
