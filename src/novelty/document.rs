//! The keys of `thresholds.toml`, one by one. Unknown keys are errors: a misspelt one would otherwise be a default.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::choose::NEVER;
use super::decide::Hierarchy;
use super::file::{LevelEntry, Rates, ThresholdFile};
use super::proportion::Proportion;
use super::rule::Rule;
use super::samples::level_name;
use super::score::Score;
use super::threshold::LevelThreshold;
use crate::checkpoint::HeadClasses;
use crate::data::{Level, UNKNOWN_LABEL};
use crate::error::{Error, Position, Result};
use crate::ood::Detectors;

/// The version that is written; this one is read and none newer.
const VERSION: u32 = 1;

/// The whole table.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    version: u32,
    pub hierarchy: Hierarchy,
    pub calibration_scores: FileRecord,
    #[serde(rename = "level")]
    pub levels: Vec<LevelRecord>,
}

/// A file beside the table.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRecord {
    pub file: String,
    /// BLAKE3, hexadecimal.
    pub hash: String,
}

/// One level.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LevelRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    level: Option<Level>,
    checkpoint: String,
    head: String,
    score: Score,
    temperature: f64,
    rule: Rule,
    /// −∞ flags nothing.
    tau: f64,
    seen: u64,
    novel: u64,
    novel_index: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    novel_logit: Option<usize>,
    classes: Vec<String>,
    indices: Vec<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parents: Vec<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    class_taus: Vec<ClassTau>,
    on_calibration: Calibrated,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_report: Option<Rates>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<FileRecord>,
}

/// The rates on the samples that chose the threshold.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calibrated {
    false_novel: Proportion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caught_novel: Option<Proportion>,
}

/// The threshold of one predicted class.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassTau {
    class: i64,
    tau: f64,
}

impl Document {
    /// The table of thresholds whose other files have been written.
    pub fn of(file: &ThresholdFile, fits: Vec<Option<FileRecord>>, scores: FileRecord) -> Document {
        let levels = file.levels.iter().zip(fits).map(|(entry, fit)| LevelRecord::of(entry, fit)).collect();
        Document { version: VERSION, hierarchy: file.hierarchy, calibration_scores: scores, levels }
    }

    /// Reads the text of a table.
    ///
    /// # Errors
    /// With the line.
    pub fn parse(path: &Path, text: &str) -> Result<Document> {
        /// The key that every version begins with.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if let Ok(Versioned { version }) = toml::from_str(text)
            && !(1..=VERSION).contains(&version)
        {
            let expected = format!("thresholds of version {VERSION}");
            let found = format!("version {version}; if a newer residua wrote them, use that one");
            return Err(Error::malformed(path, Position::Member("version".into()), expected, found));
        }
        toml::from_str(text).map_err(|e| {
            let end = e.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count();
            Error::malformed(
                path,
                Position::Line(line as u64),
                "thresholds as calibrate writes them",
                e.message(),
            )
        })
    }
}

impl LevelRecord {
    fn of(entry: &LevelEntry, fit: Option<FileRecord>) -> LevelRecord {
        let LevelEntry {
            checkpoint, classes, parents, novel_index, temperature, threshold, reported, ..
        } = entry;
        LevelRecord {
            level: classes.level,
            checkpoint: checkpoint.clone(),
            head: classes.name.clone(),
            score: threshold.score,
            temperature: *temperature,
            rule: threshold.rule,
            tau: threshold.tau,
            seen: threshold.seen,
            novel: threshold.novel,
            novel_index: *novel_index,
            novel_logit: classes.novel,
            classes: classes.classes.clone(),
            indices: classes.indices.clone(),
            parents: parents.clone(),
            class_taus: threshold
                .class_taus
                .iter()
                .map(|(class, tau)| ClassTau { class: *class, tau: *tau })
                .collect(),
            on_calibration: Calibrated {
                false_novel: threshold.false_novel,
                caught_novel: threshold.caught_novel,
            },
            on_report: *reported,
            fit,
        }
    }

