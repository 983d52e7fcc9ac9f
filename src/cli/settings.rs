//! The global flags, and the context that results from them: the merged configuration and the
//! verbosity.
//!
//! Only this file reads the environment and finds `gatelog.toml`; [`Layers`] merges the layers.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::output::{file_error, shell_word};
use gatelog::config::{Config, Effective, Layers, Origin};
use gatelog::engine::{Engine, Params};
use gatelog::error::{Error, ErrorKind, Result};
use gatelog::nearest::{clip, hint};

/// Levels of the log of the program.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Configuration file that is read if none is named.
const CONFIG_FILE: &str = "gatelog.toml";

/// Global flags, as typed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Location of the data: a folder, or s3://bucket/prefix [default: gatelog-data]
    #[arg(long, global = true, value_name = "PATH|URL")]
    data: Option<String>,
    /// Configuration file [default: ./gatelog.toml if it exists]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "GATELOG_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// Sets any setting, such as `--set query_timeout_seconds=300`; see `gatelog config`
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Prints only errors: no progress, no summary
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Format of the program's log on stderr; GATELOG_LOG sets its level, such as `debug`
    #[arg(long, global = true, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Context of a command.
#[derive(Debug)]
pub(super) struct Context {
    /// Merged settings and the source of each.
    pub(super) effective: Effective,
    /// True if only errors are printed.
    pub(super) quiet: bool,
    /// Configuration file that was read, if any.
    pub(super) file: Option<String>,
}

/// Settings besides `data` that identify the data of a command and hold no secret.
const PLACES: [&str; 4] = ["wal", "s3_endpoint", "s3_region", "s3_path_style"];

impl Global {
    /// Returns the flags that identify the data of the command.
    pub(super) fn place(&self) -> String {
        let data = self.data.iter().map(|data| format!("--data {}", shell_word(data)));
        let config = self
            .config
            .iter()
            .map(|file| format!("--config {}", shell_word(&file.display().to_string())));
        let is_place = |set: &&String| {
            set.split_once('=').is_some_and(|(name, _)| PLACES.contains(&name.trim()))
        };
        let set = self.set.iter().filter(is_place).map(|set| format!("--set {}", shell_word(set)));
        data.chain(config).chain(set).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn start_tracing(&self, serves: bool) -> Result<()> {
        let usual = match (self.quiet, serves) {
            (true, _) => "error",
            (false, true) => "warn,gatelog=info",
            (false, false) => "warn",
        };
        let filter = match std::env::var("GATELOG_LOG") {
            Ok(text) if !text.trim().is_empty() => filter(&text)?,
            _ => EnvFilter::new(usual),
        };
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(colour);
        match self.log_format {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().init(),
        }
        Ok(())
    }
}

/// Returns the filter of `GATELOG_LOG`. A misspelt level is an error, because the filter would take
/// it for the name of a module and log only that.
fn filter(text: &str) -> Result<EnvFilter> {
    let wrong = |why: &str| {
        Error::invalid(format!("environment variable `GATELOG_LOG` is `{}`; {why}", clip(text)))
    };
    // Names of spans and fields may contain any character.
    let is_plain = !text.contains(['[', '{']);
    for directive in
        text.split(',').map(str::trim).filter(|directive| is_plain && !directive.is_empty())
    {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level.trim());
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            let hint = hint(level, LEVELS, "levels", "");
            return Err(wrong(&format!(
                "`{}` is not a level (alone, or after a module as in `gatelog::wal=debug`); {hint}",
                clip(level)
            )));
        }
    }
    EnvFilter::try_new(text)
        .map_err(|cause| wrong("expected a level such as `debug`").with_source(cause))
}

impl Context {
    /// Finds and merges every layer of settings.
    pub(super) fn resolve(global: &Global) -> Result<Self> {
        let file = read_config(global.config.as_deref())?;
        let mut flags = BTreeMap::new();
        for (name, value) in
            global.set.iter().map(|text| split_pair("--set", text)).collect::<Result<Vec<_>>>()?
        {
            flags.insert(name, value);
        }
        if let Some(data) = &global.data {
            flags.insert("data".to_owned(), data.clone());
        }
        let name = file.as_ref().map(|(name, _)| name.clone());
        let effective = Layers { file, environment: environment()?, flags }.resolve()?;
        for warning in &effective.warnings {
            tracing::warn!("{warning}");
        }
        Ok(Self { effective, quiet: global.quiet, file: name })
    }

