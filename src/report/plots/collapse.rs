//! Neural collapse: the measures over checkpoints, and the geometry of the class means.

use super::axis::{Axis, short, three_digits};
use super::heat_map::{Colours, HeatMap, heat_map};
use super::panel::{Mark, Panel, thinned};
use super::theme::Role;

/// The measures of one checkpoint; what is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CollapseRow {
    /// Epochs trained.
    pub epoch: f64,
    /// Within-class against between-class scatter.
    pub nc1: Option<f64>,
    /// Coefficient of variation of the norms of the centred class means.
    pub nc2_equinorm: Option<f64>,
    /// Mean distance of the cosines of the centred class means from -1/(C-1).
    pub nc2_equiangular: Option<f64>,
    /// Distance between classifier rows and class means, both normalised.
    pub nc3: Option<f64>,
    /// Share of samples that the network and the nearest class mean classify differently.
    pub nc4: Option<f64>,
    /// Mean absolute cosine of the centred class means with the centred OOD mean.
    pub nc5: Option<f64>,
}

/// A measure's name and how to read it from a row.
type Measure = (Role, &'static str, fn(&CollapseRow) -> Option<f64>);

/// A measure's colour, name, and values over epochs.
type NamedCurve<'a> = (Role, &'a str, Vec<(f64, f64)>);

/// One panel a measure, NC1 to NC5, over epochs; NC1, NC2 and NC5 on a logarithmic scale. Panels without a value are
/// left out.
pub fn collapse_panels(rows: &[CollapseRow]) -> Vec<Panel> {
    let measures: [(&str, &str, bool, &[Measure]); 5] = [
        ("NC1: variability within classes", "NC1 (log scale)", true, &[(Role::Blue, "NC1", |row| row.nc1)]),
        (
            "NC2: class means form a simplex",
            "NC2 (log scale)",
            true,
            &[
                (Role::Blue, "equinorm", |row| row.nc2_equinorm),
                (Role::Orange, "equiangular", |row| row.nc2_equiangular),
            ],
        ),
        ("NC3: classifier follows class means", "NC3", false, &[(Role::Green, "NC3", |row| row.nc3)]),
        (
            "NC4: differs from nearest class mean",
            "share of samples (%)",
            false,
            &[(Role::Purple, "NC4 in %", |row| row.nc4.map(|share| 100.0 * share))],
        ),
        (
            "NC5: OOD mean orthogonal to classes",
            "NC5 (log scale)",
            true,
            &[(Role::Gold, "NC5", |row| row.nc5)],
        ),
    ];
    measures
        .iter()
        .filter_map(|(title, name, logarithmic, curves)| {
            measure_panel(rows, title, name, *logarithmic, curves)
        })
        .collect()
}

fn measure_panel(
    rows: &[CollapseRow],
    title: &str,
    name: &str,
    logarithmic: bool,
    measures: &[Measure],
) -> Option<Panel> {
    let curves: Vec<NamedCurve<'_>> = measures
        .iter()
        .map(|(color, name, value)| {
            let points = rows.iter().filter_map(|row| Some((row.epoch, value(row)?)));
            (*color, *name, points.filter(|(_, value)| value.is_finite()).collect())
        })
        .filter(|(_, _, points): &NamedCurve<'_>| !points.is_empty())
        .collect();
    if curves.is_empty() {
        return None;
    }
    let values = curves.iter().flat_map(|(_, _, points)| points.iter().map(|point| point.1));
    let y = if logarithmic { Axis::logarithmic(name, values) } else { Axis::from_zero(name, values, 5) };
    let mut panel = Panel::new(title, Axis::epochs(rows.iter().map(|row| row.epoch)), y);
    for (color, name, points) in curves {
        let last = points.last().map_or(f64::NAN, |point| point.1);
        let dots = points.len() <= 60;
        panel = panel
            .mark(Mark::Line { color, points: thinned(&points, 400), dots })
            .named(color, format!("{name}, at the end {}", short(three_digits(last))));
    }
    Some(panel)
}

/// Cosines between all pairs of centred class means as a heat map, row 0 on top.
///
/// `cosines` holds `classes` x `classes` values, row by row; `names` those of the classes, or nothing. The colours span ± the
/// largest value off the diagonal (the diagonal is 1 by definition and saturates), so that small deviations can be seen.
pub fn cosine_heat_map(cosines: &[f64], classes: usize, names: &[String]) -> Panel {
    let reach = off_diagonal(cosines, classes).map(f64::abs).filter(|c| c.is_finite()).fold(0.0, f64::max);
    heat_map(HeatMap {
        title: "NC2: cosines between class means",
        axes: ("class", "class"),
        classes,
        names,
        values: cosines,
        colours: Colours::Diverging { reach: if reach > 0.0 { reach } else { 1.0 } },
        number: None,
    })
}

/// Histogram of the cosines between different classes, with the ideal -1/(C-1) as a dashed line.
///
/// `cosines` as for [`cosine_heat_map`]. With fewer than two classes there is nothing to show: `None`.
pub fn angle_histogram(cosines: &[f64], classes: usize) -> Option<Panel> {
    const BINS: usize = 60;
    if classes < 2 {
        return None;
    }
    let ideal = -1.0 / (classes as f64 - 1.0);
    let values: Vec<f64> = off_diagonal(cosines, classes).filter(|cosine| cosine.is_finite()).collect();
    let axis = Axis::linear("cosine", values.iter().copied().chain([ideal]), 5);
    let (lowest, highest) = axis.limits();
    let mut counts = [0u32; BINS];
    for value in &values {
        // Rounding may put the largest value on the far edge.
        counts[((((value - lowest) / (highest - lowest)) * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let edge = |index: usize| lowest + (highest - lowest) * index as f64 / BINS as f64;
    let mut outline = vec![(lowest, 0.0)];
    for (index, count) in counts.iter().enumerate() {
        outline.extend([(edge(index), f64::from(*count)), (edge(index + 1), f64::from(*count))]);
    }
    outline.push((highest, 0.0));
    let y = Axis::from_zero("pairs of classes (ordered)", counts.iter().map(|count| f64::from(*count)), 5);
    let (_, top) = y.limits();
    Some(
        Panel::new("NC2: angles between class means", axis, y)
            .mark(Mark::Area { color: Role::Blue, outline })
            .mark(Mark::Dashed { color: Role::Red, points: vec![(ideal, 0.0), (ideal, top)] })
            .named(Role::Blue, "pairs of different classes")
            .named(Role::Red, format!("ideal −1/(C−1) = {}", short(three_digits(ideal)))),
    )
}

fn off_diagonal(cosines: &[f64], classes: usize) -> impl Iterator<Item = f64> + '_ {
    cosines
        .iter()
        .enumerate()
        .filter(move |(index, _)| index / classes.max(1) != index % classes.max(1))
        .map(|(_, cosine)| *cosine)
}
