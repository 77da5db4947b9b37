//! Dense linear algebra for statistics, in f64: products, Gram matrices, symmetric eigenvectors, pseudo-inverses.
//!
//! Matrices are row-major slices. Everything here runs on one thread in a fixed order, so a result is the same bit
//! for bit whatever the number of threads; callers run independent blocks of rows side by side instead.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Mat, MatRef, Par};
use pulp::NullaryFnOnce;

use crate::error::{Error, Result};
use crate::instructions::arch;

/// Element types that [`matmul`] multiplies.
pub trait Element: Copy + 'static {
    /// The additive identity.
    const ZERO: Self;
    /// The multiplicative identity.
    const ONE: Self;
}

impl Element for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
}

impl Element for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
}

/// A row-major matrix borrowed from a slice, or its transpose.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    elements: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// A matrix of `rows` x `columns` elements, row after row.
    ///
    /// # Panics
    /// If the slice has another number of elements.
    pub fn new(elements: &'a [T], rows: usize, columns: usize) -> View<'a, T> {
        assert_eq!(Some(elements.len()), rows.checked_mul(columns), "a matrix of {rows} x {columns}");
        View { elements, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub fn transposed(self) -> View<'a, T> {
        View {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }
}

/// `out = a b`, row-major, m x n for `a` m x k and `b` k x n. One thread, fixed order of summation.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul<T: Element>(a: View<T>, b: View<T>, out: &mut [T]) {
    out.fill(T::ZERO);
    add_matmul(a, b, out);
}

/// `out += a b`; see [`matmul`].
///
/// # Panics
/// If the shapes do not fit.
pub fn add_matmul<T: Element>(a: View<T>, b: View<T>, out: &mut [T]) {
    assert_eq!(a.columns, b.rows, "inner dimensions of a product");
    assert_eq!(Some(out.len()), a.rows.checked_mul(b.columns), "size of a product");
    add_product_strided(a, b, out, b.columns);
}

/// `out[i * stride + j] += (a b)[i, j]`, the product being a window of a wider row-major matrix.
fn add_product_strided<T: Element>(a: View<T>, b: View<T>, out: &mut [T], stride: usize) {
    if a.rows == 0 || b.columns == 0 || a.columns == 0 {
        return;
    }
    assert!((a.rows - 1) * stride + b.columns <= out.len(), "the window lies inside the matrix");
    // SAFETY: the views cover their slices (checked in `View::new`), the assertion above keeps every written
    // element inside `out`, and `out` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            stride as isize,
            true,
            a.elements.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.elements.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Columns handled at once by [`add_gram`]: wide enough for a fast product, narrow enough that skipping the panels
/// above the diagonal saves nearly half of the work at the usual 512 or 2048 dimensions.
const GRAM_PANEL: usize = 128;

/// `out += xᵀ x` for `x` of `rows` x `columns`, on and below the diagonal only; finish with [`mirror_lower`].
pub fn add_gram(x: &[f64], rows: usize, columns: usize, out: &mut [f64]) {
    assert_eq!(x.len(), rows * columns, "rows of a Gram matrix");
    assert_eq!(out.len(), columns * columns, "size of a Gram matrix");
    if rows == 0 {
        return;
    }
    for start in (0..columns).step_by(GRAM_PANEL) {
        let end = (start + GRAM_PANEL).min(columns);
        // Rows start..end of the result need columns 0..end only.
        let panel = View {
            elements: &x[start..],
            rows: end - start,
            columns: rows,
            row_stride: 1,
            column_stride: columns,
        };
        let left = View { elements: x, rows, columns: end, row_stride: columns, column_stride: 1 };
        add_product_strided(panel, left, &mut out[start * columns..], columns);
    }
}

/// Copies the lower triangle of a square matrix to the upper one.
pub fn mirror_lower(matrix: &mut [f64], size: usize) {
    for row in 0..size {
        for column in row + 1..size {
            matrix[row * size + column] = matrix[column * size + row];
        }
    }
}

/// Eigenvalues, ascending, and eigenvectors of a symmetric matrix.
#[derive(Debug, Clone)]
pub struct SymmetricEigen {
    /// Eigenvalues in ascending order.
    pub values: Vec<f64>,
    /// Row-major, size x size: column j is the unit eigenvector of `values[j]`.
    pub vectors: Vec<f64>,
}

impl SymmetricEigen {
    /// Decomposes a symmetric matrix (row-major, `size` x `size`; only the part on and below the diagonal is read).
    ///
    /// # Errors
    /// An element is not finite.
    pub fn new(matrix: &[f64], size: usize) -> Result<SymmetricEigen> {
        check_finite("eigenvalues", matrix)?;
        let a = MatRef::from_row_major_slice(matrix, size, size);
        let mut vectors = Mat::<f64>::zeros(size, size);
        let mut values = Mat::<f64>::zeros(size, 1);
        let needed =
            self_adjoint_evd_scratch::<f64>(size, ComputeEigenvectors::Yes, Par::Seq, Default::default());
        self_adjoint_evd(
            a,
            values.as_mut().col_mut(0).as_diagonal_mut(),
            Some(vectors.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(needed)),
            Default::default(),
        )
        .map_err(|_| Error::invalid("the iteration for eigenvalues did not converge"))?;
        Ok(SymmetricEigen { values: values.col_as_slice(0).to_vec(), vectors: row_major(vectors.as_ref()) })
    }

    /// Columns `range` of the eigenvectors, row-major, size x `range.len()`.
    pub fn columns(&self, range: std::ops::Range<usize>) -> Vec<f64> {
        let size = self.values.len();
        self.vectors.chunks_exact(size.max(1)).flat_map(|row| row[range.clone()].iter().copied()).collect()
    }
}

/// A thin singular value decomposition `a = U diag(values) Vᵀ`.
#[derive(Debug, Clone)]
pub struct Svd {
    /// Singular values in descending order, min(rows, columns) of them.
    pub values: Vec<f64>,
    /// Left singular vectors, row-major, rows x values.
    pub left: Vec<f64>,
    /// Right singular vectors, row-major, columns x values.
    pub right: Vec<f64>,
}

impl Svd {
    /// Decomposes a row-major matrix.
    ///
    /// # Errors
    /// An element is not finite.
    pub fn new(matrix: &[f64], rows: usize, columns: usize) -> Result<Svd> {
        check_finite("singular values", matrix)?;
        let size = rows.min(columns);
        let (mut u, mut v) = (Mat::<f64>::zeros(rows, size), Mat::<f64>::zeros(columns, size));
        let mut values = Mat::<f64>::zeros(size, 1);
        let thin = ComputeSvdVectors::Thin;
        let needed = svd_scratch::<f64>(rows, columns, thin, thin, Par::Seq, Default::default());
        svd(
            MatRef::from_row_major_slice(matrix, rows, columns),
            values.as_mut().col_mut(0).as_diagonal_mut(),
            Some(u.as_mut()),
            Some(v.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(needed)),
            Default::default(),
        )
        .map_err(|_| Error::invalid("the iteration for singular values did not converge"))?;
        Ok(Svd {
            values: values.col_as_slice(0).to_vec(),
            left: row_major(u.as_ref()),
            right: row_major(v.as_ref()),
        })
    }

    /// Number of singular values above `max(rows, columns) * epsilon * largest`, the usual cut-off for f64.
    pub fn rank(&self) -> usize {
        let size = self.values.len().max(1);
        let longest = (self.left.len() / size).max(self.right.len() / size);
        let cutoff = longest as f64 * f64::EPSILON * self.values.first().copied().unwrap_or(0.0);
        self.values.iter().filter(|&&value| value > cutoff).count()
    }

    /// `pinv(a) b` for a vector `b` with one element for each row of `a`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let size = self.values.len();
        let columns = self.right.len().checked_div(size).unwrap_or(0);
        let mut x = vec![0.0; columns];
        for j in 0..self.rank() {
            let projection: f64 = b.iter().enumerate().map(|(i, b)| self.left[i * size + j] * b).sum();
            for (i, x) in x.iter_mut().enumerate() {
                *x += self.right[i * size + j] * projection / self.values[j];
            }
        }
        x
    }
}

/// A factor `A` with `A Aᵀ = pinv(S)` of a symmetric positive semi-definite `S`: multiplying by it whitens.
#[derive(Debug, Clone, PartialEq)]
pub struct PseudoInverseFactor {
    /// Row-major, `dimension` x `rank`.
    pub factor: Vec<f64>,
    /// Size of the matrix.
    pub dimension: usize,
    /// Number of eigenvalues above the cut-off.
    pub rank: usize,
    /// Largest eigenvalue by magnitude.
    pub largest: f64,
    /// Smallest eigenvalue above the cut-off (NaN if there is none).
    pub smallest_kept: f64,
}

impl PseudoInverseFactor {
    /// Factors the pseudo-inverse of `matrix` (row-major, `size` x `size`). Eigenvalues not above
    /// `size * epsilon * largest` are dropped, as `scipy.linalg.pinvh` does in f64, and so are those beyond the
    /// `highest_rank` largest (a matrix of C centred means has rank C - 1, whatever rounding says).
    ///
    /// # Errors
    /// An element is not finite.
    pub fn new(matrix: &[f64], size: usize, highest_rank: usize) -> Result<PseudoInverseFactor> {
        let eigen = SymmetricEigen::new(matrix, size)?;
        let largest = eigen.values.iter().fold(0.0, |top: f64, value| top.max(value.abs()));
        let cutoff = size as f64 * f64::EPSILON * largest;
        let above = eigen.values.iter().filter(|&&value| value > cutoff).count();
        let rank = above.min(highest_rank);
        let kept = size - rank..size;
        let scales: Vec<f64> = eigen.values[kept.clone()].iter().map(|value| value.sqrt().recip()).collect();
        let mut factor = eigen.columns(kept);
        for row in factor.chunks_exact_mut(rank.max(1)) {
            row.iter_mut().zip(&scales).for_each(|(x, scale)| *x *= scale);
        }
        let smallest_kept = eigen.values.get(size - rank).copied().unwrap_or(f64::NAN);
        Ok(PseudoInverseFactor { factor, dimension: size, rank, largest, smallest_kept })
    }

    /// Ratio of the largest to the smallest eigenvalue kept; infinite if none is.
    pub fn condition(&self) -> f64 {
        if self.rank == 0 { f64::INFINITY } else { self.largest / self.smallest_kept }
    }
}

/// The place of the largest value; of equal ones the first.
pub fn argmax(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, index| if values[index] > values[best] { index } else { best })
}

