//! The bytes of a segment: its header and its frames, and the conclusions that a reader may draw
//! from wrong bytes.
//!
//! ```text
//! header   magic "GLWAL002" | wal id 16 | first sequence u64 | schema length u32 | marker 16 | schema (Arrow IPC) | crc32 u32
//! frame    marker 16 | payload length u32 | sequence u64 | durable u64 | crc32 u32 | payload
//! ```
//! Integers are little-endian. The marker is random and drawn for each segment, so no sender of
//! records can know it: bytes of a payload never read as a frame. The checksum of a frame covers
//! everything of the frame except itself, and the frame's offset in the segment, so a copy of a
//! frame at another place is no frame either. The checksum of the header covers the whole header.
//!
//! A payload begins with a byte 8 and the time of its arrival, in ms since 1970-01-01, as i64. A
//! replay needs it to know which rows had arrived when an erasure was requested, whatever time
//! their senders stated. Payloads of earlier versions lack both, and their arrival is unknown.
//!
//! Then the payload of a frame of records is one Arrow IPC record batch message, which begins with
//! a byte 0xff. The schema message that it needs is in the header, once per segment. Other payloads
//! begin with a byte for their kind ([`Kind`]). Parts of records are then encoded as records are,
//! and feedback includes its schema message.
//!
//! `durable` is the last sequence that was fsynced before the group of this frame was written. It
//! distinguishes a torn write from damage: a bad frame whose sequence a later good frame calls
//! durable was acknowledged, so its loss must stop the open. If no later frame does, the bad frame
//! and everything after it belong to the last group, and are cut. The bytes of that group do not
//! show if it was acknowledged; the note beside the log does ([`super::last`]).
//!
//! Segments of version 1, magic "GLWAL001", are read and no longer written. They have no marker in
//! the header, every frame begins with "GLFR", and the checksum does not include the offset.

use std::io::Read;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::parts::RecordPart;

const SEGMENT_MAGIC: &[u8; 8] = b"GLWAL002";
const SEGMENT_MAGIC_V1: &[u8; 8] = b"GLWAL001";
const FRAME_MAGIC_V1: &[u8; 4] = b"GLFR";
/// Bytes of a segment's header before the marker, which version 1 lacks, and the schema.
const HEADER_PREFIX: usize = 8 + 16 + 8 + 4;
/// Bytes of a frame after its marker and before its payload.
const FRAME_FIELDS: usize = 4 + 8 + 8 + 4;
/// First byte of a payload with the time of its arrival.
const ARRIVAL_TAG: u8 = 8;
/// Bytes of the tag and the time.
const ARRIVAL_BYTES: usize = 1 + 8;
/// Size from which a payload is compressed.
const COMPRESS_FROM_BYTES: usize = 32 << 10;

/// Kind of the rows of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records.
    Logs,
    /// Feedback.
    Feedback,
    /// Parts of records, which wait for the other parts.
    RecordPart(RecordPart),
    /// Parts that arrived when their records were already stored.
    Late(RecordPart),
}

impl Kind {
    /// Returns the first byte of such a payload; records have none of their own.
    fn tag(self) -> Option<u8> {
        match self {
            Self::Logs => None,
            Self::Feedback => Some(1),
            Self::RecordPart(RecordPart::Figures) => Some(2),
            Self::RecordPart(RecordPart::Content) => Some(3),
            Self::RecordPart(RecordPart::Fragment) => Some(4),
            Self::Late(RecordPart::Figures) => Some(5),
            Self::Late(RecordPart::Content) => Some(6),
            Self::Late(RecordPart::Fragment) => Some(7),
        }
    }

    /// Returns the kind of a payload, and the position of its IPC messages.
    fn split(payload: &[u8]) -> Option<(Self, usize)> {
        let record_parts = RecordPart::ALL
            .into_iter()
            .flat_map(|part_kind| [Self::RecordPart(part_kind), Self::Late(part_kind)]);
        let mut kinds = record_parts.chain([Self::Feedback]);
        match payload.first()? {
            // The first byte of every IPC message.
            0xff => Some((Self::Logs, 0)),
            tag => kinds.find(|kind| kind.tag() == Some(*tag)).map(|kind| (kind, 1)),
        }
    }
}

/// Draws random bytes, of which a new segment takes 16 for its marker.
pub type Random = fn() -> [u8; 32];

/// Bytes at the start of every frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// The random bytes of this segment.
    Own([u8; 16]),
    /// The bytes that all segments of version 1 have.
    V1,
}

impl Marker {
    /// Draws the marker of a new segment.
    pub(super) fn random(random: Random) -> Self {
        let mut marker = [0; 16];
        marker.copy_from_slice(&random()[..16]);
        Self::Own(marker)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::V1 => FRAME_MAGIC_V1,
        }
    }

    /// Returns the bytes of a frame before its payload.
    fn prefix(&self) -> usize {
        self.bytes().len() + FRAME_FIELDS
    }

    /// Returns the checksum of a frame whose bytes before the checksum are `head`.
    fn checksum(&self, at: usize, head: &[u8], payload: [&[u8]; 2]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(head);
        if let Self::Own(_) = self {
            hasher.update(&(at as u64).to_le_bytes());
        }
        payload.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    }
}

