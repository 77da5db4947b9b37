//! Flags of every verb that runs a network: device, precision, seed.

use std::path::{Path, PathBuf};
use std::sync::Once;

use clap::Args;

use super::common::Common;
use super::output::tell;
use crate::backend::cuda::Sources;
use crate::backend::cuda::driver::Launches;
use crate::backend::cuda::driver::native::Native;
use crate::backend::{Choice, DeviceName, Precision};
use crate::error::Result;

/// The device to compute on, and how it computes.
#[derive(Debug, Clone, Args)]
pub struct Compute {
    /// Device: auto (a GPU if there is one), cpu, cuda, cuda:N, or emulator (the kernels without a GPU, slow)
    #[arg(long, default_value = "auto", value_name = "DEVICE", help_heading = "Compute")]
    pub device: DeviceName,
    /// Precision: f32, bf16 (activations; for GPUs), or f64 (the CPU's oracle, slow)
    #[arg(long, default_value = "f32", value_name = "TYPE", help_heading = "Compute")]
    pub precision: Precision,
    /// Compile edited kernel sources from this folder instead of those inside the binary (also RESIDUA_KERNELS)
    #[arg(long, value_name = "DIR", help_heading = "Compute")]
    pub kernels: Option<PathBuf>,
    /// Compute convolutions with the kernels that `bench --tune` measured and wrote to this file
    #[arg(long, value_name = "FILE", help_heading = "Compute")]
    pub kernel_table: Option<PathBuf>,
    /// How kernels follow each other on a GPU: overlapped (programmatic dependent launch: each is placed while the one before it
    /// ends; compute capability 9.0 and later) or serial; results are the same
    #[arg(long, default_value_t, value_name = "HOW", help_heading = "Compute")]
    pub launches: Launches,
}

impl Compute {
    /// The choice, with the common number of threads. Says so where a GPU is there and cannot be used, and which kernel sources
    /// were taken from a folder.
    ///
    /// # Errors
    /// A folder of kernels with a file that the engine does not know, or without any.
    pub fn choice(&self, common: &Common) -> Result<Choice> {
        let choice = self.choice_with_kernels(common)?;
        Ok(without_unused_kernels(choice, self.kernels.is_some(), common))
    }

    /// The same for work that reads the kernels' sources whatever the device.
    ///
    /// # Errors
    /// As [`Compute::choice`].
    pub fn choice_with_kernels(&self, common: &Common) -> Result<Choice> {
        let wanted = self.device == DeviceName::Auto && self.precision != Precision::F64;
        if wanted && let Some(why) = Native::hindrance(0) {
            tell_once(
                &NO_GPU,
                common,
                &format!("note: there is a GPU, but it cannot be used, so the CPU computes: {why}"),
            );
        }
        Ok(Choice {
            precision: self.precision,
            kernel_table: self.kernel_table.clone(),
            ..choice(self.device, self.launches, self.kernels.as_deref(), common)?
        })
    }
}

static NO_GPU: Once = Once::new();
static KERNELS: Once = Once::new();
static UNUSED: Once = Once::new();

/// Several networks make several choices; a note is told once.
fn tell_once(told: &Once, common: &Common, note: &str) {
    if !common.quiet {
        told.call_once(|| tell(note));
    }
}

/// The environment may name kernels for every call of the program; the CPU has no use for them. (A flag is an error there.)
fn without_unused_kernels(choice: Choice, by_flag: bool, common: &Common) -> Choice {
    if by_flag || choice.kernels.edited().is_none() || choice.has_kernels() {
        return choice;
    }
    tell_once(&UNUSED, common, "note: the CPU computes, so the kernels of RESIDUA_KERNELS are not used");
    Choice { kernels: Sources::default(), ..choice }
}

/// The choice for passes over rows, which have a precision of their own.
///
/// # Errors
/// As [`Compute::choice`].
pub fn choice_for_rows(
    device: DeviceName,
    launches: Launches,
    kernels: Option<&Path>,
    common: &Common,
) -> Result<Choice> {
    let choice = choice(device, launches, kernels, common)?;
    Ok(without_unused_kernels(choice, kernels.is_some(), common))
}

/// A choice in f32 from flags, with the common number of threads and, where no flag says otherwise, the environment's kernels.
fn choice(device: DeviceName, launches: Launches, kernels: Option<&Path>, common: &Common) -> Result<Choice> {
    let of_environment =
        || std::env::var_os("RESIDUA_KERNELS").filter(|name| !name.is_empty()).map(PathBuf::from);
    let kernels = match kernels.map(Path::to_path_buf).or_else(of_environment) {
        Some(folder) => Sources::of_folder(&folder)?,
        None => Sources::default(),
    };
    if let Some(edited) = kernels.edited() {
        tell_once(&KERNELS, common, &format!("note: {}", edited.taken().in_words()));
    }
    Ok(Choice {
        device,
        precision: Precision::F32,
        threads: common.threads,
        kernels,
        kernel_table: None,
        launches,
    })
}
