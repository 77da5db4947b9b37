//! The images of an experiment on two levels: seen classes, outliers, and which of them serve for what.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Fold, Inputs, NamedSet, Sets, Training, parse};
use crate::data::outliers::{self, Manifest};
use crate::data::shortcuts::{self, Comparison};
use crate::data::splits::{self, HoldOut, SplitOptions};
use crate::data::{self, Concatenated, Dataset, Level, Selected, SharedDataset, Split, Transform};
use crate::error::{Error, Result};
use crate::files;
use crate::novelty::{CalibrationSets, Novel, ReportSets, level_name};
use crate::recipe::keys::TwoLevels;
use crate::recipe::reading::WrongKey;

/// Which image serves for what in each fold, and where outliers come from.
#[derive(Debug, Clone)]
pub struct SplitLists {
    /// All labelled images, outliers last; labels are subclasses in the numbering of the files.
    data: SharedDataset,
    /// The splits by the names of their folds; in the last one no class is held out.
    splits: Vec<(String, splits::Fold)>,
    /// Where the outliers come from.
    manifest: Option<Manifest>,
}

/// The labelled images, and what every fold takes from the recipe.
struct Labelled<'a> {
    recipe: &'a TwoLevels,
    /// All of them, outliers last.
    data: SharedDataset,
    /// The subclass that outliers are of.
    novel: Option<i64>,
    /// Pixels each way that larger images are shrunk to first, so that outliers are no blurrier than the rest.
    degrade: Option<u32>,
}

/// Opens them.
pub(super) fn open(recipe: &TwoLevels, root: Option<&Path>) -> Result<Sets> {
    let seen = data::open(&parse(&recipe.data.train, root)?, Split::Train)?;
    let test = match &recipe.data.test {
        None => None,
        Some(text) => Some(NamedSet::new("test", text, data::open(&parse(text, root)?, Split::Test)?)),
    };
    let Some(taxonomy) = seen.taxonomy() else {
        let what = format!("[data] train = \"{}\" has no two levels of classes", recipe.data.train);
        return Err(Error::usage(what));
    };
    let novel = taxonomy.novel(Level::Fine).map(|index| index as i64);
    let outliers = match &recipe.outliers {
        None => None,
        Some(options) => outliers::build(options, root, &*seen)?,
    };
    let degrade = outliers.as_ref().and_then(|outliers| outliers.degrade);
    let mut notes = seen.notes();
    notes.extend(test.iter().flat_map(|test| test.data.notes()));
    if let Some(outliers) = &outliers {
        notes.extend(outliers.dataset.notes());
        let mut transform = Transform::new(recipe.data.size, recipe.normalize(&recipe.train)?);
        transform.degrade = degrade;
        let compared = shortcuts::compare(&*seen, &*outliers.dataset, &transform, recipe.seed)?;
        notes.extend(compared.iter().filter_map(Comparison::warning));
    }
    let manifest = outliers.as_ref().map(|outliers| outliers.manifest.clone());
    let data: SharedDataset = match outliers {
        None => seen,
        Some(outliers) => Arc::new(Concatenated::new(vec![seen, outliers.dataset])?),
    };
    let splits = splits::splits(&*data, &recipe.splits).map_err(|error| match error {
        Error::Invalid(text) => Error::Invalid(format!("{}: {text}", recipe.data.train)),
        other => other,
    })?;
    let whole = nothing_held_out(&*data, &recipe.splits, &splits)?;
    let labelled = Labelled { recipe, data: data.clone(), novel, degrade };
    let folds = splits.iter().enumerate();
    let folds = folds.map(|(number, split)| labelled.fold(&format!("fold_{}", number + 1), split, true));
    let folds = folds.collect::<Result<Vec<_>>>()?;
    let is_refit = recipe.refit.enabled && folds.iter().any(|fold| fold.has_unseen);
    let refit = is_refit.then(|| labelled.fold("final", &whole, false)).transpose()?;
    let names = (1..).map(|number: usize| number.to_string()).zip(splits);
    let splits = names.chain([("final".to_string(), whole)]).collect();
    let lists = Some(SplitLists { data, splits, manifest });
    Ok(Sets { folds, refit, test, lists, notes, root: root.map(Path::to_path_buf) })
}

