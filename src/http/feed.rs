//! A body to chunks of whole records, on a thread of its own, in bounded memory.
//!
//! Reading, unpacking and splitting are one pass that blocks on the body, and on the room for each chunk. So a client that
//! sends faster than records are kept is slowed down, and a body of any size, or one that unpacks to any size, costs the same.

use std::io::{self, BufRead, Read};

use axum::body::BodyDataStream;
use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::body::{Budget, Room, discard, next_frame, unpack, unpackable};
use super::error::Failure;
use crate::ingest::{Chunk, Splitter, line_breaks};

/// Most records of one chunk: parsed, a record takes over a kilobyte even if its text is `{}`.
const CHUNK_RECORDS: usize = 4096;
/// What a parsed record takes beside its text.
const RECORD_BYTES: usize = 1500;

/// A chunk with the room for it and the records in it.
pub(crate) type Portion = (Chunk, Room);

/// What decides how a body is cut.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// The memory that all bodies share.
    pub(crate) budget: Budget,
    /// The largest record.
    pub(crate) record_bytes: usize,
    /// The text of a chunk, unless one record is larger.
    pub(crate) chunk_bytes: usize,
}

/// Sends the chunks of a body until it ends or nobody takes them. Blocks: belongs on a thread of its own, within a runtime.
pub(crate) fn feed(frames: BodyDataStream, cut: &Cut, portions: &mpsc::Sender<Portion>) -> Result<(), Failure> {
    let mut body = BodyReader { frames, runtime: Handle::current(), piece: Bytes::new(), failure: None };
    let fed = match unpack(&mut body) {
        Ok(plain) => feed_plain(plain, cut, portions),
        Err(cause) => Err(unpackable(&cause)),
    };
    if let Some(failure) = body.failure.take() {
        return Err(failure);
    }
    if fed.is_err() || portions.is_closed() {
        let runtime = body.runtime.clone();
        runtime.block_on(discard(&mut body.frames));
    }
    fed
}

/// The same for bytes that are there already and not packed.
pub(crate) fn feed_plain(mut plain: impl Read, cut: &Cut, portions: &mpsc::Sender<Portion>) -> Result<(), Failure> {
    let mut splitter = Splitter::with_limit(cut.record_bytes);
    let mut piece = Vec::with_capacity(cut.chunk_bytes);
    // A record that is larger than a piece grows in the splitter, which must have room for it too.
    let mut growing = cut.budget.room();
    let mut grown = 0;
    loop {
        piece.clear();
        plain.by_ref().take(cut.chunk_bytes as u64).read_to_end(&mut piece).map_err(|cause| unpackable(&cause))?;
        let last = piece.len() < cut.chunk_bytes;
        grown = cut.record_bytes.min(grown + piece.len());
        if grown > cut.chunk_bytes {
            growing.grow(grown as u64)?;
        }
        let chunk = splitter.push(&piece);
        if !chunk.records.is_empty() {
            (growing, grown) = (cut.budget.room(), 0);
        }
        let rest = if last { splitter.finish() } else { Chunk::default() };
        for chunk in [chunk, rest].into_iter().flat_map(few_records) {
            let room = Handle::current().block_on(cut.budget.wait(memory(&chunk)));
            if portions.blocking_send((chunk, room)).is_err() {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
    }
}

/// The chunk itself, or several of fewer records. An empty one is none.
fn few_records(mut chunk: Chunk) -> Vec<Chunk> {
    if chunk.records.len() <= CHUNK_RECORDS {
        let empty = chunk.records.is_empty() && chunk.rejections.is_empty();
        return if empty { Vec::new() } else { vec![chunk] };
    }
    let mut rejections = std::mem::take(&mut chunk.rejections);
    let (mut line, mut counted) = (chunk.line, 0);
    let part = |records: &[(u64, std::ops::Range<usize>)]| {
        let start = records.first().map_or(0, |(_, range)| range.start);
        let end = records.last().map_or(0, |(_, range)| range.end);
        let shifted = records.iter().map(|(number, range)| (*number, range.start - start..range.end - start));
        let rejections = std::mem::take(&mut rejections);
        line += line_breaks(&chunk.text[counted..start]);
        counted = start;
        Chunk { text: chunk.text[start..end].to_vec(), line, records: shifted.collect(), rejections }
    };
    chunk.records.chunks(CHUNK_RECORDS).map(part).collect()
}

/// The text twice, for it is there unparsed and parsed, and what the records take beside it.
fn memory(chunk: &Chunk) -> u64 {
    (2 * chunk.text.len() + chunk.records.len() * RECORD_BYTES) as u64
}

/// A body as a blocking reader.
struct BodyReader {
    frames: BodyDataStream,
    runtime: Handle,
    piece: Bytes,
    /// Why the body did not come to its end; what a reader gets is only that it did not.
    failure: Option<Failure>,
}

impl BufRead for BodyReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.runtime.block_on(next_frame(&mut self.frames)) {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => break,
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the body broke off"));
                }
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, bytes: usize) {
        self.piece.advance(bytes);
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn chunks(body: Vec<u8>, chunk_bytes: usize) -> (Vec<Chunk>, Result<(), Failure>) {
        let cut = Cut { budget: Budget::new(1 << 20), record_bytes: 1 << 10, chunk_bytes };
        let (sender, mut receiver) = mpsc::channel(1);
        let frames = body.chunks(3).map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
        let frames = Body::from_stream(futures::stream::iter(frames)).into_data_stream();
        let thread = tokio::task::spawn_blocking(move || feed(frames, &cut, &sender));
        let mut chunks = Vec::new();
        while let Some((chunk, _room)) = receiver.recv().await {
            chunks.push(chunk);
        }
        (chunks, thread.await.unwrap())
    }

    fn texts(chunks: &[Chunk]) -> Vec<String> {
        let records = chunks.iter().flat_map(|chunk| chunk.records.iter().map(|(_, range)| &chunk.text[range.clone()]));
        records.map(|text| String::from_utf8(text.to_vec()).unwrap().trim().to_owned()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_come_whole_whatever_the_pieces() {
        let body = b"{\"a\":1}\n{\"b\":22}\n{\"c\":333}".to_vec();
        for chunk_bytes in [1, 2, 7, 8, 9, 100] {
            let packed = zstd::encode_all(&body[..], 1).unwrap();
            for body in [body.clone(), packed] {
                let (chunks, fed) = chunks(body, chunk_bytes).await;
                fed.unwrap();
                assert_eq!(texts(&chunks), ["{\"a\":1}", "{\"b\":22}", "{\"c\":333}"]);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tiny_records_do_not_make_big_chunks() {
        let (chunks, fed) = chunks(b"{}\n".repeat(10_000), 1 << 20).await;
        fed.unwrap();
        assert!(chunks.iter().all(|chunk| chunk.records.len() <= CHUNK_RECORDS));
        assert_eq!(texts(&chunks).len(), 10_000);
        assert_eq!(chunks.last().unwrap().records.last().unwrap().0, 9_999);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_that_grows_needs_room() {
        let cut = Cut { budget: Budget::new(1 << 20), record_bytes: 1 << 20, chunk_bytes: 1 << 10 };
        let (sender, _receiver) = mpsc::channel(1);
        let mut taken = cut.budget.room();
        taken.grow(1 << 20).unwrap();
        let fed = tokio::task::spawn_blocking(move || feed_plain(&vec![b'x'; 1 << 19][..], &cut, &sender));
        assert!(format!("{:?}", fed.await.unwrap().unwrap_err()).contains("429"));
    }
}
