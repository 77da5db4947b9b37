//! `metrics.csv` in OpenOOD's conventions, so that results drop into existing tables.
//!
//! Percent with two decimals; FPR@95 with OOD as positive, AUPR by the trapezoid rule; after the data sets of a group
//! a row with the group's mean; over several training seeds every cell is mean ± standard deviation of the sample (n - 1).
//! Behind them come the rows of a full-spectrum evaluation, which OpenOOD writes into a file of the same columns in a folder `fsood`: their data
//! sets are `fsood/NAME`, `fsood/nearood` and `fsood/farood`, and ACC is over the ID test set and all shifted sets, as there.

use std::path::Path;

use super::{Entry, Evaluation, Group, sample_deviation};
use crate::error::{Error, Result};
use crate::files;

const HEADER: [&str; 7] = ["method", "dataset", "FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT", "ACC"];

/// FPR@95, AUROC, AUPR_IN, AUPR_OUT as fractions.
type Row = [f64; 4];

impl Evaluation {
    /// Writes `metrics.csv`: of one evaluation plain numbers, of several (one per training seed) mean ± deviation.
    ///
    /// # Errors
    /// When there is no evaluation, when the evaluations differ in their data sets or scores, or when the file
    /// cannot be written.
    pub fn write_csv(seeds: &[Evaluation], path: &Path) -> Result<()> {
        files::write(path, Evaluation::csv(seeds)?)
    }

    /// The text of `metrics.csv`.
    ///
    /// # Errors
    /// As [`Evaluation::write_csv`], but for the file.
    pub fn csv(seeds: &[Evaluation]) -> Result<String> {
        let Some(first) = seeds.first() else {
            return Err(Error::invalid("a table needs at least one evaluation; none was given"));
        };
        let mut records = vec![HEADER.map(String::from).to_vec()];
        add_rows(&mut records, seeds, "")?;
        if first.full_spectrum.is_some() {
            let full: Option<Vec<Evaluation>> = seeds.iter().map(Evaluation::of_full_spectrum).collect();
            let full = full.ok_or_else(|| {
                Error::invalid(
                    "one evaluation has shifted ID sets and another one has none: the seeds of a table must share data sets",
                )
            })?;
            add_rows(&mut records, &full, "fsood/")?;
        }
        files::csv_text("a CSV row", records)
    }
}

/// Adds the rows of every score; names of data sets begin with `prefix`.
fn add_rows(records: &mut Vec<Vec<String>>, seeds: &[Evaluation], prefix: &str) -> Result<()> {
    let Some(first) = seeds.first() else { return Ok(()) };
    let accuracies: Option<Vec<f64>> = seeds.iter().map(|seed| seed.id.accuracy).collect();
    let accuracy = accuracies.map_or(String::new(), |values| cell(&values));
    for method in &first.methods {
        for (name, members) in rows_of(first) {
            if members.iter().any(|dataset| first.entry(dataset, method).is_none()) {
                continue;
            }
            let rows: Vec<Row> = seeds
                .iter()
                .enumerate()
                .map(|(i, seed)| row(seed, i, &members, method))
                .collect::<Result<_>>()?;
            let column = |index: usize| cell(&rows.iter().map(|row| row[index]).collect::<Vec<_>>());
            let mut record = vec![method.clone(), format!("{prefix}{name}")];
            record.extend((0..4).map(column));
            record.push(accuracy.clone());
            records.push(record);
        }
    }
    Ok(())
}

/// The rows of each score: near sets, their mean, far sets, their mean, then sets without a group.
fn rows_of(evaluation: &Evaluation) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    for group in [Some(Group::Near), Some(Group::Far), None] {
        let members: Vec<String> =
            evaluation.datasets.iter().filter(|set| set.group == group).map(|set| set.name.clone()).collect();
        rows.extend(members.iter().map(|name| (name.clone(), vec![name.clone()])));
        if let (Some(group), false) = (group, members.is_empty()) {
            rows.push((format!("{}ood", group.name()), members));
        }
    }
    rows
}

