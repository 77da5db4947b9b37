//! Zip archives of other programs: opened where their directory really lies, each member checked before it is inflated.
//!
//! The last records of a zip, from its end: the end record (22 bytes and a comment), before it where PyTorch and large
//! archives have one the zip64 locator (20 bytes) and the zip64 end record (56 bytes or more), before those the
//! directory. Positions in these records count from the archive's first byte, which other data may precede.

use std::io::{Cursor, Read, Seek};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use crate::error::{Error, Position, Result};
use crate::files::{self, Mapped};

pub mod canonical;

/// Deflate cannot make more than this many bytes out of one (a run of 258 takes two bits), so a larger declared size
/// is a lie, found before anything is allocated.
pub const LARGEST_RATIO: u64 = 1032;

/// The most inflated at once between two looks at the bound.
const CHUNK: usize = 1 << 16;

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const LONGEST_COMMENT: usize = u16::MAX as usize;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;
const END_64: &[u8] = b"PK\x06\x06";
const END_64_BYTES: usize = 56;
const HEADER: &[u8] = b"PK\x01\x02";
const HEADER_BYTES: usize = 46;

/// Opens a zip archive; `expected` says in the error what the file should have been.
///
/// # Errors
/// No zip, a damaged one, or one that holds two members of the same name, of which nobody can say which is meant.
pub fn open<B: AsRef<[u8]>>(path: &Path, bytes: B, expected: &str) -> Result<ZipArchive<Cursor<B>>> {
    let directory = directory(bytes.as_ref());
    let damaged = |error: zip::result::ZipError| {
        Error::malformed(path, Position::File, expected, format!("one that cannot be read ({error})"))
    };
    // The crate's own search takes what lies `directory size` before the end record for the directory, zip64 records
    // or not; where the second header happens to begin there, it shifts every position of the archive.
    let archive_offset =
        directory.as_ref().map_or(ArchiveOffset::Detect, |found| ArchiveOffset::Known(found.archive_offset));
    let archive = ZipArchive::with_config(Config { archive_offset }, Cursor::new(bytes)).map_err(damaged)?;
    if archive.has_duplicate_names() {
        let bytes = archive.into_inner().into_inner();
        let name = directory.as_ref().and_then(|found| found.repeated_name(bytes.as_ref()));
        let name = name.map_or("a name".into(), |name| format!("`{}`", String::from_utf8_lossy(name)));
        return Err(Error::malformed(
            path,
            Position::File,
            "each member named once",
            format!("{name} twice; unpack the archive and pack it again"),
        ));
    }
    Ok(archive)
}

/// A mapped file, or a part of one, that clones share, so that an open archive is cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedMap {
    file: Arc<Mapped>,
    part: Range<usize>,
}

impl SharedMap {
    /// Maps a file.
    ///
    /// # Errors
    /// It cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<SharedMap> {
        let file = files::map(path)?;
        Ok(SharedMap { part: 0..file.len(), file: Arc::new(file) })
    }

    /// A part of it.
    ///
    /// # Panics
    /// If the part ends beyond this one.
    pub fn part(&self, part: Range<usize>) -> SharedMap {
        let whole = self.as_ref();
        assert!(part.start <= part.end && part.end <= whole.len(), "a part of a mapped file");
        let start = self.part.start;
        SharedMap { file: self.file.clone(), part: start + part.start..start + part.end }
    }
}

impl AsRef<[u8]> for SharedMap {
    fn as_ref(&self) -> &[u8] {
        &self.file[self.part.clone()]
    }
}

/// Where the directory of an archive lies.
struct Directory {
    start: usize,
    end: usize,
    /// Bytes of other data before the archive, for which its own positions do not account.
    archive_offset: u64,
}

impl Directory {
    /// The first name that an earlier header has too.
    fn repeated_name<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let mut seen = std::collections::HashSet::new();
        let mut at = self.start;
        while at < self.end {
            let header = bytes.get(at..self.end)?;
            if !header.starts_with(HEADER) || header.len() < HEADER_BYTES {
                return None;
            }
            let [name, extra, comment] = [28, 30, 32].map(|field| usize::from(short(header, field)));
            let name = header.get(HEADER_BYTES..HEADER_BYTES + name)?;
            if !seen.insert(name) {
                return Some(name);
            }
            at += HEADER_BYTES + name.len() + extra + comment;
        }
        None
    }
}

/// Finds the directory by the last end record before which one lies.
fn directory(bytes: &[u8]) -> Option<Directory> {
    let last = bytes.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(LONGEST_COMMENT);
    (first..=last)
        .rev()
        .filter(|&at| bytes[at..].starts_with(END))
        .filter(|&at| at + END_BYTES + usize::from(short(bytes, at + 20)) <= bytes.len())
        .find_map(|at| directory_before(bytes, at))
}

