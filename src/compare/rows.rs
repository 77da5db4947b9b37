//! The table of differences: a row for each number that runs have, a difference for each run but the baseline.

use serde::Serialize;

use super::runs::{Run, Training, one_line};
use super::statistics::{Found, over_seeds};
use crate::ood::metrics::Interval;
use crate::report::plots::{CollapseRow, TrainingPoint};

/// Subject of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// The labelled test set.
    Id,
    /// An OOD set by one score.
    Ood,
    /// The end of the training.
    Training,
    /// The last checkpoint's neural collapse.
    Collapse,
}

impl Section {
    /// The name in files.
    pub fn key(self) -> &'static str {
        match self {
            Section::Id => "id",
            Section::Ood => "ood",
            Section::Training => "training",
            Section::Collapse => "collapse",
        }
    }
}

/// A number that runs are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of samples classified right.
    Accuracy,
    /// Mean negative log-likelihood, in nats.
    Nll,
    /// Mean squared distance of the probabilities from the label.
    Brier,
    /// Expected calibration error, 15 bins.
    Ece,
    /// Area under the ROC curve.
    Auroc,
    /// False positive rate at 95 % true positive rate, OOD positive.
    Fpr95,
    /// The same, ID positive.
    Fpr95IdPositive,
    /// Mean loss of an epoch.
    Loss,
    /// Variability within classes.
    Nc1,
    /// Class means of equal norm.
    Nc2Equinorm,
    /// Class means at equal angles.
    Nc2Equiangular,
    /// The classifier follows the class means.
    Nc3,
    /// Disagreement with the nearest class mean.
    Nc4,
    /// OOD mean orthogonal to the class means.
    Nc5,
}

impl Metric {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Nll => "NLL",
            Metric::Brier => "Brier",
            Metric::Ece => "ECE",
            Metric::Auroc => "AUROC",
            Metric::Fpr95 => "FPR95",
            Metric::Fpr95IdPositive => "FPR95 (ID+)",
            Metric::Loss => "loss",
            Metric::Nc1 => "NC1",
            Metric::Nc2Equinorm => "NC2 equinorm",
            Metric::Nc2Equiangular => "NC2 equiangular",
            Metric::Nc3 => "NC3",
            Metric::Nc4 => "NC4",
            Metric::Nc5 => "NC5",
        }
    }

    /// The name in `compare.json` and `compare.csv`.
    pub fn key(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Nll => "nll",
            Metric::Brier => "brier",
            Metric::Ece => "ece",
            Metric::Auroc => "auroc",
            Metric::Fpr95 => "fpr95",
            Metric::Fpr95IdPositive => "fpr95_id_positive",
            Metric::Loss => "loss",
            Metric::Nc1 => "nc1",
            Metric::Nc2Equinorm => "nc2_equinorm",
            Metric::Nc2Equiangular => "nc2_equiangular",
            Metric::Nc3 => "nc3",
            Metric::Nc4 => "nc4",
            Metric::Nc5 => "nc5",
        }
    }

    /// Whether it is a share, shown in percent.
    pub fn is_share(self) -> bool {
        use Metric::*;
        matches!(self, Accuracy | Ece | Auroc | Fpr95 | Fpr95IdPositive | Nc4)
    }

    /// Whether more of it is better; `None` where neither more nor less is.
    pub fn more_is_better(self) -> Option<bool> {
        use Metric::*;
        match self {
            Accuracy | Auroc => Some(true),
            Nll | Brier | Ece | Fpr95 | Fpr95IdPositive | Loss => Some(false),
            Nc1 | Nc2Equinorm | Nc2Equiangular | Nc3 | Nc4 | Nc5 => None,
        }
    }
}

/// Kind of chance that an interval covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// The choice of test samples, for the trainings at hand.
    Samples,
    /// The seed of the training, on the test samples at hand.
    Seeds,
}

