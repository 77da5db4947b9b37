//! A list of the outliers drawn, in a file: enough to draw them again, and to see whether they are the same.

use std::path::Path;

use serde::Serialize;

use super::OutlierOptions;
use crate::error::Result;
use crate::files;

/// A drawing of outliers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The data they come from.
    pub source: String,
    /// Seed of the choice.
    pub seed: u64,
    /// Number of outliers.
    pub count: usize,
    /// The classes they may be of, sorted.
    pub classes: Vec<String>,
    /// BLAKE3 of the list: of the lines `index,class,blake3`, each ended by a newline.
    pub hash: String,
    /// The list, in the order drawn.
    pub outliers: Vec<Outlier>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlier {
    /// Its index among the outliers.
    pub position: usize,
    /// Its index in the data it comes from.
    pub index: u32,
    /// Its class there.
    pub class: String,
    /// BLAKE3 of its width (32 bits, little-endian) and RGB bytes, as `data inspect` compares images.
    pub blake3: String,
}

impl Manifest {
    pub(super) fn new(options: &OutlierOptions, classes: Vec<String>, outliers: Vec<Outlier>) -> Manifest {
        let mut hasher = blake3::Hasher::new();
        for Outlier { index, class, blake3, .. } in &outliers {
            hasher.update(format!("{index},{class},{blake3}\n").as_bytes());
        }
        Manifest {
            source: options.data.to_string(),
            seed: options.seed,
            count: outliers.len(),
            classes,
            hash: hasher.finalize().to_hex().to_string(),
            outliers,
        }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written; an older one is then untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }
}
