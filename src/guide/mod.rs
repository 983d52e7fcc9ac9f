//! The guide: pages of Markdown that `gatelog guide` prints, the server shows under `/docs`, and
//! this documentation includes.
//!
//! Each page is a file beside this one. `tests/it/guide.rs` runs the commands of the pages.

#![allow(
    rustdoc::invalid_codeblock_attributes,
    reason = "blocks that no test runs say why after `no-run:`"
)]

use crate::error::{Error, Result};
use crate::nearest::{clip, hint};

/// A page of the guide.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Name of the file, such as `http-api.md`.
    pub file: &'static str,
    /// Markdown, with a title on the first line.
    pub text: &'static str,
}

impl Page {
    /// Returns the name in addresses and on the command line, such as `http-api`.
    pub fn name(&self) -> &'static str {
        self.file.trim_end_matches(".md")
    }

    /// Returns the title without its mark.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }

    /// Returns the first paragraph below the title as one line.
    pub fn summary(&self) -> String {
        let below = self.text.lines().skip(1).skip_while(|line| line.trim().is_empty());
        below.take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" ")
    }
}

macro_rules! pages {
    ($($module:ident $file:literal)*) => {
        /// Every page, in reading order.
        pub const PAGES: &[Page] = &[
            $(Page { file: $file, text: include_str!($file) }),*
        ];

        $(
            #[doc = include_str!($file)]
            pub mod $module {}
        )*
    };
}

pages! {
    clients "clients.md"
    gateways "gateways.md"
    http_api "http-api.md"
    sql "sql.md"
    schema "schema.md"
    exports "exports.md"
    feedback "feedback.md"
    replay "replay.md"
    organisations "organisations.md"
    privacy "privacy.md"
    operations "operations.md"
    buckets_and_backup "buckets-and-backup.md"
    configuration "configuration.md"
    architecture "architecture.md"
    benchmarks "benchmarks.md"
}

/// Finds a page by its name, with `-` or `_` between words, in any case, also with `.md` behind it.
pub fn page(name: &str) -> Option<&'static Page> {
    let wanted = name.trim().to_lowercase().replace('_', "-");
    let wanted = wanted.strip_suffix(".md").unwrap_or(&wanted);
    PAGES.iter().find(|page| page.name() == wanted)
}

/// Finds a page by its name. The error suggests the nearest names.
pub fn find(name: &str) -> Result<&'static Page> {
    page(name).ok_or_else(|| {
        let hint = hint(name, PAGES.iter().map(Page::name), "pages", "`gatelog guide`");
        Error::not_found(format!("the guide has no page `{}`; {hint}", clip(name)))
    })
}
