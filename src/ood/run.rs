//! The whole evaluation: fit on ID training features, score ID and OOD sets, measure, check, write `ood/`.

use std::collections::BTreeMap;
use std::path::Path;

use super::compute::{Compute, OnCpu};
use super::detectors::{Detectors, Scores};
use super::evaluate::{ID, Known, Scored, evaluate};
use super::options::Options;
use super::sanity;
use super::table::{Evaluation, Group, OodSet, Tuning};
use crate::error::{Error, Result};
use crate::features::{
    Element, Extent, FeatureSet, ForeignLogits, Head, NpyArray, check_logits, check_same_checkpoint,
    predictions, write_npz,
};
use crate::values::named;

/// Why one bootstrap replicate is none.
pub const FEW_REPLICATES: &str = "expected 0, for no interval, or at least 2 replicates, found 1";

/// One OOD set to evaluate.
#[derive(Debug, Clone)]
pub struct OodInput {
    /// Name in tables and of the file of its scores.
    pub name: String,
    /// OpenOOD's near or far group, if it belongs to one.
    pub group: Option<Group>,
    /// Its features and logits.
    pub set: FeatureSet,
}

impl OodInput {
    /// The set as tables name it.
    fn described(&self) -> OodSet {
        OodSet { name: self.name.clone(), group: self.group, samples: self.set.len() as u64 }
    }

    /// Checks a name: it becomes a file name, and `id` is taken.
    ///
    /// # Errors
    /// Empty, `id`, beginning with a dot, or with characters other than letters, digits, `.`, `_`, `-`.
    pub fn check_name(name: &str) -> Result<()> {
        if name == ID {
            return Err(Error::usage("`id` is reserved for the ID scores; give the OOD set another name"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Error::usage(format!(
                "`{name}` cannot name an OOD set; use up to 100 letters, digits, `.`, `_` and `-`"
            )));
        }
        Ok(())
    }
}

/// A covariate-shifted ID set: images of the known classes that look different. It stands on the ID side of a full-spectrum evaluation.
#[derive(Debug, Clone)]
pub struct ShiftedInput {
    /// Name in tables and of the file of its scores.
    pub name: String,
    /// Its features and logits; labels, where it has them, count as those of the ID test set.
    pub set: FeatureSet,
}

named! {
    /// Which way exported scores point.
    pub enum Orientation: "orientation" {
        /// Larger is in-distribution.
        Confidence = "confidence",
        /// Larger is novel.
        Novelty = "novelty",
    }
    default Confidence
}

impl Orientation {
    /// What a score is multiplied by, so that larger is in-distribution becomes this, and back.
    pub(super) fn sign(self) -> f64 {
        match self {
            Orientation::Confidence => 1.0,
            Orientation::Novelty => -1.0,
        }
    }
}

/// How an evaluation is done.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Scores and their constants.
    pub scores: Options,
    /// Sign of the scores in the `.npz` files; metrics do not depend on it.
    pub orientation: Orientation,
    /// Bootstrap replicates behind the intervals; 0 for none.
    pub bootstrap: u32,
    /// Whether metrics compare equal numbers of ID and OOD samples: a random subset of the larger side.
    pub balance: bool,
    /// Whether logits that are not the head's are an error.
    pub foreign_logits: ForeignLogits,
}

impl RunOptions {
    /// Checks that every constant makes sense.
    ///
    /// # Errors
    /// As [`Options::check`]; and a single bootstrap replicate.
    pub fn check(&self) -> Result<()> {
        self.scores.check()?;
        if self.bootstrap == 1 {
            return Err(Error::usage(format!("--bootstrap: {FEW_REPLICATES} (1000 is customary)")));
        }
        Ok(())
    }
}

/// The result of an evaluation.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The fitted detectors.
    pub detectors: Detectors,
    /// Everything in `metrics.json`.
    pub evaluation: Evaluation,
    /// Scores of the ID set.
    pub id: Scores,
    /// Scores of each OOD set, by name, in the order given.
    pub ood: Vec<(String, Scores)>,
    /// Scores of each shifted ID set.
    pub shifted: Vec<(String, Scores)>,
    /// What is known of the samples beside their scores.
    pub known: Known,
}

/// The sets of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Sets<'a> {
    /// ID training samples, which scores are fitted on; scores of logits alone need none.
    pub train: Option<&'a FeatureSet>,
    /// Labelled ID samples outside training, for the scores that want them.
    pub calibration: Option<&'a FeatureSet>,
    /// ID test samples.
    pub id: &'a FeatureSet,
    /// Covariate-shifted ID sets, for a full-spectrum evaluation; may be none.
    pub shifted: &'a [ShiftedInput],
    /// OOD sets.
    pub ood: &'a [OodInput],
}

