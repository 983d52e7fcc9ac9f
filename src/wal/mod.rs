//! The write-ahead log: an acknowledged record is in it, on the disk.
//!
//! One writer ([`Wal`]) owns the folder. It writes a group of frames and fsyncs them together; the
//! caller acknowledges them after that ([`Wal::append`]). Frames are numbered without gaps from 1.
//! Those of both tables are in the order in which they arrived. [`Wal::rotate`] closes a segment so
//! that a flush can name a whole number of segments, and [`Wal::trim`] deletes segments whose last
//! frame both tables cover. A write that fails before its fsync, as on a full disk, is cut off
//! again, and the next one may succeed. After a failed fsync the log accepts nothing more, because
//! the content of the disk is then unknown.
//!
//! Frames that an open finds may not be durable: an earlier process may have died between a write
//! and its fsync, and after a failed fsync the kernel considers the bytes written. So replayed
//! frames are made durable before anything is built on them ([`settle`]).
//!
//! A second file notes the end of the log ([`last`]), so that a log that was cut, emptied or
//! damaged at its end is detected.
//!
//! [`frame`] defines the bytes. [`replay`] reads them, and distinguishes a torn tail from damage.

mod epochs;
mod frame;
mod home;
mod last;
mod replay;
mod segment;
mod settle;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Schema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::store::disk::Disk;
use crate::store::folders::{Folders, is_disk_full};

pub use epochs::{Epochs, read_epochs, write_epochs};
pub use frame::{Kind, Payload, Random};
pub use home::{Home, before_first, read_home, write_home};
use last::LastNote;
pub use last::{Mark, Noted, read_last};
pub use replay::{Entry, FlushedSeq, FrameSink, Missing, Replay, replay};
use segment::{Failed, Segment, Tail};

/// Name of the file with the log's id.
const ID: &str = "id";

/// The log, open for writing.
pub struct Wal {
    folder: PathBuf,
    id: Uuid,
    schema_message: Vec<u8>,
    disk: Arc<dyn Disk>,
    /// The segment that is written to; `None` until the first append after an open or a rotation.
    current: Option<Segment>,
    /// Closed segments that are not trimmed: path, last sequence, bytes.
    closed: Vec<(PathBuf, u64, u64)>,
    next_sequence: u64,
    /// Draws the marker of a new segment.
    random: Random,
    /// The note about the end of the log; `None` if no note is kept.
    note: Option<LastNote>,
    /// Content of the note.
    mark: Mark,
    buffer: Vec<u8>,
    /// The segment that an open found and that is to be rewritten before the next append; `None`
    /// once it is.
    tail: Option<Tail>,
    failed: Option<String>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("folder", &self.folder)
            .field("next_sequence", &self.next_sequence)
            .finish()
    }
}

