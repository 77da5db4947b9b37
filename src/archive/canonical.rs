//! Zip archives in one form: names and contents decide every byte, so whoever reads one knows what each byte has to be.
//!
//! Entries are stored, without compression, one behind the other from the first byte on; then come the directory and the end record,
//! and nothing else. Every date is 1980-01-01, every entry a plain file (mode 0644), nothing has a comment or an extra field. Only where
//! a size or position takes more than 32 bits are there the zip64 fields of the format's specification (APPNOTE 4.5.3). The reader makes
//! anew what the writer would have written around the contents, and compares; it allocates nothing by a number from the file.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use flate2::Crc;

use super::{END, END_64, HEADER, LOCATOR, long, method_name, short, word};
use crate::error::{Error, Position, Result};

const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
/// The last size or position that is no zip64 field.
const LARGEST_32: u64 = u32::MAX as u64 - 1;
/// Earliest date of the format, 1980-01-01.
const DATE: u16 = 0x0021;
/// An ordinary file that its owner may write.
const MODE: u32 = 0o100_644;
/// The zip64 extra field.
const EXTRA_64: u16 = 1;
/// Versions of the format that readers need: for files, and for zip64 fields.
const VERSIONS: [u16; 2] = [20, 45];
/// The most entries of an archive.
pub const MOST_ENTRIES: usize = 10_000;
/// The longest name.
pub const LONGEST_NAME: usize = 200;

/// An entry that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, checked by [`check_name`].
    pub name: String,
    /// Where its content lies in the file.
    pub content: Range<usize>,
    /// Position of its header in the file.
    pub header: usize,
    /// CRC-32 that the archive states of the content.
    pub stated_checksum: u32,
    /// CRC-32 of the content.
    pub checksum: u32,
}

/// What surrounds the content of an entry.
#[derive(Clone)]
struct Record<'a> {
    name: &'a str,
    size: u64,
    checksum: u32,
    /// Position of the local header.
    start: u64,
}

/// Whether numbers above this are zip64 fields; the format's limit, but for tests.
#[derive(Clone, Copy)]
struct Form {
    largest_32: u64,
}

const FORM: Form = Form { largest_32: LARGEST_32 };

