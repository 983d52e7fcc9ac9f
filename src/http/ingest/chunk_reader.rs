//! Splits a body into chunks of whole records, on a thread of its own, in bounded memory.
//!
//! Reading, unpacking and splitting are one pass that blocks on the body, and for a limited time on
//! the memory for each chunk. So a client that sends faster than records are stored is slowed down,
//! and memory does not depend on the size of the body, packed or unpacked.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::heavy_work::Place;
use crate::http::body::{check_packing, discard, grow_within, next_frame, unpack, unpackable};
use crate::http::error::Failure;
use crate::ingest::pipeline::{MAX_CHUNK_RECORDS, few_records};
use crate::ingest::{Chunk, RECORD_BYTES, Splitter};
use crate::limits::{Holder, MemoryReservation, Pool};

/// Largest amount of memory that the records of a chunk take beside their text, unless the chunk
/// has only one record.
const CHUNK_MADE_BYTES: usize = 8 << 20;

/// A chunk and the room that its text and records take.
pub(crate) type BudgetedChunk = (Chunk, MemoryReservation);

/// Parameters for splitting a body.
#[derive(Clone, Debug)]
pub(crate) struct ChunkLimits {
    /// Memory pool of all bodies.
    pub(crate) pool: Pool,
    /// Holder to which the body is charged.
    pub(crate) holder: Holder,
    /// Longest wait for room.
    pub(crate) wait: Duration,
    /// Largest size of a record.
    pub(crate) record_bytes: usize,
    /// Largest text of a chunk, unless a single record is larger.
    pub(crate) chunk_bytes: usize,
    /// Bytes that the headers of the request add to each record.
    pub(crate) header_bytes: usize,
}

/// Sends the chunks of a body, whose first frame is read, until it ends or the receiver is closed.
/// Blocks, so it belongs on a thread of its own, within a runtime. Gives its place back while it
/// waits.
pub(crate) fn feed(
    first: Bytes,
    frames: BodyDataStream,
    cut: &ChunkLimits,
    portions: &mpsc::Sender<BudgetedChunk>,
    place: &Place,
) -> Result<(), Failure> {
    let read = Arc::<AtomicU64>::default();
    let mut body = BodyReader {
        frames,
        runtime: Handle::current(),
        piece: first,
        place,
        failure: None,
        read: Arc::clone(&read),
    };
    let fed = match unpack(&mut body) {
        Ok(plain) => feed_plain(Unpacked { plain, packed: read, bytes: 0 }, cut, portions, place),
        Err(cause) => Err(unpackable(&cause)),
    };
    if let Some(failure) = body.failure.take() {
        return Err(failure);
    }
    if fed.is_err() || portions.is_closed() {
        let runtime = body.runtime.clone();
        place.pause(|| runtime.block_on(discard(&mut body.frames)));
    }
    fed
}

/// Sends the chunks of bytes that are in memory already and not packed.
pub(crate) fn feed_plain(
    mut plain: impl Read,
    cut: &ChunkLimits,
    portions: &mpsc::Sender<BudgetedChunk>,
    place: &Place,
) -> Result<(), Failure> {
    let mut splitter = Splitter::with_limit(cut.record_bytes);
    // A record that is larger than a piece grows in the splitter, and needs room there.
    let mut growing = cut.pool.room(&cut.holder);
    let mut grown = 0;
    loop {
        let (chunk, read) = splitter
            .read_from(plain.by_ref(), cut.chunk_bytes)
            .map_err(|cause| unpackable(&cause))?;
        let last = read < cut.chunk_bytes;
        grown = cut.record_bytes.min(grown + read);
        if grown > cut.chunk_bytes {
            let room = grow_within(&mut growing, grown as u64, cut.wait);
            place.pause(|| Handle::current().block_on(room))?;
        }
        if !chunk.records.is_empty() {
            grown = 0;
        }
        let rest = if last { splitter.finish() } else { Chunk::default() };
        for chunk in [chunk, rest].into_iter().flat_map(|chunk| few_records(chunk, cut.records())) {
            // The room in which the record grew moves on with its chunk: holding it while waiting
            // for another could deadlock.
            let mut room = std::mem::replace(&mut growing, cut.pool.room(&cut.holder));
            let wanted = cut.memory(&chunk).min(room.most());
            place.pause(|| Handle::current().block_on(grow_within(&mut room, wanted, cut.wait)))?;
            if place.pause(|| portions.blocking_send((chunk, room)).is_err()) {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
    }
}

impl ChunkLimits {
    /// Returns the largest number of records in a chunk.
    fn records(&self) -> usize {
        (CHUNK_MADE_BYTES / (RECORD_BYTES + self.header_bytes)).clamp(1, MAX_CHUNK_RECORDS)
    }

    /// Returns the memory of a chunk: twice the text, which is held unparsed and parsed, and what
    /// the records take beside it.
    fn memory(&self, chunk: &Chunk) -> u64 {
        (2 * chunk.text.len() + chunk.records.len() * (RECORD_BYTES + self.header_bytes)) as u64
    }
}

/// A blocking reader of a body.
struct BodyReader<'p> {
    frames: BodyDataStream,
    runtime: Handle,
    piece: Bytes,
    place: &'p Place,
    /// Failure that ended the body early. A reader only learns that the body ended early.
    failure: Option<Failure>,
    /// Bytes read so far.
    read: Arc<AtomicU64>,
}

/// A reader of plain bytes that fails if the body is packed too tightly.
struct Unpacked<R> {
    plain: R,
    packed: Arc<AtomicU64>,
    bytes: u64,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(buffer)?;
        self.bytes += read as u64;
        check_packing(self.packed.load(Ordering::Relaxed), self.bytes)?;
        Ok(read)
    }
}

