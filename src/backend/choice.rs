//! Which device and precision a user asked for, and running generic code on it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use crate::error::{Error, Result};
use crate::ops::Backend;

/// Element type of activations and parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Double precision, on the CPU only: the oracle.
    F64,
}

/// A device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The best there is.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Device> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            _ if text == "emulator" || text == "cuda" || text.starts_with("cuda:") => Err(Error::usage(
                format!("--device {text}: this version computes on the CPU only; use --device cpu or auto"),
            )),
            _ => Err(Error::usage(format!("no device is called `{text}`; there are auto and cpu"))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Auto => "auto",
            Device::Cpu => "cpu",
        })
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice {
    /// The device.
    pub device: Device,
    /// The precision.
    pub precision: Precision,
    /// CPU threads; 0 means one per core.
    pub threads: usize,
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

impl Choice {
    /// Makes the backend and runs the work on it.
    ///
    /// # Errors
    /// The device cannot be had, or the work failed.
    pub fn run<W: Work>(&self, work: W) -> Result<W::Output> {
        match (self.device, self.precision) {
            (Device::Auto | Device::Cpu, Precision::F32) => work.run(Cpu::<f32>::new(self.threads)?),
            (Device::Auto | Device::Cpu, Precision::F64) => work.run(Cpu::<f64>::new(self.threads)?),
        }
    }
}
