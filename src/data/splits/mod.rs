//! A labelled data set cut into the parts an honest novelty threshold needs.
//!
//! Some subclasses are *held out*: the network never sees them, so that they play the unknown ("pseudo-novel"). The
//! images of all others are divided, class by class, into
//!
//! | part | for |
//! |---|---|
//! | train | the weights |
//! | select | choosing the best checkpoint |
//! | calibrate | choosing thresholds, together with the held-out classes of `novel_calibrate` |
//! | report | the figures, together with the *other* held-out classes, those of `novel_report` |
//!
//! No image is in two parts, and no class that a threshold was chosen on is one it is judged by. Images of the class
//! named `novel` (outliers) are divided like those of any class and never held out.
//!
//! Everything random is drawn from [`crate::rng::Stream`]: the images of class c are permuted by the stream (seed,
//! [`Purpose::Split`], c) and dealt to train, select, calibrate, report in this order; classes are held out by the
//! stream (seed, [`Purpose::HoldOut`], …) as [`HoldOut`] says. Of several folds, an image that is not held out is in the
//! same part of each: what one fold reports on, none trains on.

mod held_out;
mod share;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use held_out::HoldOut;
use share::{NUMBER_OF_PARTS, Part, divide_by_class};

use super::Dataset;
use super::taxonomy::novel_class;
use crate::error::{Error, Result};
#[cfg(doc)]
use crate::rng::Purpose;

/// How a data set is divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitOptions {
    /// Share of each seen class's images that choose the checkpoint.
    pub select: f64,
    /// Share that choose thresholds.
    pub calibrate: f64,
    /// Share that nothing is chosen on.
    pub report: f64,
    /// Which subclasses are held out, if `folds` does not say it.
    pub hold_out: HoldOut,
    /// From 2 on: that many folds, so that every class but `novel` is held out of exactly one.
    pub folds: usize,
    /// Seed of all random choices.
    pub seed: u64,
}

impl Default for SplitOptions {
    /// A tenth each to select, calibrate and report; nothing held out.
    fn default() -> SplitOptions {
        SplitOptions { select: 0.1, calibrate: 0.1, report: 0.1, hold_out: HoldOut::None, folds: 0, seed: 0 }
    }
}

/// One division of a data set: numbers of its samples, ascending, each in exactly one of the lists.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fold {
    /// The subclasses the network never sees, ascending.
    pub held_out: Vec<usize>,
    /// Images for the weights.
    pub train: Vec<u32>,
    /// Images of seen classes that choose the checkpoint.
    pub select: Vec<u32>,
    /// Images of seen classes that choose thresholds.
    pub calibrate: Vec<u32>,
    /// Images of seen classes for the figures.
    pub report: Vec<u32>,
    /// Images of the held-out classes that choose thresholds.
    pub novel_calibrate: Vec<u32>,
    /// Images of the other held-out classes, for the figures.
    pub novel_report: Vec<u32>,
}

