//! Axes: a range, where its ticks are and what stands beside them, linear or logarithmic.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// One axis of a panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// The quantity measured, with its unit.
    pub name: String,
    lowest: f64,
    highest: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
    downward: bool,
    /// Of an axis of classes, the name of each, or nothing where they have numbers.
    classes: Option<Vec<String>>,
}

impl Axis {
    /// From 0 to 1 with a tick every 0.2, as for rates.
    pub fn unit(name: &str) -> Axis {
        let ticks = (0..=5).map(|k| f64::from(k) / 5.0).collect();
        Axis {
            name: name.to_string(),
            lowest: 0.0,
            highest: 1.0,
            logarithmic: false,
            ticks,
            downward: false,
            classes: None,
        }
    }

    /// A linear axis over all finite `values`, with about `count` ticks at round numbers.
    pub fn linear(name: &str, values: impl IntoIterator<Item = f64>, count: usize) -> Axis {
        let (lowest, highest) = widened(bounds(values));
        let step = round_step((highest - lowest) / count.max(1) as f64);
        let ticks = multiples(step, lowest, highest).unwrap_or_else(|| vec![lowest, highest]);
        Axis {
            name: name.to_string(),
            lowest,
            highest,
            logarithmic: false,
            ticks,
            downward: false,
            classes: None,
        }
    }

    /// A linear axis over epochs, with ticks at whole numbers only; one that has no two of them inside its range is widened.
    pub fn epochs(values: impl IntoIterator<Item = f64>) -> Axis {
        let (mut lowest, mut highest) = bounds(values);
        if lowest < highest && lowest.ceil() + 1.0 > highest.floor() {
            (lowest, highest) = (lowest.floor(), highest.ceil());
        }
        let (lowest, highest) = widened((lowest, highest));
        let mut step = round_step((highest - lowest) / 6.0).max(1.0);
        if step.fract() != 0.0 {
            step = round_step(step * 1.5);
        }
        let ticks = multiples(step, lowest, highest).unwrap_or_else(|| vec![lowest, highest]);
        let name = "epoch".to_string();
        Axis { name, lowest, highest, logarithmic: false, ticks, downward: false, classes: None }
    }

    /// An axis of `count` classes, each one long, with ticks at their middles: every class by its name, or without `names`
    /// some of them by their numbers, from 0.
    pub(super) fn classes(name: &str, count: usize, names: &[String]) -> Axis {
        let every =
            if names.is_empty() { round_step(count as f64 / 6.0).ceil().max(1.0) as usize } else { 1 };
        let ticks = (0..count).step_by(every).map(|class| class as f64 + 0.5).collect();
        let highest = count.max(1) as f64;
        let (name, classes) = (name.to_string(), Some(names.to_vec()));
        Axis { name, lowest: 0.0, highest, logarithmic: false, ticks, downward: false, classes }
    }

    /// The name of each class, of an axis that has them.
    pub(super) fn class_names(&self) -> &[String] {
        self.classes.as_deref().unwrap_or_default()
    }

    /// Where the ticks are.
    #[cfg(test)]
    pub(super) fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// A linear axis from 0 up to a little above the largest of `values`.
    pub fn from_zero(name: &str, values: impl IntoIterator<Item = f64>, count: usize) -> Axis {
        let (_, highest) = bounds(values);
        let top = if highest > 0.0 { highest * 1.06 } else { 1.0 };
        Axis::linear(name, [0.0, top], count)
    }

