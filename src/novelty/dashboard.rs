//! The table of an evaluation: one row a number, with what it means; for the terminal, as JSON, as CSV.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evaluate::{LevelMetrics, Separation};
use super::file::LevelEntry;
use super::proportion::Proportion;
use crate::error::Result;
use crate::files;
use crate::text_table::{Column, TextTable};
use crate::values;

/// A hundred rows are a page of text.
const LONGEST: u64 = 4 << 20;
/// The split that settings are rows of.
const CONFIG: &str = "config";
/// The split of samples that training never saw.
const PSEUDO_NOVEL: &str = "pseudo_novel";

/// One number or setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The samples it is of: `config`, `report`, `calibration`, `pseudo_novel`.
    pub split: String,
    /// `superclass`, `subclass`, `class`, or `-`.
    pub head: String,
    /// The name, as in the evaluation's JSON.
    pub metric: String,
    /// Its meaning, in a sentence.
    pub meaning: String,
    /// A number (shares as fractions), a truth value, or text; never a number as text.
    pub value: Value,
    /// Lower 95 % bound of a number that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper 95 % bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// The rows, settings first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dashboard {
    /// In the order they are shown.
    pub rows: Vec<Row>,
}

impl Dashboard {
    /// Adds a setting, behind the other settings: its name, its meaning, its value.
    pub fn setting(&mut self, name: &str, meaning: &str, value: impl Into<Value>) {
        self.push(CONFIG, "-", name, meaning, value.into(), None);
        let settings = self.rows.iter().take_while(|row| row.split == CONFIG).count();
        if settings < self.rows.len() {
            self.rows[settings..].rotate_right(1);
        }
    }

    /// Adds the rows that decide a level's novelty: its score, rule, threshold and temperature, and the network they are of.
    pub fn threshold(&mut self, entry: &LevelEntry) {
        let (name, threshold) = (entry.name(), &entry.threshold);
        // JSON has no infinity.
        let tau = if threshold.tau.is_finite() { threshold.tau.into() } else { Value::from("flags nothing") };
        for (key, meaning, value) in [
            ("checkpoint", "BLAKE3 hash of its parameters", entry.checkpoint.clone().into()),
            ("score", "what is thresholded", threshold.score.to_string().into()),
            ("rule", "how the threshold was chosen", threshold.rule.to_string().into()),
            ("tau", "novel below this score", tau),
            ("temperature", "what divides the logits", entry.temperature.into()),
            ("calibration_seen", "calibration samples of known classes", threshold.seen.into()),
            ("calibration_novel", "calibration samples of other classes", threshold.novel.into()),
        ] {
            self.setting(&format!("{key}_{name}"), meaning, value);
        }
    }

    /// Adds every number of one level. Those of samples that training never saw are rows of the split `pseudo_novel`.
    pub fn level(&mut self, split: &str, head: &str, metrics: &LevelMetrics) {
        let shares: [(&str, &str, &str, Option<Proportion>); 7] = [
            (
                split,
                "overall_accuracy",
                "every sample answered correctly, novel ones as novel",
                metrics.overall_accuracy,
            ),
            (split, "seen_accuracy", "seen samples answered by their class", metrics.seen_accuracy),
            (split, "false_novel_rate", "seen samples answered as novel", metrics.false_novel_rate),
            (split, "confusion_rate", "seen samples answered by another seen class", metrics.confusion_rate),
            (
                split,
                "closed_set_accuracy",
                "seen samples classified correctly without thresholds",
                metrics.closed_set_accuracy,
            ),
            (split, "novel_accuracy", "samples of the class novel answered as novel", metrics.novel_accuracy),
            (
                PSEUDO_NOVEL,
                "pseudo_novel_flagged",
                "samples of held-out classes answered as novel",
                metrics.pseudo_novel_flagged,
            ),
        ];
        for (split, name, meaning, share) in shares {
            if let Some(Proportion { rate, low, high, .. }) = share {
                self.push(split, head, name, meaning, rate.into(), Some([low, high]));
            }
        }
        let means = [
            ("macro_accuracy", "mean over classes, all that is novel as one", metrics.macro_accuracy),
            ("macro_f1", "mean F1 over classes, all that is novel as one", metrics.macro_f1),
        ];
        for (name, meaning, value) in means {
            if let Some(value) = value {
                self.push(split, head, name, meaning, value.into(), None);
            }
        }
        let separations = [
            (PSEUDO_NOVEL, "unseen", "held-out classes", metrics.unseen),
            (split, "outliers", "the class novel", metrics.outliers),
        ];
        for (split, name, others, separation) in separations {
            if let Some(Separation { auroc, auroc_interval95, oscr }) = separation {
                let meaning = format!("AUROC of seen samples against {others}");
                self.push(split, head, &format!("auroc_{name}"), &meaning, auroc.into(), auroc_interval95);
                let meaning =
                    format!("open-set classification rate against {others}; ends at closed-set accuracy");
                self.push(split, head, &format!("oscr_{name}"), &meaning, oscr.into(), None);
            }
        }
    }

