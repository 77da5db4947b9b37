//! The results of collapse measurements: a row per checkpoint, as JSON, CSV, a table in the terminal and `cosines.npy`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use npyz::WriterBuilder;
use serde::{Deserialize, Serialize};

use super::GlobalMean;
use crate::error::{Error, Result, printable};
use crate::files;
use crate::text_table::{Column, TextTable};

/// Largest `collapse.json` that is read back: some tens of thousands of checkpoints.
const LARGEST_JSON: u64 = 64 << 20;

/// Neural collapse of one checkpoint. With M the class means less the global mean and W the classifier:
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollapseRow {
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Epoch after which it was written, where known.
    pub epoch: Option<u64>,
    /// Number of training samples measured.
    pub samples: u64,
    /// Number of classes, C.
    pub classes: u64,
    /// Number of features, D.
    pub dimension: u64,
    /// Share of training samples whose largest logit is that of their label.
    pub train_accuracy: f64,
    /// The same on the test set, where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy: Option<f64>,
    /// tr(Σ_W Σ_B⁺) / C.
    pub nc1: f64,
    /// tr Σ_W / tr Σ_B.
    pub nc1_trace_ratio: f64,
    /// Class-distance normalised variance; none where two class means coincide.
    pub nc1_cdnv: Option<f64>,
    /// Rank of Σ_B, at most C − 1.
    pub nc1_rank: u64,
    /// Ratio of the largest to the smallest non-zero eigenvalue of Σ_B.
    pub nc1_condition: f64,
    /// Standard deviation (dividing by C) over mean of the lengths of the rows of M.
    pub nc2_equinorm: f64,
    /// The same, dividing by C − 1.
    pub nc2_equinorm_ddof1: f64,
    /// Mean over pairs of |cos + 1/(C−1)| of the rows of M.
    pub nc2_equiangular: f64,
    /// Mean of the cosines over pairs of rows of M.
    pub nc2_cosine_mean: f64,
    /// Standard deviation of the cosines over pairs of rows of M.
    pub nc2_cosine_std: f64,
    /// Frobenius distance of M Mᵀ to a simplex, both scaled to unit norm.
    pub nc2_etf_frobenius: f64,
    /// `nc2_equinorm` of W.
    pub nc2_equinorm_weights: f64,
    /// `nc2_equinorm_ddof1` of W.
    pub nc2_equinorm_ddof1_weights: f64,
    /// `nc2_equiangular` of W.
    pub nc2_equiangular_weights: f64,
    /// `nc2_cosine_mean` of W.
    pub nc2_cosine_mean_weights: f64,
    /// `nc2_cosine_std` of W.
    pub nc2_cosine_std_weights: f64,
    /// `nc2_etf_frobenius` of W.
    pub nc2_etf_frobenius_weights: f64,
    /// Mean over classes of the distance between normalised rows of W and M.
    pub nc3: f64,
    /// ‖W/‖W‖ − M/‖M‖‖, Frobenius norms.
    pub nc3_frobenius: f64,
    /// Its square.
    pub nc3_frobenius_sq: f64,
    /// Mean over classes of 1 − cos between rows of W and M.
    pub nc3_one_minus_cosine: f64,
    /// Share of training samples where largest logit and nearest class mean differ.
    pub nc4: f64,
    /// The same on the test set (class means of the training set), where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nc4_test: Option<f64>,
    /// Mean over OOD sets of `nc5_by_ood`; none without an OOD set.
    #[serde(default)]
    pub nc5: Option<f64>,
    /// Mean over OOD sets of `nc5_uncentered_by_ood`.
    #[serde(default)]
    pub nc5_uncentered: Option<f64>,
    /// Mean over classes of |cos(μ_c − μ_G, μ_OOD − μ_G)|, per OOD set.
    #[serde(default)]
    pub nc5_by_ood: BTreeMap<String, f64>,
    /// Mean over classes of |cos(μ_c, μ_OOD)|, per OOD set (the NECO paper's form).
    #[serde(default)]
    pub nc5_uncentered_by_ood: BTreeMap<String, f64>,
}

/// A checkpoint that could not be measured, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path.
    pub checkpoint: String,
    /// The error, in words.
    pub reason: String,
}

