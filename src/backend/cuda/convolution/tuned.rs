//! A table of measured kernels: which kernel computes which convolution fastest on one device.
//!
//! Another kernel sums in another order, so a table changes results in the last bits. Its choices have a hash, which is
//! part of a run's identity.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::problem::Pass;
use crate::backend::cuda::driver::Properties;
use crate::ops::Conv2d;
use crate::tensor::DType;

/// The device a table holds for. Times on another say nothing about this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredOn {
    /// The card's name, or "emulator".
    pub name: String,
    /// The architecture that its kernels are compiled for.
    pub architecture: String,
    /// SMs (streaming multiprocessors).
    #[serde(rename = "multiprocessors")]
    pub sms: u32,
}

impl MeasuredOn {
    /// This device.
    pub fn this(device: &Properties) -> MeasuredOn {
        MeasuredOn { name: device.name.clone(), architecture: device.architecture.clone(), sms: device.sms }
    }
}

/// The kernel for one convolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRow {
    /// The pass.
    pub pass: Pass,
    /// The type of activations: `f32` or `bf16`.
    pub dtype: String,
    /// The kernel's name.
    pub kernel: String,
    /// Split-K slices of a wgrad; 1 in the other passes.
    #[serde(default = "one")]
    pub splits: usize,
    /// Median time when it was measured; for readers, nothing follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microseconds: Option<f64>,
    /// The convolution.
    pub convolution: Conv2d,
}

fn one() -> usize {
    1
}

pub(super) type Key = (Pass, DType, Conv2d);

/// Which kernel computes which convolution, on one device.
#[derive(Debug, Clone)]
pub struct KernelTable {
    pub(super) device: MeasuredOn,
    pub(super) note: String,
    pub(super) rows: Vec<TableRow>,
    /// The place of each row.
    pub(super) places: HashMap<Key, usize>,
}

impl KernelTable {
    /// An empty table for a device, with a sentence for whoever reads the file.
    pub fn new(device: MeasuredOn, note: impl Into<String>) -> KernelTable {
        KernelTable { device, note: note.into(), rows: Vec::new(), places: HashMap::new() }
    }

    /// The device it was measured on.
    pub fn device(&self) -> &MeasuredOn {
        &self.device
    }

    /// Whether it has a row for the convolution of a row.
    pub fn has(&self, row: &TableRow) -> bool {
        let same = |own: &TableRow| {
            (own.pass, &own.dtype, own.convolution) == (row.pass, &row.dtype, row.convolution)
        };
        self.rows.iter().any(same)
    }

    /// The rows, in their order.
    pub fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    /// Its row for a convolution.
    pub(super) fn get(&self, pass: Pass, dtype: DType, conv: &Conv2d) -> Option<&TableRow> {
        self.places.get(&(pass, dtype, *conv)).map(|&place| &self.rows[place])
    }

    /// BLAKE3 hash, in hexadecimal, of the table's choices; times and the order of rows do not count.
    pub fn hash(&self) -> String {
        let mut lines: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                let TableRow { pass, dtype, kernel, splits, convolution, .. } = row;
                format!("{pass:?} {dtype} {kernel} {splits} {convolution:?}\n")
            })
            .collect();
        lines.sort();
        blake3::hash(lines.concat().as_bytes()).to_hex().to_string()
    }
}
