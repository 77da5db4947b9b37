//! Training: options, steps, schedules, the loop, and what it leaves in the run folder.

mod optimizer;
mod schedule;
mod step;

pub use optimizer::{HYPER_NUMBERS, Optimizer, OptimizerKind};
pub use schedule::{Schedule, ScheduleKind};
pub use step::{BatchResult, ImageExtent, TrainStep};
