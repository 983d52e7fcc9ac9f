//! Classifies environment variables that begin with `GATELOG_`: settings, variables of other
//! programs, and mistakes. Pure.
//!
//! Kubernetes and Docker set variables for each service that a container can reach, so a service
//! named `gatelog` adds `GATELOG_PORT=tcp://…` and similar ones. The form of the name together with
//! the value identifies them. Any other unknown variable is a warning, because the program works
//! without it. A variable that resembles one of [`GUARDED`] is an error, because a server that
//! ignored it would write to the wrong place or print a new admin key.

use std::net::IpAddr;

use strsim::osa_distance;

use super::renamed;
use super::settings::SETTINGS;
use crate::nearest::nearest;

pub(super) const PREFIX: &str = "GATELOG_";
/// Prefix of variables that gatelog's own tests read. A server that a test starts inherits them.
const TEST_PREFIX: &str = "TEST_";
/// Variables of gatelog that are not settings, without the prefix.
const OTHERS: [&str; 4] = ["CONFIG", "LOG", "KEY", "URL"];
/// Settings for which a misspelt name is an error.
const GUARDED: [&str; 3] = ["admin_key", "data", "wal"];
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// A variable that begins with [`PREFIX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// A setting, by its name.
    Setting(String),
    /// A variable that is not about settings.
    Other,
    /// A misspelt name of this setting.
    Misspelt(&'static str),
    /// An unknown variable, with the name of the nearest known one.
    Unknown(Option<String>),
}

impl Variable {
    pub(super) fn parse(variable: &str, value: &str) -> Self {
        let rest = variable.strip_prefix(PREFIX).unwrap_or(variable);
        let name = rest.to_ascii_lowercase();
        let current = renamed::current(&name);
        if SETTINGS.iter().any(|setting| setting.name == current) {
            return Self::Setting(name);
        }
        let ours = OTHERS.contains(&rest) || rest.starts_with(TEST_PREFIX);
        if ours || is_of_a_service(rest, value.trim()) {
            return Self::Other;
        }
        if let Some(setting) = GUARDED.into_iter().find(|setting| is_near(&name, setting)) {
            return Self::Misspelt(setting);
        }
        let others = OTHERS.map(str::to_ascii_lowercase);
        let known = SETTINGS.iter().map(|setting| setting.name);
        let near = nearest(&name, known.chain(others.iter().map(String::as_str)));
        let near = near.first().map(|name| format!("{PREFIX}{}", name.to_ascii_uppercase()));
        Self::Unknown(near)
    }
}

/// Returns true if a lower-case name was probably meant as the setting's name: it has the same
/// letters without `_`, one or two typing errors, or something after the setting's name, as in
/// `data_dir`.
fn is_near(name: &str, setting: &str) -> bool {
    let name = name.replace('_', "");
    let setting = setting.replace('_', "");
    let errors = if setting.len() > 4 { 2 } else { 1 };
    // The length is checked first, because the distance takes time in proportion to it.
    let is_short = name.chars().count() <= setting.len() + errors;
    name.starts_with(&setting) || (is_short && osa_distance(&name, &setting) <= errors)
}

/// Returns true if a variable is one that Kubernetes and Docker set for a service named `gatelog`
/// or `gatelog-…`: `SERVICE_HOST`, `SERVICE_PORT`, `SERVICE_PORT_HTTP`, `PORT`, `PORT_8790_TCP`,
/// `PORT_8790_TCP_PROTO`, `…_PORT` and `…_ADDR`.
fn is_of_a_service(rest: &str, value: &str) -> bool {
    let ends = |end: &str| rest == end || rest.ends_with(&format!("_{end}"));
    if ends("SERVICE_HOST") {
        return value.parse::<IpAddr>().is_ok();
    }
    if ends("SERVICE_PORT") || format!("_{rest}").contains("_SERVICE_PORT_") {
        return is_port(value);
    }
    if ends("PORT") && is_url(value, None) {
        return true;
    }
    let words: Vec<&str> = rest.split('_').collect();
    match words.as_slice() {
        [.., "PORT", port, protocol] if is_published(port, protocol) => {
            is_url(value, Some((port, protocol)))
        }
        [.., "PORT", port, protocol, "PROTO"] if is_published(port, protocol) => {
            value.eq_ignore_ascii_case(protocol)
        }
        [.., "PORT", port, protocol, "PORT"] if is_published(port, protocol) => value == *port,
        [.., "PORT", port, protocol, "ADDR"] if is_published(port, protocol) => {
            value.parse::<IpAddr>().is_ok()
        }
        _ => false,
    }
}

