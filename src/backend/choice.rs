//! Which device and precision a user asked for, and running generic code on it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use super::cuda::driver::emulator::{self, Emulator};
use super::cuda::driver::native::Native;
use super::cuda::driver::{Driver, Launches};
use super::cuda::{Cuda, EditedSources, KernelTable, Sources, TakenSources};
use crate::error::{Error, Result};
use crate::ops::{Backend, RowOps};
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
pub enum Device {
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

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Device> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "emulator" => Ok(Device::Emulator),
            "cuda" => Ok(Device::Cuda(0)),
            _ => match text.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
                Some(number) => Ok(Device::Cuda(number)),
                None => Err(Error::usage(format!(
                    "no device is called `{text}`; there are auto, cpu, cuda, cuda:N and emulator"
                ))),
            },
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Emulator => f.write_str("emulator"),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = Error;

    fn try_from(text: String) -> Result<Device> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

/// What to compute on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// The device.
    pub device: Device,
    /// The precision.
    pub precision: Precision,
    /// CPU threads; 0 means one per core.
    pub threads: usize,
    /// The kernels' sources: those inside the binary, or a folder of edited ones.
    pub kernels: Sources,
    /// A table of measured kernels for convolutions; predicted ones otherwise.
    pub kernel_table: Option<PathBuf>,
    /// How a GPU's kernels follow each other.
    pub launches: Launches,
}

/// Work that runs on any backend.
pub trait Work {
    /// What it gives.
    type Output;

    /// Does it.
    ///
    /// # Errors
    /// The work's own.
    fn run<B: Backend>(self, backend: B) -> Result<Self::Output>;
}

/// Work on rows of features: on a device that has kernels for them, or on the CPU, which needs none.
pub trait RowWork {
    /// What it gives.
    type Output;

    /// Does it on the CPU.
    ///
    /// # Errors
    /// The work's own.
    fn on_cpu(self) -> Result<Self::Output>;

    /// Does it on a device.
    ///
    /// # Errors
    /// The work's own, or the device failed.
    fn on_device<B: RowOps>(self, device: B) -> Result<Self::Output>;
}

/// Work on a device's kernels themselves.
pub trait KernelWork {
    /// What it gives.
    type Output;

    /// Does it.
    ///
    /// # Errors
    /// The work's own, or the device failed.
    fn run<D: Driver>(self, cuda: Cuda<D>) -> Result<Self::Output>;
}

impl Choice {
    /// Runs work that only a device with kernels can do.
    ///
    /// # Errors
    /// The device has none or cannot be had, or the work failed.
    pub fn run_kernels<W: KernelWork>(&self, work: W) -> Result<W::Output> {
        let without = || {
            Error::usage(format!(
                "--device {}: this needs kernels, which the CPU does not run; use --device cuda, or emulator to rehearse",
                self.device
            ))
        };
        match self.device {
            Device::Cpu => Err(without()),
            Device::Auto => work.run(self.kernels_on(self.gpu_if_present().ok_or_else(without)?)?),
            Device::Cuda(number) => work.run(self.kernels_on(self.gpu(number)?)?),
            Device::Emulator => work.run(self.kernels_on(self.emulator()?)?),
        }
    }

    /// Runs work on rows where it was asked for. Rows have a precision of their own: f32 features, f64 sums.
    ///
    /// # Errors
    /// The device cannot be had, or the work failed.
    pub fn run_rows<W: RowWork>(&self, work: W) -> Result<W::Output> {
        match self.device {
            Device::Cpu => self.rows_on_cpu(work),
            Device::Auto => match self.gpu_if_present() {
                Some(gpu) => work.on_device(self.kernels_on(gpu)?),
                None => self.rows_on_cpu(work),
            },
            Device::Cuda(number) => work.on_device(self.kernels_on(self.gpu(number)?)?),
            Device::Emulator => work.on_device(self.kernels_on(self.emulator()?)?),
        }
    }

    /// Makes the backend and runs the work on it.
    ///
    /// # Errors
    /// The device cannot be had, or the work failed.
    pub fn run<W: Work>(&self, work: W) -> Result<W::Output> {
        match self.device {
            Device::Cpu => self.on_cpu(work),
            Device::Auto if self.precision == Precision::F64 => self.on_cpu(work),
            Device::Auto => match self.gpu_if_present() {
                Some(gpu) => self.on_kernels(gpu, work),
                None => self.on_cpu(work),
            },
            Device::Cuda(number) => {
                self.check_kernels()?;
                self.on_kernels(self.gpu(number)?, work)
            }
            Device::Emulator => {
                self.check_kernels()?;
                self.on_kernels(self.emulator()?, work)
            }
        }
    }

    /// Whether the device has kernels: it then computes in bf16 as well, and goes over rows of features.
    pub fn has_kernels(&self) -> bool {
        match self.device {
            Device::Cpu => false,
            Device::Auto => Native::if_present(0).is_some(),
            Device::Cuda(_) | Device::Emulator => true,
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

    /// Refuses sources of kernels where the CPU computes.
    fn check_no_kernels(&self) -> Result<()> {
        let Some(edited) = self.kernels.edited() else { return Ok(()) };
        let hint =
            if self.device == Device::Auto { " (no GPU was found; `residua doctor` says why)" } else { "" };
        Err(Error::usage(format!(
            "--kernels {} with --device {}: the CPU computes, which runs no kernels{hint}; leave it out, or add --device cuda, or \
             emulator to run them without a GPU",
            edited.taken().folder,
            self.device
        )))
    }

    fn rows_on_cpu<W: RowWork>(&self, work: W) -> Result<W::Output> {
        self.check_no_kernels()?;
        work.on_cpu()
    }

    fn on_cpu<W: Work>(&self, work: W) -> Result<W::Output> {
        self.check_no_kernels()?;
        if let Some(table) = &self.kernel_table {
            return Err(Error::usage(format!(
                "--kernel-table {} with the CPU: the table chooses among a GPU's kernels; leave it out, or compute on the \
                 GPU that it was measured on",
                table.display()
            )));
        }
        match self.precision {
            Precision::F32 => work.run(Cpu::<f32>::new(self.threads)?),
            Precision::F64 => work.run(Cpu::<f64>::new(self.threads)?),
            Precision::Bf16 => Err(Error::usage(format!(
                "--precision bf16 with --device {}: the CPU computes in f32 and f64; bf16 is for --device cuda, or \
                 emulator{}",
                self.device,
                if self.device == Device::Auto {
                    ", and no GPU was found (`residua doctor` says why)"
                } else {
                    ""
                }
            ))),
        }
    }

    fn on_kernels<D: Driver, W: Work>(&self, driver: D, work: W) -> Result<W::Output> {
        work.run(self.kernels_on(driver)?)
    }

    /// The kernels in the chosen precision and from the chosen sources.
    fn kernels_on<D: Driver>(&self, driver: D) -> Result<Cuda<D>> {
        let dtype = if self.precision == Precision::Bf16 { DType::Bf16 } else { DType::F32 };
        let cuda = Cuda::new(driver, dtype, self.kernels.clone())?;
        match &self.kernel_table {
            Some(table) => cuda.with_table(KernelTable::read(table)?),
            None => Ok(cuda),
        }
    }

    fn gpu(&self, number: usize) -> Result<Native> {
        Ok(Native::new(number)?.with_launches(self.launches))
    }

    fn gpu_if_present(&self) -> Option<Native> {
        Native::if_present(0).map(|gpu| gpu.with_launches(self.launches))
    }

    fn emulator(&self) -> Result<Emulator> {
        Emulator::new(emulator::Options { threads: self.threads, ..emulator::Options::default() })
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
