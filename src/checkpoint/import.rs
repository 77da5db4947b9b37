//! Reading weights from any file other programs write: which format it is, and what comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::torch::Wanted;
use super::{ElementType, StateDict, folder, names, safetensors_file, torch};
use crate::error::{Error, Position, Result};
use crate::files;

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
    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::TorchArchive => "PyTorch zip archive",
            Format::TorchLegacy => "PyTorch legacy pickle",
        }
    }
}

/// What a weights file says about the training behind it: entries of the outermost dictionary of a PyTorch file,
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

    fn series(&self, name: &str) -> &[f64] {
        self.series.get(name).map_or(&[], Vec::as_slice)
    }

    /// Training loss of each epoch; empty if not stored.
    pub fn train_losses(&self) -> &[f64] {
        self.series("train_losses")
    }

    /// Training accuracy of each epoch, a fraction; empty if not stored.
    pub fn train_accuracies(&self) -> &[f64] {
        self.series("train_accuracies")
    }

    /// Validation loss of each epoch; empty if not stored.
    pub fn val_losses(&self) -> &[f64] {
        self.series("val_losses")
    }

    /// Validation accuracy of each epoch, a fraction; empty if not stored.
    pub fn val_accuracies(&self) -> &[f64] {
        self.series("val_accuracies")
    }
}

/// Weights from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The tensors under torchvision's names.
    pub state: StateDict,
    /// How the file stored each of them.
    pub stored_types: BTreeMap<String, ElementType>,
    /// What the file says about the training.
    pub training: TrainingRecord,
    /// The file's format.
    pub format: Format,
    /// The file.
    pub path: PathBuf,
}

/// Reads the weights in a `.safetensors`, `.pth`, `.pt` or `.th` file, whichever of the formats it is in, or those of
/// a checkpoint folder of ours.
///
/// The parameters may lie under `model_state_dict`, `state_dict`, `model` and the like; names come out as
/// torchvision's (without `module.`, `shortcut` as `downsample`, `linear` as `fc`, …). Nothing is executed.
///
/// # Errors
/// A file of another kind, a damaged one, one that needs more than tensors and plain values, two tensors of one name.
pub fn read_weights(path: &Path) -> Result<Imported> {
    let path = &folder::weights_file(path)?;
    let bytes = files::map(path)?;
    let format = recognise(path, &bytes)?;
    let (tensors, training) = match format {
        Format::Safetensors => {
            let contents = safetensors_file::read(path, &bytes)?;
            (contents.tensors, TrainingRecord { texts: contents.metadata, ..TrainingRecord::default() })
        }
        Format::TorchArchive | Format::TorchLegacy => {
            let contents = torch::read(path, &bytes, format, Wanted::Everything)?;
            (contents.tensors, contents.training)
        }
    };
    let named = tensors.into_iter().map(|(name, element, tensor)| (name, (element, tensor)));
    let renamed = names::rename(named)
        .map_err(|found| Error::malformed(path, Position::File, "each parameter once", found))?;
    let stored_types = renamed.iter().map(|(name, (element, _))| (name.clone(), *element)).collect();
    let state = renamed.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect();
    Ok(Imported { state, stored_types, training, format, path: path.clone() })
}

/// Reads what a weights file says about the training behind it, without its tensors.
///
/// # Errors
/// As [`read_weights`], as far as the file is read.
pub fn read_training_record(path: &Path) -> Result<TrainingRecord> {
    let bytes = files::map(path)?;
    match recognise(path, &bytes)? {
        Format::Safetensors => {
            let texts = safetensors_file::read_metadata(path, &bytes)?;
            Ok(TrainingRecord { texts, ..TrainingRecord::default() })
        }
        format => Ok(torch::read(path, &bytes, format, Wanted::TrainingRecord)?.training),
    }
}

/// Which format the first bytes belong to.
fn recognise(path: &Path, bytes: &[u8]) -> Result<Format> {
    const WANTED: &str = "weights: safetensors, or what torch.save writes";
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(Format::TorchArchive);
    }
    if torch::is_legacy(bytes) {
        return Ok(Format::TorchLegacy);
    }
    if bytes.get(8) == Some(&b'{') {
        return Ok(Format::Safetensors);
    }
    let found = if bytes.is_empty() {
        "an empty file".to_string()
    } else if bytes.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer; fetch the file itself with `git lfs pull`".to_string()
    } else if bytes.starts_with(b"<") {
        "a web page; the download went wrong".to_string()
    } else if bytes.starts_with(b"\x89HDF") {
        "an HDF5 file; save the weights as safetensors".to_string()
    } else if bytes.get(257..262) == Some(b"ustar") {
        "a tar archive (PyTorch 0.1); load and save it again with a newer PyTorch".to_string()
    } else if bytes[0] == 0x80 {
        "a pickle without PyTorch's magic number, or a damaged one; save a state_dict() with torch.save"
            .to_string()
    } else {
        let head: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("the bytes {}", head.join(" "))
    };
    Err(Error::malformed(path, Position::Byte(0), WANTED, found))
}
