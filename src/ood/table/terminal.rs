//! The summary a person reads in the terminal: a block per OOD set, a line per score, percent.

use std::fmt::Write;

use super::{Evaluation, OodSet};
use crate::error::printable;
use crate::text_table::{Column, TextTable, wrap};

/// Longest name that is shown in full.
const LONGEST_NAME: usize = 24;

impl Evaluation {
    /// A table in plain text, percent, with both FPR95 conventions named; the best AUROC of a block is marked.
    pub fn summary(&self) -> String {
        self.summary_within(None)
    }

    /// As [`Evaluation::summary`], with tables that fit a terminal of so many columns.
    #[doc(hidden)]
    pub fn summary_within(&self, width: Option<usize>) -> String {
        let mut text = String::new();
        let accuracy = self.id.accuracy.map_or(String::new(), |a| format!(", accuracy {:.2} %", 100.0 * a));
        let _ = writeln!(text, "ID: {} samples{accuracy}", self.id.samples);
        for set in &self.datasets {
            self.block(set, width, &mut text);
        }
        for (group, means) in &self.groups {
            let best = means.iter().max_by(|a, b| a.1.auroc.total_cmp(&b.1.auroc));
            if let Some((method, mean)) = best {
                let _ = writeln!(
                    text,
                    "{group}-OOD mean: best AUROC {:.2} by {}",
                    100.0 * mean.auroc,
                    shown(method).trim_end()
                );
            }
        }
        self.checks(width, &mut text);
        for warning in &self.sanity.warnings {
            let _ = writeln!(text, "warning: {}", printable(warning));
        }
        text
    }

    /// The sanity checks and fits: what should be near 50 %, what should be small, what was inverted.
    fn checks(&self, width: Option<usize>, text: &mut String) {
        let sanity = &self.sanity;
        if sanity.half_versus_half_auroc.is_empty() && self.fits.is_empty() {
            return;
        }
        let percent = |value: Option<&f64>| {
            value.map_or_else(|| "-".to_string(), |value| format!("{:.2}", 100.0 * value))
        };
        text.push('\n');
        for line in wrap(
            "Checks (AUROC near 50 says that two halves, or training and test data, score alike)",
            width.unwrap_or(usize::MAX),
        ) {
            let _ = writeln!(text, "{line}");
        }
        let titles = ["train vs test", "half vs half", "tied %", "dim", "rank", "condition"];
        let mut table = TextTable::new(Column::with_numbers("score", titles));
        for method in &self.methods {
            let fit = self.fits.get(method);
            let count =
                |value: Option<usize>| value.map_or_else(|| "-".to_string(), |value| value.to_string());
            let condition = fit.and_then(|fit| fit.condition);
            table.row([
                shown(method),
                percent(sanity.train_versus_test_auroc.get(method)),
                percent(sanity.half_versus_half_auroc.get(method)),
                percent(sanity.tied_share.get(method)),
                count(fit.and_then(|fit| fit.dim)),
                count(fit.and_then(|fit| fit.rank)),
                condition.map_or_else(|| "-".to_string(), |value| format!("{value:.1e}")),
            ]);
        }
        text.push_str(&table.render(width));
    }

    fn block(&self, set: &OodSet, width: Option<usize>, text: &mut String) {
        let Some(by_method) = self.ood.get(&set.name) else { return };
        let group = set.group.map_or(String::new(), |group| format!(" ({})", group.name()));
        let best = by_method.values().map(|entry| entry.metrics.auroc).fold(f64::NEG_INFINITY, f64::max);
        let intervals = by_method.values().any(|entry| entry.interval95.is_some());
        let _ = writeln!(text, "\nOOD: {}{group}, {} samples", shown(&set.name), set.samples);
        let mut titles = vec!["AUROC", "FPR95 OOD+", "FPR95 ID+", "AUPR-in", "AUPR-out"];
        if intervals {
            titles.insert(1, "[95 % interval]");
        }
        let columns = std::iter::once(Column::text("score")).chain(titles.into_iter().map(Column::number));
        let mut table = TextTable::new(columns);
        for method in &self.methods {
            let Some(entry) = by_method.get(method) else { continue };
            let m = &entry.metrics;
            let mark = if m.auroc == best { '*' } else { ' ' };
            let percent = |value: f64| format!("{:.2}", 100.0 * value);
            let mut cells = vec![shown(method), format!("{mark}{:>6}", percent(m.auroc))];
            if intervals {
                let interval = entry.interval95.map(|i| i.auroc.map(percent));
                cells.push(interval.map_or(String::new(), |[low, high]| format!("[{low}, {high}]")));
            }
            cells.extend([m.fpr95, m.fpr95_id_positive, m.aupr_in, m.aupr_out].map(percent));
            table.row(cells);
        }
        text.push_str(&table.render(width));
    }
}

fn shown(name: &str) -> String {
    let name = printable(name).replace('\n', " ");
    if name.chars().count() <= LONGEST_NAME {
        return name;
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::evaluation;

    #[test]
    fn the_summary_names_both_conventions_and_marks_the_best() {
        let text = evaluation(0.0).summary();
        assert!(text.contains("ID: 100 samples, accuracy 77.25 %"), "{text}");
        assert!(text.contains("FPR95 OOD+  FPR95 ID+"), "{text}");
        assert!(text.contains("OOD: cifar10 (near), 50 samples"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("msp ") && line.contains("* 80.00")), "{text}");
        assert!(text.contains("near-OOD mean: best AUROC 75.00 by msp"), "{text}");
    }

    #[test]
    fn checks_and_fits_have_their_own_table() {
        let mut checked = evaluation(0.0);
        checked.sanity.half_versus_half_auroc.insert("msp".into(), 0.5012);
        let fit = super::super::FitSummary { rank: Some(64), condition: Some(1234.0), ..Default::default() };
        checked.fits.insert("msp".into(), fit);
        let text = checked.summary();
        let row =
            text.split("half vs half").nth(1).unwrap().lines().find(|line| line.starts_with("msp")).unwrap();
        for shown in ["50.12", "64", "1.2e3"] {
            assert!(row.contains(shown), "{row}");
        }
    }

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        let mut hostile = evaluation(0.0);
        hostile.datasets[0].name = "\u{1b}[2Jx\ny".into();
        let moved = hostile.ood.remove("cifar10").unwrap();
        hostile.ood.insert("\u{1b}[2Jx\ny".into(), moved);
        let text = hostile.summary();
        assert!(!text.contains('\u{1b}') && text.contains("OOD: \\u{1b}[2Jx y"), "{text}");
    }
}
