//! Collapse over training: one row per checkpoint, each measured on its own features and its own classifier.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::measure::{Options, Subject, measure_on};
use super::row::{CollapseReport, Skipped, write_cosines};
use crate::checkpoint::CheckpointRef;
use crate::error::{Error, Result};
use crate::files;
use crate::ood::Compute;

/// A checkpoint to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// File or folder.
    pub path: PathBuf,
    /// Epoch stored in it, where known.
    pub epoch: Option<u64>,
}

impl Checkpoint {
    /// The name shown in tables: the last part of the path.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(|| self.path.display().to_string(), |n| n.to_string_lossy().into_owned())
    }
}

impl From<CheckpointRef> for Checkpoint {
    fn from(found: CheckpointRef) -> Checkpoint {
        Checkpoint { path: found.path, epoch: found.epoch }
    }
}

/// The rows of a series and the cosines of its last checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CollapseSeries {
    /// The content of `collapse.json`.
    pub report: CollapseReport,
    /// Cosines between the centred class means of the last checkpoint measured, row-major, C x C.
    pub cosines: Vec<f64>,
}

impl CollapseSeries {
    /// Writes `collapse.json`, `collapse.csv` and `cosines.npy` into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.report.write_json(&folder.join("collapse.json"))?;
        self.report.write_csv(&folder.join("collapse.csv"))?;
        match self.report.checkpoints.last() {
            Some(last) => write_cosines(&self.cosines, last.classes, &folder.join("cosines.npy")),
            None => Ok(()),
        }
    }
}

/// Measures checkpoints in the order of their epochs (those without one last, then by name with numbers in order).
///
/// `extract` makes the caches of one checkpoint: its training features, its classifier and its OOD features, so that
/// no row can mix two checkpoints. It is called once per checkpoint; the caches are dropped before the next call.
/// Class sums and scatter are computed where `compute` says. `measured` is called after each checkpoint with the number done, for progress.
///
/// # Errors
/// With `skip_failures`, a checkpoint that fails is noted in the report, and only a series without any row is an
/// error; without, the first failure is, with the checkpoint's name.
pub fn over_checkpoints(
    compute: &mut dyn Compute,
    mut checkpoints: Vec<Checkpoint>,
    options: &Options,
    skip_failures: bool,
    mut extract: impl FnMut(&Checkpoint) -> Result<Subject>,
    mut measured: impl FnMut(usize),
) -> Result<CollapseSeries> {
    if checkpoints.is_empty() {
        return Err(Error::invalid("there is no checkpoint to measure"));
    }
    checkpoints.sort_by(|a, b| {
        let epoch = |c: &Checkpoint| (c.epoch.is_none(), c.epoch);
        let names = files::compare_naturally(&a.name(), &b.name());
        epoch(a).cmp(&epoch(b)).then(names).then_with(|| a.path.cmp(&b.path))
    });
    let mut series = CollapseSeries::default();
    series.report.global_mean = options.global_mean;
    for (done, checkpoint) in checkpoints.iter().enumerate() {
        match extract(checkpoint).and_then(|subject| measure_on(compute, &subject, options)) {
            Ok(mut measurement) => {
                measurement.row.checkpoint = checkpoint.name();
                measurement.row.epoch = checkpoint.epoch;
                series.report.note(&checkpoint.name(), measurement.warnings);
                series.report.checkpoints.push(measurement.row);
                series.cosines = measurement.cosines;
            }
            Err(Error::Interrupted(text)) => return Err(Error::Interrupted(text)),
            Err(error) if skip_failures => series.report.skipped.push(Skipped {
                checkpoint: checkpoint.path.display().to_string(),
                reason: error.to_string(),
            }),
            Err(error) => {
                return Err(Error::invalid(format!("checkpoint {}: {error}", checkpoint.path.display())));
            }
        }
        measured(done + 1);
    }
    match (series.report.checkpoints.is_empty(), series.report.skipped.first()) {
        (true, Some(first)) => Err(Error::invalid(format!(
            "none of {} checkpoints could be measured; the first, {}: {}",
            checkpoints.len(),
            first.checkpoint,
            first.reason
        ))),
        _ => Ok(series),
    }
}

