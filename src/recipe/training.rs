//! The file that `train` writes into its run folder, so that a resume knows everything.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::reading::{self, WrongKey};
use crate::backend::Precision;
use crate::error::Result;
use crate::train::TrainOptions;

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
        let text = reading::text(path)?;
        let recipe: TrainRecipe = reading::parse(&text, path)?;
        recipe.train.check().map_err(|wrong| WrongKey::from(wrong).in_file(&text, path))?;
        Ok(recipe)
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("options are plain values")
    }
}
