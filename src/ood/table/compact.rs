//! The compact view: one table for all OOD sets, a line a score, within 80 columns.

use std::fmt::Write;

use super::terminal::{accuracy_in_words, marked, shown};
use super::{Evaluation, Part};
use crate::error::printable;
use crate::text_table::{Column, TextTable, wrap};

/// The width of a view that is not for a terminal.
const WIDTH: usize = 80;
/// Longest name of a set in a heading.
const LONGEST_SET: usize = 12;

impl Evaluation {
    /// AUROC, then FPR95 (OOD positive), of every score on every OOD set and their means, in percent. Columns that do not fit make
    /// further blocks.
    #[doc(hidden)]
    pub fn compact_summary_within(&self, width: Option<usize>) -> String {
        let width = width.unwrap_or(WIDTH);
        let mut text = format!("ID: {} samples{}\n", self.id.samples, accuracy_in_words(self.id.accuracy));
        self.compact_tables("", width, &mut text);
        if let (Some(full), Some(spectrum)) = (self.of_full_spectrum(), &self.full_spectrum) {
            let _ = writeln!(text);
            for line in wrap(&spectrum.heading(), width) {
                let _ = writeln!(text, "{line}");
            }
            text.push_str(&self.shifted_table().render(Some(width)));
            full.compact_tables(", full spectrum", width, &mut text);
        }
        if let Some(tuning) = &self.tuning {
            tuning.push(Some(width), &mut text);
        }
        self.push_notes(Some(width), &mut text);
        for warning in &self.sanity.warnings {
            let _ = writeln!(text, "warning: {}", printable(warning));
        }
        text
    }

    fn compact_tables(&self, which: &str, width: usize, text: &mut String) {
        let parts = self.parts();
        for (metric, is_auroc) in [("AUROC", true), ("FPR95 (OOD positive)", false)] {
            let _ = writeln!(text, "\n{metric}{which}, %");
            let titles = parts.iter().map(|part| match part {
                Part::Set(name) => shortened(name, LONGEST_SET),
                Part::Mean(group) => format!("mean {group}"),
            });
            let columns = std::iter::once(Column::text("score")).chain(titles.map(Column::number));
            let mut table = TextTable::new(columns);
            for method in &self.methods {
                let cell = |part: &Part<'_>| match part.rates(self, method) {
                    Some((auroc, _)) if is_auroc => marked(self, *part, method, auroc),
                    Some((_, fpr95)) => format!("{:.2}", 100.0 * fpr95),
                    None => "-".into(),
                };
                table.row(std::iter::once(shown(method)).chain(parts.iter().map(cell)));
            }
            text.push_str(&table.render(Some(width)));
        }
    }

    /// The OOD sets, and the means there are.
    pub(crate) fn parts(&self) -> Vec<Part<'_>> {
        let sets = self.datasets.iter().map(|set| Part::Set(&set.name));
        // In the order near, far, all.
        let means = ["near", "far", super::ALL].into_iter().filter(|group| self.groups.contains_key(*group));
        sets.chain(means.map(Part::Mean)).collect()
    }
}

fn shortened(name: &str, longest: usize) -> String {
    let name = shown(name);
    if name.chars().count() <= longest {
        return name;
    }
    name.chars().take(longest - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::crowded;

    #[test]
    fn many_scores_on_several_sets_stay_within_the_width() {
        let evaluation = crowded(46, 7);
        for width in [60, 80, 100] {
            let text = evaluation.compact_summary_within(Some(width));
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= width, "{longest} columns of {width}:\n{text}");
        }
        let text = evaluation.compact_summary_within(None);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        // Every score and every set is there.
        for part in
            ["score_45", "set_6", "mean near", "mean far", "mean all", "AUROC, %", "FPR95 (OOD positive), %"]
        {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(text.lines().any(|line| line.starts_with("score_0 ") && line.contains('*')), "{text}");
    }
}
