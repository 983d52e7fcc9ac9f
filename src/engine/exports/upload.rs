//! An object that is written piece by piece: in one write if it is small, else in parts that are
//! sent while the next one fills.
//!
//! Memory for one is [`part_bytes`] for the part that is being filled and for the one that is on
//! its way. The object has its name after [`Upload::finish`], all of it or none; what else was
//! begun is taken back by [`Upload::abort`], at any time, also where the store refused the end.

use std::mem;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, Result};
use tokio::task::JoinSet;

/// Bytes of the first parts: a bucket takes none smaller but the last.
const LEAST_PART: usize = 5 << 20;
/// Parts after which they are that much bigger: an object has at most 10,000 of them, which come to
/// 260 GB.
const PARTS_OF_A_SIZE: usize = 1_000;
/// Parts that are on their way beside the one that is being filled.
const PARTS_AHEAD: usize = 1;

/// Bytes of the part that follows so many.
fn part_bytes(parts: usize) -> usize {
    LEAST_PART * (1 + parts / PARTS_OF_A_SIZE)
}

pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    part: Vec<u8>,
    /// None while it may yet be a single write.
    begun: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<Result<u64>>,
    /// Parts that were begun.
    parts: usize,
    /// Bytes of the parts that the store has.
    pub(super) stored: u64,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self {
            store,
            path,
            part: Vec::new(),
            begun: None,
            sending: JoinSet::new(),
            parts: 0,
            stored: 0,
        }
    }

    pub(super) async fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let whole = part_bytes(self.parts);
            let (fits, rest) = bytes.split_at(bytes.len().min(whole - self.part.len()));
            self.part.extend_from_slice(fits);
            bytes = rest;
            if self.part.len() == whole {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Makes the object whole.
    pub(super) async fn finish(&mut self) -> Result<()> {
        if self.begun.is_none() {
            return self.store.put(&self.path, mem::take(&mut self.part).into()).await.map(drop);
        }
        if !self.part.is_empty() {
            self.send().await?;
        }
        self.wait_until_below(1).await?;
        match &mut self.begun {
            Some(begun) => begun.complete().await.map(drop),
            None => Ok(()),
        }
    }

    /// Takes back what was begun; if the store refuses that, it drops it in its own time.
    pub(super) async fn abort(&mut self) {
        self.sending.shutdown().await;
        if let Some(mut begun) = self.begun.take() {
            let _ = begun.abort().await;
        }
    }

    async fn send(&mut self) -> Result<()> {
        self.wait_until_below(PARTS_AHEAD).await?;
        let begun = match &mut self.begun {
            Some(begun) => begun,
            None => self.begun.insert(self.store.put_multipart(&self.path).await?),
        };
        self.parts += 1;
        let (bytes, part) =
            (self.part.len() as u64, begun.put_part(mem::take(&mut self.part).into()));
        self.sending.spawn(async move { part.await.map(|()| bytes) });
        Ok(())
    }

    async fn wait_until_below(&mut self, parts: usize) -> Result<()> {
        while self.sending.len() >= parts {
            match self.sending.join_next().await {
                Some(Ok(sent)) => self.stored += sent?,
                Some(Err(cause)) => return Err(cause.into()),
                None => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_a_large_export() {
        let all: u64 = (0..10_000).map(|parts| part_bytes(parts) as u64).sum();
        assert!(all > 250 << 30, "{all}");
        assert_eq!(part_bytes(0), LEAST_PART);
    }
}
