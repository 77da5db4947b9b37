//! Writing a state dictionary as `torch.save` does, so that `torch.load(…, weights_only=True)` reads it.

use std::io::{Seek, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::super::element::encode;
use super::super::{HostTensor, StateDict};
use crate::error::{Error, Result};
use crate::files;

/// The folder inside the archive; PyTorch takes any.
const FOLDER: &str = "archive";
/// The version of the layout that `torch.save` writes since PyTorch 1.6.
const VERSION: &str = "3\n";
/// Storages begin at multiples of this, as PyTorch writes them, so that a reader may map them.
const ALIGNMENT: u16 = 64;

/// Writes tensors as a PyTorch zip archive holding an `OrderedDict`, all at once or not at all. The same tensors give
/// the same bytes.
///
/// # Errors
/// A shape that contradicts the number of elements, or a failing disk; an older file stays as it was.
pub fn write_torch(path: &Path, state: &StateDict) -> Result<()> {
    for (name, tensor) in state {
        let wanted = tensor.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
        if wanted != Some(tensor.len()) {
            return Err(Error::invalid(format!(
                "cannot write `{name}`: its shape {:?} contradicts its {} elements",
                tensor.shape,
                tensor.len()
            )));
        }
    }
    files::write_atomically(path, |writer| write_archive(writer, state).map_err(std::io::Error::from))
}

fn write_archive(writer: impl Write + Seek, state: &StateDict) -> zip::result::ZipResult<()> {
    let mut zip = ZipWriter::new(writer);
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(ALIGNMENT);
    let mut member = |name: &str, bytes: &[u8]| {
        let options = options.large_file(bytes.len() as u64 > u64::from(u32::MAX) / 2);
        zip.start_file(format!("{FOLDER}/{name}"), options)?;
        zip.write_all(bytes).map_err(zip::result::ZipError::from)
    };
    member("data.pkl", &pickle(state))?;
    member("byteorder", b"little")?;
    for (key, tensor) in state.values().enumerate() {
        member(&format!("data/{key}"), &encode(&tensor.values))?;
    }
    member("version", VERSION.as_bytes())?;
    zip.finish().map(drop)
}

/// The pickle (protocol 2) of `OrderedDict(name → tensor)`; tensor number k views storage `k`.
fn pickle(state: &StateDict) -> Vec<u8> {
    let mut out = Pickler(b"\x80\x02".to_vec());
    out.empty_ordered_dictionary();
    out.0.push(b'(');
    for (key, (name, tensor)) in state.iter().enumerate() {
        out.text(name);
        out.tensor(&key.to_string(), tensor);
    }
    out.0.extend(b"u.");
    out.0
}

/// The bytes of a pickle so far.
struct Pickler(Vec<u8>);

impl Pickler {
    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn empty_ordered_dictionary(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.bytes());
    }

    fn integer(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(small) => {
                self.0.push(b'J');
                self.0.extend(small.to_le_bytes());
            }
            Err(_) => {
                self.0.extend(b"\x8a\x08");
                self.0.extend((value as u64).to_le_bytes());
            }
        }
    }

    fn integers(&mut self, values: &[usize]) {
        self.0.push(b'(');
        for value in values {
            self.integer(*value);
        }
        self.0.push(b't');
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`.
    fn tensor(&mut self, key: &str, tensor: &HostTensor) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.0.extend(b"((");
        self.text("storage");
        self.global("torch", tensor.values.element_type().storage_class().expect("all values have one"));
        self.text(key);
        self.text("cpu");
        self.integer(tensor.len());
        self.0.extend(b"tQ");
        self.integer(0);
        self.integers(&tensor.shape);
        self.integers(&row_major_strides(&tensor.shape));
        self.0.push(0x89);
        self.empty_ordered_dictionary();
        self.0.extend(b"tR");
    }
}

fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension].max(1);
    }
    strides
}
