//! The file format of an export job: lines packed in blocks, so that a range of lines is read
//! without the rest.
//!
//! ```text
//! block, block, …         each a zstd frame of BLOCK_BYTES of lines (the last one of fewer), with a checksum
//! length, length, …       of each block as it is packed, 4 bytes, little-endian
//! "GLX1", blocks, bytes   the form of the file, how many blocks (4 bytes), bytes of all lines (8 bytes)
//! ```
//!
//! Files of earlier versions are plain lines; their names do not end in `.zst`.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::upload::Upload;
use crate::catalog::ExportFile;
use crate::error::{Error, Result};
use crate::store::is_packed_export;

/// Lines of a block, in bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that are read ahead of a client.
const BLOCKS_AHEAD: usize = 2;
/// Lines of JSON repeat themselves; more takes longer and saves little.
const ZSTD_LEVEL: i32 = 3;
const MAGIC: [u8; 4] = *b"GLX1";
const LENGTH_BYTES: usize = 4;
const TRAILER_BYTES: usize = 16;

/// Packs lines into an object as they arrive.
pub(super) struct Packing {
    upload: Upload,
    block: Vec<u8>,
    lengths: Vec<u32>,
    bytes: u64,
    stored: u64,
}

impl Packing {
    pub(super) fn new(upload: Upload) -> Self {
        Self { upload, block: Vec::new(), lengths: Vec::new(), bytes: 0, stored: 0 }
    }

    /// Returns the bytes of the object so far.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Returns the bytes that the store has confirmed.
    pub(super) fn uploaded(&self) -> u64 {
        self.upload.stored
    }

    pub(super) async fn put(&mut self, mut lines: &[u8]) -> object_store::Result<()> {
        while !lines.is_empty() {
            let (fits, rest) = lines.split_at(lines.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(fits);
            lines = rest;
            if self.block.len() == BLOCK_BYTES {
                self.pack().await?;
            }
        }
        Ok(())
    }

    /// Completes the object.
    pub(super) async fn finish(&mut self) -> object_store::Result<()> {
        if !self.block.is_empty() {
            self.pack().await?;
        }
        let blocks = self.lengths.len() as u32;
        let mut index: Vec<u8> =
            self.lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
        index.extend(MAGIC);
        index.extend(blocks.to_le_bytes());
        index.extend(self.bytes.to_le_bytes());
        self.stored += index.len() as u64;
        self.upload.put(&index).await?;
        self.upload.finish().await
    }

    /// Discards the upload.
    pub(super) async fn abort(&mut self) {
        self.upload.abort().await;
    }

    async fn pack(&mut self) -> object_store::Result<()> {
        let block = std::mem::take(&mut self.block);
        self.bytes += block.len() as u64;
        let packing = tokio::task::spawn_blocking(move || {
            let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
            compressor.include_checksum(true)?;
            compressor.compress(&block)
        });
        let packed = packing.await?.map_err(|cause| generic(cause.into()))?;
        self.lengths.push(packed.len() as u32);
        self.stored += packed.len() as u64;
        self.upload.put(&packed).await
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: "export", source }
}

/// Returns the bytes of the lines of a file, in chunks that are fetched a few ahead of the reader.
pub(super) fn read(
    store: Arc<dyn ObjectStore>,
    path: Path,
    file: &ExportFile,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    if !is_packed_export(&file.name) {
        return plain(store, path, range);
    }
    let bytes = file.bytes;
    let stored = file.stored_bytes.unwrap_or_default();
    let blocks = stream::once(async move {
        let starts = index(&*store, &path, bytes, stored).await?;
        let wanted = range.start / BLOCK_BYTES as u64..range.end.div_ceil(BLOCK_BYTES as u64);
        let fragments = wanted.map(move |number| {
            let store = Arc::clone(&store);
            let path = path.clone();
            let range = range.clone();
            let place = usize::try_from(number).unwrap_or(usize::MAX);
            let packed =
                starts.get(place).copied().zip(starts.get(place.saturating_add(1)).copied());
            async move {
                let (start, end) = packed.ok_or_else(damaged)?;
                let packed = store.get_range(&path, start..end).await.map_err(unreadable)?;
                let unpacking = tokio::task::spawn_blocking(move || {
                    zstd::bulk::decompress(&packed, BLOCK_BYTES)
                });
                let lines = unpacking.await.map_err(|cause| damaged().with_source(cause))?;
                let lines = Bytes::from(lines.map_err(|cause| damaged().with_source(cause))?);
                let first = number * BLOCK_BYTES as u64;
                let cut = |at: u64| {
                    usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX).min(lines.len())
                };
                Ok(lines.slice(cut(range.start)..cut(range.end)))
            }
        });
        Ok::<_, Error>(stream::iter(fragments).buffered(BLOCKS_AHEAD))
    });
    blocks
        .flat_map(|opened| match opened {
            Ok(fragments) => fragments.boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        })
        .boxed()
}

