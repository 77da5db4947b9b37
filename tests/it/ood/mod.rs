//! OOD scores and their metrics.

mod metrics;
pub mod scores;
mod tuning;
mod verb;
