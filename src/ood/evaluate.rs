//! Tables from scores: everything in `metrics.json`, from the scores of every set, what is known of the samples, and the fits.

use std::collections::BTreeMap;

use super::detectors::{Detectors, Scores};
use super::measure::{IdSide, auroc_against, measure};
use super::metrics::{Estimate, auroc_interval};
use super::run::RunOptions;
use super::sanity;
use super::table::{Evaluation, FullSpectrum, IdSet, OodSet, ShiftedEntry, ShiftedSet};
use crate::error::Result;

/// The name of the ID test set among sets, which no other set may have.
pub(super) const ID: &str = "id";

/// What is known of the samples beside their scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Whether each sample's class is predicted, where labels are known: of the ID test set (`id`) and of shifted sets, by name.
    pub correct: BTreeMap<String, Vec<bool>>,
    /// Scores of the training samples that are compared with the ID test set, where there is a training set.
    pub training: Option<Scores>,
    /// Warnings about the inputs.
    pub warnings: Vec<String>,
}

/// Sets with their numbers of samples and their scores.
pub(super) struct Scored<'a> {
    /// The ID test set.
    pub id: (u64, &'a Scores),
    /// OOD sets.
    pub ood: Vec<(OodSet, &'a Scores)>,
    /// Shifted ID sets by name.
    pub shifted: Vec<(&'a str, u64, &'a Scores)>,
    /// What else is known of all of them.
    pub known: &'a Known,
}

/// The evaluation of fitted detectors, from scores alone: no features are looked at.
///
/// # Errors
/// A score that is not finite, two sets of one name.
///
/// # Panics
/// If a set lacks a score, or has another number of samples than it says.
pub(super) fn evaluate(
    scored: Scored<'_>,
    detectors: &Detectors,
    options: &RunOptions,
) -> Result<Evaluation> {
    let Scored { id: (samples, id), ood, shifted, known } = scored;
    let names = detectors.names();
    let correct = known.correct.get(ID);
    let mut evaluation = Evaluation::new(IdSet { samples, accuracy: correct.map(|flags| accuracy(flags)) });
    evaluation.fits = detectors.fits().clone();
    evaluation.sanity = sanity::check(detectors, known.training.as_ref(), id)?;
    evaluation.sanity.warnings.splice(0..0, known.warnings.iter().cloned());
    let side = IdSide { scores: id, correct: correct.map(Vec::as_slice) };
    measure(&mut evaluation, &names, &side, ood.clone(), options)?;
    if !shifted.is_empty() {
        evaluation.full_spectrum =
            Some(full_spectrum(&names, (samples, id), &shifted, known, |full, side| {
                measure(full, &names, side, ood, options)
            })?);
    }
    Ok(evaluation)
}

/// The evaluation with all shifted sets on the ID side; `measure` compares that side with the OOD sets.
fn full_spectrum(
    names: &[String],
    (samples, id): (u64, &Scores),
    shifted: &[(&str, u64, &Scores)],
    known: &Known,
    measure: impl FnOnce(&mut Evaluation, &IdSide<'_>) -> Result<()>,
) -> Result<FullSpectrum> {
    let samples = samples + shifted.iter().map(|(_, samples, _)| samples).sum::<u64>();
    let (mut pooled, mut pooled_correct) = (id.clone(), known.correct.get(ID).cloned());
    let (mut described, mut against) = (Vec::new(), BTreeMap::new());
    for &(name, samples, scores) in shifted {
        let correct = known.correct.get(name);
        let accuracy = correct.map(|flags| accuracy(flags));
        described.push(ShiftedSet { name: name.to_string(), samples, accuracy });
        against.insert(name.to_string(), versus_shifted(names, id, scores)?);
        pooled.iter_mut().for_each(|(name, values)| values.extend(&scores[name]));
        pooled_correct = pooled_correct.zip(correct).map(|(all, own)| [all.as_slice(), own].concat());
    }
    let accuracy = pooled_correct.as_deref().map(accuracy);
    let mut full = Evaluation::new(IdSet { samples, accuracy });
    measure(&mut full, &IdSide { scores: &pooled, correct: pooled_correct.as_deref() })?;
    Ok(FullSpectrum::new(full, described, against))
}

/// Share of samples whose class is predicted.
fn accuracy(correct: &[bool]) -> f64 {
    correct.iter().filter(|&&correct| correct).count() as f64 / correct.len().max(1) as f64
}

/// Each score's AUROC of ID against shifted samples.
fn versus_shifted(names: &[String], id: &Scores, shifted: &Scores) -> Result<BTreeMap<String, ShiftedEntry>> {
    let one = |name: &String| {
        let (auroc, error) = auroc_against(&id[name], &shifted[name])?;
        let extents = (id[name].len(), shifted[name].len());
        let interval = error.map(|error| auroc_interval(&Estimate { value: auroc, error }, extents));
        Ok((name.clone(), ShiftedEntry { auroc, auroc_se: error, auroc_interval95: interval }))
    };
    names.iter().map(one).collect()
}
