//! The content of a run folder, read with bounds. Every part is optional; a part that is there must be sound.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::eval::Labelled;
use super::novelty::Novelty;
use super::plots::{CollapseRow, TrainingPoint};
use super::samples::{self, KeptSamples};
use crate::checkpoint;
use crate::error::{Error, Position, Result};
use crate::eval::EVAL_FILE;
use crate::features::{Element, Matrix, NpyArray, Npz};
use crate::files;
use crate::novelty::ThresholdFile;
use crate::ood::table::Evaluation;
use crate::train::{RUN_FILE, RunRecord};

/// A recipe is a page of text.
const LARGEST_RECIPE: u64 = 1 << 20;
/// A line a step for a million steps is about 150 MB.
const LARGEST_LOG: u64 = 256 << 20;
/// One row of numbers a checkpoint.
const LARGEST_COLLAPSE: u64 = 64 << 20;
/// The longest line of a log or name that makes sense.
const LONGEST_NAME: usize = 200;

/// The parts of a run folder that a report shows.
pub(super) struct Run {
    /// Where the evaluation and its scores lie.
    pub(super) ood: PathBuf,
    pub(super) recipe: Option<Recipe>,
    pub(super) training: Vec<TrainingPoint>,
    /// Median over the log's lines.
    pub(super) images_per_second: Option<f64>,
    /// Device and time of the training.
    pub(super) record: Option<RunRecord>,
    pub(super) evaluation: Option<Evaluation>,
    /// Results on labelled data, a head each.
    pub(super) labelled: Vec<Labelled>,
    /// Samples to look at.
    pub(super) samples: Vec<KeptSamples>,
    pub(super) collapse: CollapseFile,
    pub(super) cosines: Option<Cosines>,
    pub(super) novelty: Option<Novelty>,
    pub(super) thresholds: Option<ThresholdFile>,
}

/// The resolved recipe: its text, and the keys that a headline names.
pub(super) struct Recipe {
    pub(super) text: String,
    pub(super) table: toml::Table,
}

/// Cosines between the centred class means of the last checkpoint.
pub(super) struct Cosines {
    pub(super) classes: usize,
    /// Their names, where the run's checkpoint says them.
    pub(super) names: Vec<String>,
    /// `classes` x `classes`, row-major.
    pub(super) values: Vec<f64>,
}

/// One line of `collapse.json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct CheckpointRow {
    #[serde(default)]
    pub(super) checkpoint: String,
    pub(super) epoch: Option<f64>,
    nc1: Option<f64>,
    nc2_equinorm: Option<f64>,
    nc2_equiangular: Option<f64>,
    nc3: Option<f64>,
    nc4: Option<f64>,
    nc5: Option<f64>,
}

impl CheckpointRow {
    /// For drawing; a checkpoint without an epoch stands at its place in the list, from 1.
    pub(super) fn curves(&self, index: usize) -> CollapseRow {
        CollapseRow {
            epoch: self.epoch.unwrap_or(index as f64 + 1.0),
            nc1: self.nc1,
            nc2_equinorm: self.nc2_equinorm,
            nc2_equiangular: self.nc2_equiangular,
            nc3: self.nc3,
            nc4: self.nc4,
            nc5: self.nc5,
        }
    }

    /// NC1, NC2 (equinorm, equiangular), NC3, NC4, NC5.
    pub(super) fn measures(&self) -> [Option<f64>; 6] {
        [self.nc1, self.nc2_equinorm, self.nc2_equiangular, self.nc3, self.nc4, self.nc5]
    }
}

#[derive(Default, Deserialize)]
pub(super) struct CollapseFile {
    pub(super) checkpoints: Vec<CheckpointRow>,
    #[serde(default)]
    pub(super) skipped: Vec<SkippedCheckpoint>,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
}

/// A checkpoint that could not be measured.
#[derive(Deserialize)]
pub(super) struct SkippedCheckpoint {
    pub(super) checkpoint: String,
    pub(super) reason: String,
}

/// One line of `metrics.jsonl`; keys it does not know are another version's business.
#[derive(Deserialize)]
struct LogLine {
    step: Option<f64>,
    epoch: Option<f64>,
    split: String,
    #[serde(default)]
    scope: Option<String>,
    loss: Option<f64>,
    accuracy: Option<f64>,
    lr: Option<f64>,
    images_per_second: Option<f64>,
}

/// A training's log, as far as a page shows it.
#[derive(Default)]
pub(super) struct Log {
    pub(super) points: Vec<TrainingPoint>,
    /// Median over the lines on steps of the training, or on its epochs where no steps were logged.
    pub(super) images_per_second: Option<f64>,
}