impl Covers {
    /// The name in files.
    pub fn key(self) -> &'static str {
        match self {
            Covers::Samples => "samples",
            Covers::Seeds => "seeds",
        }
    }
}

/// What an interval says about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better than the baseline, beyond the interval.
    Better,
    /// Worse than the baseline, beyond the interval.
    Worse,
    /// Other than the baseline, beyond the interval, of a number that is neither good nor bad.
    Differs,
    /// The interval holds 0.
    WithinNoise,
    /// There is no interval.
    Unknown,
}

impl Verdict {
    /// The name in files.
    pub fn key(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Differs => "differs",
            Verdict::WithinNoise => "within_noise",
            Verdict::Unknown => "unknown",
        }
    }

    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Differs => "differs",
            Verdict::WithinNoise => "within noise",
            Verdict::Unknown => "–",
        }
    }
}

/// A run minus the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The difference, in the unit of the number: shares are fractions.
    pub value: f64,
    /// Its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval95: Option<Interval>,
    /// The two-sided test that there is no difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// How the interval was made.
    pub method: &'static str,
    /// Whether samples were compared one by one.
    pub paired: bool,
    /// What the interval covers.
    pub covers: Covers,
    /// What it says.
    pub verdict: Verdict,
}

impl Difference {
    pub(super) fn new(metric: Metric, found: Found, paired: bool, covers: Covers) -> Difference {
        let verdict = match found.interval {
            None => Verdict::Unknown,
            Some([low, high]) if low <= 0.0 && high >= 0.0 => Verdict::WithinNoise,
            Some([low, _]) => match metric.more_is_better() {
                None => Verdict::Differs,
                Some(more) if more == (low > 0.0) => Verdict::Better,
                Some(_) => Verdict::Worse,
            },
        };
        let Found { value, interval, p_value, method } = found;
        Difference { value, interval95: interval, p_value, method, paired, covers, verdict }
    }
}

/// A number of every run.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The subject.
    pub section: Section,
    /// The data set, or the split of a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// The OOD score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// The number.
    pub metric: Metric,
    /// Its value in each run, over seeds the mean; `None` where a run has none.
    pub values: Vec<Option<f64>>,
    /// Of each run but the baseline: the difference to it.
    pub differences: Vec<Option<Difference>>,
}

/// Address of a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub section: Section,
    pub set: Option<&'a str>,
    pub score: Option<&'a str>,
    pub metric: Metric,
}

/// Rows as they are made.
pub(super) struct Table {
    pub rows: Vec<Row>,
    runs: usize,
}

impl Table {
    pub fn new(runs: &[Run]) -> Table {
        Table { rows: Vec::new(), runs: runs.len() }
    }

    /// Adds a row from a number of each training, if some run has one. `of_samples` gives the difference between two runs of one training
    /// each, by their samples; runs of several are compared over seeds.
    pub fn add(
        &mut self,
        runs: &[Run],
        at: At<'_>,
        number: impl Fn(&Training) -> Option<f64>,
        mut of_samples: impl FnMut(usize) -> Option<(Found, bool)>,
    ) {
        let numbers: Vec<Vec<(u64, f64)>> = runs.iter().map(|run| of_seeds(run, &number)).collect();
        if numbers.iter().all(Vec::is_empty) {
            return;
        }
        let mean = |of: &Vec<(u64, f64)>| {
            (!of.is_empty()).then(|| of.iter().map(|(_, value)| value).sum::<f64>() / of.len() as f64)
        };
        let values: Vec<Option<f64>> = numbers.iter().map(mean).collect();
        let mut differences = Vec::new();
        for run in 1..self.runs {
            let difference = match (values[0], values[run]) {
                (Some(base), Some(value)) if runs[0].single().is_some() && runs[run].single().is_some() => {
                    let plain =
                        Found { value: value - base, interval: None, p_value: None, method: "no interval" };
                    let (found, paired) = of_samples(run).unwrap_or((plain, false));
                    Some(Difference::new(at.metric, found, paired, Covers::Samples))
                }
                (Some(_), Some(_)) => over_seeds(&numbers[0], &numbers[run])
                    .map(|found| Difference::new(at.metric, found, false, Covers::Seeds)),
                _ => None,
            };
            differences.push(difference);
        }
        self.rows.push(Row {
            section: at.section,
            set: at.set.map(one_line),
            score: at.score.map(one_line),
            metric: at.metric,
            values,
            differences,
        });
    }

