//! The SQL prompt: reads lines until a `;`, keeps a history across sessions, and has a few commands
//! that begin with a backslash.
//!
//! Ctrl-C cancels the running query or discards the typed text; Ctrl-D or `\q` leaves.

use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Editor, Helper};
use tokio::runtime::Handle;

use super::exit::{Done, interruptible, is_interrupted};
use super::format::FormatArgs;
use super::output::{StdoutClosed, say};
use super::running::timed;
use super::settings::Context;
use super::statements;
use gatelog::engine::Params;
use gatelog::error::{Error, Result};

const HELP: &str = "\
statements end with `;`    Ctrl-C cancels    Ctrl-D or \\q leaves
\\d          tables and views
\\d NAME     columns of a table
\\?          this help";

/// Meaning of a typed line.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Statements(Vec<String>),
    Help,
    Leave,
    Unknown(String),
}

/// Runs the prompt until the user leaves it.
pub(super) async fn run(context: Context, params: Params, format: FormatArgs) -> Result<Done> {
    // The line editor blocks its thread while it waits for keys. The queries run on the runtime,
    // whose threads must not block.
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || prompt(&runtime, &context, &params, &format))
        .await
        .map_err(|cause| Error::internal("the prompt ended early").with_source(cause))?
}

fn prompt(
    runtime: &Handle,
    context: &Context,
    params: &Params,
    format: &FormatArgs,
) -> Result<Done> {
    let failed =
        |cause: ReadlineError| Error::storage("cannot read from the terminal").with_source(cause);
    let mut editor: Editor<Lines, FileHistory> = Editor::new().map_err(failed)?;
    editor.set_helper(Some(Lines));
    let history = history_file();
    if let Some(path) = &history {
        // The first start has no history.
        let _ = editor.load_history(path);
    }
    if !context.quiet {
        say!("gatelog {} over {}; \\? for help", env!("CARGO_PKG_VERSION"), context.config().data);
    }
    loop {
        let line = match editor.readline("gatelog> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(cause) => return Err(failed(cause)),
        };
        if !line.trim().is_empty() {
            let _ = editor.add_history_entry(line.trim());
        }
        match understand(&line) {
            Typed::Leave => break,
            Typed::Help => say!("{HELP}"),
            Typed::Unknown(word) => say!("`{word}` is unknown; \\? lists the commands"),
            Typed::Statements(all) => {
                for statement in all {
                    let work = interruptible(timed(context, &statement, params, format));
                    if let Err(error) = runtime.block_on(work) {
                        tell(error)?;
                        break;
                    }
                }
            }
        }
    }
    if let Some(path) = &history {
        save(&mut editor, path);
    }
    Ok(Done::Success)
}

/// Prints the error of a statement, and the prompt continues. Only a closed stdout ends it.
fn tell(error: Error) -> Result<()> {
    if super::exit::has_cause::<StdoutClosed>(&error) {
        return Err(error);
    }
    if is_interrupted(&error) {
        say!("cancelled");
    } else {
        say!("error: {}", error.chain());
    }
    Ok(())
}

fn understand(line: &str) -> Typed {
    let line = line.trim();
    let Some(word) = line.strip_prefix('\\') else {
        let cut = statements::split(line);
        return Typed::Statements(cut.complete.into_iter().map(str::to_owned).collect());
    };
    let mut words = word.trim_end_matches(';').split_whitespace();
    match (words.next(), words.next()) {
        (Some("q" | "quit"), None) => Typed::Leave,
        (Some("?" | "h" | "help"), None) => Typed::Help,
        (Some("d"), None) => Typed::Statements(vec!["show tables".to_owned()]),
        (Some("d"), Some(name)) => Typed::Statements(vec![format!("describe {name}")]),
        _ => Typed::Unknown(line.to_owned()),
    }
}

/// Returns `$XDG_STATE_HOME/gatelog/history`, usually `~/.local/state/gatelog/history`.
fn history_file() -> Option<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("gatelog").join("history"))
}

fn save(editor: &mut Editor<Lines, FileHistory>, path: &std::path::Path) {
    let saved = path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(ReadlineError::from);
    if let Err(cause) = saved.and_then(|()| editor.append_history(path)) {
        say!("cannot save the history in `{}`: {cause}", path.display());
    }
}

/// Validates in the editor that a statement is complete. Offers no completion and no hints.
struct Lines;

impl Helper for Lines {}
impl Highlighter for Lines {}

impl Hinter for Lines {
    type Hint = String;
}

impl Completer for Lines {
    type Candidate = String;
}

impl Validator for Lines {
    fn validate(&self, input: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = input.input();
        let whole = text.trim_start().starts_with('\\') || statements::split(text).rest.is_empty();
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_statements_or_a_word_with_a_backslash() {
        let statements =
            |all: &[&str]| Typed::Statements(all.iter().map(|&one| one.to_owned()).collect());
        assert_eq!(understand("select 1; select 2;"), statements(&["select 1", "select 2"]));
        assert_eq!(understand(" \\d"), statements(&["show tables"]));
        assert_eq!(understand("\\d logs;"), statements(&["describe logs"]));
        assert_eq!(understand("\\q"), Typed::Leave);
        assert_eq!(understand("\\?"), Typed::Help);
        assert_eq!(understand("\\x"), Typed::Unknown("\\x".to_owned()));
        assert_eq!(understand(""), statements(&[]));
    }
}
