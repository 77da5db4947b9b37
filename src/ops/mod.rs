//! Every numeric operation a network's step is made of: named, documented, once.
//!
//! The macro `operations!` declares the list. From it come the [`Backend`] trait (one method per operation, which a CPU or GPU
//! implements on top of [`Device`]), the [`Call`] enum (an operation together with the buffers it reads and writes: what a plan is made of)
//! and the function that carries a call out. Operands are marked `read`, `write` (every element is overwritten) or
//! `update` (read and written); what holds no activations says so: `number`, `integer`, `byte` ([`Content`]).
//!
//! Layouts: activations NHWC, convolution weights KRSC, linear weights (outputs, inputs). Operands of one call never
//! overlap unless an operation says so.

mod attributes;
mod device;
mod extents;
mod list;
mod rows;

pub use attributes::{
    Adam, BatchNorm, BatchNormGradient, ClassGroups, Conv2d, Conv2dBatchNorm, Conv2dGradient,
    Conv2dGradientReduce, Conv2dInference, Conv2dScaled, Conv2dScaledBatchNorm, Cosine, CrossEntropy,
    Direction, EnergyMargin, HYPER_ROW, HYPER_ROWS, ImageBatch, KlDivergence, Linear, PLACEMENT_NUMBERS,
    Pool, PoolHead, Rows, ScaleBias, Segment, Segments, Sgd, ShortcutA, Side, StepTotals,
};
pub use device::{Device, Event, Graph, Hardware, HardwareKind, Readback};
pub(crate) use extents::{check, segment_elements};
pub use list::{Backend, Call};
pub use rows::{Features, Labelled, Points, RowOps};

use crate::tensor::DType;

/// What an operand holds, which decides its type where activations are narrower than sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Activations, their gradients, convolution weights: the backend's working type.
    Activation,
    /// Statistics, parameters, losses, heads: the working type's accumulator.
    Number,
    /// Labels and positions: i32.
    Integer,
    /// Pixels: u8.
    Byte,
}

impl Content {
    /// The element type where activations have the type `working`.
    pub fn dtype(self, working: DType) -> DType {
        match self {
            Content::Activation => working,
            Content::Number => working.accumulator(),
            Content::Integer => DType::I32,
            Content::Byte => DType::U8,
        }
    }
}

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
