//! Reading `.npz` archives: a zip whose members are `.npy` arrays, stored or deflated.
//!
//! Stored members are used where they lie in the mapped file. Deflated ones are inflated in chunks, small ones into
//! memory and large ones into an unlinked temporary file that is mapped in turn, so memory stays bounded.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Crc, read::DeflateDecoder};
use memmap2::Mmap;
use zip::ZipArchive;

use super::npy::{Bytes, NpyArray};
use crate::archive::{self, Member, SharedMap};
use crate::error::{Error, Position, Result};

/// Members up to this size are inflated into memory, larger ones into a temporary file.
const LARGEST_IN_MEMORY: u64 = 64 << 20;
const CHUNK: usize = 1 << 20;

/// An open `.npz` archive.
pub struct Npz {
    path: PathBuf,
    file: SharedMap,
    archive: ZipArchive<Cursor<SharedMap>>,
    /// Number in the archive of each array, by name.
    members: BTreeMap<String, usize>,
}

impl Npz {
    /// Maps the archive and reads its directory.
    ///
    /// # Errors
    /// The file cannot be read or is no zip archive, or two members are arrays of one name.
    pub fn open(path: &Path) -> Result<Npz> {
        Npz::of(path, SharedMap::open(path)?)
    }

    /// The same of an archive inside a mapped file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Npz::open`].
    pub(crate) fn of(path: &Path, file: SharedMap) -> Result<Npz> {
        let archive = archive::open(path, file.clone(), "a zip archive (.npz)")?;
        let mut members = BTreeMap::new();
        for (index, name) in archive.file_names_raw().enumerate() {
            let name = String::from_utf8_lossy(name);
            let name = name.strip_suffix(".npy").unwrap_or(&name);
            if members.insert(name.to_string(), index).is_some() {
                let found = format!("`{name}` and `{name}.npy`");
                return Err(Error::malformed(path, Position::File, "one array of each name", found));
            }
        }
        Ok(Npz { path: path.to_path_buf(), file, archive, members })
    }

    /// Names of the arrays, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.members.keys().map(String::as_str).collect()
    }

    /// The array of this name, or `None`.
    ///
    /// # Errors
    /// Its bytes are damaged, packed in a way other than stored and deflated, or are not an `.npy` array.
    pub fn array(&self, name: &str) -> Result<Option<NpyArray>> {
        let Some(&index) = self.members.get(name) else { return Ok(None) };
        let at = Position::Member(name.to_string());
        let member = &archive::member(&self.path, &at, &mut self.archive.clone(), index)?;
        let stored = self.stored_bytes(name, member)?;
        let array = if member.deflated {
            NpyArray::parse(self.inflate(name, member, stored)?, 0, &self.path, Some(name))?
        } else {
            let mut crc = Crc::new();
            crc.update(stored);
            self.check_crc(name, member, &crc)?;
            let (start, length) = (member.start as usize, stored.len());
            let window: Bytes = Arc::new(Window { file: self.file.clone(), start, length });
            NpyArray::parse(window, 0, &self.path, Some(name))?
        };
        Ok(Some(array))
    }

    fn stored_bytes(&self, name: &str, member: &Member) -> Result<&[u8]> {
        let fail = |expected: &str, found: String| {
            Err(Error::malformed(&self.path, Position::Member(name.to_string()), expected, found))
        };
        let end = member.start.checked_add(member.compressed);
        let Some(end) = end.filter(|&end| end <= self.file.as_ref().len() as u64) else {
            return fail(
                &format!("{} bytes of data at byte {}", member.compressed, member.start),
                format!("a file of {} bytes", self.file.as_ref().len()),
            );
        };
        Ok(&self.file.as_ref()[member.start as usize..end as usize])
    }

    /// Inflates a member in chunks; stops as soon as it turns out longer than declared.
    fn inflate(&self, name: &str, member: &Member, stored: &[u8]) -> Result<Bytes> {
        let at = || Position::Member(name.to_string());
        let mut sink =
            Sink::new(member.size).map_err(|e| Error::io("create a temporary file for", &self.path, e))?;
        let mut decoder = DeflateDecoder::new(stored);
        let mut chunk = vec![0; CHUNK.min(member.size as usize + 1)];
        let (mut crc, mut length) = (Crc::new(), 0u64);
        loop {
            let count = decoder
                .read(&mut chunk)
                .map_err(|e| Error::malformed(&self.path, at(), "deflated data", e.to_string()))?;
            if count == 0 {
                break;
            }
            length += count as u64;
            if length > member.size {
                break;
            }
            crc.update(&chunk[..count]);
            sink.write_all(&chunk[..count])
                .map_err(|e| Error::io("write a temporary file for", &self.path, e))?;
        }
        if length != member.size {
            let found = if length > member.size { "more".to_string() } else { format!("{length} bytes") };
            return Err(Error::malformed(&self.path, at(), format!("{} bytes inflated", member.size), found));
        }
        self.check_crc(name, member, &crc)?;
        sink.finish().map_err(|e| Error::io("map a temporary file for", &self.path, e))
    }

    fn check_crc(&self, name: &str, member: &Member, crc: &Crc) -> Result<()> {
        if crc.sum() == member.checksum {
            return Ok(());
        }
        Err(Error::malformed(
            &self.path,
            Position::Member(name.to_string()),
            format!("checksum {:08x} (is the file damaged?)", member.checksum),
            format!("{:08x}", crc.sum()),
        ))
    }
}

/// A part of a mapped file.
struct Window {
    file: SharedMap,
    start: usize,
    length: usize,
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file.as_ref()[self.start..self.start + self.length]
    }
}

/// Where inflated bytes go.
enum Sink {
    Memory(Vec<u8>),
    Spilled(std::fs::File),
}

impl Sink {
    fn new(size: u64) -> std::io::Result<Sink> {
        // The vector grows with what is really inflated; a declared size alone reserves nothing.
        Ok(if size <= LARGEST_IN_MEMORY {
            Sink::Memory(Vec::new())
        } else {
            Sink::Spilled(tempfile::tempfile()?)
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Sink::Memory(vector) => {
                vector.extend_from_slice(bytes);
                Ok(())
            }
            Sink::Spilled(file) => file.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<Bytes> {
        Ok(match self {
            Sink::Memory(vector) => Arc::new(vector),
            // SAFETY: the file has no name, so no other process can change it, and this one only reads the map.
            Sink::Spilled(file) => Arc::new(unsafe { Mmap::map(&file) }?),
        })
    }
}