    /// Adds the numbers that the two-level notebook has, as it counts them: for the recipe that runs it.
    pub fn notebook(&mut self, split: &str, head: &str, metrics: &LevelMetrics) {
        for (name, meaning, value) in metrics.notebook.rows() {
            let split = if name.contains("pseudo") { PSEUDO_NOVEL } else { split };
            let (name, meaning) = (format!("notebook_{name}"), format!("as notebook A counts: {meaning}"));
            self.push(split, head, &name, &meaning, value.into(), None);
        }
    }

    fn push(
        &mut self,
        split: &str,
        head: &str,
        metric: &str,
        meaning: &str,
        value: Value,
        bounds: Option<[f64; 2]>,
    ) {
        self.rows.push(Row {
            split: split.to_string(),
            head: head.to_string(),
            metric: metric.to_string(),
            meaning: meaning.to_string(),
            value,
            low: bounds.map(|[low, _]| low),
            high: bounds.map(|[_, high]| high),
        });
    }

    /// The table for people: shares in percent, thresholds with the digits that mean something.
    pub fn table(&self) -> String {
        self.table_within(None)
    }

    /// As [`Dashboard::table`], for a terminal of so many columns.
    #[doc(hidden)]
    pub fn table_within(&self, width: Option<usize>) -> String {
        let titles = ["split", "head", "metric", "value", "95 % bounds", "meaning"];
        let mut table = TextTable::new(titles.map(Column::text)).keys(3);
        for row in &self.rows {
            let bounds = match (row.low, row.high) {
                (Some(low), Some(high)) => format!("{:.2} {:.2} %", 100.0 * low, 100.0 * high),
                _ => String::new(),
            };
            table.row([&row.split, &row.head, &row.metric, &shown_value(row), &bounds, &row.meaning]);
        }
        table.render(width)
    }

    /// The table as CSV with the columns split, head, metric, meaning, value, low, high; numbers in full precision.
    ///
    /// # Errors
    /// None that are known; the CSV crate's type asks for it.
    pub fn csv(&self) -> Result<String> {
        let titles = ["split", "head", "metric", "meaning", "value", "low", "high"].map(String::from);
        let records = self.rows.iter().map(|row| {
            let [split, head, metric, meaning] =
                [&row.split, &row.head, &row.metric, &row.meaning].map(String::clone);
            let value = row.value.as_str().map_or_else(|| row.value.to_string(), str::to_string);
            let [low, high] = [row.low, row.high].map(|b| b.map_or_else(String::new, |b| b.to_string()));
            [split, head, metric, meaning, value, low, high]
        });
        files::csv_text("the dashboard as CSV", std::iter::once(titles).chain(records))
    }

    /// The table as JSON: `{"rows": [{"split", "head", "metric", "meaning", "value", "low", "high"}]}`.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).expect("rows are plain values")
    }

    /// Reads a `dashboard.json`.
    ///
    /// # Errors
    /// The file is missing, too long for a table, or no dashboard.
    pub fn read(path: &Path) -> Result<Dashboard> {
        files::read_json(path, LONGEST, "a dashboard (`{\"rows\": [{\"split\", \"head\", …}]}`)")
    }

    /// Writes `FOLDER/dashboard.json` and `FOLDER/dashboard.csv`.
    ///
    /// # Errors
    /// A file cannot be written; an older one is then untouched.
    pub fn write(&self, folder: &Path) -> Result<()> {
        files::write_json(&folder.join("dashboard.json"), self)?;
        files::write(&folder.join("dashboard.csv"), self.csv()?)
    }
}

