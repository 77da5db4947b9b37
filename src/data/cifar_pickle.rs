//! CIFAR-10 and CIFAR-100 in the python version of their authors' page: each batch is a pickled dictionary with `data`
//! (a NumPy array of N x 3072 bytes: three planes) and `labels`, or `fine_labels` and `coarse_labels`.

use std::path::{Path, PathBuf};

use super::cifar::{IMAGE, Kind, SIDE, image_from_planes, present_files};
use super::spec::Level;
use super::taxonomy::{ONE_SUPERCLASS, Parents};
use super::{InMemory, Split};
use crate::error::{Error, Position, Result};
use crate::files;
use crate::pickle::{self, ElementKind, Node};

/// The folder that holds the pickles of a split, `folder` itself or the customary folder in it, and those files.
pub(super) fn pickled_files(folder: &Path, kind: Kind, split: Split) -> Option<(PathBuf, Vec<PathBuf>)> {
    let customary = match kind {
        Kind::Ten => "cifar-10-batches-py",
        Kind::Hundred(_) => "cifar-100-python",
    };
    present_files(folder, customary, &kind.batches(split))
}

/// Reads the batches of a split, which lie in `folder`, into memory.
pub(super) fn open(folder: &Path, files: &[PathBuf], kind: Kind, split: Split) -> Result<InMemory> {
    let class_names = read_names(folder, kind)?;
    let (mut pixels, mut labels, mut superclasses) = (Vec::new(), Vec::new(), Vec::new());
    for path in files {
        let bytes = files::map(path)?;
        if let Some(content) = files::known_content(&bytes) {
            return Err(Error::malformed(path, Position::Byte(0), "a pickled dictionary", content));
        }
        let pickle = pickle::read(&bytes).map_err(|problem| problem.in_file(path, 0))?;
        let count = read_images(path, pickle.root(), &mut pixels)?;
        labels.extend(read_labels(path, pickle.root(), kind, count)?);
        if kind == Kind::Hundred(Level::Both) {
            superclasses.extend(read_labels(path, pickle.root(), Kind::Hundred(Level::Coarse), count)?);
        }
    }
    let note = kind.note(split, folder, files, labels.len());
    let set = InMemory::new(SIDE as u32, SIDE as u32, pixels, labels.clone(), class_names.clone())?;
    let set = set.with_notes(note.into_iter().collect());
    if superclasses.is_empty() {
        return Ok(set);
    }
    let mut parents = Parents::new(read_names(folder, Kind::Hundred(Level::Coarse))?, class_names);
    for (row, (&superclass, &subclass)) in superclasses.iter().zip(&labels).enumerate() {
        let at = Position::Row(row as u64);
        parents
            .add(superclass as usize, subclass as usize, at.clone())
            .map_err(|found| Error::malformed(&files[0], at, ONE_SUPERCLASS, found))?;
    }
    set.with_taxonomy(parents.finish())
}

/// Appends the pixels of a batch; the number of its images.
fn read_images(path: &Path, root: Node<'_>, pixels: &mut Vec<u8>) -> Result<usize> {
    let expected = "an array of N x 3072 bytes (uint8)";
    let wrong = |found: String| Error::malformed(path, Position::Member("data".to_owned()), expected, found);
    let data = entry(path, root, "data")?;
    let array = data.array().map_err(wrong)?;
    let array = array.ok_or_else(|| wrong(data.describe()))?;
    let of_bytes = array.kind == ElementKind::Unsigned && array.width == 1 && !array.fortran_order;
    if !of_bytes || array.shape.len() != 2 || array.shape[1] != IMAGE || array.shape[0] == 0 {
        return Err(wrong(format!("one of shape {:?}, {} bytes an element", array.shape, array.width)));
    }
    for planes in array.bytes.chunks_exact(IMAGE) {
        pixels.extend(image_from_planes(planes).pixels);
    }
    Ok(array.shape[0])
}

/// The labels of a batch of `count` images.
fn read_labels(path: &Path, root: Node<'_>, kind: Kind, count: usize) -> Result<Vec<i64>> {
    let key = match kind {
        Kind::Ten => "labels",
        Kind::Hundred(Level::Fine | Level::Both) => "fine_labels",
        Kind::Hundred(Level::Coarse) => "coarse_labels",
    };
    let list = entry(path, root, key)?;
    let classes = kind.classes() as i64;
    let elements = list.elements().filter(|elements| elements.len() == count).ok_or_else(|| {
        let expected = format!("a list of {count} labels, one for each row of `data`");
        Error::malformed(path, Position::Member(key.to_owned()), expected, list.describe())
    })?;
    let label = |(row, label): (usize, Node<'_>)| {
        label.integer().filter(|label| (0..classes).contains(label)).ok_or_else(|| {
            let at = Position::Member(format!("{key}[{row}]"));
            Error::malformed(path, at, format!("a label below {classes} ({})", kind.name()), label.describe())
        })
    };
    elements.enumerate().map(label).collect()
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
    let pickle = pickle::read(&bytes).map_err(|problem| problem.in_file(&path, 0))?;
    let list = entry(&path, pickle.root(), key)?;
    let names: Option<Vec<String>> =
        list.elements().and_then(|names| names.map(|name| name.text().map(str::to_owned)).collect());
    names.filter(|names| names.len() == kind.classes()).ok_or_else(|| {
        let expected = format!("a list of {} class names", kind.classes());
        Error::malformed(&path, Position::Member(key.to_owned()), expected, list.describe())
    })
}
