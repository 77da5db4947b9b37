//! MAT-files of version 5, as far as numeric arrays go (MathWorks, "MAT-File Format"): a header of 128 bytes, then
//! elements of a tag (type, size; eight bytes) and data; an array is an element of elements, possibly one zlib stream.
//!
//! ```text
//! 0    text, "MATLAB 5.0 MAT-file, …"      124  version 0x0100        126  "IM": little-endian
//! array:  flags (class in the lowest byte) | extents (int32) | name (int8) | numbers, column-major
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;

use super::bytes::{compare_checksum, inflate_exactly, little_endian_u32};
use crate::error::{Error, Position, Result};
use crate::files::{self, Mapped};

const HEADER: usize = 128;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Flags, extents and name of the arrays we look for fit in this many bytes; more is inflated only for a wanted one.
const ARRAY_HEADER: u64 = 1024;

/// Element type of unsigned bytes.
pub(super) const UINT8: u32 = 2;

/// An open MAT-file.
#[derive(Debug)]
pub(super) struct MatFile {
    path: PathBuf,
    map: Mapped,
}

/// A numeric array of a MAT-file: where its numbers are, and what.
#[derive(Debug)]
pub(super) struct Array {
    /// Extents; the first varies fastest.
    pub(super) extents: Vec<usize>,
    /// Element type of the stored numbers, for instance [`UINT8`].
    pub(super) element: u32,
    data: Range<usize>,
    inflated: Option<Vec<u8>>,
}

impl MatFile {
    pub(super) fn open(path: &Path) -> Result<MatFile> {
        let map = files::map(path)?;
        let expected = "a MAT-file of version 5 (what MATLAB's `save` and scipy's `savemat` write)";
        let wrong = |found: &str| Error::malformed(path, Position::Byte(0), expected, found);
        if map.starts_with(b"\x89HDF") || map.get(512..516) == Some(b"\x89HDF") {
            return Err(wrong("version 7.3 (HDF5); save it again with `-v7`"));
        }
        match map.get(124..HEADER) {
            Some([0, 1, b'I', b'M']) => Ok(MatFile { path: path.to_path_buf(), map }),
            Some([1, 0, b'M', b'I']) => Err(wrong("a big-endian one; save it again on a machine of today")),
            Some(_) => Err(wrong(&files::describe_content(&map))),
            None => match files::known_content(&map) {
                Some(content) => Err(wrong(content)),
                None => Err(wrong(&format!("{} bytes", map.len()))),
            },
        }
    }

    /// The arrays called `names`, in that order.
    ///
    /// # Errors
    /// One is missing, or the file is damaged before all are found.
    pub(super) fn arrays<const N: usize>(&self, names: [&str; N]) -> Result<[Array; N]> {
        let mut found: [Option<Array>; N] = std::array::from_fn(|_| None);
        let mut at = HEADER;
        while at < self.map.len() && found.iter().any(Option::is_none) {
            let (kind, body) = self.element(at)?;
            let array = match kind {
                MATRIX => self.plain_array(&names, body.clone())?,
                COMPRESSED => self.compressed_array(&names, body.clone())?,
                _ => None,
            };
            if let Some((which, array)) = array {
                found[which] = Some(array);
            }
            at = body.end;
        }
        if let Some(missing) = found.iter().position(Option::is_none) {
            let expected = format!("an array `{}`", names[missing]);
            return Err(Error::malformed(&self.path, Position::File, expected, "none of that name"));
        }
        Ok(found.map(|array| array.expect("looked for above")))
    }

    /// The bytes of an array's numbers.
    pub(super) fn numbers<'a>(&'a self, array: &'a Array) -> &'a [u8] {
        &array.inflated.as_deref().unwrap_or(&self.map)[array.data.clone()]
    }

    /// Type and data of the top-level element at `at`.
    fn element(&self, at: usize) -> Result<(u32, Range<usize>)> {
        let (kind, size) = match (little_endian_u32(&self.map, at), little_endian_u32(&self.map, at + 4)) {
            (Some(kind), Some(size)) => (kind, size as usize),
            _ => return Err(self.wrong(at, "an element's tag of eight bytes", "the end of the file")),
        };
        let start = at + 8;
        let end = start.checked_add(size).filter(|&end| end <= self.map.len()).ok_or_else(|| {
            let left = self.map.len() - start;
            self.wrong(at, &format!("an element of at most the {left} bytes left"), &format!("one of {size}"))
        })?;
        Ok((kind, start..end))
    }

    fn plain_array(&self, names: &[&str], body: Range<usize>) -> Result<Option<(usize, Array)>> {
        let header = self.header(&self.map[body.clone()], body.start)?;
        let Some(which) = names.iter().position(|name| name.as_bytes() == header.name) else {
            return Ok(None);
        };
        let (element, data) = self.numbers_of(&self.map[body.clone()], header.end, body.start)?;
        let data = body.start + data.start..body.start + data.end;
        Ok(Some((which, Array { extents: header.extents, element, data, inflated: None })))
    }

