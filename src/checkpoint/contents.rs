//! Contents of a weights file, whatever its format.

use std::collections::BTreeMap;

use super::selection::{Ignored, Selection};
use super::{ElementType, HostTensor};

/// The format of a weights file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// PyTorch's zip archive, since PyTorch 1.6.
    TorchArchive,
    /// PyTorch's consecutive pickles, before.
    TorchLegacy,
}

impl Format {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::TorchArchive => "PyTorch zip archive",
            Format::TorchLegacy => "PyTorch legacy pickle",
        }
    }
}

/// The training behind a weights file, as the file tells it: entries of the outermost dictionary of a PyTorch file,
/// or the metadata of a safetensors file.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct TrainingRecord {
    /// Single numbers, such as `epoch`, `loss`, `best_prec1`.
    pub numbers: BTreeMap<String, f64>,
    /// Lists of numbers, such as `train_losses`, one element an epoch.
    pub series: BTreeMap<String, Vec<f64>>,
    /// Texts, such as `arch`.
    pub texts: BTreeMap<String, String>,
}

impl TrainingRecord {
    /// The number of finished epochs, stored as `epoch`.
    pub fn epoch(&self) -> Option<u64> {
        let number = self.numbers.get("epoch").copied();
        let number = number.or_else(|| self.texts.get("epoch")?.trim().parse().ok())?;
        // Every integer up to 2⁵³ is an f64; no training has more epochs.
        ((0.0..9.0e15).contains(&number) && number.fract() == 0.0).then_some(number as u64)
    }

    /// A number for each epoch by its name (`train_losses`, `val_accuracies`); empty if not stored.
    pub fn series(&self, name: &str) -> &[f64] {
        self.series.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Contents of a file, as the reader of its format finds them.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The tensors that were taken, under the names in the file without the prefix.
    pub(super) tensors: Vec<(String, ElementType, HostTensor)>,
    /// Wanted tensors that this program cannot read: name and what they are.
    pub(super) unreadable: Vec<(String, String)>,
    pub(super) training: TrainingRecord,
    pub(super) selection: Selection,
    pub(super) ignored: Vec<Ignored>,
}
