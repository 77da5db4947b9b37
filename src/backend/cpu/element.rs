//! The floating-point types the CPU computes with.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

use pulp::Simd;

use crate::tensor::DType;

/// f32, the working precision, or f64, the oracle.
pub trait Element:
    bytemuck::Pod
    + Send
    + Sync
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
{
    /// The tensor element type this is.
    const DTYPE: DType;
    /// A vector register of the instruction set, full of elements.
    type Vector<S: Simd>: bytemuck::Pod;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;

    /// The nearest value to a double.
    fn from_f64(value: f64) -> Self;

    /// The same value as a double.
    fn to_f64(self) -> f64;

    /// The square root.
    fn square_root(self) -> Self;

    /// The same value in every lane.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

    /// `a * b + c` in every lane, in one rounding where the instruction set can.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// `a + b` in every lane.
    fn add_vectors<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// Elements in a register.
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }

    /// Whether this is NaN.
    fn not_a_number(self) -> bool;

    /// The rectifier `max(x, 0)`; NaN stays NaN, -0 becomes 0.
    fn rectified(self) -> Self {
        if self <= Self::ZERO { Self::ZERO } else { self }
    }
}

macro_rules! element {
    ($type:ty, $dtype:expr, $vector:ident, $splat:ident, $multiply_add:ident, $add:ident) => {
        impl Element for $type {
            const DTYPE: DType = $dtype;
            type Vector<S: Simd> = S::$vector;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn from_f64(value: f64) -> Self {
                value as $type
            }

            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            fn square_root(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S> {
                simd.$splat(value)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(
                simd: S,
                a: Self::Vector<S>,
                b: Self::Vector<S>,
                c: Self::Vector<S>,
            ) -> Self::Vector<S> {
                simd.$multiply_add(a, b, c)
            }

            #[inline(always)]
            fn add_vectors<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$add(a, b)
            }

            fn not_a_number(self) -> bool {
                self.is_nan()
            }
        }
    };
}

element!(f32, DType::F32, f32s, splat_f32s, mul_add_e_f32s, add_f32s);
element!(f64, DType::F64, f64s, splat_f64s, mul_add_e_f64s, add_f64s);
