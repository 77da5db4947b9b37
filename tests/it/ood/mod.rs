//! OOD scores and their metrics.

mod bundle;
mod metrics;
mod on_device;
pub mod scores;
mod tuning;
mod verb;
