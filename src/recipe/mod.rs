//! A whole experiment as one TOML file; unknown keys are errors.

mod training;

pub use training::TrainRecipe;
