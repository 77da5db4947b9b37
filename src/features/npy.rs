//! Reading one `.npy` array: header, element type, and where the elements lie.
//!
//! Layout (NumPy's `format.py`): `\x93NUMPY`, major and minor version, header length (2 bytes, from version 2 on 4
//! bytes, little-endian), a Python dictionary literal `{'descr', 'fortran_order', 'shape'}`, then the elements.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::foreign;
use crate::error::{Error, Position, Result};

/// Bytes that hold an array: a mapped file, an inflated archive member, a vector.
pub type Bytes = Arc<dyn Deref<Target = [u8]> + Send + Sync>;

/// How one element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// A signed integer of 1, 2, 4 or 8 bytes.
    Signed(u8),
    /// An unsigned integer of 1, 2, 4 or 8 bytes.
    Unsigned(u8),
}

impl Element {
    /// Size in bytes.
    pub fn size(self) -> usize {
        match self {
            Element::F16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
            Element::Signed(size) | Element::Unsigned(size) => size as usize,
        }
    }
}

/// A typed view of the elements of an array; decoding happens when rows are asked for.
#[derive(Clone)]
pub struct NpyArray {
    /// Extent of each dimension.
    pub shape: Vec<usize>,
    /// Element type.
    pub element: Element,
    /// Whether elements are stored most significant byte first.
    pub big_endian: bool,
    /// Whether the first index runs fastest.
    pub fortran: bool,
    bytes: Bytes,
    start: usize,
}

impl std::fmt::Debug for NpyArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NpyArray")
            .field("shape", &self.shape)
            .field("element", &self.element)
            .field("fortran", &self.fortran)
            .finish_non_exhaustive()
    }
}

/// NumPy itself refuses headers above 10,000 bytes unless told to trust the file.
const LONGEST_HEADER: usize = 10_000;
/// `{'descr': ..., 'shape': (...)}` nests two deep; a record type, which is refused later, four.
const DEEPEST_NESTING: usize = 8;

impl NpyArray {
    /// Reads the header of an array that fills `bytes` from `start` on; `path` and `member` are for messages.
    ///
    /// # Errors
    /// Not an `.npy` array, an element type that is neither a real number nor an integer, or fewer elements than
    /// the header promises.
    pub fn parse(bytes: Bytes, start: usize, path: &Path, member: Option<&str>) -> Result<NpyArray> {
        let fail = |offset: usize, expected: &str, found: String| {
            let at = match member {
                Some(name) => Position::Member(format!("{name}` at byte `{offset}")),
                None => Position::Byte(offset as u64),
            };
            Error::malformed(path, at, expected, found)
        };
        let whole = &bytes[start..];
        let header_end =
            check_header(whole).map_err(|(offset, expected, found)| fail(offset, expected, found))?;
        let header = NpyHeader::from_reader(&whole[..header_end])
            .map_err(|e| fail(8, "a header that describes one array", e.to_string()))?;
        let (element, big_endian) = element_type(&header.dtype())
            .ok_or_else(|| fail(10, "an array of f16, f32, f64 or integers", unreadable(&header.dtype())))?;
        let shape: Vec<usize> =
            header.shape().iter().map(|&extent| usize::try_from(extent).unwrap_or(usize::MAX)).collect();
        let needed = shape.iter().try_fold(element.size(), |size, &extent| size.checked_mul(extent));
        let held = whole.len() - header_end;
        if needed.is_none_or(|needed| needed > held) {
            let found = format!("{held} bytes of elements for shape {shape:?}");
            let size = needed.map_or("more than 2^64".to_string(), |size| size.to_string());
            return Err(fail(
                header_end,
                &format!("{size} bytes, as the header says (is the file cut short?)"),
                found,
            ));
        }
        let fortran = header.order() == Order::Fortran;
        Ok(NpyArray { shape, element, big_endian, fortran, bytes, start: start + header_end })
    }

    /// An array held in memory, in C order and this machine's byte order.
    pub fn from_vec<T: bytemuck::NoUninit + Send + Sync>(
        values: Vec<T>,
        element: Element,
        shape: Vec<usize>,
    ) -> NpyArray {
        assert_eq!(size_of::<T>(), element.size(), "element type of an array");
        assert_eq!(values.len(), shape.iter().product::<usize>(), "shape of an array");
        let big_endian = cfg!(target_endian = "big");
        NpyArray { shape, element, big_endian, fortran: false, bytes: Arc::new(Owned(values)), start: 0 }
    }

