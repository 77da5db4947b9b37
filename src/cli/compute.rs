//! Flags of every verb that runs a network: device, precision, seed.

use std::path::PathBuf;

use clap::Args;

use super::Common;
use crate::backend::cuda::driver::Launches;
use crate::backend::cuda::driver::native::Native;
use crate::backend::{Choice, Device, Precision};

/// What to compute on.
#[derive(Debug, Clone, Args)]
pub struct Compute {
    /// Device: auto (a GPU if there is one), cpu, cuda, cuda:N, or emulator (the kernels without a GPU, slow)
    #[arg(long, default_value = "auto", value_name = "DEVICE", help_heading = "Compute")]
    pub device: Device,
    /// Precision: f32, bf16 (activations; for GPUs), or f64 (the CPU's oracle, slow)
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE", help_heading = "Compute")]
    pub precision: Precision,
    /// Compile edited kernel sources from this folder instead of those inside the binary (also RESIDUA_KERNELS)
    #[arg(long, value_name = "DIR", help_heading = "Compute")]
    pub kernels: Option<PathBuf>,
    /// Compute convolutions with the kernels that `bench --tune` measured and wrote to this file
    #[arg(long, value_name = "FILE", help_heading = "Compute")]
    pub kernel_table: Option<PathBuf>,
    /// How kernels follow each other on a GPU: overlapped (each is placed while the one before it ends; compute capability 9.0 and
    /// later) or serial; results are the same
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Compute")]
    pub launches: Launches,
}

impl Compute {
    /// The choice, with the common number of threads. Says so where a GPU is there and cannot be used.
    pub fn choice(&self, common: &Common) -> Choice {
        let wanted = self.device == Device::Auto && self.precision != Precision::F64;
        if wanted
            && !common.quiet
            && let Some(why) = Native::hindrance(0)
        {
            eprintln!("note: there is a GPU, but it cannot be used, so the CPU computes: {why}");
        }
        Choice {
            precision: self.precision,
            kernel_table: self.kernel_table.clone(),
            ..choice(self.device, self.launches, self.kernels.as_ref(), common)
        }
    }
}

/// A choice in f32 from flags, with the common number of threads and, where no flag says otherwise, the environment's kernels.
pub fn choice(device: Device, launches: Launches, kernels: Option<&PathBuf>, common: &Common) -> Choice {
    Choice {
        device,
        precision: Precision::F32,
        threads: common.threads,
        kernels: kernels.cloned().or_else(|| std::env::var_os("RESIDUA_KERNELS").map(PathBuf::from)),
        kernel_table: None,
        launches,
    }
}