impl Wal {
    /// Opens the log in `folder`, and creates it if it does not exist. Passes every frame to `take`
    /// that `covered` does not cover. `covered` gets the log's id, and returns the last sequence of
    /// each table and the note about the end of the log. A torn tail is cut, and all frames are
    /// durable when this returns; only on a full disk they become durable with the first append.
    pub fn open(
        folder: &Path,
        schema: &Schema,
        folders: &Folders,
        (new_id, random): (Uuid, Random),
        covered: &dyn Fn(Uuid) -> Result<(FlushedSeq, Noted)>,
        take: &mut FrameSink<'_>,
    ) -> Result<Self> {
        let disk = Arc::clone(folders.disk());
        folders.create(folder).map_err(|cause| {
            Error::storage(format!("cannot create `{}`", folder.display())).with_source(cause)
        })?;
        let id = identity(folders, folder, new_id)?;
        let (covered, noted) = covered(id)?;
        let found = replay(&*disk, folder, covered, false, take)?;
        let covered = covered.most();
        if let Some(other) = found.wal_id.filter(|other| *other != id) {
            return Err(Error::damaged(format!(
                "the segments in `{}` belong to log {other}, but its file `id` names {id}; restore the right file",
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
        if let Some(missing) = found.reaches(&noted, covered, folder)? {
            tracing::error!(folder = %folder.display(), "{}", missing.describe());
        }
        let mut note =
            noted.path.as_deref().map(|path| LastNote::open(folders, path, id)).transpose()?;
        let next_sequence = found.next_sequence().max(covered + 1);
        // A segment without frames is removed below, and so is a torn tail.
        let durable = noted.mark.durable.min(next_sequence - 1);
        let mark = Mark { durable, before: durable, ..Mark::default() };
        note.iter_mut().for_each(|note| note.write(mark));
        let mut wal = Self {
            folder: folder.to_owned(),
            id,
            schema_message: frame::schema_message(schema)?,
            disk,
            current: None,
            closed: Vec::new(),
            next_sequence,
            random,
            note,
            mark,
            buffer: Vec::new(),
            tail: None,
            failed: None,
        };
        wal.settle(found)?;
        if wal.tail.is_none() {
            wal.note_found();
        }
        Ok(wal)
    }

    /// Notes that all frames of an open are durable.
    fn note_found(&mut self) {
        let durable = self.last_sequence();
        let newest = self
            .closed
            .last()
            .and_then(|(path, _, bytes)| Some((replay::first_sequence(path)?, *bytes)));
        let (segment, bytes) = newest.unwrap_or_default();
        self.mark = Mark { durable, segment, bytes, before: durable, closed: false };
        let mark = self.mark;
        self.note.iter_mut().for_each(|note| note.write_durably(mark));
    }

    /// Notes that nothing is written until the log is opened again.
    pub fn close(&mut self) {
        if self.failed.is_some() || self.tail.is_some() {
            return;
        }
        self.mark.closed = true;
        let mark = self.mark;
        self.note.iter_mut().for_each(|note| note.write_durably(mark));
    }

    /// Returns the identity of the log, the application id of its transactions.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the sequence of the last frame written; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Returns the bytes and the number of the segments on disk.
    pub fn size(&self) -> (u64, u64) {
        let closed: u64 = self.closed.iter().map(|(_, _, bytes)| bytes).sum();
        let current = self.current.as_ref().map_or(0, |open| open.bytes);
        (closed + current, self.closed.len() as u64 + u64::from(self.current.is_some()))
    }

    /// Writes the payloads, which arrived now, as one group and returns the sequence of the first
    /// when they are on the disk. After an error nothing of them is kept, or the log accepts nothing more
    /// ([`Wal::has_failed`]).
    pub fn append(&mut self, payloads: &[&Payload], now_ms: i64) -> Result<u64> {
        self.ready()?;
        let first = self.next_sequence;
        match self.append_group(payloads, now_ms) {
            Ok(()) => Ok(first),
            Err(Failed { error, is_final }) => {
                if is_final {
                    self.failed = Some(error.chain());
                }
                Err(error)
            }
        }
    }

    fn append_group(&mut self, payloads: &[&Payload], now_ms: i64) -> Result<(), Failed> {
        let first = self.next_sequence;
        self.buffer.clear();
        // A huge group must not keep its memory for good.
        self.buffer.shrink_to(4 << 20);
        let segment = match &mut self.current {
            Some(segment) => segment,
            none => {
                let header = frame::Header {
                    wal_id: self.id,
                    first_sequence: first,
                    marker: frame::Marker::random(self.random),
                    schema: self.schema_message.clone(),
                };
                none.insert(Segment::create(&*self.disk, &self.folder, &header)?)
            }
        };
        for (place, payload) in payloads.iter().enumerate() {
            let start = segment.bytes as usize;
            let numbers = (first + place as u64, first - 1);
            let arrived_ms = payload.arrived_ms(now_ms);
            let buffer = &mut self.buffer;
            frame::write(buffer, start, &segment.marker, numbers, arrived_ms, payload.bytes());
        }
        segment.append(&self.buffer)?;
        self.next_sequence += payloads.len() as u64;
        self.mark = Mark {
            durable: self.next_sequence - 1,
            segment: segment.first_sequence,
            bytes: segment.bytes,
            before: first - 1,
            closed: false,
        };
        // Before the ack, so that a process that dies leaves a note of all acknowledged frames.
        let mark = self.mark;
        self.note.iter_mut().for_each(|note| note.write(mark));
        Ok(())
    }

    /// Closes the current segment, and returns the last sequence in it. The next append starts a
    /// new one.
    pub fn rotate(&mut self) -> u64 {
        let last = self.last_sequence();
        // A segment without frames has the name of the next one.
        if let Some(segment) = self.current.take_if(|segment| segment.first_sequence <= last) {
            self.closed.push((segment.path, last, segment.bytes));
        }
        last
    }

    /// Deletes closed segments whose frames are all at or below `covered`, which the table must
    /// name durably.
    pub fn trim(&mut self, covered: u64) -> Result<()> {
        let covered = self.closed.iter().take_while(|(_, last, _)| *last <= covered).count();
        // In order, and a segment is forgotten only once it is deleted, so that the files have no
        // gap.
        for _ in 0..covered {
            self.remove(&self.closed[0].0)?;
            let (path, ..) = self.closed.remove(0);
            // The tables have all frames of the segment.
            self.tail.take_if(|tail| tail.path == path);
        }
        if covered > 0 { self.sync_folder() } else { Ok(()) }
    }

    /// Returns true if an fsync failed, or a write that could not be cut off again. The log then
    /// accepts nothing more.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Makes all accepted and replayed frames durable, or returns an error.
    pub fn ready(&mut self) -> Result<()> {
        match &self.failed {
            None => self.settle_tail().inspect_err(|error| {
                if !is_disk_full(error) {
                    self.failed = Some(error.chain());
                }
            }),
            Some(why) => {
                Err(Error::storage(format!("writes are refused until a restart, because: {why}")))
            }
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match self.disk.remove(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::storage(format!("cannot delete `{}`", path.display()))
                    .with_source(cause))
            }
            _ => Ok(()),
        }
    }

    fn sync_folder(&self) -> Result<()> {
        self.disk.sync_folder(&self.folder).map_err(|cause| {
            Error::storage(format!("cannot sync folder `{}`", self.folder.display()))
                .with_source(cause)
        })
    }
}

/// Returns the bytes and the number of the segments in `folder`, as far as they can be read.
pub fn size_on_disk(disk: &dyn Disk, folder: &Path) -> (u64, u64) {
    let paths = replay::segment_paths(disk, folder).unwrap_or_default();
    let bytes = paths.iter().filter_map(|path| disk.length(path).ok()).sum();
    (bytes, paths.len() as u64)
}

/// Returns true if the log in `folder` has any frame.
pub fn has_frames(disk: &dyn Disk, folder: &Path) -> Result<bool> {
    let found = replay(disk, folder, FlushedSeq::all(u64::MAX), true, &mut |_, _| Ok(()))?;
    Ok(found.segments.iter().any(|segment| segment.next_sequence > segment.first_sequence))
}

/// Removes the log in `folder`: its segments first, so that it keeps its id as long as there is a
/// segment. The notes about its store stay.
pub fn retire(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let failed = |path: &Path, cause: std::io::Error| {
        Error::storage(format!("cannot delete `{}`", path.display())).with_source(cause)
    };
    for path in replay::segment_paths(disk, folder)? {
        disk.remove(&path).map_err(|cause| failed(&path, cause))?;
    }
    disk.sync_folder(folder).map_err(|cause| failed(folder, cause))?;
    for path in [epochs::path(folder), folder.join(ID)] {
        match disk.remove(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(&path, cause));
            }
            _ => {}
        }
    }
    disk.sync_folder(folder).map_err(|cause| failed(folder, cause))
}

/// Returns the id of the log in `folder`, without creating one.
pub fn read_identity(disk: &dyn Disk, folder: &Path) -> Result<Option<Uuid>> {
    let path = folder.join(ID);
    match disk.read(&path) {
        Ok(bytes) => Uuid::try_parse_ascii(bytes.trim_ascii()).map(Some).map_err(|cause| {
            Error::damaged(format!("`{}` holds no id", path.display())).with_source(cause)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Error::storage(format!("cannot read `{}`", path.display())).with_source(error))
        }
    }
}

/// Returns the id of the log: from its file, otherwise from its segments, otherwise `new_id`. The
/// id is written before anything else.
fn identity(folders: &Folders, folder: &Path, new_id: Uuid) -> Result<Uuid> {
    let disk = &**folders.disk();
    if let Some(id) = read_identity(disk, folder)? {
        return Ok(id);
    }
    let nothing = &mut |_, _| Ok(());
    let id =
        replay(disk, folder, FlushedSeq::all(u64::MAX), false, nothing)?.wal_id.unwrap_or(new_id);
    let path = folder.join(ID);
    let failed =
        |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
    folders.write_file(&path, format!("{id}\n").as_bytes()).map_err(failed)?;
    Ok(id)
}
