//! `compare.json` and `compare.csv`.

use std::path::Path;

use super::Comparison;
use crate::error::Result;
use crate::files;

/// Writes both files into a folder.
pub(super) fn write(comparison: &Comparison, folder: &Path) -> Result<()> {
    files::write_json(&folder.join("compare.json"), comparison)?;
    files::write(&folder.join("compare.csv"), csv(comparison)?)
}

/// A line for each number and run; numbers are in full and shares are fractions.
fn csv(comparison: &Comparison) -> Result<String> {
    let header = [
        "section",
        "set",
        "score",
        "metric",
        "run",
        "value",
        "baseline",
        "difference",
        "low95",
        "high95",
        "p_value",
        "paired",
        "covers",
        "verdict",
        "method",
    ];
    let mut lines = vec![header.map(str::to_string).to_vec()];
    for row in &comparison.rows {
        for (index, run) in comparison.runs.iter().enumerate() {
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            let difference = index.checked_sub(1).and_then(|other| row.differences[other]);
            let interval = difference.and_then(|difference| difference.interval95);
            lines.push(vec![
                row.section.key().to_string(),
                row.set.clone().unwrap_or_default(),
                row.score.clone().unwrap_or_default(),
                row.metric.key().to_string(),
                run.name.clone(),
                number(row.values[index]),
                number(row.values[0]),
                number(difference.map(|difference| difference.value)),
                number(interval.map(|interval| interval[0])),
                number(interval.map(|interval| interval[1])),
                number(difference.and_then(|difference| difference.p_value)),
                difference.map_or(String::new(), |difference| difference.paired.to_string()),
                difference.map_or(String::new(), |difference| difference.covers.key().to_string()),
                difference.map_or(String::new(), |difference| difference.verdict.key().to_string()),
                difference.map_or(String::new(), |difference| difference.method.to_string()),
            ]);
        }
    }
    files::csv_text("the differences", lines)
}
