//! Training: options, steps, schedules, the loop, and what it leaves in the run folder.

mod keeper;
mod materials;
mod metrics_log;
mod optimizer;
mod options;
mod queue;
mod run_folder;
mod schedule;
mod step;
mod trainer;

pub use materials::Materials;
pub use metrics_log::{Metrics, MetricsLog, Scope, read_metrics};
pub use optimizer::{HYPER_NUMBERS, Optimizer, OptimizerKind};
pub use options::{HeadKind, Shuffle, TrainOptions};
pub use run_folder::{RECIPE_FILE, RunFolder};
pub use schedule::{Schedule, ScheduleKind};
pub use step::TrainStep;
pub use trainer::{Job, Observer, Summary, Validation, train};
