//! `eval.json`, and the same as tables: `eval.csv`, `per_class.csv`, `confusion.csv`, `reliability.csv`, `samples.csv`.

use std::path::Path;

use super::{Evaluated, Results};
use crate::data::Dataset;
use crate::error::Result;
use crate::files;

/// The name of the file with all results.
pub const EVAL_FILE: &str = "eval.json";
/// A thousand classes are about 400 kB.
const LONGEST: u64 = 64 << 20;

impl Results {
    /// Reads an `eval.json`.
    ///
    /// # Errors
    /// The file is missing, too long, or no result of an evaluation; the message names file and line.
    pub fn read(path: &Path) -> Result<Results> {
        files::read_json(path, LONGEST, "results of `residua eval` (accuracy, nll, ece, …)")
    }

    /// The name of a class: that of the data, or its number.
    pub fn class_name(&self, class: u32) -> String {
        let named = self.per_class.get(class as usize).and_then(|class| class.name.clone());
        named.unwrap_or_else(|| class.to_string())
    }
}

impl Evaluated {
    /// Writes everything into a folder; `data` names the samples.
    ///
    /// # Errors
    /// A file cannot be written; an older one is then untouched.
    pub fn write(&self, folder: &Path, data: Option<&dyn Dataset>) -> Result<()> {
        let results = &self.results;
        let bounds = |interval: Option<[f64; 2]>| match interval {
            Some([low, high]) => [low.to_string(), high.to_string()],
            None => [String::new(), String::new()],
        };
        let text = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let table = |name: &str, titles: &[&str], rows: Vec<Vec<String>>| {
            let titles = titles.iter().map(|title| (*title).to_string()).collect::<Vec<String>>();
            let csv = files::csv_text(name, std::iter::once(titles).chain(rows))?;
            files::write(&folder.join(name), csv)
        };
        let metrics = results.metrics.named().map(|(name, value)| {
            let [low, high] = bounds(results.interval95.of(name));
            vec![name.to_string(), value.to_string(), low, high]
        });
        table("eval.csv", &["metric", "value", "low", "high"], metrics.to_vec())?;
        let per_class = results.per_class.iter().map(|class| {
            let [recall, precision] = [class.recall, class.precision];
            let [low, high] = bounds(recall.map(|share| [share.low, share.high]));
            vec![
                class.class.to_string(),
                class.name.clone().unwrap_or_default(),
                class.samples.to_string(),
                class.predicted.to_string(),
                text(precision.map(|share| share.rate)),
                text(recall.map(|share| share.rate)),
                text(class.f1),
                low,
                high,
            ]
        });
        let titles = [
            "class",
            "name",
            "samples",
            "predicted",
            "precision",
            "recall",
            "f1",
            "recall_low",
            "recall_high",
        ];
        table("per_class.csv", &titles, per_class.collect())?;
        let cells = self
            .confusion
            .cells()
            .map(|cell| vec![cell.label.to_string(), cell.predicted.to_string(), cell.count.to_string()]);
        table("confusion.csv", &["label", "predicted", "count"], cells.collect())?;
        let bars = results.reliability.iter().map(|bin| {
            let (count, confidence, accuracy) =
                (bin.count.to_string(), text(bin.confidence), text(bin.accuracy));
            vec![bin.above.to_string(), bin.to.to_string(), count, confidence, accuracy]
        });
        table("reliability.csv", &["above", "to", "count", "confidence", "accuracy"], bars.collect())?;
        let samples = self.samples.iter().map(|sample| {
            vec![
                sample.row.to_string(),
                data.map_or_else(String::new, |data| data.sample_name(sample.row as usize)),
                sample.label.to_string(),
                sample.predicted.to_string(),
                sample.confidence.to_string(),
                sample.nll.to_string(),
            ]
        });
        let titles = ["row", "image", "label", "predicted", "confidence", "nll"];
        table("samples.csv", &titles, samples.collect())?;
        files::write_json(&folder.join(EVAL_FILE), results)
    }
}
