//! PyTorch's files: what `torch.save` writes, as a zip archive (since 1.6) or as consecutive pickles (before).
//!
//! Both hold one pickle that describes the object and refers to storages, flat runs of elements kept beside it. A
//! tensor is a view into a storage: an offset, extents and strides.

mod archive;
mod legacy;
mod tensors;
mod view;
mod write;

use std::borrow::Cow;
use std::path::Path;

use super::Format;
use crate::error::{Error, Position, Result};
use crate::pickle::{Global, Pickle};

pub(super) use legacy::is_legacy;
pub(super) use tensors::Contents;
pub use write::write_torch;

/// Names a file that holds tensors, plain Python values and training records may use.
const TORCH_GLOBALS: &[Global] = &[
    Global::new("collections", "OrderedDict"),
    Global::new("collections", "defaultdict"),
    Global::new("collections", "Counter"),
    Global::new("__builtin__", "dict"),
    Global::new("builtins", "dict"),
    Global::new("__builtin__", "set"),
    Global::new("builtins", "set"),
    Global::new("argparse", "Namespace"),
    Global::new("torch", "Size"),
    Global::new("torch", "device"),
    Global::new("torch._utils", "_rebuild_tensor"),
    Global::new("torch._utils", "_rebuild_tensor_v2"),
    Global::new("torch._utils", "_rebuild_tensor_v3"),
    Global::new("torch._utils", "_rebuild_parameter"),
    Global::new("torch._utils", "_rebuild_parameter_with_state"),
    Global::new("torch._tensor", "_rebuild_from_type_v2"),
    Global::new("torch", "Tensor"),
    Global::new("torch.nn.parameter", "Parameter"),
    Global::new("torch", "BoolStorage"),
    Global::new("torch", "CharStorage"),
    Global::new("torch", "ShortStorage"),
    Global::new("torch", "IntStorage"),
    Global::new("torch", "LongStorage"),
    Global::new("torch", "ByteStorage"),
    Global::new("torch", "HalfStorage"),
    Global::new("torch", "BFloat16Storage"),
    Global::new("torch", "FloatStorage"),
    Global::new("torch", "DoubleStorage"),
    Global::new("torch.storage", "UntypedStorage"),
    Global::new("torch", "bool"),
    Global::new("torch", "int8"),
    Global::new("torch", "int16"),
    Global::new("torch", "int32"),
    Global::new("torch", "int64"),
    Global::new("torch", "uint8"),
    Global::new("torch", "uint16"),
    Global::new("torch", "uint32"),
    Global::new("torch", "uint64"),
    Global::new("torch", "float16"),
    Global::new("torch", "bfloat16"),
    Global::new("torch", "float32"),
    Global::new("torch", "float64"),
];

/// A PyTorch file whose pickle is read and whose storages are still where they were.
trait Storages {
    /// The bytes of the storage with this key, of which the pickle says it has `length` bytes.
    fn bytes(&mut self, key: &str, length: usize) -> Result<Cow<'_, [u8]>>;

    /// Where in the file the pickle is, for messages.
    fn position(&self) -> Position;
}

/// How much of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The parameters and what is stored beside them.
    Everything,
    /// Only what is stored beside the parameters.
    TrainingRecord,
}

/// Reads a file that `torch.save` wrote.
pub(super) fn read(path: &Path, bytes: &[u8], format: Format, wanted: Wanted) -> Result<Contents> {
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
    wanted: Wanted,
) -> Result<Contents> {
    tensors::Reader::new(path, pickle, storages).contents(wanted)
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
