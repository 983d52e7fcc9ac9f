//! Making durable what other processes, and writes that failed, left in a folder.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;

use super::durable;
use super::staged::Files;
use super::{Store, folders, key_of};
use crate::error::{Error, Result};

impl Store {
    /// Makes files durable that another process, or a write that failed, left here, with their names and those of the
    /// folders above. Nothing may be built on what was found before: a power cut could take it away. Nothing to do in a
    /// bucket. Blocks.
    pub fn make_durable(&self, files: &[Path]) -> Result<()> {
        if self.local.is_none() {
            return Ok(());
        }
        let failed = |file: &Path, cause: io::Error| {
            Error::storage(format!("cannot sync `{file}`, which an earlier process wrote")).with_source(cause)
        };
        let mut folders = BTreeMap::new();
        for file in files {
            let path = self.file_of(file)?;
            match self.disk().sync_file(&path) {
                // Whoever removed it meanwhile made that durable.
                Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
                synced => synced.map_err(|cause| failed(file, folders::unsynced(&path, cause)))?,
            }
            folders.extend(path.parent().map(|folder| (folder.to_owned(), file)));
        }
        folders.iter().try_for_each(|(folder, file)| self.folders.sync(folder).map_err(|cause| failed(file, cause)))
    }

    /// Writes files again, each in its own place, if the store is a disk: where the sync of a name failed, it may be that only
    /// another change of it ever reaches the disk. Blocks.
    pub fn renew(&self, files: &[Path]) -> Result<()> {
        let Some(root) = &self.local else { return Ok(()) };
        let writer = Files::new(Arc::clone(&self.folders), root);
        let renew = |file: &Path| {
            let path = self.file_of(file)?;
            writer
                .renew(&path)
                .map_err(|cause| Error::storage(format!("cannot write `{file}` anew")).with_source(cause))
        };
        files.iter().try_for_each(renew)
    }

    /// Lists the files in a folder of the store, if it is a disk; none if there is no such folder. Blocks.
    pub fn files_in(&self, folder: &Path) -> Result<Vec<Path>> {
        let failed = || Error::storage(format!("cannot list `{folder}`"));
        let path = self.file_of(folder)?;
        let names = match self.disk().list(&path) {
            Ok(paths) => paths,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(failed().with_source(cause)),
        };
        let names = names.iter().filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(|name| folder.clone().join(name)).collect())
    }

    /// Returns the file of an object: paths of objects begin at the folder of the store.
    fn file_of(&self, location: &Path) -> Result<PathBuf> {
        let whole: Path = key_of(&self.root)?.parts().chain(location.parts()).collect();
        durable::file_of(&whole)
            .map_err(|cause| Error::internal(format!("`{location}` is no path of a file")).with_source(cause))
    }
}