impl Run {
    /// Reads everything but the scores, which are read one by one when they are drawn.
    ///
    /// # Errors
    /// The folder is missing or holds nothing to report; or a file in it is damaged, and the message names it.
    pub(super) fn read(folder: &Path) -> Result<Run> {
        if !folder.is_dir() {
            return Err(Error::invalid(format!(
                "{} is not a folder; give the folder that `residua run` or `residua train --out` wrote",
                folder.display()
            )));
        }
        // Output of `ood --out` and `collapse --out` is a part of a run, or all there is of one.
        let part = |name: &str, file: &str| {
            let inside = folder.join(name);
            if !inside.join(file).exists() && folder.join(file).exists() {
                folder.to_path_buf()
            } else {
                inside
            }
        };
        let (ood, collapse) = (part("ood", "metrics.json"), part("collapse", "collapse.json"));
        let log = optional(&folder.join("metrics.jsonl"), read_log)?.unwrap_or_default();
        let run = Run {
            ood: ood.clone(),
            recipe: optional(&folder.join("recipe.toml"), read_recipe)?,
            training: log.points,
            images_per_second: log.images_per_second,
            record: optional(&folder.join(RUN_FILE), RunRecord::read)?,
            evaluation: optional(&ood.join("metrics.json"), Evaluation::read_json)?,
            labelled: Labelled::read(&part("eval", EVAL_FILE))?,
            samples: samples::read(folder, &ood)?,
            collapse: optional(&collapse.join("collapse.json"), read_collapse)?.unwrap_or_default(),
            cosines: optional(&collapse.join("cosines.npy"), |path| read_cosines(path, class_names(folder)))?,
            novelty: Novelty::read(folder)?,
            thresholds: optional(&folder.join("thresholds.toml"), ThresholdFile::read)?,
        };
        let empty = run.training.is_empty()
            && run.evaluation.is_none()
            && run.collapse.checkpoints.is_empty()
            && run.labelled.is_empty()
            && run.novelty.is_none();
        if empty && run.recipe.is_none() && run.cosines.is_none() {
            return Err(Error::invalid(format!(
                "{} holds nothing to report: neither recipe.toml, metrics.jsonl, eval/eval.json, ood/metrics.json, collapse/collapse.json nor \
                 folders seed_0, seed_1, … of runs; is it the folder of a run?",
                folder.display()
            )));
        }
        Ok(run)
    }

    /// The recipe's name, if it has one.
    pub(super) fn name(&self) -> Option<String> {
        let named = self.recipe.as_ref()?.table.get("name")?.as_str()?;
        (!named.is_empty()).then(|| named.to_string())
    }

    /// Whether the name of a set can be that of a file in a folder.
    pub(super) fn is_plain_name(set: &str) -> bool {
        !set.is_empty()
            && set.len() <= LONGEST_NAME
            && !set.starts_with('.')
            && !set.contains(['/', '\\', '\0', ':'])
    }

    /// The scores of the ID set (`id`) or an OOD set; `None` if the run kept none.
    ///
    /// # Errors
    /// The name is not a plain file name, or the archive is damaged.
    pub(super) fn scores(&self, dataset: &str) -> Result<Option<Scores>> {
        if !Run::is_plain_name(dataset) {
            return Err(Error::malformed(
                self.ood.join("metrics.json"),
                Position::Member("ood".to_string()),
                "data-set names that can be file names",
                format!("`{dataset}`"),
            ));
        }
        Scores::open(&self.ood.join("scores").join(format!("{dataset}.npz")))
    }
}

/// The scores of one data set: an array a method.
pub(super) struct Scores {
    archive: Npz,
    path: PathBuf,
}

impl Scores {
    /// Opens the scores of a set; `None` where there are none.
    ///
    /// # Errors
    /// The archive is damaged.
    pub(super) fn open(path: &Path) -> Result<Option<Scores>> {
        optional(path, |path| Ok(Scores { archive: Npz::open(path)?, path: path.to_path_buf() }))
    }

    /// The scores of one method; `None` if it is not there.
    ///
    /// # Errors
    /// The array is damaged, has no dimension of samples only, or holds a number that is not finite.
    pub(super) fn of(&self, method: &str) -> Result<Option<Vec<f64>>> {
        let Some(mut array) = self.archive.array(method)? else { return Ok(None) };
        if array.shape.len() != 1 || !matches!(array.element, Element::F32 | Element::F64) {
            let expected = "one floating-point number a sample";
            let found = format!("an array of shape {:?}", array.shape);
            return Err(Error::malformed(&self.path, Position::Member(method.to_string()), expected, found));
        }
        array.shape.push(1);
        let column = Matrix::new(array, &self.path, method)?;
        let mut values = Vec::new();
        column.read_f64(0..column.rows(), &mut values);
        Ok(Some(values))
    }
}

