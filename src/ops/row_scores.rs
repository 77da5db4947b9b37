//! Attributes of the passes that scores of single samples are made of, beside those of [`super::rows`].

use serde::{Deserialize, Serialize};

use super::extents::{Attributes, cut, positive};

/// Bins of a histogram.
pub const HISTOGRAM_BINS: usize = 100;

/// Logits of many samples, and the sum over the largest probabilities of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GeneralisedEntropy {
    /// Samples.
    pub rows: usize,
    /// Classes.
    pub classes: usize,
    /// Largest probabilities that count.
    pub m: usize,
    /// Exponent of p and of 1 - p.
    pub gamma: f64,
    /// Probabilities are kept this far from 0 and 1; 0 leaves them as they are.
    pub clamp: f64,
}

/// Logits of many samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogitRows {
    /// Samples.
    pub rows: usize,
    /// Classes.
    pub classes: usize,
}

/// Logits of many samples, and what their probabilities are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CentredSoftmax {
    /// Samples.
    pub rows: usize,
    /// Classes.
    pub classes: usize,
    /// Subtracted from every probability.
    pub centre: f64,
}

/// Logits of many samples, and how many of the largest OpenMax revises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenMax {
    /// Samples.
    pub rows: usize,
    /// Classes.
    pub classes: usize,
    /// Largest logits that are revised.
    pub alpha: usize,
}

/// Logits of many samples under several heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadLogits {
    /// Samples.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Classes of each head.
    pub classes: usize,
}

/// Features, and how many of the largest of each sample are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LargestFeatures {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Features that are kept.
    pub k: usize,
}

/// How features are changed before they are projected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Shaping {
    /// Above the upper bound of the column it becomes that bound; below the lower one, where there are lower bounds, 0; `lambda` is added to
    /// others.
    Cut {
        /// Whether columns have lower bounds.
        low: bool,
        /// Added between the bounds.
        lambda: f64,
    },
    /// Clipped to the bounds of the column.
    Clip,
    /// 0 unless it is above the bound of the row, or at it and no further right than the row's last.
    Keep {
        /// Whether what is kept becomes 1.
        ones: bool,
    },
}

/// Rows that are shaped, and then projected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShapedProjection {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Coordinates.
    pub outputs: usize,
    /// How features are changed.
    pub shaping: Shaping,
}

impl ShapedProjection {
    /// Elements of the lower bounds, or of the bounds of rows.
    pub(super) fn low(&self) -> usize {
        match self.shaping {
            Shaping::Cut { low: false, .. } => 0,
            Shaping::Cut { low: true, .. } | Shaping::Clip => self.columns,
            Shaping::Keep { .. } => self.rows,
        }
    }

    /// Elements of the upper bounds, or of the last columns of rows.
    pub(super) fn high(&self) -> usize {
        if matches!(self.shaping, Shaping::Keep { .. }) { self.rows } else { self.columns }
    }
}

/// Labelled rows, and a vector for each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClassProducts {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Classes; every label is one of them.
    pub classes: usize,
    /// Whether something is subtracted from every row.
    pub shift: bool,
}

/// Rows, labelled where they are compared with their class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Magnitudes {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Classes; every label is one of them.
    pub classes: usize,
    /// Whether the mean of the row's class is subtracted.
    pub centred: bool,
    /// Whether features are multiplied by the signs of weights of the row's class.
    pub signed: bool,
}

impl Magnitudes {
    /// Elements of the labels.
    pub(super) fn labels(&self) -> usize {
        if self.centred || self.signed { self.rows } else { 0 }
    }
}

/// Features and gradients of many samples, and the states that training has seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Samples.
    pub rows: usize,
    /// Features of a sample.
    pub columns: usize,
    /// Bins of the states of a feature.
    pub bins: usize,
    /// Multiplies features.
    pub alpha: f64,
}

/// Values of many samples, and a histogram that theirs are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Samples.
    pub rows: usize,
    /// Values of a sample.
    pub columns: usize,
    /// Numbers of the bias, which is repeated along the values.
    pub period: usize,
    /// Bins in a unit of the values.
    pub per_width: f64,
    /// Bins of the box that smooths the histogram of a sample.
    pub width: usize,
    /// Added to every bin.
    pub floor: f64,
}

