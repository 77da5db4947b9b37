//! OOD scores and their metrics.

mod metrics;
mod on_device;
pub mod scores;
mod verb;
