//! CIFAR-10 and CIFAR-100 in the python version of their authors' page: each batch is a pickled dictionary with `data`
//! (a NumPy array of N x 3072 bytes: three planes) and `labels`, or `fine_labels` and `coarse_labels`.

use std::path::{Path, PathBuf};

use super::cifar::{IMAGE, Kind, SIDE, image_from_planes};
use super::spec::Level;
use super::{InMemory, Split};
use crate::error::{Error, Position, Result};
use crate::files;
use crate::pickle::{self, ElementKind, NUMPY_GLOBALS, Node};

fn batch_files(kind: Kind, split: Split) -> Vec<String> {
    match (kind, split) {
        (Kind::Ten, Split::Train) => (1..=5).map(|i| format!("data_batch_{i}")).collect(),
        (Kind::Ten, Split::Test) => vec!["test_batch".to_owned()],
        (Kind::Hundred(_), split) => vec![split.to_string()],
    }
}

/// The folder that holds the pickles of a split: `folder` itself or the customary folder in it.
pub(super) fn folder(folder: &Path, kind: Kind, split: Split) -> Option<PathBuf> {
    let customary = match kind {
        Kind::Ten => "cifar-10-batches-py",
        Kind::Hundred(_) => "cifar-100-python",
    };
    let first = batch_files(kind, split).swap_remove(0);
    [folder.to_path_buf(), folder.join(customary)].into_iter().find(|place| place.join(&first).is_file())
}

/// Reads the batches of a split into memory.
pub(super) fn open(folder: &Path, kind: Kind, split: Split) -> Result<InMemory> {
    let class_names = read_names(folder, kind)?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in batch_files(kind, split) {
        read_batch(&folder.join(file), kind, &mut pixels, &mut labels)?;
    }
    InMemory::new(SIDE as u32, SIDE as u32, pixels, labels, class_names)
}

fn read_batch(path: &Path, kind: Kind, pixels: &mut Vec<u8>, labels: &mut Vec<i64>) -> Result<()> {
    let bytes = files::map(path)?;
    let pickle = pickle::read(&bytes, &[NUMPY_GLOBALS]).map_err(|problem| problem.in_file(path, 0))?;
    let wrong = |key: &str, expected: &str, found: String| {
        Error::malformed(path, Position::Member(key.to_owned()), expected, found)
    };
    let images = "an array of N x 3072 bytes (uint8)";
    let data = entry(path, pickle.root(), "data")?;
    let array = data.array().map_err(|found| wrong("data", images, found))?;
    let array = array.ok_or_else(|| wrong("data", images, data.describe()))?;
    let of_bytes = array.kind == ElementKind::Unsigned && array.width == 1 && !array.fortran_order;
    if !of_bytes || array.shape.len() != 2 || array.shape[1] != IMAGE || array.shape[0] == 0 {
        let found = format!("one of shape {:?}, {} bytes an element", array.shape, array.width);
        return Err(wrong("data", images, found));
    }
    for planes in array.bytes.chunks_exact(IMAGE) {
        pixels.extend(image_from_planes(planes).pixels);
    }
    let key = match kind {
        Kind::Ten => "labels",
        Kind::Hundred(Level::Fine | Level::Both) => "fine_labels",
        Kind::Hundred(Level::Coarse) => "coarse_labels",
    };
    let list = entry(path, pickle.root(), key)?;
    let count = array.shape[0];
    let classes = kind.classes() as i64;
    let elements = list.elements().filter(|elements| elements.len() == count).ok_or_else(|| {
        wrong(key, &format!("a list of {count} labels, one for each row of `data`"), list.describe())
    })?;
    for (row, label) in elements.enumerate() {
        let known = label.integer().filter(|label| (0..classes).contains(label)).ok_or_else(|| {
            let at = Position::Member(format!("{key}[{row}]"));
            Error::malformed(path, at, format!("a label below {classes} ({})", kind.name()), label.describe())
        })?;
        labels.push(known);
    }
    Ok(())
}

fn entry<'p>(path: &Path, root: Node<'p>, key: &str) -> Result<Node<'p>> {
    root.get(key).ok_or_else(|| {
        let expected = format!("a pickled dictionary with `{key}`");
        Error::malformed(path, Position::File, expected, root.describe())
    })
}

/// Class names from the pickle of names beside the batches; the built-in ones if there is none.
fn read_names(folder: &Path, kind: Kind) -> Result<Vec<String>> {
    let (file, key) = match kind {
        Kind::Ten => ("batches.meta", "label_names"),
        Kind::Hundred(Level::Fine | Level::Both) => ("meta", "fine_label_names"),
        Kind::Hundred(Level::Coarse) => ("meta", "coarse_label_names"),
    };
    let path = folder.join(file);
    if !path.is_file() {
        return Ok(kind.built_in_names());
    }
    let bytes = files::map(&path)?;
    let pickle = pickle::read(&bytes, &[NUMPY_GLOBALS]).map_err(|problem| problem.in_file(&path, 0))?;
    let list = entry(&path, pickle.root(), key)?;
    let names: Option<Vec<String>> =
        list.elements().and_then(|names| names.map(|name| name.text().map(str::to_owned)).collect());
    names.filter(|names| names.len() == kind.classes()).ok_or_else(|| {
        let expected = format!("a list of {} class names", kind.classes());
        Error::malformed(&path, Position::Member(key.to_owned()), expected, list.describe())
    })
}