impl BufRead for BodyReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            let next = next_frame(&mut self.frames);
            match self.place.pause(|| self.runtime.block_on(next)) {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => break,
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the body ended early"));
                }
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        self.piece.advance(bytes);
    }
}

impl Read for BodyReader<'_> {
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
    use crate::limits::Share;

    const LONG: Duration = Duration::from_secs(60);

    fn cut(wait: Duration) -> ChunkLimits {
        let pool = Pool::new(1 << 20, Share::ThreeQuarters);
        ChunkLimits {
            pool,
            holder: Holder::Operator,
            wait,
            record_bytes: 1 << 20,
            chunk_bytes: 1 << 10,
            header_bytes: 0,
        }
    }

    async fn chunks(body: Vec<u8>, chunk_bytes: usize) -> (Vec<Chunk>, Result<(), Failure>) {
        let cut = ChunkLimits { record_bytes: 1 << 10, chunk_bytes, ..cut(LONG) };
        let (sender, mut receiver) = mpsc::channel(1);
        let frames = body
            .chunks(3)
            .map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece)))
            .collect::<Vec<_>>();
        let frames = Body::from_stream(futures::stream::iter(frames)).into_data_stream();
        let thread = tokio::task::spawn_blocking(move || {
            feed(Bytes::new(), frames, &cut, &sender, &Place::none())
        });
        let mut chunks = Vec::new();
        while let Some((chunk, _room)) = receiver.recv().await {
            chunks.push(chunk);
        }
        (chunks, thread.await.unwrap())
    }

    fn texts(chunks: &[Chunk]) -> Vec<String> {
        let records = chunks
            .iter()
            .flat_map(|chunk| chunk.records.iter().map(|(_, range)| &chunk.text[range.clone()]));
        records.map(|text| String::from_utf8(text.to_vec()).unwrap().trim().to_owned()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_are_whole_for_all_piece_sizes() {
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
        assert!(chunks.iter().all(|chunk| chunk.records.len() <= MAX_CHUNK_RECORDS));
        assert_eq!(texts(&chunks).len(), 10_000);
        assert_eq!(chunks.last().unwrap().records.last().unwrap().0, 9_999);
    }

    #[test]
    fn headers_copied_into_records_count_and_make_chunks_smaller() {
        let cut = |header_bytes| ChunkLimits { header_bytes, ..cut(LONG) };
        assert_eq!(
            (cut(0).records(), cut(400_000).records(), cut(usize::MAX >> 8).records()),
            (MAX_CHUNK_RECORDS, 20, 1)
        );
        let chunk = Chunk {
            records: vec![(0, 0..2), (1, 3..5)],
            text: b"{}\n{}".to_vec(),
            ..Chunk::default()
        };
        assert_eq!(cut(1_000).memory(&chunk) - cut(0).memory(&chunk), 2_000);
        assert_eq!(few_records(chunk, 1).len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_record_that_grows_needs_room() {
        let cut = cut(Duration::ZERO);
        let (sender, _receiver) = mpsc::channel(1);
        let _taken = cut.pool.try_take(&Holder::Operator, 1 << 20).unwrap();
        let fed = tokio::task::spawn_blocking(move || {
            feed_plain(&vec![b'x'; 1 << 19][..], &cut, &sender, &Place::none())
        });
        assert!(format!("{:?}", fed.await.unwrap().unwrap_err()).contains("429"));
    }
    #[tokio::test(flavor = "multi_thread")]
    async fn bodies_with_memory_for_a_grown_record_do_not_deadlock() {
        let cut = cut(Duration::from_millis(20));
        let size = 200 << 10;
        let (sender, mut receiver) = mpsc::channel(1);
        let feeding: Vec<_> = (0..3)
            .map(|_| {
                let cut = ChunkLimits { holder: Holder::new(Some("acme")), ..cut.clone() };
                let sender = sender.clone();
                let body = format!("{{\"a\":\"{}\"}}\n", "x".repeat(size)).into_bytes();
                tokio::task::spawn_blocking(move || {
                    feed_plain(&body[..], &cut, &sender, &Place::none())
                })
            })
            .collect();
        drop(sender);
        let zen = Holder::new(Some("zen"));
        while let Some((_, room)) = receiver.recv().await {
            assert!(cut.pool.try_take(&zen, 64 << 10).is_ok(), "the other organisation has room");
            drop(room);
        }
        for fed in feeding {
            let refused = fed.await.unwrap().err().map(|failure| failure.status().as_u16());
            assert!(refused.is_none_or(|status| status == 429), "{refused:?}");
        }
        assert_eq!(cut.pool.free(), 1 << 20);
    }
}
