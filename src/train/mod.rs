//! Training: options, steps, schedules, the loop, and its files in the run folder.

mod checkpoint_manager;
mod choices;
mod inputs;
mod metrics_log;
mod objective;
mod optimizer;
mod options;
mod queue;
mod run_folder;
mod run_record;
mod running_metrics;
mod sampler;
mod schedule;
mod step;
mod targets;
mod teacher;
mod trainer;

pub use choices::{ClassWeights, FineTune, KlDetach, KlDirection, OutlierLoss, Sampler, Shuffle};
pub use inputs::{Initial, TrainingInputs};
pub use metrics_log::{Metrics, MetricsLog, Scope, read_metrics};
pub use objective::{BatchTargets, Consistency, Coupling, Exposure, Objective, Term, TermWeights};
pub use optimizer::{HYPER_NUMBERS, Optimizer, OptimizerKind, Rates};
pub use options::{TrainOptions, WrongOption};
pub use run_folder::{RECIPE_FILE, RunFolder};
pub use run_record::{RUN_FILE, RunRecord, Session};
pub use sampler::balanced;
pub use schedule::{Schedule, ScheduleKind};
pub use step::{StepInputs, TrainStep};
pub use targets::Targets;
pub use teacher::Teacher;
pub use trainer::{Job, Observer, Summary, Validation, train};
