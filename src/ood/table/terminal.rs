//! The summary a person reads in the terminal: a block per OOD set, a line per score, percent.

use std::fmt::Write;

use super::{ALL, Entry, Evaluation, FullSpectrum, OodSet, Part};
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
        let mut text = format!("ID: {} samples{}\n", self.id.samples, accuracy_in_words(self.id.accuracy));
        for set in &self.datasets {
            self.block(set, width, &mut text);
        }
        self.means(width, &mut text);
        if let (Some(full), Some(spectrum)) = (self.of_full_spectrum(), &self.full_spectrum) {
            text.push('\n');
            push_wrapped(&spectrum.heading(), width, &mut text);
            text.push_str(&self.shifted_table().render(width));
            for set in &full.datasets {
                full.block(set, width, &mut text);
            }
            full.means(width, &mut text);
        }
        if let Some(tuning) = &self.tuning {
            tuning.push(width, &mut text);
        }
        self.push_notes(width, &mut text);
        self.checks(width, &mut text);
        for warning in &self.sanity.warnings {
            let _ = writeln!(text, "warning: {}", printable(warning));
        }
        text
    }

    /// Means over groups: the AUROC of every score where scores were compared, and the best one of each.
    fn means(&self, width: Option<usize>, text: &mut String) {
        let parts: Vec<Part<'_>> =
            self.parts().into_iter().filter(|part| matches!(part, Part::Mean(_))).collect();
        if self.comparison.is_some() && !parts.is_empty() {
            text.push_str("\nMean AUROC over OOD sets\n");
            let titles = parts.iter().map(|part| part.name().to_string());
            let columns = std::iter::once(Column::text("score")).chain(titles.map(Column::number));
            let mut table = TextTable::new(columns);
            for method in &self.methods {
                let cell = |part: &Part<'_>| match part.rates(self, method) {
                    Some((auroc, _)) => marked(self, *part, method, auroc),
                    None => "-".into(),
                };
                table.row(std::iter::once(shown(method)).chain(parts.iter().map(cell)));
            }
            text.push_str(&table.render(width));
        }
        for part in parts {
            let means = &self.groups[part.name()];
            let best = means.iter().max_by(|a, b| a.1.auroc.total_cmp(&b.1.auroc));
            let Some((best, mean)) = best else { continue };
            let what = match part.name() {
                ALL => "mean over all OOD sets".to_string(),
                group => format!("{group}-OOD mean"),
            };
            let auroc = 100.0 * mean.auroc;
            let near = self.within_noise(part).into_iter().filter(|method| *method != best).map(shown);
            let near: Vec<String> = near.collect();
            let noise = if near.is_empty() {
                String::new()
            } else {
                format!("; within noise of it: {}", near.join(", "))
            };
            push_wrapped(&format!("{what}: best AUROC {auroc:.2} by {}{noise}", shown(best)), width, text);
        }
    }

    /// How well each score tells the ID test set from each shifted set: AUROC with its interval, and the accuracy in the heading.
    pub(super) fn shifted_table(&self) -> TextTable {
        let spectrum = self.full_spectrum.as_ref();
        let shifted = spectrum.map_or(&[][..], |spectrum| &spectrum.shifted);
        let titles = shifted.iter().map(|set| shown(&set.name));
        let columns = std::iter::once(Column::text("score")).chain(titles.map(Column::number));
        let mut table = TextTable::new(columns);
        for method in &self.methods {
            let cell = |name: &String| {
                let entry = spectrum?.id_versus_shifted.get(name)?.get(method)?;
                Some(format!("{:.2}", 100.0 * entry.auroc))
            };
            let cells = shifted.iter().map(|set| cell(&set.name).unwrap_or_else(|| "-".into()));
            table.row(std::iter::once(shown(method)).chain(cells));
        }
        table
    }

    /// The notes, a paragraph each.
    pub(super) fn push_notes(&self, width: Option<usize>, text: &mut String) {
        let notes = [self.notes(), self.few_notes_on_ties()].concat();
        if notes.is_empty() {
            return;
        }
        let marks = "\n* highest AUROC, ~ within noise of the best (95 %)";
        let _ = writeln!(text, "{}", if self.comparison.is_some() { marks } else { "" });
        notes.iter().for_each(|note| push_wrapped(&format!("note: {}", printable(note)), width, text));
    }

    /// The sanity checks and fits: what should be near 50 %, what should be small, what was inverted.
    fn checks(&self, width: Option<usize>, text: &mut String) {
        let sanity = &self.sanity;
        if sanity.half_versus_half_auroc.is_empty() && self.fits.is_empty() {
            return;
        }
        let percent = |value: Option<&f64>| value.map_or_else(|| "-".to_string(), |value| percent(*value));
        text.push('\n');
        push_wrapped(
            "Checks (AUROC near 50 says that two halves, or training and test data, score alike)",
            width,
            text,
        );
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
        let _ = writeln!(text, "\nOOD: {}{group}, {} samples", shown(&set.name), set.samples);
        let any = |has: fn(&Entry) -> bool| by_method.values().any(has);
        let optional: [(bool, &[OptionalColumn]); 3] = [
            (any(|entry| entry.shown_interval().is_some()), &[("[95 % interval]", interval_cell)]),
            (any(|entry| entry.to_best.is_some()), &[("vs best", difference_cell), ("p", p_cell)]),
            (any(|entry| entry.aurc.is_some()), &[("AURC", aurc_cell), ("AUGRC", augrc_cell)]),
        ];
        let rates = ["FPR95 OOD+", "FPR95 ID+", "AUPR-in", "AUPR-out"];
        let own = |part: usize| optional[part].1.iter().filter(move |_| optional[part].0);
        let before: Vec<&OptionalColumn> = own(0).chain(own(1)).collect();
        let behind: Vec<&OptionalColumn> = own(2).collect();
        let titles = std::iter::once("AUROC").chain(before.iter().map(|(title, _)| *title)).chain(rates);
        let titles = titles.chain(behind.iter().map(|(title, _)| *title));
        let columns = std::iter::once(Column::text("score")).chain(titles.map(Column::number));
        let mut table = TextTable::new(columns);
        for method in &self.methods {
            let Some(entry) = by_method.get(method) else { continue };
            let m = &entry.metrics;
            let mut cells = vec![shown(method), marked(self, Part::Set(&set.name), method, m.auroc)];
            cells.extend(before.iter().map(|(_, cell)| cell(entry)));
            cells.extend([m.fpr95, m.fpr95_id_positive, m.aupr_in, m.aupr_out].map(percent));
            cells.extend(behind.iter().map(|(_, cell)| cell(entry)));
            table.row(cells);
        }
        text.push_str(&table.render(width));
    }
}

