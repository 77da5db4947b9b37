//! Many checkpoints in one command: which files and folders some patterns mean, in the order of training.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{folder, read_training_record};
use crate::error::{Error, Result};
use crate::files;

/// A checkpoint that [`list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRef {
    /// A checkpoint folder of ours, or a weights file.
    pub path: PathBuf,
    /// Finished epochs, if the checkpoint says.
    pub epoch: Option<u64>,
    /// Whether it is a checkpoint folder of ours.
    pub ours: bool,
}

impl CheckpointRef {
    /// A short name for tables and curves: the folder's, or the file's without its extension.
    pub fn name(&self) -> String {
        let name = if self.ours { self.path.file_name() } else { self.path.file_stem() };
        name.unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}

/// Finds the checkpoints that paths and glob patterns mean: folders of ours, run folders (all their epochs), and
/// weights files such as `resnet_*_epoch.pth`. Each comes once, even if links lead to it; the order is by the stored
/// epoch, then by name with numbers compared as numbers; those without an epoch come last.
///
/// # Errors
/// A pattern that means nothing, and a file or folder that is no checkpoint.
pub fn list(patterns: &[String]) -> Result<Vec<CheckpointRef>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for pattern in patterns {
        for path in matches(pattern)? {
            for path in expand(&path)? {
                let real = path.canonicalize().map_err(|e| Error::io("find", &path, e))?;
                if seen.insert(real.clone()) {
                    let path = if path.is_symlink() { real } else { path };
                    found.push(describe(path)?);
                }
            }
        }
    }
    found.sort_by(|a, b| {
        let epoch = |checkpoint: &CheckpointRef| checkpoint.epoch.unwrap_or(u64::MAX);
        epoch(a)
            .cmp(&epoch(b))
            .then_with(|| files::compare_naturally(&a.path.to_string_lossy(), &b.path.to_string_lossy()))
    });
    Ok(found)
}

/// The paths a pattern matches; a path that exists is itself, whatever characters it has.
fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    if Path::new(pattern).exists() {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let paths = glob::glob_with(pattern, options)
        .map_err(|e| Error::usage(format!("`{pattern}` is no glob pattern: {e}")))?;
    let mut matched = Vec::new();
    for path in paths {
        matched.push(path.map_err(|e| {
            let unreadable = e.path().to_path_buf();
            Error::io("look into", unreadable, e.into())
        })?);
    }
    if matched.is_empty() {
        return Err(Error::invalid(format!(
            "no checkpoint matches `{pattern}`; give checkpoint folders, run folders, or files such as 'resnet_*_epoch.pth'"
        )));
    }
    Ok(matched)
}

/// A run folder, or its `checkpoints`, stands for all its epochs.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() || path.join(folder::META_FILE).is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let inner = path.join("checkpoints");
    let inner = if inner.is_dir() { inner } else { path.to_path_buf() };
    let mut folders = files::list(&inner)?;
    folders.retain(|folder| {
        let hidden = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        !hidden && folder.join(folder::META_FILE).is_file()
    });
    if folders.is_empty() {
        // Nothing inside either: the message of a single checkpoint says what was expected.
        return folder::resolve(path).map(|resolved| vec![resolved]);
    }
    Ok(folders)
}

fn describe(path: PathBuf) -> Result<CheckpointRef> {
    if path.is_dir() {
        let epoch = Some(folder::read_meta(&path)?.epoch);
        Ok(CheckpointRef { path, epoch, ours: true })
    } else {
        let epoch = read_training_record(&path)?.epoch();
        Ok(CheckpointRef { path, epoch, ours: false })
    }
}
