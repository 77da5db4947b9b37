//! `thresholds.toml`: everything that turns a checkpoint's scores into decisions, and the files beside it.
//!
//! | file | holds |
//! |---|---|
//! | `NAME.toml` | levels, scores, rules, thresholds, rates; which checkpoint they belong to |
//! | `NAME.calibration-HASH.npz` | for each level the seen calibration samples in flagging order, which p-values need |
//! | `NAME.LEVEL-HASH.safetensors` | what the level's score was fitted to, where it is fitted |
//!
//! The files beside it carry the beginning of their own hash in their names, so that writing new thresholds never
//! damages old ones; the whole hash is in the table. The table is written last.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::decide::{Answer, Hierarchy, Pairing};
use super::document::{Document, FileRecord};
use super::proportion::Proportion;
use super::samples::{LevelScores, level_name};
use super::score::Scorer;
use super::threshold::LevelThreshold;
use super::truth::Truth;
use crate::checkpoint::{HeadClasses, Trained};
use crate::data::{Dataset, Level, UNKNOWN_LABEL, is_novel};
use crate::error::{Error, Position, Result};
use crate::features::{Element, Head, NpyArray, Npz, write_npz};
use crate::files;
use crate::ood::Detectors;
use crate::values::shown;

/// The most bytes a threshold file may have: a hundred thousand classes with thresholds of their own need less.
const LONGEST: u64 = 32 << 20;

/// Shares of samples that a level's decisions flag as novel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Of samples of known classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_novel: Option<Proportion>,
    /// Of novel samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_novel: Option<Proportion>,
}

impl Rates {
    /// The rates of samples with their truths and answers, however they were flagged.
    pub fn of(truths: &[Truth], answers: &[Answer]) -> Rates {
        let share = |among: fn(&Truth) -> bool| {
            let pairs = truths.iter().zip(answers);
            Proportion::of(pairs.filter(|(truth, _)| among(truth)).map(|(_, answer)| answer.novel))
        };
        Rates {
            false_novel: share(|truth| matches!(truth, Truth::Class(_))),
            caught_novel: share(|truth| matches!(truth, Truth::Outlier | Truth::Unseen)),
        }
    }
}

/// The thresholds of one head.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelEntry {
    /// BLAKE3 hash of the checkpoint's parameters.
    pub checkpoint: String,
    /// Meaning of the head's logits.
    pub classes: HeadClasses,
    /// Of a subclass head, the superclass of each logit by its index in the files; [`UNKNOWN_LABEL`] where not known.
    pub parents: Vec<i64>,
    /// The index that answers give novel samples.
    pub novel_index: i64,
    /// The divisor of the logits before the softmax.
    pub temperature: f64,
    /// When a sample is flagged, with the rates on the calibration samples.
    pub threshold: LevelThreshold,
    /// The rates of the decisions on a split that chose nothing, where there was one.
    pub reported: Option<Rates>,
    /// The seen calibration samples in flagging order, ascending.
    pub calibration: Vec<f64>,
    /// The fits that the score needs, where it is fitted.
    pub detectors: Option<Detectors>,
}

impl LevelEntry {
    /// The entry of one head of a network, calibrated on `samples` of `scorer`. Superclasses of subclasses and the index of
    /// the class `novel` are those the network was trained with, or else those of `data`, a set with the same classes.
    pub fn new(
        trained: &Trained,
        data: &dyn Dataset,
        scorer: &Scorer,
        threshold: LevelThreshold,
        samples: &LevelScores,
    ) -> LevelEntry {
        let classes = scorer.classes().clone();
        let level = classes.level.unwrap_or_default();
        let taxonomy = trained.taxonomy.as_ref().or(data.taxonomy());
        let own = classes.novel.map(|logit| classes.indices[logit]);
        let names = taxonomy.map_or_else(|| data.class_names(), |taxonomy| taxonomy.names(level));
        // Another set may number the same classes otherwise: then its number of the class says nothing.
        let agrees = classes.indices.iter().zip(&classes.classes).all(|(&index, class)| {
            usize::try_from(index).ok().and_then(|index| names.get(index)) == Some(class)
        });
        let named = names.iter().position(|name| is_novel(name)).filter(|_| agrees);
        let named = named.map(|index| index as i64);
        let parents = match (classes.level, taxonomy) {
            (Some(Level::Fine), Some(taxonomy)) => {
                classes.indices.iter().map(|index| taxonomy.label(Level::Coarse, *index)).collect()
            }
            _ => Vec::new(),
        };
        LevelEntry {
            checkpoint: trained.hash.clone(),
            parents,
            novel_index: own.or(named).unwrap_or(UNKNOWN_LABEL),
            classes,
            temperature: scorer.temperature(),
            threshold,
            reported: None,
            calibration: samples.calibration_order(),
            detectors: scorer.detectors().cloned(),
        }
    }