/// The mean over data sets (each counted once) of one score in one evaluation.
fn row(evaluation: &Evaluation, index: usize, datasets: &[String], method: &str) -> Result<Row> {
    let mut sum = Row::default();
    for dataset in datasets {
        let Some(Entry { metrics, .. }) = evaluation.entry(dataset, method) else {
            return Err(Error::invalid(format!(
                "evaluation {index} has no score `{method}` on `{dataset}`, but the first one has: the seeds of a table \
                 must share data sets and scores"
            )));
        };
        let values = [metrics.fpr95, metrics.auroc, metrics.aupr_in_trapezoid, metrics.aupr_out_trapezoid];
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    Ok(sum.map(|sum| sum / datasets.len() as f64))
}

/// Fractions of several seeds as a cell in percent; of one seed there is no deviation.
fn cell(values: &[f64]) -> String {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    if values.len() == 1 {
        return format!("{:.2}", 100.0 * mean);
    }
    format!("{:.2} ± {:.2}", 100.0 * mean, 100.0 * sample_deviation(values).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{crowded, evaluation};
    use super::*;

    #[test]
    fn one_seed_gives_plain_percent_with_group_rows() {
        let text = Evaluation::csv(&[evaluation(0.0)]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "method,dataset,FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC");
        assert_eq!(lines[1], "msp,cifar10,40.00,80.00,81.00,79.00,77.25");
        assert_eq!(lines[2], "msp,tin,50.00,70.00,71.00,69.00,77.25");
        assert_eq!(lines[3], "msp,nearood,45.00,75.00,76.00,74.00,77.25");
        assert_eq!(lines[4], "msp,svhn,30.00,90.00,91.00,89.00,77.25");
        assert_eq!(lines[5], "msp,farood,30.00,90.00,91.00,89.00,77.25");
        // `energy` was not scored on cifar10, so it has no near mean.
        assert_eq!(lines[6], "energy,tin,50.00,70.00,71.00,69.00,77.25");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn several_seeds_give_mean_and_the_standard_deviation_of_the_sample() {
        let text = Evaluation::csv(&[evaluation(0.0), evaluation(0.02), evaluation(0.04)]).unwrap();
        // numpy.std([80, 82, 84], ddof=1) = 2; dividing by n it would be 1.63.
        assert!(text.contains("msp,cifar10,42.00 ± 2.00,82.00 ± 2.00,"), "{text}");
        assert!(text.contains(",77.25 ± 0.00\n"), "{text}");
    }

    #[test]
    fn seeds_that_do_not_match_and_no_seed_at_all_are_errors() {
        let mut other = evaluation(0.0);
        other.ood.get_mut("tin").unwrap().remove("msp");
        let message = Evaluation::csv(&[evaluation(0.0), other]).unwrap_err().to_string();
        assert!(message.contains("evaluation 1 has no score `msp` on `tin`"), "{message}");
        assert!(Evaluation::csv(&[]).is_err());
    }

    #[test]
    fn rows_of_the_full_spectrum_come_behind_the_others_under_names_of_their_own() {
        let text = Evaluation::csv(&[crowded(2, 2)]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let plain = Evaluation::csv(&[Evaluation { full_spectrum: None, ..crowded(2, 2) }]).unwrap();
        assert_eq!(lines[..9].join("\n") + "\n", plain, "the other rows are as without");
        assert_eq!(lines[9], "score_0,fsood/set_0,40.00,90.00,91.00,89.00,");
        assert!(
            lines[10].starts_with("score_0,fsood/nearood,") && lines[12].starts_with("score_0,fsood/farood,")
        );
        let mixed = [crowded(2, 2), Evaluation { full_spectrum: None, ..crowded(2, 2) }];
        assert!(Evaluation::csv(&mixed).unwrap_err().to_string().contains("shifted ID sets"));
    }

    #[test]
    fn unknown_accuracy_is_an_empty_cell_and_names_are_quoted() {
        let mut odd = evaluation(0.0);
        odd.id.accuracy = None;
        odd.datasets[2].name = "a,b\"c".into();
        let moved = odd.ood.remove("svhn").unwrap();
        odd.ood.insert("a,b\"c".into(), moved);
        assert!(Evaluation::csv(&[odd]).unwrap().contains("msp,\"a,b\"\"c\",30.00,90.00,91.00,89.00,\n"));
    }
}
