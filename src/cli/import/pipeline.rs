//! Reads and parses inputs on threads of their own: one reads and splits, two parse. Each queue
//! holds a few chunks of about 1 MiB.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::input::Input;
use gatelog::engine::Engine;
use gatelog::error::{Error, Result};
use gatelog::ingest::{self, Chunk, Context, Rejection, SourceFormat, Splitter};
use gatelog::record::Record;

/// Size of the text chunks that are split, parsed and appended.
const CHUNK_BYTES: usize = 1 << 20;
/// Number of chunks that wait between two stages.
const WAITING: usize = 3;
const PARSERS: usize = 2;
/// Largest number of records that are parsed and appended at once. A parsed record takes over a
/// kilobyte even if its text is `{}`.
const RECORDS_AT_ONCE: usize = 4_096;

/// The running stages.
pub(super) struct Pipeline {
    /// Parsed chunks, in no particular order.
    pub(super) parsed: mpsc::Receiver<Parsed>,
    pub(super) counts: Arc<Counts>,
    reader: JoinHandle<Result<()>>,
    parsers: Vec<JoinHandle<()>>,
}

/// Records of one chunk.
pub(super) struct Parsed {
    /// Index of the input.
    pub(super) file: usize,
    pub(super) records: Vec<Record>,
    /// Rejected records, each with its text, which is empty if it was too long to keep.
    pub(super) rejected: Vec<(Rejection, Vec<u8>)>,
}

/// Amounts read so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Bytes of the files in their stored form.
    read: Arc<AtomicU64>,
    /// Bytes of JSON text.
    text: AtomicU64,
}

impl Counts {
    /// Returns the bytes of the files and the bytes of text.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.text.load(Ordering::Relaxed))
    }
}

/// A chunk with the index of its input.
type Piece = (usize, Chunk);

impl Pipeline {
    pub(super) fn start(inputs: Vec<Input>, shape: SourceFormat, engine: &Engine) -> Self {
        let counts = Arc::new(Counts::default());
        let (chunks, waiting) = sync_channel(WAITING);
        let (records, parsed) = mpsc::channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let parser = || {
            let engine = engine.clone();
            let waiting = Arc::clone(&waiting);
            let records = records.clone();
            std::thread::spawn(move || parse_all(&engine, shape, &waiting, &records))
        };
        let parsers = (0..PARSERS).map(|_| parser()).collect();
        drop(records);
        let limit = usize::try_from(engine.config().max_record_bytes).unwrap_or(usize::MAX);
        let counted = Arc::clone(&counts);
        let reader = std::thread::spawn(move || read_all(&inputs, limit, &counted, &chunks));
        Self { parsed, counts, reader, parsers }
    }

    /// Waits for the reader, which ends once the queue is closed, and returns its result.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.parsed);
        for parser in self.parsers {
            // The chunk of a panicked parser is not imported, so the import has failed.
            parser.join().map_err(|_| Error::internal("a parsing thread panicked"))?;
        }
        self.reader.join().map_err(|_| Error::internal("the reading thread panicked"))?
    }
}

fn read_all(
    inputs: &[Input],
    limit: usize,
    counts: &Counts,
    chunks: &SyncSender<Piece>,
) -> Result<()> {
    for (file, input) in inputs.iter().enumerate() {
        let mut text = input.open(Arc::clone(&counts.read))?;
        let mut splitter = Splitter::with_limit(limit);
        let mut block = Vec::with_capacity(CHUNK_BYTES);
        loop {
            block.clear();
            let read = text.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut block);
            // Text before a failure is good and is kept.
            counts.text.fetch_add(block.len() as u64, Ordering::Relaxed);
            let mut open = send(chunks, file, splitter.push(&block));
            if matches!(read, Ok(0)) {
                open &= send(chunks, file, splitter.finish());
            }
            let read = read.map_err(|cause| input.error(cause))?;
            if !open {
                // The receiver is closed: the import was stopped.
                return Ok(());
            }
            if read == 0 {
                break;
            }
        }
    }
    Ok(())
}

fn send(chunks: &SyncSender<Piece>, file: usize, chunk: Chunk) -> bool {
    let empty = chunk.records.is_empty() && chunk.rejections.is_empty();
    empty || chunks.send((file, chunk)).is_ok()
}

fn parse_all(
    engine: &Engine,
    shape: SourceFormat,
    waiting: &Mutex<Receiver<Piece>>,
    parsed: &mpsc::Sender<Parsed>,
) {
    loop {
        let next = waiting.lock().recv();
        let Ok((file, mut chunk)) = next else { return };
        let all = std::mem::take(&mut chunk.records);
        // Records that the splitter rejects are too long to keep their text.
        let refused = std::mem::take(&mut chunk.rejections)
            .into_iter()
            .map(|rejection| (rejection, Vec::new()));
        let mut portion = Parsed { file, records: Vec::new(), rejected: refused.collect() };
        for some in all.chunks(RECORDS_AT_ONCE) {
            parse(engine, shape, &mut chunk, some, &mut portion);
            let next = Parsed { file, records: Vec::new(), rejected: Vec::new() };
            if parsed.blocking_send(std::mem::replace(&mut portion, next)).is_err() {
                return;
            }
        }
        if !portion.rejected.is_empty() && parsed.blocking_send(portion).is_err() {
            return;
        }
    }
}

/// Parses some records of a chunk. The list of records in the chunk itself is free for reuse.
fn parse(
    engine: &Engine,
    shape: SourceFormat,
    chunk: &mut Chunk,
    some: &[(u64, Range<usize>)],
    portion: &mut Parsed,
) {
    let context = Context { policy: Arc::clone(engine.policy()), ..Context::new(engine.now()) };
    let mut new_id = || engine.new_id();
    portion.records.reserve(some.len());
    let request = match shape {
        SourceFormat::Native
        | SourceFormat::LiteLlm
        | SourceFormat::GatewayHook
        | SourceFormat::Otlp => some.len(),
        // Records without a trace id share one within a request, and each line of a file counts as
        // a request.
        SourceFormat::Portkey => 1,
    };
    for request in some.chunks(request) {
        chunk.records.clear();
        chunk.records.extend_from_slice(request);
        let mut take = |record| portion.records.push(record);
        for rejection in ingest::read(shape, chunk, &context, &mut new_id, &mut take) {
            let text = text_of(chunk, rejection.record).to_vec();
            portion.rejected.push((rejection, text));
        }
    }
}

/// Returns the text of a record in the chunk.
fn text_of(chunk: &Chunk, record: u64) -> &[u8] {
    let found = chunk.records.iter().rfind(|(number, _)| *number <= record);
    found.map_or(&[], |(_, range)| chunk.text[range.clone()].trim_ascii())
}
