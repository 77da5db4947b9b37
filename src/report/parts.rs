//! What else reads runs and makes pages: the content of a run folder, and what every page has.

use std::path::Path;

use minijinja::Value;

use super::plots::{CollapseRow, Figure, TrainingPoint};
use super::run::{Run, Scores};
use super::{seeds, shown, whole};
use crate::error::Result;
use crate::ood::table::Evaluation;

/// A run folder, or what `ood --out` or `collapse --out` wrote.
pub(crate) struct Parts(Run);

impl Parts {
    /// Reads all but the scores.
    ///
    /// # Errors
    /// The folder holds no run, or a file in it is damaged; the message names it.
    pub(crate) fn read(folder: &Path) -> Result<Parts> {
        Run::read(folder).map(Parts)
    }

    /// The recipe's name, if it has one.
    pub(crate) fn name(&self) -> Option<String> {
        self.0.name()
    }

    /// The resolved recipe.
    pub(crate) fn recipe(&self) -> Option<&toml::Table> {
        self.0.recipe.as_ref().map(|recipe| &recipe.table)
    }

    /// The points of the training curves.
    pub(crate) fn training(&self) -> &[TrainingPoint] {
        &self.0.training
    }

    /// The metrics of OOD sets.
    pub(crate) fn evaluation(&self) -> Option<&Evaluation> {
        self.0.evaluation.as_ref()
    }

    /// The folder that scores lie in.
    pub(crate) fn ood(&self) -> &Path {
        &self.0.ood
    }

    /// NC1 to NC5 of every checkpoint.
    pub(crate) fn collapse(&self) -> Vec<CollapseRow> {
        self.0.collapse.checkpoints.iter().enumerate().map(|(index, row)| row.curves(index)).collect()
    }

    /// The scores of the ID set (`id`) or of an OOD set; `None` if the run kept none.
    ///
    /// # Errors
    /// The name is not a plain file name, or the archive is damaged.
    pub(crate) fn scores(&self, dataset: &str) -> Result<Option<StoredScores>> {
        Ok(self.0.scores(dataset)?.map(StoredScores))
    }
}

/// The scores of one data set: an array a method.
pub(crate) struct StoredScores(Scores);

impl StoredScores {
    /// The scores of one method; `None` if it is not there.
    ///
    /// # Errors
    /// The array is damaged, or holds a number that is not finite.
    pub(crate) fn of(&self, method: &str) -> Result<Option<Vec<f64>>> {
        self.0.of(method)
    }
}

/// The seeds' folders in a folder that is no run itself; none where it is one.
///
/// # Errors
/// The folder cannot be listed.
pub(crate) fn seed_folders(folder: &Path) -> Result<Vec<(u64, std::path::PathBuf)>> {
    seeds::folders(folder)
}

/// A name from a file, for a page: one line without control characters, at most 120 long.
pub(crate) fn shown_name(text: &str) -> String {
    shown(text)
}

/// One line from a file, for a page, however long.
pub(crate) fn whole_line(text: &str) -> String {
    whole(text)
}

/// A figure for the inside of a page.
pub(crate) fn embedded(figure: &Figure) -> Value {
    super::embedded(figure)
}

/// Renders a template that is a page of its own with what every page of the report has: `version`, `style`, `dark_figures`, `script` and
/// `policy`.
///
/// # Errors
/// The template does not fit its values.
pub(crate) fn render_page(name: &'static str, template: &'static str, page: Value) -> Result<String> {
    super::page::render(&[(name, template)], page)
}
