//! Layers of settings: the defaults, the file, the environment and the flags, merged.

use std::collections::BTreeMap;
use std::fmt;

use super::environment::Variable;
use super::renamed;
use super::settings::{Config, SETTINGS};
use crate::error::{Error, Result};
use crate::nearest::clip;

/// Source of a setting's value, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// `gatelog.toml`.
    File,
    /// A `GATELOG_` variable.
    Environment,
    /// A command-line flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// Values that were read from each source, as text by name.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Name and text of the configuration file, if there is one.
    pub file: Option<(String, String)>,
    /// Every environment variable whose name begins with `GATELOG_`.
    pub environment: BTreeMap<String, String>,
    /// Command-line flags, by setting.
    pub flags: BTreeMap<String, String>,
}

/// A configuration, with the source of each setting's value.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The merged settings, validated.
    pub config: Config,
    /// The origin of each setting that is not at its default.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Problems that do not stop the program, a line each: former names of settings, and variables
    /// of the environment that are no settings.
    pub warnings: Vec<String>,
}

impl Layers {
    /// Merges the layers, weakest first, and checks the result.
    pub fn resolve(&self) -> Result<Effective> {
        let mut effective =
            Effective { config: Config::default(), origins: BTreeMap::new(), warnings: Vec::new() };
        for (name, value) in self.file_values()? {
            let place =
                || self.file.as_ref().map_or_else(String::new, |(file, _)| format!("`{file}`"));
            effective.put(&name, &value, Origin::File, place)?;
        }
        let mut ignored = Vec::new();
        for (variable, value) in &self.environment {
            match Variable::parse(variable, value) {
                Variable::Setting(name) => {
                    effective.put(&name, value, Origin::Environment, || format!("`{variable}`"))?;
                }
                Variable::Other => {}
                Variable::Misspelt(setting) => {
                    let meant = format!("`GATELOG_{}`", setting.to_ascii_uppercase());
                    return Err(Error::invalid(format!(
                        "environment variable `{}` is unknown; did you mean {meant}? If not, unset it",
                        clip(variable)
                    )));
                }
                Variable::Unknown(near) => ignored.push((variable.as_str(), near)),
            }
        }
        effective.warnings.extend(ignored_variables(&ignored));
        for (name, value) in &self.flags {
            effective.put(name, value, Origin::Flag, || "--set".to_owned())?;
        }
        effective.config.validate()?;
        Ok(effective)
    }

    fn file_values(&self) -> Result<Vec<(String, String)>> {
        let Some((file, text)) = &self.file else { return Ok(Vec::new()) };
        let table: toml::Table = text.parse().map_err(|cause| not_toml(file, text, &cause))?;
        table
            .into_iter()
            .map(|(name, value)| {
                let text = match value {
                    toml::Value::String(text) => text,
                    toml::Value::Integer(number) => number.to_string(),
                    toml::Value::Boolean(value) => value.to_string(),
                    toml::Value::Table(table) if name == "plans" || name == "redact" => table.to_string(),
                    other => {
                        let found = other.type_str();
                        let expected =
                            format!("setting `{name}` in `{file}` is a {found}; expected a text or an integer");
                        return Err(Error::invalid(expected));
                    }
                };
                Ok((name, text))
            })
            .collect()
    }
}

/// Most ignored variables that the warning names.
const MAX_IGNORED: usize = 5;

/// Returns the warning about variables that are not settings.
fn ignored_variables(ignored: &[(&str, Option<String>)]) -> Option<String> {
    let named = ignored.iter().take(MAX_IGNORED).map(|(variable, near)| match near {
        Some(near) => format!("`{}` (nearest: `{near}`)", clip(variable)),
        None => format!("`{}`", clip(variable)),
    });
    let mut names = named.collect::<Vec<_>>().join(", ");
    match ignored.len() {
        0 => return None,
        1..=MAX_IGNORED => {}
        all => names.push_str(&format!(" and {} more", all - MAX_IGNORED)),
    }
    let what = if ignored.len() == 1 { "variable" } else { "variables" };
    Some(format!(
        "environment {what} {names} ignored: not a setting; `gatelog config` lists all settings"
    ))
}

/// Returns the error for a file that is not TOML. It names the line but never shows it, because the
/// line may contain the admin key.
fn not_toml(file: &str, text: &str, cause: &toml::de::Error) -> Error {
    let before = cause.span().and_then(|span| text.as_bytes().get(..span.start));
    let line = before.map(|before| 1 + before.iter().filter(|byte| **byte == b'\n').count());
    let place = line.map_or_else(String::new, |line| format!(" in line {line}"));
    Error::invalid(format!("`{file}` is not valid TOML{place}: {}", cause.message()))
}

impl Effective {
    /// Sets a value. The error names its place.
    fn put(
        &mut self,
        name: &str,
        value: &str,
        origin: Origin,
        place: impl FnOnce() -> String,
    ) -> Result<()> {
        self.config
            .set(name, value)
            .map_err(|error| Error::invalid(format!("{}: {error}", place())))?;
        self.warnings.extend(renamed::warning(name));
        let name = renamed::current(name);
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
            self.origins.insert(setting.name, origin);
        }
        Ok(())
    }

    /// Returns the source of a setting's value.
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).copied().unwrap_or(Origin::Default)
    }
}
