//! Reading weights from any file other programs write: which format it is, and what comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::contents::{Contents, Format, TrainingRecord};
use super::selection::{Ignored, Selection};
use super::torch::Wanted;
use super::{ElementType, StateDict, folder, names, safetensors_file, torch};
use crate::error::{Error, Position, Result};
use crate::files;

/// Weights from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The tensors under torchvision's names.
    pub state: StateDict,
    /// Tensors beside them that this program cannot read, by torchvision's names: what they are. Only [`look`] leaves any.
    pub unreadable: BTreeMap<String, String>,
    /// Which of the file's tensors these are.
    pub selection: Selection,
    /// Everything else in the file but the training record.
    pub ignored: Vec<Ignored>,
    /// How the file stored each of them.
    pub stored_types: BTreeMap<String, ElementType>,
    /// The training, as the file tells it.
    pub training: TrainingRecord,
    /// The file's format.
    pub format: Format,
    /// The file.
    pub path: PathBuf,
    /// The choice among the checkpoints of a run folder, for people.
    pub of_run: Option<String>,
}

impl Imported {
    /// The choice that was made, for people; `None` where there is nothing else.
    pub fn note(&self) -> Option<String> {
        let within = self.selection.note().map(|note| format!("{}: {note}", self.path.display()));
        let notes: Vec<String> = self.of_run.clone().into_iter().chain(within).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// A hash of the weights' file and, where a key chose others than it gives without one, of that choice: so that
    /// two networks of one file are told apart.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn hash(&self) -> Result<String> {
        let hash = folder::hash(&self.path)?;
        if !self.selection.by_key {
            return Ok(hash);
        }
        let Selection { key, prefix, .. } = &self.selection;
        Ok(blake3::hash(format!("{hash}\n{key}\n{prefix}").as_bytes()).to_hex().to_string())
    }
}

/// Reads the weights in a `.safetensors`, `.pth`, `.pt` or `.th` file, whichever of the formats it is in, or those of
/// a checkpoint folder of ours.
///
/// The parameters may lie under `model_state_dict`, `state_dict`, `model` and the like, or under any other key that
/// leads to the only network; names come out as torchvision's (without prefixes, `shortcut` as `downsample`, `linear`
/// as `fc`, …). `key` chooses among several networks. Nothing is executed.
///
/// # Errors
/// A file of another kind, a damaged one, several networks and no key, a tensor that this program cannot read, two
/// tensors of one name.
pub fn read_weights(path: &Path, key: Option<&str>) -> Result<Imported> {
    let imported = look(path, key)?;
    match imported.unreadable.iter().next() {
        None => Ok(imported),
        Some((name, what)) => {
            let more = match imported.unreadable.len() - 1 {
                0 => String::new(),
                count => format!(" (and {count} more tensors that cannot be read)"),
            };
            Err(Error::malformed(
                &imported.path,
                Position::Member(name.clone()),
                "float (f16 to f64), integer or boolean elements, plainly stored",
                format!("{what}{more}"),
            ))
        }
    }
}

/// The same for a look at a file: tensors that cannot be read are left out and named.
///
/// # Errors
/// As [`read_weights`].
pub fn look(path: &Path, key: Option<&str>) -> Result<Imported> {
    if path.is_dir() {
        refuse_key(path, key)?;
    }
    let of_run = if path.is_dir() { folder::note(path, &folder::resolve(path)?) } else { None };
    let path = &folder::weights_file(path)?;
    let bytes = files::map(path)?;
    let format = recognise(path, &bytes)?;
    let Contents { tensors, unreadable, training, selection, ignored } = match format {
        Format::Safetensors => safetensors_file::read(path, &bytes, key)?,
        Format::TorchArchive | Format::TorchLegacy => {
            torch::read(path, &bytes, format, Wanted::Everything(key))?
        }
    };
    let twice = |found| Error::malformed(path, Position::File, "each parameter once", found);
    let named = tensors.into_iter().map(|(name, element, tensor)| (name, (element, tensor)));
    let renamed = names::rename(named).map_err(twice)?;
    let unreadable = names::rename(unreadable).map_err(twice)?;
    let stored_types = renamed.iter().map(|(name, (element, _))| (name.clone(), *element)).collect();
    let state = renamed.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect();
    Ok(Imported {
        state,
        unreadable,
        selection,
        ignored,
        stored_types,
        training,
        format,
        path: path.clone(),
        of_run,
    })
}

/// Refuses a key for a folder of ours.
pub(super) fn refuse_key(folder: &Path, key: Option<&str>) -> Result<()> {
    match key {
        None => Ok(()),
        Some(key) => Err(Error::usage(format!(
            "--weights-key {key}: {} is a checkpoint folder, which holds one network; leave the key out",
            folder.display()
        ))),
    }
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
    let found = if bytes.starts_with(b"\x89HDF") {
        "an HDF5 file; save the weights as safetensors".to_string()
    } else if bytes.get(257..262) == Some(b"ustar") {
        "a tar archive (PyTorch 0.1); load and save it again with a newer PyTorch".to_string()
    } else if bytes.first() == Some(&0x80) {
        "a pickle without PyTorch's magic number, or a damaged one; save a state_dict() with torch.save"
            .to_string()
    } else {
        files::describe_content(bytes)
    };
    Err(Error::malformed(path, Position::Byte(0), WANTED, found))
}
