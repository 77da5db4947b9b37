//! Files: reading with bounds, and writing so that a failure damages nothing that existed before.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

mod content;
mod temporary;
mod text;
mod write;

pub use content::{describe_content, known_content};
pub use temporary::{TemporaryFolder, remove_temporaries, temporary_folder_beside};
pub use text::{csv_text, read_json, write, write_json};
pub use write::{
    check_output_file, check_output_folder, is_replaceable, is_standard_output, print, write_atomically,
};

/// The folder a path lies in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a folder and its parents; no error if it is there already.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::io("create the folder", path, e))
}

/// Paths of the files and folders in a folder, in no particular order.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.map_err(|e| Error::io("list", folder, e))
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io("read the size of", path, e))?;
    if metadata.is_dir() {
        return Err(Error::invalid(format!("{} is a folder where a file was expected", path.display())));
    }
    Ok(file)
}

/// Reads a whole text file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let file = open(path)?;
    let size = file.metadata().map_err(|e| Error::io("read the size of", path, e))?.len();
    if size > limit {
        return Err(Error::invalid(format!(
            "{} has {size} bytes; a file of this kind has at most {limit}",
            path.display()
        )));
    }
    fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}

/// Maps a file into memory for reading. An empty file gives an empty slice.
///
/// The mapping is private to this process; a file that another process truncates while it is mapped is outside
/// what any reader can guard against (the operating system signals SIGBUS).
pub fn map(path: &Path) -> Result<Mapped> {
    let file = open(path)?;
    let size = file.metadata().map_err(|e| Error::io("read the size of", path, e))?.len();
    if size == 0 {
        return Ok(Mapped { map: None });
    }
    // SAFETY: the map is read-only, and this program never writes to a file it has mapped (results are renamed
    // into place, which leaves the old inode alone).
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
    Ok(Mapped { map: Some(map) })
}

/// A read-only view of a whole file.
#[derive(Debug)]
pub struct Mapped {
    map: Option<Mmap>,
}

impl std::ops::Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

/// Compares names so that `epoch_9` comes before `epoch_10`: runs of digits by value, everything else as text.
pub fn compare_naturally(a: &str, b: &str) -> Ordering {
    natural_key(a).cmp(&natural_key(b)).then_with(|| a.cmp(b))
}

/// Runs of digits as (length without leading zeros, digits), runs of other characters as (0, characters).
fn natural_key(text: &str) -> Vec<(usize, &str)> {
    let mut key = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(end);
        let significant = run.trim_start_matches('0');
        key.push(if digits { (1 + significant.len(), significant) } else { (0, run) });
        rest = behind;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_compared_as_numbers() {
        let mut names = ["e_10", "e_9", "e_010b", "d_100", "e_9b"];
        names.sort_by(|a, b| compare_naturally(a, b));
        assert_eq!(names, ["d_100", "e_9", "e_9b", "e_10", "e_010b"]);
    }

    #[test]
    fn an_empty_file_maps_to_an_empty_slice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(map(file.path()).unwrap().is_empty());
    }
}
