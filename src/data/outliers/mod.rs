//! Outliers: images of other classes, from any labelled data set, that a network is shown as `novel`.

mod manifest;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use manifest::{Manifest, Outlier};

use super::inspect::digest;
use super::spec::Source;
use super::taxonomy::{NOVEL, novel_class};
use super::{DataSpec, Dataset, Relabelled, Selected, SharedDataset, Split, open};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Which outliers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlierOptions {
    /// Where they come from, for instance `cifar100:DIR`; its training part unless `split=` says otherwise.
    pub data: DataSpec,
    /// The classes they may be of; empty: all but those excluded.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The classes they may not be of.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Number of outliers.
    #[serde(default)]
    pub count: OutlierCount,
    /// Seed of the choice.
    #[serde(default)]
    pub seed: u64,
    /// Whether every image the network ever sees is first shrunk to the size of the outliers, so that being blurred is
    /// no sign of being novel ([`Outliers::degrade`]).
    #[serde(default)]
    pub match_seen: bool,
}

/// How many outliers: `none`, `small` (1000), `large` (5000), or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "WrittenCount", into = "WrittenCount")]
pub enum OutlierCount {
    /// No outliers.
    None,
    /// 1000.
    Small,
    /// 5000.
    #[default]
    Large,
    /// This number.
    Number(usize),
}

impl OutlierCount {
    /// The number of images.
    pub fn number(self) -> usize {
        match self {
            OutlierCount::None => 0,
            OutlierCount::Small => 1000,
            OutlierCount::Large => 5000,
            OutlierCount::Number(number) => number,
        }
    }
}

impl fmt::Display for OutlierCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutlierCount::None => f.write_str("none"),
            OutlierCount::Small => f.write_str("small"),
            OutlierCount::Large => f.write_str("large"),
            OutlierCount::Number(number) => write!(f, "{number}"),
        }
    }
}

impl FromStr for OutlierCount {
    type Err = Error;

    fn from_str(text: &str) -> Result<OutlierCount> {
        match text {
            "none" => Ok(OutlierCount::None),
            "small" => Ok(OutlierCount::Small),
            "large" => Ok(OutlierCount::Large),
            _ => text.parse().map(OutlierCount::Number).map_err(|_| {
                Error::usage(format!(
                    "`{text}` is no number of outliers; there are none, small (1000), large (5000), or a number"
                ))
            }),
        }
    }
}

/// [`OutlierCount`] as files have it.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"none\", \"small\", \"large\" or a number of outliers")]
enum WrittenCount {
    Number(usize),
    Word(String),
}

impl TryFrom<WrittenCount> for OutlierCount {
    type Error = Error;

    fn try_from(written: WrittenCount) -> Result<OutlierCount> {
        match written {
            WrittenCount::Number(number) => Ok(OutlierCount::Number(number)),
            WrittenCount::Word(word) => word.parse(),
        }
    }
}

impl From<OutlierCount> for WrittenCount {
    fn from(count: OutlierCount) -> WrittenCount {
        match count {
            OutlierCount::Number(number) => WrittenCount::Number(number),
            word => WrittenCount::Word(word.to_string()),
        }
    }
}

/// Outliers, ready to be put behind the seen images.
#[derive(Debug, Clone)]
pub struct Outliers {
    /// The images, in the order they were drawn, with the classes of the seen data and the label of its class `novel`;
    /// named like `cifar100/train/12345_bee`.
    pub dataset: SharedDataset,
    /// The images drawn.
    pub manifest: Manifest,
    /// With [`OutlierOptions::match_seen`], what [`super::Transform::degrade`] should be: the median of the outliers'
    /// longer sides, in pixels.
    pub degrade: Option<u32>,
}

