//! Out-of-distribution detection: fits, scores, and their metrics.

mod activation;
mod compute;
mod detectors;
mod device;
mod gaussian;
mod logit_scores;
mod method;
pub mod metrics;
mod neighbours;
mod order_statistic;
mod rows;
mod run;
mod sanity;
mod saved;
mod subspace;
pub mod table;

pub use compute::{Compute, OnCpu};
pub use detectors::{Detectors, Scores};
pub use device::{OnDevice, RowsPrecision};
pub use logit_scores::logit_score;
pub(crate) use method::PERCENT;
pub use method::{Dimension, Method, Options};
pub(crate) use run::{FEW_REPLICATES, write_scores};
pub use run::{OodInput, Orientation, Outcome, RunOptions, run, run_on};
