//! Novelty: which samples belong to no class the network knows, decided by thresholds that were calibrated for it.
//!
//! | file | holds |
//! |---|---|
//! | `score` | what is thresholded: any OOD score, or the probability of a logit trained on outliers |
//! | `samples` | scores and predicted classes of one head, of seen and of novel samples |
//! | `rule`, `choose` | the rules by name; from samples to a threshold |
//! | `threshold`, `summary` | a level's calibrated threshold with its rates; count, mean, percentiles of a group |
//! | `proportion`, `p_values` | Clopper-Pearson bounds; conformal p-values and Benjamini-Hochberg |
//!
//! Scores are confidences (larger = more in-distribution); a sample is flagged as novel if its score lies *below* the
//! threshold, so that one at the threshold is kept.

mod choose;
mod p_values;
mod proportion;
mod rule;
mod samples;
mod score;
mod summary;
mod threshold;

pub use p_values::{benjamini_hochberg, p_values};
pub use proportion::Proportion;
pub use rule::{Costs, Rule};
pub use samples::{LevelScores, Scored, level_name};
pub use score::{Score, Scorer};
pub use summary::{PERCENTILES, Summary};
pub use threshold::{LevelThreshold, calibrate_level, candidates};
