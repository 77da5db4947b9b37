//! One score on one OOD set: distributions, ROC and precision-recall curves, and sheets of them.
//!
//! Every curve, the number in its legend and the operating point on it come from the same
//! [`Curve`](crate::ood::metrics::Curve).

use super::axis::Axis;
use super::figure::Figure;
use super::panel::{Mark, Panel, sheet, thinned};
use super::theme::Role;
use crate::error::Result;
use crate::ood::metrics::{Curve, Curves, TPR};

/// Bins of a score histogram, shared by both sides.
const BINS: usize = 50;
/// Points of a drawn curve; a panel is about 300 pixels wide.
const CURVE_POINTS: usize = 250;
/// Interquartile ranges beyond the quartiles at which scores are far out (Tukey, 1977): an axis ends there.
const FAR_OUT: f64 = 3.0;
/// Share of each side's scores, at either end, that an axis may leave outside at most.
const MOST_OUTSIDE: f64 = 0.05;

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

    /// Densities of ID and OOD scores over the same 50 bins. Where tails are long the axis ends at Tukey's outer fences, and a
    /// line says which share lies beyond them; it counts in the densities.
    pub fn histogram(&self) -> Panel {
        let sides = [self.id, self.ood];
        let (lowest, highest) = shown_range(&sides);
        let densities = sides.map(|scores| density(scores, lowest, highest));
        let heights = densities.iter().flatten().copied();
        let mut panel = Panel::new(
            format!("{}: distribution", self.name),
            Axis::linear("score (larger: more in-distribution)", [lowest, highest], 5),
            Axis::from_zero("density", heights, 4),
        );
        let sides = [(Role::Blue, "ID", self.id.len()), (Role::Orange, "OOD", self.ood.len())];
        for ((color, side, count), heights) in sides.into_iter().zip(&densities) {
            let outline = steps(heights, lowest, highest);
            panel = panel.mark(Mark::Area { color, outline }).named(color, format!("{side} (n = {count})"));
        }
        panel.noted(outside(&[self.id, self.ood], lowest, highest))
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

/// The range that a histogram of some groups of scores shows; it always has a length. Of each group it holds everything
/// within Tukey's outer fences, three interquartile ranges beyond the quartiles, and all but 5 % at either end.
pub(in crate::report) fn shown_range(groups: &[&[f64]]) -> (f64, f64) {
    // Differences of scores beyond 1e300 could overflow.
    const LARGEST: f64 = 1e300;
    let (mut lowest, mut highest) = (f64::INFINITY, f64::NEG_INFINITY);
    for scores in groups.iter().filter(|scores| !scores.is_empty()) {
        let mut sorted: Vec<f64> = scores.iter().map(|score| score.clamp(-LARGEST, LARGEST)).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let at = |share: f64| sorted[(share * last as f64).round() as usize];
        let cut = (MOST_OUTSIDE * sorted.len() as f64) as usize;
        let reach = FAR_OUT * (at(0.75) - at(0.25));
        // The outermost scores within the fences, so that an axis ends where scores do.
        let inside = |score: &&f64| **score >= at(0.25) - reach && **score <= at(0.75) + reach;
        let low = sorted.iter().find(inside).copied().unwrap_or(sorted[0]);
        let high = sorted.iter().rev().find(inside).copied().unwrap_or(sorted[last]);
        lowest = lowest.min(low.min(sorted[cut]));
        highest = highest.max(high.max(sorted[last - cut]));
    }
    if lowest > highest {
        return (0.0, 1.0);
    }
    let size = lowest.abs().max(highest.abs());
    if highest - lowest > 1e-9 * size {
        return (lowest, highest);
    }
    // All but equal scores: a little room on both sides, or a unit about zero.
    let room = if size > 0.0 { 0.05 * size } else { 0.5 };
    (lowest - room, highest + room)
}

/// The share of all scores beyond either end of an axis, in words; `None` where there are none.
pub(super) fn outside(groups: &[&[f64]], lowest: f64, highest: f64) -> Option<String> {
    let scores = || groups.iter().copied().flatten();
    let total = scores().count() as f64;
    let share = |count: usize, side: &str| {
        let percent = 100.0 * count as f64 / total;
        let text = if percent < 0.1 { "under 0.1".to_string() } else { format!("{percent:.1}") };
        (count > 0).then(|| format!("{text} % {side}"))
    };
    let left = share(scores().filter(|score| **score < lowest).count(), "left");
    let right = share(scores().filter(|score| **score > highest).count(), "right");
    let sides: Vec<String> = [left, right].into_iter().flatten().collect();
    (!sides.is_empty()).then(|| format!("outside the axis: {}", sides.join(", ")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn normals(count: u64, mean: f64) -> Vec<f64> {
        let stream = Stream::for_purpose(5, Purpose::Synthetic, &[61]);
        (0..count).map(|i| stream.normal(i) + mean).collect()
    }

    #[test]
    fn a_long_tail_is_cut_and_its_share_is_said() {
        let id = normals(980, 0.0);
        let mut ood = normals(980, -4.0);
        // What Mahalanobis distances do: some are a thousand times as far.
        ood.extend((0..40).map(|i| -500.0 - 100.0 * f64::from(i)));
        let (lowest, highest) = shown_range(&[&id, &ood]);
        assert!((-9.0..-6.0).contains(&lowest) && (2.0..5.0).contains(&highest), "{lowest} {highest}");
        let svg = ScoredPair::new("mahalanobis", &id, &ood).unwrap().histogram().figure().unwrap().inline();
        assert!(svg.contains("outside the axis: 2.0 % left<"), "{svg}");
    }

    #[test]
    fn scores_without_a_long_tail_are_shown_whole() {
        let (id, ood) = (normals(2000, 2.0), normals(500, -2.0));
        let (lowest, highest) = shown_range(&[&id, &ood]);
        assert!(id.iter().chain(&ood).all(|score| (lowest..=highest).contains(score)));
        assert_eq!(outside(&[&id, &ood], lowest, highest), None);
    }

    #[test]
    fn a_group_that_is_nearly_one_value_keeps_all_but_a_twentieth() {
        let mut saturated = vec![1.0; 900];
        saturated.extend((0..100).map(|i| f64::from(i) / 100.0));
        let (lowest, highest) = shown_range(&[&saturated, &[]]);
        assert!((0.45..0.55).contains(&lowest) && highest == 1.0, "{lowest} {highest}");
        assert_eq!(shown_range(&[&[], &[]]), (0.0, 1.0));
    }
}