/// The directory that the end record at `at` speaks of.
fn directory_before(bytes: &[u8], at: usize) -> Option<Directory> {
    let mut end = at;
    let mut size = u64::from(word(bytes, at + 12));
    let mut position = u64::from(word(bytes, at + 16));
    if let Some(record) = zip64_record(bytes, at) {
        end = record;
        size = long(bytes, record + 40);
        position = long(bytes, record + 48);
    }
    let start = end.checked_sub(usize::try_from(size).ok()?)?;
    let archive_offset = (start as u64).checked_sub(position)?;
    (size == 0 || bytes[start..end].starts_with(HEADER)).then_some(Directory { start, end, archive_offset })
}

/// The zip64 end record that belongs to the end record at `at`: where its locator says, or directly before the locator.
fn zip64_record(bytes: &[u8], at: usize) -> Option<usize> {
    let locator = at.checked_sub(LOCATOR_BYTES)?;
    if !bytes[locator..].starts_with(LOCATOR) {
        return None;
    }
    let adjacent = locator.checked_sub(END_64_BYTES);
    let told = usize::try_from(long(bytes, locator + 8)).ok();
    let fits = |record: &usize| {
        record.saturating_add(END_64_BYTES) <= locator && bytes[*record..].starts_with(END_64)
    };
    adjacent.filter(fits).or(told.filter(fits))
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(short(bytes, at)) | u32::from(short(bytes, at + 2)) << 16
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

/// A member's facts from the directory, after a look at whether this program can read it.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Bytes in the archive.
    pub compressed: u64,
    /// Bytes once inflated, as declared.
    pub size: u64,
    /// Position of its data in the file.
    pub start: u64,
    /// CRC-32 of the inflated bytes.
    pub checksum: u32,
    /// Whether it has to be inflated.
    pub deflated: bool,
}

/// Looks at member `index` and reads nothing of it.
///
/// # Errors
/// A method other than stored and deflated, named; an encrypted member; a declared size that its compressed bytes
/// cannot hold; a damaged local header.
pub fn member<R: Read + Seek>(
    path: &Path,
    at: &Position,
    archive: &mut ZipArchive<R>,
    index: usize,
) -> Result<Member> {
    let wrong = |expected: String, found: String| Error::malformed(path, at.clone(), expected, found);
    let entry = archive
        .by_index_raw(index)
        .map_err(|error| wrong("a readable member of a zip archive".into(), error.to_string()))?;
    if entry.encrypted() {
        return Err(wrong(
            "a member without a password".into(),
            "an encrypted one; unpack the archive with its password and pack it again without".into(),
        ));
    }
    let deflated = match entry.compression() {
        CompressionMethod::Stored => false,
        CompressionMethod::Deflated => true,
        other => {
            return Err(wrong(
                "stored or deflated data".into(),
                format!("{}; unpack the archive and pack it again with `zip -r`", method_name(other)),
            ));
        }
    };
    let (compressed, size) = (entry.compressed_size(), entry.size());
    if !deflated && size != compressed {
        return Err(wrong("one size for a stored member".into(), format!("{size} and {compressed} bytes")));
    }
    if size > compressed.saturating_mul(LARGEST_RATIO) {
        return Err(wrong(
            format!("at most {LARGEST_RATIO} times its {compressed} compressed bytes"),
            format!("{size} declared"),
        ));
    }
    let start = entry.data_start().ok_or_else(|| wrong("a local header".into(), "none".into()))?;
    Ok(Member { compressed, size, start, checksum: entry.crc32(), deflated })
}

/// A compression method by the name its users know.
fn method_name(method: CompressionMethod) -> String {
    #[allow(deprecated)]
    let number = match method {
        CompressionMethod::Unsupported(number) => number,
        other => return other.to_string(),
    };
    let name = match number {
        1 => "Shrink",
        2..=5 => "Reduce",
        6 | 10 => "Implode",
        9 => "Deflate64",
        12 => "bzip2",
        14 => "LZMA",
        20 | 93 => "Zstandard",
        95 => "XZ",
        98 => "PPMd",
        99 => "AES encryption",
        _ => return format!("the unknown compression method {number}"),
    };
    format!("{name} (compression method {number})")
}

/// Reads member `index`; memory grows with the bytes really there, and its checksum is compared.
///
/// # Errors
/// As [`member`]; damaged data, a wrong checksum, more or fewer bytes than declared.
pub fn read_member<R: Read + Seek>(
    path: &Path,
    at: &Position,
    archive: &mut ZipArchive<R>,
    index: usize,
) -> Result<Vec<u8>> {
    let declared = member(path, at, archive, index)?.size;
    let wrong = |found: String| Error::malformed(path, at.clone(), format!("{declared} intact bytes"), found);
    let file = archive.by_index(index).map_err(|error| wrong(error.to_string()))?;
    let mut out = Vec::with_capacity(usize::try_from(declared).unwrap_or(CHUNK).min(CHUNK));
    file.take(declared.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|error| wrong(format!("damaged data ({error})")))?;
    if out.len() as u64 != declared {
        let more = if out.len() as u64 > declared { " or more" } else { "" };
        return Err(wrong(format!("{} bytes{more}", out.len())));
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