impl Labelled<'_> {
    /// Some of the images.
    fn part(&self, indices: &[u32]) -> SharedDataset {
        Arc::new(Selected::new(self.data.clone(), indices.to_vec()))
    }

    /// The networks and sets of a split. The images of `select` choose the checkpoints, or are trained on as well.
    fn fold(&self, name: &str, split: &splits::Fold, selects: bool) -> Result<Fold> {
        let Labelled { recipe, data, novel, .. } = self;
        let mut train = split.train.clone();
        if !selects {
            train.extend(&split.select);
            train.sort_unstable();
        }
        let is_seen = |index: &u32| Some(data.label(*index as usize)) != *novel;
        let choices = [recipe.calibrate.superclass, recipe.calibrate.subclass];
        // A score is fitted on the known classes.
        let fit = match choices.iter().any(|choice| choice.score.needs_fit()) {
            true => train.iter().copied().filter(is_seen).collect(),
            false => Vec::new(),
        };
        let parts = split.parts().into_iter().filter(|(part, _)| *part != "select");
        let parts = parts.map(|(part, indices)| (part, if part == "train" { &fit } else { indices }));
        let parts = parts.filter(|(_, indices)| !indices.is_empty());
        let sets: Vec<NamedSet> =
            parts.map(|(part, indices)| NamedSet::new(part, part, self.part(indices))).collect();
        let place = |part: &str| sets.iter().position(|set| set.name == part);
        // Novel samples are outliers for superclasses, and for subclasses the classes held out: outliers, which training
        // showed as `novel`, would say little about a new breed of dog.
        let calibration = place("calibrate").map(|seen| CalibrationSets {
            fit: place("train"),
            seen,
            novel: Novel { superclass: Some(seen), other: place("novel_calibrate") },
        });
        // The superclass level has images of trained subclasses only, like its calibration images.
        let novel = Novel { superclass: None, other: place("novel_report") };
        let report = ReportSets { seen: place("report"), novel, foreign: 0..0 };
        let select = selects.then(|| self.part(&split.select));
        let trainings = recipe.networks().iter();
        let trainings =
            trainings.map(|&levels| self.training(name, levels, self.part(&train), select.clone()));
        let trainings = trainings.collect::<Result<Vec<_>>>()?;
        Ok(Fold { trainings, sets, calibration, report, has_unseen: !split.held_out.is_empty() })
    }

    /// The training of the network of a fold that knows `levels`.
    fn training(
        &self,
        fold: &str,
        levels: Level,
        data: SharedDataset,
        select: Option<SharedDataset>,
    ) -> Result<Training> {
        let recipe = self.recipe;
        let options = recipe.options(levels).map_err(WrongKey::error)?;
        let mut transform = Transform::new(recipe.data.size, recipe.normalize(&options)?);
        transform.augment = options.augment;
        transform.degrade = self.degrade;
        let (part, features) = match levels {
            Level::Both => ("both", fold.into()),
            one => (level_name(Some(one)), Path::new(fold).join(level_name(Some(one)))),
        };
        Ok(Training {
            title: format!("training {part} network, {}", fold.replace('_', " ")),
            folder: PathBuf::from("models").join(fold).join(part),
            features: Some(features),
            options,
            checkpoint: if select.is_some() { "best" } else { "last" },
            transform,
            inputs: Inputs::Levels {
                levels,
                data,
                select,
                // The subclass network may learn from the superclass network of its own fold.
                is_taught: recipe.superclass_teaches && levels == Level::Fine,
                place: format!("{fold}, {part}"),
            },
        })
    }
}

impl SplitLists {
    /// Writes `splits.csv` (which image serves for what, in which fold) and `outliers.csv` into a run folder.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&self, folder: &Path) -> Result<()> {
        if let Some(manifest) = &self.manifest {
            manifest.write(&folder.join("outliers.csv"))?;
        }
        let row = |name: &str, part: &str, index: u32| {
            let (image, label) = (self.data.sample_name(index as usize), self.data.label(index as usize));
            [name.to_string(), image, label.to_string(), part.to_string()]
        };
        let mut rows = vec![["fold", "image", "subclass_index", "part"].map(String::from)];
        for (name, split) in &self.splits {
            for (part, indices) in split.parts() {
                rows.extend(indices.iter().map(|&index| row(name, part, index)));
            }
        }
        files::write(&folder.join("splits.csv"), files::csv_text("splits.csv", rows)?)
    }
}
/// The split without held-out classes. An image of a class that the only fold has seen stays in its part, so that an image
/// that chose a threshold there is not reported on here; several folds agree on every image's part already.
fn nothing_held_out(
    data: &dyn Dataset,
    options: &SplitOptions,
    folds: &[splits::Fold],
) -> Result<splits::Fold> {
    let options = SplitOptions { hold_out: HoldOut::None, folds: 0, ..options.clone() };
    let all = splits::splits(data, &options)?.remove(0);
    let [only] = folds else { return Ok(all) };
    let is_held_out =
        |index: u32| only.held_out.iter().any(|&class| class as i64 == data.label(index as usize));
    let joined = |seen: &[u32], all: &[u32]| {
        let held_out = all.iter().copied().filter(|&index| is_held_out(index));
        let mut indices: Vec<u32> = seen.iter().copied().chain(held_out).collect();
        indices.sort_unstable();
        indices
    };
    Ok(splits::Fold {
        train: joined(&only.train, &all.train),
        select: joined(&only.select, &all.select),
        calibrate: joined(&only.calibrate, &all.calibrate),
        report: joined(&only.report, &all.report),
        ..splits::Fold::default()
    })
}
