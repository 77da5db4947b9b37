//! The run folder: where one experiment keeps everything, locked by one process.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// The file in a run folder that holds the recipe of the run, every default written out.
pub const RECIPE_FILE: &str = "recipe.toml";

/// A run folder this process holds.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Takes hold of a folder, creating it if need be.
    ///
    /// # Errors
    /// Another process holds it, or something that is no folder is there.
    pub fn lock(path: &Path) -> Result<RunFolder> {
        files::check_output_folder(path)?;
        files::create_folder(path)?;
        let lock_path = path.join(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| Error::io("open the lock", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(RunFolder { path: path.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::invalid(format!(
                "another process is working in {}; wait for it, or choose another --out",
                path.display()
            ))),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &lock_path, e)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `recipe.toml`.
    pub fn recipe(&self) -> PathBuf {
        self.path.join(RECIPE_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_folder_belongs_to_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let held = RunFolder::lock(folder.path()).unwrap();
        let second = RunFolder::lock(folder.path()).unwrap_err();
        assert!(second.to_string().contains("another process"));
        drop(held);
        RunFolder::lock(folder.path()).unwrap();
    }
}
