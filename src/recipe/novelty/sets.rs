//! The images of an experiment on two levels: seen classes, outliers, and which of them serve for what.

use std::path::Path;
use std::sync::Arc;

use super::options::NoveltyRecipe;
use crate::data::outliers::{self, Manifest};
use crate::data::shortcuts::{self, Comparison};
use crate::data::splits::{self, Fold, HoldOut, SplitOptions};
use crate::data::{
    self, Concatenated, DataSpec, Dataset, Level, Selected, SharedDataset, Split, Taxonomy, Transform,
};
use crate::error::{Error, Result};
use crate::files;

/// Everything such an experiment sees.
#[derive(Debug, Clone)]
pub struct NoveltySets {
    /// All labelled images, outliers last; labels are subclasses in the numbering of the files.
    pub data: SharedDataset,
    /// Both levels of classes.
    pub taxonomy: Taxonomy,
    /// Pixels each way that larger images are shrunk to first, so that outliers are no blurrier than the rest.
    pub degrade: Option<u32>,
    /// The folds that thresholds are chosen on: each leaves some subclasses out.
    pub folds: Vec<Fold>,
    /// The split of the networks that are handed over: no class is left out.
    pub whole: Fold,
    /// The images to predict, and their name.
    pub test: Option<(SharedDataset, String)>,
    /// Where the outliers come from.
    pub manifest: Option<Manifest>,
    /// Things the user should know.
    pub notes: Vec<String>,
}

impl NoveltySets {
    /// Opens the data that a recipe names; relative paths are taken from `root`.
    ///
    /// # Errors
    /// Data that cannot be opened or contradicts itself, splits that are impossible.
    pub fn open(recipe: &NoveltyRecipe, root: Option<&Path>) -> Result<NoveltySets> {
        let under = |text: &str| -> Result<DataSpec> {
            let spec: DataSpec = text.parse()?;
            Ok(root.map_or_else(|| spec.clone(), |root| spec.clone().under(root)))
        };
        let seen = data::open(&under(&recipe.data.train)?, Split::Train)?;
        let test = match &recipe.data.test {
            None => None,
            Some(text) => Some((data::open(&under(text)?, Split::Test)?, text.clone())),
        };
        let taxonomy = seen.taxonomy().cloned().ok_or_else(|| {
            Error::usage(format!("[data] train = \"{}\" has no two levels of classes", recipe.data.train))
        })?;
        let outliers = match &recipe.outliers {
            None => None,
            Some(options) => outliers::build(options, root, &*seen)?,
        };
        let degrade = outliers.as_ref().and_then(|outliers| outliers.degrade);
        let mut notes = seen.notes();
        notes.extend(test.iter().flat_map(|(data, _)| data.notes()));
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
        let in_data = |error: Error| match error {
            Error::Invalid(text) => Error::Invalid(format!("{}: {text}", recipe.data.train)),
            other => other,
        };
        let folds = splits::splits(&*data, &recipe.splits).map_err(in_data)?;
        let whole = nothing_held_out(&*data, &recipe.splits, &folds)?;
        Ok(NoveltySets { data, taxonomy, degrade, folds, whole, test, manifest, notes })
    }

    /// The labelled images among `indices` that are no outliers.
    pub fn seen(&self, indices: &[u32]) -> Vec<u32> {
        let novel = self.taxonomy.novel(Level::Fine).map(|index| index as i64);
        indices.iter().copied().filter(|&index| Some(self.data.label(index as usize)) != novel).collect()
    }

    /// Some of the labelled images.
    pub fn part(&self, indices: &[u32]) -> SharedDataset {
        Arc::new(Selected::new(self.data.clone(), indices.to_vec()))
    }

    /// Writes `splits.csv` (which image serves for what, in which fold) and `outliers.csv` into a run folder.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write_lists(&self, folder: &Path) -> Result<()> {
        if let Some(manifest) = &self.manifest {
            manifest.write(&folder.join("outliers.csv"))?;
        }
        let path = folder.join("splits.csv");
        let failed = |e: csv::Error| Error::invalid(format!("cannot lay out {}: {e}", path.display()));
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["fold", "image", "subclass_index", "part"]).map_err(failed)?;
        let folds = self.folds.iter().enumerate().map(|(number, fold)| (format!("{}", number + 1), fold));
        for (name, fold) in folds.chain([("final".to_string(), &self.whole)]) {
            let parts = [
                ("train", &fold.train),
                ("select", &fold.select),
                ("calibrate", &fold.calibrate),
                ("report", &fold.report),
                ("novel_calibrate", &fold.novel_calibrate),
                ("novel_report", &fold.novel_report),
            ];
            for (part, &index) in
                parts.iter().flat_map(|(part, indices)| indices.iter().map(move |index| (part, index)))
            {
                let (image, label) = (self.data.sample_name(index as usize), self.data.label(index as usize));
                table.write_record([name.as_str(), &image, &label.to_string(), part]).map_err(failed)?;
            }
        }
        let bytes = table
            .into_inner()
            .map_err(|e| Error::invalid(format!("cannot lay out {}: {e}", path.display())))?;
        files::write_atomically(&path, |out| std::io::Write::write_all(out, &bytes))
    }
}

/// The split without held-out classes. An image of a class that the only fold has seen stays in its part, so that an image
/// that chose a threshold there is not reported on here; several folds agree on every image's part already.
fn nothing_held_out(data: &dyn Dataset, options: &SplitOptions, folds: &[Fold]) -> Result<Fold> {
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
    Ok(Fold {
        train: joined(&only.train, &all.train),
        select: joined(&only.select, &all.select),
        calibrate: joined(&only.calibrate, &all.calibrate),
        report: joined(&only.report, &all.report),
        ..Fold::default()
    })
}
