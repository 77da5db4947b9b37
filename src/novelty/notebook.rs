//! The figures of the competition's notebook (notebook A), by its names and as it computes them.

use serde::Serialize;

use super::proportion::Proportion;

/// The numbers of notebook A as it computes them: its validation split is the seen samples and those of the class
/// `novel`, its pseudo-novel split those of held-out classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct NotebookMetrics {
    /// Right answers among seen and novel samples together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notebook_overall_accuracy: Option<f64>,
    /// Right answers among seen samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notebook_seen_accuracy: Option<f64>,
    /// 1 − `notebook_seen_accuracy`: ordinary confusions count as false novelty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notebook_false_novel_rate: Option<f64>,
    /// Samples of the class `novel` answered as novel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notebook_novel_accuracy: Option<f64>,
    /// Samples of held-out classes answered as novel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notebook_pseudo_novel_rate: Option<f64>,
    /// 1 − `notebook_pseudo_novel_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notebook_pseudo_novel_false_seen: Option<f64>,
}

impl NotebookMetrics {
    /// The numbers from the shares of correct answers among both groups of the validation split, and of each group.
    pub(super) fn new(
        validation: Option<Proportion>,
        seen: Option<Proportion>,
        novel: Option<Proportion>,
        pseudo_novel: Option<Proportion>,
    ) -> NotebookMetrics {
        let [validation, seen, novel, pseudo_novel] =
            [validation, seen, novel, pseudo_novel].map(|share| share.map(|share| share.rate));
        NotebookMetrics {
            notebook_overall_accuracy: validation,
            notebook_seen_accuracy: seen,
            notebook_false_novel_rate: seen.map(|accuracy| 1.0 - accuracy),
            notebook_novel_accuracy: novel,
            notebook_pseudo_novel_rate: pseudo_novel,
            notebook_pseudo_novel_false_seen: pseudo_novel.map(|rate| 1.0 - rate),
        }
    }

    /// The numbers there are, by name (without `notebook_`), with their meaning.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, f64)> {
        let rows = [
            ("overall_accuracy", "correct among seen and novel together", self.notebook_overall_accuracy),
            ("seen_accuracy", "correct among seen", self.notebook_seen_accuracy),
            (
                "false_novel_rate",
                "1 - notebook_seen_accuracy: confusions count too",
                self.notebook_false_novel_rate,
            ),
            ("novel_accuracy", "novel predicted as novel", self.notebook_novel_accuracy),
            ("pseudo_novel_rate", "held-out classes predicted as novel", self.notebook_pseudo_novel_rate),
            (
                "pseudo_novel_false_seen",
                "1 - notebook_pseudo_novel_rate",
                self.notebook_pseudo_novel_false_seen,
            ),
        ];
        rows.into_iter().filter_map(|(name, meaning, value)| Some((name, meaning, value?)))
    }
}
