//! Temporary files and folders beside results: gone when dropped, and gone when a signal ends the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::write::{Target, target};
use super::{create_folder, parent};
use crate::error::{Error, Result};

/// Temporary files and folders that a process ended by a signal still has to remove.
static PENDING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A path on the list of what a signal removes, for as long as this lives.
#[derive(Debug)]
pub(super) struct Pending(PathBuf);

impl Pending {
    pub(super) fn new(path: &Path) -> Pending {
        PENDING.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_path_buf());
        Pending(path.to_path_buf())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        PENDING.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
    }
}

/// Removes every temporary file and folder there is now; for a process that ends without unwinding.
pub fn remove_temporaries() {
    // Other threads may still write into a folder that is being removed.
    const TRIES: usize = 3;
    for path in PENDING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        for _ in 0..TRIES {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            if removed.is_ok() {
                break;
            }
        }
    }
}

/// A temporary folder; removed when dropped, unless kept.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: tempfile::TempDir,
    pending: Option<Pending>,
}

impl TemporaryFolder {
    fn in_folder(parent: &Path) -> Result<TemporaryFolder> {
        let folder = named(".tmp")
            .tempdir_in(parent)
            .map_err(|e| Error::io("create a temporary folder in", parent, e))?;
        let pending = Some(Pending::new(folder.path()));
        Ok(TemporaryFolder { folder, pending })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From now on a signal that ends the process leaves the folder: it is about to hold what was there before.
    pub fn spare(&mut self) {
        self.pending = None;
    }

    /// Leaves the folder where it is.
    pub fn keep(mut self) -> PathBuf {
        self.spare();
        self.folder.keep()
    }
}

/// Builds names that no result has: hidden, and the program's.
pub(super) fn named(suffix: &str) -> tempfile::Builder<'static, '_> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".residua-").suffix(suffix);
    builder
}

/// A temporary folder beside `path` (what a link of that name points to), to be filled and then renamed to it; missing
/// parents are created. Beside a device, a pipe or standard output nothing can be created: it then lies where the system
/// keeps temporary files.
///
/// # Errors
/// The folder cannot be created.
pub fn temporary_folder_beside(path: &Path) -> Result<TemporaryFolder> {
    match target(path)? {
        Target::StandardOutput | Target::Through(_) => TemporaryFolder::in_folder(&std::env::temp_dir()),
        Target::Place(place) => {
            let parent = parent(&place);
            create_folder(parent)?;
            TemporaryFolder::in_folder(parent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_yet_finished_is_removed_by_a_signal_and_what_is_kept_stays() {
        let folder = tempfile::tempdir().unwrap();
        let of_name = |name: &str| temporary_folder_beside(&folder.path().join(name)).unwrap();
        let (open, kept, mut spared) = (of_name("a"), of_name("b").keep(), of_name("c"));
        spared.spare();
        fs::write(open.path().join("half"), "half").unwrap();
        remove_temporaries();
        assert!(!open.path().exists() && kept.exists() && spared.path().exists());
    }
}