/// The paths that patterns match, each file once: `last` and `best` are links to checkpoints that a pattern may have
/// matched already under their own names.
///
/// # Errors
/// When a pattern is malformed, matches nothing, or a folder on its way cannot be read.
pub fn expand_globs(patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let before = found.len();
        // A path that exists is itself, whatever brackets its name holds.
        if Path::new(pattern).exists() {
            found.push(pattern.into());
            continue;
        }
        let matches = glob::glob(pattern)
            .map_err(|e| Error::usage(format!("`{pattern}` is not a pattern: {e} (position {})", e.pos)))?;
        for path in matches {
            found
                .push(path.map_err(|e| Error::io("read", e.path(), std::io::Error::from(e.error().kind())))?);
        }
        if found.len() == before {
            return Err(Error::invalid(format!(
                "nothing matches `{pattern}`; check the path and quote the pattern"
            )));
        }
    }
    // Real names before links, so that a link adds nothing where its target was matched too.
    found.sort_by_key(|path| path.is_symlink());
    let mut seen = HashSet::new();
    found.retain(|path| seen.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    found.sort_by(|a, b| files::compare_naturally(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collapse::measure;
    use crate::features::{FeatureSet, Head, Matrix};
    use crate::ood::OnCpu;

    /// Two classes at ±(1, slope); the classifier looks along the first axis, turned by `turn`.
    fn subject(slope: f32, turn: f64) -> Subject {
        let set = |features: Vec<f32>, labels: Option<Vec<i64>>| {
            FeatureSet::from_parts("test", Matrix::from_f32(features, 2, "features").unwrap(), None, labels)
                .unwrap()
        };
        let train = vec![1.0, slope, 1.5, slope, -1.0, -slope, -1.5, -slope];
        let (sin, cos) = turn.sin_cos();
        Subject {
            train: set(train, Some(vec![0, 0, 1, 1])),
            test: None,
            head: Head::new(vec![cos, sin, -cos, -sin], vec![0.0; 2], 2).unwrap(),
            ood: vec![("far".into(), set(vec![0.0, 1.0 + slope], None))],
            notes: Vec::new(),
        }
    }

    fn checkpoint(name: &str, epoch: Option<u64>) -> Checkpoint {
        Checkpoint { path: name.into(), epoch }
    }

    #[test]
    fn rows_come_in_order_of_epochs_then_of_numbers_in_names() {
        let given = vec![
            checkpoint("x_10", None),
            checkpoint("c", Some(200)),
            checkpoint("x_9", None),
            checkpoint("b", Some(30)),
        ];
        let series = over_checkpoints(
            &mut OnCpu,
            given,
            &Options::default(),
            false,
            |_| Ok(subject(0.0, 0.1)),
            |_| (),
        )
        .unwrap();
        let names: Vec<&str> = series.report.checkpoints.iter().map(|row| row.checkpoint.as_str()).collect();
        assert_eq!(names, ["b", "c", "x_9", "x_10"]);
    }

    #[test]
    fn each_checkpoint_is_measured_with_its_own_classifier_and_ood_features() {
        // Features and classifier turn together from one checkpoint to the next: each is aligned with its own
        // classifier, and would be far from aligned with that of the other.
        let angle = |epoch: u64| epoch as f64 * 0.4;
        let make = |c: &Checkpoint| {
            let epoch = c.epoch.unwrap();
            let slope = (1.25 * angle(epoch).tan()) as f32;
            Ok(subject(slope, angle(epoch)))
        };
        let given = vec![checkpoint("b", Some(2)), checkpoint("a", Some(1))];
        let series = over_checkpoints(&mut OnCpu, given, &Options::default(), false, make, |_| ()).unwrap();
        for row in &series.report.checkpoints {
            assert!(row.nc3 < 1e-6, "{row:?}");
            // The OOD mean lies along the second axis.
            assert!((row.nc5.unwrap() - angle(row.epoch.unwrap()).sin()).abs() < 1e-6, "{row:?}");
        }
        let mut mixed = make(&checkpoint("a", Some(1))).unwrap();
        mixed.head = make(&checkpoint("b", Some(2))).unwrap().head;
        assert!(measure(&mixed, &Options::default()).unwrap().row.nc3 > 0.3);
        assert_eq!(series.cosines.len(), 4);
    }

    #[test]
    fn a_failing_checkpoint_is_named_or_skipped_with_a_note() {
        let given = || vec![checkpoint("good", Some(1)), checkpoint("bad", Some(2))];
        let make = |c: &Checkpoint| match c.name().as_str() {
            "bad" => Err(Error::invalid("truncated")),
            _ => Ok(subject(0.0, 0.0)),
        };
        let options = Options::default();
        let message =
            over_checkpoints(&mut OnCpu, given(), &options, false, make, |_| ()).unwrap_err().to_string();
        assert_eq!(message, "checkpoint bad: truncated");
        let mut done = Vec::new();
        let series = over_checkpoints(&mut OnCpu, given(), &options, true, make, |n| done.push(n)).unwrap();
        assert_eq!(
            (series.report.checkpoints.len(), series.report.skipped[0].reason.as_str()),
            (1, "truncated")
        );
        assert_eq!(done, [1, 2]);
        let all_bad = vec![checkpoint("bad", None)];
        let message =
            over_checkpoints(&mut OnCpu, all_bad, &options, true, make, |_| ()).unwrap_err().to_string();
        assert!(message.contains("none of 1 checkpoints") && message.contains("truncated"), "{message}");
        assert!(over_checkpoints(&mut OnCpu, vec![], &options, true, make, |_| ()).is_err());
    }

    #[test]
    fn globs_give_each_checkpoint_once_in_natural_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["epoch_9", "epoch_10", "notes[1]"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("epoch_10", folder.path().join("best")).unwrap();
        let pattern = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let names = |patterns: &[String]| -> Vec<String> {
            let paths = expand_globs(patterns).unwrap();
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(&[pattern("*")]), ["epoch_9", "epoch_10", "notes[1]"]);
        assert_eq!(names(&[pattern("notes[1]"), pattern("epoch_?")]), ["epoch_9", "notes[1]"]);
        let message = expand_globs(&[pattern("none_*")]).unwrap_err().to_string();
        assert!(message.contains("nothing matches"), "{message}");
        assert_eq!(expand_globs(&["a/***".into()]).unwrap_err().exit_code(), 2);
    }
}
