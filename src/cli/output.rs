//! Output: data goes to stdout or a file, messages go to stderr.
//!
//! A file appears under its name only when it is complete: it is written as `NAME.partial` and
//! renamed at the end. If the reader of stdout closes the pipe, the command ends successfully
//! ([`StdoutClosed`]); any other broken pipe is an error.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use gatelog::error::{Error, Result};

/// Prints a message to stderr, with the commands in it completed. A closed stderr is not an error.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let words = format!($($words)*);
        let _ = writeln!(std::io::stderr().lock(), "{}", $crate::cli::output::complete(&words));
    }};
}
pub(super) use say;

/// Flags that name the data of this process, as they were typed.
static PLACE: OnceLock<String> = OnceLock::new();

/// Stores the flags that name the data of this process.
pub(super) fn set_place(flags: String) {
    // One process runs one command.
    let _ = PLACE.set(flags);
}

/// Adds these flags to each `gatelog` command in a message, so that it works as printed.
pub(super) fn complete(words: &str) -> Cow<'_, str> {
    with_flags(words, PLACE.get().map_or("", String::as_str))
}

fn with_flags<'w>(words: &'w str, flags: &str) -> Cow<'w, str> {
    const BEGIN: &str = "`gatelog ";
    if flags.is_empty() || !words.contains(BEGIN) {
        return Cow::Borrowed(words);
    }
    let mut text = String::new();
    let mut rest = words;
    while let Some(at) = rest.find(BEGIN) {
        let (before, command) = rest.split_at(at + 1);
        let Some(end) = command.find('`') else { break };
        let (command, after) = command.split_at(end);
        text.push_str(before);
        text.push_str(command);
        // A copy names both of its places itself.
        if !command.starts_with("gatelog copy") && !command.contains("--data") {
            text.push(' ');
            text.push_str(flags);
        }
        let (closing, after) = after.split_at(1);
        text.push_str(closing);
        rest = after;
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Quotes a word for a shell.
pub(super) fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_./:=@%+,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Cause of an error if the reader of stdout has closed the pipe.
#[derive(Debug)]
pub(super) struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of stdout has closed the pipe")
    }
}

impl StdError for StdoutClosed {}

/// Returns the error of a failed write to stdout.
pub(super) fn stdout_error(cause: io::Error) -> Error {
    let error = Error::storage("cannot write to stdout");
    if cause.kind() == io::ErrorKind::BrokenPipe {
        error.with_source(StdoutClosed)
    } else {
        error.with_source(cause)
    }
}

/// Returns the error of a file that cannot be opened, read or written.
pub(super) fn file_error(what: &str, path: &Path, cause: io::Error) -> Error {
    let message = format!("cannot {what} `{}`", path.display());
    match cause.kind() {
        io::ErrorKind::NotFound => Error::not_found(message).with_source(cause),
        io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied => {
            Error::invalid(message).with_source(cause)
        }
        _ => Error::storage(message).with_source(cause),
    }
}

/// Returns true if stdout is a terminal.
pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Prints text to stdout in one piece.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(stdout_error)
}

/// Destination of data: stdout, or a file that gets its name at the end. `-` is stdout.
#[derive(Debug)]
pub(super) struct Sink {
    to: To,
    /// Set when the reader of stdout has closed the pipe. The encoders above turn an `io::Error`
    /// into text and lose its kind.
    gone: Arc<AtomicBool>,
    bytes: u64,
}

#[derive(Debug)]
enum To {
    Stdout(io::Stdout),
    File(PartialFile),
}

impl Sink {
    /// Opens the sink that `--out` names.
    pub(super) fn open(out: Option<&Path>) -> Result<Self> {
        let to = match out {
            Some(path) if path != Path::new("-") => To::File(PartialFile::create(path)?),
            _ => To::Stdout(io::stdout()),
        };
        Ok(Self { to, gone: Arc::default(), bytes: 0 })
    }

    /// Creates a sink that appends to an opened file.
    pub(super) fn file(file: PartialFile) -> Self {
        Self { to: To::File(file), gone: Arc::default(), bytes: 0 }
    }

