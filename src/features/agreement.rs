//! Whether the logits of a cache are the outputs of a head for its features: `logits = W f + b`.
//!
//! Softmax probabilities in their place, the head of another network or epoch, a transposed weight: all of them have the
//! expected shape, and every score would be a number that means nothing.
//!
//! The **deviation** of some rows is `|L - (F Wᵀ + b)| / max(|L|, |F Wᵀ + b|)`, in Frobenius norms over all of these rows, so
//! that rows with small logits (where half precision leaves few digits) do not decide alone, and one foreign row in a thousand
//! still shows. A row **decides otherwise** where the class of its largest stored logit has, by the head, a logit that lies
//! below the largest one by more than rounding explains.

use std::ops::Range;

use rayon::prelude::*;

use super::block_rows;
use super::cause;
use super::head::Head;
use super::set::FeatureSet;
use crate::error::{Error, Result};
use crate::linalg::{argmax, largest};

/// Rows that are compared when a cache is opened for use with a head, evenly spaced.
pub const SAMPLED_ROWS: usize = 1024;
/// A deviation above this is worth a warning: f32 arithmetic leaves about 1e-6, TF32 and half precision about 1e-3.
const WORTH_A_WARNING: f64 = 1e-3;
/// A deviation above this is no rounding.
const FOREIGN: f64 = 5e-2;
/// Share of rows that may decide otherwise.
const FOREIGN_DECISIONS: f64 = 0.05;
/// Deviation of a logit that rounding explains: relative to the spread of its row, and to the largest absolute value in it.
const ROUNDING: (f64, f64) = (1e-3, 1e-6);

/// Which rows of a cache are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// [`SAMPLED_ROWS`] of them, evenly spaced.
    Sample,
    /// All.
    All,
}

/// Whether logits that are not the head's are an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForeignLogits {
    /// It is an error.
    #[default]
    Refuse,
    /// It is a warning, and the stored logits count.
    Allow,
}

/// How the stored logits of some rows agree with those of a head.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Agreement {
    /// Rows compared.
    pub rows: u64,
    /// Rows whose largest logit is of another class, by more than rounding.
    pub decisions: u64,
    /// The row that deviates most, relative to its own length, and by how much.
    pub worst: (u64, f64),
    /// Sums of squares: of the differences, the stored logits, and the computed ones.
    squares: [f64; 3],
}

impl Agreement {
    /// Compares a cache's logits with a head's. A cache without logits is taken to have those of the head it holds itself;
    /// `None` where it has neither.
    ///
    /// Rows are worked on in blocks whose size is a function of the shapes, and merged in their order: the same result, bit
    /// for bit, for any number of threads.
    ///
    /// # Errors
    /// The head inside the cache is damaged.
    ///
    /// # Panics
    /// If the head has another number of features or classes.
    pub fn of(set: &FeatureSet, head: &Head, extent: Extent) -> Result<Option<Agreement>> {
        let own = match set.logits() {
            Some(_) => None,
            None => match set.own_head()? {
                Some(own) if own.classes() == head.classes() && own.dimension() == head.dimension() => {
                    Some(own)
                }
                _ => return Ok(None),
            },
        };
        let rows = chosen_rows(set.len(), extent);
        let block = block_rows(set.dimension().max(head.classes()));
        let blocks: Vec<&[Range<usize>]> = match extent {
            Extent::Sample => rows.chunks(block).collect(),
            Extent::All => rows.chunks(1).collect(),
        };
        let parts: Vec<Agreement> = blocks
            .par_iter()
            .map(|ranges| Block::read(set, head, own.as_ref(), ranges).agreement())
            .collect();
        Ok(Some(parts.into_iter().fold(Agreement::default(), Agreement::plus)))
    }

    /// The relative deviation, as the module defines it.
    pub fn deviation(&self) -> f64 {
        let [difference, stored, computed] = self.squares;
        let larger = stored.max(computed);
        if larger > 0.0 { (difference / larger).sqrt() } else { 0.0 }
    }

    /// Whether these are not the head's logits.
    pub fn is_foreign(&self) -> bool {
        self.deviation() > FOREIGN || self.decisions as f64 > FOREIGN_DECISIONS * self.rows as f64
    }

    /// Whether the deviation is worth a warning.
    pub fn is_worth_a_warning(&self) -> bool {
        self.is_foreign() || self.deviation() > WORTH_A_WARNING
    }

    fn plus(self, other: Agreement) -> Agreement {
        let mut squares = self.squares;
        squares.iter_mut().zip(other.squares).for_each(|(own, other)| *own += other);
        Agreement {
            rows: self.rows + other.rows,
            decisions: self.decisions + other.decisions,
            worst: if other.worst.1 > self.worst.1 { other.worst } else { self.worst },
            squares,
        }
    }

    /// The numbers, in words.
    pub(super) fn in_words(&self) -> String {
        let (row, worst) = self.worst;
        format!(
            "they deviate by {} of their length (row {row} by {}), and {} of {} rows name another class",
            percent(self.deviation()),
            percent(worst),
            self.decisions,
            self.rows
        )
    }
}