    /// The name of the level: `superclass`, `subclass`, or `class`.
    pub fn name(&self) -> &'static str {
        level_name(self.classes.level)
    }

    /// The name of a class by its index in the files; none where it has no logit.
    pub fn class_name(&self, class: i64) -> Option<&str> {
        let logit = self.classes.indices.iter().position(|index| *index == class);
        logit.map(|logit| self.classes.classes[logit].as_str())
    }

    /// The level's score, ready to be computed of caches of this head.
    ///
    /// # Errors
    /// A head of another shape.
    pub fn scorer(&self, head: Head) -> Result<Scorer> {
        let detectors = self.detectors.clone();
        Scorer::with_fit(self.threshold.score, self.temperature, head, self.classes.clone(), detectors)
    }

    /// Describes the threshold, in a sentence or two.
    pub fn in_words(&self) -> String {
        let LevelThreshold { score, rule, tau, .. } = &self.threshold;
        if !self.threshold.flags_by_score() {
            let seen = self.threshold.seen;
            return format!(
                "No image is called novel by its {score} ({rule}): {seen} calibration images are too few."
            );
        }
        let (rates, split) = self.expected();
        let share = |share: Option<Proportion>, of: &str| {
            share.map(|share| format!("{:.1} % of {of}", 100.0 * share.rate))
        };
        let called = [share(rates.false_novel, "the known images"), share(rates.caught_novel, "the others")];
        let called: Vec<String> = called.into_iter().flatten().collect();
        let mut text = format!("An image whose {score} lies below {} is called novel ({rule}).", shown(*tau));
        if !called.is_empty() {
            text += &format!(" On the {split} that is {}.", called.join(" and "));
        }
        text
    }

    /// The false-novel and caught-novel rates to expect, and the samples they were measured on: the split that chose nothing
    /// if there was one, else the calibration samples themselves, which flatters rules that look at them closely.
    pub fn expected(&self) -> (Rates, &'static str) {
        match self.reported {
            Some(rates) => (rates, "report split"),
            None => {
                let LevelThreshold { false_novel, caught_novel, .. } = self.threshold;
                (Rates { false_novel: Some(false_novel), caught_novel }, "calibration split")
            }
        }
    }
}

/// Thresholds of one network or two, for one level of classes or two.
#[derive(Debug, Clone, PartialEq)]
pub struct ThresholdFile {
    /// How two levels are brought together.
    pub hierarchy: Hierarchy,
    /// One entry a head: the superclass before the subclass.
    pub levels: Vec<LevelEntry>,
}

impl ThresholdFile {
    /// Puts levels together.
    ///
    /// # Errors
    /// No level, a level twice, or a hierarchy that these levels do not allow.
    pub fn new(hierarchy: Hierarchy, mut levels: Vec<LevelEntry>) -> Result<ThresholdFile> {
        levels.sort_by_key(|entry| std::cmp::Reverse(entry.classes.level));
        if let Some(pair) = levels.windows(2).find(|pair| pair[0].name() == pair[1].name()) {
            return Err(Error::usage(format!(
                "two heads are of the {} level; give one model of each level, or one with both heads",
                pair[0].name()
            )));
        }
        if levels.is_empty() || (levels.len() > 1 && levels.iter().any(|entry| entry.classes.level.is_none()))
        {
            return Err(Error::usage(format!(
                "thresholds are for one head, or for a superclass and a subclass head; found {} heads",
                levels.len()
            )));
        }
        Pairing::new(hierarchy, &levels.iter().collect::<Vec<_>>())?;
        Ok(ThresholdFile { hierarchy, levels })
    }

    /// The entries that belong to a network.
    ///
    /// # Errors
    /// None does; the message has both hashes.
    pub fn entries_of(&self, trained: &Trained) -> Result<Vec<&LevelEntry>> {
        let own: Vec<&LevelEntry> =
            self.levels.iter().filter(|entry| entry.checkpoint == trained.hash).collect();
        if own.is_empty() {
            let calibrated: Vec<String> = self
                .levels
                .iter()
                .map(|entry| format!("{} for {}", entry.checkpoint, entry.name()))
                .collect();
            return Err(Error::invalid(format!(
                "these thresholds were calibrated for another checkpoint ({}) than {} ({}); give that one, or calibrate \
                 this one with `residua calibrate`",
                calibrated.join(", "),
                trained.path.display(),
                trained.hash
            )));
        }
        Ok(own)
    }

