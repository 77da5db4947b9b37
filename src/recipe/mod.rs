//! A whole experiment as one TOML file: training, features, scores, collapse, report. Unknown keys are errors.

mod demo;
mod experiment;
pub mod novelty;
mod reading;
mod sets;
mod stages;
mod steps;
mod thresholds;
mod training;

pub use demo::{DemoSize, demo, is_demo};
pub use experiment::{CollapseOptions, EvaluateOptions, OodData, Recipe, ScoreOptions};
pub use reading::WrongKey;
pub use sets::{NamedSet, Sets};
pub use stages::{Outcome, Pipeline};
pub use steps::Watcher;
pub use training::TrainRecipe;