/// The content of `collapse.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CollapseReport {
    /// A row per checkpoint, in order of epochs.
    pub checkpoints: Vec<CollapseRow>,
    /// The global mean used.
    #[serde(default)]
    pub global_mean: GlobalMean,
    /// Checkpoints left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// Notes for a reader on the caches, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl CollapseReport {
    /// Keeps warnings about the caches of a checkpoint, each once.
    pub fn note(&mut self, checkpoint: &str, warnings: Vec<String>) {
        for warning in warnings {
            let warning = format!("{checkpoint}: {warning}");
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    /// Writes `collapse.json`.
    ///
    /// # Errors
    /// When the file cannot be written; an older one is then untouched.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }

    /// Reads `collapse.json` back.
    ///
    /// # Errors
    /// When the file is missing, larger than 64 MiB, or not the expected JSON; the message names the line.
    pub fn read_json(path: &Path) -> Result<CollapseReport> {
        let expected = "collapse metrics (`{\"checkpoints\": [{\"checkpoint\": …, \"nc1\": …}]}`)";
        files::read_json(path, LARGEST_JSON, expected)
    }

    /// Writes `collapse.csv`: a column per number of `collapse.json`, those of one OOD set as `nc5_by_ood/NAME`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        files::write(path, self.csv()?)
    }

    /// The text of `collapse.csv`.
    ///
    /// # Errors
    /// When a row cannot be formatted.
    pub fn csv(&self) -> Result<String> {
        let rows: Vec<Vec<(String, String)>> = self.checkpoints.iter().map(cells).collect::<Result<_>>()?;
        // A column may first occur in a later row, when only some checkpoints have that OOD set.
        let mut columns: Vec<&str> = Vec::new();
        for (name, _) in rows.iter().flatten() {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
        let cell = |row: &[(String, String)], column: &str| {
            row.iter().find(|(name, _)| name == column).map_or(String::new(), |(_, text)| text.clone())
        };
        let titles = columns.iter().map(|column| (*column).to_string()).collect();
        let records = rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect());
        files::csv_text("a CSV row", std::iter::once::<Vec<String>>(titles).chain(records))
    }

    /// A table in plain text: a line per checkpoint.
    pub fn summary(&self) -> String {
        self.summary_within(None)
    }

    /// As `summary`, with a table that fits a terminal of so many columns.
    #[doc(hidden)]
    pub fn summary_within(&self, width: Option<usize>) -> String {
        let titles = ["epoch", "NC1", "NC2 norm", "NC2 angle", "NC3", "NC4", "NC5", "train acc"];
        let mut table = TextTable::new(Column::with_numbers("checkpoint", titles));
        for row in &self.checkpoints {
            let number = |value: f64| format!("{value:.4}");
            table.row([
                row.checkpoint.clone(),
                row.epoch.map_or("-".into(), |epoch| epoch.to_string()),
                number(row.nc1),
                number(row.nc2_equinorm),
                number(row.nc2_equiangular),
                number(row.nc3),
                number(row.nc4),
                row.nc5.map_or("-".into(), number),
                format!("{:.2} %", 100.0 * row.train_accuracy),
            ]);
        }
        let mut text = table.render(width);
        for skipped in &self.skipped {
            let _ =
                writeln!(text, "skipped {}: {}", printable(&skipped.checkpoint), printable(&skipped.reason));
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {}", printable(warning));
        }
        text
    }
}

/// The cells of a row as (column, text), in the order of the fields.
fn cells(row: &CollapseRow) -> Result<Vec<(String, String)>> {
    let value =
        serde_json::to_value(row).map_err(|error| Error::invalid(format!("cannot format a row: {error}")))?;
    let mut cells = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Object(nested) => {
                cells.extend(nested.iter().map(|(key, value)| (format!("{name}/{key}"), plain(value))));
            }
            other => cells.push((name.clone(), plain(other))),
        }
    }
    Ok(cells)
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes the cosines between class means as `cosines.npy`: f64, C x C, C order.
///
/// # Errors
/// When the matrix is not square or the file cannot be written.
pub fn write_cosines(cosines: &[f64], classes: u64, path: &Path) -> Result<()> {
    if classes.checked_mul(classes) != Some(cosines.len() as u64) {
        return Err(Error::invalid(format!("{} cosines do not make {classes} x {classes}", cosines.len())));
    }
    files::write_atomically(path, |out| {
        let mut array =
            npyz::WriteOptions::new().default_dtype().shape(&[classes, classes]).writer(out).begin_nd()?;
        array.extend(cosines)?;
        array.finish()
    })
}

#[cfg(test)]
#[path = "row_tests.rs"]
pub(super) mod tests;
