//! The samples that thresholds were calibrated on, kept in a run folder so that its report can be built again.
//!
//! ```text
//! novelty/calibration.json   [{"level": "superclass", "score": "msp", "rule": "conformal:0.05"}, …]
//! novelty/calibration.npz    LEVEL.seen, LEVEL.novel: (n, 2) f64, score and predicted class (-1: the head's own `novel`)
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::samples::{LevelScores, Scored, level_name};
use super::score::Score;
use crate::data::Level;
use crate::error::{Error, Position, Result};
use crate::features::{Element, Matrix, NpyArray, Npz, write_npz};
use crate::files;

/// Two levels need a line each.
const LONGEST: u64 = 1 << 16;

/// The calibration samples of one level, and the rule that was applied to them.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationRecord {
    /// The samples.
    pub samples: LevelScores,
    /// The rule.
    pub rule: Rule,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    level: Option<Level>,
    score: Score,
    rule: Rule,
}

impl CalibrationRecord {
    /// Writes the records of all levels into a folder.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(records: &[CalibrationRecord], folder: &Path) -> Result<()> {
        let line = |record: &CalibrationRecord| Line {
            level: record.samples.level,
            score: record.samples.score,
            rule: record.rule,
        };
        let lines: Vec<Line> = records.iter().map(line).collect();
        let mut arrays = Vec::new();
        for record in records {
            let level = level_name(record.samples.level);
            for (side, samples) in [("seen", &record.samples.seen), ("novel", &record.samples.novel)] {
                let class = |sample: &Scored| sample.predicted.map_or(-1.0, |class| class as f64);
                let numbers: Vec<f64> = samples.iter().flat_map(|s| [s.score, class(s)]).collect();
                let array = NpyArray::from_vec(numbers, Element::F64, vec![samples.len(), 2]);
                arrays.push((format!("{level}.{side}"), array));
            }
        }
        let named: Vec<(&str, &NpyArray)> =
            arrays.iter().map(|(name, array)| (name.as_str(), array)).collect();
        write_npz(&folder.join("calibration.npz"), &named)?;
        let text = serde_json::to_string_pretty(&lines).expect("names and rules are text");
        files::write(&folder.join("calibration.json"), text)
    }

    /// Reads what [`CalibrationRecord::write`] wrote.
    ///
    /// # Errors
    /// A file is missing or not as it was written; the message names it.
    pub fn read(folder: &Path) -> Result<Vec<CalibrationRecord>> {
        let path = folder.join("calibration.json");
        let lines: Vec<Line> = files::read_json(&path, LONGEST, "level, score and rule of each level")?;
        let path = folder.join("calibration.npz");
        let archive = Npz::open(&path)?;
        let side = |level: &str, side: &str| -> Result<Vec<Scored>> {
            let name = format!("{level}.{side}");
            let wrong = |found: String| {
                let expected = "finite scores and predicted classes, two numbers a sample";
                Error::malformed(&path, Position::Member(name.clone()), expected, found)
            };
            let array = archive.array(&name)?.ok_or_else(|| wrong("no such array".into()))?;
            if array.shape.len() != 2 || array.shape[1] != 2 {
                return Err(wrong(format!("an array of shape {:?}", array.shape)));
            }
            if array.shape[0] == 0 {
                return Ok(Vec::new());
            }
            let matrix = Matrix::new(array, &path, &name)?;
            let mut numbers = Vec::new();
            matrix.read_f64(0..matrix.rows(), &mut numbers);
            if let Some(odd) = numbers.iter().find(|number| !number.is_finite()) {
                return Err(wrong(odd.to_string()));
            }
            let sample = |pair: &[f64]| Scored {
                score: pair[0],
                predicted: (pair[1] >= 0.0).then_some(pair[1] as i64),
            };
            Ok(numbers.chunks_exact(2).map(sample).collect())
        };
        lines
            .into_iter()
            .map(|line| {
                let level = level_name(line.level);
                let samples = LevelScores {
                    level: line.level,
                    score: line.score,
                    seen: side(level, "seen")?,
                    novel: side(level, "novel")?,
                };
                Ok(CalibrationRecord { samples, rule: line.rule })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ood::Method;

    fn record(level: Level, novel: usize) -> CalibrationRecord {
        let sample =
            |i: usize| Scored { score: 0.1 + i as f64 / 3.0, predicted: (i != 1).then_some(i as i64) };
        CalibrationRecord {
            samples: LevelScores {
                level: Some(level),
                score: Score::from(Method::Msp),
                seen: (0..4).map(sample).collect(),
                novel: (0..novel).map(sample).collect(),
            },
            rule: Rule::Conformal(0.05),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_even_without_novel_samples() {
        let folder = tempfile::tempdir().unwrap();
        let records = [record(Level::Coarse, 0), record(Level::Fine, 3)];
        CalibrationRecord::write(&records, folder.path()).unwrap();
        assert_eq!(CalibrationRecord::read(folder.path()).unwrap(), records);
    }

    #[test]
    fn a_damaged_record_names_the_file_and_the_array() {
        let folder = tempfile::tempdir().unwrap();
        CalibrationRecord::write(&[record(Level::Fine, 3)], folder.path()).unwrap();
        let text = r#"[{"level": "superclass", "score": "msp", "rule": "conformal:0.05"}]"#;
        std::fs::write(folder.path().join("calibration.json"), text).unwrap();
        let message = CalibrationRecord::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("calibration.npz") && message.contains("superclass.seen"), "{message}");
        std::fs::write(folder.path().join("calibration.json"), "[{\"rule\": \"median\"}]").unwrap();
        let message = CalibrationRecord::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("calibration.json"), "{message}");
    }
}
