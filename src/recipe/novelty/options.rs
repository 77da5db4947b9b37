//! What the recipe of an experiment on two levels of classes may say.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::backend::Precision;
use crate::data::outliers::OutlierOptions;
use crate::data::splits::SplitOptions;
use crate::data::{DataSpec, Level, Normalize};
use crate::error::{Error, Result};
use crate::files;
use crate::novelty::{Hierarchy, Rule, Score};
use crate::ood::Method;
use crate::recipe::experiment::shorten;
use crate::recipe::training::{self, LONGEST_RECIPE};
use crate::train::TrainOptions;

/// A whole experiment with superclasses, subclasses and classes nobody has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoveltyRecipe {
    /// What it is, for the report.
    #[serde(default)]
    pub name: String,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Element type of training; features and scores are f32 and f64.
    #[serde(default)]
    pub precision: Precision,
    /// One network with two heads, or a network for each level.
    pub approach: Approach,
    /// Whether the subclass network of two learns from the superclass network of its fold (`teacher_weight` of `train`).
    #[serde(default)]
    pub superclass_teaches: bool,
    /// The images.
    pub data: DataOptions,
    /// Images of other things, shown as `novel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outliers: Option<OutlierOptions>,
    /// Which images serve for what.
    #[serde(default)]
    pub splits: SplitOptions,
    /// The options of `train`, for every network.
    pub train: TrainOptions,
    /// What is different for the superclass network, where there are two.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub superclass: toml::Table,
    /// What is different for the subclass network, where there are two.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub subclass: toml::Table,
    /// How thresholds are chosen.
    #[serde(default)]
    pub calibrate: CalibrateOptions,
    /// The networks that are handed over.
    #[serde(default)]
    pub refit: RefitOptions,
    /// The predictions.
    #[serde(default)]
    pub predict: PredictOptions,
}

/// How many networks know the two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approach {
    /// A shared backbone with a head for each level.
    TwoHeads,
    /// A network for each level.
    TwoModels,
}

/// The images of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataOptions {
    /// Labelled images with two levels, such as `csv:train_data.csv,images=train_images.zip?labels=both`.
    pub train: String,
    /// Images to predict, such as `images:test_images.zip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Rows and columns of what the networks see.
    #[serde(default = "side")]
    pub size: u32,
}

fn side() -> u32 {
    64
}

/// How thresholds are chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrateOptions {
    /// How the two levels speak together.
    pub hierarchy: Hierarchy,
    /// The superclass head.
    pub superclass: LevelOptions,
    /// The subclass head.
    pub subclass: LevelOptions,
}

impl CalibrateOptions {
    /// How a level's novelty is measured and judged.
    pub fn level(&self, level: Level) -> &LevelOptions {
        if level == Level::Coarse { &self.superclass } else { &self.subclass }
    }
}

/// How one head's novelty is measured and judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LevelOptions {
    /// The score.
    pub score: Score,
    /// The rule that turns scores into a threshold.
    pub rule: Rule,
    /// What logits are divided by before they are scored.
    pub temperature: f64,
}

impl Default for LevelOptions {
    fn default() -> LevelOptions {
        LevelOptions { score: Score::Ood(Method::Msp), rule: Rule::Conformal(0.05), temperature: 1.0 }
    }
}

/// The networks that are handed over: trained once more with the classes that were held out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefitOptions {
    /// Whether they are; otherwise those of the first fold are handed over.
    pub enabled: bool,
}

impl Default for RefitOptions {
    fn default() -> RefitOptions {
        RefitOptions { enabled: true }
    }
}

/// The predictions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PredictOptions {
    /// Whether names, scores and flags stand beside the indices.
    pub with_scores: bool,
    /// Images per step.
    pub batch_size: usize,
}

impl Default for PredictOptions {
    fn default() -> PredictOptions {
        PredictOptions { with_scores: false, batch_size: 250 }
    }
}