/// The largest value, -∞ of none.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// `exp((x - shift) scale)` of every x into `out`, for exponents of at most 0; gives their sum, in eight fixed partial sums.
/// Within two units in the last place, and the same on every machine: no library's exponential, no fused multiply-add.
///
/// # Panics
/// If `out` has another length.
pub fn exponentials(x: &[f64], shift: f64, scale: f64, out: &mut [f64]) -> f64 {
    assert_eq!(x.len(), out.len(), "an exponential for each number");
    arch().dispatch(Exponentials { x, shift, scale, out })
}

/// A loop that is compiled for every set of instructions.
struct Exponentials<'a> {
    x: &'a [f64],
    shift: f64,
    scale: f64,
    out: &'a mut [f64],
}

impl NullaryFnOnce for Exponentials<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Exponentials { x, shift, scale, out } = self;
        let mut sums = [0.0; 8];
        let (x, out) = (x.as_chunks::<8>(), out.as_chunks_mut::<8>());
        for (x, out) in x.0.iter().zip(out.0) {
            for lane in 0..8 {
                out[lane] = exp_not_above_one((x[lane] - shift) * scale);
            }
            for lane in 0..8 {
                sums[lane] += out[lane];
            }
        }
        for ((x, out), sum) in x.1.iter().zip(out.1).zip(&mut sums) {
            *out = exp_not_above_one((x - shift) * scale);
            *sum += *out;
        }
        let [a, b, c, d, e, f, g, h] = sums;
        ((a + b) + (c + d)) + ((e + f) + (g + h))
    }
}

