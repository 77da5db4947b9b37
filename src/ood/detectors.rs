//! All scores fitted on one training set: fit once, score any set of the same network, save, load.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::compute::{BlockScores, Compute, OnCpu};
use super::families;
use super::family::{Family, Fits, Fitted};
use super::options::{Options, Wanted};
use super::rows::{Columns, Rows, scoring_block};
use super::saved::{Reader, Writer};
use super::spec::ScoreSpec;
use super::table::FitSummary;
use super::training::{Findings, Training};
use crate::archive::SharedMap;
use crate::error::{Error, Position, Result};
use crate::features::{FeatureSet, Head};

/// Scores by name, one f64 per sample; larger means more in-distribution.
pub type Scores = BTreeMap<String, Vec<f64>>;

/// Key of the options in the metadata of `fit.safetensors`.
const METADATA: &str = "residua_ood";

/// Fitted detectors. Two are equal if they would be saved alike.
#[derive(Debug, Clone)]
pub struct Detectors {
    head: Head,
    description: Description,
    fitted: Fits,
}

impl PartialEq for Detectors {
    fn eq(&self, other: &Detectors) -> bool {
        self.description == other.description && self.tensors() == other.tensors()
    }
}

/// The metadata of `fit.safetensors`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Description {
    /// Options of the fit; its `methods` are the scores that could be fitted.
    options: Options,
    fits: BTreeMap<String, FitSummary>,
    warnings: Vec<String>,
    /// Checkpoint of the training features, where known.
    checkpoint: Option<String>,
}

impl Detectors {
    /// Fits every score of `options.methods` on ID training features.
    ///
    /// Statistics are streamed over the set in f64; the result does not depend on the number of threads.
    ///
    /// # Errors
    /// Features, logits or labels that do not fit the head, a class without samples, a ViM dimension that leaves no
    /// residual.
    pub fn fit(train: &FeatureSet, head: &Head, options: &Options) -> Result<Detectors> {
        Detectors::fit_on(&mut OnCpu, (train, None), head, options)
    }

    /// The same, with the passes over all rows on a device; `calibration` are labelled ID samples outside training, for the
    /// scores that want them.
    ///
    /// # Errors
    /// As [`Detectors::fit`], or the device failed.
    pub fn fit_on(
        compute: &mut dyn Compute,
        (train, calibration): (&FeatureSet, Option<&FeatureSet>),
        head: &Head,
        options: &Options,
    ) -> Result<Detectors> {
        options.check()?;
        train.check_shape(head.dimension(), head.classes())?;
        if train.is_empty() {
            return Err(Error::malformed(train.path(), Position::File, "training samples", "none"));
        }
        let training = Training::new(compute, train, calibration, head, options.seed);
        let fitted = of_families(options, |family, own| family.fit(own, &training))?;
        let Findings { notes, summaries, left_out } = training.into_findings();
        let mut options = options.clone();
        options.methods.retain(|spec| !left_out.contains(&spec.to_string()));
        let checkpoint = train.meta().checkpoint.clone();
        let description = Description { options, fits: summaries, warnings: notes, checkpoint };
        Ok(Detectors { head: head.clone(), description, fitted })
    }

    /// Scores that no training set is needed for; `checkpoint` is that of the head, where known.
    ///
    /// # Errors
    /// A score that is fitted.
    pub fn untrained(head: &Head, options: &Options, checkpoint: Option<String>) -> Result<Detectors> {
        options.check()?;
        options.check_untrained()?;
        let fitted = of_families(options, |family, own| family.without_training(own, head))?;
        let description = Description { options: options.clone(), checkpoint, ..Description::default() };
        Ok(Detectors { head: head.clone(), description, fitted })
    }

    /// The scores that were fitted, in the order they are shown.
    pub fn specs(&self) -> Vec<ScoreSpec> {
        self.description.options.specs()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.specs().iter().map(ToString::to_string).collect()
    }

    /// Rank, condition, dimension and constants of each fit, by score.
    pub fn fits(&self) -> &BTreeMap<String, FitSummary> {
        &self.description.fits
    }

    /// Warnings about the fits for the user, in sentences.
    pub fn warnings(&self) -> &[String] {
        &self.description.warnings
    }

    /// The classifier's last layer.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Seed of random subsets.
    pub fn seed(&self) -> u64 {
        self.description.options.seed
    }

    /// Every fitted score of every sample, in blocks of bounded size.
    ///
    /// # Errors
    /// Features or logits of another shape or checkpoint, or a score that is not finite (named by row).
    pub fn score(&self, set: &FeatureSet) -> Result<Scores> {
        self.score_on(&mut OnCpu, set)
    }

    /// The same on a device.
    ///
    /// # Errors
    /// As [`Detectors::score`], or the device failed.
    pub fn score_on(&self, compute: &mut dyn Compute, set: &FeatureSet) -> Result<Scores> {
        self.check(set)?;
        let block = scoring_block(self.head.dimension());
        let starts: Vec<usize> = (0..set.len()).step_by(block).collect();
        let columns = if self.description.options.needs_features() { Columns::All } else { Columns::Logits };
        self.collect(compute, set, starts.len(), &|number| {
            let start = starts[number];
            Rows::read(set, &self.head, start..(start + block).min(set.len()), columns)
        })
    }

