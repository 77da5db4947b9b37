//! The three transforms of F(4x4, 3x3), along one axis and along both.
//!
//! Polynomials are multiplied by their values at the points 0, +-a, +-b and infinity (Toom-Cook). The usual points 0, +-1, +-2
//! lose twice the digits that a = 5/8, b = 3/2 lose (relative error of a convolution over 128 channels against f64:
//! 1.9e-6 against 0.9e-6, where the direct algorithm has 0.16e-6); all constants of these are exact in f32 but for the
//! filters'. On the choice of points: Barabasz, Anderson, Soodhalter & Gregg, "Error analysis and improving the accuracy of
//! Winograd convolution for deep neural networks", ACM Transactions on Mathematical Software 46 (2020).

use pulp::Simd;

/// Outputs of a tile along an axis.
pub(super) const OUTPUTS: usize = 4;

/// Inputs of a tile along an axis, and points along it.
pub(super) const POINTS: usize = 6;

/// Points of a tile.
pub(super) const PLANES: usize = POINTS * POINTS;

const A: f32 = 5.0 / 8.0;
const B: f32 = 3.0 / 2.0;
const AA: f32 = A * A;
const BB: f32 = B * B;

/// What the other points make of each point: `1 / product of the differences`, for 0, +-a, +-b.
const FILTER_0: f32 = 1.0 / (AA * BB);
const FILTER_A: f32 = 1.0 / (2.0 * AA * (AA - BB));
const FILTER_B: f32 = 1.0 / (2.0 * BB * (BB - AA));

/// `[body(0), body(1), ...]`. An array that is filled in a loop would be zeroed first, and `std::array::from_fn` is not inlined
/// into code for wide instructions.
macro_rules! array {
    (3, |$i:ident| $body:expr) => { array!(@ $i $body; 0 1 2) };
    (4, |$i:ident| $body:expr) => { array!(@ $i $body; 0 1 2 3) };
    (6, |$i:ident| $body:expr) => { array!(@ $i $body; 0 1 2 3 4 5) };
    (@ $i:ident $body:expr; $($at:literal)+) => { [$({ let $i: usize = $at; $body }),+] };
}
pub(super) use array;

/// A tile of vectors.
pub(super) type Square<V, const N: usize> = [[V; N]; N];

/// Six inputs to their values at the points.
#[inline(always)]
fn input_axis<S: Simd>(simd: S, x: [S::f32s; POINTS]) -> [S::f32s; POINTS] {
    let even_a = simd.mul_add_e_f32s(simd.splat_f32s(-BB), x[2], x[4]);
    let odd_a = simd.mul_add_e_f32s(simd.splat_f32s(-BB), x[1], x[3]);
    let even_b = simd.mul_add_e_f32s(simd.splat_f32s(-AA), x[2], x[4]);
    let odd_b = simd.mul_add_e_f32s(simd.splat_f32s(-AA), x[1], x[3]);
    let first = simd.mul_add_e_f32s(simd.splat_f32s(-(AA + BB)), x[2], x[4]);
    let last = simd.mul_add_e_f32s(simd.splat_f32s(-(AA + BB)), x[3], x[5]);
    [
        simd.mul_add_e_f32s(simd.splat_f32s(AA * BB), x[0], first),
        simd.mul_add_e_f32s(simd.splat_f32s(A), odd_a, even_a),
        simd.mul_add_e_f32s(simd.splat_f32s(-A), odd_a, even_a),
        simd.mul_add_e_f32s(simd.splat_f32s(B), odd_b, even_b),
        simd.mul_add_e_f32s(simd.splat_f32s(-B), odd_b, even_b),
        simd.mul_add_e_f32s(simd.splat_f32s(AA * BB), x[1], last),
    ]
}

/// Three filter taps to their values at the points.
#[inline(always)]
fn filter_axis<S: Simd>(simd: S, w: [S::f32s; 3]) -> [S::f32s; POINTS] {
    let even_a =
        simd.mul_f32s(simd.splat_f32s(FILTER_A), simd.mul_add_e_f32s(simd.splat_f32s(AA), w[2], w[0]));
    let even_b =
        simd.mul_f32s(simd.splat_f32s(FILTER_B), simd.mul_add_e_f32s(simd.splat_f32s(BB), w[2], w[0]));
    [
        simd.mul_f32s(simd.splat_f32s(FILTER_0), w[0]),
        simd.mul_add_e_f32s(simd.splat_f32s(FILTER_A * A), w[1], even_a),
        simd.mul_add_e_f32s(simd.splat_f32s(-FILTER_A * A), w[1], even_a),
        simd.mul_add_e_f32s(simd.splat_f32s(FILTER_B * B), w[1], even_b),
        simd.mul_add_e_f32s(simd.splat_f32s(-FILTER_B * B), w[1], even_b),
        w[2],
    ]
}

