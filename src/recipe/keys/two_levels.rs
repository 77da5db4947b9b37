//! The keys of a recipe of an experiment on two levels of classes.

use serde::{Deserialize, Serialize};

use crate::backend::Precision;
use crate::data::outliers::OutlierOptions;
use crate::data::splits::SplitOptions;
use crate::data::{DataSpec, LARGEST_SIDE, Level, Normalize};
use crate::error::{Error, Result};
use crate::novelty::{Hierarchy, ImageNames, LevelChoice};
use crate::recipe::reading::{WrongKey, in_words};
use crate::train::TrainOptions;
use crate::values::{Reals, Wholes, named};

/// Superclasses, subclasses and classes nobody has seen: splits, training, thresholds, predictions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwoLevels {
    /// The experiment's name, for the report.
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
    /// Options that differ for the superclass network, where there are two.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub superclass: toml::Table,
    /// Options that differ for the subclass network, where there are two.
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

named! {
    /// Number of networks that know the two levels.
    pub enum Approach: "approach" {
        /// A shared backbone with a head for each level.
        TwoHeads = "two_heads",
        /// A network for each level.
        TwoModels = "two_models",
    }
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
    /// How the answers of the two levels are combined.
    pub hierarchy: Hierarchy,
    /// The superclass head.
    pub superclass: LevelChoice,
    /// The subclass head.
    pub subclass: LevelChoice,
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
    /// How images are called.
    pub names: ImageNames,
    /// Images per step.
    pub batch_size: usize,
}

impl Default for PredictOptions {
    fn default() -> PredictOptions {
        PredictOptions { with_scores: false, names: ImageNames::Path, batch_size: 250 }
    }
}

impl TwoLevels {
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
    /// An unknown key or a wrong value among its own options; says in which table, that of the level or that of both.
    pub fn options(&self, level: Level) -> Result<TrainOptions, WrongKey> {
        let (name, different) = match level {
            Level::Both => return Ok(TrainOptions { data: self.data.train.clone(), ..self.train.clone() }),
            Level::Coarse => ("superclass", &self.superclass),
            Level::Fine => ("subclass", &self.subclass),
        };
        let mut table = toml::Table::try_from(&self.train).expect("options are plain values");
        table.extend(different.clone());
        table.insert("data".into(), self.data.train.clone().into());
        table.try_into().map_err(|e: toml::de::Error| {
            // The parser of a table gives no places; the wrong key is one of `different`.
            let key = different.keys().find(|key| !is_read(key, &different[key.as_str()]));
            WrongKey::new(name, key.map_or("", String::as_str), in_words(e.message()))
        })
    }

    /// How images are normalised: `auto` is ImageNet's, the numbers of pretrained weights.
    ///
    /// # Errors
    /// Neither a preset nor numbers.
    pub fn normalize(&self, options: &TrainOptions) -> Result<Normalize> {
        if options.normalize == "auto" { "imagenet".parse() } else { options.normalize.parse() }
    }

    /// Checks the rules that the types do not.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), WrongKey> {
        const OF_DATA: &str =
            "it has no meaning here: [data] names the images, and [splits] says which of them validate";
        const OF_ONE: &str = "the table says what is different for one network of two; with approach = \"two_heads\" there is one";
        const TEACHER: &str = "it names a checkpoint of another run, which has seen images of this one; set superclass_teaches = true";
        const NO_IMAGE: &str = "it leaves no image to choose thresholds on; give a share above 0";
        let of_data = |key: &'static str| move |error: Error| WrongKey::new("data", key, error.to_string());
        let (data, train) = (&self.data, &self.train);
        let spec: DataSpec = data.train.parse().map_err(of_data("train"))?;
        let hint = "it must have two levels of classes: csv:FILE,images=DIR|ZIP?labels=both";
        let hint = format!("{hint}, found {}", data.train);
        WrongKey::refuse(spec.source.level() != Some(Level::Both), "data", "train", &hint)?;
        if let Some(test) = &data.test {
            test.parse::<DataSpec>().map_err(of_data("test"))?;
        }
        let sides = Wholes::<u32>::between(1, u64::from(LARGEST_SIDE));
        WrongKey::of_range(sides.check(u64::from(data.size)), "data", "size", data.size)?;
        WrongKey::refuse(!train.data.is_empty(), "train", "data", OF_DATA)?;
        WrongKey::refuse(train.val.is_some(), "train", "val", OF_DATA)?;
        WrongKey::refuse(train.holdout != 0.0, "train", "holdout", OF_DATA)?;
        let is_one = self.approach == Approach::TwoHeads;
        for (table, different) in [("superclass", &self.superclass), ("subclass", &self.subclass)] {
            let key = different.keys().next();
            WrongKey::refuse(is_one && key.is_some(), table, key.map_or("", String::as_str), OF_ONE)?;
        }
        let teaches = "it is for two models; two heads agree by [train] kl_weight";
        WrongKey::refuse(self.superclass_teaches && is_one, "", "superclass_teaches", teaches)?;
        WrongKey::refuse(train.teacher.is_some(), "train", "teacher", TEACHER)?;
        for &level in self.networks() {
            self.options(level)?.check().map_err(|error| {
                let table = match level {
                    Level::Coarse if self.superclass.contains_key(error.key) => "superclass",
                    Level::Fine if self.subclass.contains_key(error.key) => "subclass",
                    _ => "train",
                };
                WrongKey::new(table, error.key, error.what)
            })?;
        }
        WrongKey::refuse(self.splits.calibrate == 0.0, "splits", "calibrate", NO_IMAGE)?;
        let batch = self.predict.batch_size;
        WrongKey::of_range(Wholes::<usize>::POSITIVE.check(batch as u64), "predict", "batch_size", batch)?;
        let CalibrateOptions { superclass, subclass, .. } = &self.calibrate;
        for (table, level) in [("calibrate.superclass", superclass), ("calibrate.subclass", subclass)] {
            let checked = Reals::POSITIVE.check(level.temperature);
            WrongKey::of_range(checked, table, "temperature", level.temperature)?;
        }
        Ok(())
    }

    /// The names of the labelled images and of those to predict.
    pub(super) fn data_mut(&mut self) -> impl Iterator<Item = &mut String> {
        std::iter::once(&mut self.data.train).chain(&mut self.data.test)
    }
}

/// Whether a value is one of a key of the training options.
fn is_read(key: &str, value: &toml::Value) -> bool {
    let alone = toml::Table::from_iter([(key.to_string(), value.clone())]);
    alone.try_into::<TrainOptions>().is_ok()
}