/// Reads a file if it is there; a link that leads nowhere is not there.
fn optional<T>(path: &Path, read: impl FnOnce(&Path) -> Result<T>) -> Result<Option<T>> {
    if path.exists() { read(path).map(Some) } else { Ok(None) }
}

fn read_recipe(path: &Path) -> Result<Recipe> {
    let text = files::read_text(path, LARGEST_RECIPE)?;
    let table = text.parse::<toml::Table>().map_err(|error| {
        let line =
            error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        Error::malformed(path, Position::Line(line as u64), "a recipe in TOML", error.message())
    })?;
    Ok(Recipe { text, table })
}

pub(super) fn read_log(path: &Path) -> Result<Log> {
    let text = files::read_text(path, LARGEST_LOG)?;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parsed: LogLine = serde_json::from_str(line).map_err(|error| {
            Error::malformed(
                path,
                Position::Line(index as u64 + 1),
                "one JSON object a line with epoch, split, loss, accuracy",
                error.to_string(),
            )
        })?;
        lines.push(parsed);
    }
    Ok(Log { points: training_points(&lines), images_per_second: speed(&lines) })
}

/// Images per second of training: the median over lines on steps, or on epochs where there is none on steps.
fn speed(lines: &[LogLine]) -> Option<f64> {
    let of = |is_epoch: bool| {
        let lines = lines.iter().filter(|line| line.split == "train");
        let lines = lines.filter(|line| (line.scope.as_deref() != Some("step")) == is_epoch);
        let speeds = lines.filter_map(|line| line.images_per_second).filter(|speed| speed.is_finite());
        speeds.collect::<Vec<f64>>()
    };
    median(of(false)).or_else(|| median(of(true)))
}

/// The middle value, of two the mean; `None` of nothing.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(values[low] / 2.0 + values[high] / 2.0)
}

/// The lines to draw. Where a split has lines about whole epochs, those about single steps are left out; a line
/// without an epoch is placed by its step.
fn training_points(lines: &[LogLine]) -> Vec<TrainingPoint> {
    let whole = |line: &LogLine| line.scope.as_deref() == Some("epoch");
    let epochs_of = |split: &str| lines.iter().filter(|line| line.split == split && whole(line)).count();
    let enough = ["train", "val", "test"].map(|split| (split, epochs_of(split) >= 2));
    let drawn = |line: &LogLine| whole(line) || !enough.contains(&(line.split.as_str(), true));
    lines
        .iter()
        .enumerate()
        .filter(|(_, line)| drawn(line))
        .map(|(index, line)| TrainingPoint {
            epoch: line.epoch.or(line.step).unwrap_or(index as f64),
            split: line.split.clone(),
            loss: line.loss,
            accuracy: line.accuracy,
            learning_rate: line.lr,
        })
        .collect()
}

fn read_collapse(path: &Path) -> Result<CollapseFile> {
    let expected =
        "neural-collapse measures (`{\"checkpoints\": [{\"checkpoint\", \"epoch\", \"nc1\", …}]}`)";
    files::read_json(path, LARGEST_COLLAPSE, expected)
}

/// Names of the classes of the first head of a run's last checkpoint; nothing where there is none that can be read, which
/// other verbs report.
fn class_names(folder: &Path) -> Vec<String> {
    let meta = checkpoint::resolve(folder).and_then(|last| checkpoint::read_meta(&last));
    meta.map_or_else(
        |_| Vec::new(),
        |meta| meta.heads.into_iter().next().map_or(meta.classes, |head| head.classes),
    )
}

fn read_cosines(path: &Path, names: Vec<String>) -> Result<Cosines> {
    let bytes = std::sync::Arc::new(files::map(path)?);
    let matrix = Matrix::new(NpyArray::parse(bytes, 0, path, None)?, path, "cosines")?;
    if matrix.rows() != matrix.columns() {
        let found = format!("{} rows of {}", matrix.rows(), matrix.columns());
        return Err(Error::malformed(path, Position::File, "a square matrix, class by class", found));
    }
    let mut values = Vec::new();
    matrix.read_f64(0..matrix.rows(), &mut values);
    Ok(Cosines { classes: matrix.rows(), names, values })
}
