//! Reads golden files: what PyTorch computed, recorded by tests/goldens/make_goldens.py.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A recorded tensor in double precision, in PyTorch's layout until it is converted.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// PyTorch's channels-second layout to channels-last: NCHW to NHWC, and OIHW to KRSC, which is the same move.
    /// Tensors of other ranks stay as they are.
    pub fn channels_last(&self) -> Array {
        let &[n, channels, height, width] = self.shape.as_slice() else { return self.clone() };
        let mut values = Vec::with_capacity(self.values.len());
        for image in self.values.chunks_exact((channels * height * width).max(1)) {
            for pixel in 0..height * width {
                values.extend((0..channels).map(|channel| image[channel * height * width + pixel]));
            }
        }
        Array { shape: vec![n, height, width, channels], values }
    }

    /// The one number of a tensor without dimensions.
    pub fn scalar(&self) -> f64 {
        assert!(self.shape.is_empty(), "a tensor of shape {:?} is not one number", self.shape);
        self.values[0]
    }

    /// A scalar that counts something.
    pub fn count(&self) -> usize {
        let value = self.scalar();
        assert!(value >= 0.0 && value.fract() == 0.0, "{value} counts nothing");
        value as usize
    }

    /// Labels as the loss wants them.
    pub fn labels(&self) -> Vec<i32> {
        self.values.iter().map(|&value| value as i32).collect()
    }
}

/// A golden file in memory.
#[derive(Debug)]
pub struct Golden {
    path: PathBuf,
    tensors: BTreeMap<String, Array>,
}

/// Every tensor of a safetensors file, by name.
pub fn numbers_of_safetensors(path: &Path) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let values = match view.dtype() {
            Dtype::F64 => numbers(view.data(), f64::from_le_bytes),
            Dtype::F32 => numbers(view.data(), |bytes| f64::from(f32::from_le_bytes(bytes))),
            Dtype::I64 => numbers(view.data(), |bytes| i64::from_le_bytes(bytes) as f64),
            other => panic!("{}: {name} holds {other:?}", path.display()),
        };
        tensors.insert(name, Array { shape: view.shape().to_vec(), values });
    }
    tensors
}

/// A file or folder under tests/goldens.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

impl Golden {
    /// Reads tests/goldens/NAME.safetensors.
    pub fn load(name: &str) -> Golden {
        let path = path(&format!("{name}.safetensors"));
        let tensors = numbers_of_safetensors(&path);
        Golden { path, tensors }
    }

    /// A tensor by its full name.
    pub fn get(&self, name: &str) -> &Array {
        self.find(name).unwrap_or_else(|| panic!("{} has no {name}", self.path.display()))
    }

    /// A tensor that not every case has.
    pub fn find(&self, name: &str) -> Option<&Array> {
        self.tensors.get(name)
    }

    /// The cases of a file of operations or optimizers: what stands before the first dot, each once.
    pub fn cases(&self) -> Vec<Case<'_>> {
        let names: BTreeSet<&str> =
            self.tensors.keys().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        assert!(!names.is_empty(), "{} holds no case", self.path.display());
        names.into_iter().map(|name| Case { golden: self, name }).collect()
    }

    /// Tensors whose names begin with `prefix`, by the rest of their names.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Array)> + 'a {
        self.tensors.iter().filter_map(move |(name, array)| Some((name.strip_prefix(prefix)?, array)))
    }
}

/// Loads a file and visits its cases; the count keeps a lost case from passing as a test.
pub fn each_case(name: &str, count: usize, check: impl Fn(Case<'_>)) {
    let golden = Golden::load(name);
    let cases = golden.cases();
    assert_eq!(cases.len(), count, "cases of {name}");
    cases.into_iter().for_each(check);
}

fn numbers<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(N).map(|chunk| convert(chunk.try_into().expect("chunks of N bytes"))).collect()
}

/// One case of a golden file.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    golden: &'a Golden,
    pub name: &'a str,
}

impl<'a> Case<'a> {
    /// A tensor of this case, in PyTorch's layout.
    pub fn get(&self, name: &str) -> &'a Array {
        self.golden.get(&format!("{}.{name}", self.name))
    }

    /// A tensor that not every case has.
    pub fn find(&self, name: &str) -> Option<&'a Array> {
        self.golden.find(&format!("{}.{name}", self.name))
    }

    /// A tensor of this case, channels last.
    pub fn channels_last(&self, name: &str) -> Array {
        self.get(name).channels_last()
    }
}

/// ‖found − expected‖ / ‖expected‖ over all elements; where the expected values are all zero, ‖found‖.
///
/// NaN anywhere gives NaN, which no tolerance admits: compare with `error <= tolerance`.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "the number of elements differs");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let scale = norm(&mut expected.iter().copied());
    if scale > 0.0 { difference / scale } else { difference }
}

/// Fails, naming what differs, unless the relative error is within the tolerance.
#[track_caller]
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    let error = relative_error(found, expected);
    assert!(error <= tolerance, "{what}: relative error {error:.2e}, allowed {tolerance:.0e}");
}

#[test]
fn channels_move_last_and_nothing_is_lost() {
    let array = Array { shape: vec![2, 3, 1, 2], values: (0..12).map(f64::from).collect() };
    let moved = array.channels_last();
    assert_eq!(moved.shape, [2, 1, 2, 3]);
    assert_eq!(moved.values, [0., 2., 4., 1., 3., 5., 6., 8., 10., 7., 9., 11.]);
}

#[test]
fn an_error_is_relative_and_nan_is_never_close() {
    assert_eq!(relative_error(&[3.0, 4.5], &[3.0, 4.0]), 0.1);
    assert_eq!(relative_error(&[0.0, 0.5], &[0.0, 0.0]), 0.5);
    assert!(relative_error(&[f64::NAN], &[1.0]).is_nan());
    assert!(std::panic::catch_unwind(|| assert_close("nan", &[f64::NAN], &[1.0], 1e9)).is_err());
}