/// Rows, and a bank with which the largest products of each are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LargestProducts {
    /// Samples.
    pub rows: usize,
    /// Features of a sample and of a row of the bank.
    pub columns: usize,
    /// Rows of the bank.
    pub points: usize,
    /// Largest products that count.
    pub k: usize,
}

/// Rows, and a bank that each is compared with, in features and in probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// Samples.
    pub rows: usize,
    /// Features of a sample and of a row of the bank.
    pub columns: usize,
    /// Classes.
    pub classes: usize,
    /// Rows of the bank.
    pub points: usize,
    /// Likenesses up to this do not count.
    pub least: f64,
    /// Exponent of the others.
    pub power: f64,
}

macro_rules! attributes {
    ($($Name:ident: $own:ident, [$($extent:expr),+], $shape:expr, $each:expr $(, flop $flop:expr)?;)+) => { $(
        impl Attributes for $Name {
            fn make_sense(&self) -> bool {
                let $own = self;
                positive([$($extent),+])
            }

            fn shape(&self) -> String {
                let $own = self;
                $shape
            }

            $(
                fn flop(&self) -> f64 {
                    let $own = self;
                    2.0 * $flop as f64
                }
            )?

            fn cut(&mut self, elements: usize) {
                let $own = &*self;
                let each = $each;
                cut(&mut self.rows, each, elements);
            }
        }
    )+ };
}

attributes! {
    GeneralisedEntropy: a, [a.rows, a.classes, a.m], format!("{}x{}-m{}", a.rows, a.classes, a.m), a.classes;
    LogitRows: a, [a.rows, a.classes], format!("{}x{}", a.rows, a.classes), a.classes;
    CentredSoftmax: a, [a.rows, a.classes], format!("{}x{}", a.rows, a.classes), a.classes;
    OpenMax: a, [a.rows, a.classes, a.alpha], format!("{}x{}-a{}", a.rows, a.classes, a.alpha), a.classes;
    HeadLogits: a, [a.rows, a.heads, a.classes], format!("{}x{}-k{}", a.rows, a.heads, a.classes),
        a.heads * a.classes;
    LargestFeatures: a, [a.rows, a.columns, a.k, usize::from(a.k <= a.columns)],
        format!("{}x{}-k{}", a.rows, a.columns, a.k), a.columns;
    ShapedProjection: a, [a.rows, a.columns, a.outputs],
        format!("{}x{}-k{}-{}", a.rows, a.columns, a.outputs, a.shaping.word()), a.columns.max(a.outputs),
        flop (a.rows * a.columns * a.outputs);
    ClassProducts: a, [a.rows, a.columns, a.classes], format!("{}x{}-k{}", a.rows, a.columns, a.classes),
        a.columns;
    Magnitudes: a, [a.rows, a.columns, a.classes],
        format!("{}x{}{}{}", a.rows, a.columns, if a.centred { "-centred" } else { "" }, if a.signed { "-signed" } else { "" }),
        a.columns;
    Coverage: a, [a.rows, a.columns, a.bins], format!("{}x{}-k{}", a.rows, a.columns, a.bins), a.columns;
    Histogram: a, [a.rows, a.columns, a.period, a.width], format!("{}x{}", a.rows, a.columns), a.columns;
    LargestProducts: a, [a.rows, a.columns, a.points, a.k, usize::from(a.k <= a.points)],
        format!("{}x{}-k{}", a.rows, a.columns, a.points), a.columns.max(a.points),
        flop (a.rows * a.columns * a.points);
    Relation: a, [a.rows, a.columns, a.classes, a.points], format!("{}x{}-k{}", a.rows, a.columns, a.points),
        a.columns.max(a.points), flop (a.rows * (a.columns + a.classes) * a.points);
}

impl Shaping {
    fn word(self) -> &'static str {
        match self {
            Shaping::Cut { low: false, .. } => "cut",
            Shaping::Cut { low: true, .. } => "cut-low",
            Shaping::Clip => "clip",
            Shaping::Keep { ones: false } => "keep",
            Shaping::Keep { ones: true } => "ones",
        }
    }
}