/// Checks that a cache's logits are the outputs of a head for its features. Returns a note for the user where they nearly are,
/// or where foreign logits are allowed.
///
/// # Errors
/// They are not, with the likely cause; the head inside the cache is damaged.
pub fn check_logits(
    set: &FeatureSet,
    head: &Head,
    extent: Extent,
    foreign: ForeignLogits,
) -> Result<Option<String>> {
    let Some(agreement) = Agreement::of(set, head, extent)? else { return Ok(None) };
    if !agreement.is_worth_a_warning() {
        return Ok(None);
    }
    let path = set.path().display();
    let found = agreement.in_words();
    if !agreement.is_foreign() {
        let cause = if set.holds_half_precision() {
            "half precision, in which they are stored, explains that"
        } else {
            "were they computed in half precision, or with other weights?"
        };
        return Ok(Some(format!("{path}: the logits are nearly W f + b of the head: {found}; {cause}")));
    }
    let cause = cause::likely(set, head)?;
    let said = format!("{path}: the logits are not W f + b of the head: {found}; {cause}");
    match foreign {
        ForeignLogits::Allow => Ok(Some(format!("{said} (allowed; the stored logits count)"))),
        ForeignLogits::Refuse => Err(Error::invalid(format!(
            "{said}; with the logits and the head of one network it works (`ood` and `collapse` also go on with \
             --allow-foreign-logits)"
        ))),
    }
}

fn percent(share: f64) -> String {
    match share {
        share if share >= 0.001 => format!("{:.2} %", 100.0 * share),
        share => format!("{:.1e}", share),
    }
}

/// The rows compared, as ranges of consecutive ones.
fn chosen_rows(count: usize, extent: Extent) -> Vec<Range<usize>> {
    if extent == Extent::Sample && count > SAMPLED_ROWS {
        // Evenly spaced from the first row to the last.
        let row = |index: usize| index * (count - 1) / (SAMPLED_ROWS - 1);
        return (0..SAMPLED_ROWS).map(row).map(|row| row..row + 1).collect();
    }
    const CONSECUTIVE: usize = 256;
    (0..count).step_by(CONSECUTIVE).map(|start| start..(start + CONSECUTIVE).min(count)).collect()
}

/// Some rows with both kinds of logits.
pub(super) struct Block {
    /// Indices of the rows.
    pub rows: Vec<usize>,
    /// Row-major, rows x D.
    pub features: Vec<f64>,
    /// Row-major, rows x C: the cache's.
    pub stored: Vec<f64>,
    /// Row-major, rows x C: the head's.
    pub computed: Vec<f64>,
}

impl Block {
    /// Reads rows; `own` gives the logits that the cache lacks.
    fn read(set: &FeatureSet, head: &Head, own: Option<&Head>, ranges: &[Range<usize>]) -> Block {
        let rows: Vec<usize> = ranges.iter().cloned().flatten().collect();
        let (mut features, mut stored, mut part) = (Vec::new(), Vec::new(), Vec::new());
        for range in ranges {
            set.features().read_f64(range.clone(), &mut part);
            features.extend_from_slice(&part);
            if let Some(logits) = set.logits() {
                logits.read_f64(range.clone(), &mut part);
                stored.extend_from_slice(&part);
            }
        }
        if let Some(own) = own {
            own.logits(&features, rows.len(), &mut stored);
        }
        let mut computed = Vec::new();
        head.logits(&features, rows.len(), &mut computed);
        Block { rows, features, stored, computed }
    }

    /// The rows that are compared at opening, all in one block.
    pub fn sample(set: &FeatureSet, head: &Head) -> Result<Block> {
        let own = if set.logits().is_none() { set.own_head()? } else { None };
        Ok(Block::read(set, head, own.as_ref(), &chosen_rows(set.len(), Extent::Sample)))
    }

    fn agreement(&self) -> Agreement {
        let classes = self.computed.len() / self.rows.len().max(1);
        let mut all = Agreement { rows: self.rows.len() as u64, ..Agreement::default() };
        let rows = self.stored.chunks_exact(classes.max(1)).zip(self.computed.chunks_exact(classes.max(1)));
        for (&index, (stored, computed)) in self.rows.iter().zip(rows) {
            let squares = [
                stored.iter().zip(computed).map(|(a, b)| (a - b) * (a - b)).sum::<f64>(),
                stored.iter().map(|a| a * a).sum(),
                computed.iter().map(|b| b * b).sum(),
            ];
            let own = Agreement { squares, ..Agreement::default() }.deviation();
            if own > all.worst.1 {
                all.worst = (index as u64, own);
            }
            all.squares.iter_mut().zip(squares).for_each(|(sum, own)| *sum += own);
            all.decisions += u64::from(decides_otherwise(stored, computed));
        }
        all
    }
}

/// Whether the class of the largest stored logit is not, within rounding, one of the largest computed logits.
fn decides_otherwise(stored: &[f64], computed: &[f64]) -> bool {
    let (decided, largest) = (argmax(stored), largest(computed));
    let smallest = computed.iter().copied().fold(f64::INFINITY, f64::min);
    let longest = largest.abs().max(smallest.abs());
    let rounding = (ROUNDING.0 * (largest - smallest)).max(ROUNDING.1 * longest);
    largest - computed[decided] > rounding
}

/// The class of the largest logit of every sample, of equal ones the first; logits that the cache lacks are the head's.
pub fn predictions(set: &FeatureSet, head: &Head) -> Vec<u32> {
    set.map_logits(head, |row| argmax(row) as u32)
}
