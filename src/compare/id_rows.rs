//! Rows of the labelled test set: accuracy, NLL, Brier score, calibration error.

use super::Options;
use super::pairing::{self, Pairing};
use super::predictions::{Answer, Predictions};
use super::rows::{At, Metric, Section, Table};
use super::runs::{Run, Training};
use super::statistics::{
    Agreement, Found, ece_difference, independent_difference, mean_difference, paired_mean_difference,
};

/// The answers of a run and of the baseline, of one training each, and whether they are to the same samples.
pub(super) struct Pair<'a> {
    pub first: &'a Predictions,
    pub second: &'a Predictions,
    pub pairing: Pairing,
}

impl Pair<'_> {
    /// Counts of samples by which network is right; samples of unknown label are left out.
    pub fn agreement(&self) -> Agreement {
        let (first, second) = (self.first.known(), self.second.known());
        Agreement::of(first.zip(second).map(|((_, first), (_, second))| (first, second)))
    }
}

/// The answers of run number `run` beside those of the baseline; `None` where one has none, or is of several seeds.
pub(super) fn pair<'a>(runs: &'a [Run], run: usize, options: &Options) -> Option<Pair<'a>> {
    let (base, other) = (runs[0].single()?, runs[run].single()?);
    pair_of(base, other, options)
}

/// The answers of two trainings.
pub(super) fn pair_of<'a>(base: &'a Training, other: &'a Training, options: &Options) -> Option<Pair<'a>> {
    let (first, second) = (base.predictions.as_ref()?, other.predictions.as_ref()?);
    let pairing = pairing::of_predictions(first, second, [base.seed, other.seed], options.assume_paired);
    Some(Pair { first, second, pairing })
}

/// Adds the rows, and a note where samples are not the same.
pub(super) fn add(table: &mut Table, runs: &[Run], options: &Options, notes: &mut Vec<String>) {
    for run in 1..runs.len() {
        if let Some(Pair { pairing: Pairing::Unpaired(why), .. }) = pair(runs, run, options) {
            notes.push(format!(
                "{} and {} are compared on different test samples ({why}): intervals of their accuracies are unpaired and wider",
                runs[0].name, runs[run].name
            ));
        }
    }
    let data =
        runs.iter().find_map(|run| run.trainings.iter().find_map(|training| training.predictions.as_ref()));
    let set = data.map(|data| data.data.clone().unwrap_or_else(|| data.path.display().to_string()));
    let set = set.as_deref().or(Some(options.set.as_str()));
    type Value = fn(&Answer) -> f64;
    type Difference = fn(&Pair<'_>, &Options) -> Option<Found>;
    let accuracy = |training: &Training| match &training.predictions {
        Some(predictions) => {
            let (right, of) = predictions.right();
            (of > 0).then(|| right as f64 / of as f64)
        }
        None => training.parts.as_ref()?.evaluation()?.id.accuracy,
    };
    let mut add = |metric, number: &dyn Fn(&Training) -> Option<f64>, difference: Difference| {
        let at = At { section: Section::Id, set, score: None, metric };
        table.add(runs, at, number, |run| {
            let pair = pair(runs, run, options)?;
            Some((difference(&pair, options)?, pair.pairing.is_paired()))
        });
    };
    add(Metric::Accuracy, &accuracy, |pair, _| match pair.pairing {
        Pairing::Paired => pair.agreement().difference(),
        Pairing::Unpaired(_) => independent_difference(pair.first.right(), pair.second.right()),
    });
    let mean = |value: Value| {
        move |training: &Training| {
            let values = training.predictions.as_ref()?.values(value);
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        }
    };
    add(Metric::Nll, &mean(|answer| answer.nll), |pair, _| means(pair, |answer| answer.nll));
    add(Metric::Brier, &mean(|answer| answer.brier), |pair, _| means(pair, |answer| answer.brier));
    let ece = |training: &Training| training.predictions.as_ref()?.calibration().ece();
    add(Metric::Ece, &ece, |pair, options| {
        let (first, second) = (pair.first.calibration(), pair.second.calibration());
        ece_difference(&first, &second, pair.pairing.is_paired(), options.bootstrap, options.seed)
    });
}

fn means(pair: &Pair<'_>, value: fn(&Answer) -> f64) -> Option<Found> {
    let (first, second) = (pair.first.values(value), pair.second.values(value));
    if pair.pairing.is_paired() {
        paired_mean_difference(&first, &second)
    } else {
        mean_difference(&first, &second)
    }
}
