//! Training curves: accuracy, and loss on a logarithmic scale.

use super::axis::Axis;
use super::panel::{Mark, Panel, thinned};
use super::theme::Role;

/// Accuracy and loss at one step of training, for one split.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingPoint {
    /// Epochs done, with fractions where steps were logged.
    pub epoch: f64,
    /// `train`, `val` or `test`.
    pub split: String,
    /// Mean loss per sample.
    pub loss: Option<f64>,
    /// Fraction of samples classified correctly.
    pub accuracy: Option<f64>,
    /// Learning rate of the step.
    pub learning_rate: Option<f64>,
}

const SPLITS: [(&str, &str, Role); 3] =
    [("train", "training", Role::Blue), ("val", "validation", Role::Orange), ("test", "test", Role::Green)];

/// Accuracy in percent over epochs, one curve a split.
pub fn accuracy_curves(points: &[TrainingPoint]) -> Panel {
    curves(
        "Accuracy",
        points,
        |point| point.accuracy.map(|value| 100.0 * value),
        |values| {
            let (lowest, highest) = Axis::linear("", values.iter().copied(), 5).limits();
            // Room above the last point, but no promise of more than 100 %.
            let top = (highest + 0.05 * (highest - lowest)).min(highest.max(100.0));
            Axis::linear("accuracy (%)", [lowest, top], 5)
        },
    )
}

/// Mean loss over epochs on a logarithmic scale, one curve a split.
pub fn loss_curves(points: &[TrainingPoint]) -> Panel {
    curves(
        "Loss",
        points,
        |point| point.loss,
        |values| Axis::logarithmic("loss (log scale)", values.iter().copied()),
    )
}

/// Learning rate over epochs; `None` where none was logged.
pub fn learning_rate_curve(points: &[TrainingPoint]) -> Option<Panel> {
    // Evaluations may repeat the rate of the step before them.
    let points: Vec<TrainingPoint> = points.iter().filter(|point| point.split == "train").cloned().collect();
    points.iter().any(|point| point.learning_rate.is_some()).then(|| {
        curves(
            "Learning rate",
            &points,
            |point| point.learning_rate,
            |values| Axis::from_zero("learning rate", values.iter().copied(), 5),
        )
    })
}

fn curves(
    title: &str,
    points: &[TrainingPoint],
    value: impl Fn(&TrainingPoint) -> Option<f64>,
    axis: impl Fn(&[f64]) -> Axis,
) -> Panel {
    let shown: Vec<f64> = points.iter().filter_map(&value).collect();
    let epochs = points.iter().filter(|point| value(point).is_some()).map(|point| point.epoch);
    let mut panel = Panel::new(title, Axis::epochs(epochs), axis(&shown));
    for (split, name, color) in SPLITS {
        let curve: Vec<(f64, f64)> = points
            .iter()
            .filter(|point| point.split == split)
            .filter_map(|point| Some((point.epoch, value(point)?)))
            .collect();
        if !curve.is_empty() {
            let dots = curve.len() <= 30;
            panel = panel.mark(Mark::Line { color, points: thinned(&curve, 400), dots }).named(color, name);
        }
    }
    panel
}