impl NoveltyRecipe {
    /// Whether the recipe in a file is one of these: it says how many networks know the levels. What is no TOML is not.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_one(path: &Path) -> Result<bool> {
        let text = files::read_text(path, LONGEST_RECIPE)?;
        Ok(text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("approach")))
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// An unknown key or a wrong value, with file and line.
    pub fn read(path: &Path) -> Result<NoveltyRecipe> {
        let recipe: NoveltyRecipe = training::read(path)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe as TOML, every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("options are plain values")
    }

    /// The networks of an experiment: the levels each of them knows.
    pub fn networks(&self) -> &'static [Level] {
        match self.approach {
            Approach::TwoHeads => &[Level::Both],
            Approach::TwoModels => &[Level::Coarse, Level::Fine],
        }
    }

    /// The training options of the network for a level.
    ///
    /// # Errors
    /// An unknown key or a wrong value among what is different for it.
    pub fn options(&self, level: Level) -> Result<TrainOptions> {
        let (name, different) = match level {
            Level::Both => return Ok(TrainOptions { data: self.data.train.clone(), ..self.train.clone() }),
            Level::Coarse => ("superclass", &self.superclass),
            Level::Fine => ("subclass", &self.subclass),
        };
        let mut table = toml::Table::try_from(&self.train).expect("options are plain values");
        table.extend(different.clone());
        table.insert("data".into(), self.data.train.clone().into());
        table.try_into().map_err(|e: toml::de::Error| Error::usage(format!("[{name}] {}", e.message())))
    }

    /// How images are normalised: `auto` is ImageNet's, the numbers of pretrained weights.
    ///
    /// # Errors
    /// Neither a preset nor numbers.
    pub fn normalize(&self, options: &TrainOptions) -> Result<Normalize> {
        if options.normalize == "auto" { "imagenet".parse() } else { options.normalize.parse() }
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<()> {
        let spec: DataSpec = self.data.train.parse()?;
        if spec.source.level() != Some(Level::Both) {
            return Err(Error::usage(format!(
                "[data] train = \"{}\" must have two levels of classes: csv:FILE,images=DIR|ZIP?labels=both",
                self.data.train
            )));
        }
        if let Some(test) = &self.data.test {
            test.parse::<DataSpec>()?;
        }
        for (key, given) in [
            ("data", !self.train.data.is_empty()),
            ("val", self.train.val.is_some()),
            ("holdout", self.train.holdout != 0.0),
        ] {
            if given {
                return Err(Error::usage(format!(
                    "[train] {key} has no meaning here: [data] names the images, and [splits] says which of them validate"
                )));
            }
        }
        if self.approach == Approach::TwoHeads && !(self.superclass.is_empty() && self.subclass.is_empty()) {
            return Err(Error::usage(
                "[superclass] and [subclass] say what is different for two networks; with approach = \"two_heads\" there is one",
            ));
        }
        if self.superclass_teaches && self.approach == Approach::TwoHeads {
            return Err(Error::usage(
                "superclass_teaches = true is for two models; two heads agree by [train] kl_weight",
            ));
        }
        if self.train.teacher.is_some() {
            return Err(Error::usage(
                "[train] teacher names a checkpoint of another run, which has seen images of this one; set superclass_teaches = true",
            ));
        }
        for &level in self.networks() {
            self.options(level)?.check()?;
        }
        if self.predict.batch_size == 0 {
            return Err(Error::usage("[predict] batch_size must be at least 1"));
        }
        for (name, level) in
            [("superclass", &self.calibrate.superclass), ("subclass", &self.calibrate.subclass)]
        {
            if !(level.temperature > 0.0 && level.temperature.is_finite()) {
                return Err(Error::usage(format!(
                    "[calibrate.{name}] temperature {}: the value must be above 0",
                    level.temperature
                )));
            }
        }
        Ok(())
    }

    /// The same experiment on the first `limit` labelled images and as many test images.
    ///
    /// # Errors
    /// A data set's name cannot be parsed.
    pub fn limited(mut self, limit: usize) -> Result<NoveltyRecipe> {
        shorten(&mut self.data.train, limit)?;
        self.data.test.as_mut().map_or(Ok(()), |test| shorten(test, limit))?;
        Ok(self)
    }
}
