//! The results for a terminal.

use std::fmt::Write;

use super::{ClassResult, Results};
use crate::error::printable;
use crate::text_table::{Column, TextTable};

/// Classes and confusions that are listed.
const LISTED: usize = 5;
/// Longest name of a class that is shown in full.
const LONGEST_NAME: usize = 24;

/// A metric's key, its name for people, and whether it is shown in percent.
const SHOWN: [(&str, &str, bool); 11] = [
    ("accuracy", "accuracy", true),
    ("top5", "top-5 accuracy", true),
    ("macro_precision", "macro precision", true),
    ("macro_recall", "macro recall", true),
    ("macro_f1", "macro F1", true),
    ("nll", "NLL", false),
    ("brier", "Brier score", false),
    ("ece", "ECE, 15 bins", true),
    ("classwise_ece", "classwise ECE", true),
    ("aurc", "AURC", true),
    ("augrc", "AUGRC", true),
];

impl Results {
    /// The metrics with their intervals, the classes of lowest F1 and the most frequent confusions; tables fit a terminal of so many
    /// columns.
    pub(crate) fn summary(&self, width: Option<usize>) -> String {
        let mut text = format!("{} samples of {} classes", self.samples, self.classes);
        if self.unlabelled > 0 {
            let _ = write!(text, "; {} without a label are left out", self.unlabelled);
        }
        text += "\n\n";
        let mut table = TextTable::new(Column::with_numbers("metric", ["value", "95 % interval"]));
        for (key, name, in_percent) in SHOWN {
            let value = self.metrics.named().into_iter().find(|(other, _)| *other == key);
            // Of fewer classes the class is always among the five largest logits.
            let Some((_, value)) = value.filter(|_| key != "top5" || self.classes > 5) else { continue };
            let shown =
                |value: f64| if in_percent { format!("{:.2}", 100.0 * value) } else { format!("{value:.4}") };
            // The sign stands aside, so that digits stand below each other.
            let unit = if in_percent { " %" } else { "  " };
            let interval = self.interval95.of(key);
            let interval =
                interval.map_or_else(String::new, |[low, high]| format!("[{}, {}]", shown(low), shown(high)));
            table.row([name, &format!("{}{unit}", shown(value)), &interval]);
        }
        text += &table.render(width);
        let classes = self.classes_of_lowest_f1();
        if !classes.is_empty() {
            text += &format!("\n{}", classes.render(width));
        }
        if !self.most_confused.is_empty() {
            let mut table = TextTable::new([
                Column::number("samples"),
                Column::text("most often of"),
                Column::text("taken for"),
            ]);
            for cell in self.most_confused.iter().take(LISTED) {
                table.row([
                    &cell.count.to_string(),
                    &self.shown_class(cell.label),
                    &self.shown_class(cell.predicted),
                ]);
            }
            text += &format!("\n{}", table.render(width));
        }
        text
    }

    fn classes_of_lowest_f1(&self) -> TextTable {
        let titles = ["samples", "precision %", "recall %", "F1 %"];
        let mut table = TextTable::new(Column::with_numbers("classes of lowest F1", titles));
        let mut classes: Vec<(&ClassResult, f64)> =
            self.per_class.iter().filter_map(|class| Some((class, class.f1?))).collect();
        classes.sort_by(|a, b| a.1.total_cmp(&b.1));
        let percent =
            |share: Option<f64>| share.map_or_else(|| "-".into(), |share| format!("{:.2}", 100.0 * share));
        for (class, f1) in classes.iter().take(LISTED).filter(|_| classes.len() > 1) {
            let [precision, recall] =
                [class.precision, class.recall].map(|share| percent(share.map(|share| share.rate)));
            let name = self.shown_class(class.class);
            table.row([name, class.samples.to_string(), precision, recall, percent(Some(*f1))]);
        }
        table
    }

    fn shown_class(&self, class: u32) -> String {
        let name = printable(&self.class_name(class)).replace('\n', " ");
        if name.chars().count() <= LONGEST_NAME {
            return name;
        }
        name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
    }
}
