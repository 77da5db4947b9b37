//! Figures: training curves, score distributions, ROC and precision-recall curves, thresholds, neural
//! collapse.
//!
//! A [`Panel`] says what is shown; drawing turns one or several into a [`Figure`], which knows how to be a file
//! (SVG or PNG) or part of a page. Text may come from anywhere: it is escaped and stripped of control characters.

mod axis;
mod collapse;
mod eval;
mod figure;
pub mod heat_map;
mod novelty;
mod outlines;
mod overlay;
mod panel;
mod scores;
pub mod theme;
mod training;

pub use axis::{short, three_digits};
pub use collapse::{CollapseRow, angle_histogram, collapse_panels, cosine_heat_map};
pub use eval::{confusion_matrix, reliability_diagram, risk_coverage_curve};
pub use figure::Figure;
pub use novelty::{ScoreAxis, numbered, threshold_histogram};
pub use overlay::{MOST_OVERLAID, RunCurve, Scale, overlay};
pub use panel::{Panel, sheet};
pub(super) use scores::shown_range;
pub use scores::{ScoredPair, comparison_sheet, score_sheet};
pub use training::{TrainingPoint, accuracy_curves, learning_rate_curve, loss_curves};

#[cfg(test)]
mod tests;
