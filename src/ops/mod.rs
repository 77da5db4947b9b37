//! Every numeric operation a network's step is made of: named, documented, once.
//!
//! The macro `operations!` declares the list. From it come the [`Backend`] trait (one method per operation, which a CPU or GPU
//! implements), the [`Call`] enum (an operation together with the buffers it reads and writes: what a plan is made of)
//! and the function that carries a call out. Operands are marked `read`, `write` (every element is overwritten) or
//! `update` (read and written).
//!
//! Layouts: activations NHWC, convolution weights KRSC, linear weights (outputs, inputs). Operands of one call never
//! overlap unless an operation says so.

mod attributes;
mod list;

pub use attributes::{
    Adam, BatchNorm, BatchNormGradient, Conv2d, Conv2dGradient, Conv2dInference, CrossEntropy, Linear, Pool,
    Rows, ScaleBias, Sgd, ShortcutA,
};
pub use list::{Backend, Call};

/// How an operation uses an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Every element is overwritten; what was there before does not matter.
    Write,
    /// Read and written.
    Update,
}
