//! Tests of the log with cuts, flipped bits and failing disks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::store::disk::LocalDisk;
use crate::store::disk::tests::Failing;

/// One column keeps the log so small that every byte of it can be damaged.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8View, true)]))
}

fn batch(id: &str) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(StringViewArray::from(vec![id]))]).unwrap()
}

/// Creates a folder in memory where that is possible: thousands of small logs need no disk.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(folder: &Path, disk: Arc<dyn Disk>, covered: u64) -> Result<(Wal, Vec<(u64, String)>)> {
    let seen = RefCell::new(Vec::new());
    let mut take = |entry: Entry, batch: RecordBatch| {
        let id = batch.column_by_name("id").unwrap().as_string_view().value(0).to_owned();
        seen.borrow_mut().push((entry.sequence, id));
        Ok(())
    };
    let wal = Wal::open(
        folder,
        &schema(),
        &Folders::new(disk),
        (Uuid::from_u128(7), marker),
        &|_| Ok((FlushedSeq::all(covered), Noted::default())),
        &mut take,
    )?;
    Ok((wal, seen.into_inner()))
}

/// The marker of every segment here.
fn marker() -> [u8; 32] {
    [0xf5; 32]
}

fn append(wal: &mut Wal, ids: &[&str]) -> Result<u64> {
    let payloads: Vec<Payload> =
        ids.iter().map(|id| Payload::encode(&batch(id)).unwrap()).collect();
    wal.append(&payloads.iter().collect::<Vec<_>>(), 1_000)
}

/// Writes a small log of two segments: groups of one, two and one frames in the first, two groups
/// in the second.
fn sample(folder: &Path) {
    let (mut wal, _) = open(folder, disk(), 0).unwrap();
    append(&mut wal, &["1"]).unwrap();
    append(&mut wal, &["2", "3"]).unwrap();
    append(&mut wal, &["4"]).unwrap();
    wal.rotate();
    append(&mut wal, &["5"]).unwrap();
    append(&mut wal, &["6", "7"]).unwrap();
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

fn expected(count: usize) -> Vec<(u64, String)> {
    (1..=count).map(|number| (number as u64, number.to_string())).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn appended_frames_are_read_in_order_and_sequences_continue() {
    let folder = scratch();
    sample(folder.path());
    let (mut wal, seen) = open(folder.path(), disk(), 0).unwrap();
    assert_eq!(seen, expected(7));
    assert_eq!(append(&mut wal, &["8"]).unwrap(), 8);
    drop(wal);
    let (_, seen) = open(folder.path(), disk(), 6).unwrap();
    assert_eq!(seen, [(7, "7".to_owned()), (8, "8".to_owned())]);
}

#[test]
fn trimming_deletes_only_segments_that_are_fully_covered() {
    let folder = scratch();
    sample(folder.path());
    let (mut wal, _) = open(folder.path(), disk(), 0).unwrap();
    wal.trim(3).unwrap();
    assert_eq!(wal.size().1, 2);
    wal.trim(4).unwrap();
    assert_eq!(wal.size().1, 1);
    drop(wal);
    let error = open(folder.path(), disk(), 3).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Damaged,
        "sequence 4 is in no segment and not in the table: {error}"
    );
    let (mut wal, seen) = open(folder.path(), disk(), 4).unwrap();
    assert_eq!(seen.len(), 3);
    wal.trim(7).unwrap();
    drop(wal);
    let (wal, _) = open(folder.path(), disk(), 7).unwrap();
    assert_eq!(wal.last_sequence(), 7, "an empty log continues after the frames of the table");
}

#[test]
fn cut_at_every_byte_gives_a_prefix_of_whole_frames() {
    let original = scratch();
    sample(original.path());
    let last = replay::segment_paths(&LocalDisk, original.path()).unwrap().pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let (_, header) = frame::Header::decode(&bytes).unwrap();
    for length in 0..bytes.len() {
        let folder = scratch();
        copy(original.path(), folder.path());
        fs::write(folder.path().join(last.file_name().unwrap()), &bytes[..length]).unwrap();
        if (8..header).contains(&length) {
            // A segment gets its name when its header is durable.
            assert_eq!(open(folder.path(), disk(), 0).unwrap_err().kind(), ErrorKind::Damaged);
            continue;
        }
        let (mut wal, seen) = open(folder.path(), disk(), 0).unwrap();
        assert!((4..=7).contains(&seen.len()), "{} frames after a cut at {length}", seen.len());
        assert_eq!(seen, expected(seen.len()));
        append(&mut wal, &["new"]).unwrap();
        drop(wal);
        let (_, again) = open(folder.path(), disk(), 0).unwrap();
        assert_eq!(again.len(), seen.len() + 1, "a write after a cut at {length} is read");
    }
}

#[test]
fn flipped_at_every_byte_gives_a_prefix_or_names_file_and_offset() {
    let original = scratch();
    sample(original.path());
    for path in replay::segment_paths(&LocalDisk, original.path()).unwrap() {
        let bytes = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_last = name.contains("5.wal");
        for place in 0..bytes.len() {
            let folder = scratch();
            copy(original.path(), folder.path());
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            fs::write(folder.path().join(name), &flipped).unwrap();
            match open(folder.path(), disk(), 0) {
                // Only the last group of the last segment may count as a write that was never
                // acked.
                Ok((_, seen)) => {
                    assert!(
                        is_last && seen.len() >= 5,
                        "flip at {place} of {name} lost acked frames: {seen:?}"
                    );
                    assert_eq!(seen, expected(seen.len()));
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged);
                    assert!(
                        error.message().contains(name) && error.message().contains("offset"),
                        "{error}"
                    );
                }
            }
        }
    }
}

