//! The same experiment with several seeds: how far its numbers depend on the seed.

use std::path::{Path, PathBuf};

use super::experiment::Outcome;
use crate::error::Result;
use crate::files;
use crate::novelty::{Dashboard, Row};
use crate::ood::table::{Evaluation, sample_deviation};

/// Writes the numbers of the same experiment with several seeds into a folder: `metrics.csv` of OOD scores, or `dashboard.csv`
/// of thresholds. The table and the number of seeds it is of; `None` where there are no numbers.
///
/// # Errors
/// The disk is full.
pub fn over_seeds(outcomes: Vec<Outcome>, folder: &Path) -> Result<Option<(PathBuf, usize)>> {
    let (mut dashboards, mut evaluations) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        dashboards.extend(outcome.novelty.and_then(|novelty| novelty.dashboard));
        evaluations.extend(outcome.evaluation);
    }
    Ok(if !dashboards.is_empty() {
        let path = folder.join("dashboard.csv");
        write_means(&dashboards, &path)?;
        Some((path, dashboards.len()))
    } else if !evaluations.is_empty() {
        let path = folder.join("metrics.csv");
        Evaluation::write_csv(&evaluations, &path)?;
        Some((path, evaluations.len()))
    } else {
        None
    })
}

/// Writes mean and standard deviation (of the sample, n - 1) of every number over several dashboards, a row each.
fn write_means(dashboards: &[Dashboard], path: &Path) -> Result<()> {
    let rows = dashboards.first().map_or(&[][..], |first| &first.rows);
    let rows = rows.iter().filter(|row| row.split != "config").filter_map(|row| {
        let key = |row: &Row| [row.split.clone(), row.head.clone(), row.metric.clone()];
        let value = |dashboard: &Dashboard| {
            dashboard.rows.iter().find(|other| key(other) == key(row))?.value.as_f64()
        };
        let values: Vec<f64> = dashboards.iter().filter_map(value).collect();
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        // A number that only one seed has deviates from nothing.
        let deviation = sample_deviation(&values).map_or_else(String::new, |deviation| deviation.to_string());
        let ([split, head, metric], meaning) = (key(row), row.meaning.clone());
        Some([split, head, metric, meaning, mean.to_string(), deviation, values.len().to_string()])
    });
    let titles = ["split", "head", "metric", "meaning", "mean", "std", "seeds"].map(String::from);
    files::write(path, files::csv_text("the table of seeds", std::iter::once(titles).chain(rows))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_becomes_its_mean_and_deviation_over_seeds() {
        let dashboard = |value: f64| {
            let mut dashboard = Dashboard::default();
            dashboard.setting("rule", "how", "conformal:0.05");
            let row = Row {
                split: "report".into(),
                head: "subclass".into(),
                metric: "seen_accuracy".into(),
                meaning: "share, \"seen\"".into(),
                value: value.into(),
                low: None,
                high: None,
            };
            dashboard.rows.push(row);
            dashboard
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dashboard.csv");
        write_means(&[dashboard(0.5), dashboard(0.75), dashboard(1.0)], &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "split,head,metric,meaning,mean,std,seeds\n\
                        report,subclass,seen_accuracy,\"share, \"\"seen\"\"\",0.75,0.25,3\n";
        assert_eq!(text, expected);
        // A number that only one seed has is without a deviation; that is not a deviation of 0.
        write_means(&[dashboard(0.5), Dashboard::default()], &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(",0.5,,1\n"), "{text}");
    }
}
