//! Calibration and selective prediction: the reliability diagram and the risk-coverage curve.

use super::axis::Axis;
use super::panel::{Mark, Panel};
use super::scores::round;
use super::theme::Role;
use crate::eval::Results;

/// Accuracy over confidence in bins of equal width, beside the diagonal of a calibrated network (Guo and others, 2017); below it
/// the network is surer than it is right.
pub fn reliability_diagram(results: &Results) -> Panel {
    let percent = |value: f64| format!("{} %", round(100.0 * value));
    let mut outline = vec![(0.0, 0.0)];
    let mut means = Vec::new();
    for bin in &results.reliability {
        let height = bin.accuracy.unwrap_or(0.0);
        outline.extend([(bin.above, 0.0), (bin.above, height), (bin.to, height), (bin.to, 0.0)]);
        means.extend(bin.confidence.zip(bin.accuracy));
    }
    let diagonal = vec![(0.0, 0.0), (1.0, 1.0)];
    let panel = Panel::new("Reliability diagram", Axis::unit("confidence"), Axis::unit("accuracy"))
        .mark(Mark::Area { color: Role::Blue, outline })
        .mark(Mark::Dashed { color: Role::Muted, points: diagonal });
    means
        .into_iter()
        .fold(panel, |panel, at| panel.mark(Mark::Dot { color: Role::Red, at }))
        .named(Role::Blue, format!("ECE {}", percent(results.metrics.ece)))
        .named(Role::Red, "mean confidence of a bin")
}

/// Share of wrong answers among those accepted, over the share accepted, the surest first.
pub fn risk_coverage_curve(results: &Results) -> Panel {
    let points: Vec<(f64, f64)> =
        results.risk_coverage.iter().map(|(coverage, risk)| (*coverage, 100.0 * risk)).collect();
    let y = Axis::from_zero("errors among accepted (%)", points.iter().map(|point| point.1), 5);
    Panel::new("Risk and coverage", Axis::unit("coverage (share accepted)"), y)
        .mark(Mark::Line { color: Role::Purple, points, dots: false })
        .named(Role::Purple, format!("AURC {} %", round(100.0 * results.metrics.aurc)))
}
