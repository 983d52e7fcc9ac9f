//! Former names of settings. They are still read, with a warning.

/// Former and current name of each renamed setting.
const RENAMED: [(&str, &str); 1] = [("upkeep_memory_bytes", "maintenance_memory_bytes")];

/// Returns the current name of a setting.
pub(super) fn current(name: &str) -> &str {
    RENAMED.into_iter().find(|(former, _)| *former == name).map_or(name, |(_, current)| current)
}

/// Returns the warning about a setting that was set by its former name.
pub(super) fn warning(name: &str) -> Option<String> {
    let now = current(name);
    (now != name).then(|| format!("setting `{name}` is now named `{now}`; rename it"))
}
