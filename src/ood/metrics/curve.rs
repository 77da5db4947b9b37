//! Threshold curves: the exact ROC and precision-recall curve of two sets of scores, and every number read off them.
//!
//! A figure and the number printed beside it come from the same [`Curve`], so they cannot disagree.

use crate::error::{Error, Result};

/// Numbers of scores of each side that share one threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub positives: u64,
    pub negatives: u64,
}

impl Group {
    /// The same scores with the roles exchanged.
    pub fn swapped(self) -> Group {
        Group { positives: self.negatives, negatives: self.positives }
    }
}

/// One point of a ROC curve, with the threshold that reaches it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatingPoint {
    /// False positive rate, 0..=1: the share of negatives at or above the threshold.
    pub fpr: f64,
    /// True positive rate, 0..=1: the share of positives at or above the threshold.
    pub tpr: f64,
    /// The threshold, in the orientation of the scores the curve was built from (score ≥ threshold is positive).
    pub threshold: f64,
}

/// All operating points of a score that should be larger for positives: exact, with equal scores as one step.
///
/// Rates and areas are fractions. Counts are integers throughout, so nothing depends on the order of the input.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Distinct scores, decreasing.
    thresholds: Vec<f64>,
    /// For each threshold, how many scores equal it.
    groups: Vec<Group>,
    totals: Group,
}

impl Curve {
    /// Builds the curve of `positive` scores against `negative` ones (larger = more positive).
    ///
    /// # Errors
    /// When one side is empty, or a score is NaN or infinite; the message names the side and the row (from 0).
    pub fn new(positive: &[f64], negative: &[f64]) -> Result<Curve> {
        Curve::with_names(positive, negative, "positive", "negative")
    }

    /// [`Curve::new`] with the words an error message uses for the two sides.
    pub(super) fn with_names(
        positive: &[f64],
        negative: &[f64],
        positive_name: &str,
        negative_name: &str,
    ) -> Result<Curve> {
        let positive = sorted_decreasing(positive, positive_name)?;
        let negative = sorted_decreasing(negative, negative_name)?;
        Ok(Curve::of_decreasing(&positive, &negative))
    }

    /// [`Curve::new`] of finite scores that are sorted already, neither side empty.
    pub(super) fn of_decreasing(positive: &[f64], negative: &[f64]) -> Curve {
        let totals = Group { positives: positive.len() as u64, negatives: negative.len() as u64 };
        let (mut thresholds, mut groups) = (Vec::new(), Vec::new());
        let (mut p, mut n) = (positive, negative);
        while let Some(threshold) = larger(p.first(), n.first()) {
            let group =
                Group { positives: take_equal(&mut p, threshold), negatives: take_equal(&mut n, threshold) };
            thresholds.push(threshold);
            groups.push(group);
        }
        Curve { thresholds, groups, totals }
    }

    /// The same scores with the roles exchanged: negatives become positives, every score changes its sign.
    pub fn opposite(&self) -> Curve {
        Curve {
            // 0.0 - t rather than -t: a threshold of zero stays a plain zero.
            thresholds: self.thresholds.iter().rev().map(|threshold| 0.0 - threshold).collect(),
            groups: self.groups.iter().rev().map(|group| group.swapped()).collect(),
            totals: self.totals.swapped(),
        }
    }

    /// The distinct scores, decreasing: point `i + 1` of both curves is reached at threshold `i`.
    pub fn thresholds(&self) -> &[f64] {
        &self.thresholds
    }

    /// Number of positive scores.
    pub fn positives(&self) -> u64 {
        self.totals.positives
    }

    /// Number of negative scores.
    pub fn negatives(&self) -> u64 {
        self.totals.negatives
    }

    /// (false positive rate, true positive rate) from (0, 0) to (1, 1), one point per distinct score.
    pub fn roc_points(&self) -> Vec<(f64, f64)> {
        let mut points = vec![(0.0, 0.0)];
        points.extend(cumulative(&self.groups).map(|sum| (fpr(sum, self.totals), tpr(sum, self.totals))));
        points
    }

    /// (recall, precision) from (0, 1) to (1, prevalence), one point per distinct score.
    pub fn pr_points(&self) -> Vec<(f64, f64)> {
        let mut points = vec![(0.0, 1.0)];
        points.extend(cumulative(&self.groups).map(|sum| (tpr(sum, self.totals), precision(sum))));
        points
    }