/// A frame of version 1 with a far later durable sequence, as a client may send it in a text.
const FORGED: &[u8] = b"GLFR\0\0\0\0\x01\0\0\0\0\0\0\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f";

#[test]
fn bytes_of_a_client_never_read_as_a_frame_of_the_log() {
    let original = scratch();
    sample(original.path());
    let last = replay::segment_paths(&LocalDisk, original.path()).unwrap().pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let (header, start) = frame::Header::decode(&bytes).unwrap();
    let mut forged = FORGED.to_vec();
    forged.extend_from_slice(&crc32fast::hash(FORGED).to_le_bytes());
    let mut guessed = Vec::new();
    let mut moved = Vec::new();
    frame::write(&mut guessed, bytes.len() + 5, &frame::Marker::Own([7; 16]), (99, 98), 0, b"");
    frame::write(&mut moved, start, &header.marker, (99, 98), 0, b"");
    // A frame of version 1, one with a guessed marker, and one of this segment at another place.
    for client in [forged, guessed, moved] {
        let folder = scratch();
        copy(original.path(), folder.path());
        // A write that was torn after the client's bytes.
        let torn = [&bytes[..], b"torn ", &client, b" torn"].concat();
        fs::write(folder.path().join(last.file_name().unwrap()), torn).unwrap();
        let (_, seen) = open(folder.path(), disk(), 0).unwrap();
        assert_eq!(seen, expected(7));
    }
}

