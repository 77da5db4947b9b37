//! NumPy arrays and scalars as their pickles describe them.

use super::{Call, Node};

/// The kind of number an array holds; NumPy's letter for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKind {
    /// `b`: one byte, 0 or 1.
    Boolean,
    /// `i`: two's complement.
    Signed,
    /// `u`.
    Unsigned,
    /// `f`: IEEE 754.
    Float,
}

/// A NumPy array of numbers, still in the pickle's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<'p> {
    /// Extent of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// The kind of number the elements are.
    pub kind: ElementKind,
    /// Bytes of one element: 1, 2, 4 or 8.
    pub width: usize,
    /// Whether the first byte of an element is its most significant one.
    pub big_endian: bool,
    /// Whether the first index runs fastest.
    pub fortran_order: bool,
    /// The elements: exactly `width` times the product of `shape` bytes.
    pub bytes: &'p [u8],
}

impl Array<'_> {
    /// The number of elements.
    pub fn element_count(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// Element `index` in the order of the bytes, as an integer; `None` for floats and beyond 64 bits.
    pub fn integer_at(&self, index: usize) -> Option<i64> {
        let bits = self.bits(index)?;
        let unused = 64 - 8 * self.width as u32;
        match self.kind {
            ElementKind::Boolean | ElementKind::Unsigned => i64::try_from(bits).ok(),
            ElementKind::Signed => Some(((bits << unused) as i64) >> unused),
            ElementKind::Float => None,
        }
    }

    /// Element `index` in the order of the bytes, as f64.
    pub fn float_at(&self, index: usize) -> Option<f64> {
        let bits = self.bits(index)?;
        match (self.kind, self.width) {
            (ElementKind::Float, 2) => Some(half::f16::from_bits(bits as u16).to_f64()),
            (ElementKind::Float, 4) => Some(f64::from(f32::from_bits(bits as u32))),
            (ElementKind::Float, 8) => Some(f64::from_bits(bits)),
            (ElementKind::Float, _) => None,
            (ElementKind::Unsigned, _) => Some(bits as f64),
            _ => self.integer_at(index).map(|value| value as f64),
        }
    }

    fn bits(&self, index: usize) -> Option<u64> {
        let start = index.checked_mul(self.width)?;
        let element = self.bytes.get(start..start.checked_add(self.width)?)?;
        let mut wide = [0; 8];
        wide[..self.width].copy_from_slice(element);
        if self.big_endian {
            wide[..self.width].reverse();
        }
        Some(u64::from_le_bytes(wide))
    }
}

fn is_numpy(call: &Call<'_>, name: &str) -> bool {
    matches!(
        call.callable.module,
        "numpy"
            | "numpy.core.multiarray"
            | "numpy._core.multiarray"
            | "numpy.core.numeric"
            | "numpy._core.numeric"
    ) && call.callable.name == name
}

/// `scalar(dtype, bytes)`: an array of no dimensions.
pub(super) fn scalar(node: Node<'_>) -> Option<Array<'_>> {
    let call = node.call().filter(|call| is_numpy(call, "scalar"))?;
    let (kind, width, big_endian) = element_type(call.argument(0)?).ok()?;
    let bytes = call.argument(1)?.bytes()?;
    let array = Array { shape: Vec::new(), kind, width, big_endian, fortran_order: false, bytes };
    (bytes.len() == width).then_some(array)
}

/// `_reconstruct(…)` with the state `(version, shape, dtype, fortran order, bytes)`, or
/// `_frombuffer(bytes, dtype, shape, order)`.
pub(super) fn array(node: Node<'_>) -> Result<Option<Array<'_>>, String> {
    let Some(call) = node.call() else { return Ok(None) };
    let (shape, dtype, fortran_order, bytes) = if is_numpy(&call, "_reconstruct") {
        let state = call.state.ok_or("an array without content")?;
        let part = |index| state.element(index).ok_or("an array state of fewer than five parts");
        let fortran_order = part(3)?;
        let fortran_order = fortran_order.boolean().or(fortran_order.integer().map(|value| value != 0));
        (part(1)?, part(2)?, fortran_order.ok_or("an array order that is no boolean")?, part(4)?)
    } else if is_numpy(&call, "_frombuffer") {
        let part = |index| call.argument(index).ok_or("an array of fewer than four parts");
        (part(2)?, part(1)?, part(3)?.text() == Some("F"), part(0)?)
    } else {
        return Ok(None);
    };
    let (kind, width, big_endian) = element_type(dtype)?;
    let bytes = bytes.bytes().ok_or_else(|| format!("array content that is {}", bytes.describe()))?;
    let shape = extents(shape)?;
    let wanted = shape.iter().try_fold(width, |total, extent| total.checked_mul(*extent));
    if wanted != Some(bytes.len()) {
        return Err(format!(
            "an array of shape {shape:?} and {width}-byte elements in {} bytes",
            bytes.len()
        ));
    }
    Ok(Some(Array { shape, kind, width, big_endian, fortran_order, bytes }))
}

/// The most dimensions NumPy itself knows.
const MOST_DIMENSIONS: usize = 64;

fn extents(shape: Node<'_>) -> Result<Vec<usize>, String> {
    let wrong = || format!("an array shape that is {}", shape.describe());
    if shape.element_count().is_none_or(|count| count > MOST_DIMENSIONS) {
        return Err(wrong());
    }
    let extents = shape.elements().ok_or_else(wrong)?;
    extents.map(|extent| extent.integer().and_then(|e| usize::try_from(e).ok()).ok_or_else(wrong)).collect()
}

/// `dtype('u1', …)` with the state `(version, byte order, …)`: kind, bytes and whether big-endian.
fn element_type(dtype: Node<'_>) -> Result<(ElementKind, usize, bool), String> {
    let call = dtype.call().filter(|call| is_numpy(call, "dtype"));
    let name = call.as_ref().and_then(|call| call.argument(0)).and_then(Node::text);
    let (Some(call), Some(name)) = (call, name) else {
        return Err(format!("an element type that is {}", dtype.describe()));
    };
    let order = call.state.and_then(|state| state.element(1)).and_then(Node::text);
    let big_endian = order == Some(">") || name.starts_with('>');
    let code = name.trim_start_matches(['<', '>', '|', '=']);
    let (kind, width) = match code {
        "b1" => (ElementKind::Boolean, 1),
        "i1" => (ElementKind::Signed, 1),
        "i2" => (ElementKind::Signed, 2),
        "i4" => (ElementKind::Signed, 4),
        "i8" => (ElementKind::Signed, 8),
        "u1" => (ElementKind::Unsigned, 1),
        "u2" => (ElementKind::Unsigned, 2),
        "u4" => (ElementKind::Unsigned, 4),
        "u8" => (ElementKind::Unsigned, 8),
        "f2" => (ElementKind::Float, 2),
        "f4" => (ElementKind::Float, 4),
        "f8" => (ElementKind::Float, 8),
        _ => return Err(format!("elements of type '{code}', which is not a number")),
    };
    Ok((kind, width, big_endian))
}
