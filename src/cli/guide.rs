//! `gatelog guide`: prints a page of the guide.

use std::fmt::Write as _;

use super::exit::Done;
use super::output::print;
use gatelog::error::Result;
use gatelog::guide::{PAGES, find};

/// Prints a page of the guide, or lists the pages
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog guide                     the names and titles of the pages
  gatelog guide clients             how SDKs and gateways send their calls
  gatelog guide operations | less   limits, memory, maintenance

A running server shows the same pages under /docs.")]
pub(super) struct Args {
    /// Name of a page; without it the pages are listed
    page: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<Done> {
    match &args.page {
        Some(name) => print(find(name)?.text)?,
        None => print(&list())?,
    }
    Ok(Done::Success)
}

fn list() -> String {
    let width = PAGES.iter().map(|page| page.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for page in PAGES {
        let _ = writeln!(text, "{:width$}  {}", page.name(), page.title());
    }
    text
}