    /// Area under the ROC curve: P(positive > negative) + P(equal) / 2, exact.
    pub fn auroc(&self) -> f64 {
        auroc(&self.groups, self.totals)
    }

    /// The point of smallest false positive rate whose true positive rate is at least `tpr` (0 < tpr ≤ 1).
    pub fn fpr_at_tpr(&self, tpr: f64) -> OperatingPoint {
        let (index, sum) = first_reaching(&self.groups, self.totals, tpr);
        OperatingPoint {
            fpr: fpr(sum, self.totals),
            tpr: self::tpr(sum, self.totals),
            threshold: self.thresholds[index],
        }
    }

    /// (recall, precision) at the threshold of [`Curve::fpr_at_tpr`]: where that marker lies on the other curve.
    pub fn precision_at_tpr(&self, tpr: f64) -> (f64, f64) {
        let (_, sum) = first_reaching(&self.groups, self.totals, tpr);
        (self::tpr(sum, self.totals), precision(sum))
    }

    /// Average precision, Σ (Rₙ − Rₙ₋₁) Pₙ: the step-wise area under the precision-recall curve.
    pub fn average_precision(&self) -> f64 {
        average_precision(&self.groups, self.totals)
    }

    /// Area under the precision-recall curve by the trapezoid rule, from the point (recall 0, precision 1).
    pub fn aupr_trapezoid(&self) -> f64 {
        let (mut area, mut before) = (0.0, (0.0, 1.0));
        for sum in cumulative(&self.groups) {
            let point = (tpr(sum, self.totals), precision(sum));
            area += (point.0 - before.0) * (point.1 + before.1) / 2.0;
            before = point;
        }
        area
    }

    /// Smallest mean of miss rate and false positive rate over all thresholds: the error of the best detector when
    /// both kinds are equally likely (Liang, Li, Srikant, ODIN, 2018). At most 0.5.
    pub fn detection_error(&self) -> f64 {
        cumulative(&self.groups)
            .map(|sum| (1.0 - tpr(sum, self.totals) + fpr(sum, self.totals)) / 2.0)
            .fold(0.5, f64::min)
    }

