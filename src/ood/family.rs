//! What the scores of a family have in common: how they are fitted, applied, saved and loaded.

use std::fmt::Debug;
use std::sync::Arc;

use super::compute::BlockScores;
use super::device::{FromNumbers, Steps};
use super::method::{About, Method};
use super::options::Wanted;
use super::rows::Rows;
use super::saved::{Reader, Writer};
use super::training::Training;
use crate::error::Result;
use crate::features::Head;

/// Fitted scores.
pub(super) type Fits = Vec<Arc<dyn Fitted>>;

/// Scores that share what they are fitted to.
pub(super) trait Family: Sync {
    /// What is known of each of them.
    fn members(&self) -> &'static [About];

    /// Fits some of them; `wanted` is never empty. A score that the training set makes meaningless is left out, with a note.
    ///
    /// # Errors
    /// A fit that is impossible.
    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits>;

    /// Those that need no training set.
    ///
    /// # Errors
    /// Never; the families' own.
    fn without_training(&self, _wanted: &[Wanted], _head: &Head) -> Result<Fits> {
        Ok(Fits::new())
    }

    /// Reads them back as [`Fitted::save`] wrote them.
    ///
    /// # Errors
    /// Tensors that are missing, damaged or of another shape.
    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits>;

    /// Those of the scores wanted that are of this family.
    fn own(&self, wanted: &[Wanted]) -> Vec<Wanted> {
        let is_own = |wanted: &&Wanted| self.members().iter().any(|about| about.method == wanted.method);
        wanted.iter().filter(is_own).cloned().collect()
    }
}

/// Scores ready to be applied.
pub(super) trait Fitted: Debug + Send + Sync {
    /// Appends each score of a block, by name.
    fn score(&self, rows: &Rows, head: &Head, scores: &mut BlockScores);

    /// Adds the tensors that [`Family::load`] reads.
    fn save(&self, out: &mut Writer);

    /// Adds the steps that compute the scores on a device, and says how the scores follow from their numbers.
    fn on_device<'a>(&'a self, head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a>;
}

/// Those of some scores that are of one method.
pub(super) fn named(wanted: &[Wanted], method: Method) -> Vec<Wanted> {
    wanted.iter().filter(|wanted| wanted.method == method).cloned().collect()
}