/// Values at the points to the first `N` coefficients: four outputs of a convolution.
#[inline(always)]
fn output_axis<S: Simd>(simd: S, m: [S::f32s; POINTS]) -> [S::f32s; OUTPUTS] {
    let (even_a, odd_a) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (even_b, odd_b) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    [
        simd.add_f32s(m[0], simd.add_f32s(even_a, even_b)),
        simd.mul_add_e_f32s(simd.splat_f32s(A), odd_a, simd.mul_f32s(simd.splat_f32s(B), odd_b)),
        simd.mul_add_e_f32s(simd.splat_f32s(AA), even_a, simd.mul_f32s(simd.splat_f32s(BB), even_b)),
        simd.mul_add_e_f32s(
            simd.splat_f32s(A * AA),
            odd_a,
            simd.mul_add_e_f32s(simd.splat_f32s(B * BB), odd_b, m[5]),
        ),
    ]
}

/// The transpose of [`output_axis`]: four gradients of outputs to the points.
#[inline(always)]
fn output_gradient_axis<S: Simd>(simd: S, d: [S::f32s; OUTPUTS]) -> [S::f32s; POINTS] {
    let even_a = simd.mul_add_e_f32s(simd.splat_f32s(AA), d[2], d[0]);
    let odd_a = simd.mul_f32s(simd.splat_f32s(A), simd.mul_add_e_f32s(simd.splat_f32s(AA), d[3], d[1]));
    let even_b = simd.mul_add_e_f32s(simd.splat_f32s(BB), d[2], d[0]);
    let odd_b = simd.mul_f32s(simd.splat_f32s(B), simd.mul_add_e_f32s(simd.splat_f32s(BB), d[3], d[1]));
    [
        d[0],
        simd.add_f32s(even_a, odd_a),
        simd.sub_f32s(even_a, odd_a),
        simd.add_f32s(even_b, odd_b),
        simd.sub_f32s(even_b, odd_b),
        d[3],
    ]
}

/// The transpose of [`filter_axis`]: sums at the points to the gradients of three filter taps.
#[inline(always)]
fn filter_gradient_axis<S: Simd>(simd: S, u: [S::f32s; POINTS]) -> [S::f32s; 3] {
    let (even_a, odd_a) = (simd.add_f32s(u[1], u[2]), simd.sub_f32s(u[1], u[2]));
    let (even_b, odd_b) = (simd.add_f32s(u[3], u[4]), simd.sub_f32s(u[3], u[4]));
    let outer = simd.mul_f32s(simd.splat_f32s(FILTER_0), u[0]);
    [
        simd.mul_add_e_f32s(
            simd.splat_f32s(FILTER_A),
            even_a,
            simd.mul_add_e_f32s(simd.splat_f32s(FILTER_B), even_b, outer),
        ),
        simd.mul_add_e_f32s(
            simd.splat_f32s(FILTER_A * A),
            odd_a,
            simd.mul_f32s(simd.splat_f32s(FILTER_B * B), odd_b),
        ),
        simd.mul_add_e_f32s(
            simd.splat_f32s(FILTER_A * AA),
            even_a,
            simd.mul_add_e_f32s(simd.splat_f32s(FILTER_B * BB), even_b, u[5]),
        ),
    ]
}

/// One axis's transform along both axes of a square: rows first, then columns.
macro_rules! both_axes {
    ($(#[$doc:meta])* $name:ident, $axis:ident, $from:tt, $to:tt) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name<S: Simd>(simd: S, square: Square<S::f32s, $from>) -> Square<S::f32s, $to> {
            let rows: [[S::f32s; $to]; $from] = array!($from, |row| $axis(simd, square[row]));
            let columns = array!($to, |column| $axis(simd, array!($from, |row| rows[row][column])));
            array!($to, |row| array!($to, |column| columns[column][row]))
        }
    };
}

both_axes!(
    /// 6x6 inputs to their values at the points.
    input, input_axis, 6, 6
);
both_axes!(
    /// A 3x3 filter to its values at the points.
    filter, filter_axis, 3, 6
);
both_axes!(
    /// Products at the points to 4x4 outputs.
    output, output_axis, 6, 4
);
both_axes!(
    /// The gradients of 4x4 outputs at the points.
    output_gradient, output_gradient_axis, 4, 6
);
both_axes!(
    /// Sums at the points to the gradient of a 3x3 filter.
    filter_gradient, filter_gradient_axis, 6, 3
);