/// Fits, scores, measures; writes `fit.safetensors`, `scores/*.npz`, `metrics.json` and `metrics.csv` into `out`. Scores of
/// logits alone need no training set.
///
/// # Errors
/// Inputs that do not fit together or come from different checkpoints, a fit that is impossible, a full disk.
pub fn run(sets: Sets<'_>, head: &Head, options: &RunOptions, out: &Path) -> Result<Outcome> {
    run_on(&mut OnCpu, sets, head, options, out)
}

/// The same with the passes over all rows on a device.
///
/// # Errors
/// As [`run`], or the device failed.
pub fn run_on(
    compute: &mut dyn Compute,
    sets: Sets<'_>,
    head: &Head,
    options: &RunOptions,
    out: &Path,
) -> Result<Outcome> {
    let warnings = check_inputs(sets, head, options)?;
    run_checked(compute, sets, head, options, out, warnings)
}

/// The same with the constants that `tuning` chooses once all inputs are checked and before any test set is scored; then what the choice
/// did on the OOD sets is added to `metrics.json`.
///
/// # Errors
/// As [`run_on`], or of `tuning`.
pub fn run_tuned_on(
    compute: &mut dyn Compute,
    sets: Sets<'_>,
    head: &Head,
    options: &RunOptions,
    out: &Path,
    tuning: impl FnOnce(&mut dyn Compute) -> Result<Tuning>,
) -> Result<Outcome> {
    let warnings = check_inputs(sets, head, options)?;
    let mut tuning = tuning(compute)?;
    let chosen = RunOptions { scores: tuning.applied_to(&options.scores), ..options.clone() };
    let mut outcome = run_checked(compute, sets, head, &chosen, out, warnings)?;
    tuning.compare(compute, sets, head, &options.scores)?;
    outcome.evaluation.tuning = Some(tuning);
    outcome.evaluation.write_json(&out.join("metrics.json"))?;
    Ok(outcome)
}

fn run_checked(
    compute: &mut dyn Compute,
    sets: Sets<'_>,
    head: &Head,
    options: &RunOptions,
    out: &Path,
    mut warnings: Vec<String>,
) -> Result<Outcome> {
    let Sets { train, calibration, id, shifted, ood } = sets;
    let detectors = match train {
        Some(train) => Detectors::fit_on(compute, (train, calibration), head, &options.scores)?,
        None => Detectors::untrained(head, &options.scores, id.meta().checkpoint.clone())?,
    };
    warnings.extend(compute.note(&detectors.specs()));
    detectors.save(&out.join("fit.safetensors"))?;
    let mut score = |name: &str, set: &FeatureSet| -> Result<(String, Scores)> {
        let scores = detectors.score_on(compute, set)?;
        write_scores(&out.join("scores").join(format!("{name}.npz")), &scores, options.orientation)?;
        Ok((name.to_string(), scores))
    };
    let (_, id_scores) = score(ID, id)?;
    let ood_scores = ood.iter().map(|input| score(&input.name, &input.set)).collect::<Result<Vec<_>>>()?;
    let shifted_scores =
        shifted.iter().map(|input| score(&input.name, &input.set)).collect::<Result<Vec<_>>>()?;
    let correct = correct_answers(&sets, head, &mut warnings)?;
    let training = train.map(|train| sanity::score_training(compute, &detectors, train)).transpose()?;
    let known = Known { correct, training, warnings };
    let of_ood = ood.iter().zip(&ood_scores).map(|(input, (_, scores))| (input.described(), scores));
    let of_shifted = shifted
        .iter()
        .zip(&shifted_scores)
        .map(|(input, (name, scores))| (name.as_str(), input.set.len() as u64, scores));
    let scored = Scored {
        id: (id.len() as u64, &id_scores),
        ood: of_ood.collect(),
        shifted: of_shifted.collect(),
        known: &known,
    };
    let evaluation = evaluate(scored, &detectors, options)?;
    evaluation.write_json(&out.join("metrics.json"))?;
    Evaluation::write_csv(std::slice::from_ref(&evaluation), &out.join("metrics.csv"))?;
    Ok(Outcome { detectors, evaluation, id: id_scores, ood: ood_scores, shifted: shifted_scores, known })
}

