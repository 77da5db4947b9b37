//! The keys of recipes: what their TOML files may say.

mod one_level;
mod two_levels;

use std::path::Path;

use serde::Serialize;

use super::reading::{self, WrongKey};
use crate::backend::Precision;
use crate::data::{DataSpec, Level, Subset};
use crate::error::Result;
use crate::novelty::{Hierarchy, LevelChoice};
use crate::train::TrainOptions;

pub use one_level::{CollapseOptions, EvaluateOptions, OneLevel, OodData, ScoreOptions, ShiftedData};
pub use two_levels::{Approach, CalibrateOptions, DataOptions, PredictOptions, RefitOptions, TwoLevels};

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Recipe {
    /// On one level of classes.
    OneLevel(Box<OneLevel>),
    /// On superclasses and subclasses: its file says with how many networks (`approach`).
    TwoLevels(Box<TwoLevels>),
}

/// An expression of the keys of a recipe, whichever they are.
macro_rules! with_keys {
    ($recipe:expr, $keys:ident => $value:expr) => {
        match $recipe {
            Recipe::OneLevel($keys) => $value,
            Recipe::TwoLevels($keys) => $value,
        }
    };
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// An unknown key or a wrong value, with file and line.
    pub fn read(path: &Path) -> Result<Recipe> {
        let text = reading::text(path)?;
        let has_approach = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("approach"));
        let recipe = match has_approach {
            true => Recipe::TwoLevels(reading::parse(&text, path)?),
            false => Recipe::OneLevel(reading::parse(&text, path)?),
        };
        recipe.check().map_err(|wrong| wrong.in_file(&text, path))?;
        Ok(recipe)
    }

    /// The recipe as TOML, every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("options are plain values")
    }

    /// Checks the rules that the types do not.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), WrongKey> {
        with_keys!(self, keys => keys.check())
    }

    /// Seed of everything random.
    pub fn seed(&self) -> u64 {
        with_keys!(self, keys => keys.seed)
    }

    /// The same experiment with another seed.
    pub fn with_seed(&self, seed: u64) -> Recipe {
        let mut recipe = self.clone();
        with_keys!(&mut recipe, keys => keys.seed = seed);
        recipe
    }

    /// Element type of the training.
    pub fn precision(&self) -> Precision {
        with_keys!(self, keys => keys.precision)
    }

    /// The options of `train`.
    pub fn train_mut(&mut self) -> &mut TrainOptions {
        with_keys!(self, keys => &mut keys.train)
    }

    /// Takes only the first `limit` samples of every data set that is not a subset already, OOD sets left out.
    ///
    /// # Errors
    /// A data set's name cannot be parsed.
    pub fn limit(&mut self, limit: usize) -> Result<()> {
        let data: Vec<&mut String> = with_keys!(self, keys => keys.data_mut().collect());
        for text in data {
            let mut spec: DataSpec = text.parse()?;
            if spec.subset == Subset::All {
                spec.subset = Subset::First(limit);
            }
            *text = spec.to_string();
        }
        Ok(())
    }

    /// The number of images per step of an extraction.
    pub(super) fn extraction_batch(&self) -> usize {
        match self {
            Recipe::OneLevel(keys) => keys.evaluate.batch_size,
            Recipe::TwoLevels(keys) => keys.predict.batch_size,
        }
    }

    /// How the answers of two levels are brought together.
    pub(super) fn hierarchy(&self) -> Hierarchy {
        match self {
            Recipe::OneLevel(_) => Hierarchy::Independent,
            Recipe::TwoLevels(keys) => keys.calibrate.hierarchy,
        }
    }

    /// How the novelty of a level is measured and judged. On one level it is as `calibrate` does unless told otherwise.
    pub(super) fn level_choice(&self, level: Option<Level>) -> LevelChoice {
        match self {
            Recipe::OneLevel(keys) => {
                LevelChoice { temperature: keys.scores.temperature, ..LevelChoice::default() }
            }
            Recipe::TwoLevels(keys) if level == Some(Level::Coarse) => keys.calibrate.superclass,
            Recipe::TwoLevels(keys) => keys.calibrate.subclass,
        }
    }
}
