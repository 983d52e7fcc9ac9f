//! Reads the files of a folder while an engine may delete some of them.
//!
//! A file or folder that goes away between listing and reading is passed over. Any other error ends
//! the test.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Returns every folder and file at and below `root`, in the order of their paths.
pub fn entries(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let listed = if_there(fs::read_dir(&path), &path);
            pending.extend(listed.into_iter().flatten().map(|entry| entry.unwrap().path()));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Returns every file below `root` with its bytes, in the order of their paths.
pub fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = entries(root).into_iter().filter(|path| !path.is_dir());
    files.filter_map(|path| if_there(fs::read(&path), &path).map(|bytes| (path, bytes))).collect()
}

/// Returns the paths of the files below `root` that contain `text`.
pub fn containing(root: &Path, text: &[u8]) -> Vec<String> {
    let found =
        contents(root).into_iter().filter(|(_, bytes)| memchr::memmem::find(bytes, text).is_some());
    found.map(|(path, _)| path.display().to_string()).collect()
}

/// Returns what was read of a path, or `None` if the path is gone.
fn if_there<T>(read: io::Result<T>, path: &Path) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}
