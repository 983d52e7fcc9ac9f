//! Reads a gateway's config: the route of a call through its targets, and which of them answered.
//!
//! The hooks do not state which target answered. They state its provider and the request, which
//! already holds the target's own parameters. In most configs only one target matches. If several
//! match, only what they have in common is used.

use super::fields::text;
use super::usage::{Members, count, get};
use crate::record::json::{list, members};

/// Maximum depth of nested strategies. The gateway's own path names each level.
const MAX_LEVELS: usize = 8;
/// Maximum number of targets that are read.
const MAX_TARGETS: usize = 256;

/// The route of a call, as a config states it.
pub(super) struct Config {
    /// Strategy by which the outermost targets are chosen; `None` if the config is not known.
    pub(super) mode: Option<String>,
    /// Name of a stored config.
    pub(super) slug: Option<String>,
    targets: Vec<Target>,
}

/// A target that calls a provider, with the values that it inherits.
#[derive(Clone, Default)]
struct Target {
    /// Path as the gateway's response header writes it: `config`, `config.targets[1]`.
    path: String,
    provider: Option<String>,
    host: Option<String>,
    /// Model that the target asks for, instead of the one that the caller named.
    model: Option<String>,
    retries: bool,
}

/// Known properties of the target that answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answerer {
    pub(super) path: Option<String>,
    /// Custom host that the target called.
    pub(super) host: Option<String>,
    /// True if the target may have tried more than once; `None` if that is not known.
    pub(super) retries: Option<bool>,
}

impl Config {
    /// Reads the header `x-portkey-config`. `headers` is true if the call's headers are known at
    /// all.
    pub(super) fn read(raw: Option<&str>, headers: bool) -> Self {
        let single = || headers.then(|| "SINGLE".to_owned());
        let Some(raw) = raw else {
            let alone = Target { path: "config".to_owned(), ..Target::default() };
            return Self {
                mode: single(),
                slug: None,
                targets: if headers { vec![alone] } else { Vec::new() },
            };
        };
        if !raw.trim_start().starts_with(['{', '[']) {
            return Self { mode: single(), slug: Some(raw.to_owned()), targets: Vec::new() };
        }
        let config = members(raw).unwrap_or_default();
        let mut targets = Vec::new();
        collect(
            &config,
            &Target { path: "config".to_owned(), ..Target::default() },
            0,
            &mut targets,
        );
        Self { mode: mode(&config).or_else(single), slug: None, targets }
    }

    /// Returns the target that called `provider` for `model`.
    pub(super) fn answerer(&self, provider: Option<&str>, model: Option<&str>) -> Answerer {
        let fits = |own: &Option<String>, found: Option<&str>| {
            own.is_none() || found.is_none() || own.as_deref() == found
        };
        let left: Vec<&Target> = (self.targets.iter())
            .filter(|target| fits(&target.provider, provider) && fits(&target.model, model))
            .collect();
        Answerer {
            path: common(&left, |target| Some(target.path.clone())),
            host: common(&left, |target| target.host.clone()),
            retries: (!left.is_empty()).then(|| left.iter().any(|target| target.retries)),
        }
    }
}

fn mode(config: &Members<'_>) -> Option<String> {
    let strategy = get(config, &["strategy"]).and_then(members)?;
    text(&strategy, &["mode"]).map(|mode| mode.to_ascii_uppercase())
}

/// Adds the targets below a config, or the config itself if it has none. `above` holds the
/// inherited values.
fn collect(config: &Members<'_>, above: &Target, level: usize, targets: &mut Vec<Target>) {
    if targets.len() == MAX_TARGETS {
        return;
    }
    let inner = |names: &[&str]| get(config, names).and_then(members);
    let params = inner(&["override_params", "overrideParams"]).unwrap_or_default();
    let own = Target {
        path: above.path.clone(),
        provider: text(config, &["provider"]),
        host: text(config, &["custom_host", "customHost"]).or_else(|| above.host.clone()),
        model: text(&params, &["model"]).or_else(|| above.model.clone()),
        retries: inner(&["retry"])
            .map_or(above.retries, |retry| count(&retry, &["attempts"]).unwrap_or(0) > 0),
    };
    let below = get(config, &["targets"])
        .and_then(list)
        .filter(|below| !below.is_empty() && level < MAX_LEVELS);
    let Some(below) = below else { return targets.push(own) };
    for (place, target) in below.into_iter().take(MAX_TARGETS).enumerate() {
        let inherited = Target { path: format!("{}.targets[{place}]", own.path), ..own.clone() };
        collect(&members(target).unwrap_or_default(), &inherited, level + 1, targets);
    }
}

