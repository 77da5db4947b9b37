//! The device and precision that a user asked for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use super::cuda::driver::emulator::{self, Emulator};
use super::cuda::driver::native::Native;
use super::cuda::driver::{Driver, Launches};
use super::cuda::{Cuda, EditedSources, Exclusions, KernelTable, PDL, Qualifier, Sources, TakenSources};
use crate::error::{Error, Result};
use crate::ops::Device;
use crate::tensor::DType;
use crate::values::named;

named! {
    /// Element type of activations and parameters.
    pub enum Precision: "precision" {
        /// Single precision.
        F32 = "f32",
        /// Activations and their gradients in bf16, everything summed up in f32; on GPUs.
        Bf16 = "bf16",
        /// Double precision, on the CPU only: the oracle.
        F64 = "f64",
    }
    default F32
}

/// A device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The first GPU if there is one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
    /// The GPU's kernels, emulated on the CPU: for checking kernels where there is no GPU.
    Emulator,
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<DeviceName> {
        match text {
            "auto" => Ok(DeviceName::Auto),
            "cpu" => Ok(DeviceName::Cpu),
            "emulator" => Ok(DeviceName::Emulator),
            "cuda" => Ok(DeviceName::Cuda(0)),
            _ => match text.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
                Some(number) => Ok(DeviceName::Cuda(number)),
                None => Err(Error::usage(format!(
                    "no device is called `{text}`; there are auto, cpu, cuda, cuda:N and emulator"
                ))),
            },
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Auto => f.write_str("auto"),
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceName::Emulator => f.write_str("emulator"),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = Error;

    fn try_from(text: String) -> Result<DeviceName> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(device: DeviceName) -> String {
        device.to_string()
    }
}

/// The device to compute on, and how.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The device.
    pub device: DeviceName,
    /// The precision.
    pub precision: Precision,
    /// CPU threads; 0 means one per core.
    pub threads: usize,
    /// The kernels' sources: those inside the binary, or a folder of edited ones.
    pub kernels: Sources,
    /// A table of measured kernels for convolutions; predicted ones otherwise.
    pub kernel_table: Option<PathBuf>,
    /// A folder of kernels that were compiled elsewhere.
    pub kernel_cache: Option<PathBuf>,
    /// How a GPU's kernels follow each other.
    pub launches: Launches,
    /// Kernels and mechanisms that are left out by hand.
    pub exclusions: Exclusions,
    /// How long to wait for a GPU; by what is predicted, where nobody says.
    pub timeout: Option<Duration>,
    /// Who tries a device's kernels before they are used; nobody tries the CPU's.
    pub qualifier: Option<Arc<dyn Qualifier>>,
}

/// Whether a device is used as it is known to be, or asks before it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admission {
    AsKnown,
    Asked,
}

impl Choice {
    /// The device.
    ///
    /// # Errors
    /// It cannot be had, or does not compute in this precision.
    pub fn device(&self) -> Result<Box<dyn Device>> {
        match self.device {
            DeviceName::Cpu => self.cpu(),
            DeviceName::Auto if self.precision == Precision::F64 => self.cpu(),
            DeviceName::Auto if !self.has_kernels() => self.cpu(),
            DeviceName::Auto | DeviceName::Cuda(_) | DeviceName::Emulator => {
                self.check_kernels()?;
                Ok(Box::new(self.kernels()?))
            }
        }
    }

    /// Does work on the device, whose kernels are tried first where they are not known to be sound. Kernels that fail are left out and the
    /// work is begun again, on the CPU where nothing else is left: so `work` does nothing for good before its device has memory.
    ///
    /// # Errors
    /// `work`'s own; or the device cannot be had, or does not compute in this precision.
    pub fn on_device<T>(&self, mut work: impl FnMut(Box<dyn Device>) -> Result<T>) -> Result<T> {
        self.on_tried(&mut |kernels| match kernels {
            Some(kernels) => work(Box::new(kernels)),
            None if self.uses_kernels() => work(self.instead_of_kernels().device()?),
            None => work(self.device()?),
        })
    }