/// A measured number, which is a share, in percent; of a setting the digits that mean something, and not more of its text than a
/// hash needs.
fn shown_value(row: &Row) -> String {
    const LONGEST: usize = 22;
    match row.value.as_f64().filter(|_| row.value.is_f64()) {
        Some(setting) if row.split == CONFIG => return values::shown(setting),
        Some(share) => return format!("{:.2} %", 100.0 * share),
        None => {}
    }
    let text = row.value.as_str().map_or_else(|| row.value.to_string(), str::to_string);
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::decide::tests::entry;
    use super::super::evaluate::tests::a_little_of_everything;
    use super::*;

    fn dashboard() -> Dashboard {
        let mut dashboard = Dashboard::default();
        dashboard.setting("backbone", "feature extractor", "resnet18");
        dashboard.setting("tau_subclass", "threshold", 0.999_412_345_678_901_2);
        dashboard.setting("pseudo_novel", "whether classes were held out", true);
        dashboard.level("report", "subclass", &a_little_of_everything());
        dashboard
    }

    #[test]
    fn numbers_are_numbers_and_settings_keep_their_type() {
        // Notebook A, trap A21: its table mixed 1.0 and "1.0" in one column, after evaluating everything again.
        let json = dashboard().json();
        let rows = json["rows"].as_array().unwrap();
        let value = |metric: &str| &rows.iter().find(|row| row["metric"] == metric).unwrap()["value"];
        assert_eq!(value("backbone"), "resnet18");
        assert_eq!(value("pseudo_novel"), true);
        for row in rows.iter().filter(|row| row["split"] != "config") {
            assert!(row["value"].is_f64(), "{row}");
        }
        // Trap A20: three decimals would make .9994 and .9990 the same.
        assert_eq!(value("tau_subclass").as_f64(), Some(0.999_412_345_678_901_2));
        assert!(dashboard().csv().unwrap().contains(",0.9994123456789012,"));
    }

    #[test]
    fn settings_come_first_whenever_they_are_added() {
        let mut dashboard = dashboard();
        dashboard.setting("seed", "of the bootstrap", 7);
        let splits: Vec<bool> = dashboard.rows.iter().map(|row| row.split == "config").collect();
        assert!(splits.is_sorted_by(|a, b| a >= b), "{splits:?}");
        assert_eq!(dashboard.rows[3].metric, "seed");
    }

    #[test]
    fn rows_say_split_head_metric_meaning_value() {
        let dashboard = dashboard();
        let csv = dashboard.csv().unwrap();
        assert!(csv.starts_with(
            "split,head,metric,meaning,value,low,high\nconfig,-,backbone,feature extractor,resnet18,,\n"
        ));
        let line = csv.lines().find(|line| line.contains("pseudo_novel_flagged")).unwrap();
        assert!(line.starts_with("pseudo_novel,subclass,pseudo_novel_flagged,"), "{line}");
        let table = dashboard.table();
        assert!(table.contains(" 0.9994123 "), "{table}");
        let line = table.lines().find(|line| line.contains("false_novel_rate")).unwrap();
        assert!(line.starts_with("report        subclass  false_novel_rate"), "{table}");
    }

    #[test]
    fn a_threshold_below_every_score_is_shown_as_flagging_nothing() {
        let mut level = entry(None, &[0, 1], &[], None);
        let tau = |level: &LevelEntry| {
            let mut dashboard = Dashboard::default();
            dashboard.threshold(level);
            dashboard.rows.iter().find(|row| row.metric == "tau_class").unwrap().value.clone()
        };
        assert_eq!(tau(&level), Value::from(0.0));
        level.threshold.tau = f64::NEG_INFINITY;
        assert_eq!(tau(&level), Value::from("flags nothing"));
    }

    #[test]
    fn what_is_written_is_read_back_and_damage_is_told_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let (written, path) = (dashboard(), folder.path().join("dashboard.json"));
        written.write(folder.path()).unwrap();
        assert_eq!(Dashboard::read(&path).unwrap(), written);

        let text = std::fs::read_to_string(&path).unwrap();
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Dashboard::read(&path).unwrap_err().to_string()
        };
        let cut: String = text.lines().take(5).map(|line| format!("{line}\n")).collect();
        let misspelt = text.replacen("\"metric\"", "\"metrik\"", 1);
        for (damaged, line) in
            [(cut.as_str(), "line 6"), (&misspelt, "line"), ("[1]", "line 1"), ("", "line")]
        {
            let message = told(damaged);
            for part in ["dashboard.json", line, "a dashboard"] {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
        assert!(told(&misspelt).contains("missing field `metric`"));
        std::fs::remove_file(&path).unwrap();
        assert!(Dashboard::read(&path).unwrap_err().to_string().contains("dashboard.json"));
    }

    #[test]
    fn text_from_files_cannot_move_the_cursor() {
        let mut dashboard = Dashboard::default();
        dashboard.setting("checkpoint", "where", "\u{1b}[2Jx\ny");
        assert!(!dashboard.table().contains('\u{1b}'));
    }
}
