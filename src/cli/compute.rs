//! Flags of every verb that runs a network: device, precision, seed.

use clap::Args;

use super::Common;
use crate::backend::{Choice, Device, Precision};

/// What to compute on.
#[derive(Debug, Clone, Args)]
pub struct Compute {
    /// Device: auto or cpu
    #[arg(long, default_value = "auto", value_name = "DEVICE", help_heading = "Compute")]
    pub device: Device,
    /// Precision: f32, or f64 (the oracle, slow)
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE", help_heading = "Compute")]
    pub precision: Precision,
}

impl Compute {
    /// The choice, with the common number of threads.
    pub fn choice(&self, common: &Common) -> Choice {
        Choice { device: self.device, precision: self.precision, threads: common.threads }
    }
}