    /// The same for passes over rows of features: nothing is given where the CPU does them, for which scores have their own code.
    ///
    /// # Errors
    /// As [`Choice::on_device`].
    pub fn on_device_for_rows<T>(
        &self,
        mut work: impl FnMut(Option<Box<dyn Device>>) -> Result<T>,
    ) -> Result<T> {
        self.on_tried(&mut |kernels| match kernels {
            Some(kernels) => work(Some(Box::new(kernels))),
            None if self.uses_kernels() => work(None),
            None => self.check_no_kernels().and_then(|()| work(None)),
        })
    }

    /// The same for passes over rows of features, whose precision is their own.
    #[must_use]
    pub fn for_rows(&self) -> Choice {
        let precision = if self.precision == Precision::Bf16 { Precision::F32 } else { self.precision };
        Choice { precision, kernel_table: None, ..self.clone() }
    }

    /// Work with kernels that ask before they get memory; without any where the CPU computes, by choice or since they are unfit.
    fn on_tried<T>(&self, work: &mut dyn FnMut(Option<Cuda>) -> Result<T>) -> Result<T> {
        if !self.uses_kernels() {
            return work(None);
        }
        self.check_kernels()?;
        loop {
            match work(Some(self.kernels_by(Admission::Asked)?)) {
                Err(Error::PlanAgain) => {}
                Err(Error::DeviceUnfit(_)) => return work(None),
                done => return done,
            }
        }
    }

    /// Whether the device with its kernels is chosen, not the CPU.
    fn uses_kernels(&self) -> bool {
        self.has_kernels() && !(self.device == DeviceName::Auto && self.precision == Precision::F64)
    }

    /// The CPU in place of a device with kernels: in the nearest precision, and without what is for kernels alone.
    fn instead_of_kernels(&self) -> Choice {
        let precision = if self.precision == Precision::Bf16 { Precision::F32 } else { self.precision };
        Choice { device: DeviceName::Cpu, precision, threads: self.threads, ..Choice::default() }
    }

    /// The device with its kernels.
    ///
    /// # Errors
    /// It has none or cannot be had.
    pub fn kernels(&self) -> Result<Cuda> {
        self.kernels_by(Admission::AsKnown)
    }

    fn kernels_by(&self, admission: Admission) -> Result<Cuda> {
        let without = || {
            Error::usage(format!(
                "--device {}: this needs kernels, which the CPU does not run; use --device cuda, or emulator to rehearse",
                self.device
            ))
        };
        match self.device {
            DeviceName::Cpu => Err(without()),
            DeviceName::Auto => self.on_gpu(self.first_gpu().ok_or_else(without)?, admission),
            DeviceName::Cuda(number) => {
                self.on_gpu(Native::with_kernel_cache(number, self.kernel_cache.as_deref())?, admission)
            }
            DeviceName::Emulator => {
                let emulator = self.emulator()?;
                let left_out = self.left_out(&emulator);
                self.kernels_on(emulator, left_out, admission)
            }
        }
    }

    fn first_gpu(&self) -> Option<Native> {
        Native::with_kernel_cache(0, self.kernel_cache.as_deref()).ok()
    }

    /// Kernels and mechanisms that are not used on a device.
    fn left_out(&self, driver: &dyn Driver) -> Exclusions {
        let known =
            self.qualifier.as_ref().map(|qualifier| qualifier.exclusions(driver.properties(), &self.kernels));
        self.exclusions.and(&known.unwrap_or_default())
    }

    fn on_gpu(&self, gpu: Native, admission: Admission) -> Result<Cuda> {
        let left_out = self.left_out(&gpu);
        let launches = if left_out.has(PDL) { Launches::Serial } else { self.launches };
        self.kernels_on(gpu.with_launches(launches).with_timeout(self.timeout), left_out, admission)
    }

