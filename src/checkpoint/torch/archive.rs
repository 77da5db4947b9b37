//! PyTorch's zip archives: `NAME/data.pkl`, `NAME/data/KEY` for each storage, `NAME/byteorder`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use zip::ZipArchive;

use super::{Contents, Storages, Wanted, contents, refuse_big_endian};
use crate::archive;
use crate::error::{Error, Position, Result};
use crate::pickle;

/// Reads the tensors of a zip archive that `torch.save` wrote.
pub(super) fn read(path: &Path, bytes: &[u8], wanted: Wanted<'_>) -> Result<Contents> {
    let (mut archive, folder) = Archive::open(path, bytes)?;
    let member = format!("{folder}data.pkl");
    let data = archive.member(&member)?;
    let byte_order = format!("{folder}byteorder");
    if archive.optional_member(&byte_order)?.is_some_and(|order| order != b"little") {
        return Err(refuse_big_endian(path, Position::Member(byte_order)));
    }
    let pickle = pickle::read(&data).map_err(|p| p.in_member(path, &member))?;
    let mut storages = ArchiveStorages { archive, folder, loaded: HashMap::new() };
    contents(path, &pickle, &mut storages, wanted)
}

/// A zip file with what its reader needs for messages and bounds.
struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// Compressed bytes that may still be read: members that overlap would otherwise multiply.
    budget: u64,
}

impl<'a> Archive<'a> {
    /// Opens the archive and finds the folder the pickle lies in, with a slash behind it.
    fn open(path: &'a Path, bytes: &'a [u8]) -> Result<(Self, String)> {
        let zip = archive::open(path, bytes, "a zip archive that torch.save wrote")?;
        let folders: Vec<String> = zip
            .file_names()
            .filter_map(|name| name.ok()?.strip_suffix("data.pkl").map(str::to_string))
            .filter(|folder| folder.is_empty() || folder.ends_with('/'))
            .collect();
        match folders.as_slice() {
            [folder] => Ok((Archive { path, zip, budget: bytes.len() as u64 }, folder.clone())),
            other => Err(Error::malformed(
                path,
                Position::File,
                "an archive with one data.pkl, as torch.save writes it",
                format!("{} of them", other.len()),
            )),
        }
    }

    fn member(&mut self, name: &str) -> Result<Vec<u8>> {
        self.optional_member(name)?.ok_or_else(|| {
            let at = Position::Member(name.to_string());
            Error::malformed(self.path, at, "a member of the archive", "none of that name")
        })
    }

    /// Inflates a member; memory grows with what is really there.
    fn optional_member(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(index) = self.zip.index_for_name(name) else { return Ok(None) };
        let at = Position::Member(name.to_string());
        let packed = archive::member(self.path, &at, &mut self.zip, index)?.compressed;
        let Some(budget) = self.budget.checked_sub(packed) else {
            let expected = format!("at most {} more compressed bytes, which the file has", self.budget);
            return Err(Error::malformed(self.path, at, expected, packed.to_string()));
        };
        self.budget = budget;
        archive::read_member(self.path, &at, &mut self.zip, index).map(Some)
    }
}

/// Storages in an archive, each read once.
struct ArchiveStorages<'a> {
    archive: Archive<'a>,
    folder: String,
    loaded: HashMap<String, Vec<u8>>,
}

impl Storages for ArchiveStorages<'_> {
    fn bytes(&mut self, key: &str, length: usize) -> Result<Cow<'_, [u8]>> {
        let member = format!("{}data/{key}", self.folder);
        if !self.loaded.contains_key(key) {
            let bytes = self.archive.member(&member)?;
            self.loaded.insert(key.to_string(), bytes);
        }
        let bytes = &self.loaded[key];
        if bytes.len() != length {
            let expected = format!("a storage of {length} bytes");
            let found = bytes.len().to_string();
            return Err(Error::malformed(self.archive.path, Position::Member(member), expected, found));
        }
        Ok(Cow::Borrowed(bytes))
    }

    fn position(&self) -> Position {
        Position::Member(format!("{}data.pkl", self.folder))
    }
}
