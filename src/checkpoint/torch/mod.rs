//! PyTorch's files: what `torch.save` writes, as a zip archive (since 1.6) or as consecutive pickles (before).
//!
//! Both hold one pickle that describes the object and refers to storages, flat runs of elements kept beside it. A
//! tensor is a view into a storage: an offset, extents and strides.

mod archive;
mod legacy;
mod record;
mod states;
mod tensors;
mod view;
mod write;

use std::borrow::Cow;
use std::path::Path;

use super::contents::{Contents, Format};
use crate::error::{Error, Position, Result};
use crate::pickle::Pickle;

pub(super) use legacy::is_legacy;
pub use write::write_torch;

/// A PyTorch file whose pickle is read and whose storages are still where they were.
trait Storages {
    /// The bytes of the storage with this key, of which the pickle says it has `length` bytes.
    fn bytes(&mut self, key: &str, length: usize) -> Result<Cow<'_, [u8]>>;

    /// Place of the pickle in the file, for messages.
    fn position(&self) -> Position;
}

/// The part of a file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted<'k> {
    /// The parameters, chosen by a user's key if there is one, and what is stored beside them.
    Everything(Option<&'k str>),
    /// Only what is stored beside the parameters.
    TrainingRecord,
}

/// Reads a file that `torch.save` wrote.
pub(super) fn read(path: &Path, bytes: &[u8], format: Format, wanted: Wanted<'_>) -> Result<Contents> {
    match format {
        Format::TorchLegacy => legacy::read(path, bytes, wanted),
        _ => archive::read(path, bytes, wanted),
    }
}

/// The tensors and the training record of a pickle and its storages.
fn contents(
    path: &Path,
    pickle: &Pickle<'_>,
    storages: &mut dyn Storages,
    wanted: Wanted<'_>,
) -> Result<Contents> {
    states::contents(tensors::Reader::new(path, pickle, storages), wanted)
}

/// Bytes are taken in the order of the machine that wrote them; all machines that train are little-endian.
fn refuse_big_endian(path: &Path, at: Position) -> Error {
    Error::malformed(
        path,
        at,
        "little-endian storages",
        "big-endian ones; load and save them again with PyTorch",
    )
}
