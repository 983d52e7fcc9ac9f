//! Input to records on threads of their own: one reads and splits, two parse. Each queue holds a few chunks of about 1
//! MiB.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::input::Input;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ingest::{self, Chunk, Context, Rejection, Shape, Splitter};
use crate::record::Record;

/// Bytes of text that are split, parsed and appended at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait between two stages.
const WAITING: usize = 3;
const PARSERS: usize = 2;
/// Most records that are parsed and appended at once: a parsed record takes over a kilobyte even if its text is `{}`.
const RECORDS_AT_ONCE: usize = 4_096;

/// The stages at work.
pub(super) struct Pipeline {
    /// What the parsers made, in no certain order.
    pub(super) parsed: mpsc::Receiver<Parsed>,
    pub(super) counts: Arc<Counts>,
    reader: JoinHandle<Result<()>>,
    parsers: Vec<JoinHandle<()>>,
}

/// The records of one chunk.
pub(super) struct Parsed {
    /// Which input they come from.
    pub(super) file: usize,
    pub(super) records: Vec<Record>,
    /// Those that were not taken, each with its text, which is empty if it was too long to keep.
    pub(super) rejected: Vec<(Rejection, Vec<u8>)>,
}

/// How much was read.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Bytes of the files as they lie there.
    read: Arc<AtomicU64>,
    /// Bytes of JSON text.
    text: AtomicU64,
}

impl Counts {
    /// Bytes of the files, bytes of text.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.text.load(Ordering::Relaxed))
    }
}

/// A chunk with the input it comes from.
type Piece = (usize, Chunk);

impl Pipeline {
    pub(super) fn start(inputs: Vec<Input>, shape: Shape, engine: &Engine) -> Self {
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

    /// Waits for the reader, which ends once the queue is closed, and answers how it ended.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.parsed);
        for parser in self.parsers {
            // A chunk that a parser took with it is not imported, so the import has failed.
            parser.join().map_err(|_| Error::internal("a parsing thread panicked"))?;
        }
        self.reader.join().map_err(|_| Error::internal("the reading thread panicked"))?
    }
}

fn read_all(inputs: &[Input], limit: usize, counts: &Counts, chunks: &SyncSender<Piece>) -> Result<()> {
    for (file, input) in inputs.iter().enumerate() {
        let mut text = input.open(Arc::clone(&counts.read))?;
        let mut splitter = Splitter::with_limit(limit);
        let mut block = Vec::with_capacity(CHUNK_BYTES);
        loop {
            block.clear();
            let read = text.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut block);
            // What came before a failure is good text and is kept.
            counts.text.fetch_add(block.len() as u64, Ordering::Relaxed);
            let mut open = send(chunks, file, splitter.push(&block));
            if matches!(read, Ok(0)) {
                open &= send(chunks, file, splitter.finish());
            }
            let read = read.map_err(|cause| input.error(cause))?;
            if !open {
                // Nobody takes chunks any more: the import was stopped.
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

fn parse_all(engine: &Engine, shape: Shape, waiting: &Mutex<Receiver<Piece>>, parsed: &mpsc::Sender<Parsed>) {
    loop {
        let next = waiting.lock().recv();
        let Ok((file, mut chunk)) = next else { return };
        let all = std::mem::take(&mut chunk.records);
        // What the splitter refused was too long to keep its text.
        let refused = std::mem::take(&mut chunk.rejections).into_iter().map(|rejection| (rejection, Vec::new()));
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

/// Reads some records of a chunk, whose own list of records is free for use.
fn parse(engine: &Engine, shape: Shape, chunk: &mut Chunk, some: &[(u64, Range<usize>)], portion: &mut Parsed) {
    let context = Context { policy: Arc::clone(engine.policy()), ..Context::new(engine.now()) };
    let mut new_id = || engine.new_id();
    portion.records.reserve(some.len());
    let request = match shape {
        Shape::Native | Shape::LiteLlm | Shape::GatewayHook | Shape::Otlp => some.len(),
        // Records that name no trace share one within a request, and a line of a file is a request of its own.
        Shape::Portkey => 1,
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

/// The text that a record of the chunk was read from.
fn text_of(chunk: &Chunk, record: u64) -> &[u8] {
    let found = chunk.records.iter().rfind(|(number, _)| *number <= record);
    found.map_or(&[], |(_, range)| chunk.text[range.clone()].trim_ascii())
}
