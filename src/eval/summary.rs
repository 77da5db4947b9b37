//! The results for a terminal.

use std::fmt::Write;

use super::{ClassResult, Results};
use crate::error::printable;

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
    /// The metrics with their intervals, the classes of lowest F1 and the most frequent confusions.
    pub fn summary(&self) -> String {
        let mut text = format!("{} samples of {} classes", self.samples, self.classes);
        if self.unlabelled > 0 {
            let _ = write!(text, "; {} without a label are left out", self.unlabelled);
        }
        let _ = writeln!(text, "\n\n{:<16}     value  95 % interval", "metric");
        for (key, name, in_percent) in SHOWN {
            // Of fewer classes the class is always among the five largest logits.
            let value = self.metrics.named().into_iter().find(|(other, _)| *other == key);
            let Some((_, value)) = value.filter(|_| key != "top5" || self.classes > 5) else { continue };
            let shown =
                |value: f64| if in_percent { format!("{:.2}", 100.0 * value) } else { format!("{value:.4}") };
            let unit = if in_percent { " %" } else { "" };
            let interval = self.interval95.of(key);
            let interval =
                interval.map_or_else(String::new, |[low, high]| format!("[{}, {}]", shown(low), shown(high)));
            let line = format!("{name:<16}  {:>6}{unit:<2}  {interval}", shown(value));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        self.classes_of_lowest_f1(&mut text);
        if !self.most_confused.is_empty() {
            let _ = writeln!(text, "\nmost frequent confusions");
            for cell in self.most_confused.iter().take(LISTED) {
                let (label, predicted) = (self.shown_class(cell.label), self.shown_class(cell.predicted));
                let _ = writeln!(text, "{:>6}  {label} taken for {predicted}", cell.count);
            }
        }
        text
    }

    fn classes_of_lowest_f1(&self, text: &mut String) {
        let mut classes: Vec<(&ClassResult, f64)> =
            self.per_class.iter().filter_map(|class| Some((class, class.f1?))).collect();
        if classes.len() < 2 {
            return;
        }
        classes.sort_by(|a, b| a.1.total_cmp(&b.1));
        let _ = writeln!(
            text,
            "\n{:<LONGEST_NAME$}  samples  precision   recall       F1",
            "classes of lowest F1"
        );
        for (class, f1) in classes.into_iter().take(LISTED) {
            let percent = |share: Option<f64>| {
                share.map_or_else(|| "–".into(), |share| format!("{:.2}", 100.0 * share))
            };
            let [precision, recall] =
                [class.precision, class.recall].map(|share| percent(share.map(|share| share.rate)));
            let _ = writeln!(
                text,
                "{:<LONGEST_NAME$}  {:>7}  {precision:>9}  {recall:>7}  {:>7}",
                self.shown_class(class.class),
                class.samples,
                percent(Some(f1))
            );
        }
    }

    fn shown_class(&self, class: u32) -> String {
        let name = printable(&self.class_name(class)).replace('\n', " ");
        if name.chars().count() <= LONGEST_NAME {
            return name;
        }
        name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
    }
}
