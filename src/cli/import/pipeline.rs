//! Reads inputs on a thread of its own, and parses them ([`gatelog::ingest::pipeline`]). The queue
//! between holds a few chunks of about 1 MiB.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use futures::stream::BoxStream;
use futures::{StreamExt, TryFutureExt};
use tokio::sync::mpsc;

use super::input::Input;
use gatelog::engine::Engine;
use gatelog::error::{Error, Result};
use gatelog::ingest::pipeline::{MAX_CHUNK_RECORDS, few_records, parse_in_order};
use gatelog::ingest::{self, Chunk, Context, Rejection, SourceFormat, Splitter};
use gatelog::record::Record;

/// Size of the text chunks that are split, parsed and appended.
const CHUNK_BYTES: usize = 1 << 20;
/// Number of chunks that wait between two stages.
const WAITING: usize = 3;

/// The running stages.
pub(super) struct Pipeline {
    /// Parsed chunks, in the order of the inputs.
    pub(super) parsed: BoxStream<'static, Result<Parsed>>,
    pub(super) counts: Arc<Counts>,
    reader: JoinHandle<Result<()>>,
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
        let (chunks, waiting) = mpsc::channel(WAITING);
        let parser = engine.clone();
        let parse = move |(file, chunk): Piece| {
            let engine = parser.clone();
            let parsing = tokio::task::spawn_blocking(move || parse(&engine, shape, file, chunk));
            // The chunk of a panicked parser is not imported, so the import has failed.
            parsing.map_err(|cause| Error::internal("parsing panicked").with_source(cause))
        };
        let parsed = parse_in_order(waiting, parse).boxed();
        let limit = usize::try_from(engine.config().max_record_bytes).unwrap_or(usize::MAX);
        let counted = Arc::clone(&counts);
        let reader = std::thread::spawn(move || read_all(&inputs, limit, &counted, &chunks));
        Self { parsed, counts, reader }
    }

    /// Waits for the reader, which ends once the queue is closed, and returns its result.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.parsed);
        self.reader.join().map_err(|_| Error::internal("the reading thread panicked"))?
    }
}

fn read_all(
    inputs: &[Input],
    limit: usize,
    counts: &Counts,
    chunks: &mpsc::Sender<Piece>,
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

fn send(chunks: &mpsc::Sender<Piece>, file: usize, chunk: Chunk) -> bool {
    let mut few = few_records(chunk, MAX_CHUNK_RECORDS).into_iter();
    few.all(|chunk| chunks.blocking_send((file, chunk)).is_ok())
}

/// Parses the records of a chunk.
fn parse(engine: &Engine, shape: SourceFormat, file: usize, mut chunk: Chunk) -> Parsed {
    let context = Context { policy: Arc::clone(engine.policy()), ..Context::new(engine.now()) };
    let mut new_id = || engine.new_id();
    // Records that the splitter rejects are too long to keep their text.
    let refused = std::mem::take(&mut chunk.rejections);
    let mut rejected: Vec<_> =
        refused.into_iter().map(|rejection| (rejection, Vec::new())).collect();
    let all = std::mem::take(&mut chunk.records);
    let mut records = Vec::with_capacity(all.len());
    let request = match shape {
        SourceFormat::Native
        | SourceFormat::LiteLlm
        | SourceFormat::GatewayHook
        | SourceFormat::Otlp => MAX_CHUNK_RECORDS,
        // Records without a trace id share one within a request, and each line of a file counts as
        // a request.
        SourceFormat::Portkey => 1,
    };
    for request in all.chunks(request) {
        chunk.records.clear();
        chunk.records.extend_from_slice(request);
        let mut take = |record| records.push(record);
        for rejection in ingest::read(shape, &chunk, &context, &mut new_id, &mut take) {
            let text = text_of(&chunk, rejection.record).to_vec();
            rejected.push((rejection, text));
        }
    }
    Parsed { file, records, rejected }
}

/// Returns the text of a record in the chunk.
fn text_of(chunk: &Chunk, record: u64) -> &[u8] {
    let found = chunk.records.iter().rfind(|(number, _)| *number <= record);
    found.map_or(&[], |(_, range)| chunk.text[range.clone()].trim_ascii())
}
