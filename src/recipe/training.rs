//! What `train` writes into its run folder, so that a resume knows everything.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::backend::Precision;
use crate::error::{Error, Position, Result};
use crate::files;
use crate::train::TrainOptions;

/// No recipe is longer than this.
pub(super) const LONGEST_RECIPE: u64 = 1 << 20;

/// A training, fully resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Seed of initial weights, order and augmentation.
    pub seed: u64,
    /// Element type.
    pub precision: Precision,
    /// The options of `train`.
    pub train: TrainOptions,
}

impl TrainRecipe {
    /// Reads a run folder's `recipe.toml`.
    ///
    /// # Errors
    /// No such file, or not a recipe; the message has the line.
    pub fn read(path: &Path) -> Result<TrainRecipe> {
        read(path)
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("options are plain values")
    }
}

/// Reads a recipe of any kind; an error has file and line.
pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = files::read_text(path, LONGEST_RECIPE)?;
    toml::from_str(&text).map_err(|e| toml_error(path, &text, &e))
}

/// A TOML error with its line.
fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let before =
        |end: usize| text.as_bytes()[..end.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
    let line = 1 + error.span().map_or(0, |span| before(span.start));
    Error::malformed(path, Position::Line(line as u64), "a valid recipe", error.message().to_string())
}
