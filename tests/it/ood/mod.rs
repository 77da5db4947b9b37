//! OOD scores and their metrics.

mod bundle;
mod metrics;
pub mod scores;
mod tuning;
mod verb;