    pub(super) fn config(&self) -> &Config {
        &self.effective.config
    }

    /// Sets a setting from a flag of the command, which takes precedence over every layer.
    pub(super) fn set_flag(&mut self, name: &'static str, value: &str) -> Result<()> {
        self.effective.config.set(name, value)?;
        self.effective.origins.insert(name, Origin::Flag);
        self.effective.config.validate()
    }

    /// Returns true if no layer sets this setting.
    pub(super) fn is_default(&self, name: &str) -> bool {
        self.effective.origin(name) == Origin::Default
    }

    /// Opens the engine for writing. `instead` is the remedy if a server holds the folder. Only a
    /// server sets `sets_terms`: retention and plans in the configuration of a command do not
    /// change the catalog.
    pub(super) async fn open_writer(&self, instead: &str, sets_terms: bool) -> Result<Engine> {
        let builder = Engine::builder(self.config().clone()).sets_terms(sets_terms);
        builder.open().await.map_err(|error| match error.kind() {
            ErrorKind::Busy => Error::busy(format!("{}; {instead}", error.chain())),
            _ => error,
        })
    }
}

/// Splits `NAME=VALUE`.
pub(super) fn split_pair(flag: &str, text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        // The text after the name may be a key, so it is not printed.
        _ => {
            let name = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
            Err(Error::invalid(format!(
                "{flag} `{}` has no `=`; expected NAME=VALUE",
                name.unwrap_or_default()
            )))
        }
    }
}

/// Parses the parameters of a query or a report. A value that is a JSON number, `true`, `false`,
/// `null` or a quoted text has its JSON meaning; anything else is text: `--param days=7`, `--param
/// model=gpt-5-mini`, `--param user='"42"'`.
pub(super) fn params(pairs: &[String]) -> Result<Params> {
    let value = |text: String| match serde_json::from_str::<Value>(&text) {
        Ok(value) if !value.is_object() && !value.is_array() => value,
        _ => Value::String(text),
    };
    pairs
        .iter()
        .map(|pair| {
            let (name, text) = split_pair("--param", pair)?;
            Ok((name.trim_start_matches('$').to_owned(), value(text)))
        })
        .collect()
}

/// Returns name and text of the configuration file. The default file may be missing.
fn read_config(named: Option<&Path>) -> Result<Option<(String, String)>> {
    let path = named.unwrap_or(Path::new(CONFIG_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.display().to_string(), text))),
        Err(cause) if named.is_none() && cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::invalid(format!("`{}` is not UTF-8 text", path.display())))
        }
        Err(cause) => Err(file_error("read", path, cause)),
    }
}

fn environment() -> Result<BTreeMap<String, String>> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("GATELOG_"))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => {
                Err(Error::invalid(format!("environment variable `{name}` is not UTF-8 text")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_of_the_log_names_levels() {
        for text in [
            "debug",
            "WARN",
            "off",
            "warn,gatelog=info",
            "gatelog::wal=trace, info",
            "[span{a=b}]=debug",
        ] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for (text, near) in [
            (
                "debgu",
                "`debgu` is not a level (alone, or after a module as in `gatelog::wal=debug`); did you mean `debug`?",
            ),
            ("gatelog=inof", "did you mean `info`?"),
            ("warn,gatelog", "the levels are off, error, warn, info, debug, trace"),
            ("verbose", "`verbose` is not a level"),
            ("gatelog=", "`` is not a level"),
        ] {
            let error = filter(text).unwrap_err();
            let expected = format!("environment variable `GATELOG_LOG` is `{text}`; ");
            assert!(
                error.message().starts_with(&expected) && error.message().contains(near),
                "{error}"
            );
        }
    }

    #[test]
    fn a_parameter_is_json_if_valid_or_else_text() {
        let texts = [
            "a=7",
            "$b=0.5",
            "c=true",
            "d=gpt-5",
            "e=\"42\"",
            "f=2026-11-20",
            "g={\"x\":1}",
            "h=a=b",
            "i=",
        ];
        let taken = params(&texts.map(str::to_owned)).unwrap();
        let values: Vec<_> = taken.values().cloned().collect();
        let expected =
            [json!(7), json!(0.5), json!(true), json!("gpt-5"), json!("42"), json!("2026-11-20")];
        assert_eq!(values[..6], expected);
        assert_eq!(values[6..], [json!("{\"x\":1}"), json!("a=b"), json!("")]);
        assert!(params(&["oops".to_owned()]).is_err());
    }
}