fn is_published(port: &str, protocol: &str) -> bool {
    is_port(port) && PROTOCOLS.iter().any(|known| protocol == known.to_ascii_uppercase())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Returns true for a URL such as `tcp://10.0.0.7:8790`, with the expected port and protocol if
/// `of` names them.
fn is_url(text: &str, of: Option<(&str, &str)>) -> bool {
    let parts = text.split_once("://").and_then(|(protocol, rest)| {
        let (host, port) = rest.rsplit_once(':')?;
        Some((protocol, host.trim_start_matches('[').trim_end_matches(']'), port))
    });
    let Some((protocol, host, port)) = parts else { return false };
    let named = of.is_none_or(|(known, name)| port == known && name.eq_ignore_ascii_case(protocol));
    named && PROTOCOLS.contains(&protocol) && is_port(port) && host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_services_are_passed_over_by_name_and_value() {
        for (variable, value) in [
            ("GATELOG_PORT", "tcp://10.96.0.7:8790"),
            ("GATELOG_PORT", "tcp://[fd00::7]:8790"),
            ("GATELOG_SERVICE_HOST", "10.96.0.7"),
            ("GATELOG_SERVICE_HOST", "fd00::7"),
            ("GATELOG_SERVICE_PORT", "8790"),
            ("GATELOG_SERVICE_PORT_HTTP", "8790"),
            ("GATELOG_PORT_8790_TCP", "tcp://10.96.0.7:8790"),
            ("GATELOG_PORT_8790_TCP_PROTO", "tcp"),
            ("GATELOG_PORT_8790_TCP_PORT", "8790"),
            ("GATELOG_PORT_8790_TCP_ADDR", "10.96.0.7"),
            ("GATELOG_PORT_53_UDP", "udp://10.96.0.7:53"),
            // Variables for services named `gatelog-data` and `gatelog-metrics`.
            ("GATELOG_DATA_PORT", "tcp://10.96.0.7:8790"),
            ("GATELOG_DATA_SERVICE_HOST", "10.96.0.7"),
            ("GATELOG_METRICS_SERVICE_PORT", "9100"),
            ("GATELOG_METRICS_PORT_9100_TCP_ADDR", "10.96.0.7"),
            ("GATELOG_KEY", "gl-1"),
            ("GATELOG_LOG", "debug"),
            ("GATELOG_TEST_ROUNDS", "3"),
        ] {
            assert_eq!(Variable::parse(variable, value), Variable::Other, "{variable}={value}");
        }
        for (variable, value) in [
            ("GATELOG_PORT", "8790"),
            ("GATELOG_PORT", "http://10.96.0.7:8790"),
            ("GATELOG_PORT", "tcp://10.96.0.7"),
            ("GATELOG_SERVICE_HOST", "gatelog.svc"),
            ("GATELOG_SERVICE_PORT", "http"),
            ("GATELOG_PORT_8790_TCP_PROTO", "udp"),
            ("GATELOG_PORT_8790_TCP", "tcp://10.96.0.7:9000"),
            ("GATELOG_PORT_HTTP_TCP", "tcp://10.96.0.7:80"),
        ] {
            assert!(
                matches!(Variable::parse(variable, value), Variable::Unknown(_)),
                "{variable}={value}"
            );
        }
        let form = ["tcp://10.0.0.1:80", "10.0.0.1", "80", "tcp"];
        for setting in SETTINGS {
            let name = setting.name.to_ascii_uppercase();
            assert!(form.iter().all(|value| !is_of_a_service(&name, value)), "{name}");
        }
    }

    #[test]
    fn near_misses_of_guarded_settings_are_distinguished_from_other_mistakes() {
        for (variable, setting) in [
            ("GATELOG_ADMINKEY", "admin_key"),
            ("GATELOG_ADMIN_KEYS", "admin_key"),
            ("GATELOG_ADMIN_KEY_FILE", "admin_key"),
            ("GATELOG_ADIMN_KEY", "admin_key"),
            ("GATELOG_ADMIN__KEY", "admin_key"),
            ("GATELOG_DATA_DIR", "data"),
            ("GATELOG_DATADIR", "data"),
            ("GATELOG_DATE", "data"),
            ("GATELOG_DAT", "data"),
            ("GATELOG_WALL", "wal"),
            ("GATELOG_WAL_PATH", "wal"),
            ("GATELOG_WLA", "wal"),
            ("GATELOG_GATELOG_DATA", ""),
        ] {
            let expected = match setting {
                "" => Variable::Unknown(Some("GATELOG_DATA".to_owned())),
                setting => Variable::Misspelt(setting),
            };
            assert_eq!(Variable::parse(variable, "x"), expected, "{variable}");
        }
        for (variable, near) in [
            ("GATELOG_FLUSH_SECS", Some("GATELOG_FLUSH_SECONDS")),
            ("GATELOG_LOG_LEVEL", Some("GATELOG_LOG")),
            ("GATELOG_VERSION", None),
        ] {
            let near = near.map(str::to_owned);
            assert_eq!(Variable::parse(variable, "x"), Variable::Unknown(near), "{variable}");
        }
        for setting in SETTINGS {
            let variable = format!("{PREFIX}{}", setting.name.to_ascii_uppercase());
            assert_eq!(Variable::parse(&variable, "x"), Variable::Setting(setting.name.to_owned()));
        }
    }
}
