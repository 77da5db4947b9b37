//! An experiment with superclasses, subclasses and images of neither: which classes are held out, which networks are trained,
//! how thresholds are chosen, and what comes out.

mod findings;
mod networks;
mod options;
mod seeds;
mod sets;
mod stages;

pub use options::{
    Approach, CalibrateOptions, DataOptions, LevelOptions, NoveltyRecipe, PredictOptions, RefitOptions,
};
pub use seeds::over_seeds;
pub use sets::NoveltySets;
pub use stages::{NoveltyOutcome, NoveltyPipeline};