impl Fold {
    /// The parts by name.
    pub fn parts(&self) -> [(&'static str, &[u32]); 6] {
        [
            ("train", &self.train),
            ("select", &self.select),
            ("calibrate", &self.calibrate),
            ("report", &self.report),
            ("novel_calibrate", &self.novel_calibrate),
            ("novel_report", &self.novel_report),
        ]
    }
}

/// Divides a data set into one [`Fold`], or into the number of folds asked for.
///
/// # Errors
/// Shares that leave nothing to train on; a sample without a label; a class with a single image that would have to be
/// in several parts; held-out classes that do not exist or leave fewer than two to train on; a part that was asked for
/// but comes out empty; one held-out class where thresholds and figures need different ones.
pub fn splits(dataset: &dyn Dataset, options: &SplitOptions) -> Result<Vec<Fold>> {
    let shares = check_shares(options)?;
    let classes = Classes::of(dataset)?;
    let held_out = held_out::choose(&classes, options)?;
    let single = held_out.len() == 1;
    let is_divided = |class: usize| !(single && held_out[0].contains(&class));
    let parts = divide_by_class(dataset, &classes, is_divided, shares, options.seed)?;
    let folds = held_out.into_iter().enumerate();
    folds.map(|(number, held_out)| classes.fold(number, held_out, &parts, options)).collect()
}

/// The shares of the parts, train first.
fn check_shares(options: &SplitOptions) -> Result<[f64; NUMBER_OF_PARTS]> {
    let given = [("select", options.select), ("calibrate", options.calibrate), ("report", options.report)];
    if let Some((name, share)) = given.iter().find(|(_, share)| !(0.0..1.0).contains(share)) {
        return Err(Error::usage(format!(
            "{name} = {share}: a share of the images is at least 0 and below 1"
        )));
    }
    let train = 1.0 - given.iter().map(|(_, share)| share).sum::<f64>();
    if train <= 1e-9 {
        return Err(Error::usage(format!(
            "select, calibrate and report ({}, {}, {}) leave nothing to train on; their sum must be below 1",
            options.select, options.calibrate, options.report
        )));
    }
    Ok([train, options.select, options.calibrate, options.report])
}

/// A data set's samples by class, and its classes by superclass.
#[derive(Debug)]
struct Classes {
    /// Names of the classes, by label.
    names: Vec<String>,
    /// The samples of each class, ascending.
    members: Vec<Vec<u32>>,
    /// The class named `novel`.
    novel: Option<usize>,
    /// The other classes of which there are images, by superclass where that is known.
    groups: Vec<Vec<usize>>,
}

impl Classes {
    fn of(dataset: &dyn Dataset) -> Result<Classes> {
        let names = dataset.class_names().to_vec();
        let mut members = vec![Vec::new(); names.len()];
        for index in 0..dataset.len() {
            let class = usize::try_from(dataset.label(index)).map_err(|_| {
                Error::invalid(format!(
                    "sample {index} (`{}`) has no label: only labelled images can be divided by class; take it out",
                    dataset.sample_name(index)
                ))
            })?;
            members[class].push(index as u32);
        }
        let novel = novel_class(dataset);
        let mut groups = std::collections::BTreeMap::<Option<usize>, Vec<usize>>::new();
        for class in (0..names.len()).filter(|&class| Some(class) != novel && !members[class].is_empty()) {
            let parent = dataset.taxonomy().and_then(|taxonomy| taxonomy.parents[class]);
            groups.entry(parent).or_default().push(class);
        }
        Ok(Classes { names, members, novel, groups: groups.into_values().collect() })
    }

    /// Number of classes that can be held out.
    fn known(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Class number and name, for messages.
    fn describe(&self, class: usize) -> String {
        format!("class {class} `{}`", self.names[class])
    }

    fn fold(
        &self,
        number: usize,
        held_out: Vec<usize>,
        parts: &[[Vec<u32>; NUMBER_OF_PARTS]],
        options: &SplitOptions,
    ) -> Result<Fold> {
        let gather = |part: Part| {
            let seen = (0..parts.len()).filter(|class| held_out.binary_search(class).is_err());
            sorted(seen.flat_map(|class| parts[class][part as usize].iter().copied()))
        };
        let of_classes =
            |classes: &[usize]| sorted(classes.iter().flat_map(|&class| self.members[class].iter().copied()));
        let (calibrate, report) = held_out::divide(self, number, &held_out, options)?;
        let fold = Fold {
            train: gather(Part::Train),
            select: gather(Part::Select),
            calibrate: gather(Part::Calibrate),
            report: gather(Part::Report),
            novel_calibrate: of_classes(&calibrate),
            novel_report: of_classes(&report),
            held_out,
        };
        self.check_parts(&fold, options)?;
        Ok(fold)
    }

    /// A part that was asked for has an image of a class that is not `novel`.
    fn check_parts(&self, fold: &Fold, options: &SplitOptions) -> Result<()> {
        let novel: &[u32] = self.novel.map_or(&[], |novel| &self.members[novel]);
        let parts = [
            ("select", options.select, &fold.select),
            ("calibrate", options.calibrate, &fold.calibrate),
            ("report", options.report, &fold.report),
        ];
        for (name, share, part) in parts {
            if share > 0.0 && part.iter().all(|index| novel.binary_search(index).is_ok()) {
                let seen = self.known() - fold.held_out.len();
                return Err(Error::invalid(format!(
                    "the part `{name}` is empty: a share of {share} of the images of {seen} classes is less than one \
                     image; give it a larger share, or add images"
                )));
            }
        }
        Ok(())
    }
}

fn sorted(indices: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut indices: Vec<u32> = indices.collect();
    indices.sort_unstable();
    indices
}