/// Draws outliers; `None` if none are asked for.
///
/// Candidates are the images of the allowed classes, sorted by the name of the class, then by their number in the data
/// set. The first `count` entries of the permutation [`Stream::permutation`] of the stream (seed,
/// [`Purpose::Outliers`]) say which are taken: the same data and seed give the same outliers, and the small set is the
/// beginning of the large one.
///
/// Relative paths are taken from `root`. `seen` is the data the outliers are shown with.
///
/// # Errors
/// The data cannot be opened or has no classes; a class is not one of its; there are fewer candidates than asked for;
/// `seen` has no class `novel`; an image cannot be read.
pub fn build(options: &OutlierOptions, root: Option<&Path>, seen: &dyn Dataset) -> Result<Option<Outliers>> {
    let count = options.count.number();
    if count == 0 {
        return Ok(None);
    }
    let label = novel_label(seen)?;
    let spec = root.map_or_else(|| options.data.clone(), |root| options.data.clone().under(root));
    let source = open(&spec, Split::Train)?;
    let classes = allowed_classes(options, &*source)?;
    let candidates = candidates(&*source, &classes);
    if candidates.is_empty() {
        return Err(Error::invalid(format!(
            "{count} outliers are asked for, but {} has no image of the allowed classes; allow others",
            options.data
        )));
    }
    if count > candidates.len() {
        return Err(Error::invalid(format!(
            "{count} outliers are asked for, but {} has {} images of the allowed classes; ask for fewer, or allow more",
            options.data,
            candidates.len()
        )));
    }
    let order = Stream::for_purpose(options.seed, Purpose::Outliers, &[]).permutation(candidates.len());
    let indices: Vec<u32> = order[..count].iter().map(|&position| candidates[position as usize]).collect();
    let looked_at: Vec<(String, u32)> = indices
        .par_iter()
        .map(|&index| {
            let image = source.image(index as usize)?;
            Ok((digest(&image).to_hex().to_string(), image.width.max(image.height)))
        })
        .collect::<Result<_>>()?;
    let mut sides: Vec<u32> = looked_at.iter().map(|(_, side)| *side).collect();
    sides.sort_unstable();
    let drawn: Vec<Outlier> = indices
        .iter()
        .zip(looked_at)
        .enumerate()
        .map(|(position, (&index, (blake3, _)))| {
            let class = source.class_names()[source.label(index as usize) as usize].clone();
            Outlier { position, index, class, blake3 }
        })
        .collect();
    let part = name_of_part(&spec);
    let names = drawn.iter().map(|outlier| format!("{part}/{}_{}", outlier.index, outlier.class)).collect();
    let images = Arc::new(Selected::new(source.clone(), indices));
    let (class_names, taxonomy) = (seen.class_names().to_vec(), seen.taxonomy().cloned());
    let dataset = Relabelled::new(images, vec![label; count], class_names, taxonomy)?.named(names);
    let classes = classes.into_iter().map(|class| source.class_names()[class].clone()).collect();
    Ok(Some(Outliers {
        dataset: Arc::new(dataset),
        manifest: Manifest::new(options, classes, drawn),
        degrade: options.match_seen.then(|| sides[sides.len() / 2]),
    }))
}

/// The label of outliers in the seen data.
fn novel_label(seen: &dyn Dataset) -> Result<i64> {
    novel_class(seen).map(|novel| novel as i64).ok_or_else(|| {
        Error::invalid(format!(
            "outliers need a class to belong to, but none of the {} classes of the data is named `{NOVEL}`; add one to \
             the mapping of the (sub)classes",
            seen.class_names().len()
        ))
    })
}

/// The labels of the allowed classes, sorted by name.
fn allowed_classes(options: &OutlierOptions, source: &dyn Dataset) -> Result<Vec<usize>> {
    let names = source.class_names();
    if names.is_empty() {
        return Err(Error::usage(format!(
            "{}: outliers are chosen by class, but these images have none; name a labelled data set",
            options.data
        )));
    }
    if !options.classes.is_empty() && !options.exclude.is_empty() {
        return Err(Error::usage(
            "give the classes that outliers may be of or those they may not be of, not both",
        ));
    }
    let listed = if options.classes.is_empty() { &options.exclude } else { &options.classes };
    if let Some(unknown) = listed.iter().find(|name| !names.contains(name)) {
        return Err(Error::usage(format!(
            "`{unknown}` is no class of {}; its classes are {}",
            options.data,
            names.join(", ")
        )));
    }
    let allowed = |name: &String| listed.contains(name) != options.classes.is_empty();
    let mut classes: Vec<usize> = (0..names.len()).filter(|&class| allowed(&names[class])).collect();
    classes.sort_by(|&a, &b| names[a].cmp(&names[b]));
    Ok(classes)
}

/// The images of `classes`, in their order, then by number.
fn candidates(source: &dyn Dataset, classes: &[usize]) -> Vec<u32> {
    let mut members = vec![Vec::new(); source.class_names().len()];
    for index in 0..source.len() {
        if let Ok(class) = usize::try_from(source.label(index)) {
            members[class].push(index as u32);
        }
    }
    classes.iter().flat_map(|&class| std::mem::take(&mut members[class])).collect()
}

/// `cifar100/train`, `folder`: the front part of the samples' names.
fn name_of_part(spec: &DataSpec) -> String {
    let scheme = spec.source.scheme();
    let split = match (&spec.source, spec.split) {
        (_, Some(split)) => Some(split),
        (Source::Cifar10 { .. } | Source::Cifar100 { .. }, None) => Some(Split::Train),
        _ => None,
    };
    split.map_or_else(|| scheme.to_owned(), |split| format!("{scheme}/{split}"))
}
