//! Reading the log back: every whole frame in order, or an error that names file and offset.
//!
//! Reading changes nothing on disk. It reports where a torn tail begins; only the writer cuts it
//! ([`super::Wal::open`]).

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use uuid::Uuid;

use super::frame::{self, Header, Kind};
use super::last::Noted;
use crate::error::{Error, Result};
use crate::store::disk::Disk;

/// The last sequence of a log that each table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushedSeq {
    /// Table `logs`. Halves of records count as records.
    pub logs: u64,
    /// Table `feedback`.
    pub feedback: u64,
}

impl FlushedSeq {
    /// The same for both.
    pub fn all(sequence: u64) -> Self {
        Self { logs: sequence, feedback: sequence }
    }

    /// What the table that frames of a kind go to holds.
    pub fn sequence_of(self, kind: Kind) -> u64 {
        match kind {
            Kind::Feedback => self.feedback,
            Kind::Logs | Kind::RecordPart(_) | Kind::Late(_) => self.logs,
        }
    }

    /// Up to here nothing of the log is needed: a flush writes what is frozen to both tables before
    /// the log is trimmed.
    pub fn most(self) -> u64 {
        self.logs.max(self.feedback)
    }
}

/// Hears the frames of a log: sequence, what the rows are, the rows.
pub type FrameSink<'a> = dyn FnMut(u64, Kind, RecordBatch) -> Result<()> + 'a;

/// One segment as it was found.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Sequence of its first frame.
    pub first_sequence: u64,
    /// Sequence after its last whole frame.
    pub next_sequence: u64,
    /// Bytes up to the end of the last whole frame.
    pub good_bytes: u64,
    /// Bytes after that: a write that was never acked.
    pub torn_bytes: u64,
}

/// What a pass over the log found.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Identity of the log; `None` if it holds no segment with a whole header.
    pub wal_id: Option<Uuid>,
    /// The segments, in order.
    pub segments: Vec<Segment>,
    /// Whether a segment was trimmed while the log was read, beside its writer: what it held is in
    /// the tables or further on.
    pub vanished: bool,
    /// Files without a whole header at the end of the log: a segment whose creation was
    /// interrupted.
    pub incomplete_segments: Vec<PathBuf>,
    /// The bytes of the last segment that has frames, up to the end of the last whole one.
    pub(super) tail: Vec<u8>,
}

/// Frames at the end of a log that were acked and are not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Sequence of the first.
    pub from: u64,
    /// Sequence of the last.
    pub to: u64,
}

impl Missing {
    /// Says so.
    pub fn what(self) -> String {
        format!(
            "the write-ahead log was cut within its last group: frames {} to {} were acked and are lost",
            self.from, self.to
        )
    }
}

impl Replay {
    /// Checks that the log, with what the tables hold of it, goes as far as it was noted to go.
    /// Answers what is missing where the log ends within its last group; anything else that is
    /// missing is an error.
    pub fn reaches(&self, noted: &Noted, covered: u64, folder: &Path) -> Result<Option<Missing>> {
        let (mark, last) = (noted.mark, covered.max(self.next_sequence() - 1));
        let newest = self.segments.iter().find(|segment| segment.first_sequence == mark.segment);
        let remedy = format!(
            "restore it from a copy, or delete `{}` to go on without the rows that are missing",
            noted.path.as_deref().unwrap_or(folder).display()
        );
        if mark.durable <= last {
            if mark.segment <= covered || newest.is_some() {
                return Ok(None);
            }
            let what =
                format!("has no segment that begins at sequence {}, which was begun", mark.segment);
            return Err(cut(folder, &what, &remedy));
        }
        let is_short = |segment: &&Segment| segment.good_bytes + segment.torn_bytes < mark.bytes;
        // No write was going on when it was closed, and one changes nothing of what was there
        // before.
        if newest.is_some_and(|segment| is_short(&segment)) && last >= mark.before && !mark.closed {
            return Ok(Some(Missing { from: last + 1, to: mark.durable }));
        }
        if let Some(segment) = newest.filter(|segment| mark.bytes > 0 && !is_short(segment)) {
            let (path, offset) = (segment.path.display(), segment.good_bytes);
            return Err(Error::damaged(format!(
                "write-ahead log `{path}` is damaged at offset {offset}: no whole frame is there, and frames up to \
                 sequence {} were acked; {remedy}",
                mark.durable
            )));
        }
        Err(cut(
            folder,
            &format!("ends at sequence {last}, but {} was acked", mark.durable),
            &remedy,
        ))
    }

    /// Sequence after the last whole frame; 1 for an empty log.
    pub fn next_sequence(&self) -> u64 {
        self.segments.last().map_or(1, |segment| segment.next_sequence)
    }
}

