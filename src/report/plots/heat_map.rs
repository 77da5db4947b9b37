//! Heat maps of square matrices over classes: class names, or numbers, at the middle of the cells.

use super::axis::{Axis, short, three_digits};
use super::panel::{Cells, Panel};

/// Cells along a side; more classes are averaged in blocks.
const MOST: usize = 128;
/// Classes whose names fit beside the cells.
const MOST_NAMED: usize = 25;
/// Classes up to which each cell has room for its number.
const MOST_NUMBERED: usize = 12;
/// Steps of a colour scale; fewer colours make longer runs and smaller files.
const STEPS: i32 = 12;

/// Colours of a heat map, and the values at the ends of its scale. Values beyond an end have the end's colour, NaN is grey.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Colours {
    /// Near white at `lowest`, dark blue at `highest`: for amounts and shares.
    Sequential {
        /// The value of the lightest colour.
        lowest: f64,
        /// The value of the darkest colour.
        highest: f64,
    },
    /// Blue at −`reach`, near white at 0, orange at `reach`: for what has a sign.
    Diverging {
        /// The absolute value of the darkest colours.
        reach: f64,
    },
}

/// A square matrix over classes, to be drawn as a heat map.
#[derive(Debug, Clone, Copy)]
pub struct HeatMap<'a> {
    /// The title above it.
    pub title: &'a str,
    /// What columns and rows stand for: the names of the axes, x first.
    pub axes: (&'a str, &'a str),
    /// Classes along each side.
    pub classes: usize,
    /// Their names, in the order of the rows; axes have numbers from 0 where there are more than 25 classes, or where the
    /// number of names is not that of classes.
    pub names: &'a [String],
    /// `classes` x `classes` values, row by row; the first row is drawn on top. Missing ones are NaN.
    pub values: &'a [f64],
    /// The colours.
    pub colours: Colours,
    /// The text for a value, which stands in its cell where there are at most 12 classes.
    pub number: Option<fn(f64) -> String>,
}

/// Draws a matrix over classes as coloured cells: names or numbers of the classes at the middle of cells, the first row on
/// top, a colour scale with the values at its ends. More than 128 classes are averaged in blocks.
pub fn heat_map(map: HeatMap<'_>) -> Panel {
    let classes = map.classes;
    let size = classes.min(MOST);
    let value = |cell: usize| block_mean(map.values, classes, size, cell / size, cell % size);
    let values: Vec<f64> = (0..size * size).map(value).collect();
    let names = if classes <= MOST_NAMED && map.names.len() == classes { map.names } else { &[] };
    let (x, y) = map.axes;
    let mut panel =
        Panel::new(map.title, Axis::classes(x, classes, names), Axis::classes(y, classes, names).downward());
    let number = map.number.filter(|_| classes <= MOST_NUMBERED);
    let inside = |number: fn(f64) -> String| values.iter().map(|value| number(*value)).collect();
    panel.cells = Some(Cells {
        size,
        colors: values.iter().map(|value| map.colours.of(*value)).collect(),
        scale: map.colours.scale(),
        ends: map.colours.ends(),
        numbers: number.map_or_else(Vec::new, inside),
    });
    panel
}

/// Mean over the block of classes that a cell stands for.
fn block_mean(values: &[f64], classes: usize, size: usize, row: usize, column: usize) -> f64 {
    let edge = |index: usize| index * classes / size;
    let (mut sum, mut count) = (0.0, 0.0);
    for r in edge(row)..edge(row + 1) {
        for c in edge(column)..edge(column + 1) {
            sum += values.get(r * classes + c).copied().unwrap_or(f64::NAN);
            count += 1.0;
        }
    }
    sum / count
}

const PALE: [f64; 3] = [244.0, 244.0, 242.0];
const BLUE: [f64; 3] = [11.0, 88.0, 160.0];
const ORANGE: [f64; 3] = [186.0, 66.0, 0.0];