/// Whether each sample's class is predicted, of the ID set and the shifted ones, where labels are known.
pub(super) fn correct_answers(
    sets: &Sets<'_>,
    head: &Head,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, Vec<bool>>> {
    let shifted = sets.shifted.iter().map(|input| (input.name.as_str(), &input.set));
    let mut correct = BTreeMap::new();
    for (name, set) in [(ID, sets.id)].into_iter().chain(shifted) {
        correct.extend(correctly_classified(set, head, warnings)?.map(|flags| (name.to_string(), flags)));
    }
    Ok(correct)
}

/// Checks everything that can be checked before the first fit. Returns warnings for the user.
pub(super) fn check_inputs(
    Sets { train, calibration, id, shifted, ood }: Sets<'_>,
    head: &Head,
    options: &RunOptions,
) -> Result<Vec<String>> {
    if ood.is_empty() {
        return Err(Error::usage("no OOD set; name at least one (--ood svhn=FILE)"));
    }
    for (index, input) in ood.iter().enumerate() {
        OodInput::check_name(&input.name)?;
        if ood[..index].iter().any(|other| other.name == input.name) {
            return Err(Error::usage(format!("two OOD sets are named `{}`; rename one of them", input.name)));
        }
    }
    for (index, ShiftedInput { name, .. }) in shifted.iter().enumerate() {
        OodInput::check_name(name)?;
        let is_taken = ood.iter().any(|other| other.name == *name)
            || shifted[..index].iter().any(|other| other.name == *name);
        if is_taken {
            return Err(Error::usage(format!("two sets are named `{name}`; rename one of them")));
        }
    }
    if train.is_none() {
        options.scores.check_untrained()?;
    }
    let shifted_sets = shifted.iter().map(|input| &input.set);
    let tested = ood.iter().map(|input| &input.set).chain(shifted_sets);
    let sets: Vec<&FeatureSet> = train.into_iter().chain(calibration).chain([id]).chain(tested).collect();
    check_same_checkpoint(&sets)?;
    for set in &sets {
        set.check_shape(head.dimension(), head.classes())?;
        if set.is_empty() {
            return Err(Error::invalid(format!("{} holds no samples", set.path().display())));
        }
    }
    options.scores.check_for(head.dimension(), train.map(FeatureSet::len))?;
    if let Some(train) = train
        && options.scores.needs_labels()
    {
        train.training_labels(head.classes())?;
    }
    let of_known_classes = || std::iter::once(id).chain(shifted.iter().map(|input| &input.set));
    for set in of_known_classes() {
        set.check_labels(head.classes())?;
    }
    // Some rows of every set before all rows of any set: a wrong head shows in most rows.
    for set in &sets {
        check_logits(set, head, Extent::Sample, options.foreign_logits)?;
    }
    let mut warnings = Vec::new();
    for set in sets {
        // Of features that no score looks at, and of a training set that none is fitted on, only some rows are read.
        let fitted = options.scores.needs_training();
        let is_train = train.is_some_and(|train| std::ptr::eq(train, set));
        let is_read = options.scores.needs_features() && (fitted || !is_train);
        let extent = if is_read { Extent::All } else { Extent::Sample };
        warnings.extend(check_logits(set, head, extent, options.foreign_logits)?);
    }
    for set in of_known_classes() {
        warnings.extend(set.check_numbering(head)?);
    }
    Ok(warnings)
}

/// Whether each sample's class is predicted; `None`, with a word of warning, unless every label is known.
fn correctly_classified(
    set: &FeatureSet,
    head: &Head,
    warnings: &mut Vec<String>,
) -> Result<Option<Vec<bool>>> {
    let Some(labels) = set.labels() else { return Ok(None) };
    let unknown = labels.iter().filter(|&&label| label < 0).count();
    if unknown > 0 {
        warnings.push(format!(
            "{}: {unknown} of {} labels are unknown (-1), so accuracy and OSCR are left out",
            set.path().display(),
            labels.len()
        ));
        return Ok(None);
    }
    let predicted = predictions(set, head);
    Ok(Some(predicted.iter().zip(labels).map(|(&predicted, &label)| i64::from(predicted) == label).collect()))
}

/// Writes scores as an `.npz`: an f64 array a score.
///
/// # Errors
/// The disk is full.
pub(crate) fn write_scores(path: &Path, scores: &Scores, orientation: Orientation) -> Result<()> {
    let arrays = score_arrays(scores, orientation);
    write_npz(path, &arrays.iter().map(|(name, array)| (*name, array)).collect::<Vec<_>>())
}

/// Scores as arrays that point as is wanted.
pub(super) fn score_arrays(scores: &Scores, orientation: Orientation) -> Vec<(&str, NpyArray)> {
    let sign = orientation.sign();
    let array = |values: &Vec<f64>| {
        let turned: Vec<f64> = values.iter().map(|value| sign * value).collect();
        NpyArray::from_vec(turned, Element::F64, vec![values.len()])
    };
    scores.iter().map(|(name, values)| (name.as_str(), array(values))).collect()
}
