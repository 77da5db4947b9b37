//! The whole evaluation: fit on ID training features, score ID and OOD sets, measure, check, write `ood/`.

use std::path::Path;

use super::compute::{Compute, OnCpu};
use super::detectors::{Detectors, Scores};
use super::method::Options;
use super::metrics::{Curves, oscr};
use super::neighbours::random_subset;
use super::sanity;
use super::table::{Entry, Evaluation, Group, IdSet, OodSet};
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
    /// Checks a name: it becomes a file name, and `id` is taken.
    ///
    /// # Errors
    /// Empty, `id`, beginning with a dot, or with characters other than letters, digits, `.`, `_`, `-`.
    pub fn check_name(name: &str) -> Result<()> {
        if name == "id" {
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
}

/// Fits, scores, measures; writes `fit.safetensors`, `scores/*.npz`, `metrics.json` and `metrics.csv` into `out`. Scores of
/// logits alone need no training set.
///
/// # Errors
/// Inputs that do not fit together or come from different checkpoints, a fit that is impossible, a full disk.
pub fn run(
    train: Option<&FeatureSet>,
    id: &FeatureSet,
    ood: &[OodInput],
    head: &Head,
    options: &RunOptions,
    out: &Path,
) -> Result<Outcome> {
    run_on(&mut OnCpu, (train, id, ood), head, options, out)
}

/// The same with the passes over all rows on a device; the sets are training, ID test and OOD.
///
/// # Errors
/// As [`run`], or the device failed.
pub fn run_on(
    compute: &mut dyn Compute,
    (train, id, ood): (Option<&FeatureSet>, &FeatureSet, &[OodInput]),
    head: &Head,
    options: &RunOptions,
    out: &Path,
) -> Result<Outcome> {
    let mut warnings = check_inputs((train, id, ood), head, options)?;
    let detectors = match train {
        Some(train) => Detectors::fit_on(compute, train, head, &options.scores)?,
        None => Detectors::of_logits(head, &options.scores, id.meta().checkpoint.clone())?,
    };
    warnings.extend(compute.note(&detectors.methods()));
    detectors.save(&out.join("fit.safetensors"))?;
    let id_scores = detectors.score_on(compute, id)?;
    write_scores(&out.join("scores/id.npz"), &id_scores, options.orientation)?;
    let correct = correctly_classified(id, head, &mut warnings)?;
    let accuracy = correct
        .as_ref()
        .map(|flags| flags.iter().filter(|&&correct| correct).count() as f64 / flags.len().max(1) as f64);
    let mut evaluation = Evaluation::new(IdSet { samples: id.len() as u64, accuracy });
    evaluation.fits = detectors.fits().clone();
    evaluation.sanity = sanity::check(compute, &detectors, train, &id_scores)?;
    evaluation.sanity.warnings.splice(0..0, warnings);
    let mut ood_scores = Vec::new();
    for input in ood {
        let scores = detectors.score_on(compute, &input.set)?;
        write_scores(&out.join("scores").join(format!("{}.npz", input.name)), &scores, options.orientation)?;
        let sides = Sides::choose(id.len(), input.set.len(), options);
        let mut results = Vec::new();
        for method in detectors.methods() {
            let name = method.name();
            let entry = sides.measure(&id_scores[name], correct.as_deref(), &scores[name], options)?;
            results.push((name.to_string(), entry));
        }
        let samples = input.set.len() as u64;
        evaluation.add(OodSet { name: input.name.clone(), group: input.group, samples }, results)?;
        ood_scores.push((input.name.clone(), scores));
    }
    evaluation.write_json(&out.join("metrics.json"))?;
    Evaluation::write_csv(std::slice::from_ref(&evaluation), &out.join("metrics.csv"))?;
    Ok(Outcome { detectors, evaluation, id: id_scores, ood: ood_scores })
}

/// Checks everything that can be checked before the first fit. Returns warnings for the user.
fn check_inputs(
    (train, id, ood): (Option<&FeatureSet>, &FeatureSet, &[OodInput]),
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
    if train.is_none() {
        options.scores.check_untrained()?;
    }
    let sets: Vec<&FeatureSet> =
        train.into_iter().chain([id]).chain(ood.iter().map(|input| &input.set)).collect();
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
    id.check_labels(head.classes())?;
    // Some rows of every set before all rows of any set: a wrong head shows in most rows.
    for set in &sets {
        check_logits(set, head, Extent::Sample, options.foreign_logits)?;
    }
    let mut warnings = Vec::new();
    for set in sets {
        // Only some rows are read of a training set that no score is fitted on.
        let fitted = options.scores.needs_training();
        let is_train = train.is_some_and(|train| std::ptr::eq(train, set));
        let extent = if is_train && !fitted { Extent::Sample } else { Extent::All };
        warnings.extend(check_logits(set, head, extent, options.foreign_logits)?);
    }
    warnings.extend(id.check_numbering(head)?);
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

/// The samples of both sides that metrics compare; `None` is all of them.
struct Sides {
    id: Option<Vec<usize>>,
    ood: Option<Vec<usize>>,
}

impl Sides {
    fn choose(id: usize, ood: usize, options: &RunOptions) -> Sides {
        let smaller = id.min(ood);
        let subset = |count| {
            (options.balance && count > smaller).then(|| random_subset(count, smaller, options.scores.seed))
        };
        Sides { id: subset(id), ood: subset(ood) }
    }

    fn measure(
        &self,
        id: &[f64],
        correct: Option<&[bool]>,
        ood: &[f64],
        options: &RunOptions,
    ) -> Result<Entry> {
        fn pick<T: Copy>(all: &[T], chosen: Option<&Vec<usize>>) -> Vec<T> {
            chosen.map_or_else(|| all.to_vec(), |chosen| chosen.iter().map(|&index| all[index]).collect())
        }
        let (id, ood) = (pick(id, self.id.as_ref()), pick(ood, self.ood.as_ref()));
        let curves = Curves::new(&id, &ood)?;
        let oscr = correct.map(|flags| oscr(&id, &pick(flags, self.id.as_ref()), &ood)).transpose()?;
        let interval95 = match options.bootstrap {
            0 => None,
            replicates => Some(curves.bootstrap(replicates, options.scores.seed)?),
        };
        Ok(Entry { metrics: curves.metrics(), oscr, interval95 })
    }
}

/// Writes scores as an `.npz`: an f64 array a score.
///
/// # Errors
/// The disk is full.
pub(crate) fn write_scores(path: &Path, scores: &Scores, orientation: Orientation) -> Result<()> {
    let sign = if orientation == Orientation::Novelty { -1.0 } else { 1.0 };
    let arrays: Vec<(&str, NpyArray)> = scores
        .iter()
        .map(|(name, values)| {
            let turned: Vec<f64> = values.iter().map(|value| sign * value).collect();
            (name.as_str(), NpyArray::from_vec(turned, Element::F64, vec![values.len()]))
        })
        .collect();
    let borrowed: Vec<(&str, &NpyArray)> = arrays.iter().map(|(name, array)| (*name, array)).collect();
    write_npz(path, &borrowed)
}
