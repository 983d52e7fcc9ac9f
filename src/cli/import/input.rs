//! An input of the import: a file or stdin, decompressed according to its first bytes.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cli::output::file_error;
use gatelog::error::{Error, Result};
use gatelog::ingest::pipeline::unpack;

/// First bytes of files with records in formats that the import does not read.
const OTHERS: [(&[u8], &str); 2] = [(b"PAR1", "Parquet"), (b"ARRO", "Arrow")];
const MAGIC_BYTES: usize = 4;
/// Compressed bytes that are read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// An input with records.
#[derive(Debug)]
pub(super) struct Input {
    /// Name of the input in messages.
    pub(super) name: String,
    /// Size of the file on disk. `None` for stdin and other streams.
    pub(super) bytes: Option<u64>,
    path: Option<PathBuf>,
}

impl Input {
    /// Checks that the input exists. It is opened only when its turn comes, since there may be
    /// thousands.
    pub(super) fn find(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { name: "stdin".to_owned(), bytes: None, path: None });
        }
        let about = std::fs::metadata(path).map_err(|cause| file_error("read", path, cause))?;
        if about.is_dir() {
            let message = format!(
                "`{}` is a folder; name its files, or pass `--source portkey-bucket` for a log store",
                path.display()
            );
            return Err(Error::invalid(message));
        }
        let bytes = about.is_file().then_some(about.len());
        Ok(Self { name: path.display().to_string(), bytes, path: Some(path.to_owned()) })
    }

    /// Opens the input to read its JSON text. `read` counts the bytes of the file itself.
    pub(super) fn open(&self, read: Arc<AtomicU64>) -> Result<Box<dyn Read + Send>> {
        let raw: Box<dyn Read + Send> = match &self.path {
            None => Box::new(io::stdin()),
            Some(path) => {
                Box::new(File::open(path).map_err(|cause| file_error("open", path, cause))?)
            }
        };
        decoded(Counted { raw, read }).map_err(|cause| self.error(cause))
    }

    /// Returns the error of a failed read. A broken archive is the caller's mistake, a broken disk
    /// is not.
    pub(super) fn error(&self, cause: io::Error) -> Error {
        let message = format!("cannot read `{}` to its end", self.name);
        match cause.kind() {
            io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof => Error::invalid(message),
            // zstd reports a broken frame this way.
            io::ErrorKind::Other => Error::invalid(message),
            _ => Error::storage(message),
        }
        .with_source(cause)
    }
}

/// Decompresses an input whose first bytes are those of gzip or zstd.
pub(super) fn decoded(raw: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut raw = BufReader::with_capacity(BLOCK_BYTES, raw);
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    raw.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut first)?;
    if let Some((_, name)) = OTHERS.iter().find(|(begin, _)| first == *begin) {
        let expected = format!(
            "it is {name}; import reads JSON, plain, gzip or zstd; convert it to JSON lines first"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, expected));
    }
    unpack(Cursor::new(first).chain(raw), None)
}

struct Counted<R> {
    raw: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text_of(bytes: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        decoded(Cursor::new(bytes))?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compression_is_detected_from_content_and_members_are_concatenated() {
        assert_eq!(text_of(Vec::new()).unwrap(), "");
        assert_eq!(text_of(b"{}".to_vec()).unwrap(), "{}");
        assert_eq!(text_of([gzip("one\n"), gzip("two\n")].concat()).unwrap(), "one\ntwo\n");
        let frames = [
            zstd::encode_all(&b"one\n"[..], 1).unwrap(),
            zstd::encode_all(&b"two\n"[..], 1).unwrap(),
        ];
        assert_eq!(text_of(frames.concat()).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn files_of_other_programs_are_named() {
        for (bytes, name) in [(&b"PAR1\x15\x04"[..], "Parquet"), (b"ARROW1\0\0", "Arrow")] {
            let message = text_of(bytes.to_vec()).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("JSON lines"), "{message}");
        }
    }

    #[test]
    fn a_torn_archive_is_an_error() {
        let mut torn = gzip(&"text ".repeat(1_000));
        torn.truncate(torn.len() - 9);
        assert!(text_of(torn).is_err());
        let mut torn = zstd::encode_all(&b"text text text"[..], 1).unwrap();
        torn.truncate(torn.len() - 3);
        assert!(text_of(torn).is_err());
    }
}
