//! The exit codes, decided here alone, and the one place that prints a command's error.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

use super::output::{StdoutClosed, say};
use crate::error::{Error, ErrorKind, Result};

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All that was asked for was done.
    Fine,
    /// It ran to the end and found problems: damage that `doctor` reports, records that `import` rejected.
    Problems,
    /// Ctrl-C stopped it in an orderly way.
    Interrupted,
}

/// What `gatelog help` says below the commands.
pub(super) const AFTER_HELP: &str = "\
Settings: defaults < gatelog.toml < environment (GATELOG_ and the name in capitals) < flags.
          `gatelog config` prints each with its value, unit, meaning and source.

Data goes to stdout, words to stderr.

Exit codes:
  0    done; also when the reader of a pipe went away
  1    ran, and found problems: doctor found damage, import rejected records
  2    the command line, a setting or a value is wrong, or a limit was passed
  3    the folder, file or name does not exist
  4    another process holds the data folder: use that server's HTTP; or a queue is full
  5    storage failed, a stored file is damaged, or a defect of gatelog
  130  stopped by Ctrl-C; what was acknowledged is kept";

/// Turns what a command came to into the exit code; prints the error, once.
pub fn exit(result: Result<Done>) -> ExitCode {
    match result {
        Ok(Done::Fine) => ExitCode::SUCCESS,
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

/// The code of what clap refused or answered.
pub(super) fn usage(code: i32) -> ExitCode {
    if code == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::Conflict | ErrorKind::Limit => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Busy => 4,
        ErrorKind::Damaged | ErrorKind::Storage | ErrorKind::Closed | ErrorKind::Internal => 5,
    }
}

/// The cause behind the error of work that Ctrl-C stopped.
#[derive(Debug)]
struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped by Ctrl-C")
    }
}

impl StdError for Interrupted {}

/// The error that Ctrl-C ends a piece of work with; [`exit`] prints nothing for it.
pub(super) fn interrupted() -> Error {
    Error::closed("interrupted").with_source(Interrupted)
}

/// Drops the work at Ctrl-C, which cancels a query and removes an unfinished file.
pub(super) async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(interrupted()),
    }
}

/// Returns whether Ctrl-C, and no failure, ended the work.
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
        assert!(!has_cause::<StdoutClosed>(&Error::storage("the bucket hung up").with_source(broken())));
        assert!(!has_cause::<StdoutClosed>(&stdout_error(std::io::Error::other("disk full"))));
    }
}
