//! The write-ahead log: what makes an ack mean that the record is on the disk.
//!
//! One writer ([`Wal`]) owns the folder. It writes a group of frames and fsyncs them at once; the caller acks after that
//! ([`Wal::append`]). Frames are numbered without gaps from 1; those of both tables stand in the order in which they came.
//! [`Wal::rotate`] closes a segment so that a flush can name a whole number of segments, and [`Wal::trim`] deletes segments
//! whose last frame both tables cover. After a failed write or
//! fsync the log takes nothing more: what the disk holds then is unknown until the next open reads it.
//!
//! The bytes are decided in [`frame`]; reading them back and telling a torn tail from damage in [`replay`].

mod frame;
mod home;
mod replay;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use uuid::Uuid;

use crate::error::{Error, Result};

pub use frame::{Kind, Payload};
pub use home::{Home, before_first, read_home, write_home};
pub use replay::{Covered, Replay, Take, replay};

/// A file that the log writes to. Tests put one in between that fails.
pub trait LogFile: Send {
    /// Writes all bytes at the end of the file.
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()>;
    /// Returns when everything appended is on the disk.
    fn sync(&mut self) -> std::io::Result<()>;
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.write_all(bytes)
    }
    fn sync(&mut self) -> std::io::Result<()> {
        self.sync_data()
    }
}

/// Creates the files of a log.
pub type CreateFile = Box<dyn Fn(&Path) -> std::io::Result<Box<dyn LogFile>> + Send>;

/// The ordinary files of the operating system.
pub fn disk() -> CreateFile {
    Box::new(|path| {
        let file = OpenOptions::new().create_new(true).append(true).open(path)?;
        Ok(Box::new(file))
    })
}

/// The log, open for writing.
pub struct Wal {
    folder: PathBuf,
    id: Uuid,
    schema_message: Vec<u8>,
    create: CreateFile,
    /// The segment that is written to; none until the first append after an open or a rotation.
    current: Option<Open>,
    /// Closed segments that are not trimmed: path, last sequence, bytes.
    closed: Vec<(PathBuf, u64, u64)>,
    next_sequence: u64,
    buffer: Vec<u8>,
    failed: Option<String>,
}

struct Open {
    file: Box<dyn LogFile>,
    path: PathBuf,
    bytes: u64,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("folder", &self.folder).field("next_sequence", &self.next_sequence).finish()
    }
}

impl Wal {
    /// Opens the log in `folder`, creating it if need be, and hands every frame that `covered` (given the log's id: the last
    /// sequence that each table has) does not cover to `take`. A torn tail is cut.
    pub fn open(
        folder: &Path,
        schema: &Schema,
        create: CreateFile,
        new_id: Uuid,
        covered: &dyn Fn(Uuid) -> Result<Covered>,
        take: &mut Take<'_>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)
            .map_err(|cause| Error::storage(format!("cannot create `{}`", folder.display())).with_source(cause))?;
        let id = identity(folder, new_id)?;
        let covered = covered(id)?;
        let found = replay(folder, covered, false, take)?;
        let covered = covered.most();
        if let Some(other) = found.wal_id.filter(|other| *other != id) {
            return Err(Error::damaged(format!(
                "the segments in `{}` belong to log {other}, but its file `id` says {id}; put the right file back",
                folder.display()
            )));
        }
        if let Some(first) = found.segments.first()
            && first.first_sequence > covered + 1
        {
            return Err(Error::damaged(format!(
                "write-ahead log `{}` begins at sequence {}, but the table ends at {covered}: a segment is missing; \
                 restore it from a copy",
                first.path.display(),
                first.first_sequence
            )));
        }
        let mut wal = Self {
            folder: folder.to_owned(),
            id,
            schema_message: frame::schema_message(schema)?,
            create,
            current: None,
            closed: Vec::new(),
            next_sequence: found.next_sequence().max(covered + 1),
            buffer: Vec::new(),
            failed: None,
        };
        wal.settle(&found)?;
        Ok(wal)
    }

    /// Cuts what was never acked and takes the whole segments over as closed ones.
    fn settle(&mut self, found: &Replay) -> Result<()> {
        for path in &found.stillborn {
            remove(path)?;
        }
        for segment in &found.segments {
            if segment.next_sequence == segment.first_sequence {
                // Its name is that of the next segment to be made.
                remove(&segment.path)?;
                continue;
            }
            if segment.torn_bytes > 0 {
                tracing::warn!(
                    file = %segment.path.display(),
                    offset = segment.good_bytes,
                    torn_bytes = segment.torn_bytes,
                    "cut what is no whole frame at the end of the log: usually a write that was interrupted before its ack"
                );
                cut(&segment.path, segment.good_bytes)?;
            }
            self.closed.push((segment.path.clone(), segment.next_sequence.saturating_sub(1), segment.good_bytes));
        }
        sync_folder(&self.folder)
    }

    /// Identity of the log, the application id of its transactions.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The sequence of the last frame written; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Bytes and number of the segments on disk.
    pub fn size(&self) -> (u64, u64) {
        let closed: u64 = self.closed.iter().map(|(_, _, bytes)| bytes).sum();
        let current = self.current.as_ref().map_or(0, |open| open.bytes);
        (closed + current, self.closed.len() as u64 + u64::from(self.current.is_some()))
    }

