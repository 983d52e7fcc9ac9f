//! Multipart upload that names the file only after all parts are written and synced.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;

use super::disk::DiskFile;
use super::staged::{Files, blocking, failed, generic, unsynced};

/// Upload in progress. Parts are written in the order in which they were submitted, regardless of
/// the order in which they are awaited.
pub(super) struct Upload {
    files: Arc<Files>,
    reads: Arc<dyn ObjectStore>,
    staged: PathBuf,
    parts: Arc<Mutex<Parts>>,
    location: Path,
    target: PathBuf,
}

struct Parts {
    file: Box<dyn DiskFile>,
    unwritten: VecDeque<PutPayload>,
    /// True if a part could not be written. The file then never gets its name.
    is_broken: bool,
}

impl Upload {
    pub(super) fn new(
        files: Arc<Files>,
        reads: Arc<dyn ObjectStore>,
        staged: PathBuf,
        file: Box<dyn DiskFile>,
        location: Path,
        target: PathBuf,
    ) -> Self {
        let parts = Parts { file, unwritten: VecDeque::new(), is_broken: false };
        Self { files, reads, staged, parts: Arc::new(Mutex::new(parts)), location, target }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Parts {
    fn write(&mut self) -> io::Result<()> {
        while let Some(part) = self.unwritten.pop_front() {
            let written = part.iter().try_for_each(|bytes| self.file.append(bytes));
            self.is_broken |= written.is_err();
            written?;
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.lock().unwritten.push_back(data);
        let parts = Arc::clone(&self.parts);
        let staged = self.staged.clone();
        Box::pin(blocking(move || parts.lock().write().map_err(|e| failed(&staged, e))))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let files = Arc::clone(&self.files);
        let parts = Arc::clone(&self.parts);
        let staged = self.staged.clone();
        let target = self.target.clone();
        let finish = move || {
            let mut parts = parts.lock();
            if parts.is_broken {
                return Err(generic(format!(
                    "a part of `{}` could not be written",
                    target.display()
                )));
            }
            parts.write().map_err(|e| failed(&staged, e))?;
            parts.file.sync().map_err(|e| unsynced(&staged, e))?;
            files.publish(&staged, &target, false)
        };
        blocking(finish).await?;
        let e_tag = self.reads.head(&self.location).await.ok().and_then(|meta| meta.e_tag);
        Ok(PutResult { e_tag, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let files = Arc::clone(&self.files);
        let staged = self.staged.clone();
        blocking(move || {
            files.discard(&staged);
            Ok(())
        })
        .await
    }
}
