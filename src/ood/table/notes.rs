//! What a reader of a table should know, in sentences: what the marks mean, and where ties decide.

use super::{Evaluation, MANY_TIES};
use crate::ood::metrics::Comparison;

/// Scores whose ties the terminal names.
const LISTED: usize = 4;

impl Evaluation {
    /// Sentences under the tables: how scores were compared and what intervals are.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(comparison) = &self.comparison {
            notes.push(self.comparison_in_words(comparison));
        }
        let entries = || self.ood.values().flatten().map(|(_, entry)| entry);
        if entries().any(|entry| entry.interval95.is_some()) {
            notes.push("Intervals of AUROC are the bootstrap's over test samples.".into());
        } else if entries().any(|entry| entry.auroc_interval95.is_some()) {
            notes.push("Intervals of AUROC are DeLong's, on the scale of the logit.".into());
        }
        notes
    }

    /// For each score with many ties what they could do, in the order the scores are shown.
    pub(crate) fn notes_on_ties(&self) -> Vec<String> {
        let own = self.methods.iter().filter_map(|method| self.ties_in_words(method));
        own.map(|(_, words)| words).collect()
    }

    /// The same of the scores with the most ties, and how many further ones there are.
    pub(super) fn few_notes_on_ties(&self) -> Vec<String> {
        let own = self.methods.iter().filter_map(|method| self.ties_in_words(method));
        let mut own: Vec<(f64, String)> = own.collect();
        own.sort_by(|a, b| b.0.total_cmp(&a.0));
        let more = own.len().saturating_sub(LISTED);
        let mut notes: Vec<String> = own.into_iter().take(LISTED).map(|(_, words)| words).collect();
        if more > 0 {
            let scores = if more == 1 { "score has" } else { "scores have" };
            notes.push(format!(
                "{more} more {scores} ties in over {} % of the pairs: `tied_pairs` in metrics.json.",
                100.0 * MANY_TIES
            ));
        }
        notes
    }

    fn comparison_in_words(&self, comparison: &Comparison) -> String {
        format!(
            "Within noise of the best: this score may be the best one in truth. All {} scores are of the same samples and are compared in \
             pairs, corrected for their number ({}); the truly best score is marked with a probability of at least {:.0} %.",
            self.methods.len(),
            comparison.method,
            100.0 * comparison.confidence
        )
    }

    /// The share of tied pairs on the set where it is largest, and what the AUROC would be if they were counted otherwise.
    fn ties_in_words(&self, method: &str) -> Option<(f64, String)> {
        // The last of equal ones counts as the largest.
        let own = self.datasets.iter().rev().filter_map(|set| {
            let entry = self.entry(&set.name, method)?;
            Some((set, entry.tied_pairs.filter(|ties| *ties > MANY_TIES)?, entry.auroc_if_ties_broken?))
        });
        let (set, ties, [low, high]) = own.max_by(|a, b| a.1.total_cmp(&b.1))?;
        let words = format!(
            "{method} on {}: {:.1} % of the pairs of an ID and an OOD sample have equal scores, and count half; the AUROC would be \
             {:.2} if all counted against it and {:.2} if all counted for it.",
            set.name,
            100.0 * ties,
            100.0 * low,
            100.0 * high
        );
        Some((ties, words))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::crowded;

    #[test]
    fn of_many_scores_with_ties_the_ones_with_the_most_are_named_and_the_others_counted() {
        let mut evaluation = crowded(8, 1);
        for (i, entry) in evaluation.ood.get_mut("set_0").unwrap().values_mut().enumerate() {
            entry.set_ties(if i < 6 { 0.01 * (i + 1) as f64 } else { 0.0 });
        }
        let (all, few) = (evaluation.notes_on_ties(), evaluation.few_notes_on_ties());
        assert_eq!((all.len(), few.len()), (6, 5));
        assert!(few[0].starts_with("score_5 on set_0: 6.0 %"), "{few:?}");
        assert!(few[4].starts_with("2 more scores have ties in over 0.1 % of the pairs"), "{few:?}");
        assert!(all[0].starts_with("score_0"), "{all:?}");
    }
}
