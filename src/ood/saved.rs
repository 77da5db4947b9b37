//! `fit.safetensors`: the fitted detectors as named tensors, with options and classes in the header's metadata.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::archive::SharedMap;
use crate::error::{Error, Position, Result};
use crate::files;

/// Collects tensors and writes them.
#[derive(Default, PartialEq)]
pub(super) struct Writer {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Writer {
    /// Adds an f64 tensor.
    pub fn put(&mut self, name: &str, shape: &[usize], values: &[f64]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.insert(name.to_string(), (Dtype::F64, shape.to_vec(), bytes));
    }

    /// Adds an f32 tensor.
    pub fn put_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.insert(name.to_string(), (Dtype::F32, shape.to_vec(), bytes));
    }

    /// The tensors by name, with element type, shape and bytes.
    pub fn tensors(&self) -> &BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
        &self.tensors
    }

    /// Writes the file with one entry of metadata.
    pub fn write(self, path: &Path, key: &str, metadata: String) -> Result<()> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| Error::invalid(format!("cannot lay out {}: {e}", path.display())))?;
        let metadata = [(key.to_string(), metadata)].into();
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|e| Error::invalid(format!("cannot lay out {}: {e}", path.display())))?;
        files::write(path, &bytes)
    }
}

/// A mapped file whose header has been checked.
pub(super) struct Reader {
    path: PathBuf,
    file: SharedMap,
}

impl Reader {
    /// Checks the header of a mapped file, or of a part of one, and gives back the value of one key of its metadata; `path` is for
    /// messages.
    pub fn of(path: &Path, file: SharedMap, key: &str) -> Result<(Reader, String)> {
        let bad = |found: String| {
            Error::malformed(path, Position::File, "fitted OOD detectors (.safetensors)", found)
        };
        let (_, header) = SafeTensors::read_metadata(file.as_ref()).map_err(|e| bad(e.to_string()))?;
        SafeTensors::deserialize(file.as_ref()).map_err(|e| bad(e.to_string()))?;
        let value = header
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(key).cloned())
            .ok_or_else(|| bad(format!("tensors without the metadata `{key}`")))?;
        Ok((Reader { path: path.to_path_buf(), file }, value))
    }

    /// An error about one of the tensors.
    pub fn malformed(&self, name: &str, expected: &str, found: &str) -> Error {
        Error::malformed(&self.path, Position::Member(name.to_string()), expected, found)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(self.file.as_ref()).is_ok_and(|tensors| tensors.tensor(name).is_ok())
    }

    /// A tensor of finite f64 numbers; `None` in the shape stands for any extent.
    pub fn get(&self, name: &str, shape: &[Option<usize>]) -> Result<(Vec<usize>, Vec<f64>)> {
        let (shape, bytes) = self.bytes(name, Dtype::F64, shape)?;
        let values: Vec<f64> = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        match values.iter().find(|x| !x.is_finite()) {
            None => Ok((shape, values)),
            Some(odd) => Err(self.malformed(name, "finite numbers", &odd.to_string())),
        }
    }

    /// A tensor of finite f32 numbers.
    pub fn get_f32(&self, name: &str, shape: &[Option<usize>]) -> Result<Vec<f32>> {
        let (_, bytes) = self.bytes(name, Dtype::F32, shape)?;
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        match values.iter().find(|x| !x.is_finite()) {
            None => Ok(values),
            Some(odd) => Err(self.malformed(name, "finite numbers", &odd.to_string())),
        }
    }

    fn bytes(&self, name: &str, dtype: Dtype, shape: &[Option<usize>]) -> Result<(Vec<usize>, &[u8])> {
        let tensors = SafeTensors::deserialize(self.file.as_ref())
            .map_err(|e| self.malformed(name, "a safetensors file", &e.to_string()))?;
        let tensor = tensors.tensor(name).map_err(|e| self.malformed(name, "a tensor", &e.to_string()))?;
        let fits = tensor.shape().len() == shape.len()
            && tensor
                .shape()
                .iter()
                .zip(shape)
                .all(|(found, asked)| asked.is_none_or(|asked| asked == *found));
        if !fits || tensor.dtype() != dtype {
            let asked: Vec<String> =
                shape.iter().map(|extent| extent.map_or("any".into(), |extent| extent.to_string())).collect();
            return Err(self.malformed(
                name,
                &format!("{dtype:?} of shape [{}]", asked.join(", ")),
                &format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape()),
            ));
        }
        Ok((tensor.shape().to_vec(), tensor.data()))
    }
}