/// Their sum alone.
pub fn sum_of_exponentials(x: &[f64], shift: f64, scale: f64) -> f64 {
    const CHUNK: usize = 64;
    let mut room = [0.0; CHUNK];
    x.chunks(CHUNK).map(|x| exponentials(x, shift, scale, &mut room[..x.len()])).sum()
}

/// `e^x` for x <= 0: `2^k e^r` with |r| <= ln 2 / 2, whose series ends below the last place; 0 below the normal numbers.
#[inline(always)]
fn exp_not_above_one(x: f64) -> f64 {
    /// 1.5 x 2^52: added to a number it leaves the nearest whole one in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// ln 2 in two parts: multiples of the first are exact.
    const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    const INVERSE_FACTORIALS: [f64; 14] = [
        1.0,
        1.0,
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5_040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
        1.0 / 3_628_800.0,
        1.0 / 39_916_800.0,
        1.0 / 479_001_600.0,
        1.0 / 6_227_020_800.0,
    ];
    let bounded = x.max(-708.0);
    let shifted = bounded * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (bounded - k * LN2[0]) - k * LN2[1];
    let [.., last] = INVERSE_FACTORIALS;
    let series = INVERSE_FACTORIALS[..13].iter().rev().fold(last, |series, term| series * r + term);
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(1023);
    let power = f64::from_bits(exponent << 52);
    // All ones or none: a branch would keep the loop from being done by vectors.
    let keep = u64::from(x > -708.0).wrapping_neg();
    f64::from_bits((series * power).to_bits() & keep)
}

/// Sum of products, in four fixed partial sums (fast, and the same on every machine without fused multiply-add).
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + tail
}

/// Squared Euclidean norm.
pub fn squared_norm(x: &[f64]) -> f64 {
    dot(x, x)
}

/// Squared Euclidean distance by differences (no cancellation, unlike |a|² - 2ab + |b|²).
pub fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| (x - y) * (x - y)).sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            let difference = x[lane] - y[lane];
            sums[lane] += difference * difference;
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + tail
}

fn row_major(matrix: MatRef<'_, f64>) -> Vec<f64> {
    let mut out = Vec::with_capacity(matrix.nrows() * matrix.ncols());
    for row in 0..matrix.nrows() {
        out.extend((0..matrix.ncols()).map(|column| matrix[(row, column)]));
    }
    out
}

fn check_finite(what: &str, matrix: &[f64]) -> Result<()> {
    match matrix.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(()),
        odd => Err(Error::invalid(format!(
            "cannot compute {what}: {odd} of {} matrix elements are not finite; look for huge values in the data",
            matrix.len()
        ))),
    }
}

#[cfg(test)]
#[path = "linalg_tests.rs"]
mod tests;
