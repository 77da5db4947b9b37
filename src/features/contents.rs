//! What a cache holds, as hashes: which arrays of which shape, and the SHA-256 of their elements.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::npy::{Element, NpyArray};
use super::set::FeatureSet;

/// An array of a cache. Two are equal if their elements are, bit for bit, and are stored alike; whether in a folder of `.npy` files or
/// in an `.npz`, packed or not, makes no difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredArray {
    /// `features`, `logits` or `labels`.
    pub name: String,
    /// Element type as NumPy writes it, for instance `<f4`.
    pub dtype: String,
    /// Extents.
    pub shape: Vec<u64>,
    /// Whether the first index runs fastest.
    pub fortran_order: bool,
    /// SHA-256 of the elements in the order in which they are stored, in hexadecimal digits.
    pub sha256: String,
}

impl StoredArray {
    /// Everything but the hash, which takes a pass over the elements.
    fn described(name: &str, array: &NpyArray) -> StoredArray {
        let (kind, size) = match array.element {
            Element::Signed(size) => ('i', usize::from(size)),
            Element::Unsigned(size) => ('u', usize::from(size)),
            float => ('f', float.size()),
        };
        let order = match (size, array.big_endian) {
            (1, _) => '|',
            (_, true) => '>',
            (_, false) => '<',
        };
        StoredArray {
            name: name.to_string(),
            dtype: format!("{order}{kind}{size}"),
            shape: array.shape.iter().map(|&extent| extent as u64).collect(),
            fortran_order: array.fortran,
            sha256: String::new(),
        }
    }

    /// Whether element type, shape and order are the same, whatever the elements.
    pub(crate) fn is_shaped_like(&self, other: &StoredArray) -> bool {
        let form = |array: &StoredArray| StoredArray { sha256: String::new(), ..array.clone() };
        form(self) == form(other)
    }
}

impl FeatureSet {
    /// The arrays of the cache with their hashes.
    pub fn stored_arrays(&self) -> Vec<StoredArray> {
        let hashed = |(name, array): (&str, &NpyArray)| StoredArray {
            sha256: hex(&Sha256::digest(array.elements())),
            ..StoredArray::described(name, array)
        };
        self.arrays().map(hashed).collect()
    }

    /// The same without hashes, which takes no time.
    pub(crate) fn described_arrays(&self) -> Vec<StoredArray> {
        self.arrays().map(|(name, array)| StoredArray::described(name, array)).collect()
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Matrix;

    #[test]
    fn the_hash_of_an_array_is_that_of_its_stored_elements() {
        let features = Matrix::from_f32(vec![1.0, 2.0], 2, "test").unwrap();
        let set = FeatureSet::from_parts("test", features, None, Some(vec![0])).unwrap();
        let arrays = set.stored_arrays();
        // hashlib.sha256(numpy.array([[1, 2]], '<f4').tobytes()), and of numpy.array([0], '<i8').
        let expected = [
            (
                "features",
                "<f4",
                vec![1, 2],
                "b9c80b5adeca450753a16950c3cc655d271f7bef7a485bc83f112b72fef21d37",
            ),
            ("labels", "<i8", vec![1], "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"),
        ];
        for (array, (name, dtype, shape, hash)) in arrays.iter().zip(expected) {
            assert_eq!((array.name.as_str(), array.dtype.as_str(), &array.shape), (name, dtype, &shape));
            assert_eq!(array.sha256, hash, "{name}");
        }
        assert!(arrays[0].is_shaped_like(&set.described_arrays()[0]) && arrays[0] != arrays[1]);
    }
}