    /// A logarithmic axis over the positive finite `values`; ticks at powers of ten, at 1, 2, 5 times them where the
    /// range is short, at any round numbers where it is shorter still.
    pub fn logarithmic(name: &str, values: impl IntoIterator<Item = f64>) -> Axis {
        let (lowest, highest) =
            bounds(values.into_iter().filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10));
        let (lowest, highest) = widened((lowest, highest));
        let span = highest - lowest;
        let (lowest, highest) = (lowest - 0.04 * span, highest + 0.04 * span);
        let ticks = if span > 0.8 {
            let multiples: &[f64] = if span > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let every = ((span / 6.0).ceil() as i64).max(1);
            let powers =
                (lowest.floor() as i64..=highest.ceil() as i64).filter(|power| power.rem_euclid(every) == 0);
            powers.flat_map(|power| multiples.iter().map(move |m| m.log10() + power as f64)).collect()
        } else {
            let round = Axis::linear(name, [10f64.powf(lowest), 10f64.powf(highest)], 5);
            round.ticks.into_iter().filter(|tick| *tick > 0.0).map(f64::log10).collect()
        };
        let ticks: Vec<f64> =
            Vec::into_iter(ticks).filter(|tick| (lowest..=highest).contains(tick)).collect();
        Axis {
            name: name.to_string(),
            lowest,
            highest,
            logarithmic: true,
            ticks,
            downward: false,
            classes: None,
        }
    }

    /// The same axis with its lowest value at the top, as rows of a matrix are numbered.
    pub(super) fn downward(mut self) -> Axis {
        self.downward = true;
        self
    }

    /// The same axis with ticks up to `highest` only: values above it are no measurements.
    pub(super) fn with_ticks_up_to(mut self, highest: f64) -> Axis {
        self.ticks.retain(|tick| *tick <= highest);
        self
    }

    /// Whether a value can be shown: it is finite, and positive on a logarithmic axis.
    pub fn shows(&self, value: f64) -> bool {
        value.is_finite() && (value > 0.0 || !self.logarithmic)
    }

    /// Lowest and highest value on the axis.
    pub fn limits(&self) -> (f64, f64) {
        (self.value(self.lowest), self.value(self.highest))
    }

    fn value(&self, placed: f64) -> f64 {
        if self.logarithmic { 10f64.powf(placed) } else { placed }
    }

    /// The text beside the tick at `value`; of a class its number, since names are drawn by themselves.
    pub(super) fn label(&self, value: f64) -> String {
        if let Some(names) = &self.classes {
            return if names.is_empty() { short(value.floor()) } else { String::new() };
        }
        if !self.logarithmic && value.abs() < 1e-9 * (self.highest - self.lowest) {
            return "0".to_string();
        }
        short(value)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let placed = if self.logarithmic { value.log10() } else { *value };
        let share = (placed - self.lowest) / (self.highest - self.lowest);
        let share = if self.downward { 1.0 - share } else { share };
        // A curve may leave the panel; far outside it stops mattering where it goes.
        let share = share.clamp(-1.0, 2.0);
        start + (f64::from(end - start) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let light_lines = hint.weight().allow_light_points();
        if light_lines { Vec::new() } else { self.ticks.iter().map(|tick| self.value(*tick)).collect() }
    }

    fn range(&self) -> Range<f64> {
        let (lowest, highest) = self.limits();
        if self.downward { highest..lowest } else { lowest..highest }
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        short(*value)
    }
}

/// A number in at most about six characters, for the side of an axis.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let text = if size != 0.0 && !(1e-3..1e5).contains(&size) {
        let power = (size.log10() + 1e-9).floor();
        let digits = trimmed(format!("{:.2}", value / 10f64.powf(power)));
        match digits.as_str() {
            "1" => format!("10{}", superscript(power as i64)),
            _ => format!("{digits}·10{}", superscript(power as i64)),
        }
    } else {
        trimmed(format!("{value:.4}"))
    };
    text.replace('-', "−")
}

/// A value rounded to three significant digits.
pub fn three_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let unit = 10f64.powf(value.abs().log10().floor() - 2.0);
    if unit > 0.0 { (value / unit).round() * unit } else { value }
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

fn superscript(power: i64) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    power.to_string().chars().map(|c| c.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize])).collect()
}

