//! `metrics.jsonl`: one JSON object a line, appended as training goes; a resume first cuts it to its checkpoint's step.
//! The same numbers go to a TensorBoard event file beside it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Position, Result};
use crate::files;
use crate::report::events::EventFile;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Steps done.
    pub step: u64,
    /// Epochs done; fractional within an epoch.
    pub epoch: f64,
    /// `train`, `val` or `test`.
    pub split: String,
    /// `step` for a line about recent steps, `epoch` for one about a whole epoch or evaluation.
    pub scope: Scope,
    /// The loss of training, of an evaluation the cross-entropy (of several heads their sum); every sample counts the
    /// same.
    pub loss: f64,
    /// Share of samples whose prediction is their class; of several heads the mean of their shares.
    pub accuracy: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Images per second since the last line of this kind.
    pub images_per_second: f64,
    /// Of several heads or terms of the loss, each by itself: `superclass_accuracy`, `kl_loss`, …
    #[serde(flatten)]
    pub further: BTreeMap<String, f64>,
}

/// The span of training that a line of the log covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The steps since the last such line.
    Step,
    /// An epoch, or a pass over a validation set.
    Epoch,
}

/// The open log.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
    events: EventFile,
}

impl MetricsLog {
    /// Starts an empty log.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path) -> Result<MetricsLog> {
        let file = File::create(path).map_err(|e| Error::io("create", path, e))?;
        Ok(MetricsLog {
            file,
            path: path.to_path_buf(),
            events: EventFile::create(files::parent(path), None)?,
        })
    }

    /// Opens a log to go on behind step `step`: later lines, and a half-written last one, are dropped.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn resume(path: &Path, step: u64) -> Result<MetricsLog> {
        let kept: Vec<Metrics> = match files::open(path) {
            Ok(_) => read_lenient(path)?.into_iter().filter(|metrics| metrics.step <= step).collect(),
            Err(_) => Vec::new(),
        };
        files::write_atomically(path, |out| {
            kept.iter().try_for_each(|metrics| writeln!(out, "{}", serde_json::to_string(metrics)?))
        })?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| Error::io("open", path, e))?;
        let events = EventFile::create(files::parent(path), Some(step + 1))?;
        Ok(MetricsLog { file, path: path.to_path_buf(), events })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// The disk is full.
    pub fn append(&mut self, metrics: &Metrics) -> Result<()> {
        let line = serde_json::to_string(metrics).expect("metrics are plain numbers") + "\n";
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io("append to", &self.path, e))?;
        let scope = if metrics.scope == Scope::Step { "_step" } else { "" };
        let (split, step) = (&metrics.split, metrics.step);
        self.events.scalar(step, &format!("{split}/loss{scope}"), metrics.loss)?;
        self.events.scalar(step, &format!("{split}/accuracy{scope}"), metrics.accuracy)?;
        self.events.scalar(step, &format!("{split}/images_per_second{scope}"), metrics.images_per_second)?;
        for (name, value) in &metrics.further {
            self.events.scalar(step, &format!("{split}/{name}{scope}"), *value)?;
        }
        if metrics.split == "train" {
            self.events.scalar(step, &format!("train/learning_rate{scope}"), metrics.lr)?;
        }
        self.events.flush()
    }

    /// Adds a histogram of some values to the event file.
    ///
    /// # Errors
    /// The disk is full.
    pub fn histogram(&mut self, step: u64, name: &str, values: &[f32]) -> Result<()> {
        self.events.histogram(step, name, values)
    }
}

/// Reads a log; a line that is not one (the last, when a process died writing it) is left out.
fn read_lenient(path: &Path) -> Result<Vec<Metrics>> {
    let lines = BufReader::new(files::open(path)?).lines();
    let parsed = lines.map_while(|line| line.ok()).filter_map(|line| serde_json::from_str(&line).ok());
    Ok(parsed.collect())
}

/// Reads a log.
///
/// # Errors
/// A line that is not a metrics object, by its number.
pub fn read_metrics(path: &Path) -> Result<Vec<Metrics>> {
    const LARGEST_LOG: u64 = 1 << 30;
    let text = files::read_text(path, LARGEST_LOG)?;
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            Error::malformed(path, Position::Line(index as u64 + 1), "a metrics object", e.to_string())
        })
    };
    text.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> Metrics {
        Metrics {
            step,
            epoch: step as f64 / 10.0,
            split: "train".into(),
            scope: Scope::Step,
            loss: 2.0 / step as f64,
            accuracy: 0.5,
            lr: 0.1,
            images_per_second: 100.0,
            further: BTreeMap::new(),
        }
    }

    #[test]
    fn a_resume_cuts_the_log_to_its_step_and_drops_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        (1..=5).for_each(|step| log.append(&line(step)).unwrap());
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"step\": 6, \"epo")
            .unwrap();
        let mut log = MetricsLog::resume(&path, 3).unwrap();
        log.append(&line(4)).unwrap();
        let steps: Vec<u64> = read_metrics(&path).unwrap().iter().map(|metrics| metrics.step).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }

    #[test]
    fn further_numbers_stand_in_the_line_by_their_names() {
        let further = BTreeMap::from([("kl_loss".to_string(), 0.25)]);
        let line = Metrics { further, ..line(2) };
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.ends_with(r#""images_per_second":100.0,"kl_loss":0.25}"#), "{text}");
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), line);
    }
}
