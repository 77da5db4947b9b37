//! Trained parameters on disk: safetensors, PyTorch pickles (read by an interpreter that executes nothing), and
//! Residua's own checkpoint folders.

mod contents;
mod element;
mod folder;
mod heads;
mod import;
mod labels;
mod list;
mod names;
#[doc(hidden)]
pub mod network;
mod safetensors_file;
mod selection;
mod summary;
mod torch;
mod trained;

use std::collections::BTreeMap;

pub use contents::{Format, TrainingRecord};
pub use element::ElementType;
#[doc(hidden)]
pub use folder::note as choice_note;
pub use folder::{
    Checkpoint, FORMAT_VERSION, META_FILE, MODEL_FILE, Meta, STATE_FILE, hash, load, point, read_meta,
    resolve, save,
};
pub use heads::HeadClasses;
pub use import::{Imported, look, read_training_record, read_weights};
pub use labels::{HeadLabels, LabelsBy};
pub use list::{CheckpointRef, list};
pub use safetensors_file::write_safetensors;
pub use selection::{Ignored, Selection};
pub use summary::{TensorSummary, guess_architecture, summarise};
pub use torch::write_torch;
pub use trained::Trained;

/// A tensor on the host: row-major, in the layout of the file it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Extent of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, widened or kept as read.
    pub values: Values,
}

impl HostTensor {
    /// A tensor of 32-bit floats; the length of `values` is the product of `shape`.
    pub fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> HostTensor {
        HostTensor { shape: shape.into(), values: Values::F32(values) }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as f32, row-major; f64 is rounded to the nearest.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            Values::F32(values) => values.clone(),
            Values::F64(values) => values.iter().map(|&value| value as f32).collect(),
            Values::I64(values) => values.iter().map(|&value| value as f32).collect(),
        }
    }

    /// The same tensor with f64 rounded to f32; integers stay.
    pub fn narrowed(&self) -> HostTensor {
        match &self.values {
            Values::F64(_) => HostTensor::f32(self.shape.clone(), self.to_f32()),
            _ => self.clone(),
        }
    }

    /// The elements as f64, row-major.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.values {
            Values::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::F64(values) => values.clone(),
            Values::I64(values) => values.iter().map(|&value| value as f64).collect(),
        }
    }
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

impl Values {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
            Values::I64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Named tensors in torchvision's names and layout (convolutions OIHW), sorted by name.
pub type StateDict = BTreeMap<String, HostTensor>;

#[cfg(test)]
mod folder_tests;
#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod import_tests;
