//! The floating-point types the CPU computes with.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

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

    /// Whether this is NaN.
    fn not_a_number(self) -> bool;

    /// The rectifier `max(x, 0)`; NaN stays NaN, -0 becomes 0.
    fn rectified(self) -> Self {
        if self <= Self::ZERO { Self::ZERO } else { self }
    }
}

macro_rules! element {
    ($type:ty, $dtype:expr) => {
        impl Element for $type {
            const DTYPE: DType = $dtype;
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

            fn not_a_number(self) -> bool {
                self.is_nan()
            }
        }
    };
}

element!(f32, DType::F32);
element!(f64, DType::F64);
