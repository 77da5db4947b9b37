//! Attributes of passes over many rows of features, from which scores and statistics of many samples are made.
//!
//! Features are f32, labels i32; everything computed from them is f64, summed up in a fixed order, whatever the working type.
//! Fitted values (means, bases, whitening maps) are passed as f64. Matrices are row-major.

use serde::{Deserialize, Serialize};

use super::extents::{Attributes, cut, positive, senseless};
use crate::error::{Error, Result};

/// Logits of many samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogitScores {
    /// Samples.
    pub rows: usize,
    /// Classes.
    pub classes: usize,
    /// The temperature that divides logits before their softmax.
    pub temperature: f64,
    /// Whether the logits of a row are multiplied by a number of the row.
    pub scaled: bool,
    /// Whether a bias is added to them.
    pub biased: bool,
    /// Whether the deviation from equal probabilities is wanted.
    pub deviation: bool,
}

/// Rows that are prepared, `(x - shift) / divisor`, and then projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Projection {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Coordinates.
    pub outputs: usize,
    /// Whether something is subtracted from every row.
    pub shift: bool,
    /// Whether every row is divided by something.
    pub divisor: bool,
}

/// Rows that are prepared, `(x - shift) / divisor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PreparedRows {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Whether something is subtracted from every row.
    pub shift: bool,
    /// Whether every row is divided by something.
    pub divisor: bool,
}

/// Norms of rows, from below.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InverseNorms {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Added to every norm.
    pub floor: f64,
}

/// Rows, and points that each is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nearest {
    /// Samples.
    pub rows: usize,
    /// Features or coordinates of a sample and of a point.
    pub columns: usize,
    /// Points.
    pub points: usize,
    /// The neighbour whose distance is wanted: the nearest is number 1.
    pub k: usize,
}

/// Labelled rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Labelled {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Classes; every label is one of them.
    pub classes: usize,
}

/// The scatter of labelled rows about their class means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scatter {
    /// The rows.
    pub labelled: Labelled,
    /// Runs of rows that are summed up side by side.
    pub slices: usize,
}

impl Attributes for LogitScores {
    fn make_sense(&self) -> bool {
        positive([self.rows, self.classes]) && self.temperature > 0.0
    }

    fn shape(&self) -> String {
        let LogitScores { rows, classes, scaled, biased, deviation, .. } = *self;
        let words = [(scaled, "-scaled"), (biased, "-biased"), (deviation, "-deviation")];
        let words: String = words.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| *word).collect();
        format!("{rows}x{classes}{words}")
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.rows, self.classes, elements);
    }
}

impl Attributes for Projection {
    fn make_sense(&self) -> bool {
        positive([self.rows, self.columns, self.outputs])
    }

    fn shape(&self) -> String {
        format!("{}x{}-k{}", self.rows, self.columns, self.outputs)
    }

    fn flop(&self) -> f64 {
        2.0 * (self.rows * self.columns * self.outputs) as f64
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.rows, self.columns.max(self.outputs), elements);
    }
}

impl Attributes for PreparedRows {
    fn make_sense(&self) -> bool {
        positive([self.rows, self.columns])
    }

    fn shape(&self) -> String {
        format!("{}x{}", self.rows, self.columns)
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.rows, self.columns, elements);
    }
}

impl Attributes for InverseNorms {
    fn make_sense(&self) -> bool {
        positive([self.rows, self.columns])
    }

    fn shape(&self) -> String {
        format!("{}x{}", self.rows, self.columns)
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.rows, self.columns, elements);
    }
}

impl Attributes for Nearest {
    fn check(&self) -> Result<()> {
        let Nearest { points, k, .. } = *self;
        if k == 0 || k > points {
            return Err(Error::invalid(format!(
                "neighbour number {k} of {points} points is wanted; k counts from 1 and ends at the number of points"
            )));
        }
        if self.make_sense() { Ok(()) } else { Err(senseless(self)) }
    }

    fn make_sense(&self) -> bool {
        positive([self.rows, self.columns, self.points])
    }

    fn shape(&self) -> String {
        format!("{}x{}-k{}", self.rows, self.columns, self.points)
    }

    /// A difference comes before each multiply-add.
    fn flop(&self) -> f64 {
        3.0 * (self.rows * self.columns * self.points) as f64
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.rows, self.columns.max(self.points), elements);
    }
}

impl Attributes for Labelled {
    fn make_sense(&self) -> bool {
        positive([self.rows, self.columns, self.classes])
    }

    fn shape(&self) -> String {
        format!("{}x{}-k{}", self.rows, self.columns, self.classes)
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.rows, self.columns, elements);
    }
}

impl Attributes for Scatter {
    fn make_sense(&self) -> bool {
        self.labelled.make_sense() && self.slices > 0
    }

    fn shape(&self) -> String {
        self.labelled.shape()
    }

    /// On and below the diagonal.
    fn flop(&self) -> f64 {
        let Labelled { rows, columns, .. } = self.labelled;
        (rows * columns * (columns + 1)) as f64
    }
}