/// Returns the value that all targets share, if they agree.
fn common(targets: &[&Target], of: impl Fn(&Target) -> Option<String>) -> Option<String> {
    let mut values = targets.iter().map(|target| of(target));
    let first = values.next()??;
    values.all(|value| value.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answerer(config: &Value, provider: &str, model: &str) -> Answerer {
        Config::read(Some(&config.to_string()), true).answerer(Some(provider), Some(model))
    }

    #[test]
    fn provider_and_model_tell_the_target() {
        let config = json!({
            "strategy": { "mode": "fallback" }, "custom_host": "http://all", "retry": { "attempts": 2 },
            "targets": [
                { "provider": "anthropic", "override_params": { "model": "claude-a" } },
                { "strategy": { "mode": "loadbalance" }, "retry": { "attempts": 0 }, "targets": [
                    { "provider": "openai", "override_params": { "model": "gpt-4o" } },
                    { "provider": "openai", "custom_host": "http://own", "overrideParams": { "model": "gpt-4o-mini" } },
                ] },
                { "provider": "groq" },
            ],
        });
        let expected = |path: &str, host: &str, retries| Answerer {
            path: Some(path.to_owned()),
            host: Some(host.to_owned()),
            retries: Some(retries),
        };
        assert_eq!(
            answerer(&config, "anthropic", "claude-a"),
            expected("config.targets[0]", "http://all", true)
        );
        assert_eq!(
            answerer(&config, "openai", "gpt-4o"),
            expected("config.targets[1].targets[0]", "http://all", false)
        );
        assert_eq!(
            answerer(&config, "openai", "gpt-4o-mini"),
            expected("config.targets[1].targets[1]", "http://own", false)
        );
        assert_eq!(
            answerer(&config, "groq", "any"),
            expected("config.targets[2]", "http://all", true)
        );
        assert_eq!(answerer(&config, "openai", "other"), Answerer::default());
        assert_eq!(Config::read(Some(&config.to_string()), true).mode.as_deref(), Some("FALLBACK"));
    }

    #[test]
    fn several_matching_targets_give_their_common_values() {
        let target = json!({ "provider": "openai", "custom_host": "http://own", "override_params": { "model": "m" } });
        let either = json!({ "provider": "openai", "custom_host": "http://own", "retry": { "attempts": 1 } });
        let config = json!({ "strategy": { "mode": "loadbalance" }, "targets": [target, either] });
        let host = Some("http://own".to_owned());
        let found = Answerer { path: None, host: host.clone(), retries: Some(true) };
        assert_eq!(
            answerer(&config, "openai", "m"),
            found,
            "the second one may have been asked for `m`"
        );
        let path = Some("config.targets[1]".to_owned());
        assert_eq!(answerer(&config, "openai", "n"), Answerer { path, host, retries: Some(true) });
    }

    #[test]
    fn without_a_config_in_full_little_is_known() {
        let of = |raw: Option<&str>, headers| {
            let config = Config::read(raw, headers);
            let found = config.answerer(Some("openai"), Some("m"));
            (config.mode, config.slug, found.path, found.retries)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(None, true), (text("SINGLE"), None, text("config"), Some(false)));
        assert_eq!(of(None, false), (None, None, None, None));
        assert_eq!(of(Some("pc-1"), true), (text("SINGLE"), text("pc-1"), None, None));
        assert_eq!(of(Some("{oops"), true), (text("SINGLE"), None, text("config"), Some(false)));
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let mut deep = json!({ "provider": "openai" });
        for _ in 0..40 {
            deep = json!({ "targets": [deep] });
        }
        let path = answerer(&deep, "openai", "x").path.unwrap();
        assert_eq!(path.matches("targets").count(), MAX_LEVELS);
        let wide = json!({ "targets": vec![json!({ "provider": "openai" }); 2 * MAX_TARGETS] });
        assert_eq!(Config::read(Some(&wide.to_string()), true).targets.len(), MAX_TARGETS);
    }
}
