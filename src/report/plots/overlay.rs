//! Curves of several runs on the same axes, a colour a run.

use super::axis::Axis;
use super::panel::{Mark, Panel, thinned};
use super::theme::Role;

/// Colours of runs, in their order.
const COLORS: [Role; 6] = [Role::Blue, Role::Orange, Role::Green, Role::Purple, Role::Gold, Role::Red];

/// Most runs that are told apart on one pair of axes.
pub const MOST_OVERLAID: usize = COLORS.len();

/// One run's curve; several of one run (its seeds) share name and colour.
#[derive(Debug, Clone, PartialEq)]
pub struct RunCurve {
    /// The run's number, which is its colour.
    pub run: usize,
    /// The name in the legend.
    pub name: String,
    /// Points in the order of their epochs.
    pub points: Vec<(f64, f64)>,
}

/// Scale of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From the lowest to the highest value.
    Linear,
    /// Shares in percent: no promise of more than 100.
    Percent,
    /// Logarithmic.
    Logarithmic,
}

/// Curves over epochs, a colour a run, with each run's last value in the legend; `None` where no run has a point. Runs beyond
/// [`MOST_OVERLAID`] are left out.
pub fn overlay(title: &str, (name, scale): (&str, Scale), curves: &[RunCurve]) -> Option<Panel> {
    let finite = |curve: &RunCurve| -> Vec<(f64, f64)> {
        curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).copied().collect()
    };
    let curves: Vec<(&RunCurve, Vec<(f64, f64)>)> = curves
        .iter()
        .filter(|curve| curve.run < MOST_OVERLAID)
        .map(|curve| (curve, finite(curve)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    if curves.is_empty() {
        return None;
    }
    let values = || curves.iter().flat_map(|(_, points)| points.iter().map(|point| point.1));
    let y = match scale {
        Scale::Linear => Axis::linear(name, values(), 5),
        Scale::Logarithmic => Axis::logarithmic(name, values()),
        Scale::Percent => {
            let (lowest, highest) = Axis::linear("", values(), 5).limits();
            let top = (highest + 0.05 * (highest - lowest)).min(highest.max(100.0));
            Axis::linear(name, [lowest, top], 5)
        }
    };
    let epochs = curves.iter().flat_map(|(_, points)| points.iter().map(|point| point.0));
    let mut panel = Panel::new(title, Axis::epochs(epochs), y);
    let mut named = [false; MOST_OVERLAID];
    for (curve, points) in &curves {
        let color = COLORS[curve.run];
        let dots = points.len() <= 30;
        panel = panel.mark(Mark::Line { color, points: thinned(points, 400), dots });
        if !std::mem::replace(&mut named[curve.run], true) {
            panel = panel.named(color, curve.name.clone());
        }
    }
    Some(panel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(run: usize, points: &[(f64, f64)]) -> RunCurve {
        RunCurve { run, name: format!("run {run}"), points: points.to_vec() }
    }

    #[test]
    fn runs_keep_their_colour_and_seeds_share_one_name() {
        let curves = [
            curve(0, &[(1.0, 2.0), (2.0, 1.0)]),
            curve(2, &[(1.0, 3.0)]),
            curve(2, &[(1.0, 4.0), (2.0, f64::NAN)]),
        ];
        let panel = overlay("Loss", ("loss", Scale::Logarithmic), &curves).unwrap();
        let names: Vec<(Role, &str)> =
            panel.legend.iter().map(|(role, name)| (*role, name.as_str())).collect();
        assert_eq!(names, [(Role::Blue, "run 0"), (Role::Green, "run 2")]);
        assert_eq!(panel.marks.len(), 3);
        assert!(panel.figure().unwrap().standalone().contains("run 2"));
    }

    #[test]
    fn nothing_to_draw_is_no_panel_and_a_run_without_a_colour_is_left_out() {
        assert!(overlay("x", ("x", Scale::Linear), &[curve(0, &[(1.0, f64::INFINITY)])]).is_none());
        assert!(overlay("x", ("x", Scale::Percent), &[curve(MOST_OVERLAID, &[(1.0, 1.0)])]).is_none());
    }
}
