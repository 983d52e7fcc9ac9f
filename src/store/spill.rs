//! The folder that queries of this process spill to: rows in clear, in the folder for temporary
//! files of the operating system.
//!
//! It is this process's alone (0700), and is removed when the process is done with it. What a
//! process that was killed left is removed by the next one that starts on this machine, whichever
//! it is: a folder is in use for as long as it is locked, and a lock goes with its process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use uuid::Uuid;

use super::disk::make_private_folders;

/// What the names of such folders begin with.
pub const PREFIX: &str = "gatelog-spill-";
/// The name of one that is not locked yet.
const UNNAMED: &str = ".gatelog-spill-";

/// A folder that is in use until it is dropped.
#[derive(Debug)]
pub struct SpillFolder {
    path: PathBuf,
    _lock: File,
}

impl SpillFolder {
    /// Makes a folder for this process. The first call removes what processes left that were
    /// killed.
    pub fn create() -> io::Result<Self> {
        static CLEARED: Once = Once::new();
        let base = std::env::temp_dir();
        CLEARED.call_once(|| clear(&base));
        Self::create_in(&base)
    }

    fn create_in(base: &Path) -> io::Result<Self> {
        let name = Uuid::new_v4().simple().to_string();
        let (unnamed, path) = (base.join(format!("{UNNAMED}{name}")), base.join(format!("{PREFIX}{name}")));
        make_private_folders(&unnamed)?;
        let lock = File::open(&unnamed)?;
        // It is locked before it has the name by which others find it.
        lock.lock()?;
        fs::rename(&unnamed, &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        // The next start removes what stays.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders in `base` that no process has.
fn clear(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Those of other users cannot be opened, and are left to them.
        let Ok(folder) = File::open(entry.path()) else { continue };
        if folder.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %error, "cannot remove what a killed process spilled");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_is_kept() {
        let base = tempfile::tempdir().unwrap();
        let used = SpillFolder::create_in(base.path()).unwrap();
        fs::write(used.path().join("rows"), "rows").unwrap();
        let left = base.path().join(format!("{PREFIX}left"));
        fs::create_dir_all(left.join("deep")).unwrap();
        fs::write(left.join("deep/rows"), "rows").unwrap();
        fs::write(base.path().join("other"), "").unwrap();
        clear(base.path());
        assert!(!left.exists() && used.path().join("rows").exists() && base.path().join("other").exists());
        assert_eq!(fs::metadata(used.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
