//! A whole experiment as one TOML file: training, features, scores, collapse, report. Unknown keys are errors.

mod demo;
mod experiment;
pub mod novelty;
mod reading;
mod sets;
mod stage_helpers;
mod stages;
mod thresholds;
mod training;

pub use demo::{DemoSize, demo, is_demo};
pub use experiment::{CollapseOptions, EvaluateOptions, OodData, Recipe, ScoreOptions};
pub use reading::WrongKey;
pub use sets::{NamedSet, Sets};
pub use stage_helpers::Watcher;
pub use stages::{Outcome, Pipeline};
pub use training::TrainRecipe;
