//! Exit codes, decided only here, and the one place that prints the error of a command.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

use super::output::{StdoutClosed, say};
use gatelog::error::{Error, ErrorKind, Result};

/// Result of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The command did everything.
    Success,
    /// The command ran to its end and found problems: damage that `doctor` reports, records that
    /// `import` rejected.
    Problems,
    /// Ctrl-C stopped the command in an orderly way.
    Interrupted,
}

/// Text below the list of commands in `gatelog help`.
pub(super) const AFTER_HELP: &str = "\
Settings: defaults < gatelog.toml < environment (GATELOG_ and the name in capitals) < flags.
          `gatelog config` prints each with its value, unit, meaning and source.

Data goes to stdout, messages to stderr.

Exit codes:
  0    success; also if the reader of a pipe closed it
  1    completed and found problems: doctor found damage, import rejected records
  2    the command line, a setting or a value is invalid, or a limit was exceeded
  3    the folder, file or name does not exist
  4    another process holds the data folder: use the HTTP API of that server; or a queue is full
  5    storage failed, a stored file is damaged, or an internal error
  130  stopped by Ctrl-C; acknowledged records are kept";

/// Prints the error of a command, once, and returns the exit code.
pub(crate) fn exit(result: Result<Done>) -> ExitCode {
    match result {
        Ok(Done::Success) => ExitCode::SUCCESS,
        Ok(Done::Problems) => ExitCode::from(1),
        Ok(Done::Interrupted) => ExitCode::from(130),
        Err(error) if has_cause::<StdoutClosed>(&error) => ExitCode::SUCCESS,
        Err(error) if has_cause::<Interrupted>(&error) => ExitCode::from(130),
        Err(error) => {
            say!("error: {}", error.chain());
            ExitCode::from(code(error.kind()))
        }
    }
}

/// Returns the exit code of a usage error, of help or of the version.
pub(super) fn usage(code: i32) -> ExitCode {
    if code == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::Conflict | ErrorKind::Limit => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Busy => 4,
        // Damage, storage, a closed engine and defects.
        _ => 5,
    }
}

/// Cause of the error of work that Ctrl-C stopped.
#[derive(Debug)]
struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped by Ctrl-C")
    }
}

impl StdError for Interrupted {}

/// Returns the error of work that Ctrl-C stopped. [`exit`] prints nothing for it.
pub(super) fn interrupted() -> Error {
    Error::closed("interrupted").with_source(Interrupted)
}

/// Cancels the work on Ctrl-C, which cancels a query and removes an unfinished file.
pub(super) async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(interrupted()),
    }
}

/// Returns true if Ctrl-C ended the work.
pub(super) fn is_interrupted(error: &Error) -> bool {
    has_cause::<Interrupted>(error)
}

pub(super) fn has_cause<T: StdError + 'static>(error: &Error) -> bool {
    let mut cause = StdError::source(error);
    while let Some(next) = cause {
        if next.is::<T>() {
            return true;
        }
        cause = next.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::stdout_error;

    #[test]
    fn only_a_closed_stdout_counts_as_success() {
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(has_cause::<StdoutClosed>(&stdout_error(broken())));
        assert!(!has_cause::<StdoutClosed>(
            &Error::storage("the bucket hung up").with_source(broken())
        ));
        assert!(!has_cause::<StdoutClosed>(&stdout_error(std::io::Error::other("disk full"))));
    }
}
