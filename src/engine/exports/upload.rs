//! Uploads an object piece by piece: in one write if it is small, otherwise in parts that are sent
//! while the next one fills.
//!
//! An upload takes [`part_bytes`] of memory for the part that is being filled and for the part that
//! is being sent. The object gets its name with [`Upload::finish`], complete or not at all.
//! [`Upload::abort`] discards an unfinished upload at any time, also after the store refused the
//! end.

use std::mem;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, Result};
use tokio::task::JoinSet;

/// Bytes of the first parts: a bucket accepts no smaller ones, except the last.
const LEAST_PART: usize = 5 << 20;
/// Parts of one size, after which the size grows. An object has at most 10,000 parts, which hold
/// 260 GB.
const PARTS_OF_A_SIZE: usize = 1_000;
/// Parts that are being sent beside the one that is being filled.
const PARTS_AHEAD: usize = 1;

/// Returns the size of the next part after so many parts, in bytes.
fn part_bytes(parts: usize) -> usize {
    LEAST_PART * (1 + parts / PARTS_OF_A_SIZE)
}

pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    part: Vec<u8>,
    /// `None` while the object may still fit into a single write.
    started: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<Result<u64>>,
    /// Parts that were started.
    parts: usize,
    /// Bytes of the parts that the store has confirmed.
    pub(super) stored: u64,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self {
            store,
            path,
            part: Vec::new(),
            started: None,
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

    /// Completes the object.
    pub(super) async fn finish(&mut self) -> Result<()> {
        if self.started.is_none() {
            return self.store.put(&self.path, mem::take(&mut self.part).into()).await.map(drop);
        }
        if !self.part.is_empty() {
            self.send().await?;
        }
        self.wait_until_below(1).await?;
        match &mut self.started {
            Some(started) => started.complete().await.map(drop),
            None => Ok(()),
        }
    }

    /// Discards a started upload. If the store refuses, it removes the parts by its own rules.
    pub(super) async fn abort(&mut self) {
        self.sending.shutdown().await;
        if let Some(mut started) = self.started.take() {
            let _ = started.abort().await;
        }
    }

    async fn send(&mut self) -> Result<()> {
        self.wait_until_below(PARTS_AHEAD).await?;
        let started = match &mut self.started {
            Some(started) => started,
            None => self.started.insert(self.store.put_multipart(&self.path).await?),
        };
        self.parts += 1;
        let bytes = self.part.len() as u64;
        let part = started.put_part(mem::take(&mut self.part).into());
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
