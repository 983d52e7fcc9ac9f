//! Makes the remains of other processes and of failed writes durable.

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
    /// Makes files that another process or a failed write left durable, with their names and those
    /// of the folders above. Nothing may depend on such a file before: a power cut could remove it.
    /// Does nothing for a bucket. Blocks.
    pub fn make_durable(&self, files: &[Path]) -> Result<()> {
        if self.local.is_none() {
            return Ok(());
        }
        let failed = |file: &Path, cause: io::Error| {
            Error::storage(format!("cannot sync `{file}`, which an earlier process wrote"))
                .with_source(cause)
        };
        let mut folders = BTreeMap::new();
        for file in files {
            let path = self.file_of(file)?;
            match self.disk().sync_file(&path) {
                // The process that removed the file made the removal durable.
                Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
                synced => synced.map_err(|cause| failed(file, folders::unsynced(&path, cause)))?,
            }
            folders.extend(path.parent().map(|folder| (folder.to_owned(), file)));
        }
        folders.iter().try_for_each(|(folder, file)| {
            self.folders.sync(folder).map_err(|cause| failed(file, cause))
        })
    }

    /// Rewrites files in place if the store is a disk. After a failed sync of a name, it may take
    /// another change of that name before the name reaches the disk. Blocks.
    pub fn renew(&self, files: &[Path]) -> Result<()> {
        let Some(root) = &self.local else { return Ok(()) };
        let writer = Files::new(Arc::clone(&self.folders), root);
        for file in files {
            let path = self.file_of(file)?;
            let failed =
                |cause| Error::storage(format!("cannot rewrite `{file}`")).with_source(cause);
            writer.renew(&path).map_err(failed)?;
        }
        Ok(())
    }

    /// Lists the files in a folder if the store is a disk. A missing folder counts as empty.
    /// Blocks.
    pub fn files_in(&self, folder: &Path) -> Result<Vec<Path>> {
        let path = self.file_of(folder)?;
        let names = match self.disk().list(&path) {
            Ok(paths) => paths,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => {
                return Err(Error::storage(format!("cannot list `{folder}`")).with_source(cause));
            }
        };
        let names = names.iter().filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(|name| folder.clone().join(name)).collect())
    }

    /// Returns the file path of an object. Object paths start at the folder of the store.
    fn file_of(&self, location: &Path) -> Result<PathBuf> {
        let whole: Path = key_of(&self.root)?.parts().chain(location.parts()).collect();
        durable::file_of(&whole).map_err(|cause| {
            Error::internal(format!("`{location}` is not the path of a file")).with_source(cause)
        })
    }
}
