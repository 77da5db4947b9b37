//! The training set as fits see it: statistics that several scores are made of, each computed when first asked for.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use super::compute::Compute;
use super::order_statistic::column_quantiles;
use super::rows::{Columns, Rows, add, fold_blocks, fold_columns, normalise, random_subset};
use super::table::FitSummary;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, Moments};

/// One in this many training samples stands for the labelled samples outside training where none are given.
const CALIBRATION_SHARE: usize = 10;

/// A training set, a head, and what is known of both.
pub(super) struct Training<'a> {
    /// Features and logits.
    pub set: &'a FeatureSet,
    /// The last layer.
    pub head: &'a Head,
    /// Seed of random subsets.
    pub seed: u64,
    calibration: Option<&'a FeatureSet>,
    compute: RefCell<&'a mut dyn Compute>,
    labels: OnceCell<Vec<u32>>,
    moments: OnceCell<Moments>,
    normalised: OnceCell<Moments>,
    class_means: OnceCell<Vec<f64>>,
    mean: OnceCell<Vec<f64>>,
    correct_means: OnceCell<(Vec<f64>, Vec<u64>)>,
    calibration_logits: OnceCell<(Vec<f64>, Vec<u32>)>,
    /// The last quantiles by feature that were asked for.
    quantiles: RefCell<Option<Quantiles>>,
    notes: RefCell<Vec<String>>,
    summaries: RefCell<BTreeMap<String, FitSummary>>,
    left_out: RefCell<Vec<String>>,
}

/// What fits found out.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Words for the user.
    pub notes: Vec<String>,
    /// Summaries by score.
    pub summaries: BTreeMap<String, FitSummary>,
    /// Scores that mean nothing for this training set.
    pub left_out: Vec<String>,
}

/// Two shares, and the quantiles of each feature at them.
type Quantiles = ([f64; 2], [Vec<f64>; 2]);

/// Gives the value of a cell, computing it the first time.
fn get_or_try<T>(cell: &OnceCell<T>, value: impl FnOnce() -> Result<T>) -> Result<&T> {
    if cell.get().is_none() {
        let _ = cell.set(value()?);
    }
    Ok(cell.get().expect("just set"))
}

