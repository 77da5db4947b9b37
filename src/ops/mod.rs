//! Every numeric operation a network's step is made of: named, documented, once.
//!
//! | file | holds |
//! |---|---|
//! | `list` | the operations: name, attributes, operands with access, element type and number of elements |
//! | `declare` | the code generated from a line of the list |
//! | `convolution` | the three convolution operations, with their prologues and epilogues |
//! | `expand` | fused operations as the plain ones they stand for |
//! | `attributes`, `rows`, `row_scores`, `extents` | the fixed numbers of operations; which make sense, their shape in a word, their FLOP |
//! | `check` | the checks of a call's operands before a device sees them |
//! | `config` | how a device carries a call out: decided once, and carried by the call |
//! | `device` | the [`Device`] trait: the object that carries calls out |
//!
//! An operation is a struct of attributes and operands, a [`Call`] is any of them. The same call stands in a plan (operands are
//! buffers), in memory (operands are [`Span`](crate::tensor::Span)s) and alone (operands are nothing).
//!
//! Layouts: activations NHWC, convolution weights KRSC, linear weights (outputs, inputs). Operands of one call never
//! overlap.

mod attributes;
mod check;
mod config;
mod convolution;
mod declare;
mod device;
mod expand;
mod extents;
mod list;
mod row_scores;
mod rows;

pub use attributes::{
    Adam, BatchNorm, BatchNormGradient, ClassGroups, Conv2d, Cosine, CrossEntropy, Direction, EnergyMargin,
    GlobalPool, HYPER_ROW, HYPER_ROWS, ImageBatch, KlDivergence, Linear, PLACEMENT_NUMBERS, Pool, PoolHead,
    Rows, ScaleBias, Segment, Segments, Sgd, ShortcutA, Side, StepTotals,
};
pub use config::{CallConfig, Expansion, KernelConfig};
pub use convolution::{
    Affine, BiasEpilogue, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue, ReduceEpilogue, ReluBackward,
    StatisticsEpilogue,
};
pub use device::{Device, Event, Graph, Hardware, HardwareKind, Readback};
pub use expand::{Part, Parts};
pub(crate) use list::dispatch;
pub use list::*;
pub use row_scores::{
    CentredSoftmax, ClassProducts, Coverage, GeneralisedEntropy, HISTOGRAM_BINS, HeadLogits, Histogram,
    LargestFeatures, LargestProducts, LogitRows, Magnitudes, OpenMax, Relation, ShapedProjection, Shaping,
};
pub use rows::{InverseNorms, Labelled, LogitScores, Nearest, PreparedRows, Projection, Scatter};

use crate::tensor::DType;

/// The type of an operand's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// Activations, their gradients, convolution weights: the device's working type.
    Working,
    /// Statistics, parameters, losses, heads: the working type's accumulator.
    Accumulator,
    /// Either of these, the same for all such operands of a call.
    Float,
    /// Labels and positions.
    I32,
    /// Pixels.
    U8,
    /// Features of caches.
    F32,
    /// Scores and statistics of features.
    F64,
}

impl ElementType {
    /// The element type where activations have the type `working`; of either type that one.
    pub fn dtype(self, working: DType) -> DType {
        match self {
            ElementType::Working | ElementType::Float => working,
            ElementType::Accumulator => working.accumulator(),
            ElementType::I32 => DType::I32,
            ElementType::U8 => DType::U8,
            ElementType::F32 => DType::F32,
            ElementType::F64 => DType::F64,
        }
    }
}

/// How an operation uses an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Every element is overwritten; the previous content does not matter.
    Write,
    /// Read and written.
    Update,
}
