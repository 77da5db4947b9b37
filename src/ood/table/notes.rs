//! What a reader of a table should know, in sentences: what the marks mean, and where ties decide.

use super::{Evaluation, MANY_TIES};
use crate::ood::metrics::Comparison;

impl Evaluation {
    /// Sentences under the tables: how scores were compared, what intervals are, and for each score with many ties what they could do.
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
        notes.extend(self.methods.iter().filter_map(|method| self.ties_in_words(method)));
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
    fn ties_in_words(&self, method: &str) -> Option<String> {
        // The last of equal ones counts as the largest.
        let own = self.datasets.iter().rev().filter_map(|set| {
            let entry = self.entry(&set.name, method)?;
            Some((set, entry.tied_pairs.filter(|ties| *ties > MANY_TIES)?, entry.auroc_if_ties_broken?))
        });
        let (set, ties, [low, high]) = own.max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(format!(
            "{method} on {}: {:.1} % of the pairs of an ID and an OOD sample have equal scores, and count half; the AUROC would be \
             {:.2} if all counted against it and {:.2} if all counted for it.",
            set.name,
            100.0 * ties,
            100.0 * low,
            100.0 * high
        ))
    }
}
