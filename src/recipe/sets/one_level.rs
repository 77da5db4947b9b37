//! The data of an experiment on one level: training, in-distribution test and out-of-distribution sets.

use std::path::Path;
use std::sync::Arc;

use super::{Fold, Inputs, NamedSet, Sets, Training, parse};
use crate::data::{self, Selected, SharedDataset, Split};
use crate::error::{Error, Result};
use crate::novelty::{CalibrationSets, Novel, ReportSets};
use crate::recipe::keys::{OneLevel, OodData, ShiftedData};
use crate::recipe::reading::WrongKey;
use crate::rng::{Purpose, Stream};
use crate::train::TrainingInputs;

/// Second word of the stream behind the subsets that match the ID set's size.
const MATCH_SIZE: u64 = 2;

impl Fold {
    /// The images that detectors are fitted on: the training data, without augmentation.
    pub(in crate::recipe) fn train_set(&self) -> &NamedSet {
        &self.sets[0]
    }

    /// In-distribution test data.
    pub(in crate::recipe) fn id_set(&self) -> &NamedSet {
        &self.sets[1]
    }

    /// Out-of-distribution data.
    pub fn ood_sets(&self) -> &[NamedSet] {
        &self.sets[self.report.foreign.clone()]
    }

    /// Covariate-shifted in-distribution data; the sets behind the foreign ones on one level of classes.
    pub fn shifted_sets(&self) -> &[NamedSet] {
        &self.sets[self.report.foreign.end..]
    }
}

/// Opens them.
pub(super) fn open(recipe: &OneLevel, root: Option<&Path>) -> Result<Sets> {
    let inputs = TrainingInputs::open(&recipe.train, root, recipe.seed)?;
    if inputs.architecture.heads.len() > 1 && (recipe.collapse.enabled || !recipe.ood.is_empty()) {
        return Err(Error::usage(format!(
            "[train] data = \"{}\" makes a network of two heads, and OOD scores and collapse are of one; read one level \
             (labels=superclass, labels=subclass)",
            recipe.train.data
        )));
    }
    let mut notes = inputs.notes.clone();
    let open = |text: &str| data::open(&parse(text, root)?, Split::Test);
    let id = open(&recipe.evaluate.id)?;
    notes.extend(id.notes());
    let what = format!("[evaluate] id = \"{}\"", recipe.evaluate.id);
    let (id, note) = data::in_numbering_of(&inputs.data, id, &what)?;
    notes.extend(note);
    let size = id.len();
    let mut sets = vec![
        NamedSet::new("train", &recipe.train.data, inputs.data.clone()),
        NamedSet::new("id", &recipe.evaluate.id, id),
    ];
    // Nothing but `best` was chosen on them.
    let held_back = inputs.validation.as_ref().filter(|validation| validation.split == "val");
    let calibration = held_back.map(|held_back| {
        sets.push(NamedSet::new("calibrate", "images held back from training", held_back.data.clone()));
        CalibrationSets { fit: None, seen: sets.len() - 1, novel: Novel::default() }
    });
    let first = sets.len();
    for wanted in &recipe.ood {
        match open(&wanted.data).map(|whole| ood_set(wanted, whole, size, recipe.seed)) {
            Ok(set) => {
                notes.extend(set.data.notes());
                sets.push(set);
            }
            Err(error) if wanted.optional => {
                notes.push(format!("the optional OOD set `{}` is left out: {error}", wanted.name));
            }
            Err(error) => return Err(error),
        }
    }
    if first < sets.len() {
        // The scores' constants against the network and its training data, before hours of training.
        let pooled = inputs.architecture.feature_dimension();
        let dimension = inputs.architecture.heads[0].feature_dimension(pooled);
        let options = recipe.run_options().map_err(WrongKey::error)?;
        notes.extend(options.scores.check_for(dimension, Some(inputs.data.len()))?);
    }
    let report = ReportSets { seen: Some(1), novel: Novel::default(), foreign: first..sets.len() };
    // They are for scores against OOD sets.
    let wanted = if report.foreign.is_empty() { &[][..] } else { &recipe.shifted[..] };
    for wanted in wanted {
        match open(&wanted.data) {
            Ok(whole) => {
                notes.extend(whole.notes());
                let (set, note) = shifted_set(wanted, whole, &inputs, size, recipe.seed)?;
                notes.extend(note);
                sets.push(set);
            }
            Err(error) if wanted.optional => {
                notes.push(format!("the optional shifted set `{}` is left out: {error}", wanted.name));
            }
            Err(error) => return Err(error),
        }
    }
    let training = Training {
        title: "training".into(),
        folder: "".into(),
        features: None,
        options: recipe.train.clone(),
        checkpoint: "last",
        transform: inputs.transform.clone(),
        inputs: Inputs::Open(Box::new(inputs)),
    };
    let fold = Fold { trainings: vec![training], sets, calibration, report, has_unseen: true };
    Ok(Sets { folds: vec![fold], refit: None, test: None, lists: None, notes, root: None })
}

/// An OOD set, cut to the size of the ID test set where that is asked for.
fn ood_set(wanted: &OodData, whole: SharedDataset, size: usize, seed: u64) -> NamedSet {
    let limit = wanted.match_id_size.then_some(size);
    NamedSet { group: wanted.group, ..cut_set(&wanted.name, &wanted.data, whole, limit, seed) }
}

/// A shifted ID set in the numbering of the training data, where it has labels, and a note on how they were understood.
///
/// # Errors
/// It has classes that the training data has not.
fn shifted_set(
    wanted: &ShiftedData,
    whole: SharedDataset,
    inputs: &TrainingInputs,
    size: usize,
    seed: u64,
) -> Result<(NamedSet, Option<String>)> {
    let is_labelled = (0..whole.len()).any(|sample| whole.label(sample) >= 0);
    let what = format!("[[shifted]] data = \"{}\"", wanted.data);
    let (whole, note) =
        if is_labelled { data::in_numbering_of(&inputs.data, whole, &what)? } else { (whole, None) };
    let limit = wanted.match_id_size.then_some(size);
    Ok((cut_set(&wanted.name, &wanted.data, whole, limit, seed), note))
}

/// A set, of which at most `limit` samples are drawn.
fn cut_set(name: &str, data: &str, whole: SharedDataset, limit: Option<usize>, seed: u64) -> NamedSet {
    let Some(size) = limit.filter(|limit| whole.len() > *limit) else {
        return NamedSet::new(name, data, whole);
    };
    let mut indices = Stream::for_purpose(seed, Purpose::Subset, &[MATCH_SIZE]).permutation(whole.len());
    indices.truncate(size);
    indices.sort_unstable();
    let description = format!("{data} ({size} of {} at random)", whole.len());
    NamedSet::new(name, &description, Arc::new(Selected::new(whole, indices)))
}
