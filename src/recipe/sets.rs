//! The data of an experiment, opened.

use std::path::Path;
use std::sync::Arc;

use super::experiment::{OodData, Recipe};
use crate::data::{self, DataSpec, Selected, SharedDataset, Split};
use crate::error::Result;
use crate::ood::table::Group;
use crate::rng::{Purpose, Stream};
use crate::train::TrainingInputs;

/// A data set with its name and description.
#[derive(Debug, Clone)]
pub struct NamedSet {
    /// Its name in tables and folders.
    pub name: String,
    /// OpenOOD's group, if it has one.
    pub group: Option<Group>,
    /// Where it comes from, for `meta.json`.
    pub description: String,
    /// The samples.
    pub data: SharedDataset,
}

/// Everything an experiment sees.
#[derive(Debug, Clone)]
pub struct Sets {
    /// For the training.
    pub inputs: TrainingInputs,
    /// The data that the detectors are fitted on: the training data, without augmentation.
    pub train: NamedSet,
    /// In-distribution test data.
    pub id: NamedSet,
    /// Images held back from training, which nothing else was chosen on but `best`: for a novelty threshold.
    pub calibrate: Option<NamedSet>,
    /// Out-of-distribution data.
    pub ood: Vec<NamedSet>,
    /// Things the user should know.
    pub notes: Vec<String>,
}

/// Second word of the stream behind the subsets that match the ID set's size.
const MATCH_SIZE: u64 = 2;

impl NamedSet {
    /// The images that were held back from training, if any were.
    pub(super) fn held_back(inputs: &TrainingInputs) -> Option<NamedSet> {
        let held_back = inputs.validation.as_ref().filter(|validation| validation.split == "val")?;
        Some(NamedSet {
            name: "calibrate".into(),
            group: None,
            description: "images held back from training".into(),
            data: held_back.data.clone(),
        })
    }
}

impl Sets {
    /// Opens the data that a recipe names; relative paths are taken from `root`.
    ///
    /// # Errors
    /// Data that cannot be opened, unless it is optional.
    pub fn open(recipe: &Recipe, root: Option<&Path>) -> Result<Sets> {
        let inputs = TrainingInputs::open(&recipe.train, root, recipe.seed)?;
        let mut notes = inputs.notes.clone();
        let train = NamedSet {
            name: "train".into(),
            group: None,
            description: recipe.train.data.clone(),
            data: inputs.data.clone(),
        };
        let id = open(&recipe.evaluate.id, root)?;
        notes.extend(id.notes());
        let what = format!("[evaluate] id = \"{}\"", recipe.evaluate.id);
        let (id, note) = data::in_numbering_of(&inputs.data, id, &what)?;
        notes.extend(note);
        let size = id.len();
        let id =
            NamedSet { name: "id".into(), group: None, description: recipe.evaluate.id.clone(), data: id };
        let mut ood = Vec::new();
        for wanted in &recipe.ood {
            match open_ood(wanted, root, size, recipe.seed) {
                Ok(set) => {
                    notes.extend(set.data.notes());
                    ood.push(set);
                }
                Err(error) if wanted.optional => {
                    notes.push(format!("the optional OOD set `{}` is left out: {error}", wanted.name));
                }
                Err(error) => return Err(error),
            }
        }
        let calibrate = NamedSet::held_back(&inputs);
        Ok(Sets { inputs, train, id, calibrate, ood, notes })
    }
}

fn open(text: &str, root: Option<&Path>) -> Result<SharedDataset> {
    let spec: DataSpec = text.parse()?;
    data::open(&root.map_or_else(|| spec.clone(), |root| spec.clone().under(root)), Split::Test)
}

fn open_ood(wanted: &OodData, root: Option<&Path>, size: usize, seed: u64) -> Result<NamedSet> {
    let whole = open(&wanted.data, root)?;
    let (data, description) = if wanted.match_id_size && whole.len() > size {
        let mut indices = Stream::for_purpose(seed, Purpose::Subset, &[MATCH_SIZE]).permutation(whole.len());
        indices.truncate(size);
        indices.sort_unstable();
        let description = format!("{} ({size} of {} at random)", wanted.data, whole.len());
        (Arc::new(Selected::new(whole, indices)) as SharedDataset, description)
    } else {
        (whole, wanted.data.clone())
    };
    Ok(NamedSet { name: wanted.name.clone(), group: wanted.group, description, data })
}
