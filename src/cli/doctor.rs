//! `gatelog doctor`: opens the folder read-only, verifies it, and prints findings with remedies.

use std::fmt::Write as _;

use parking_lot::Mutex;

use super::exit::Done;
use super::maintain::{Format, json};
use super::output::{complete, print, say};
use super::progress::{Progress, Unit};
use super::settings::Context;
use gatelog::engine::{self, Finding, Severity};
use gatelog::error::Result;

/// Verifies the write-ahead log, the table and its files, and prints findings with remedies
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog doctor
  gatelog doctor --data /var/lib/gatelog --format json
  gatelog doctor -q || alert

The command changes nothing, and a server may be running. Exit code 0: no damage, possibly warnings. 1: damage was found.")]
pub(super) struct Args {
    /// Output format
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    let findings = examine(&context).await?;
    print(&match args.format {
        Format::Json => json(&findings)?,
        Format::Text => text(&findings),
    })?;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let errors = count(Severity::Error);
    let warnings = count(Severity::Warning);
    if !context.quiet {
        say!("{} checks, {errors} errors, {warnings} warnings", findings.len());
    }
    Ok(if errors > 0 { Done::Problems } else { Done::Success })
}

async fn examine(context: &Context) -> Result<Vec<Finding>> {
    // Each step of the examination has its own count.
    let shown: Mutex<Option<(String, Progress)>> = Mutex::new(None);
    let progress = |step: &str, done: u64, total: u64| {
        let mut shown = shown.lock();
        let known = matches!(&*shown, Some((name, _)) if name == step);
        if !known {
            *shown = Some((
                step.to_owned(),
                Progress::start("doctor", Unit::Steps, Some(total), context.quiet),
            ));
        }
        if let Some((name, progress)) = &mut *shown {
            progress.set(done, || name.clone());
        }
    };
    let completed = |finding: Finding| Finding {
        what: complete(&finding.what).into_owned(),
        remedy: finding.remedy.map(|remedy| complete(&remedy).into_owned()),
        ..finding
    };
    Ok(engine::doctor(context.config(), &progress).await?.into_iter().map(completed).collect())
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { severity, what, remedy } in findings {
        let severity = match severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let _ = writeln!(text, "{severity:9}{what}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:9}remedy: {remedy}", "");
        }
    }
    text
}