/// Smallest and largest finite value, at most 1e300 in size so that their difference is finite; 0 and 1 if there is
/// none.
fn bounds(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let mut found: Option<(f64, f64)> = None;
    for value in values.into_iter().filter(|value| value.is_finite()) {
        let (lowest, highest) = found.unwrap_or((value, value));
        found = Some((lowest.min(value), highest.max(value)));
    }
    let (lowest, highest) = found.unwrap_or((0.0, 1.0));
    (lowest.clamp(-1e300, 1e300), highest.clamp(-1e300, 1e300))
}

/// A range of one point gets room on both sides, so that an axis always has a length.
fn widened((lowest, highest): (f64, f64)) -> (f64, f64) {
    // Anything shorter than rounding is no length at all.
    if highest - lowest > 1e-9 * lowest.abs().max(highest.abs()).max(1e-290) {
        return (lowest, highest);
    }
    let room = if lowest.abs() > 1e-280 { 0.05 * lowest.abs() } else { 0.5 };
    (lowest - room, highest + room)
}

/// Multiples of a step inside a range; `None` if there are more than 1000.
fn multiples(step: f64, lowest: f64, highest: f64) -> Option<Vec<f64>> {
    let first = (lowest / step).ceil() as i64;
    let last = (highest / step).floor() as i64;
    (last.saturating_sub(first) <= 1000).then(|| (first..=last).map(|k| k as f64 * step).collect())
}

/// The round number (1, 2, 2.5 or 5 times a power of ten) at or above `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let multiple = step / power;
    let rounded =
        [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|round| *round >= multiple - 1e-9).unwrap_or(10.0);
    (rounded * power).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        let axis = Axis::linear("x", [0.0, 37.0], 5);
        assert_eq!(axis.ticks, [0.0, 10.0, 20.0, 30.0]);
        let axis = Axis::logarithmic("loss", [0.02, 5.0]);
        let labels: Vec<String> = axis.ticks.iter().map(|tick| axis.label(axis.value(*tick))).collect();
        assert_eq!(labels, ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"]);
        let axis = Axis::logarithmic("loss", [1e-9, 1.0]);
        let labels: Vec<String> = axis.ticks.iter().map(|tick| axis.label(axis.value(*tick))).collect();
        assert_eq!(labels, ["10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"]);
    }

    #[test]
    fn epochs_have_ticks_at_whole_numbers_only() {
        for (values, ticks) in [
            (vec![1.0, 2.0], vec![1.0, 2.0]),
            (vec![0.1, 0.9], vec![0.0, 1.0]),
            (vec![1.0, 4.0], vec![1.0, 2.0, 3.0, 4.0]),
            (vec![1.0, 15.0], vec![5.0, 10.0, 15.0]),
            (vec![3.0], vec![3.0]),
            (vec![2.5, 400.0], vec![100.0, 200.0, 300.0, 400.0]),
        ] {
            assert_eq!(Axis::epochs(values.iter().copied()).ticks, ticks, "{values:?}");
        }
    }

    #[test]
    fn any_values_give_an_axis_with_a_length() {
        let hostile: [&[f64]; 8] = [
            &[],
            &[f64::NAN, f64::INFINITY],
            &[3.0, 3.0],
            &[0.0],
            &[-1e308, 1e308],
            &[1e-320, 2e-320],
            &[1e17, 1e17 + 16.0],
            &[f64::MAX],
        ];
        for values in hostile {
            for axis in [
                Axis::linear("x", values.iter().copied(), 5),
                Axis::from_zero("x", values.iter().copied(), 5),
                Axis::epochs(values.iter().copied()),
                Axis::logarithmic("x", values.iter().copied()),
            ] {
                assert!(axis.lowest.is_finite() && axis.highest.is_finite(), "{axis:?}");
                assert!(axis.highest > axis.lowest && axis.ticks.len() <= 1001, "{axis:?}");
                for value in values {
                    assert!(
                        (-100..=200).contains(&axis.map(value, (0, 100))) || !axis.shows(*value),
                        "{axis:?}"
                    );
                }
            }
        }
    }
}