/// Content of the header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Identity of the log: the application id of its transactions in the Delta table.
    pub(super) wal_id: Uuid,
    /// Sequence of the first frame.
    pub(super) first_sequence: u64,
    /// The marker at the start of the frames of this segment.
    pub(super) marker: Marker,
    /// The Arrow IPC schema message that every payload of this segment begins with.
    pub(super) schema: Vec<u8>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_PREFIX + 16 + self.schema.len() + 4);
        bytes.extend_from_slice(match self.marker {
            Marker::Own(_) => SEGMENT_MAGIC,
            Marker::V1 => SEGMENT_MAGIC_V1,
        });
        bytes.extend_from_slice(self.wal_id.as_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&(self.schema.len() as u32).to_le_bytes());
        if let Marker::Own(marker) = &self.marker {
            bytes.extend_from_slice(marker);
        }
        bytes.extend_from_slice(&self.schema);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Decodes the header at the start of a segment. Returns it with its length, or the reason why
    /// it is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, usize), &'static str> {
        if bytes.len() < HEADER_PREFIX {
            return Err("the header is cut short");
        }
        let schema_at = match &bytes[..8] {
            magic if magic == SEGMENT_MAGIC => HEADER_PREFIX + 16,
            magic if magic == SEGMENT_MAGIC_V1 => HEADER_PREFIX,
            _ => return Err("the file does not begin as a gatelog segment of version 1 or 2"),
        };
        let end = schema_at.saturating_add(u32_at(bytes, 32) as usize);
        if bytes.len() < end.saturating_add(4) {
            return Err("the header is cut short");
        }
        if crc32fast::hash(&bytes[..end]) != u32_at(bytes, end) {
            return Err("the header's checksum does not match");
        }
        let marker = match bytes[HEADER_PREFIX..schema_at].try_into() {
            Ok(marker) => Marker::Own(marker),
            Err(_) => Marker::V1,
        };
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[8..24]);
        let header = Self {
            wal_id: Uuid::from_bytes(id),
            first_sequence: u64_at(bytes, 24),
            marker,
            schema: bytes[schema_at..end].to_vec(),
        };
        Ok((header, end + 4))
    }
}

/// Returns true if a file with an unreadable header is left from a crash during the creation of a
/// segment. A segment of version 2 gets its name when its header is durable, so only one of version
/// 1 can be such a file: it has no frame that was synced.
pub(super) fn is_stillborn(bytes: &[u8]) -> bool {
    let renamed = |magic: &[u8; 8]| [&magic[..], bytes.get(8..).unwrap_or_default()].concat();
    let is_harmed = bytes.starts_with(SEGMENT_MAGIC)
        // Only its magic is damaged.
        || Header::decode(&renamed(SEGMENT_MAGIC)).is_ok()
        || Header::decode(&renamed(SEGMENT_MAGIC_V1)).is_ok();
    !is_harmed && !confirms_durable(Marker::V1, bytes, 0, 0)
}

/// A batch encoded for the log, without a sequence. The caller's thread creates it, so that the
/// single writer only copies.
#[derive(Clone)]
pub struct Payload {
    /// A reserved byte, then an IPC stream: the schema message, then the batch.
    stream: Vec<u8>,
    /// Start of the payload.
    start: usize,
    /// Time of the arrival, ms since 1970-01-01, if it was not just now.
    arrived_ms: Option<i64>,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes().len())
    }
}

impl Payload {
    /// Encodes a batch of records; large ones are compressed.
    pub fn encode(batch: &RecordBatch) -> Result<Self> {
        Self::encode_as(Kind::Logs, batch)
    }

    /// Encodes a batch of that kind.
    pub fn encode_as(kind: Kind, batch: &RecordBatch) -> Result<Self> {
        let size = batch.get_array_memory_size();
        let compression = (size >= COMPRESS_FROM_BYTES).then_some(CompressionType::LZ4_FRAME);
        let failed =
            |cause| Error::internal("cannot encode a batch for the log").with_source(cause);
        let options =
            IpcWriteOptions::default().try_with_compression(compression).map_err(failed)?;
        let mut buffer = Vec::with_capacity(size / 2 + 8192);
        buffer.push(0);
        let mut writer =
            StreamWriter::try_new_with_options(buffer, &batch.schema(), options).map_err(failed)?;
        let start = writer.get_ref().len();
        writer.write(batch).map_err(failed)?;
        let mut stream = std::mem::take(writer.get_mut());
        let start = match (kind, kind.tag()) {
            (Kind::Feedback, _) => 0,
            // The byte before the batch is the last one of the schema message, which is left out.
            (_, Some(_)) => start - 1,
            (_, None) => start,
        };
        if let Some(tag) = kind.tag() {
            stream[start] = tag;
        }
        Ok(Self { stream, start, arrived_ms: None })
    }

    /// Sets the time of the arrival, ms since 1970-01-01. `None` means the time of the append.
    pub fn arrived(self, arrived_ms: Option<i64>) -> Self {
        Self { arrived_ms, ..self }
    }

