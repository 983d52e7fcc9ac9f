//! Reads of objects on a simulated disk. Everything that writes goes through the disk itself.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::sim::{Found, SimDisk};

/// The objects on a disk, for reading. Paths begin at the root of the disk.
#[derive(Debug)]
pub struct Reads(pub SimDisk);

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reads")
    }
}

fn native(path: &Path) -> PathBuf {
    PathBuf::from(format!("/{path}"))
}

fn meta(found: Found) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        location: Path::parse(&found.path)?,
        last_modified: DateTime::from_timestamp_millis(found.modified_ms).unwrap_or_default(),
        size: found.size as u64,
        e_tag: Some(found.tag),
        version: None,
    })
}

fn only_reads() -> Error {
    Error::Generic { store: "Reads", source: "writes go through the disk".into() }
}

#[async_trait]
impl ObjectStore for Reads {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(only_reads())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(only_reads())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some((content, found)) = self.0.object(&native(location)) else {
            let (path, source) = (location.to_string(), "no such file".into());
            return Err(Error::NotFound { path, source });
        };
        let meta = ObjectMeta { location: location.clone(), ..meta(found)? };
        options.check_preconditions(&meta)?;
        let wrong = |e| Error::Generic { store: "Reads", source: Box::new(e) };
        let range = options
            .range
            .map_or(Ok(0..meta.size), |range| range.as_range(meta.size))
            .map_err(wrong)?;
        let places = usize::try_from(range.start).unwrap_or(usize::MAX)
            ..usize::try_from(range.end).unwrap_or(usize::MAX);
        let bytes = Bytes::copy_from_slice(&content.bytes[places]);
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: object_store::Attributes::default() })
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(only_reads()) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = native(prefix.unwrap_or(&Path::default()));
        stream::iter(self.0.files_below(&folder).into_iter().map(meta).collect::<Vec<_>>()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (files, folders) = self.0.entries(&native(prefix.unwrap_or(&Path::default())));
        let objects = files.into_iter().map(meta).collect::<Result<Vec<_>>>()?;
        let common_prefixes =
            folders.iter().map(|path| Ok(Path::parse(path)?)).collect::<Result<Vec<_>>>()?;
        Ok(ListResult { objects, common_prefixes })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(only_reads())
    }
}