    /// Writes the table and the files beside it.
    ///
    /// # Errors
    /// The disk is full; older thresholds of the same name are then untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut fits = Vec::new();
        for entry in &self.levels {
            let detectors = entry.detectors.as_ref();
            let fit = detectors.map(|detectors| {
                place(path, entry.name(), "safetensors", |temporary| detectors.save(temporary))
            });
            fits.push(fit.transpose()?);
        }
        let scores = place(path, "calibration", "npz", |temporary| self.write_calibration(temporary))?;
        let document = Document::of(self, fits, scores);
        let text = toml::to_string(&document)
            .map_err(|e| Error::invalid(format!("cannot lay out {}: {e}", path.display())))?;
        files::write(path, text)
    }

    fn write_calibration(&self, path: &Path) -> Result<()> {
        let array = |entry: &LevelEntry| {
            let scores = entry.calibration.clone();
            let shape = vec![scores.len()];
            (entry.name(), NpyArray::from_vec(scores, Element::F64, shape))
        };
        let arrays: Vec<(&str, NpyArray)> = self.levels.iter().map(array).collect();
        let borrowed: Vec<(&str, &NpyArray)> = arrays.iter().map(|(name, array)| (*name, array)).collect();
        write_npz(path, &borrowed)
    }

    /// Reads the table and the files beside it, and checks that they belong together and make sense.
    ///
    /// # Errors
    /// Anything that is not as [`ThresholdFile::write`] leaves it: an unknown key, a number that is not finite, a file
    /// that is missing or has changed. The message names the line or the level.
    pub fn read(path: &Path) -> Result<ThresholdFile> {
        let text = files::read_text(path, LONGEST)?;
        let document = Document::parse(path, &text)?;
        let scores = path_beside(path, &document.calibration_scores)?;
        let archive = Npz::open(&scores)?;
        let mut levels = Vec::new();
        for record in document.levels {
            let name = record.name();
            let calibration = read_scores(&archive, &scores, name)?;
            let detectors = match &record.fit {
                None => None,
                Some(fit) => Some(Detectors::load(&path_beside(path, fit)?)?),
            };
            levels.push(record.into_entry(path, calibration, detectors)?);
        }
        ThresholdFile::new(document.hierarchy, levels)
            .map_err(|e| Error::malformed(path, Position::File, "levels that go together", e.to_string()))
    }
}

/// Writes a file beside the table under a name with its hash.
fn place(
    table: &Path,
    what: &str,
    extension: &str,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<FileRecord> {
    const HASH_IN_NAME: usize = 16;
    let folder = files::temporary_folder_beside(table)?;
    let temporary = folder.path().join("new");
    write(&temporary)?;
    let hash = blake3::hash(&files::map(&temporary)?).to_hex().to_string();
    let stem = table.file_stem().map_or_else(|| "thresholds".into(), |stem| stem.to_string_lossy());
    let file = format!("{stem}.{what}-{}.{extension}", &hash[..HASH_IN_NAME]);
    let destination = table.with_file_name(&file);
    std::fs::rename(&temporary, &destination).map_err(|e| Error::io("rename into place", &destination, e))?;
    Ok(FileRecord { file, hash })
}

/// The path of a file beside the table, if it is the one the table was written with.
fn path_beside(table: &Path, record: &FileRecord) -> Result<PathBuf> {
    let is_name = Path::new(&record.file).file_name().is_some_and(|name| name == record.file.as_str());
    if !is_name || record.file.contains(['/', '\\']) {
        let expected = "the name of a file in the same folder";
        return Err(Error::malformed(table, Position::Member("file".into()), expected, record.file.clone()));
    }
    let path = table.with_file_name(&record.file);
    let found = blake3::hash(&files::map(&path)?).to_hex().to_string();
    if found != record.hash {
        let expected = format!("the file that {} was written with (BLAKE3 {})", table.display(), record.hash);
        let found = format!("{found}; it was damaged or changed since: calibrate again");
        return Err(Error::malformed(&path, Position::File, expected, found));
    }
    Ok(path)
}

/// A level's calibration scores: ascending, −∞ allowed (samples that are flagged whatever the threshold).
fn read_scores(archive: &Npz, path: &Path, name: &str) -> Result<Vec<f64>> {
    let bad = |found: &str| {
        let at = Position::Member(name.to_string());
        Error::malformed(path, at, "calibration scores: f64, ascending", found)
    };
    let array = archive.array(name)?.ok_or_else(|| bad("no such array"))?;
    if array.element != Element::F64 || array.big_endian || array.shape.len() != 1 {
        return Err(bad("an array of another kind"));
    }
    let scores: Vec<f64> =
        array.elements().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let is_score = |score: &f64| score.is_finite() || *score == f64::NEG_INFINITY;
    if !scores.is_sorted() || !scores.iter().all(is_score) {
        return Err(bad("scores in another order, or no numbers"));
    }
    Ok(scores)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
