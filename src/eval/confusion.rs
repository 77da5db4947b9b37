//! The confusion matrix, and what it says of each class.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::samples::Sample;
use crate::error::{Error, Position, Result};
use crate::files;
use crate::novelty::Proportion;

/// A line a cell; a hundred thousand are two megabytes.
const LONGEST: u64 = 64 << 20;

/// Numbers of samples of each class that were predicted to be of each class; cells without one are not stored, so that
/// memory is bounded by the samples, whatever the number of classes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Confusion {
    cells: BTreeMap<(u32, u32), u64>,
}

/// How well one class is predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// The class's number.
    pub class: u32,
    /// Its name, where names are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Samples of the class.
    pub samples: u64,
    /// Samples predicted to be of it.
    pub predicted: u64,
    /// Share of the samples of the class that are predicted to be of it, with its exact 95 % bounds; absent without samples.
    pub recall: Option<Proportion>,
    /// Share of the samples predicted to be of it that are; absent where it is never predicted.
    pub precision: Option<Proportion>,
    /// Harmonic mean of both; 0 where the class is never predicted, absent without samples.
    pub f1: Option<f64>,
}

/// Samples of one class taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Their class.
    pub label: u32,
    /// The class predicted.
    pub predicted: u32,
    /// How many.
    pub count: u64,
}

/// Means over the classes that have samples, each class counted once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Macro {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

impl Confusion {
    /// Counts samples.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Confusion {
        let mut cells = BTreeMap::new();
        for sample in samples {
            *cells.entry((sample.label, sample.predicted)).or_insert(0) += 1;
        }
        Confusion { cells }
    }

    /// Reads a `confusion.csv` of `classes` classes.
    ///
    /// # Errors
    /// The file is missing, too long, or has a line that is not label, predicted class and count.
    pub fn read(path: &Path, classes: u64) -> Result<Confusion> {
        let text = files::read_text(path, LONGEST)?;
        let mut cells = BTreeMap::new();
        for (line, record) in csv::Reader::from_reader(text.as_bytes()).deserialize::<Cell>().enumerate() {
            let wrong = |found: String| {
                let expected = format!("label, predicted and count, both classes below {classes}");
                Error::malformed(path, Position::Line(line as u64 + 2), expected, found)
            };
            let cell = record.map_err(|error| wrong(error.to_string()))?;
            if u64::from(cell.label.max(cell.predicted)) >= classes {
                return Err(wrong(format!("{},{}", cell.label, cell.predicted)));
            }
            cells.insert((cell.label, cell.predicted), cell.count);
        }
        Ok(Confusion { cells })
    }

    /// The cells with samples, by label, then by predicted class.
    pub fn cells(&self) -> impl Iterator<Item = Cell> + '_ {
        self.cells.iter().map(|(&(label, predicted), &count)| Cell { label, predicted, count })
    }

    /// The most frequent confusions, at most `most`; equal ones by label.
    pub fn most_confused(&self, most: usize) -> Vec<Cell> {
        let mut wrong: Vec<Cell> = self.cells().filter(|cell| cell.label != cell.predicted).collect();
        wrong.sort_by_key(|cell| std::cmp::Reverse(cell.count));
        wrong.truncate(most);
        wrong
    }

    /// Each class of `classes`, with its name where `names` has one.
    pub fn per_class(&self, classes: usize, names: &[String]) -> Vec<ClassResult> {
        let counts = Counts::of(classes, self.cells());
        let of = |class: usize| {
            let (samples, predicted) = (counts.label[class], counts.predicted[class]);
            ClassResult {
                class: class as u32,
                name: names.get(class).cloned(),
                samples,
                predicted,
                recall: Proportion::new(counts.correct[class], samples),
                precision: Proportion::new(counts.correct[class], predicted),
                f1: (samples > 0).then(|| counts.f1(class)),
            }
        };
        (0..classes).map(of).collect()
    }
}

/// Sums of the rows and columns of a confusion matrix, and its diagonal.
pub(super) struct Counts {
    pub label: Vec<u64>,
    pub predicted: Vec<u64>,
    pub correct: Vec<u64>,
}

impl Counts {
    pub fn none(classes: usize) -> Counts {
        Counts { label: vec![0; classes], predicted: vec![0; classes], correct: vec![0; classes] }
    }

    fn of(classes: usize, cells: impl Iterator<Item = Cell>) -> Counts {
        let mut counts = Counts::none(classes);
        cells.for_each(|cell| counts.add(cell.label, cell.predicted, cell.count));
        counts
    }

    pub fn add(&mut self, label: u32, predicted: u32, times: u64) {
        self.label[label as usize] += times;
        self.predicted[predicted as usize] += times;
        self.correct[label as usize] += if label == predicted { times } else { 0 };
    }

    /// 2PR / (P + R), written with counts.
    fn f1(&self, class: usize) -> f64 {
        2.0 * self.correct[class] as f64 / (self.label[class] + self.predicted[class]).max(1) as f64
    }

    /// Means over the classes with samples; the precision of a class that is never predicted is 0 (as in scikit-learn).
    pub fn means(&self) -> Macro {
        let present: Vec<usize> = (0..self.label.len()).filter(|&class| self.label[class] > 0).collect();
        let mean = |value: &dyn Fn(usize) -> f64| {
            present.iter().map(|&class| value(class)).sum::<f64>() / present.len().max(1) as f64
        };
        let share = |class: usize, of: &[u64]| self.correct[class] as f64 / of[class].max(1) as f64;
        Macro {
            precision: mean(&|class| share(class, &self.predicted)),
            recall: mean(&|class| share(class, &self.label)),
            f1: mean(&|class| self.f1(class)),
        }
    }
}