    /// The name of the level.
    pub fn name(&self) -> &'static str {
        level_name(self.level)
    }

    /// The entry, if everything in it makes sense together.
    pub fn into_entry(
        self,
        path: &Path,
        calibration: Vec<f64>,
        detectors: Option<Detectors>,
    ) -> Result<LevelEntry> {
        let name = self.name();
        let check = |holds: bool, expected: &str, found: String| {
            if holds {
                return Ok(());
            }
            Err(Error::malformed(path, Position::Member(format!("level {name}")), expected, found))
        };
        let logits = self.classes.len();
        check(self.level != Some(Level::Both), "the level superclass or subclass, or none", "both".into())?;
        check(
            logits > 0 && self.indices.len() == logits,
            "a name and an index for each logit",
            format!("{logits} classes, {} indices", self.indices.len()),
        )?;
        check(
            self.parents.is_empty() || self.parents.len() == logits,
            "a parent for each logit, or none at all",
            format!("{} parents for {logits} classes", self.parents.len()),
        )?;
        let mut distinct = self.indices.clone();
        distinct.sort_unstable();
        distinct.dedup();
        check(
            distinct.len() == logits && distinct[0] >= 0,
            "a different index from 0 on for each class",
            format!("{:?}", self.indices),
        )?;
        check(
            self.parents.iter().all(|parent| *parent >= UNKNOWN_LABEL),
            "parents from 0 on, or -1",
            format!("{:?}", self.parents),
        )?;
        check(
            self.novel_logit.is_none_or(|novel| novel < logits && logits > 1),
            "a novel_logit below the number of classes",
            format!("{:?} of {logits}", self.novel_logit),
        )?;
        check(self.novel_index >= UNKNOWN_LABEL, "a novel_index from -1 on", self.novel_index.to_string())?;
        check(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "a positive temperature",
            self.temperature.to_string(),
        )?;
        check(
            self.tau.is_finite() || self.tau == NEVER,
            "a tau that is a finite number, or -inf, which flags nothing",
            self.tau.to_string(),
        )?;
        for ClassTau { class, tau } in &self.class_taus {
            let known = self.indices.contains(class) && tau.is_finite();
            check(known, "finite class_taus of the level's classes", format!("tau {tau} of class {class}"))?;
        }
        check(
            self.seen == calibration.len() as u64,
            "as many calibration scores as `seen` says",
            format!("{} for {}", calibration.len(), self.seen),
        )?;
        check(
            self.fit.is_some() == self.score.needs_fit(),
            "a fit where the score is fitted and none elsewhere",
            format!("score {}", self.score),
        )?;
        let reported = self.on_report.unwrap_or_default();
        let rates = [reported.false_novel, reported.caught_novel, self.on_calibration.caught_novel];
        for rate in rates.into_iter().flatten().chain([self.on_calibration.false_novel]) {
            check(rate.is_consistent(), "a rate and the bounds of its count", format!("{rate:?}"))?;
        }
        let of = |rate: Option<Proportion>| rate.map_or(0, |rate| rate.of);
        let Calibrated { false_novel, caught_novel } = self.on_calibration;
        check(
            false_novel.of == self.seen && of(caught_novel) == self.novel,
            "on_calibration rates of all `seen` and `novel` samples",
            format!("{} and {}", false_novel.of, of(caught_novel)),
        )?;
        let classes = HeadClasses {
            name: self.head,
            level: self.level,
            classes: self.classes,
            indices: self.indices,
            novel: self.novel_logit,
        };
        Ok(LevelEntry {
            checkpoint: self.checkpoint,
            classes,
            parents: self.parents,
            novel_index: self.novel_index,
            temperature: self.temperature,
            threshold: LevelThreshold {
                score: self.score,
                rule: self.rule,
                tau: self.tau,
                class_taus: self.class_taus.iter().map(|own| (own.class, own.tau)).collect(),
                seen: self.seen,
                novel: self.novel,
                false_novel,
                caught_novel,
            },
            reported: self.on_report,
            calibration,
            detectors,
        })
    }
}
