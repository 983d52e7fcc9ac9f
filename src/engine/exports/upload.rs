//! An object that is written piece by piece: in one write if it is small, else in parts that are sent while the next one fills.
//!
//! Memory for one is [`PART_BYTES`] for the part that is being filled and for each of those on their way. The object has its name
//! after [`Upload::finish`], all of it or none; what else was begun is taken back by [`Upload::abort`], at any time, also
//! where the store refused the end.

use std::mem;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, Result};
use tokio::task::JoinSet;

/// Bytes of a part: an S3 object has at most 10,000 of them.
const PART_BYTES: usize = 16 << 20;
/// Parts that are on their way beside the one that is being filled.
const PARTS_AHEAD: usize = 2;

pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    part: Vec<u8>,
    /// None while it may yet be a single write.
    begun: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<Result<u64>>,
    /// Bytes of the parts that the store has.
    pub(super) stored: u64,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, part: Vec::new(), begun: None, sending: JoinSet::new(), stored: 0 }
    }

    pub(super) async fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (fits, rest) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(fits);
            bytes = rest;
            if self.part.len() == PART_BYTES {
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
        let (bytes, part) = (self.part.len() as u64, begun.put_part(mem::take(&mut self.part).into()));
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
