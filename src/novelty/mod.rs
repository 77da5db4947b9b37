//! Novelty: which samples belong to no class the network knows, decided by thresholds that were calibrated for it.
//!
//! | file | holds |
//! |---|---|
//! | `score` | what is thresholded: any OOD score, or the probability of a logit trained on outliers |
//! | `samples` | scores and predicted classes of one head, of seen and of novel samples |
//! | `rule`, `choose` | the rules by name; from samples to a threshold |
//! | `threshold`, `summary` | a level's calibrated threshold with its rates; count, mean, percentiles of a group |
//! | `proportion`, `p_values` | Clopper-Pearson bounds; conformal p-values and Benjamini-Hochberg |
//! | `truth` | which samples are seen and which novel, for one head |
//! | `file`, `document` | `thresholds.toml` and the files beside it |
//! | `decide` | from flags to answers, on one level or two that agree |
//! | `calibrate` | all of it in order, for the verbs and for recipes: from feature caches to thresholds, answers, verdicts |
//! | `record` | calibration samples kept for the report |
//! | `evaluate`, `dashboard` | what the answers are worth; the table a person reads |
//! | `notebook` | the figures of notebook A, by its names |
//! | `predictions` | answers as CSV |
//!
//! Scores are confidences (larger = more in-distribution); a sample is flagged as novel if its score lies *below* the
//! threshold, so that one at the threshold is kept.

mod calibrate;
mod choose;
mod dashboard;
mod decide;
mod document;
mod evaluate;
mod file;
mod notebook;
mod p_values;
mod predictions;
mod proportion;
mod record;
mod rule;
mod samples;
mod score;
mod summary;
mod threshold;
mod truth;

pub use calibrate::{
    Calibration, CalibrationSets, HeadSets, Judgement, LevelChoice, LevelJudgement, Novel, ReportSets,
    Verdicts, judge, judge_level, report,
};
pub use dashboard::{Dashboard, Row};
pub use decide::{Answer, Hierarchy, LevelInput, decide};
#[doc(hidden)]
pub use evaluate::{Judged, LevelMetrics, Separation, evaluate};
pub use file::{LevelEntry, Rates, ThresholdFile};
pub use notebook::NotebookMetrics;
pub use p_values::{benjamini_hochberg, p_values};
pub use predictions::{Columns, ImageNames, predictions_csv};
pub use proportion::Proportion;
pub use record::CalibrationRecord;
pub use rule::{Costs, Rule};
pub use samples::{LevelScores, Scored, level_name};
pub use score::{Score, Scorer};
pub use summary::{PERCENTILES, Summary};
pub use threshold::{LevelThreshold, calibrate_level, candidates};
pub use truth::{Gathered, Truth, truths};
