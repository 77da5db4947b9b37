//! A whole experiment as one TOML file: training, features, scores, thresholds, collapse, report. Unknown keys are errors.
//!
//! | file | holds |
//! |---|---|
//! | `keys`, `reading` | what a recipe may say; complaints with file and line |
//! | `sets` | the data it names, opened: networks to train, sets to extract, and what each set serves for |
//! | `experiment` | the stages in order |
//! | `networks` | train, extract |
//! | `calibrate`, `findings` | calibrate, predict; the numbers of that |
//! | `scores` | evaluate, score, collapse |
//! | `samples` | samples of two levels to look at |
//! | `seeds` | several seeds |
//! | `demo`, `training` | the recipe of `demo`; the file that `train` leaves |
//!
//! An experiment on one level of classes is one fold with one network; on two levels it has a network with two heads, or two
//! networks, and a fold for each choice of held-out classes.

mod calibrate;
mod demo;
mod experiment;
mod findings;
mod keys;
mod networks;
mod reading;
mod retrain;
mod samples;
mod scores;
mod seeds;
mod sets;
mod training;

pub use calibrate::Novelty;
pub use demo::{DemoSize, demo, is_demo};
pub use experiment::{Experiment, Outcome, Watcher};
pub use keys::{
    Approach, CalibrateOptions, CollapseOptions, DataOptions, EvaluateOptions, OneLevel, OodData,
    PredictOptions, Recipe, RefitOptions, ScoreOptions, TwoLevels,
};
pub use reading::WrongKey;
pub use retrain::Retraining;
pub use seeds::over_seeds;
pub use sets::{Fold, Inputs, NamedSet, Sets, SplitLists, Training};
pub use training::TrainRecipe;