    /// Writes the payloads as one group and returns when they are on the disk; answers the sequence of the first.
    pub fn append(&mut self, payloads: &[&Payload]) -> Result<u64> {
        self.refuse_if_failed()?;
        match self.append_group(payloads) {
            Ok(first) => Ok(first),
            Err(error) => {
                self.failed = Some(error.chain());
                Err(error)
            }
        }
    }

    fn append_group(&mut self, payloads: &[&Payload]) -> Result<u64> {
        if self.current.is_none() {
            self.current = Some(self.start_segment()?);
        }
        let Some(open) = self.current.as_mut() else { return Err(Error::internal("the log has no open segment")) };
        let first = self.next_sequence;
        self.buffer.clear();
        // One huge group must not hold its memory for good.
        self.buffer.shrink_to(4 << 20);
        for (place, payload) in payloads.iter().enumerate() {
            frame::write(&mut self.buffer, first + place as u64, first - 1, payload.bytes());
        }
        let failed = |what: &str, cause: std::io::Error| {
            Error::storage(format!("cannot {what} `{}`; nothing more is taken until a restart", open.path.display()))
                .with_source(cause)
        };
        open.file.append(&self.buffer).map_err(|cause| failed("write to", cause))?;
        open.file.sync().map_err(|cause| failed("sync", cause))?;
        open.bytes += self.buffer.len() as u64;
        self.next_sequence += payloads.len() as u64;
        Ok(first)
    }

    fn start_segment(&self) -> Result<Open> {
        let path = self.folder.join(format!("{:020}.wal", self.next_sequence));
        let failed = |cause| Error::storage(format!("cannot create segment `{}`", path.display())).with_source(cause);
        let header =
            frame::Header { wal_id: self.id, first_sequence: self.next_sequence, schema: self.schema_message.clone() };
        let bytes = header.encode();
        let mut file = (self.create)(&path).map_err(failed)?;
        file.append(&bytes).map_err(failed)?;
        file.sync().map_err(failed)?;
        sync_folder(&self.folder)?;
        Ok(Open { file, path, bytes: bytes.len() as u64 })
    }

    /// Closes the current segment; answers the last sequence in it. The next append starts a new one.
    pub fn rotate(&mut self) -> u64 {
        let last = self.last_sequence();
        if let Some(open) = self.current.take() {
            self.closed.push((open.path, last, open.bytes));
        }
        last
    }

    /// Deletes closed segments whose frames are all at or below `covered`, which the table must name durably.
    pub fn trim(&mut self, covered: u64) -> Result<()> {
        let covered = self.closed.iter().take_while(|(_, last, _)| *last <= covered).count();
        // In order, and only what is gone is forgotten, so that what stays on the disk has no gap.
        for _ in 0..covered {
            remove(&self.closed[0].0)?;
            self.closed.remove(0);
        }
        if covered > 0 { sync_folder(&self.folder) } else { Ok(()) }
    }

    /// An error once a write or fsync has failed.
    pub fn refuse_if_failed(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(Error::storage(format!("writes are refused until a restart, because: {why}"))),
        }
    }
}

/// Bytes and number of the segments in `folder`, as far as they can be read.
pub fn size_on_disk(folder: &Path) -> (u64, u64) {
    let paths = replay::segment_paths(folder).unwrap_or_default();
    let bytes = paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
    (bytes, paths.len() as u64)
}

/// The id of the log in `folder`, without creating one.
pub fn read_identity(folder: &Path) -> Result<Option<Uuid>> {
    let path = folder.join("id");
    match fs::read_to_string(&path) {
        Ok(text) => Uuid::parse_str(text.trim())
            .map(Some)
            .map_err(|cause| Error::damaged(format!("`{}` holds no id", path.display())).with_source(cause)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::storage(format!("cannot read `{}`", path.display())).with_source(error)),
    }
}

/// The id of the log: from its file, else from its segments, else `new_id`, written before anything else is.
fn identity(folder: &Path, new_id: Uuid) -> Result<Uuid> {
    if let Some(id) = read_identity(folder)? {
        return Ok(id);
    }
    let id = replay(folder, Covered::all(u64::MAX), false, &mut |_, _, _| Ok(()))?.wal_id.unwrap_or(new_id);
    let (path, fresh) = (folder.join("id"), folder.join("id.new"));
    let failed = |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
    let mut file = File::create(&fresh).map_err(failed)?;
    file.write_all(format!("{id}\n").as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&fresh, &path).map_err(failed)?;
    sync_folder(folder)?;
    Ok(id)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(|cause| Error::storage(format!("cannot delete `{}`", path.display())).with_source(cause))
}

fn cut(path: &Path, bytes: u64) -> Result<()> {
    let failed = |cause| Error::storage(format!("cannot cut `{}`", path.display())).with_source(cause);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    file.set_len(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|cause| Error::storage(format!("cannot sync folder `{}`", folder.display())).with_source(cause))
}