#[test]
fn a_log_of_version_1_opens_and_continues_in_version_2() {
    let folder = scratch();
    let paths = ["00000000000000000001.wal", "00000000000000000005.wal"];
    let old: [&[u8]; 2] = [
        include_bytes!("../../tests/data/wal-1/00000000000000000001.wal"),
        include_bytes!("../../tests/data/wal-1/00000000000000000005.wal"),
    ];
    for (name, bytes) in paths.into_iter().zip(old) {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let (mut wal, seen) = open(folder.path(), disk(), 0).unwrap();
    assert_eq!(seen, expected(7));
    append(&mut wal, &["8"]).unwrap();
    drop(wal);
    let (_, seen) = open(folder.path(), disk(), 0).unwrap();
    assert_eq!(seen, expected(8));
    let newest = replay::segment_paths(&LocalDisk, folder.path()).unwrap().pop().unwrap();
    assert!(fs::read(newest).unwrap().starts_with(b"GLWAL002"));
}

#[test]
fn a_log_of_a_former_version_has_frames_of_each_kind_and_all_decode() {
    let folder = scratch();
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/folder-1/data.tar.gz");
    let status =
        Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
    assert!(status.success(), "tar cannot unpack `{archive}`");
    let log = folder.path().join("data/wal");
    let first = replay::segment_paths(&LocalDisk, &log).unwrap().remove(0);
    let (header, _) = frame::Header::decode(&fs::read(first).unwrap()).unwrap();
    let seen = RefCell::new(BTreeMap::<String, usize>::new());
    let mut take = |entry: Entry, batch: RecordBatch| {
        assert_eq!(entry.arrived_ms, None, "an earlier version did not note it");
        *seen.borrow_mut().entry(format!("{:?}", entry.kind)).or_default() += batch.num_rows();
        Ok(())
    };
    let covered = FlushedSeq::all(header.first_sequence - 1);
    Wal::open(
        &log,
        &schema(),
        &Folders::new(disk()),
        (Uuid::from_u128(7), marker),
        &|_| Ok((covered, Noted::default())),
        &mut take,
    )
    .unwrap();
    let seen: Vec<_> = seen.into_inner().into_iter().collect();
    let expected = [
        ("Feedback", 2),
        ("Late(Content)", 1),
        ("Late(Figures)", 1),
        ("Late(Fragment)", 1),
        ("Logs", 4),
        ("RecordPart(Content)", 1),
        ("RecordPart(Figures)", 1),
        ("RecordPart(Fragment)", 1),
    ];
    assert_eq!(seen, expected.map(|(kind, rows)| (kind.to_owned(), rows)));
}

#[test]
fn a_log_of_version_1_is_cut_after_a_torn_write_and_refused_when_it_is_damaged() {
    let bytes: &[u8] = include_bytes!("../../tests/data/wal-1/00000000000000000005.wal");
    let opened = |bytes: &[u8]| {
        let folder = scratch();
        fs::write(folder.path().join("00000000000000000005.wal"), bytes).unwrap();
        open(folder.path(), disk(), 4).map(|(_, seen)| seen.len())
    };
    for length in 0..bytes.len() {
        assert!(opened(&bytes[..length]).unwrap() < 3, "cut at {length}");
    }
    let (_, start) = frame::Header::decode(bytes).unwrap();
    for place in 0..start + frame::read(&frame::Marker::V1, bytes, start).unwrap().len {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 1 << (place % 8);
        assert_eq!(opened(&flipped).unwrap_err().kind(), ErrorKind::Damaged, "flip at {place}");
    }
}

#[test]
fn the_note_of_the_last_sequence_reveals_a_log_that_was_cut_or_emptied() {
    let original = scratch();
    sample(original.path());
    let paths = replay::segment_paths(&LocalDisk, original.path()).unwrap();
    let last = fs::read(&paths[1]).unwrap();
    let noted = |folder: &Path, covered, durable| {
        let mark = Mark { durable, segment: 5, before: durable, ..Mark::default() };
        let note = Noted { mark, ..Noted::default() };
        let held = |_| Ok((FlushedSeq::all(covered), note.clone()));
        let folders = Folders::new(disk());
        let id = (Uuid::from_u128(7), marker as Random);
        Wal::open(folder, &schema(), &folders, id, &held, &mut |_, _| Ok(())).map(|_| ())
    };
    let (header, start) = frame::Header::decode(&last).unwrap();
    let fifth = start + frame::read(&header.marker, &last, start).unwrap().len;
    for length in 0..=last.len() {
        let folder = scratch();
        copy(original.path(), folder.path());
        fs::write(folder.path().join(paths[1].file_name().unwrap()), &last[..length]).unwrap();
        // Frames 6 and 7 are the last group, whose write may have been interrupted; 5 was durable
        // before it.
        let opened = noted(folder.path(), 0, 5);
        assert_eq!(opened.is_ok(), length >= fifth, "cut at {length}: {opened:?}");
        if let Err(error) = opened {
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
    }
    let empty = scratch();
    let error = noted(empty.path(), 4, 4).unwrap_err();
    assert!(error.message().contains("no segment that begins at sequence 5"), "{error}");
    assert!(
        noted(empty.path(), 6, 7)
            .unwrap_err()
            .message()
            .contains("ends at sequence 6, but 7 was acked")
    );
    noted(empty.path(), 7, 7).unwrap();
}

/// Opens a log whose note lies beside its segments.
fn open_noted(folder: &Path) -> Result<(Wal, Vec<(u64, String)>)> {
    let seen = RefCell::new(Vec::new());
    let mut take = |entry: Entry, batch: RecordBatch| {
        let id = batch.column_by_name("id").unwrap().as_string_view().value(0).to_owned();
        seen.borrow_mut().push((entry.sequence, id));
        Ok(())
    };
    let noted = |id| Ok((FlushedSeq::default(), read_last(&LocalDisk, &folder.join(NOTE), id)?));
    let id = (Uuid::from_u128(7), marker as Random);
    let wal = Wal::open(folder, &schema(), &Folders::new(disk()), id, &noted, &mut take)?;
    Ok((wal, seen.into_inner()))
}

const NOTE: &str = "note";

/// Returns the acked frames that the log in a folder lacks, as `doctor` finds them.
fn missing(folder: &Path) -> Result<Option<Missing>> {
    let noted = read_last(&LocalDisk, &folder.join(NOTE), Uuid::from_u128(7))?;
    let found = replay(&LocalDisk, folder, FlushedSeq::default(), true, &mut |_, _| Ok(()))?;
    found.reaches(&noted, 0, folder)
}

/// A log whose last segment has two groups, of one and of two frames, with the note before the last
/// group, and the start of that group.
struct Noting {
    folder: TempDir,
    note_before: Vec<u8>,
    last: PathBuf,
    bytes: Vec<u8>,
    group: usize,
}

impl Noting {
    /// Creates the log. With `closed` it ended in order; otherwise as after `kill -9`, when the
    /// last group was just acked.
    fn new(closed: bool) -> Self {
        let folder = scratch();
        let (mut wal, _) = open_noted(folder.path()).unwrap();
        append(&mut wal, &["1"]).unwrap();
        wal.rotate();
        append(&mut wal, &["2"]).unwrap();
        let last = replay::segment_paths(&LocalDisk, folder.path()).unwrap().pop().unwrap();
        let group = fs::metadata(&last).unwrap().len() as usize;
        let note_before = fs::read(folder.path().join(NOTE)).unwrap();
        append(&mut wal, &["3", "4"]).unwrap();
        if closed {
            wal.close();
        }
        let bytes = fs::read(&last).unwrap();
        Self { folder, note_before, last, bytes, group }
    }

    /// Returns a copy with other bytes in the last segment.
    fn with(&self, bytes: &[u8]) -> TempDir {
        let folder = scratch();
        copy(self.folder.path(), folder.path());
        fs::write(folder.path().join(self.last.file_name().unwrap()), bytes).unwrap();
        folder
    }

    /// Returns a copy with the note as it was while the last group was written.
    fn torn(&self, bytes: &[u8]) -> TempDir {
        let folder = self.with(bytes);
        fs::write(folder.path().join(NOTE), &self.note_before).unwrap();
        folder
    }
}

#[test]
fn a_flipped_byte_of_acked_frames_stops_the_open_and_is_found_by_readers() {
    for closed in [false, true] {
        let log = Noting::new(closed);
        let name = log.last.file_name().unwrap().to_str().unwrap();
        for place in 0..log.bytes.len() {
            for bit in [place % 8, (place + 3) % 8] {
                let mut flipped = log.bytes.clone();
                flipped[place] ^= 1 << bit;
                let folder = log.with(&flipped);
                let found =
                    [missing(folder.path()).map(|_| ()), open_noted(folder.path()).map(|_| ())];
                for error in found.map(|found| found.unwrap_err()) {
                    assert_eq!(error.kind(), ErrorKind::Damaged);
                    let says = error.message().contains(name) && error.message().contains("offset");
                    assert!(says, "flip at {place}, closed: {closed}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_torn_write_is_cut_and_acked_frames_are_kept() {
    let log = Noting::new(false);
    let opened = |folder: &Path, what: &str| {
        assert_eq!(missing(folder).unwrap(), None, "{what}");
        let (mut wal, seen) = open_noted(folder).unwrap();
        assert!(seen.len() >= 2 && seen == expected(seen.len()), "{what}: {seen:?}");
        append(&mut wal, &["new"]).unwrap();
        drop(wal);
        assert_eq!(open_noted(folder).unwrap().1.len(), seen.len() + 1, "{what}");
    };
    for length in log.group..=log.bytes.len() {
        let cut = &log.bytes[..length];
        opened(log.torn(cut).path(), &format!("cut at {length}"));
        // Unwritten sectors have their old content, or zeros; others have a client's bytes.
        let zeros = [cut, &vec![0; log.bytes.len() - length]].concat();
        opened(log.torn(&zeros).path(), &format!("zero from {length}"));
        let hostile = [cut, FORGED, cut, FORGED].concat();
        opened(log.torn(&hostile).path(), &format!("hostile from {length}"));
    }
    for place in log.group..log.bytes.len() {
        let mut other = log.bytes.clone();
        other[place] ^= 0xff;
        opened(log.torn(&other).path(), &format!("other byte at {place}"));
    }
}

#[test]
fn a_log_that_was_cut_within_its_acked_last_group_opens_with_an_error_unless_it_was_closed() {
    for closed in [false, true] {
        let log = Noting::new(closed);
        for length in 0..log.bytes.len() {
            let folder = log.with(&log.bytes[..length]);
            let found = missing(folder.path());
            let opened = open_noted(folder.path());
            if closed || length < log.group {
                assert_eq!(found.unwrap_err().kind(), ErrorKind::Damaged, "cut at {length}");
                assert_eq!(opened.unwrap_err().kind(), ErrorKind::Damaged, "cut at {length}");
                continue;
            }
            let (_, seen) = opened.unwrap();
            let from = seen.len() as u64 + 1;
            assert_eq!(found.unwrap(), Some(Missing { from, to: 4 }), "cut at {length}");
            assert_eq!(missing(folder.path()).unwrap(), None, "it is reported once");
        }
    }
}

#[test]
fn an_older_note_after_a_power_cut_does_not_prevent_an_open() {
    let folder = scratch();
    let mut notes = vec![Vec::new()];
    let note = |folder: &Path| fs::read(folder.join(NOTE)).unwrap();
    let (mut wal, _) = open_noted(folder.path()).unwrap();
    for (number, id) in ["1", "2", "3", "4"].into_iter().enumerate() {
        notes.push(note(folder.path()));
        append(&mut wal, &[id]).unwrap();
        if number % 2 == 1 {
            notes.push(note(folder.path()));
            wal.rotate();
        }
    }
    notes.push(note(folder.path()));
    for note in notes {
        let other = scratch();
        copy(folder.path(), other.path());
        fs::write(other.path().join(NOTE), note).unwrap();
        assert_eq!(open_noted(other.path()).unwrap().1, expected(4));
    }
}

#[test]
fn frames_that_an_open_found_are_noted_as_durable() {
    let folder = scratch();
    sample(folder.path());
    drop(open_noted(folder.path()).unwrap());
    let last = replay::segment_paths(&LocalDisk, folder.path()).unwrap().pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 3] ^= 4;
    for harmed in [&flipped[..], &bytes[..bytes.len() - 3]] {
        fs::write(&last, harmed).unwrap();
        assert_eq!(open_noted(folder.path()).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn a_missing_segment_is_noticed() {
    let folder = scratch();
    sample(folder.path());
    let first = replay::segment_paths(&LocalDisk, folder.path()).unwrap().remove(0);
    fs::remove_file(first).unwrap();
    assert_eq!(open(folder.path(), disk(), 0).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_until_a_reopen() {
    let folder = scratch();
    // The first group.
    let failing = Arc::new(Failing::default());
    failing.fail_sync_after(".wal", 1);
    let (mut wal, _) = open(folder.path(), failing, 0).unwrap();
    append(&mut wal, &["1"]).unwrap();
    let error = append(&mut wal, &["2"]).unwrap_err();
    assert!(error.chain().contains("the disk says no"), "{}", error.chain());
    let error = append(&mut wal, &["3"]).unwrap_err();
    assert!(error.message().contains("refused until a restart"), "{error}");
    drop(wal);
    let (_, seen) = open(folder.path(), disk(), 0).unwrap();
    assert_eq!(seen[0], (1, "1".to_owned()));
    assert!(seen.len() <= 2, "the unacked frame is there at most once");
}

#[test]
fn each_kind_of_rows_is_read_as_that_kind_and_after_the_frames_of_its_own_table() {
    use crate::parts::RecordPart;

    let folder = scratch();
    let (mut wal, _) = open(folder.path(), disk(), 0).unwrap();
    let other = Arc::new(Schema::new(vec![Field::new("value", DataType::Float64, true)]));
    let value =
        RecordBatch::try_new(other, vec![Arc::new(arrow::array::Float64Array::from(vec![2.5]))])
            .unwrap();
    let kinds = [
        Kind::Logs,
        Kind::Feedback,
        Kind::RecordPart(RecordPart::Figures),
        Kind::RecordPart(RecordPart::Content),
        Kind::Feedback,
    ];
    for (place, kind) in kinds.into_iter().enumerate() {
        let rows = if kind == Kind::Feedback { value.clone() } else { batch(&place.to_string()) };
        let payload = Payload::encode_as(kind, &rows).unwrap();
        // One payload had arrived before, in another log.
        let payload = payload.arrived((kind == Kind::Feedback).then_some(-5));
        wal.append(&[&payload], 7_000).unwrap();
    }
    drop(wal);
    let mut seen = Vec::new();
    let covered = FlushedSeq { logs: 1, feedback: 2 };
    let mut take = |entry: Entry, batch: RecordBatch| {
        let Entry { sequence, kind, arrived_ms } = entry;
        let whole = match kind {
            Kind::Feedback => batch == value,
            _ => {
                batch.column_by_name("id").unwrap().as_string_view().value(0)
                    == (sequence - 1).to_string()
            }
        };
        seen.push((sequence, kind, arrived_ms, whole));
        Ok(())
    };
    replay(&LocalDisk, folder.path(), covered, false, &mut take).unwrap();
    let expected = [
        (3, Kind::RecordPart(RecordPart::Figures), Some(7_000), true),
        (4, Kind::RecordPart(RecordPart::Content), Some(7_000), true),
        (5, Kind::Feedback, Some(-5), true),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_write_without_room_on_the_disk_is_cut_off_and_the_next_one_succeeds() {
    let bytes = {
        let folder = scratch();
        let (mut wal, _) = open(folder.path(), disk(), 0).unwrap();
        append(&mut wal, &["2", "3"]).unwrap();
        wal.size().0 as usize
    };
    for is_begun in [false, true] {
        let mut refused = 0;
        for room in 0..=bytes {
            let folder = scratch();
            let full = Arc::new(Failing::default());
            let (mut wal, _) = open(folder.path(), Arc::clone(&full) as Arc<dyn Disk>, 0).unwrap();
            if is_begun {
                append(&mut wal, &["1"]).unwrap();
            }
            full.leave_room(Some(room));
            let taken = append(&mut wal, &["2", "3"]).inspect_err(|error| {
                assert!(error.message().contains("the disk is full"), "{error}");
            });
            refused += usize::from(taken.is_err());
            assert!(!wal.has_failed());
            wal.rotate();
            full.leave_room(None);
            append(&mut wal, &["4"]).unwrap();
            drop(wal);
            let (_, seen) = open(folder.path(), disk(), 0).unwrap();
            let ids: Vec<&str> = seen.iter().map(|(_, id)| id.as_str()).collect();
            let all = [("1", is_begun), ("2", taken.is_ok()), ("3", taken.is_ok()), ("4", true)];
            let expected: Vec<&str> =
                all.iter().filter(|(_, is_there)| *is_there).map(|(id, _)| *id).collect();
            assert_eq!(ids, expected, "room for {room} bytes");
        }
        assert!(refused > 100, "{refused} refused");
    }
}

#[test]
fn an_open_rewrites_the_last_segment_and_cleans_up_after_an_interrupted_one() {
    let folder = scratch();
    sample(folder.path());
    let last = replay::segment_paths(&LocalDisk, folder.path()).unwrap().pop().unwrap();
    let before = fs::read(&last).unwrap();
    fs::write(&last, [&before[..], b"torn"].concat()).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&last).unwrap());
    for name in ["00000000000000000005.new", "00000000000000000001.new"] {
        fs::write(folder.path().join(name), b"half").unwrap();
    }
    let (_, seen) = open(folder.path(), disk(), 0).unwrap();
    assert_eq!(seen, expected(7));
    assert_eq!(fs::read(&last).unwrap(), before);
    assert_ne!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&last).unwrap()), inode);
    assert!(
        fs::read_dir(folder.path())
            .unwrap()
            .all(|entry| entry.unwrap().path().extension() != Some("new".as_ref()))
    );
}