    /// The stored elements, undecoded.
    pub fn elements(&self) -> &[u8] {
        let size = self.shape.iter().product::<usize>() * self.element.size();
        &self.bytes[self.start..self.start + size]
    }

    /// Decodes element `index` (in storage order) of an integer array; `None` if it does not fit in an `i64`.
    pub fn integer(&self, index: usize) -> Option<i64> {
        let size = self.element.size();
        let stored = &self.elements()[index * size..(index + 1) * size];
        let mut widened = [0u8; 8];
        if self.big_endian {
            stored.iter().rev().zip(&mut widened).for_each(|(from, to)| *to = *from);
        } else {
            widened[..size].copy_from_slice(stored);
        }
        let unused = 64 - 8 * size as u32;
        match self.element {
            Element::Signed(_) => Some((i64::from_le_bytes(widened) << unused) >> unused),
            Element::Unsigned(_) => i64::try_from(u64::from_le_bytes(widened)).ok(),
            Element::F16 | Element::F32 | Element::F64 => None,
        }
    }
}

/// A vector seen as bytes.
struct Owned<T>(Vec<T>);

impl<T: bytemuck::NoUninit> Deref for Owned<T> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Checks what the header parser takes on trust: length, nesting (it is recursive), and that the product of all
/// numbers fits (it multiplies extents unchecked). Returns where the elements begin.
fn check_header(bytes: &[u8]) -> Result<usize, (usize, &'static str, String)> {
    if bytes.len() < 12 || &bytes[..6] != b"\x93NUMPY" {
        return Err((0, "the magic \\x93NUMPY of an .npy array", foreign::beginning(bytes)));
    }
    let (text_start, length) = match bytes[6] {
        1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        2 | 3 => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
        other => return Err((6, "format version 1, 2 or 3", format!("version {other}"))),
    };
    if length > LONGEST_HEADER {
        return Err((8, "a header of at most 10000 bytes", format!("{length} bytes")));
    }
    let Some(text) = bytes.get(text_start..text_start + length) else {
        return Err((
            text_start,
            "the whole header",
            format!("the end of the file after {} bytes", bytes.len()),
        ));
    };
    let (mut depth, mut product, mut digits) = (0usize, 1f64, String::new());
    for &byte in text.iter().chain(b" ") {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST_NESTING {
            return Err((text_start, "a dictionary with a flat shape", "nested brackets".into()));
        }
        if byte.is_ascii_digit() {
            digits.push(char::from(byte));
        } else if !digits.is_empty() {
            product *= digits.parse::<f64>().unwrap_or(f64::INFINITY).max(1.0);
            digits.clear();
        }
    }
    if product >= 2f64.powi(62) {
        return Err((text_start, "a shape that memory could hold", format!("about {product:e} elements")));
    }
    Ok(text_start + length)
}

/// Kind of elements that cannot be read, and how to save them instead.
fn unreadable(dtype: &DType) -> String {
    let descr = dtype.descr();
    let DType::Plain(text) = dtype else {
        return format!("records with fields, {descr} (save each field as an array of its own)");
    };
    let advice = match text.type_char() {
        TypeChar::Object => {
            "Python objects, pickled, which are never executed; save numbers: \
             `numpy.array(list(array), dtype='float32')`"
        }
        TypeChar::Bool => "booleans; save `array.astype('int64')`",
        TypeChar::Complex => "complex numbers; save real ones",
        TypeChar::ByteStr | TypeChar::UnicodeStr => "texts; save numbers: the index of each name",
        TypeChar::Float => "long doubles; save `array.astype('float64')`",
        _ => "not numbers; save `array.astype('float32')`",
    };
    format!("elements of type {descr} ({advice})")
}

fn element_type(dtype: &DType) -> Option<(Element, bool)> {
    let DType::Plain(text) = dtype else { return None };
    let size = text.size_field() as u8;
    let element = match (text.type_char(), text.size_field()) {
        (TypeChar::Float, 2) => Element::F16,
        (TypeChar::Float, 4) => Element::F32,
        (TypeChar::Float, 8) => Element::F64,
        (TypeChar::Int, 1 | 2 | 4 | 8) => Element::Signed(size),
        (TypeChar::Uint, 1 | 2 | 4 | 8) => Element::Unsigned(size),
        _ => return None,
    };
    Some((element, text.endianness() == Endianness::Big))
}
