//! The keys of a recipe of an experiment on one level of classes.

use serde::{Deserialize, Serialize};

use crate::backend::Precision;
use crate::collapse::GlobalMean;
use crate::error::{Error, Result};
use crate::ood::table::Group;
use crate::ood::{Dimension, FEW_REPLICATES, OodInput, Options, RunOptions, ScoreSpec};
use crate::recipe::reading::WrongKey;
use crate::train::TrainOptions;
use crate::values::Wholes;

/// Training, features, scores of out-of-distribution sets, collapse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneLevel {
    /// The experiment's name, for the report.
    #[serde(default)]
    pub name: String,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Element type of training and extraction.
    #[serde(default)]
    pub precision: Precision,
    /// The options of `train`.
    pub train: TrainOptions,
    /// The in-distribution test data to extract.
    pub evaluate: EvaluateOptions,
    /// Which scores.
    #[serde(default)]
    pub scores: ScoreOptions,
    /// Neural collapse.
    #[serde(default)]
    pub collapse: CollapseOptions,
    /// Out-of-distribution sets; the first one is NC5's in curves.
    #[serde(default)]
    pub ood: Vec<OodData>,
    /// Covariate-shifted ID sets, for a full-spectrum evaluation beside the plain one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shifted: Vec<ShiftedData>,
}

/// The in-distribution test data to extract, and in which steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateOptions {
    /// The in-distribution test data.
    pub id: String,
    /// Images per step.
    #[serde(default = "evaluation_batch")]
    pub batch_size: usize,
}

fn evaluation_batch() -> usize {
    250
}

/// Which scores are fitted, and with which constants; the keys are the flags of `ood`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreOptions {
    /// Names separated by commas, or `all`.
    pub methods: String,
    /// Principal directions ViM removes: a number, a share of the variance, or `paper`.
    pub vim_dim: String,
    /// Dimension of NECO's subspace: a number, a share of the variance, or `rule`.
    pub neco_dim: String,
    /// Neighbour of `knn`.
    pub knn_k: usize,
    /// Percentile of `react`.
    pub react_percentile: f64,
    /// Temperature of msp, energy and react.
    pub temperature: f64,
    /// Bootstrap replicates.
    pub bootstrap: u32,
}

impl Default for ScoreOptions {
    fn default() -> ScoreOptions {
        let options = Options::default();
        ScoreOptions {
            methods: "all".into(),
            vim_dim: "paper".into(),
            neco_dim: "rule".into(),
            knn_k: options.knn_k,
            react_percentile: options.react_percentile,
            temperature: options.temperature,
            bootstrap: 200,
        }
    }
}

/// Whether and how collapse is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollapseOptions {
    /// Whether it is.
    pub enabled: bool,
    /// The kind of mean that the global mean is.
    pub global_mean: GlobalMean,
}

impl Default for CollapseOptions {
    fn default() -> CollapseOptions {
        CollapseOptions { enabled: true, global_mean: GlobalMean::default() }
    }
}

/// An out-of-distribution set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OodData {
    /// Its name in tables.
    pub name: String,
    /// The data.
    pub data: String,
    /// OpenOOD's group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Whether the experiment goes on, with a warning, where the data is not there.
    #[serde(default)]
    pub optional: bool,
    /// Whether a random subset as large as the ID test set is drawn from a larger set.
    #[serde(default = "yes")]
    pub match_id_size: bool,
}

/// A covariate-shifted ID set: images of the classes of training that look different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShiftedData {
    /// Its name in tables.
    pub name: String,
    /// The data; where it has labels, they are classes of the training data.
    pub data: String,
    /// Whether the experiment goes on, with a warning, where the data is not there.
    #[serde(default)]
    pub optional: bool,
    /// Whether a random subset as large as the ID test set is drawn from a larger set.
    #[serde(default = "yes")]
    pub match_id_size: bool,
}

fn yes() -> bool {
    true
}

impl OneLevel {
    /// Checks the rules that the types do not.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), WrongKey> {
        self.train.check()?;
        self.run_options()?;
        let batch = self.evaluate.batch_size;
        WrongKey::of_range(Wholes::<usize>::POSITIVE.check(batch as u64), "evaluate", "batch_size", batch)?;
        let named = self.ood.iter().map(|set| ("ood", "OOD", &set.name));
        let named = named.chain(self.shifted.iter().map(|set| ("shifted", "shifted", &set.name)));
        let named: Vec<(&str, &str, &String)> = named.collect();
        for (index, (key, kind, name)) in named.iter().enumerate() {
            OodInput::check_name(name).map_err(|error| WrongKey::new("", key, error.to_string()))?;
            let what = format!(
                "`{name}` is the name of a part of the training data; give the {kind} set another name"
            );
            WrongKey::refuse(["train", "calibrate"].contains(&name.as_str()), "", key, &what)?;
            let is_twice = named[..index].iter().any(|(_, _, other)| other == name);
            let kind = if named[..index].iter().all(|(other, ..)| other == key) { *kind } else { "test" };
            let what = format!("two {kind} sets are named `{name}`; rename one of them");
            WrongKey::refuse(is_twice, "", key, &what)?;
        }
        let what =
            "shifted ID sets are for a full-spectrum evaluation against OOD sets; name one under [[ood]]";
        WrongKey::refuse(!self.shifted.is_empty() && self.ood.is_empty(), "", "shifted", what)?;
        Ok(())
    }

    /// Options of the scoring stage.
    ///
    /// # Errors
    /// An unknown score, a dimension that is none.
    pub fn run_options(&self) -> Result<RunOptions, WrongKey> {
        let of_key = |key: &'static str| move |error: Error| WrongKey::new("scores", key, error.to_string());
        let options = &self.scores;
        let scores = Options {
            methods: ScoreSpec::parse_list(&options.methods).map_err(of_key("methods"))?,
            temperature: options.temperature,
            vim_dim: options.vim_dim.parse::<Dimension>().map_err(of_key("vim_dim"))?,
            neco_dim: options.neco_dim.parse::<Dimension>().map_err(of_key("neco_dim"))?,
            knn_k: options.knn_k,
            react_percentile: options.react_percentile,
            seed: self.seed,
            ..Options::default()
        };
        if let Some((key, what)) = scores.wrong() {
            return Err(WrongKey::new("scores", key, what));
        }
        WrongKey::refuse(options.bootstrap == 1, "scores", "bootstrap", FEW_REPLICATES)?;
        Ok(RunOptions { scores, bootstrap: options.bootstrap, ..RunOptions::default() })
    }

    /// The names of the in-distribution sets.
    pub(super) fn data_mut(&mut self) -> impl Iterator<Item = &mut String> {
        [&mut self.train.data, &mut self.evaluate.id].into_iter().chain(&mut self.train.val)
    }
}