/// Returns the start of each block, and the end of the last one.
async fn index(store: &dyn ObjectStore, path: &Path, bytes: u64, stored: u64) -> Result<Vec<u64>> {
    let blocks = bytes.div_ceil(BLOCK_BYTES as u64);
    let index_bytes = blocks * LENGTH_BYTES as u64 + TRAILER_BYTES as u64;
    let start = stored.checked_sub(index_bytes).ok_or_else(damaged)?;
    let index = store.get_range(path, start..stored).await.map_err(unreadable)?;
    let (lengths, trailer) =
        index.split_at_checked(index.len().saturating_sub(TRAILER_BYTES)).ok_or_else(damaged)?;
    let wanted = [&MAGIC[..], &(blocks as u32).to_le_bytes(), &bytes.to_le_bytes()].concat();
    if trailer != wanted {
        return Err(damaged());
    }
    let mut starts = vec![0];
    let mut end = 0;
    for length in lengths.chunks_exact(LENGTH_BYTES) {
        end += length.iter().rev().fold(0, |length, byte| length << 8 | u64::from(*byte));
        starts.push(end);
    }
    if end == start { Ok(starts) } else { Err(damaged()) }
}

fn plain(
    store: Arc<dyn ObjectStore>,
    path: Path,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    let end = range.end;
    let fragments = range.step_by(BLOCK_BYTES).map(move |start| {
        let store = Arc::clone(&store);
        let path = path.clone();
        async move {
            store
                .get_range(&path, start..end.min(start + BLOCK_BYTES as u64))
                .await
                .map_err(unreadable)
        }
    });
    stream::iter(fragments).buffered(BLOCKS_AHEAD).boxed()
}

fn unreadable(cause: object_store::Error) -> Error {
    Error::storage("the file of an export cannot be read").with_source(cause)
}

fn damaged() -> Error {
    Error::damaged("the file of an export is damaged; start the export again")
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    use super::*;

    async fn packed(lines: &[u8]) -> (Arc<dyn ObjectStore>, Path, ExportFile) {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("a.jsonl.zst");
        let mut packing = Packing::new(Upload::new(Arc::clone(&store), path.clone()));
        for chunk in lines.chunks(300_000) {
            packing.put(chunk).await.unwrap();
        }
        packing.finish().await.unwrap();
        let bytes = lines.len() as u64;
        let stored_bytes = Some(packing.stored());
        let name = path.to_string();
        let written_at = Utc::now();
        assert_eq!(store.head(&path).await.unwrap().size, packing.stored());
        (
            store,
            path,
            ExportFile {
                name,
                bytes,
                stored_bytes,
                records: 0,
                columns: Vec::new(),
                organisations: None,
                written_at,
            },
        )
    }

    async fn read_all(
        (store, path, file): &(Arc<dyn ObjectStore>, Path, ExportFile),
        range: Range<u64>,
    ) -> Result<Vec<u8>> {
        let fragments: Vec<Bytes> =
            read(Arc::clone(store), path.clone(), file, range).try_collect().await?;
        Ok(fragments.concat())
    }

    #[tokio::test]
    async fn any_range_of_the_lines_is_read_as_it_was_written() {
        let lines: Vec<u8> = (0..330_000)
            .flat_map(|number: u32| format!("{{\"n\":{number}}}\n").into_bytes())
            .collect();
        let size = lines.len();
        let block = BLOCK_BYTES;
        let object = packed(&lines).await;
        assert!(object.2.stored_bytes.unwrap() < lines.len() as u64 / 4);
        for range in [
            0..size,
            0..1,
            size - 1..size,
            block - 1..block + 1,
            block..2 * block,
            5..2 * block + 7,
            9..9,
        ] {
            let read = read_all(&object, range.start as u64..range.end as u64).await.unwrap();
            assert!(read == lines[range.clone()], "{range:?}");
        }
        assert!(read_all(&packed(b"").await, 0..0).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_flipped_byte_is_noticed() {
        let lines = b"{\"a\":1}\n".repeat(200_000);
        let object = packed(&lines).await;
        let (store, path, _) = &object;
        let whole = store.get(path).await.unwrap().bytes().await.unwrap();
        for place in [10, whole.len() / 2, whole.len() - 1, whole.len() - 20] {
            let mut flipped = whole.to_vec();
            flipped[place] ^= 1;
            store.put(path, flipped.into()).await.unwrap();
            let error = read_all(&object, 0..lines.len() as u64).await.unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Damaged, "byte {place}");
        }
    }
}
