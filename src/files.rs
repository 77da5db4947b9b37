//! Files: reading with bounds, and writing so that a failure damages nothing that existed before.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Writes a file all at once or not at all: a temporary file in the same folder, filled by `write`, synced, renamed.
///
/// Missing parent folders are created. On any error the old file, if there was one, is untouched.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>,
) -> Result<()> {
    let folder = parent(path);
    create_folder(folder)?;
    let temporary = tempfile::Builder::new()
        .prefix(".residua-")
        .suffix(".tmp")
        .tempfile_in(folder)
        .map_err(|e| Error::io("create a temporary file in", folder, e))?;
    let mut buffered = BufWriter::new(temporary.as_file());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(|e| Error::io("write", path, e))?;
    drop(buffered);
    set_ordinary_permissions(temporary.as_file()).map_err(|e| Error::io("set permissions of", path, e))?;
    temporary.as_file().sync_all().map_err(|e| Error::io("sync", path, e))?;
    temporary.persist(path).map_err(|e| Error::io("rename into place", path, e.error))?;
    Ok(())
}

/// The folder a path lies in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary folder beside `path`, to be filled and then renamed to it; missing parents are created.
pub fn temporary_folder_beside(path: &Path) -> Result<tempfile::TempDir> {
    let parent = parent(path);
    create_folder(parent)?;
    tempfile::Builder::new()
        .prefix(".residua-")
        .suffix(".tmp")
        .tempdir_in(parent)
        .map_err(|e| Error::io("create a temporary folder in", parent, e))
}

/// Temporary files are private (0600); a result should be readable like any other file the user makes (0644).
fn set_ordinary_permissions(file: &File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

/// Creates a folder and its parents; no error if it is there already.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::io("create the folder", path, e))
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
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_file_maps_to_an_empty_slice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(map(file.path()).unwrap().is_empty());
    }
}
