//! A matrix on disk or in memory, read in blocks of rows as f64 or f32 whatever its element type and order.

use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use rayon::prelude::*;

use super::npy::{Element, NpyArray};
use crate::error::{Error, Position, Result};

/// N x K real numbers, every one finite and within the range of f32 (checked once, on opening), so that squares and
/// sums of them cannot overflow in f64.
#[derive(Debug, Clone)]
pub struct Matrix {
    array: NpyArray,
    rows: usize,
    columns: usize,
}

/// Elements checked by one task on opening.
const CHECK_BLOCK: usize = 1 << 18;

impl Matrix {
    /// Wraps a two-dimensional array of floats and checks every element.
    ///
    /// # Errors
    /// Another number of dimensions, integers, no columns, or an element that is NaN, infinite or beyond f32; the
    /// message names the first such row.
    pub fn new(array: NpyArray, path: &Path, name: &str) -> Result<Matrix> {
        let at = || Position::Member(name.to_string());
        let &[rows, columns] = array.shape.as_slice() else {
            let found = format!("shape {:?}", array.shape);
            return Err(Error::malformed(path, at(), "a matrix with a row per sample", found));
        };
        if columns == 0 {
            return Err(Error::malformed(path, at(), "at least one column", format!("shape ({rows}, 0)")));
        }
        if matches!(array.element, Element::Signed(_) | Element::Unsigned(_)) {
            let found = format!("integers (save `{name}.astype('float32')`)");
            return Err(Error::malformed(path, at(), "floating-point numbers", found));
        }
        let matrix = Matrix { array, rows, columns };
        matrix.check(path, name)?;
        Ok(matrix)
    }

    /// A matrix held in memory, row-major.
    ///
    /// # Errors
    /// An element is NaN or infinite; the message names `name` and the row.
    ///
    /// # Panics
    /// If the number of values is not a multiple of `columns`, or `columns` is zero.
    pub fn from_f32(values: Vec<f32>, columns: usize, name: &str) -> Result<Matrix> {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "whole rows of {columns} columns");
        let shape = vec![values.len() / columns, columns];
        Matrix::new(NpyArray::from_vec(values, Element::F32, shape), &PathBuf::from("memory"), name)
    }

    /// The same in double precision.
    ///
    /// # Errors
    /// As [`Matrix::from_f32`].
    ///
    /// # Panics
    /// As [`Matrix::from_f32`].
    pub fn from_f64(values: Vec<f64>, columns: usize, name: &str) -> Result<Matrix> {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "whole rows of {columns} columns");
        let shape = vec![values.len() / columns, columns];
        Matrix::new(NpyArray::from_vec(values, Element::F64, shape), &PathBuf::from("memory"), name)
    }

    /// The stored array.
    pub(super) fn array(&self) -> &NpyArray {
        &self.array
    }

    /// How elements are stored.
    pub fn element(&self) -> Element {
        self.array.element
    }

    /// Number of rows (samples).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Decodes some rows, row-major, into `out` (made to fit).
    ///
    /// # Panics
    /// If the range reaches beyond the matrix.
    pub fn read_f64(&self, rows: Range<usize>, out: &mut Vec<f64>) {
        self.read(rows, out);
    }

    /// Decodes some rows as f32 (exact for f16 and f32, rounded from f64).
    ///
    /// # Panics
    /// If the range reaches beyond the matrix.
    pub fn read_f32(&self, rows: Range<usize>, out: &mut Vec<f32>) {
        self.read(rows, out);
    }

    fn read<T: Target>(&self, rows: Range<usize>, out: &mut Vec<T>) {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        out.clear();
        out.resize(rows.len() * self.columns, T::from(0.0));
        let size = self.array.element.size();
        let elements = self.array.elements();
        if self.array.fortran {
            // Column j holds its rows side by side: elements j * rows + i.
            for column in 0..if rows.is_empty() { 0 } else { self.columns } {
                let start = column * self.rows;
                let stored = &elements[(start + rows.start) * size..(start + rows.end) * size];
                self.decode(stored, out[column..].iter_mut().step_by(self.columns));
            }
        } else {
            let stored = &elements[rows.start * self.columns * size..rows.end * self.columns * size];
            self.decode(stored, out.iter_mut());
        }
    }

    fn decode<'a, T: Target + 'a>(&self, stored: &[u8], out: impl Iterator<Item = &'a mut T>) {
        macro_rules! each {
            ($bytes:literal, $decode:expr, $convert:path) => {{
                let parts = stored.as_chunks::<$bytes>().0;
                parts.iter().zip(out).for_each(|(part, out)| *out = $convert($decode(*part)))
            }};
        }
        match (self.array.element, self.array.big_endian) {
            (Element::F16, false) => each!(2, |b| f16::from_le_bytes(b).to_f32(), T::from),
            (Element::F16, true) => each!(2, |b| f16::from_be_bytes(b).to_f32(), T::from),
            (Element::F32, false) => each!(4, f32::from_le_bytes, T::from),
            (Element::F32, true) => each!(4, f32::from_be_bytes, T::from),
            (Element::F64, false) => each!(8, f64::from_le_bytes, T::from_f64),
            (Element::F64, true) => each!(8, f64::from_be_bytes, T::from_f64),
            (Element::Signed(_) | Element::Unsigned(_), _) => unreachable!("integers are refused on opening"),
        }
    }

    fn check(&self, path: &Path, name: &str) -> Result<()> {
        let block = (CHECK_BLOCK / self.columns).max(1);
        let starts: Vec<usize> = (0..self.rows).step_by(block).collect();
        let odd = starts
            .par_iter()
            .filter_map(|&start| {
                let mut values = Vec::new();
                self.read_f64(start..(start + block).min(self.rows), &mut values);
                let index = values.iter().position(|value| !in_range(*value))?;
                Some((start + index / self.columns, index % self.columns, values[index]))
            })
            .min_by_key(|&(row, ..)| row);
        match odd {
            None => Ok(()),
            Some((row, column, value)) => Err(Error::malformed(
                path,
                Position::Row(row as u64),
                format!("finite numbers in `{name}` (leave such samples out, or extract them again)"),
                format!("{value} in column {column}"),
            )),
        }
    }
}

fn in_range(value: f64) -> bool {
    value.abs() <= f64::from(f32::MAX)
}

/// The element type that rows are decoded to.
trait Target: Copy + From<f32> {
    fn from_f64(value: f64) -> Self;
}

impl Target for f32 {
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
}

impl Target for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }
}