    /// Whether the device has kernels: it then computes in bf16 as well, and goes over rows of features.
    pub fn has_kernels(&self) -> bool {
        match self.device {
            DeviceName::Cpu => false,
            DeviceName::Auto => self.first_gpu().is_some(),
            DeviceName::Cuda(_) | DeviceName::Emulator => true,
        }
    }

    /// The folder that kernels are taken from, for results to name it.
    pub fn kernels_taken(&self) -> Option<TakenSources> {
        self.kernels.edited().map(EditedSources::taken)
    }

    /// The type of activations.
    pub fn dtype(&self) -> DType {
        match self.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::Bf16,
            Precision::F64 => DType::F64,
        }
    }

    /// Refuses what is for kernels alone where the CPU computes.
    fn check_no_kernels(&self) -> Result<()> {
        let for_kernels = if self.exclusions.is_empty() {
            self.kernel_cache.as_ref().map(|folder| format!("--kernel-cache {}", folder.display()))
        } else {
            Some(format!("--exclude {}", self.exclusions))
        };
        if let Some(flag) = for_kernels {
            return Err(Error::usage(format!(
                "{flag} with --device {}: the CPU computes, which runs no kernels; leave it out",
                self.device
            )));
        }
        let Some(edited) = self.kernels.edited() else { return Ok(()) };
        let hint = if self.device == DeviceName::Auto {
            " (no GPU was found; `residua doctor` says why)"
        } else {
            ""
        };
        Err(Error::usage(format!(
            "--kernels {} with --device {}: the CPU computes, which runs no kernels{hint}; leave it out, or add --device cuda, or \
             emulator to run them without a GPU",
            edited.taken().folder,
            self.device
        )))
    }

    fn cpu(&self) -> Result<Box<dyn Device>> {
        self.check_no_kernels()?;
        if let Some(table) = &self.kernel_table {
            return Err(Error::usage(format!(
                "--kernel-table {} with the CPU: the table chooses among a GPU's kernels; leave it out, or compute on the \
                 GPU that it was measured on",
                table.display()
            )));
        }
        match self.precision {
            Precision::F32 => Ok(Box::new(Cpu::<f32>::new(self.threads)?)),
            Precision::F64 => Ok(Box::new(Cpu::<f64>::new(self.threads)?)),
            Precision::Bf16 => Err(Error::usage(format!(
                "--precision bf16 with --device {}: the CPU computes in f32 and f64; bf16 is for --device cuda, or \
                 emulator{}",
                self.device,
                if self.device == DeviceName::Auto {
                    ", and no GPU was found (`residua doctor` says why)"
                } else {
                    ""
                }
            ))),
        }
    }

    /// The kernels in the chosen precision and from the chosen sources.
    fn kernels_on(
        &self,
        driver: impl Driver + 'static,
        left_out: Exclusions,
        admission: Admission,
    ) -> Result<Cuda> {
        let dtype = if self.precision == Precision::Bf16 { DType::Bf16 } else { DType::F32 };
        let cuda = Cuda::new(Arc::new(driver), dtype, self.kernels.clone())?.without(left_out);
        let cuda = match self.qualifier.as_ref().filter(|_| admission == Admission::Asked) {
            Some(qualifier) => cuda.admitted_by(qualifier.clone()),
            None => cuda,
        };
        match &self.kernel_table {
            Some(table) => cuda.with_table(KernelTable::read(table)?),
            None => Ok(cuda),
        }
    }

    fn emulator(&self) -> Result<Emulator> {
        let options = emulator::Options { threads: self.threads, ..emulator::Options::default() };
        Ok(Emulator::new(options)?.with_refusals(emulator::Refusals::of_environment()?))
    }

    fn check_kernels(&self) -> Result<()> {
        if self.precision == Precision::F64 {
            return Err(Error::usage(format!(
                "--precision f64 with --device {}: kernels compute in f32 and bf16; f64 is the CPU's",
                self.device
            )));
        }
        Ok(())
    }
}
