//! Out-of-distribution detection: fits, scores, and their metrics.

pub mod bundle;
mod compute;
mod detectors;
mod device;
mod evaluate;
mod families;
mod family;
mod measure;
mod method;
pub mod metrics;
mod options;
mod order_statistic;
mod parameters;
mod rows;
mod run;
mod sanity;
mod saved;
mod spec;
pub mod table;
mod training;
pub mod tuning;

pub use compute::{Compute, OnCpu};
pub use detectors::{Detectors, Scores};
pub use device::{OnDevice, RowsPrecision, on_chosen};
pub use evaluate::Known;
pub use method::{About, Cost, Method, Needs};
pub(crate) use options::PERCENT;
pub use options::{Dimension, Options};
pub use parameters::{Parameter, Range, Value};
pub(crate) use run::{FEW_REPLICATES, write_scores};
pub use run::{OodInput, Orientation, Outcome, RunOptions, Sets, ShiftedInput, run, run_on, run_tuned_on};
pub use spec::ScoreSpec;