    /// Returns a handle that classifies errors after the sink has been moved into an encoder.
    pub(super) fn watch(&self) -> Watch {
        let name = match &self.to {
            To::Stdout(_) => "stdout".to_owned(),
            To::File(file) => format!("`{}`", file.path.display()),
        };
        Watch { gone: Arc::clone(&self.gone), name }
    }

    /// Keeps the unfinished file if the work stops early, so that a later command can resume it.
    pub(super) fn keep_unfinished(&mut self) {
        if let To::File(file) = &mut self.to {
            file.keep = true;
        }
    }

    /// Returns the number of bytes written through this sink.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes, and gives a file its name. Call it after everything was written.
    pub(super) fn finish(self) -> Result<()> {
        match self.to {
            To::Stdout(mut stdout) => stdout.flush().map_err(stdout_error),
            To::File(file) => file.commit(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Stdout(stdout) => stdout.write(bytes),
            To::File(file) => file.file.write(bytes),
        };
        match written {
            Ok(count) => self.bytes += count as u64,
            Err(ref error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone.store(true, Ordering::Relaxed)
            }
            Err(_) => {}
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Stdout(stdout) => stdout.flush(),
            To::File(file) => file.file.flush(),
        }
    }
}

/// Classifies errors of a sink that an encoder owns.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    gone: Arc<AtomicBool>,
    name: String,
}

impl Watch {
    /// Returns the error of an encoder that wrote to the sink.
    pub(super) fn error(&self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        if self.gone.load(Ordering::Relaxed) {
            return stdout_error(io::ErrorKind::BrokenPipe.into());
        }
        Error::storage(format!("cannot write to {}", self.name)).with_source(cause)
    }
}

/// A file that is written as `NAME.partial` and renamed when it is complete. Dropped before that,
/// it is removed.
#[derive(Debug)]
pub(super) struct PartialFile {
    file: File,
    path: PathBuf,
    partial: PathBuf,
    keep: bool,
    committed: bool,
}

impl PartialFile {
    /// Creates the file, replacing an unfinished one.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let partial = Self::partial_name(path);
        let file = File::create(&partial).map_err(|cause| file_error("create", &partial, cause))?;
        Ok(Self { file, path: path.to_owned(), partial, keep: false, committed: false })
    }

    /// Resumes a file whose unfinished form exists as `partial`. `file` is positioned at its end.
    pub(super) fn resume(file: File, path: &Path, partial: PathBuf) -> Self {
        Self { file, path: path.to_owned(), partial, keep: true, committed: false }
    }

    /// Returns the name of the unfinished file.
    pub(super) fn partial_name(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        PathBuf::from(name)
    }

    fn commit(mut self) -> Result<()> {
        self.file.sync_all().map_err(|cause| file_error("write", &self.partial, cause))?;
        if self.partial != self.path {
            std::fs::rename(&self.partial, &self.path)
                .map_err(|cause| file_error("rename to", &self.path, cause))?;
        }
        self.committed = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.committed && !self.keep {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_messages_get_the_flags_that_name_the_data() {
        let flags = "--data /x --set wal=/y";
        for (words, completed) in [
            ("run `gatelog doctor`", "run `gatelog doctor --data /x --set wal=/y`"),
            (
                "`gatelog wal rebind`, or `gatelog org list`;",
                "`gatelog wal rebind --data /x --set wal=/y`, or `gatelog org list --data /x --set wal=/y`;",
            ),
            ("`gatelog copy FROM TO`", "`gatelog copy FROM TO`"),
            ("`gatelog sql --data z`", "`gatelog sql --data z`"),
            ("`gatelog` and `gatelog broken", "`gatelog` and `gatelog broken"),
            ("`/a` differs", "`/a` differs"),
        ] {
            assert_eq!(with_flags(words, flags), completed);
            assert_eq!(with_flags(words, ""), words);
        }
        for (word, quoted) in
            [("s3://b/p", "s3://b/p"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(shell_word(word), quoted);
        }
    }

    #[test]
    fn a_file_gets_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut sink = Sink::open(Some(&path)).unwrap();
        sink.write_all(b"one\n").unwrap();
        assert!(!path.exists());
        drop(sink);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        let mut sink = Sink::open(Some(&path)).unwrap();
        sink.write_all(b"two\n").unwrap();
        sink.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
