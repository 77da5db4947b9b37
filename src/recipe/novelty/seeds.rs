//! The same experiment with several seeds: how far its numbers depend on the seed.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::novelty::Dashboard;
use crate::ood::table::sample_deviation;

/// Writes mean and standard deviation (of the sample, n - 1) of every number over several dashboards, a row each.
///
/// # Errors
/// The disk is full.
pub fn over_seeds(dashboards: &[Dashboard], path: &Path) -> Result<()> {
    let failed = |e: csv::Error| Error::invalid(format!("cannot lay out {}: {e}", path.display()));
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["split", "head", "metric", "meaning", "mean", "std", "seeds"]).map_err(failed)?;
    let rows = dashboards.first().map_or(&[][..], |first| &first.rows);
    for row in rows.iter().filter(|row| row.split != "config") {
        let same = |other: &&crate::novelty::Row| {
            (&other.split, &other.head, &other.metric) == (&row.split, &row.head, &row.metric)
        };
        let values: Vec<f64> = dashboards
            .iter()
            .filter_map(|dashboard| dashboard.rows.iter().find(same)?.value.as_f64())
            .collect();
        if values.is_empty() {
            continue;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        // A number that only one seed has deviates from nothing.
        let deviation = sample_deviation(&values).map_or_else(String::new, |deviation| deviation.to_string());
        let numbers = [mean.to_string(), deviation, values.len().to_string()];
        let texts = [&row.split, &row.head, &row.metric, &row.meaning];
        table.write_record(texts.into_iter().chain(&numbers)).map_err(failed)?;
    }
    let bytes =
        table.into_inner().map_err(|e| Error::invalid(format!("cannot lay out {}: {e}", path.display())))?;
    files::write_atomically(path, |out| std::io::Write::write_all(out, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_becomes_its_mean_and_deviation_over_seeds() {
        let dashboard = |value: f64| {
            let mut dashboard = Dashboard::default();
            dashboard.setting("rule", "how", "conformal:0.05");
            let row = crate::novelty::Row {
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
        over_seeds(&[dashboard(0.5), dashboard(0.75), dashboard(1.0)], &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "split,head,metric,meaning,mean,std,seeds\n\
                        report,subclass,seen_accuracy,\"share, \"\"seen\"\"\",0.75,0.25,3\n";
        assert_eq!(text, expected);
        // A number that only one seed has is without a deviation; that is not a deviation of 0.
        over_seeds(&[dashboard(0.5), Dashboard::default()], &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(",0.5,,1\n"), "{text}");
    }
}