impl<'a> Training<'a> {
    /// Nothing is computed yet.
    pub fn new(
        compute: &'a mut dyn Compute,
        set: &'a FeatureSet,
        calibration: Option<&'a FeatureSet>,
        head: &'a Head,
        seed: u64,
    ) -> Training<'a> {
        Training {
            set,
            head,
            seed,
            calibration,
            compute: RefCell::new(compute),
            labels: OnceCell::new(),
            moments: OnceCell::new(),
            normalised: OnceCell::new(),
            class_means: OnceCell::new(),
            mean: OnceCell::new(),
            correct_means: OnceCell::new(),
            calibration_logits: OnceCell::new(),
            quantiles: RefCell::default(),
            notes: RefCell::default(),
            summaries: RefCell::default(),
            left_out: RefCell::default(),
        }
    }

    /// Keeps a word for the user.
    pub fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }

    /// Keeps what the fit of a score found.
    pub fn summarise(&self, score: &str, summary: FitSummary) {
        self.summaries.borrow_mut().insert(score.to_string(), summary);
    }

    /// Keeps numbers that the fit of a score found.
    pub fn found(&self, score: &str, parameters: &[(&str, f64)]) {
        let parameters = parameters.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        self.summarise(score, FitSummary { parameters, ..FitSummary::default() });
    }

    /// Leaves a score out, with the reason for the user.
    pub fn leave_out(&self, score: &str, reason: String) {
        self.left_out.borrow_mut().push(score.to_string());
        self.note(reason);
    }

    /// What was kept.
    pub fn into_findings(self) -> Findings {
        Findings {
            notes: self.notes.into_inner(),
            summaries: self.summaries.into_inner(),
            left_out: self.left_out.into_inner(),
        }
    }

    /// A pass over all rows on the device that computes.
    pub fn compute<T>(&self, pass: impl FnOnce(&mut dyn Compute) -> Result<T>) -> Result<T> {
        pass(&mut **self.compute.borrow_mut())
    }

    /// The class of every sample.
    ///
    /// # Errors
    /// Labels are missing, out of range, or leave a class empty.
    pub fn labels(&self) -> Result<&[u32]> {
        get_or_try(&self.labels, || self.set.training_labels(self.head.classes())).map(Vec::as_slice)
    }

    /// Counts, class means and scatter of the features.
    ///
    /// # Errors
    /// As [`Training::labels`]; features are too wide for a D x D matrix; the device failed.
    pub fn moments(&self) -> Result<&Moments> {
        get_or_try(&self.moments, || {
            Moments::check_dimension(self.head.dimension())?;
            let labels = self.labels()?;
            self.compute(|compute| compute.moments(self.set.features(), labels, self.head.classes()))
        })
    }

    /// The same of features divided by their norms.
    ///
    /// # Errors
    /// As [`Training::moments`].
    pub fn normalised_moments(&self) -> Result<&Moments> {
        get_or_try(&self.normalised, || {
            Moments::check_dimension(self.head.dimension())?;
            let dimension = self.head.dimension();
            let prepare = |rows: &mut [f64]| normalise(rows, dimension);
            Ok(Moments::accumulate_prepared(
                self.set.features(),
                self.labels()?,
                self.head.classes(),
                prepare,
            ))
        })
    }

    /// Mean feature of each class, row-major, C x D.
    ///
    /// # Errors
    /// As [`Training::labels`].
    pub fn class_means(&self) -> Result<&[f64]> {
        let means = get_or_try(&self.class_means, || {
            let labels = self.labels()?;
            let (mut sums, counts) = self.sums_by_class(|rows, first| {
                (0..rows.count).map(|row| Some(labels[first + row] as usize)).collect()
            });
            divide(&mut sums, &counts);
            Ok(sums)
        });
        means.map(Vec::as_slice)
    }

    /// Mean feature over all samples, D numbers; no labels are needed.
    pub fn mean(&self) -> &[f64] {
        self.mean.get_or_init(|| {
            let d = self.head.dimension();
            let sums = |rows: &Rows, _| {
                let mut sums = vec![0.0; d];
                rows.features().for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
                sums
            };
            let mut mean = fold_blocks(self.set, self.head, vec![0.0; d], sums, add);
            mean.iter_mut().for_each(|sum| *sum /= self.set.len().max(1) as f64);
            mean
        })
    }

    /// Mean feature of the correctly classified samples of each class, row-major, C x D, and their numbers; the mean of all
    /// of a class where no sample is classified correctly.
    ///
    /// # Errors
    /// As [`Training::labels`].
    pub fn correct_means(&self) -> Result<&(Vec<f64>, Vec<u64>)> {
        get_or_try(&self.correct_means, || {
            let labels = self.labels()?;
            let (mut sums, counts) = self.sums_by_class(|rows, first| {
                let label = |row: usize| labels[first + row] as usize;
                let own = rows.predicted().enumerate();
                own.map(|(row, predicted)| (predicted == label(row)).then_some(predicted)).collect()
            });
            divide(&mut sums, &counts);
            self.fill_empty(&mut sums, &counts)?;
            Ok((sums, counts))
        })
    }

    /// Mean feature of the samples predicted as each class, row-major, C x D, and their numbers; the mean of those labelled so
    /// where none is predicted.
    ///
    /// # Errors
    /// As [`Training::labels`].
    pub fn predicted_means(&self) -> Result<(Vec<f64>, Vec<u64>)> {
        let (mut sums, counts) = self.sums_by_class(|rows, _| rows.predicted().map(Some).collect());
        divide(&mut sums, &counts);
        self.fill_empty(&mut sums, &counts)?;
        Ok((sums, counts))
    }

    /// Gives classes without samples the mean of their labelled samples.
    fn fill_empty(&self, means: &mut [f64], counts: &[u64]) -> Result<()> {
        if counts.contains(&0) {
            let d = self.head.dimension();
            let all = self.class_means()?;
            for (class, mean) in
                means.chunks_exact_mut(d).enumerate().filter(|(class, _)| counts[*class] == 0)
            {
                mean.copy_from_slice(&all[class * d..(class + 1) * d]);
            }
        }
        Ok(())
    }

    /// Sums of features by class, row-major, C x D, and the numbers of samples; `class` says of each sample of a block, whose
    /// first is also given, to which it belongs.
    fn sums_by_class(
        &self,
        class: impl Fn(&Rows, usize) -> Vec<Option<usize>> + Sync,
    ) -> (Vec<f64>, Vec<u64>) {
        let (classes, d) = (self.head.classes(), self.head.dimension());
        let nothing = || (vec![0.0; classes * d], vec![0u64; classes]);
        fold_blocks(
            self.set,
            self.head,
            nothing(),
            |rows, range| {
                let mut part = nothing();
                for (features, class) in rows.features().zip(class(rows, range.start)) {
                    let Some(class) = class else { continue };
                    part.1[class] += 1;
                    let sum = &mut part.0[class * d..(class + 1) * d];
                    sum.iter_mut().zip(features).for_each(|(sum, x)| *sum += x);
                }
                part
            },
            |total, part| {
                let counts = total.1.iter().zip(&part.1).map(|(a, b)| a + b).collect();
                (add(total.0, part.0), counts)
            },
        )
    }

    /// Two quantiles (0 to 1) of each feature over the training set, D numbers each.
    pub fn quantiles_by_feature(&self, shares: [f64; 2]) -> [Vec<f64>; 2] {
        let mut last = self.quantiles.borrow_mut();
        match last.as_ref() {
            Some((asked, quantiles)) if *asked == shares => quantiles.clone(),
            _ => last.insert((shares, column_quantiles(self.set.features(), shares))).1.clone(),
        }
    }

    /// Mean of `logsumexp(l)` over the training set.
    pub fn mean_energy(&self) -> f64 {
        let sum = fold_columns(
            (self.set, Columns::Logits),
            self.head,
            0.0,
            |rows, _| rows.energies().sum::<f64>(),
            |total: f64, part| total + part,
        );
        sum / self.set.len().max(1) as f64
    }

    /// Logits (row-major) and labels of labelled ID samples outside training; without such a set, of a seeded tenth of the
    /// training set, and a note.
    ///
    /// # Errors
    /// Labels that are missing or out of range; a set of another shape.
    pub fn calibration(&self) -> Result<&(Vec<f64>, Vec<u32>)> {
        get_or_try(&self.calibration_logits, || {
            let classes = self.head.classes();
            let (set, rows): (&FeatureSet, Vec<usize>) = match self.calibration {
                Some(set) => {
                    set.check_shape(self.head.dimension(), classes)?;
                    (set, (0..set.len()).collect())
                }
                None => {
                    let count = (self.set.len() / CALIBRATION_SHARE).max(1);
                    self.note(format!(
                        "tempscale and klm are fitted on {count} of the training samples, on which a network is surer than on new \
                         ones; give labelled samples outside training with --calibration"
                    ));
                    (self.set, random_subset(self.set.len(), count, self.seed))
                }
            };
            let labels = set.labels().ok_or_else(|| {
                Error::invalid(format!(
                    "{} has no labels, which tempscale and klm need of the samples they are fitted on",
                    set.path().display()
                ))
            })?;
            let label = |&row: &usize| match u32::try_from(labels[row]) {
                Ok(label) if (label as usize) < classes => Ok(label),
                _ => Err(Error::malformed(
                    set.path(),
                    crate::error::Position::Row(row as u64),
                    format!("a label from 0 to {}", classes - 1),
                    labels[row].to_string(),
                )),
            };
            let known = rows.iter().map(label).collect::<Result<Vec<u32>>>()?;
            let mut logits = Vec::with_capacity(rows.len() * classes);
            for chunk in rows.chunks(super::rows::scoring_block(self.head.dimension())) {
                logits.extend(Rows::gather(set, self.head, chunk).logits);
            }
            Ok((logits, known))
        })
    }
}

/// Divides sums by the numbers of samples; classes without stay zero.
fn divide(sums: &mut [f64], counts: &[u64]) {
    let d = sums.len() / counts.len().max(1);
    for (sum, &count) in sums.chunks_exact_mut(d.max(1)).zip(counts) {
        sum.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
    }
}