/// Reads the log in `folder` and hands every frame that its table does not hold to `take`, in
/// order.
///
/// Frames that are `covered` are checked but not decoded. A folder that does not exist is an empty
/// log. A segment that vanishes while it is read was trimmed by the writer: its rows are in the
/// table by then, so it is passed over if `beside_writer`.
pub fn replay(
    disk: &dyn Disk,
    folder: &Path,
    covered: FlushedSeq,
    beside_writer: bool,
    take: &mut FrameSink<'_>,
) -> Result<Replay> {
    let mut found = Replay::default();
    let paths = segment_paths(disk, folder)?;
    for (place, path) in paths.iter().enumerate() {
        let mut bytes = match disk.read(path) {
            Ok(bytes) => bytes,
            Err(error) if beside_writer && error.kind() == std::io::ErrorKind::NotFound => {
                // Segments go oldest first, so the table has everything up to here.
                found.segments.clear();
                found.vanished = true;
                continue;
            }
            Err(error) => {
                return Err(
                    Error::storage(format!("cannot read `{}`", path.display())).with_source(error)
                );
            }
        };
        let last = place + 1 == paths.len();
        let (header, start) = match Header::decode(&bytes) {
            Ok(decoded) => decoded,
            Err(_) if last && frame::is_stillborn(&bytes) => {
                found.incomplete_segments.push(path.clone());
                continue;
            }
            Err(what) => return Err(damaged(path, 0, what)),
        };
        found.admit(path, &header, covered.most())?;
        let segment = read_segment(path, &bytes, &header, start, last, covered, take)?;
        if !beside_writer && segment.next_sequence > segment.first_sequence {
            bytes.truncate(usize::try_from(segment.good_bytes).unwrap_or(usize::MAX));
            found.tail = bytes;
        }
        found.segments.push(segment);
    }
    Ok(found)
}

impl Replay {
    /// Checks that a segment belongs to this log and follows the one before it.
    fn admit(&mut self, path: &Path, header: &Header, after: u64) -> Result<()> {
        if *self.wal_id.get_or_insert(header.wal_id) != header.wal_id {
            return Err(damaged(path, 8, "the segment belongs to another log"));
        }
        if let Some(previous) = self.segments.last()
            && previous.next_sequence != header.first_sequence
            // What the table covers may be missing: a trim that was interrupted.
            && !(previous.next_sequence < header.first_sequence && header.first_sequence <= after.saturating_add(1))
        {
            let (expected, got) = (previous.next_sequence, header.first_sequence);
            return Err(damaged(
                path,
                24,
                &format!("the segment begins at sequence {got}, expected {expected}"),
            ));
        }
        Ok(())
    }
}

fn read_segment(
    path: &Path,
    bytes: &[u8],
    header: &Header,
    start: usize,
    last: bool,
    covered: FlushedSeq,
    take: &mut FrameSink<'_>,
) -> Result<Segment> {
    let (mut offset, mut sequence) = (start, header.first_sequence);
    while offset < bytes.len() {
        let frame = match frame::read(&header.marker, bytes, offset) {
            Ok(frame) if frame.sequence == sequence => frame,
            Ok(frame) => {
                let what = format!("a frame has sequence {}, expected {sequence}", frame.sequence);
                return Err(damaged(path, offset, &what));
            }
            // Segments before the last were fsynced whole before the next began.
            Err(what)
                if !last || frame::confirms_durable(header.marker, bytes, offset, sequence) =>
            {
                return Err(damaged(path, offset, what));
            }
            Err(_) => break,
        };
        let Some(kind) = frame::kind(frame.payload) else {
            return Err(damaged(
                path,
                offset,
                "a frame holds what this version of gatelog does not know",
            ));
        };
        if sequence > covered.sequence_of(kind) {
            let batch = frame::decode(&header.schema, frame.payload).map_err(|cause| {
                damaged(path, offset, "a frame's rows cannot be decoded").with_source(cause)
            })?;
            take(sequence, kind, batch)?;
        }
        offset += frame.len;
        sequence += 1;
    }
    Ok(Segment {
        path: path.to_owned(),
        first_sequence: header.first_sequence,
        next_sequence: sequence,
        good_bytes: offset as u64,
        torn_bytes: (bytes.len() - offset) as u64,
    })
}

/// The segment files of a log, oldest first.
pub(super) fn segment_paths(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = match disk.list(folder) {
        Ok(paths) => paths,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(
                Error::storage(format!("cannot list `{}`", folder.display())).with_source(error)
            );
        }
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    // Names are zero-padded sequences, so the order of names is the order of the log.
    paths.sort();
    Ok(paths)
}

/// The sequence that the name of a segment says.
pub(super) fn first_sequence(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

fn cut(folder: &Path, what: &str, remedy: &str) -> Error {
    Error::damaged(format!(
        "write-ahead log `{}` was cut or emptied: it {what}; {remedy}",
        folder.display()
    ))
}

fn damaged(path: &Path, offset: usize, what: &str) -> Error {
    Error::damaged(format!(
        "write-ahead log `{}` is damaged at offset {offset}: {what}; restore the file from a copy, or move it away to \
         go on without the rows it holds",
        path.display()
    ))
}
