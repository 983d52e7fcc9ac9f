//! The fenced blocks of the README and the guide. The tests of the command line read them too.

use std::fmt::Write as _;

use gatelog::guide::PAGES;

pub(crate) struct Block {
    pub(crate) page: &'static str,
    pub(crate) line: usize,
    pub(crate) info: String,
    pub(crate) text: String,
}

impl Block {
    pub(crate) fn kind(&self) -> &str {
        self.info.split([' ', ':']).next().unwrap_or_default()
    }

    pub(crate) fn at(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// Commands with the output that they should have.
    pub(crate) fn commands(&self) -> Vec<(String, String)> {
        let mut commands: Vec<(String, String)> = Vec::new();
        let mut goes_on = false;
        for line in self.text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command.to_owned(), String::new()));
                goes_on = is_open(command);
                continue;
            }
            let (command, output) =
                commands.last_mut().unwrap_or_else(|| panic!("{}: output first", self.at()));
            let _ = write!(if goes_on { &mut *command } else { output }, "\n{line}");
            goes_on = goes_on && is_open(command);
        }
        commands
    }
}

/// Returns whether a command goes on in the next line: behind a `\`, or within quotes.
fn is_open(command: &str) -> bool {
    command.ends_with('\\') || shlex::split(command).is_none()
}

/// The README and every page of the guide.
pub(crate) fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let readme = ("README.md", include_str!("../../../README.md"));
    std::iter::once(readme).chain(PAGES.iter().map(|page| (page.file, page.text)))
}

pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (page, text) in pages() {
        let mut open: Option<Block> = None;
        for (line, text) in text.lines().enumerate() {
            match (text.trim().strip_prefix("```"), open.as_mut()) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(info), None) => {
                    open = Some(Block {
                        page,
                        line: line + 1,
                        info: info.to_owned(),
                        text: String::new(),
                    });
                }
                (None, Some(block)) => block.text += &format!("{text}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{page}: a block does not end");
    }
    blocks
}