    /// The scores of the samples at `indices` only.
    ///
    /// # Errors
    /// As [`Detectors::score`], or the device failed.
    ///
    /// # Panics
    /// If an index lies beyond the set.
    pub fn score_samples(
        &self,
        compute: &mut dyn Compute,
        set: &FeatureSet,
        indices: &[usize],
    ) -> Result<Scores> {
        self.check(set)?;
        let blocks: Vec<&[usize]> = indices.chunks(scoring_block(self.head.dimension())).collect();
        self.collect(compute, set, blocks.len(), &|number| Rows::gather(set, &self.head, blocks[number]))
    }

    fn check(&self, set: &FeatureSet) -> Result<()> {
        set.check_shape(self.head.dimension(), self.head.classes())?;
        match (&self.description.checkpoint, &set.meta().checkpoint) {
            (Some(fitted), Some(found)) if fitted != found => Err(Error::invalid(format!(
                "{} comes from checkpoint {found}, but the scores were fitted on {fitted}; extract both with the same one",
                set.path().display()
            ))),
            _ => Ok(()),
        }
    }

    fn collect(
        &self,
        compute: &mut dyn Compute,
        set: &FeatureSet,
        blocks: usize,
        read: &(dyn Fn(usize) -> Rows + Sync),
    ) -> Result<Scores> {
        let parts = compute.score_blocks(self, blocks, read)?;
        let mut scores: Scores =
            self.names().into_iter().map(|name| (name, Vec::with_capacity(set.len()))).collect();
        for (name, values) in parts.into_iter().flatten() {
            if let Some(all) = scores.get_mut(&name) {
                all.extend(values);
            }
        }
        for (name, values) in &scores {
            if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                let expected = format!("features and logits for which `{name}` is finite");
                let found = values[row].to_string();
                return Err(Error::malformed(set.path(), Position::Row(row as u64), expected, found));
            }
        }
        Ok(scores)
    }

    /// Every fitted score of a block, on the CPU.
    pub(super) fn score_rows(&self, rows: &Rows) -> BlockScores {
        let mut scores = BlockScores::new();
        self.fitted.iter().for_each(|fitted| fitted.score(rows, &self.head, &mut scores));
        scores
    }

    /// The fits, which each give some scores.
    pub(super) fn fitted(&self) -> impl Iterator<Item = &dyn Fitted> {
        self.fitted.iter().map(|fitted| &**fitted)
    }

    /// The checkpoint of the training features, where known.
    pub(super) fn checkpoint(&self) -> Option<&str> {
        self.description.checkpoint.as_deref()
    }

    /// The options of the fit; their `methods` are the scores that could be fitted.
    pub(super) fn options(&self) -> &Options {
        &self.description.options
    }

    /// What `fit.safetensors` holds.
    pub(super) fn tensors(&self) -> Writer {
        let mut out = Writer::default();
        let (classes, dimension) = (self.head.classes(), self.head.dimension());
        out.put("head.weight", &[classes, dimension], self.head.weight());
        out.put("head.bias", &[classes], self.head.bias());
        self.fitted.iter().for_each(|fitted| fitted.save(&mut out));
        out
    }

    /// Writes `fit.safetensors`.
    ///
    /// # Errors
    /// The file cannot be written; an older one is then untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(&self.description).map_err(|e| Error::invalid(e.to_string()))?;
        self.tensors().write(path, METADATA, text)
    }

    /// Reads `fit.safetensors` back; the scores it gives are the same bit for bit.
    ///
    /// # Errors
    /// The file is damaged, incomplete, or holds something else.
    pub fn load(path: &Path) -> Result<Detectors> {
        Detectors::of(path, SharedMap::open(path)?)
    }

    /// The same of a part of a mapped file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Detectors::load`].
    pub(super) fn of(path: &Path, file: SharedMap) -> Result<Detectors> {
        let (file, text) = Reader::of(path, file, METADATA)?;
        let description: Description = serde_json::from_str(&text)
            .map_err(|e| file.malformed(METADATA, "options of a fit", &e.to_string()))?;
        let options = &description.options;
        options.check().map_err(|e| file.malformed(METADATA, "options of a fit", &e.to_string()))?;
        let (shape, weight) = file.get("head.weight", &[None, None])?;
        let (classes, d) = (shape[0], shape[1]);
        let head = Head::new(weight, file.get("head.bias", &[Some(classes)])?.1, d)?;
        let fitted = of_families(options, |family, own| family.load(own, &file, &head))?;
        Ok(Detectors { fitted, head, description })
    }
}

/// What each family gives for those of the scores wanted that are its own.
fn of_families(options: &Options, fits: impl Fn(&dyn Family, &[Wanted]) -> Result<Fits>) -> Result<Fits> {
    let wanted = options.wanted();
    let mut all = Fits::new();
    for family in families::ALL {
        let own = family.own(&wanted);
        if !own.is_empty() {
            all.extend(fits(*family, &own)?);
        }
    }
    Ok(all)
}
