//! Training: options, steps, schedules, the loop, and what it leaves in the run folder.

mod metrics_log;
mod optimizer;
mod options;
mod run_folder;
mod schedule;
mod step;

pub use metrics_log::{Metrics, MetricsLog, Scope, read_metrics};
pub use optimizer::{HYPER_NUMBERS, Optimizer, OptimizerKind};
pub use options::{HeadKind, Shuffle, TrainOptions};
pub use run_folder::RunFolder;
pub use schedule::{Schedule, ScheduleKind};
pub use step::{BatchResult, ImageExtent, TrainStep};
