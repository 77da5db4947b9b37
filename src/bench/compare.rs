//! Two runs beside each other.

use serde::Serialize;

use super::results::{Results, Row};

/// A row that both runs have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Seconds then.
    pub before: f64,
    /// Seconds now.
    pub after: f64,
    /// Times faster: above 1 is better.
    pub ratio: f64,
    /// Whether the difference is below what either run calls noise.
    pub noise: bool,
}

/// How a run differs from an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Rows of both, in the order of the later run.
    pub changes: Vec<Change>,
    /// Rows that only the earlier run has.
    pub only_before: Vec<String>,
    /// Rows that only the later run has.
    pub only_after: Vec<String>,
    /// Why the figures may not compare.
    pub warnings: Vec<String>,
}

impl Comparison {
    /// Compares a run with the rows of an earlier one that `wanted` takes.
    pub fn new(before: &Results, after: &Results, wanted: impl Fn(&Row) -> bool) -> Comparison {
        let measured = |results: &'_ Results| -> Vec<Row> {
            results.rows.iter().filter(|row| row.timing.is_some()).cloned().collect()
        };
        let (mut earlier, later) = (measured(before), measured(after));
        earlier.retain(wanted);
        let missing = |rows: &[Row], others: &[Row]| -> Vec<String> {
            let known = |name: &str| others.iter().any(|row| row.name == name);
            rows.iter().map(|row| row.name.clone()).filter(|name| !known(name)).collect()
        };
        let changes =
            later.iter().filter_map(|row| change(earlier.iter().find(|r| r.name == row.name)?, row));
        let mut warnings = Vec::new();
        for (what, then, now) in
            [("card", &before.card, &after.card), ("driver and compiler", &before.driver, &after.driver)]
        {
            if then != now {
                warnings.push(format!("another {what}: `{then}` then, `{now}` now"));
            }
        }
        Comparison {
            changes: changes.collect(),
            only_before: missing(&earlier, &later),
            only_after: missing(&later, &earlier),
            warnings,
        }
    }

    /// Geometric mean of the ratios.
    pub fn mean_ratio(&self) -> Option<f64> {
        let logarithms: f64 = self.changes.iter().map(|change| change.ratio.ln()).sum();
        (!self.changes.is_empty()).then(|| (logarithms / self.changes.len() as f64).exp())
    }
}

fn change(before: &Row, after: &Row) -> Option<Change> {
    let (then, now) = (before.timing?, after.timing?);
    let ratio = then.seconds / now.seconds;
    let spread = then.noise.max(now.noise);
    Some(Change {
        name: after.name.clone(),
        before: then.seconds,
        after: now.seconds,
        ratio,
        noise: ratio.max(1.0 / ratio) - 1.0 <= spread,
    })
}

#[cfg(test)]
mod tests {
    use super::super::results::Kind;
    use super::super::timing::Timing;
    use super::*;
    use crate::ops::{Hardware, HardwareKind};
    use crate::tensor::DType;

    fn results(rows: &[(&str, f64)]) -> Results {
        let hardware = Hardware { kind: HardwareKind::Gpu, name: "card".into(), versions: "1".into() };
        let mut results = Results::new(&hardware, None, None);
        for &(name, seconds) in rows {
            let mut row = Row::new(name.to_string(), Kind::Operation, DType::F32);
            let timing =
                Timing { seconds, least_seconds: seconds, most_seconds: seconds, noise: 0.1, samples: 2 };
            row.timing = Some(timing);
            results.push(row);
        }
        results
    }

    #[test]
    fn rows_are_compared_by_name_and_what_is_missing_is_named() {
        let before = results(&[("a", 2.0), ("b", 1.0), ("gone", 1.0)]);
        let after = results(&[("new", 1.0), ("b", 1.05), ("a", 1.0)]);
        let few = Comparison::new(&before, &after, |row| row.name != "gone");
        assert_eq!((few.changes.len(), few.only_before.len()), (2, 0));
        let comparison = Comparison::new(&before, &after, |_| true);
        let [b, a] = comparison.changes.as_slice() else { panic!("{comparison:?}") };
        assert_eq!((a.name.as_str(), a.ratio, a.noise), ("a", 2.0, false));
        assert!(b.noise && b.ratio < 1.0);
        assert_eq!(
            (comparison.only_before, comparison.only_after),
            (vec!["gone".into()], vec!["new".into()])
        );
        assert!(comparison.warnings.is_empty());
    }
}
