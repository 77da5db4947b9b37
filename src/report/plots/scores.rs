//! One score on one OOD set: distributions, ROC and precision-recall curves, and sheets of them.
//!
//! Every curve, the number in its legend and the operating point on it come from the same
//! [`Curve`](crate::ood::metrics::Curve).

use super::axis::{Axis, short};
use super::figure::Figure;
use super::panel::{Mark, Panel, sheet, thinned};
use super::theme::Role;
use crate::error::Result;
use crate::ood::metrics::{Curve, Curves, TPR};

/// Bins of a score histogram, shared by both sides.
const BINS: usize = 50;
/// Points of a drawn curve; a panel is about 300 pixels wide.
const CURVE_POINTS: usize = 250;
/// Share of all scores, at each end, that a histogram leaves outside: single outliers would squeeze the rest.
const TAIL: f64 = 0.005;

/// Confidences of one score (larger = more in-distribution) on the ID set and one OOD set.
#[derive(Debug, Clone)]
pub struct ScoredPair<'a> {
    name: &'a str,
    id: &'a [f64],
    ood: &'a [f64],
    curves: Curves,
}

impl<'a> ScoredPair<'a> {
    /// Sorts the scores into curves.
    ///
    /// # Errors
    /// When a side is empty or a score is not finite.
    pub fn new(name: &'a str, id: &'a [f64], ood: &'a [f64]) -> Result<ScoredPair<'a>> {
        Ok(ScoredPair { name, id, ood, curves: Curves::new(id, ood)? })
    }

    /// The name of the score.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Area under the ROC curve, 0..=1.
    pub fn auroc(&self) -> f64 {
        self.curves.id_positive.auroc()
    }

    /// Densities of ID and OOD scores over the same 50 bins. Up to 0.5 % of all scores at either end lie outside the
    /// axis, which then says so; they count in the densities.
    pub fn histogram(&self) -> Panel {
        let mut pooled: Vec<f64> = self.id.iter().chain(self.ood).copied().collect();
        pooled.sort_unstable_by(f64::total_cmp);
        let (lowest, highest) = shown_range(&pooled);
        let outside = pooled.iter().filter(|score| **score < lowest || **score > highest).count();
        let densities = [self.id, self.ood].map(|scores| density(scores, lowest, highest));
        let name = match outside {
            0 => "score (larger: more in-distribution)".to_string(),
            n => format!(
                "score ({} % of all lie outside)",
                short(round(100.0 * n as f64 / pooled.len() as f64))
            ),
        };
        let heights = densities.iter().flatten().copied();
        let mut panel = Panel::new(
            format!("{}: distribution", self.name),
            Axis::linear(&name, [lowest, highest], 5),
            Axis::from_zero("density", heights, 4),
        );
        let sides = [(Role::Blue, "ID", self.id.len()), (Role::Orange, "OOD", self.ood.len())];
        for ((color, side, count), heights) in sides.into_iter().zip(&densities) {
            let outline = steps(heights, lowest, highest);
            panel = panel.mark(Mark::Area { color, outline }).named(color, format!("{side} (n = {count})"));
        }
        panel
    }

    /// ROC curve with OOD as positive, and both FPR95 points on it.
    pub fn roc(&self) -> Panel {
        let catch = self.curves.ood_positive.fpr_at_tpr(TPR);
        let keep = self.curves.id_positive.fpr_at_tpr(TPR);
        let x = Axis::unit("false positive rate (ID flagged)");
        Panel::new(format!("{}: ROC", self.name), x, Axis::unit("true positive rate (OOD caught)"))
            .mark(Mark::Dashed { color: Role::Muted, points: vec![(0.0, 0.0), (1.0, 1.0)] })
            .mark(curve(Role::Blue, &self.curves.ood_positive.roc_points()))
            .mark(Mark::Dot { color: Role::Red, at: (catch.fpr, catch.tpr) })
            // ID-positive keeps the samples that OOD-positive does not flag, so this is the same point seen from the other side.
            .mark(Mark::Dot { color: Role::Purple, at: (1.0 - keep.tpr, 1.0 - keep.fpr) })
            .named(Role::Blue, format!("AUROC {}", percent(self.curves.id_positive.auroc())))
            .named(Role::Red, format!("FPR95 {}", percent(catch.fpr)))
            .named(Role::Purple, format!("FPR95, ID positive {}", percent(keep.fpr)))
    }

    /// Precision over recall with ID as positive, marked where 95 % of ID is kept.
    pub fn pr_in(&self) -> Panel {
        precision_recall(
            format!("{}: PR-in (ID positive)", self.name),
            ("recall (ID kept)", "precision (ID among kept)"),
            Role::Green,
            ("AUPR-in", "95 % of ID kept"),
            &self.curves.id_positive,
        )
    }

    /// Precision over recall with OOD as positive, marked where 95 % of OOD is caught.
    pub fn pr_out(&self) -> Panel {
        precision_recall(
            format!("{}: PR-out (OOD positive)", self.name),
            ("recall (OOD caught)", "precision (OOD among flagged)"),
            Role::Purple,
            ("AUPR-out", "95 % of OOD caught"),
            &self.curves.ood_positive,
        )
    }

    /// The four panels in the order of the comparison sheet's rows.
    pub fn panels(&self) -> [Panel; 4] {
        [self.histogram(), self.roc(), self.pr_in(), self.pr_out()]
    }
}

/// The 2 x 2 sheet of one score: distributions and ROC above PR-in and PR-out.
///
/// # Errors
/// The plotting crate refuses to draw it.
pub fn score_sheet(title: &str, pair: &ScoredPair<'_>) -> Result<Figure> {
    let [histogram, roc, pr_in, pr_out] = pair.panels();
    sheet(title, &[vec![histogram, roc], vec![pr_in, pr_out]])
}

/// Four rows (distributions, ROC, PR-in, PR-out) with one column a score.
///
/// # Errors
/// There is no score, more than 250, or the plotting crate refuses to draw one.
pub fn comparison_sheet(title: &str, pairs: &[ScoredPair<'_>]) -> Result<Figure> {
    let mut rows: [Vec<Panel>; 4] = Default::default();
    for pair in pairs {
        for (row, panel) in rows.iter_mut().zip(pair.panels()) {
            row.push(panel);
        }
    }
    sheet(title, &rows)
}

fn precision_recall(
    title: String,
    (x, y): (&str, &str),
    color: Role,
    (area_name, point_name): (&str, &str),
    scores: &Curve,
) -> Panel {
    let at = scores.precision_at_tpr(TPR);
    let prevalence = scores.positives() as f64 / (scores.positives() + scores.negatives()) as f64;
    Panel::new(title, Axis::unit(x), Axis::unit(y))
        .mark(Mark::Dashed { color: Role::Muted, points: vec![(0.0, prevalence), (1.0, prevalence)] })
        .mark(curve(color, &scores.pr_points()))
        .mark(Mark::Dot { color: Role::Red, at })
        .named(color, format!("{area_name} {}", percent(scores.average_precision())))
        .named(Role::Red, format!("{point_name}: precision {}", percent(at.1)))
}

fn curve(color: Role, points: &[(f64, f64)]) -> Mark {
    Mark::Line { color, points: thinned(points, CURVE_POINTS), dots: false }
}

/// The range a histogram of the `sorted` scores shows; it always has a length.
pub(in crate::report) fn shown_range(sorted: &[f64]) -> (f64, f64) {
    // Differences of scores beyond 1e300 could overflow.
    const LARGEST: f64 = 1e300;
    let cut = (TAIL * sorted.len() as f64) as usize;
    let (lowest, highest) = (sorted[cut], sorted[sorted.len() - 1 - cut]);
    let (lowest, highest) = (lowest.clamp(-LARGEST, LARGEST), highest.clamp(-LARGEST, LARGEST));
    let size = lowest.abs().max(highest.abs());
    if highest - lowest > 1e-9 * size {
        return (lowest, highest);
    }
    // All but equal scores: a little room on both sides, or a unit about zero.
    let room = if size > 0.0 { 0.05 * size } else { 0.5 };
    (lowest - room, highest + room)
}

/// Share of `scores` per unit of score in each of the equal bins; scores outside belong to no bin.
pub(super) fn density(scores: &[f64], lowest: f64, highest: f64) -> Vec<f64> {
    let width = (highest - lowest) / BINS as f64;
    let mut counts = vec![0u64; BINS];
    for score in scores.iter().filter(|score| **score >= lowest && **score <= highest) {
        counts[(((score - lowest) / width) as usize).min(BINS - 1)] += 1;
    }
    counts.into_iter().map(|count| count as f64 / (scores.len() as f64 * width)).collect()
}

/// The outline of a histogram: a staircase closed along the axis.
pub(super) fn steps(heights: &[f64], lowest: f64, highest: f64) -> Vec<(f64, f64)> {
    let edge = |index: usize| lowest + (highest - lowest) * index as f64 / heights.len() as f64;
    let mut outline = vec![(lowest, 0.0)];
    for (index, height) in heights.iter().enumerate() {
        outline.push((edge(index), *height));
        outline.push((edge(index + 1), *height));
    }
    outline.push((highest, 0.0));
    outline
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
