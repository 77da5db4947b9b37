//! Samples of the labelled test set that two networks answer differently.

use serde::Serialize;

use super::Options;
use super::id_rows::{Pair, pair_of};
use super::pairing::Pairing;
use super::predictions::Answer;
use super::runs::{Run, Training, one_line};
use super::statistics::Agreement;
use crate::data::{self, SharedDataset};
use crate::samples::Images;

/// Most samples that are listed.
pub const MOST_SAMPLES: usize = 24;

/// Answers of a run beside those of the baseline, to the same samples.
#[derive(Debug, Clone, Serialize)]
pub struct Disagreement {
    /// Number of the run.
    pub run: usize,
    /// The seeds whose networks answer, of runs that have several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<[u64; 2]>,
    /// The data, as its cache names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Samples of known label by which network is right: `first` is the baseline.
    pub counts: Agreement,
    /// Samples of any label whose answers differ.
    pub different_answers: u64,
    /// The exact McNemar test that both are right alone equally often.
    pub mcnemar_p: f64,
    /// Samples on which one is right and the other wrong, those first where the wrong one is surest.
    pub samples: Vec<Sample>,
}

/// One sample that two networks answer differently.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The row in the cache, which is the number in the data set.
    pub row: usize,
    /// The sample's name, where the data could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The class it is of.
    pub label: String,
    /// The answers of baseline and run.
    pub answers: [String; 2],
    /// Their confidences.
    pub confidences: [f64; 2],
    /// Whether the baseline is the one that is right.
    pub baseline_is_right: bool,
    /// Its picture as a `data:` address, for the page.
    #[serde(skip)]
    pub picture: Option<String>,
}

/// Looks for such samples in each run that answered the samples of the baseline.
pub(super) fn find(runs: &[Run], options: &Options) -> Vec<Disagreement> {
    (1..runs.len()).filter_map(|run| of_run(runs, run, options)).collect()
}

fn of_run(runs: &[Run], run: usize, options: &Options) -> Option<Disagreement> {
    let (base, other) = trainings(&runs[0], &runs[run])?;
    let pair = pair_of(base, other, options).filter(|pair| pair.pairing == Pairing::Paired)?;
    let answers = || pair.first.answers.iter().zip(&pair.second.answers);
    let different_answers = answers().filter(|(a, b)| a.class != b.class).count() as u64;
    let mut wrong: Vec<(usize, bool, f64)> = answers()
        .zip(&pair.first.labels)
        .enumerate()
        .filter_map(|(row, ((a, b), label))| one_is_right(row, a, b, *label))
        .collect();
    // Of equal confidences the first row, so that the list is the same every time.
    wrong.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    wrong.truncate(MOST_SAMPLES);
    let names = Names::new(&pair, base);
    let counts = pair.agreement();
    let several = [&runs[0], &runs[run]].iter().any(|run| run.single().is_none());
    Some(Disagreement {
        run,
        seeds: base.seed.zip(other.seed).filter(|_| several).map(|(base, other)| [base, other]),
        data: pair.first.data.as_deref().map(one_line),
        counts,
        different_answers,
        mcnemar_p: counts.mcnemar(),
        samples: wrong.into_iter().map(|(row, first, _)| names.sample(&pair, row, first)).collect(),
    })
}

/// The trainings whose answers are compared: of an equal seed if there is one, else the first of each.
fn trainings<'a>(base: &'a Run, other: &'a Run) -> Option<(&'a Training, &'a Training)> {
    let same = base.trainings.iter().find_map(|a| {
        let b = other.trainings.iter().find(|b| b.seed.is_some() && b.seed == a.seed)?;
        Some((a, b))
    });
    same.or(Some((base.trainings.first()?, other.trainings.first()?)))
}

/// The row, whether the baseline is right, and the confidence of the one that is wrong; `None` unless exactly one is right.
fn one_is_right(row: usize, a: &Answer, b: &Answer, label: i64) -> Option<(usize, bool, f64)> {
    let right = [a, b].map(|answer| i64::from(answer.class) == label);
    match right {
        [true, false] => Some((row, true, b.confidence)),
        [false, true] => Some((row, false, a.confidence)),
        _ => None,
    }
}

/// Names of classes and samples, as far as they can be found.
struct Names {
    classes: Vec<String>,
    data: Option<SharedDataset>,
}

impl Names {
    fn new(pair: &Pair<'_>, training: &Training) -> Names {
        let (named, labels) = (pair.first.data.as_deref(), &pair.first.labels);
        // Names and pictures are a help, so what cannot be opened is no error.
        let data = named.and_then(|named| match Images::named(named, labels.len(), Some(labels)) {
            Images::Open(data) => Some(data),
            Images::Absent(_) => None,
        });
        Names { classes: training.classes(), data }
    }

    fn class(&self, class: i64) -> String {
        let named = usize::try_from(class).ok().and_then(|class| self.classes.get(class));
        named.map_or_else(|| class.to_string(), |name| one_line(name))
    }

    fn sample(&self, pair: &Pair<'_>, row: usize, baseline_is_right: bool) -> Sample {
        let answers = [&pair.first.answers[row], &pair.second.answers[row]];
        Sample {
            row,
            name: self.data.as_ref().map(|data| one_line(&data.sample_name(row))),
            label: self.class(pair.first.labels[row]),
            answers: answers.map(|answer| self.class(i64::from(answer.class))),
            confidences: answers.map(|answer| answer.confidence),
            baseline_is_right,
            picture: self.picture(row),
        }
    }

    /// A small copy of the image as a `data:` address, where the data could be opened.
    fn picture(&self, row: usize) -> Option<String> {
        let image = self.data.as_ref()?.image(row).ok()?;
        data::thumbnail(&image).ok()
    }
}