    /// Returns the time of the arrival of a payload that is appended at `now_ms`.
    pub(super) fn arrived_ms(&self, now_ms: i64) -> i64 {
        self.arrived_ms.unwrap_or(now_ms)
    }

    /// Returns the kind of the payload.
    #[cfg(test)]
    pub fn kind(&self) -> Option<Kind> {
        kind(self.bytes())
    }

    /// Returns the payload of a frame.
    pub fn bytes(&self) -> &[u8] {
        &self.stream[self.start..]
    }
}

/// Encodes the schema message for payloads of this schema.
pub(super) fn schema_message(schema: &Schema) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(|cause| {
        Error::internal("cannot encode the schema for the log").with_source(cause)
    })?;
    Ok(std::mem::take(writer.get_mut()))
}

/// Appends one frame to `out`, which is written to the segment at `start`.
pub(super) fn write(
    out: &mut Vec<u8>,
    start: usize,
    marker: &Marker,
    (sequence, durable): (u64, u64),
    arrived_ms: i64,
    payload: &[u8],
) {
    let from = out.len();
    let mut arrival = [ARRIVAL_TAG; ARRIVAL_BYTES];
    arrival[1..].copy_from_slice(&arrived_ms.to_le_bytes());
    out.extend_from_slice(marker.bytes());
    out.extend_from_slice(&((ARRIVAL_BYTES + payload.len()) as u32).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&durable.to_le_bytes());
    let checksum = marker.checksum(start + from, &out[from..], [&arrival, payload]);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&arrival);
    out.extend_from_slice(payload);
}

/// A complete, undamaged frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    pub(super) durable: u64,
    /// Time of the arrival, ms since 1970-01-01; `None` if an earlier version wrote the frame.
    pub(super) arrived_ms: Option<i64>,
    pub(super) payload: &'a [u8],
    /// Bytes that the frame takes in its segment.
    pub(super) len: usize,
}

/// Reads the frame at an offset of a segment, or returns the reason why there is none.
pub(super) fn read<'a>(
    marker: &Marker,
    segment: &'a [u8],
    at: usize,
) -> Result<Frame<'a>, &'static str> {
    let bytes = &segment[at..];
    let prefix = marker.prefix();
    if bytes.len() < prefix {
        return Err("a frame is cut short");
    }
    if !bytes.starts_with(marker.bytes()) {
        return Err("no frame begins here");
    }
    let fields = prefix - FRAME_FIELDS;
    let end = prefix + u32_at(bytes, fields) as usize;
    if bytes.len() < end {
        return Err("a frame is cut short");
    }
    let payload = &bytes[prefix..end];
    if marker.checksum(at, &bytes[..prefix - 4], [payload, &[]]) != u32_at(bytes, prefix - 4) {
        return Err("a frame's checksum does not match");
    }
    let sequence = u64_at(bytes, fields + 4);
    let durable = u64_at(bytes, fields + 12);
    let (arrived_ms, payload) = split_arrival(payload);
    Ok(Frame { sequence, durable, arrived_ms, payload, len: end })
}

/// Splits the time of the arrival from a payload.
fn split_arrival(payload: &[u8]) -> (Option<i64>, &[u8]) {
    match payload.split_first_chunk::<ARRIVAL_BYTES>() {
        Some(([ARRIVAL_TAG, millis @ ..], rest)) => (Some(i64::from_le_bytes(*millis)), rest),
        _ => (None, payload),
    }
}

/// Returns true if a complete frame of a segment, at or after an offset, says that `sequence` was
/// durable before it was written.
pub(super) fn confirms_durable(marker: Marker, segment: &[u8], from: usize, sequence: u64) -> bool {
    let max_sequence =
        sequence.saturating_add((segment.len().saturating_sub(from) / marker.prefix()) as u64);
    let confirms = |frame: Frame<'_>| {
        let is_after = frame.durable >= sequence && frame.sequence > sequence;
        // With version 1, bytes of a client may read as a frame, so its numbers must be plausible.
        is_after
            && (marker != Marker::V1
                || (frame.durable < frame.sequence && frame.sequence <= max_sequence))
    };
    let found = memchr::memmem::find_iter(&segment[from..], marker.bytes());
    found.map(|found| from + found).any(|at| read(&marker, segment, at).is_ok_and(confirms))
}

/// Returns the kind of a payload, or `None` if this version does not know it.
pub(super) fn kind(payload: &[u8]) -> Option<Kind> {
    Kind::split(payload).map(|(kind, _)| kind)
}

/// Decodes the batch of a payload.
pub(super) fn decode(
    schema: &[u8],
    payload: &[u8],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let (kind, start) = Kind::split(payload).unwrap_or((Kind::Logs, 0));
    let schema = if kind == Kind::Feedback { &[] } else { schema };
    let mut reader = StreamReader::try_new(schema.chain(&payload[start..]), None)?;
    match reader.next() {
        Some(batch) => batch,
        None => Err(arrow::error::ArrowError::IpcError("the payload holds no batch".into())),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
