//! Flags of every verb that runs a network: device, precision, seed.

use std::path::PathBuf;
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use clap::Args;

use super::common::Common;
use super::output::{tell, warn};
use super::stop;
use crate::backend::cuda::driver::Launches;
use crate::backend::cuda::driver::native::Native;
use crate::backend::cuda::{Exclusions, Qualifier, Sources};
use crate::backend::{Choice, DeviceName, Precision};
use crate::bench::qualify::{Program, Qualification, Qualify, Settings};
use crate::error::{Error, Result};
use crate::ood::{RowsPrecision, on_chosen};
use crate::values::Reals;

/// The device to compute on, and which of its kernels are used.
#[derive(Debug, Clone, Args)]
pub struct DeviceFlags {
    /// Device: auto (a GPU if there is one), cpu, cuda, cuda:N, or emulator (the kernels without a GPU, slow)
    #[arg(long, default_value = "auto", value_name = "DEVICE", help_heading = "Compute")]
    pub device: DeviceName,
    /// Compile edited kernel sources from this folder instead of those inside the binary (also RESIDUA_KERNELS)
    #[arg(long, value_name = "DIR", help_heading = "Compute")]
    pub kernels: Option<PathBuf>,
    /// Take a GPU's compiled kernels from this folder, which `residua kernels build` filled, where it has them; it is never written, and
    /// trusted only if nobody but root and you may write it
    #[arg(long, value_name = "DIR", help_heading = "Compute")]
    pub kernel_cache: Option<PathBuf>,
    /// How kernels follow each other on a GPU: overlapped (programmatic dependent launch: each is placed while the one before it
    /// ends; compute capability 9.0 and later) or serial; results are the same
    #[arg(long, default_value_t, value_name = "HOW", help_heading = "Compute")]
    pub launches: Launches,
    /// Whether kernels are tried against the CPU, in a process of their own, before a device uses them: auto (those that have not been
    /// tried yet on this card, driver, compiler and program), again (all, also on the emulator), skip. What fails is left out
    #[arg(long, default_value_t, value_name = "WHEN", help_heading = "Compute")]
    pub qualify: Qualify,
    /// Leave out kernels and mechanisms: sm90, cluster, halo, stream, pdl, graphs, or kernels by name (sm90-rows-256x128,
    /// wgrad.sm90-stream-64x576), separated by commas
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "KERNELS",
        help_heading = "Compute"
    )]
    pub exclude: Exclusions,
    /// How long to wait for the device before it is taken to hang [default: a minute, and a hundred times the time that the work is
    /// predicted to take]
    #[arg(long, value_parser = Reals::POSITIVE, value_name = "SECONDS", help_heading = "Compute")]
    pub device_timeout: Option<f64>,
}

/// The device to compute on, and how it computes.
#[derive(Debug, Clone, Args)]
pub struct Compute {
    #[command(flatten)]
    pub device: DeviceFlags,
    /// Precision: f32, bf16 (activations; for GPUs), or f64 (the CPU's oracle, slow)
    #[arg(long, default_value = "f32", value_name = "TYPE", help_heading = "Compute")]
    pub precision: Precision,
    /// Compute convolutions with the kernels that `bench --tune` measured and wrote to this file
    #[arg(long, value_name = "FILE", help_heading = "Compute")]
    pub kernel_table: Option<PathBuf>,
}

impl Compute {
    /// The choice, with the common number of threads. Says so where a GPU is there and cannot be used, and which kernel sources
    /// were taken from a folder.
    ///
    /// # Errors
    /// A folder of kernels with a file that the engine does not know, or without any.
    pub fn choice(&self, common: &Common) -> Result<Choice> {
        let choice = self.choice_with_kernels(common)?;
        Ok(without_unused_kernels(choice, self.device.kernels.is_some(), common))
    }

    /// The same for work that reads the kernels' sources whatever the device.
    ///
    /// # Errors
    /// As [`Compute::choice`].
    pub fn choice_with_kernels(&self, common: &Common) -> Result<Choice> {
        let wanted = self.device.device == DeviceName::Auto && self.precision != Precision::F64;
        if wanted && let Some(why) = Native::hindrance(0, self.device.kernel_cache.as_deref()) {
            tell_once(
                &NO_GPU,
                common,
                &format!("note: there is a GPU, but it cannot be used, so the CPU computes: {why}"),
            );
        }
        Ok(Choice {
            precision: self.precision,
            kernel_table: self.kernel_table.clone(),
            ..self.device.choice(common)?
        })
    }

    /// Does work whose passes over rows of features (fits, scores, class sums) run on the chosen device.
    ///
    /// # Errors
    /// As [`Compute::choice`], and `work`'s own.
    pub fn on_rows<T>(
        &self,
        common: &Common,
        work: impl FnMut(&mut dyn crate::ood::Compute) -> Result<T>,
    ) -> Result<T> {
        on_chosen(&self.choice(common)?, RowsPrecision::F64, work)
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

impl DeviceFlags {
    /// The choice for passes over rows, which have a precision of their own.
    ///
    /// # Errors
    /// As [`Compute::choice`].
    pub fn choice_for_rows(&self, common: &Common) -> Result<Choice> {
        Ok(without_unused_kernels(self.choice(common)?, self.kernels.is_some(), common))
    }

    /// A choice in f32, with the common number of threads and, where no flag says otherwise, the environment's kernels.
    fn choice(&self, common: &Common) -> Result<Choice> {
        let of_environment =
            || std::env::var_os("RESIDUA_KERNELS").filter(|name| !name.is_empty()).map(PathBuf::from);
        let kernels = match self.kernels.clone().or_else(of_environment) {
            Some(folder) => Sources::of_folder(&folder)?,
            None => Sources::default(),
        };
        if let Some(edited) = kernels.edited() {
            tell_once(&KERNELS, common, &format!("note: {}", edited.taken().in_words()));
        }
        self.exclude.check_by_hand()?;
        Ok(Choice {
            device: self.device,
            threads: common.threads,
            kernel_cache: self.kernel_cache.clone(),
            launches: self.launches,
            exclusions: self.exclude.clone(),
            timeout: self.device_timeout.map(Duration::from_secs_f64),
            qualifier: self.qualifier(&kernels, common)?,
            kernels,
            ..Choice::default()
        })
    }

    /// Who tries the kernels of this process before they are used: one for all its work, since what it finds holds for all.
    fn qualifier(&self, kernels: &Sources, common: &Common) -> Result<Option<Arc<dyn Qualifier>>> {
        static ONE: OnceLock<Arc<Qualification>> = OnceLock::new();
        if self.device == DeviceName::Cpu || self.qualify == Qualify::Skip {
            return Ok(None);
        }
        let path = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
        let device = if self.device == DeviceName::Auto { DeviceName::Cuda(0) } else { self.device };
        let settings = || Settings {
            when: self.qualify,
            device: device.to_string(),
            kernels: kernels.edited().map(|edited| edited.taken().folder.into()),
            kernel_cache: self.kernel_cache.clone(),
            threads: common.threads,
            timeout: self.device_timeout.map(Duration::from_secs_f64),
            program: Program { path, arguments: vec!["qualify".into()] },
            note: if common.quiet { |_| () } else { warn },
            warn: |text| tell(&format!("warning: {text}")),
            is_stopped: stop::is_asked,
        };
        Ok(Some(ONE.get_or_init(|| Arc::new(Qualification::new(settings()))).clone()))
    }
}
