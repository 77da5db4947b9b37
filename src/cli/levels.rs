//! Code that `calibrate` and `predict` share: options given per level, and caches of every head of one network or two.

use std::path::{Path, PathBuf};

use super::common::Common;
use super::compute::Compute;
use super::extract::Extraction;
use super::output::say;
use super::progress::Progress;
use crate::checkpoint::{LabelsBy, Trained};
use crate::data::{self, DataSpec, SharedDataset, Split};
use crate::error::{Error, Result};
use crate::features::Request;
use crate::novelty::{HeadSets, LevelEntry};

/// An option that may differ between levels: `VALUE` for all of them, `superclass=VALUE` for one.
#[derive(Debug, Clone)]
pub struct PerLevel<T> {
    every: Option<T>,
    own: Vec<(String, T)>,
}

impl<T: Clone> PerLevel<T> {
    /// Reads every occurrence of `flag` on the command line; `parse` reads a value.
    ///
    /// # Errors
    /// A value that is none, one given twice, or a level of another name.
    pub fn parse(flag: &str, texts: &[String], parse: impl Fn(&str) -> Result<T>) -> Result<PerLevel<T>> {
        let mut parsed = PerLevel { every: None, own: Vec::new() };
        for text in texts {
            let Some((level, value)) = text.split_once('=') else {
                if parsed.every.replace(parse(text)?).is_some() {
                    return Err(Error::usage(format!(
                        "--{flag} is given twice for every level; write --{flag} superclass=… and --{flag} subclass=…"
                    )));
                }
                continue;
            };
            if !["superclass", "subclass", "class"].contains(&level) {
                return Err(Error::usage(format!(
                    "--{flag} {text}: the level is superclass, subclass, or class where there is only one"
                )));
            }
            if parsed.own.iter().any(|(other, _)| other == level) {
                return Err(Error::usage(format!("--{flag} is given twice for the {level} level")));
            }
            parsed.own.push((level.to_string(), parse(value)?));
        }
        Ok(parsed)
    }

    /// The value for a level, or `usual`.
    pub fn of(&self, level: &str, usual: T) -> T {
        let own = self.own.iter().find(|(name, _)| name == level).map(|(_, value)| value.clone());
        own.or_else(|| self.every.clone()).unwrap_or(usual)
    }

    /// Refuses values for levels that no head has.
    ///
    /// # Errors
    /// Names the flag and the level.
    pub fn check(&self, flag: &str, levels: &[&str]) -> Result<()> {
        match self.own.iter().find(|(level, _)| !levels.contains(&level.as_str())) {
            None => Ok(()),
            Some((level, _)) => Err(Error::usage(format!(
                "--{flag} {level}=…: no head is of that level; there is {}",
                levels.join(" and ")
            ))),
        }
    }
}

/// One network or two, opened from checkpoints that hold the meaning of their logits. Where hashes are `wanted`, a run folder whose best
/// checkpoint has none of them stands for its last one if that has.
///
/// # Errors
/// More than two, none, or a weights file that says nothing about itself.
pub fn open_networks(checkpoints: &[PathBuf], wanted: &[&str], common: &Common) -> Result<Vec<Trained>> {
    if checkpoints.is_empty() || checkpoints.len() > 2 {
        return Err(Error::usage(format!(
            "--checkpoint is given once, or twice for a superclass and a subclass model; found {} times",
            checkpoints.len()
        )));
    }
    let open = |path: &PathBuf| {
        let mut trained = Trained::open(path)?;
        let last = path.join("checkpoints").join("last");
        if !wanted.is_empty() && !wanted.contains(&trained.hash.as_str()) && last.is_dir() {
            let of_last = Trained::open(&last)?;
            if wanted.contains(&of_last.hash.as_str()) {
                let note =
                    format!("{}: its last checkpoint is taken, which the thresholds are of", path.display());
                trained = Trained { note: Some(note), ..of_last };
            }
        }
        if trained.heads.is_empty() || trained.transform.is_none() {
            return Err(Error::usage(format!(
                "{} does not say what its logits mean; give a checkpoint folder that residua has written",
                path.display()
            )));
        }
        Ok(trained)
    };
    let networks = checkpoints.iter().map(open).collect::<Result<Vec<Trained>>>()?;
    networks.iter().for_each(|network| say(network.note.as_deref(), common));
    Ok(networks)
}

/// The error where no head of the network has the classes that its thresholds are of.
pub fn missing_head(thresholds: &Path, entry: &LevelEntry) -> Error {
    Error::invalid(format!(
        "{}: the {} head of checkpoint {} has other classes than the thresholds; calibrate again",
        thresholds.display(),
        entry.name(),
        entry.checkpoint
    ))
}

/// A data set by the name a user gave it.
pub struct NamedData {
    /// The name.
    pub spec: DataSpec,
    /// The samples.
    pub data: SharedDataset,
}

impl NamedData {
    /// Opens the data set; `split` counts where its name says none.
    ///
    /// # Errors
    /// As [`data::open`].
    pub fn open(spec: &DataSpec, split: Split) -> Result<NamedData> {
        Ok(NamedData { spec: spec.clone(), data: data::open(spec, split)? })
    }
}

/// One pass of every network over every data set; the caches lie in `folder`.
///
/// # Errors
/// As [`crate::features::extract_all`].
pub fn extract_heads<'a>(
    networks: &'a [Trained],
    sets: &[NamedData],
    folder: &Path,
    batch: usize,
    compute: &Compute,
    common: &Common,
) -> Result<Vec<HeadSets<'a>>> {
    let mut heads = Vec::new();
    for (number, trained) in networks.iter().enumerate() {
        let own = folder.join(number.to_string());
        let requests: Vec<Request> = sets
            .iter()
            .enumerate()
            .map(|(index, set)| Request {
                data: set.data.clone(),
                description: set.spec.to_string(),
                folder: own.join(index.to_string()),
                labels: LabelsBy::Names,
            })
            .collect();
        let samples: usize = sets.iter().map(|set| set.data.len()).sum();
        let work = Extraction {
            trained,
            transform: trained.transform.as_ref().expect("checked when the network was opened"),
            batch,
            requests: &requests,
            progress: Progress::new("extracting", samples as u64, "images", common.quiet),
        };
        work.run(&compute.choice(common)?)?;
        let folders: Vec<PathBuf> = requests.into_iter().map(|request| request.folder).collect();
        heads.extend(HeadSets::open(trained, &folders)?);
    }
    Ok(heads)
}
