//! Matrix products, by the `gemm` crate, and the fully connected layer made of them.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use crate::error::Result;
use crate::ops::{Linear, LinearForward, LinearInputGradient, LinearWeightGradient};
use crate::tensor::Span;

/// A matrix in a slice: element (i, j) lies at `i * row_stride + j * column_stride`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub values: &'a [T],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows that follow each other.
    pub(super) fn row_major(values: &'a [T], columns: usize) -> Matrix<'a, T> {
        Matrix { values, row_stride: columns, column_stride: 1 }
    }

    /// The transpose of a matrix whose rows follow each other.
    pub(super) fn transposed(values: &'a [T], columns: usize) -> Matrix<'a, T> {
        Matrix { values, row_stride: 1, column_stride: columns }
    }

    /// Whether every element of a `rows` x `columns` matrix lies inside the slice.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        let last = (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        last < self.values.len()
    }
}

/// `out = left right`, or `out += left right`; left is `rows` x `depth`, out row-major `rows` x `columns`.
///
/// Runs on the calling thread: the caller cuts the work into pieces of fixed shape.
pub(super) fn multiply<T: Element>(
    [rows, depth, columns]: [usize; 3],
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
    add: bool,
    out: &mut [T],
) {
    assert_eq!(out.len(), rows * columns, "the product of a matrix product has its shape");
    if rows == 0 || columns == 0 {
        return;
    }
    if depth == 0 {
        if !add {
            out.fill(T::ZERO);
        }
        return;
    }
    assert!(left.holds(rows, depth) && right.holds(depth, columns), "the factors lie inside their slices");
    // SAFETY: by the assertions above every element read or written lies inside its slice; `out` is exclusive.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out.as_mut_ptr(),
            1,
            columns as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Rows of an output that one task of a fully connected layer computes.
const ROWS: usize = 32;

pub(super) fn linear<T: Element>(cpu: &mut Cpu<T>, op: &LinearForward<Span>, _: Span) -> Result<()> {
    let Linear { inputs, outputs, .. } = op.attributes;
    let ([x, weight, bias], [y]) = cpu.memory.slices::<T, _, _>([op.x, op.weight, op.bias], [op.y])?;
    y.par_chunks_mut(ROWS * outputs).zip(x.par_chunks(ROWS * inputs)).for_each(|(y, x)| {
        for row in y.chunks_exact_mut(outputs) {
            row.copy_from_slice(bias);
        }
        let shape = [y.len() / outputs, inputs, outputs];
        multiply(shape, Matrix::row_major(x, inputs), Matrix::transposed(weight, inputs), true, y);
    });
    Ok(())
}

pub(super) fn linear_input_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &LinearInputGradient<Span>,
    _: Span,
) -> Result<()> {
    let Linear { inputs, outputs, .. } = op.attributes;
    let ([dy, weight], [dx]) = cpu.memory.slices::<T, _, _>([op.dy, op.weight], [op.dx])?;
    dx.par_chunks_mut(ROWS * inputs).zip(dy.par_chunks(ROWS * outputs)).for_each(|(dx, dy)| {
        let shape = [dx.len() / inputs, outputs, inputs];
        multiply(shape, Matrix::row_major(dy, outputs), Matrix::row_major(weight, inputs), false, dx);
    });
    Ok(())
}

pub(super) fn linear_weight_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &LinearWeightGradient<Span>,
    _: Span,
) -> Result<()> {
    let Linear { batch, inputs, outputs } = op.attributes;
    let ([x, dy], [dweight, dbias]) = cpu.memory.slices::<T, _, _>([op.x, op.dy], [op.dweight, op.dbias])?;
    dweight.par_chunks_mut(ROWS * inputs).enumerate().for_each(|(index, dweight)| {
        let shape = [dweight.len() / inputs, batch, inputs];
        let columns_of_dy = Matrix::transposed(&dy[index * ROWS..], outputs);
        multiply(shape, columns_of_dy, Matrix::row_major(x, inputs), false, dweight);
    });
    for (output, dbias) in dbias.iter_mut().enumerate() {
        let sum: f64 = dy.iter().skip(output).step_by(outputs).map(|d| d.to_f64()).sum();
        *dbias = T::from_f64(sum);
    }
    Ok(())
}