    /// Accuracy and loss of the last epoch of each split, as logged.
    pub fn add_training(&mut self, runs: &[Run]) {
        type Value = fn(&TrainingPoint) -> Option<f64>;
        const NUMBERS: [(Metric, Value); 2] =
            [(Metric::Accuracy, |point| point.accuracy), (Metric::Loss, |point| point.loss)];
        for split in ["train", "val", "test"] {
            for (metric, value) in NUMBERS {
                let at = At { section: Section::Training, set: Some(split), score: None, metric };
                let last = |training: &Training| {
                    let points = training.parts.as_ref()?.training();
                    let of_split = points.iter().rev().filter(|point| point.split == split);
                    of_split.filter_map(value).find(|value| value.is_finite())
                };
                self.add(runs, at, last, |_| None);
            }
        }
    }

    /// NC1 to NC5 of the last checkpoint.
    pub fn add_collapse(&mut self, runs: &[Run]) {
        for (metric, value) in COLLAPSE {
            let at = At { section: Section::Collapse, set: None, score: None, metric };
            let last = |training: &Training| {
                let rows = training.parts.as_ref()?.collapse();
                value(rows.last()?).filter(|value| value.is_finite())
            };
            self.add(runs, at, last, |_| None);
        }
    }
}

/// A measure of collapse, and how it is read from a checkpoint's row.
pub(super) type Measure = (Metric, fn(&CollapseRow) -> Option<f64>);

/// All of them.
pub(super) const COLLAPSE: [Measure; 6] = [
    (Metric::Nc1, |row| row.nc1),
    (Metric::Nc2Equinorm, |row| row.nc2_equinorm),
    (Metric::Nc2Equiangular, |row| row.nc2_equiangular),
    (Metric::Nc3, |row| row.nc3),
    (Metric::Nc4, |row| row.nc4),
    (Metric::Nc5, |row| row.nc5),
];

/// A number of each training that has it, by seed; trainings without one are numbered.
fn of_seeds(run: &Run, number: &impl Fn(&Training) -> Option<f64>) -> Vec<(u64, f64)> {
    let trainings = run.trainings.iter().enumerate();
    trainings
        .filter_map(|(index, training)| Some((training.seed.unwrap_or(index as u64), number(training)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_knows_which_way_is_better() {
        let verdict = |metric, interval| {
            let found = Found { value: 0.0, interval, p_value: None, method: "" };
            Difference::new(metric, found, true, Covers::Samples).verdict
        };
        assert_eq!(verdict(Metric::Accuracy, Some([0.01, 0.02])), Verdict::Better);
        assert_eq!(verdict(Metric::Accuracy, Some([-0.02, -0.01])), Verdict::Worse);
        assert_eq!(verdict(Metric::Nll, Some([-0.02, -0.01])), Verdict::Better);
        assert_eq!(verdict(Metric::Fpr95, Some([0.01, 0.02])), Verdict::Worse);
        assert_eq!(verdict(Metric::Nc1, Some([0.01, 0.02])), Verdict::Differs);
        assert_eq!(verdict(Metric::Auroc, Some([-0.01, 0.02])), Verdict::WithinNoise);
        assert_eq!(verdict(Metric::Auroc, Some([0.0, 0.0])), Verdict::WithinNoise);
        assert_eq!(verdict(Metric::Auroc, None), Verdict::Unknown);
    }
}
