//! Attributes of spans and resources that become metadata.

use super::any::{Any, Attributes};
use super::figures;
use crate::ingest::fields::cut;
use crate::ingest::mask;
use crate::ingest::policy::Policy;

/// Attributes of a resource that are not stored, because command lines may contain keys.
const NOT_KEPT: [&str; 3] = ["process.command", "process.command_args", "process.command_line"];
pub(super) const RUNTIME: [&str; 4] = [
    "telemetry.sdk.language",
    "process.runtime.version",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
];

/// Returns true if an attribute of a span or of its resource is metadata.
pub(super) fn is_label(key: &str, value: &Any, policy: &Policy) -> bool {
    figures::is_figure(key, value) || policy.is_label(key)
}

/// Returns the metadata of a resource: its descriptive attributes and labels.
pub(super) fn resource_tags(resource: &Attributes, policy: &Policy) -> Vec<(String, String)> {
    let labels = resource.iter().filter(|(key, value)| is_label(key, value, policy));
    labels.filter_map(|(key, value)| resource_tag(key, value)).collect()
}

/// Returns an attribute of a resource as metadata, unless it has a column or may hold keys.
pub(super) fn resource_tag(key: &str, value: &Any) -> Option<(String, String)> {
    let is_elsewhere = RUNTIME.contains(&key) || NOT_KEPT.contains(&key);
    if is_elsewhere { None } else { tag(key, value) }
}

/// Returns an attribute as metadata. Lists become JSON. A text whose name marks a secret is masked
/// like a header.
pub(super) fn tag(key: &str, value: &Any) -> Option<(String, String)> {
    let text = match value {
        Any::Null => return None,
        Any::Text(text) => mask::attribute(key, text).into_owned(),
        other => other.text().unwrap_or_else(|| mask::parameters(&other.json()).into_owned()),
    };
    (!key.is_empty()).then(|| (cut(key), cut(&text)))
}
