//! The stages that every stream of records goes through, be it the body of a request or a file:
//! unpack, split into chunks of a bounded number of records, and parse in parallel, in order.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::split::{Chunk, line_breaks};

/// Largest number of records in a chunk. A parsed record takes over a kilobyte even if its text is
/// `{}`.
#[doc(hidden)]
pub const MAX_CHUNK_RECORDS: usize = 4_096;

/// Number of chunks that are parsed at the same time.
const PARSERS: usize = 2;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Returns true if the first bytes are those of gzip or zstd.
#[doc(hidden)]
pub fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP_MAGIC) || bytes.starts_with(&ZSTD_MAGIC)
}

/// Returns true if text may be packed, judged by its first piece, which may be shorter than the
/// first bytes of a format.
#[doc(hidden)]
pub fn may_be_packed(start: &[u8]) -> bool {
    is_packed(start) || GZIP_MAGIC.starts_with(start) || ZSTD_MAGIC.starts_with(start)
}

/// Unpacks text whose first bytes are those of gzip or zstd. `max_window_log` bounds the memory of
/// zstd; `None` is the bound of its library.
#[doc(hidden)]
pub fn unpack<'a>(
    mut packed: impl BufRead + Send + 'a,
    max_window_log: Option<u32>,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    // The first read may return fewer bytes than the magic has.
    let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
    packed.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
    let is_gzip = start.starts_with(&GZIP_MAGIC);
    let is_zstd = start == ZSTD_MAGIC;
    let whole = Cursor::new(start).chain(packed);
    if is_gzip {
        return Ok(Box::new(MultiGzDecoder::new(whole)));
    }
    if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        if let Some(max) = max_window_log {
            decoder.window_log_max(max)?;
        }
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

/// Splits a chunk into several with fewer records if it has too many. An empty chunk yields none.
#[doc(hidden)]
pub fn few_records(mut chunk: Chunk, most: usize) -> Vec<Chunk> {
    if chunk.records.len() <= most {
        let empty = chunk.records.is_empty() && chunk.rejections.is_empty();
        return if empty { Vec::new() } else { vec![chunk] };
    }
    let mut rejections = std::mem::take(&mut chunk.rejections);
    let mut line = chunk.line;
    let mut counted = 0;
    let part = |records: &[(u64, std::ops::Range<usize>)]| {
        let start = records.first().map_or(0, |(_, range)| range.start);
        let end = records.last().map_or(0, |(_, range)| range.end);
        let shifted =
            records.iter().map(|(number, range)| (*number, range.start - start..range.end - start));
        let rejections = std::mem::take(&mut rejections);
        line += line_breaks(&chunk.text[counted..start]);
        counted = start;
        Chunk {
            text: chunk.text[start..end].to_vec(),
            line,
            records: shifted.collect(),
            rejections,
        }
    };
    chunk.records.chunks(most).map(part).collect()
}

/// Parses the chunks of a queue in parallel. The results have the order of the chunks.
#[doc(hidden)]
pub fn parse_in_order<C, F: Future>(
    chunks: mpsc::Receiver<C>,
    parse: impl FnMut(C) -> F,
) -> impl Stream<Item = F::Output> {
    ReceiverStream::new(chunks).map(parse).buffered(PARSERS)
}
