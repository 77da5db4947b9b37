//! Measurements as JSON: the device, the versions, row by row, and the summary that others read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::roofline::Rates;
use super::timing::Timing;
use crate::backend::cuda::TakenSources;
use crate::error::Result;
use crate::files;
use crate::ops::Hardware;
use crate::tensor::DType;

/// Larger files are no results of ours.
const MOST_BYTES: u64 = 64 << 20;

/// The subject of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One operation at one shape.
    #[default]
    Operation,
    /// A whole step.
    Step,
}

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `conv2d_forward.128x32x32x64-k64-3x3-s1p1.bf16`, `train.resnet18-cifar.32.b512.bf16`.
    pub name: String,
    /// Its subject.
    pub kind: Kind,
    /// Type of activations.
    pub precision: String,
    /// Floating-point operations of matrix products.
    pub flop: f64,
    /// Bytes that must move; of a step, the sum over its calls.
    pub bytes: f64,
    /// How long it took; none where it failed.
    #[serde(flatten)]
    pub timing: Option<Timing>,
    /// The least seconds by operations, by bytes, and the larger of the two (of a step: summed over its calls).
    pub floor_arithmetic_seconds: Option<f64>,
    /// See above.
    pub floor_memory_seconds: Option<f64>,
    /// See above.
    pub floor_seconds: Option<f64>,
    /// Speed of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Processor seconds of all threads for a step on the CPU, on average: a figure that other processes disturb little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// From asking for the device to the result of the first step, compiling included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_step_seconds: Option<f64>,
    /// Of a step, where its time goes: calls that are alike together, those that take most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallTime>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Calls of a step that are alike.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallTime {
    /// Operation and shape.
    pub name: String,
    /// How many a step has.
    pub count: usize,
    /// What all of them take, waiting for each.
    pub seconds: f64,
    /// Floating-point operations of all of them.
    pub flop: f64,
    /// Bytes that all of them must move.
    pub bytes: f64,
    /// The least that all of them take, where the device's rates are known.
    pub floor_seconds: Option<f64>,
}

impl Row {
    /// A row about to be measured.
    pub(super) fn new(name: String, kind: Kind, dtype: DType) -> Row {
        Row { name, kind, precision: super::precision(dtype).to_string(), ..Row::default() }
    }

    /// Seconds it took.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.timing?.seconds)
    }

    /// Share of the floor in the time: 1 is as fast as the card can.
    pub fn share(&self) -> Option<f64> {
        Some(self.floor_seconds? / self.seconds()?)
    }

    /// TFLOP/s, where it multiplies matrices.
    pub fn teraflops(&self) -> Option<f64> {
        let seconds = self.seconds()?;
        (self.flop > 0.0).then(|| self.flop / seconds / 1e12)
    }

    /// GB/s.
    pub fn gigabytes_per_second(&self) -> Option<f64> {
        Some(self.bytes / self.seconds()? / 1e9)
    }
}

/// The summary of a whole step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Ours.
    pub images_per_second: Option<f64>,
    /// The speed that the floors allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ideal_images_per_second: Option<f64>,
    /// PyTorch's, in its fastest way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pytorch_images_per_second: Option<f64>,
    /// Which way that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pytorch_mode: Option<String>,
    /// Ours divided by PyTorch's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// A run of `bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The card or the processor.
    pub card: String,
    /// `cpu`, `gpu` or `emulator`.
    pub device: String,
    /// Versions of driver and compiler.
    pub driver: String,
    /// Version and commit of this program.
    pub program: String,
    /// Its commit alone; empty where it was not built from a repository.
    pub commit: String,
    /// When, in UTC.
    pub date: String,
    /// The rates that the floors are made of.
    pub rates: Option<Rates>,
    /// The folder that kernels were taken from, where it is not the binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<TakenSources>,
    /// Measurements.
    pub rows: Vec<Row>,
    /// Rows that the time did not suffice for.
    pub cut: Vec<String>,
    /// Whole steps by name.
    pub summary: BTreeMap<String, Summary>,
}

impl Results {
    /// Nothing yet, on this device.
    pub(super) fn new(hardware: &Hardware, rates: Option<Rates>, kernels: Option<TakenSources>) -> Results {
        Results {
            card: hardware.name.clone(),
            device: format!("{:?}", hardware.kind).to_lowercase(),
            driver: hardware.versions.clone(),
            program: env!("RESIDUA_VERSION").to_string(),
            commit: env!("RESIDUA_VERSION").split(['(', ')']).nth(1).unwrap_or_default().to_string(),
            date: now(),
            rates,
            kernels,
            rows: Vec::new(),
            cut: Vec::new(),
            summary: BTreeMap::new(),
        }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: Row) {
        if row.kind == Kind::Step {
            let per_second = |seconds: f64| {
                row.images_per_second.map(|rate| rate * row.seconds().unwrap_or(0.0) / seconds)
            };
            let summary = Summary {
                images_per_second: row.images_per_second,
                ideal_images_per_second: row.floor_seconds.and_then(per_second),
                ..Summary::default()
            };
            self.summary.insert(row.name.clone(), summary);
        }
        self.rows.push(row);
    }

    /// Reads an earlier run.
    ///
    /// # Errors
    /// The file cannot be read, or is no run of `bench`.
    pub fn read(path: &Path) -> Result<Results> {
        files::read_json(path, MOST_BYTES, "the JSON that `residua bench --out` writes")
    }

    /// Writes the run as a whole, or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }
}

/// The time in UTC: `2027-01-31T12:00:00Z`.
pub(super) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    date(seconds)
}

/// Seconds since 1970 as a date (Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
fn date(seconds: u64) -> String {
    let days = seconds / 86400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + 400 * era + u64::from(month <= 2);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{:02}Z", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(date(4_107_542_399), "2100-02-28T23:59:59Z");
    }
}