impl Colours {
    /// The colour of a value, as 0xRRGGBB.
    fn of(self, value: f64) -> u32 {
        let share = match self {
            Colours::Sequential { lowest, highest } if highest > lowest => {
                ((value - lowest) / (highest - lowest)).clamp(0.0, 1.0)
            }
            Colours::Diverging { reach } if reach > 0.0 => (value / reach).clamp(-1.0, 1.0),
            // A scale without length: whatever the value, it is the lowest.
            _ => value * 0.0,
        };
        if share.is_nan() {
            return 0x80_8080;
        }
        let share = (share * f64::from(STEPS)).round() / f64::from(STEPS);
        let signed = matches!(self, Colours::Diverging { .. });
        let end = if signed && share > 0.0 { ORANGE } else { BLUE };
        (0..3).fold(0, |rgb, channel| {
            let mixed = PALE[channel] + (end[channel] - PALE[channel]) * share.abs();
            (rgb << 8) | mixed.round() as u32
        })
    }

    fn scale(self) -> Vec<u32> {
        let colour = |step: i32| {
            let share = f64::from(step) / f64::from(STEPS);
            match self {
                Colours::Sequential { .. } => Colours::Sequential { lowest: 0.0, highest: 1.0 }.of(share),
                Colours::Diverging { .. } => Colours::Diverging { reach: 1.0 }.of(share),
            }
        };
        let first = if matches!(self, Colours::Diverging { .. }) { -STEPS } else { 0 };
        (first..=STEPS).map(colour).collect()
    }

    fn ends(self) -> (String, String) {
        let text = |value: f64| short(three_digits(value));
        match self {
            Colours::Sequential { lowest, highest } => (text(lowest), text(highest)),
            Colours::Diverging { reach } => (text(-reach), format!("{} and above", text(reach))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class-{class} <&>")).collect()
    }

    fn map<'a>(names: &'a [String], values: &'a [f64], classes: usize) -> HeatMap<'a> {
        HeatMap {
            title: "Confusion matrix",
            axes: ("predicted class", "true class"),
            classes,
            names,
            values,
            colours: Colours::Sequential { lowest: 0.0, highest: 1.0 },
            number: Some(|value| format!("{:.0} %", 100.0 * value)),
        }
    }

    #[test]
    fn few_classes_have_names_on_both_axes_and_numbers_in_the_cells() {
        let values: Vec<f64> = (0..9).map(|cell| f64::from(cell) / 8.0).collect();
        let names = names(3);
        let figure = heat_map(map(&names, &values, 3)).figure().unwrap();
        let svg = figure.inline();
        assert_eq!(svg.matches("class-1 &lt;&amp;&gt;").count(), 2, "{svg}");
        assert!(svg.contains(">100 %<") && svg.contains(">12 %<"), "{svg}");
        figure.png(1.0).unwrap();
    }

    #[test]
    fn many_classes_have_numbers_at_the_middle_of_cells() {
        let values = vec![0.5; 100 * 100];
        let names = names(100);
        let panel = heat_map(map(&names, &values, 100));
        let svg = panel.figure().unwrap().inline();
        assert!(!svg.contains("class-1") && svg.contains(">20<") && !svg.contains(">50 %<"), "{svg}");
        let (lowest, highest) = panel.x.limits();
        assert_eq!((lowest, highest), (0.0, 100.0));
        assert!(panel.x.ticks().iter().all(|tick| tick.fract() == 0.5), "{:?}", panel.x.ticks());
    }

    #[test]
    fn any_matrix_and_any_scale_give_a_figure() {
        let wild = [f64::NAN, f64::INFINITY, -f64::MAX, 1e-320];
        for colours in [
            Colours::Sequential { lowest: 0.0, highest: 0.0 },
            Colours::Sequential { lowest: f64::NAN, highest: 1.0 },
            Colours::Sequential { lowest: -f64::MAX, highest: f64::MAX },
            Colours::Diverging { reach: 0.0 },
            Colours::Diverging { reach: f64::INFINITY },
        ] {
            for (classes, values) in [(2, &wild[..]), (2, &wild[..1]), (1, &wild[..]), (0, &[]), (300, &[])] {
                for names in [names(0), names(classes)] {
                    let panel = heat_map(HeatMap { colours, ..map(&names, values, classes) });
                    panel.figure().unwrap().png(0.5).unwrap();
                    panel.small_figure().unwrap();
                }
            }
        }
    }
}
