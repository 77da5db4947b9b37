//! Trained parameters on disk: safetensors, PyTorch pickles (read by an interpreter that executes nothing), and
//! Residua's own checkpoint folders.

use std::collections::BTreeMap;

/// A tensor on the host: row-major, in the layout of the file it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Extent of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, widened or kept as read.
    pub values: Values,
}

/// Element storage of a [`HostTensor`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32-bit floats (bf16 and f16 are widened to this on reading).
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Integers (all integer and boolean types are widened to this).
    I64(Vec<i64>),
}

/// Named tensors in torchvision's names and layout (convolutions OIHW), sorted by name.
pub type StateDict = BTreeMap<String, HostTensor>;