impl FullSpectrum {
    /// The line above the tables: the ID side, and the accuracy on each shifted set.
    pub(super) fn heading(&self) -> String {
        let sets: Vec<String> = self
            .shifted
            .iter()
            .map(|set| {
                format!("{} ({} samples{})", shown(&set.name), set.samples, accuracy_in_words(set.accuracy))
            })
            .collect();
        format!(
            "Full spectrum: the ID side is the ID test set and {}, {} samples{}. AUROC of ID against each of them, near 50 where a \
             score does not see the shift:",
            sets.join(", "),
            self.id.samples,
            accuracy_in_words(self.id.accuracy)
        )
    }
}

impl Part<'_> {
    fn name(&self) -> &str {
        match self {
            Part::Set(name) | Part::Mean(name) => name,
        }
    }
}

/// A column that is there where any score has its number.
type OptionalColumn = (&'static str, fn(&Entry) -> String);

fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

fn interval_cell(entry: &Entry) -> String {
    let interval = entry.shown_interval().map(|interval| interval.map(percent));
    interval.map_or(String::new(), |[low, high]| format!("[{low}, {high}]"))
}

fn difference_cell(entry: &Entry) -> String {
    entry.to_best.map_or(String::new(), |to_best| format!("{:+.2}", 100.0 * to_best.difference))
}

fn p_cell(entry: &Entry) -> String {
    entry.to_best.map_or(String::new(), |to_best| p_in_words(to_best.p_value))
}

fn aurc_cell(entry: &Entry) -> String {
    entry.aurc.map_or(String::new(), percent)
}

fn augrc_cell(entry: &Entry) -> String {
    entry.augrc.map_or(String::new(), percent)
}

/// A p-value in three decimals.
pub(crate) fn p_in_words(p_value: f64) -> String {
    if p_value < 0.001 { "<0.001".into() } else { format!("{p_value:.3}") }
}

/// An AUROC in percent, with the mark of the highest one or of one within noise of it.
pub(super) fn marked(evaluation: &Evaluation, part: Part<'_>, method: &str, auroc: f64) -> String {
    let is_near = part.to_best(evaluation, method).is_some_and(|to_best| to_best.within_noise);
    let mark = match auroc == part.best_auroc(evaluation) {
        true => '*',
        false if is_near => '~',
        false => ' ',
    };
    format!("{mark}{:>6}", percent(auroc))
}

/// `, accuracy 93.10 %`, where it is known.
pub(super) fn accuracy_in_words(accuracy: Option<f64>) -> String {
    accuracy.map_or(String::new(), |accuracy| format!(", accuracy {:.2} %", 100.0 * accuracy))
}

pub(super) fn push_wrapped(line: &str, width: Option<usize>, text: &mut String) {
    for line in wrap(line, width.unwrap_or(usize::MAX)) {
        let _ = writeln!(text, "{line}");
    }
}

pub(super) fn shown(name: &str) -> String {
    let name = printable(name).replace('\n', " ");
    if name.chars().count() <= LONGEST_NAME {
        return name;
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{crowded, evaluation};

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
    fn scores_within_noise_are_marked_and_the_notes_say_how_they_were_compared() {
        let text = crowded(3, 2).summary();
        let line = |score: &str| text.lines().find(|line| line.starts_with(score)).unwrap();
        assert!(line("score_0").contains("* 90.00") && line("score_1").contains("~ 89.90"), "{text}");
        assert!(!line("score_2").contains(['*', '~']) && line("score_2").contains("<0.001"), "{text}");
        assert!(
            text.contains("mean over all OOD sets: best AUROC 89.50 by score_0; within noise of it: score_1"),
            "{text}"
        );
        for note in [
            "Hsu's multiple comparisons",
            "score_2 on set_0: 4.0 % of the pairs",
            "AUROC of ID against each",
            "blurred",
        ] {
            assert!(text.contains(note), "{note}: {text}");
        }
        // An evaluation without comparisons, as older files hold, has no marks to explain.
        assert!(!evaluation(0.0).summary().contains("within noise"));
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
