//! `gatelog config`: prints every setting with its value, unit, meaning and source.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::exit::Done;
use super::output::print;
use super::settings::Context;
use gatelog::config::{Config, Found, Origin, SETTINGS, Secret, Setting, is_size};
use gatelog::error::Result;

/// Prints every setting with its value, unit, meaning and source
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog config > gatelog.toml     every setting, those at their default commented out
  gatelog config --format table     as a table for reading
  GATELOG_FLUSH_SECONDS=5 gatelog config --set listen=0.0.0.0:8080

Each setting can be given in gatelog.toml by its name, in the environment as GATELOG_ and the name in capitals, and as \
`--set NAME=VALUE`. Sizes are bytes, or take KiB, MiB and GiB, as in 128MiB (1 MiB = 1,048,576 bytes); MB and GB are \
refused, since they may mean either. Flags override the environment, and the environment overrides the file.")]
pub(super) struct Args {
    /// Output format: `toml` can be saved as gatelog.toml; `table` is for reading
    #[arg(long, value_name = "FORM", default_value = "toml")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Toml,
    Table,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Done> {
    // Shares of memory that do not fit stop a server, so they end this command too.
    context.config().settled(&Found::here())?;
    print(&match args.format {
        Format::Toml => toml(context),
        Format::Table => table(context),
    })?;
    Ok(Done::Success)
}

fn toml(context: &Context) -> String {
    let file = context.file.as_ref().map_or("none".to_owned(), |file| format!("`{file}`"));
    let mut text = format!("# gatelog's effective settings. Configuration file read: {file}.\n");
    for setting in SETTINGS {
        let name = setting.name;
        let origin = context.effective.origin(name);
        let _ = writeln!(text, "\n# {}\n# unit: {}; from: {origin}", setting.doc, unit(setting));
        let value = context.config().get(name).unwrap_or_default();
        let _ = match (is_secret(name), origin) {
            (true, Origin::Default) => writeln!(text, "# {name} = \"\""),
            (true, _) => writeln!(text, "# {name} is set; it is not shown"),
            (false, Origin::Default) => writeln!(text, "# {name} = {}", toml_value(&value)),
            (false, _) => writeln!(text, "{name} = {}", toml_value(&value)),
        };
    }
    text
}

/// Returns the unit of a setting, with the forms that a size may have.
fn unit(setting: &Setting) -> String {
    match setting.unit.strip_prefix("bytes").filter(|_| is_size(setting.unit)) {
        Some(rest) => format!("bytes, or with KiB, MiB or GiB{rest}"),
        None => setting.unit.to_owned(),
    }
}

/// Returns true if the value of a setting is secret: a secret does not print the value that it was
/// given.
fn is_secret(name: &str) -> bool {
    let mut probe = Config::default();
    probe.set(name, "7").is_ok() && probe.get(name) == Some(Secret("7".to_owned()).to_string())
}

fn toml_value(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) => number.to_string(),
        // Tables and booleans are TOML as they are.
        Err(_) if text.starts_with('{') || text.parse::<bool>().is_ok() => text.to_owned(),
        Err(_) => toml::Value::String(text.to_owned()).to_string(),
    }
}

fn table(context: &Context) -> String {
    let rows: Vec<[String; 4]> = SETTINGS
        .iter()
        .map(|setting| {
            let value = context.config().get(setting.name).unwrap_or_default();
            let origin = context.effective.origin(setting.name).to_string();
            [setting.name.to_owned(), value, origin, format!("{} ({})", setting.doc, unit(setting))]
        })
        .collect();
    columns(["setting", "value", "from", "meaning (unit)"], &rows)
}

/// Formats left-aligned columns, two spaces apart.
pub(super) fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatelog::config::Layers;

    fn context(file: &str) -> Context {
        let file = Some(("gatelog.toml".to_owned(), file.to_owned()));
        let effective = Layers { file, ..Layers::default() }.resolve().unwrap();
        Context { effective, quiet: false, file: None }
    }

    #[test]
    fn printed_settings_can_be_saved_and_read_again() {
        let source = "data = 'C:\\logs'\nflush_seconds = 5\nadmin_key = 'do not show'\nmemtable_bytes = '256MiB'";
        let printed = toml(&context(source));
        assert!(!printed.contains("do not show"));
        assert!(printed.contains("# admin_key is set; it is not shown\n"));
        assert!(printed.contains("# unit: seconds; from: file\nflush_seconds = 5\n"));
        let mut again = context(&printed).effective.config;
        again.admin_key = Secret("do not show".to_owned());
        assert_eq!(again, context(source).effective.config);
    }

    #[test]
    fn every_commented_default_is_the_default() {
        let printed = toml(&context(""));
        let uncommented: String = printed
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| {
                SETTINGS.iter().any(|setting| line.starts_with(&format!("{} = ", setting.name)))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(uncommented.lines().count(), SETTINGS.len());
        assert_eq!(context(&uncommented).effective.config, Config::default());
    }
}
