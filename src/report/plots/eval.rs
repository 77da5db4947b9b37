//! Calibration and selective prediction: the reliability diagram and the risk-coverage curve.

use super::axis::{Axis, short, three_digits};
use super::heat_map::{Colours, HeatMap, heat_map};
use super::panel::{Mark, Panel};
use super::theme::Role;
use crate::eval::{Confusion, Results};

/// Accuracy over confidence in bins of equal width, beside the diagonal of a calibrated network (Guo and others, 2017); below it
/// the network is surer than it is right.
pub fn reliability_diagram(results: &Results) -> Panel {
    let percent = |value: f64| format!("{} %", short(three_digits(100.0 * value)));
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
        .named(Role::Purple, format!("AURC {} %", short(three_digits(100.0 * results.metrics.aurc))))
}

/// Classes whose confusion matrix is drawn; of more a cell would be no pixel.
const MOST_CLASSES: u64 = 512;

/// The confusion matrix in shares of each row: of the images of a class, how many were taken for each class. `None` of very many
/// classes.
pub fn confusion_matrix(results: &Results, confusion: &Confusion) -> Option<Panel> {
    if results.classes > MOST_CLASSES {
        return None;
    }
    let classes = results.classes as usize;
    let mut values = vec![0.0; classes * classes];
    for cell in confusion.cells() {
        let (row, column) = (cell.label as usize, cell.predicted as usize);
        let samples = results.per_class.get(row).map_or(1, |class| class.samples.max(1));
        *values.get_mut(row * classes + column)? = cell.count as f64 / samples as f64;
    }
    let names: Vec<String> = (0..classes as u32).map(|class| results.class_name(class)).collect();
    Some(heat_map(HeatMap {
        title: "Confusion matrix (% of each class)",
        axes: ("predicted", "class"),
        classes,
        names: &names,
        values: &values.iter().map(|share| 100.0 * share).collect::<Vec<f64>>(),
        colours: Colours::Sequential { lowest: 0.0, highest: 100.0 },
        number: Some(|percent| if percent < 0.5 { String::new() } else { format!("{percent:.0}") }),
    }))
}