    /// Share of all scores that equal at least one other score; a large share means a saturated score.
    pub fn tied_share(&self) -> f64 {
        let tied: u64 = self.groups.iter().map(|g| g.positives + g.negatives).filter(|&n| n > 1).sum();
        tied as f64 / (self.totals.positives + self.totals.negatives) as f64
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// Area under the ROC curve from counts: every product is an integer, one division at the end.
pub(super) fn auroc(groups: &[Group], totals: Group) -> f64 {
    let (mut twice_area, mut true_positives) = (0u128, 0u128);
    for group in groups {
        let after = true_positives + u128::from(group.positives);
        twice_area += u128::from(group.negatives) * (true_positives + after);
        true_positives = after;
    }
    twice_area as f64 / (2.0 * totals.positives as f64 * totals.negatives as f64)
}

/// False positive rate at the first threshold whose true positive rate is at least `tpr`.
pub(super) fn fpr_at_tpr(groups: &[Group], totals: Group, tpr: f64) -> f64 {
    fpr(first_reaching(groups, totals, tpr).1, totals)
}

/// Average precision from counts.
pub(super) fn average_precision(groups: &[Group], totals: Group) -> f64 {
    let area: f64 = groups
        .iter()
        .zip(cumulative(groups))
        .filter(|(group, _)| group.positives > 0)
        .map(|(group, sum)| group.positives as f64 * precision(sum))
        .sum();
    area / totals.positives as f64
}

fn first_reaching(groups: &[Group], totals: Group, wanted: f64) -> (usize, Group) {
    cumulative(groups)
        .enumerate()
        .find(|(_, sum)| tpr(*sum, totals) >= wanted)
        .unwrap_or((groups.len() - 1, totals))
}

fn cumulative(groups: &[Group]) -> impl Iterator<Item = Group> + '_ {
    groups.iter().scan(Group::default(), |sum, group| {
        sum.positives += group.positives;
        sum.negatives += group.negatives;
        Some(*sum)
    })
}

fn tpr(sum: Group, totals: Group) -> f64 {
    sum.positives as f64 / totals.positives as f64
}

fn fpr(sum: Group, totals: Group) -> f64 {
    sum.negatives as f64 / totals.negatives as f64
}

fn precision(sum: Group) -> f64 {
    sum.positives as f64 / (sum.positives + sum.negatives) as f64
}

pub(super) fn sorted_decreasing(scores: &[f64], name: &str) -> Result<Vec<f64>> {
    check_scores(scores, name)?;
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    Ok(sorted)
}

/// Refuses no scores and scores that are no numbers, with the row.
pub(super) fn check_scores(scores: &[f64], name: &str) -> Result<()> {
    if scores.is_empty() {
        return Err(Error::invalid(format!(
            "there are no {name} scores; a curve needs at least one on each side"
        )));
    }
    if let Some(row) = scores.iter().position(|score| !score.is_finite()) {
        return Err(Error::invalid(format!(
            "the {name} score in row {row} is {}; scores must be finite numbers: look for NaN or overflow in the \
             features and logits of that row",
            scores[row]
        )));
    }
    Ok(())
}

fn larger(a: Option<&f64>, b: Option<&f64>) -> Option<f64> {
    match (a, b) {
        (Some(&a), Some(&b)) => Some(a.max(b)),
        (a, b) => a.or(b).copied(),
    }
}

/// Drops the leading scores equal to `threshold` (0.0 and -0.0 are equal) and says how many there were.
fn take_equal(sorted: &mut &[f64], threshold: f64) -> u64 {
    let count = sorted.iter().take_while(|&&score| score == threshold).count();
    *sorted = &sorted[count..];
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use proptest::prelude::*;

    /// Scores on a coarse grid, so that ties are common, both signs of zero among them.
    fn grid(seed: u64, n: usize, levels: u64) -> Vec<f64> {
        let stream = Stream::new(seed, &[n as u64]);
        (0..n as u64)
            .map(|i| (stream.below(i, levels) as f64 - levels as f64 / 2.0).floor() * -0.25)
            .collect()
    }

    fn by_counting_pairs(positive: &[f64], negative: &[f64]) -> f64 {
        let mut wins = 0.0;
        for p in positive {
            for n in negative {
                wins += if p > n { 1.0 } else { f64::from(u8::from(p == n)) / 2.0 };
            }
        }
        wins / (positive.len() * negative.len()) as f64
    }

    /// Average precision from its definition: for every distinct threshold, recount everything.
    fn average_precision_by_recounting(positive: &[f64], negative: &[f64]) -> f64 {
        let mut thresholds = [positive, negative].concat();
        thresholds.sort_by(|a, b| b.partial_cmp(a).unwrap());
        thresholds.dedup();
        let (mut area, mut recall_before) = (0.0, 0.0);
        for t in thresholds {
            let tp = positive.iter().filter(|&&s| s >= t).count() as f64;
            let fp = negative.iter().filter(|&&s| s >= t).count() as f64;
            let recall = tp / positive.len() as f64;
            area += (recall - recall_before) * tp / (tp + fp);
            recall_before = recall;
        }
        area
    }

    proptest! {
        #[test]
        fn auroc_counts_pairs_and_halves_ties(seed: u64, p in 1usize..40, n in 1usize..40, levels in 1u64..50) {
            let (positive, negative) = (grid(seed, p, levels), grid(!seed, n, levels));
            let curve = Curve::new(&positive, &negative).unwrap();
            prop_assert!((curve.auroc() - by_counting_pairs(&positive, &negative)).abs() < 1e-12);
            prop_assert!((curve.auroc() - curve.opposite().auroc()).abs() < 1e-12);
        }

        #[test]
        fn average_precision_follows_its_definition(seed: u64, p in 1usize..40, n in 1usize..40, levels in 1u64..50) {
            let (positive, negative) = (grid(seed, p, levels), grid(!seed, n, levels));
            let curve = Curve::new(&positive, &negative).unwrap();
            let want = average_precision_by_recounting(&positive, &negative);
            prop_assert!((curve.average_precision() - want).abs() < 1e-12);
        }

        #[test]
        fn the_operating_point_is_a_point_of_its_own_curve(seed: u64, p in 1usize..60, n in 1usize..60, levels in 1u64..50) {
            let (positive, negative) = (grid(seed, p, levels), grid(!seed, n, levels));
            let curve = Curve::new(&positive, &negative).unwrap();
            let point = curve.fpr_at_tpr(0.95);
            prop_assert!(curve.roc_points().contains(&(point.fpr, point.tpr)));
            prop_assert!(curve.pr_points().contains(&curve.precision_at_tpr(0.95)));
            let caught = positive.iter().filter(|&&s| s >= point.threshold).count() as f64 / p as f64;
            let alarms = negative.iter().filter(|&&s| s >= point.threshold).count() as f64 / n as f64;
            prop_assert_eq!((alarms, caught), (point.fpr, point.tpr));
            // No higher threshold reaches 95 %.
            prop_assert!(positive.iter().filter(|&&s| s > point.threshold).count() as f64 / (p as f64) < 0.95);
        }

        #[test]
        fn the_opposite_curve_is_the_curve_of_negated_scores(seed: u64, p in 1usize..40, n in 1usize..40, levels in 1u64..50) {
            let (positive, negative) = (grid(seed, p, levels), grid(!seed, n, levels));
            let negated = |scores: &[f64]| scores.iter().map(|s| -s).collect::<Vec<_>>();
            let want = Curve::new(&negated(&negative), &negated(&positive)).unwrap();
            prop_assert_eq!(Curve::new(&positive, &negative).unwrap().opposite(), want);
        }
    }

    #[test]
    fn areas_are_the_areas_of_the_drawn_points() {
        let (positive, negative) = (grid(3, 101, 17), grid(4, 57, 23));
        let curve = Curve::new(&positive, &negative).unwrap();
        let trapezoid = |points: &[(f64, f64)]| {
            points.windows(2).map(|w| (w[1].0 - w[0].0) * (w[1].1 + w[0].1) / 2.0).sum::<f64>()
        };
        assert!((trapezoid(&curve.roc_points()) - curve.auroc()).abs() < 1e-12);
        assert!((trapezoid(&curve.pr_points()) - curve.aupr_trapezoid()).abs() < 1e-12);
        assert_eq!(curve.roc_points().last(), Some(&(1.0, 1.0)));
        assert_eq!(curve.pr_points().last(), Some(&(1.0, 101.0 / 158.0)));
        assert_eq!(curve.thresholds().len() + 1, curve.roc_points().len());
    }

    #[test]
    fn separated_scores_are_perfect_and_constant_scores_are_chance() {
        let perfect = Curve::new(&[3.0, 2.0], &[1.0, 0.0, -1.0]).unwrap();
        assert_eq!(
            (perfect.auroc(), perfect.average_precision(), perfect.detection_error()),
            (1.0, 1.0, 0.0)
        );
        assert_eq!(perfect.fpr_at_tpr(0.95), OperatingPoint { fpr: 0.0, tpr: 1.0, threshold: 2.0 });
        assert_eq!(perfect.tied_share(), 0.0);
        let constant = Curve::new(&[0.0; 3], &[-0.0; 5]).unwrap();
        assert_eq!((constant.auroc(), constant.fpr_at_tpr(0.95).fpr, constant.tied_share()), (0.5, 1.0, 1.0));
        assert_eq!((constant.average_precision(), constant.detection_error()), (3.0 / 8.0, 0.5));
    }

    #[test]
    fn nineteen_of_twenty_is_ninety_five_percent() {
        let positive: Vec<f64> = (0..20).map(f64::from).collect();
        let curve = Curve::new(&positive, &[0.5]).unwrap();
        assert_eq!(curve.fpr_at_tpr(0.95), OperatingPoint { fpr: 0.0, tpr: 0.95, threshold: 1.0 });
    }

    #[test]
    fn a_score_that_is_not_finite_is_named() {
        let message = Curve::new(&[1.0, 2.0], &[0.0, f64::NAN]).unwrap_err().to_string();
        assert!(message.contains("negative score in row 1 is NaN"), "{message}");
        let message = Curve::new(&[f64::INFINITY], &[0.0]).unwrap_err().to_string();
        assert!(message.contains("positive score in row 0 is inf"), "{message}");
        assert!(Curve::new(&[], &[0.0]).unwrap_err().to_string().contains("no positive scores"));
    }
}
