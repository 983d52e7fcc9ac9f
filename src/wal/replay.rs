//! Reads the log: every complete frame in order, or an error that names file and offset.
//!
//! Reading changes nothing on disk. It reports the start of a torn tail, which only the writer cuts
//! ([`super::Wal::open`]).

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use uuid::Uuid;

use super::frame::{self, Header, Kind};
use super::last::Noted;
use crate::error::{Error, Result};
use crate::store::disk::Disk;

/// The last sequence of a log that each table covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushedSeq {
    /// Table `logs`. Parts of records count as records.
    pub logs: u64,
    /// Table `feedback`.
    pub feedback: u64,
}

impl FlushedSeq {
    /// Creates the same sequence for both tables.
    pub fn all(sequence: u64) -> Self {
        Self { logs: sequence, feedback: sequence }
    }

    /// Returns the sequence that the table for frames of a kind covers.
    pub fn sequence_of(self, kind: Kind) -> u64 {
        match kind {
            Kind::Feedback => self.feedback,
            Kind::Logs | Kind::RecordPart(_) | Kind::Late(_) => self.logs,
        }
    }

    /// Returns the sequence up to which the log is not needed: a flush writes the frozen rows to
    /// both tables before the log is trimmed.
    pub fn most(self) -> u64 {
        self.logs.max(self.feedback)
    }
}

/// Receives the frames of a log: sequence, kind and rows.
pub type FrameSink<'a> = dyn FnMut(Entry, RecordBatch) -> Result<()> + 'a;

/// A frame of a replay, without its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its sequence.
    pub sequence: u64,
    /// Kind of its rows.
    pub kind: Kind,
    /// Time by which the rows had arrived, ms since 1970-01-01. `None` if it is not known.
    pub arrived_ms: Option<i64>,
}

/// State of one segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Path of the file.
    pub path: PathBuf,
    /// Sequence of its first frame.
    pub first_sequence: u64,
    /// Sequence after its last whole frame.
    pub next_sequence: u64,
    /// Bytes up to the end of the last whole frame.
    pub good_bytes: u64,
    /// Bytes after that, of a write that was never acknowledged.
    pub torn_bytes: u64,
}

/// Result of a pass over the log.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Identity of the log; `None` if it holds no segment with a whole header.
    pub wal_id: Option<Uuid>,
    /// The segments, in order.
    pub segments: Vec<Segment>,
    /// True if the writer trimmed a segment while the log was read beside it. The frames of the
    /// segment are in the tables or further on.
    pub vanished: bool,
    /// Files without a complete header at the end of the log, left from an interrupted creation of
    /// a segment.
    pub incomplete_segments: Vec<PathBuf>,
    /// The bytes of the last segment that has frames, up to the end of the last whole one.
    pub(super) tail: Vec<u8>,
}

/// Acknowledged frames that are missing at the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Sequence of the first.
    pub from: u64,
    /// Sequence of the last.
    pub to: u64,
}

impl Missing {
    /// Describes the loss.
    pub fn describe(self) -> String {
        format!(
            "the write-ahead log was cut within its last group: frames {} to {} were acked and are lost",
            self.from, self.to
        )
    }
}

impl Replay {
    /// Checks that the log, together with the frames that the tables cover, extends to its noted
    /// end. Returns the missing frames if the log ends within its last group, and an error if
    /// anything else is missing.
    pub fn reaches(&self, noted: &Noted, covered: u64, folder: &Path) -> Result<Option<Missing>> {
        let mark = noted.mark;
        let last = covered.max(self.next_sequence() - 1);
        let newest = self.segments.iter().find(|segment| segment.first_sequence == mark.segment);
        let remedy = format!(
            "restore it from a copy, or delete `{}` to continue without the missing rows",
            noted.path.as_deref().unwrap_or(folder).display()
        );
        if mark.durable <= last {
            if mark.segment <= covered || newest.is_some() {
                return Ok(None);
            }
            let what = format!(
                "has no segment that begins at sequence {}, although it was created",
                mark.segment
            );
            return Err(cut(folder, &what, &remedy));
        }
        let is_short = |segment: &&Segment| segment.good_bytes + segment.torn_bytes < mark.bytes;
        // A closed log had no write in progress, and a write does not change earlier frames.
        if newest.is_some_and(|segment| is_short(&segment)) && last >= mark.before && !mark.closed {
            return Ok(Some(Missing { from: last + 1, to: mark.durable }));
        }
        if let Some(segment) = newest.filter(|segment| mark.bytes > 0 && !is_short(segment)) {
            let path = segment.path.display();
            let offset = segment.good_bytes;
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

/// Reads the log in `folder` and passes every frame that its table does not cover to `take`, in
/// order.
///
/// Frames that are `covered` are checked but not decoded. A folder that does not exist is an empty
/// log. A segment that vanishes while it is read was trimmed by the writer. Its rows are in the
/// table by then, so it is skipped if `beside_writer` is set.
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
                // The oldest segments are trimmed first, so the table covers everything up to here.
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
        let Some(previous) = self.segments.last() else { return Ok(()) };
        let expected = previous.next_sequence;
        let got = header.first_sequence;
        // A covered segment may be missing after an interrupted trim.
        let is_trimmed = expected < got && got <= after.saturating_add(1);
        if got != expected && !is_trimmed {
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
    let mut offset = start;
    let mut sequence = header.first_sequence;
    while offset < bytes.len() {
        let frame = match frame::read(&header.marker, bytes, offset) {
            Ok(frame) if frame.sequence == sequence => frame,
            Ok(frame) => {
                let what = format!("a frame has sequence {}, expected {sequence}", frame.sequence);
                return Err(damaged(path, offset, &what));
            }
            // Earlier segments were fsynced completely before the next one was started.
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
                "a frame has a kind that this version of gatelog does not know",
            ));
        };
        if sequence > covered.sequence_of(kind) {
            let batch = frame::decode(&header.schema, frame.payload).map_err(|cause| {
                damaged(path, offset, "a frame's rows cannot be decoded").with_source(cause)
            })?;
            take(Entry { sequence, kind, arrived_ms: frame.arrived_ms }, batch)?;
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

/// Returns the segment files of a log, oldest first.
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

/// Parses the first sequence from the name of a segment.
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
         continue without its rows",
        path.display()
    ))
}