    fn compressed_array(&self, names: &[&str], body: Range<usize>) -> Result<Option<(usize, Array)>> {
        let compressed = body.len() as u64;
        let mut reader = ZlibDecoder::new(&self.map[body.clone()]);
        let mut bytes = Vec::new();
        inflate_exactly(&self.path, &mut reader, compressed, 8, &mut bytes)?;
        if little_endian_u32(&bytes, 0) != Some(MATRIX) {
            return Ok(None);
        }
        let size = u64::from(little_endian_u32(&bytes, 4).unwrap_or(0));
        bytes.clear();
        let first = size.min(ARRAY_HEADER);
        inflate_exactly(&self.path, &mut reader, compressed, first, &mut bytes)?;
        let header = self.header(&bytes, body.start)?;
        let Some(which) = names.iter().position(|name| name.as_bytes() == header.name) else {
            return Ok(None);
        };
        inflate_exactly(&self.path, &mut reader, compressed, size - first, &mut bytes)?;
        // Padding may follow the array.
        compare_checksum(&self.path, &mut reader, size)?;
        let header = self.header(&bytes, body.start)?;
        let (element, data) = self.numbers_of(&bytes, header.end, body.start)?;
        Ok(Some((which, Array { extents: header.extents, element, data, inflated: Some(bytes) })))
    }

    /// Extents and name from the front of an array; `base` is where the array begins in the file, for messages.
    fn header<'a>(&self, array: &'a [u8], base: usize) -> Result<ArrayHeader<'a>> {
        let damaged = || self.wrong(base, "an array with flags, extents and a name", "something else");
        let (_, flags) = part(array, 0).ok_or_else(damaged)?;
        let (_, extents) = part(array, padded(flags.end)).ok_or_else(damaged)?;
        let (_, name) = part(array, padded(extents.end)).ok_or_else(damaged)?;
        let mut sizes = Vec::new();
        for extent in array[extents].chunks(4) {
            let extent =
                little_endian_u32(extent, 0).and_then(|e| i32::try_from(e).ok()).ok_or_else(damaged)?;
            sizes.push(usize::try_from(extent).map_err(|_| damaged())?);
        }
        Ok(ArrayHeader { extents: sizes, end: padded(name.end), name: &array[name] })
    }

    fn numbers_of(&self, array: &[u8], at: usize, base: usize) -> Result<(u32, Range<usize>)> {
        part(array, at)
            .ok_or_else(|| self.wrong(base, "an array with all its numbers", "one that is cut short"))
    }

    fn wrong(&self, at: usize, expected: &str, found: &str) -> Error {
        Error::malformed(&self.path, Position::Byte(at as u64), expected, found)
    }
}

struct ArrayHeader<'a> {
    extents: Vec<usize>,
    name: &'a [u8],
    /// Where the element of numbers begins.
    end: usize,
}

/// Type and data of the element at `at` of an array. Up to four bytes of data may lie in the tag itself ("small data
/// element": size in the upper, type in the lower half of the first word).
fn part(array: &[u8], at: usize) -> Option<(u32, Range<usize>)> {
    let word = little_endian_u32(array, at)?;
    let (kind, size, start) = match word >> 16 {
        0 => (word, little_endian_u32(array, at.checked_add(4)?)? as usize, at.checked_add(8)?),
        small @ 1..=4 => (word & 0xffff, small as usize, at.checked_add(4)?),
        _ => return None,
    };
    let end = start.checked_add(size)?;
    (end <= array.len()).then_some((kind, start..end))
}

/// The next multiple of eight: elements of an array begin there.
fn padded(end: usize) -> usize {
    end.next_multiple_of(8)
}

/// The element types that are numbers: code, name, bytes, and how a number is read from its bytes.
type Number = (u32, &'static str, usize, fn(&[u8]) -> f64);

const NUMBERS: [Number; 10] = [
    (1, "int8", 1, |b| f64::from(b[0] as i8)),
    (UINT8, "uint8", 1, |b| f64::from(b[0])),
    (3, "int16", 2, |b| f64::from(i16::from_le_bytes(sized(b)))),
    (4, "uint16", 2, |b| f64::from(u16::from_le_bytes(sized(b)))),
    (5, "int32", 4, |b| f64::from(i32::from_le_bytes(sized(b)))),
    (6, "uint32", 4, |b| f64::from(u32::from_le_bytes(sized(b)))),
    (7, "single", 4, |b| f64::from(f32::from_le_bytes(sized(b)))),
    (9, "double", 8, |b| f64::from_le_bytes(sized(b))),
    (12, "int64", 8, |b| i64::from_le_bytes(sized(b)) as f64),
    (13, "uint64", 8, |b| u64::from_le_bytes(sized(b)) as f64),
];

fn sized<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the bytes of one number")
}

/// Name of an element type, for people.
pub(super) fn type_name(element: u32) -> String {
    match NUMBERS.iter().find(|(code, ..)| *code == element) {
        Some((_, name, ..)) => format!("{name} elements"),
        None => format!("elements of type code {element}, which are no numbers"),
    }
}

/// Numbers of any stored type as f64; `None` for a type that is no number.
pub(super) fn as_f64(element: u32, bytes: &[u8]) -> Option<Vec<f64>> {
    let &(_, _, size, read) = NUMBERS.iter().find(|(code, ..)| *code == element)?;
    bytes.len().is_multiple_of(size).then(|| bytes.chunks_exact(size).map(read).collect())
}