/// Fields of a header by their position in it.
type Fields = [(Range<usize>, &'static str)];

const LOCAL_FIELDS: &Fields = &[
    (0..4, "signature"),
    (4..6, "version needed"),
    (6..8, "flags"),
    (8..10, "compression method"),
    (10..14, "date"),
    (14..18, "checksum"),
    (18..26, "size"),
    (26..28, "length of the name"),
    (28..30, "length of the extra field"),
];

const CENTRAL_FIELDS: &Fields = &[
    (0..4, "signature"),
    (4..6, "version made by"),
    (6..8, "version needed"),
    (8..10, "flags"),
    (10..12, "compression method"),
    (12..16, "date"),
    (16..20, "checksum"),
    (20..28, "size"),
    (28..30, "length of the name"),
    (30..32, "length of the extra field"),
    (32..34, "length of the comment"),
    (34..36, "number of the disk"),
    (36..38, "internal attributes"),
    (38..42, "mode"),
    (42..46, "position"),
];

impl Form {
    fn is_large(self, value: u64) -> bool {
        value > self.largest_32
    }

    /// The value for a field of 32 bits: itself, or the mark that it stands in the extra field.
    fn short_value(self, value: u64) -> u32 {
        if self.is_large(value) { u32::MAX } else { value as u32 }
    }

    /// The extra field for these values, of which only large ones are written; empty if none is.
    fn extra(self, values: &[u64]) -> Vec<u8> {
        let large: Vec<u64> = values.iter().copied().filter(|value| self.is_large(*value)).collect();
        if large.is_empty() {
            return Vec::new();
        }
        let mut extra = Vec::new();
        extra.extend(EXTRA_64.to_le_bytes());
        extra.extend((8 * large.len() as u16).to_le_bytes());
        large.iter().for_each(|value| extra.extend(value.to_le_bytes()));
        extra
    }

    /// The header in front of an entry's content.
    fn local(self, record: &Record<'_>) -> Vec<u8> {
        let extra = self.extra(&[record.size, record.size]);
        let mut header = LOCAL.to_vec();
        header.extend(VERSIONS[usize::from(!extra.is_empty())].to_le_bytes());
        self.common(&mut header, record, &extra);
        header.extend(record.name.as_bytes());
        header.extend(extra);
        header
    }

    /// The entry's header in the directory.
    fn central(self, record: &Record<'_>) -> Vec<u8> {
        const UNIX: u16 = 3 << 8;
        let extra = self.extra(&[record.size, record.size, record.start]);
        let version = VERSIONS[usize::from(!extra.is_empty())];
        let mut header = HEADER.to_vec();
        header.extend((UNIX | version).to_le_bytes());
        header.extend(version.to_le_bytes());
        self.common(&mut header, record, &extra);
        // No comment, first disk, no internal attributes.
        header.extend([0; 6]);
        header.extend((MODE << 16).to_le_bytes());
        header.extend(self.short_value(record.start).to_le_bytes());
        header.extend(record.name.as_bytes());
        header.extend(extra);
        header
    }

    /// Flags to the length of the extra field, which both headers have.
    fn common(self, header: &mut Vec<u8>, record: &Record<'_>, extra: &[u8]) {
        // No flag, stored, midnight.
        header.extend([0; 6]);
        header.extend(DATE.to_le_bytes());
        header.extend(record.checksum.to_le_bytes());
        header.extend([self.short_value(record.size).to_le_bytes(); 2].concat());
        header.extend((record.name.len() as u16).to_le_bytes());
        header.extend((extra.len() as u16).to_le_bytes());
    }

    /// The records behind the directory.
    fn end(self, entries: u16, directory: Range<u64>) -> Vec<u8> {
        let size = directory.end - directory.start;
        let mut out = Vec::new();
        if self.is_large(size) || self.is_large(directory.start) {
            out.extend(END_64);
            out.extend(44u64.to_le_bytes());
            out.extend([VERSIONS[1].to_le_bytes(); 2].concat());
            out.extend([0; 8]);
            out.extend([u64::from(entries).to_le_bytes(); 2].concat());
            out.extend(size.to_le_bytes());
            out.extend(directory.start.to_le_bytes());
            out.extend(LOCATOR);
            out.extend([0; 4]);
            out.extend(directory.end.to_le_bytes());
            out.extend(1u32.to_le_bytes());
        }
        out.extend(END);
        out.extend([0; 4]);
        out.extend([entries.to_le_bytes(); 2].concat());
        out.extend(self.short_value(size).to_le_bytes());
        out.extend(self.short_value(directory.start).to_le_bytes());
        out.extend([0; 2]);
        out
    }

    fn write(self, out: &mut dyn Write, entries: &[(&str, &[u8])]) -> io::Result<()> {
        assert!(entries.len() <= MOST_ENTRIES, "{} entries", entries.len());
        let (mut start, mut directory) = (0u64, Vec::new());
        for (name, content) in entries {
            assert!(check_name(name).is_ok(), "name of an entry: {name}");
            let (size, checksum) = (content.len() as u64, checksum(content));
            let record = Record { name, size, checksum, start };
            let header = self.local(&record);
            out.write_all(&header)?;
            out.write_all(content)?;
            start += header.len() as u64 + size;
            directory.extend(self.central(&record));
        }
        out.write_all(&directory)?;
        out.write_all(&self.end(entries.len() as u16, start..start + directory.len() as u64))
    }

    fn read(self, path: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
        let (mut entries, mut at) = (Vec::<Entry>::new(), 0);
        let mut names = std::collections::HashSet::new();
        while bytes[at..].starts_with(LOCAL) {
            let entry = self.entry(path, bytes, at)?;
            if !names.insert(entry.name.clone()) {
                let expected = "each entry named once";
                return Err(wrong(
                    path,
                    &entry.name,
                    expected,
                    format!("another entry of this name at byte {at}"),
                ));
            }
            if entries.len() == MOST_ENTRIES {
                let expected = format!("at most {MOST_ENTRIES} entries");
                return Err(Error::malformed(path, Position::File, expected, "more"));
            }
            at = entry.content.end;
            entries.push(entry);
        }
        self.check_directory(path, bytes, at, &entries)?;
        Ok(entries)
    }

    /// The entry whose header begins at `at`.
    fn entry(self, path: &Path, bytes: &[u8], at: usize) -> Result<Entry> {
        let rest = &bytes[at..];
        let place = |what: &str, found: String| {
            Error::malformed(path, Position::Byte(at as u64), format!("{what} of an entry"), found)
        };
        let cut = || format!("the end of the file after {} bytes", bytes.len());
        let header = rest.get(..LOCAL_BYTES).ok_or_else(|| place("the header", cut()))?;
        let (length, extra) = (usize::from(short(header, 26)), usize::from(short(header, 28)));
        let behind = &rest[LOCAL_BYTES..];
        let name = behind.get(..length).ok_or_else(|| place("the name", cut()))?;
        let shown = String::from_utf8_lossy(name).into_owned();
        let name = check_name(&shown).map_err(|found| {
            place(
                "a name made of letters, digits, `.`, `_`, `-` and single `/`",
                format!("{found} in `{shown}`"),
            )
        })?;
        // What programs for zip files write and this one does not is called by its name.
        let plain = |expected: &str, found: String| {
            Err(wrong(path, name, format!("{expected}, as this program writes entries"), found))
        };
        if short(header, 6) & 1 != 0 {
            return plain("an entry without a password", "an encrypted one".into());
        }
        if short(header, 8) != 0 {
            return plain("a stored entry", format!("one packed with {}", method_of(short(header, 8))));
        }
        let mut size = u64::from(word(header, 18));
        if size == u64::from(u32::MAX) && extra >= 12 {
            size = behind.get(length + 4..length + 12).map_or(size, |field| long(field, 0));
        }
        let record = Record { name, size, checksum: word(header, 14), start: at as u64 };
        let expected = self.local(&record);
        let found = &rest[..expected.len().min(rest.len())];
        if found != expected {
            return Err(differs(path, name, "header", LOCAL_FIELDS, (at, &expected, found)));
        }
        let start = at + expected.len();
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
        let Some(end) = end.filter(|&end| end <= bytes.len()) else {
            let found = format!("{} to the end of the file", bytes.len() - start);
            return Err(wrong(path, name, format!("{size} bytes of content from byte {start} on"), found));
        };
        let content = start..end;
        let checksum = checksum(&bytes[content.clone()]);
        Ok(Entry { name: name.to_string(), content, header: at, stated_checksum: record.checksum, checksum })
    }

    /// Compares all that lies behind the last entry with what these entries ask for.
    fn check_directory(self, path: &Path, bytes: &[u8], start: usize, entries: &[Entry]) -> Result<()> {
        let mut at = start;
        for entry in entries {
            let record = Record {
                name: &entry.name,
                size: entry.content.len() as u64,
                checksum: entry.stated_checksum,
                start: entry.header as u64,
            };
            let expected = self.central(&record);
            let found = &bytes[at..bytes.len().min(at + expected.len())];
            if found != expected {
                let place = (at, expected.as_slice(), found);
                return Err(differs(path, &entry.name, "header in the directory", CENTRAL_FIELDS, place));
            }
            at += expected.len();
        }
        let expected = self.end(entries.len() as u16, start as u64..at as u64);
        let found = &bytes[at..];
        if found == expected {
            return Ok(());
        }
        let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let what = match found.len().cmp(&expected.len()) {
            std::cmp::Ordering::Greater if same == expected.len() => {
                format!("{} more bytes", found.len() - same)
            }
            _ => format!("{} bytes, of which byte {} differs", found.len(), at + same),
        };
        let expected = format!(
            "the end of the archive ({} bytes, for {} entries) and nothing behind it",
            expected.len(),
            entries.len()
        );
        Err(Error::malformed(path, Position::Byte(at as u64), expected, what))
    }
}

/// A compression method by the name its users know.
fn method_of(number: u16) -> String {
    match number {
        8 => "Deflate (compression method 8)".to_string(),
        #[allow(deprecated)]
        other => method_name(zip::CompressionMethod::Unsupported(other)),
    }
}

fn checksum(content: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(content);
    crc.sum()
}

fn wrong(path: &Path, name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::malformed(path, Position::Member(name.to_string()), expected, found)
}

/// Says in which field a header differs from the one that belongs there.
fn differs(
    path: &Path,
    name: &str,
    what: &str,
    fields: &Fields,
    (at, expected, found): (usize, &[u8], &[u8]),
) -> Error {
    let same = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let place = format!("at byte {} of the file", at + same);
    let Some((range, field)) = fields.iter().find(|(range, _)| range.contains(&same)) else {
        let (expected, found) = (format!("the {what} of this entry {place}"), "other bytes");
        return wrong(path, name, expected, found);
    };
    let Some(found) = found.get(range.clone()) else {
        return wrong(path, name, format!("the {what} of this entry {place}"), "the end of the file");
    };
    let number = |bytes: &[u8]| {
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        match *field {
            "mode" => mode_in_words(value as u32),
            _ => format!("{value:#x}"),
        }
    };
    let expected = format!(
        "the {field} {} in the {what} {place}, as this program writes it",
        number(&expected[range.clone()])
    );
    wrong(path, name, expected, number(found))
}

/// External attributes: the upper half is a mode of Unix.
fn mode_in_words(attributes: u32) -> String {
    let mode = attributes >> 16;
    let kind = match mode & 0o170_000 {
        0o120_000 => " (a symbolic link)",
        0o040_000 => " (a folder)",
        0o100_000 => " (a file)",
        0 => "",
        _ => " (neither file nor folder)",
    };
    match attributes & 0xffff {
        0 => format!("{mode:o}{kind}"),
        low => format!("{mode:o}{kind} with attributes {low:#x}"),
    }
}

/// Checks the name of an entry: letters, digits, `.`, `_`, `-`, in folders by `/`.
///
/// # Errors
/// Says what was found: nothing, an absolute path, a `..`, a backslash, another character.
pub fn check_name(name: &str) -> Result<&str, String> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'));
    let found = match name {
        "" => "no name".to_string(),
        _ if name.len() > LONGEST_NAME => format!("{} bytes", name.len()),
        _ if name.starts_with('/') => "an absolute path".to_string(),
        _ if name.contains('\\') => "a backslash".to_string(),
        _ if name.ends_with('/') => "a folder".to_string(),
        _ if name.split('/').any(|part| part == "..") => "`..`".to_string(),
        _ if name.split('/').any(|part| part.is_empty() || part == ".") => "an empty part or `.`".to_string(),
        _ => match name.chars().find(|c| odd(*c)) {
            Some(c) => format!("`{c}`"),
            None => return Ok(name),
        },
    };
    Err(found)
}

/// Writes an archive.
///
/// # Errors
/// The destination takes no more.
///
/// # Panics
/// If a name is none that [`check_name`] accepts, or there are more than [`MOST_ENTRIES`].
pub fn write(out: &mut dyn Write, entries: &[(&str, &[u8])]) -> io::Result<()> {
    FORM.write(out, entries)
}

/// Reads where the entries lie, and compares every byte around their contents with what [`write`] writes. Checksums of contents are
/// computed and not judged.
///
/// # Errors
/// A byte around the contents that is not the writer's, named by entry, field and position; a name twice.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    FORM.read(path, bytes)
}

#[cfg(test)]
#[path = "canonical_tests.rs"]
mod tests;
