//! [`Device`] for the CPU: its memory, and the host's way in and out.

use std::convert::Infallible;
use std::fs;
use std::time::Instant;

use super::Cpu;
use super::calls::{Record, read, read_integers, write};
use super::element::Element;
use super::memory::Memory;
use crate::error::Result;
use crate::ops::{Device, Hardware, HardwareKind};
use crate::tensor::{DType, HostValues, Span};

impl<T: Element> Device for Cpu<T> {
    type Memory = Memory;

    fn name(&self) -> String {
        self.description()
    }

    fn dtype(&self) -> DType {
        T::DTYPE
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        Memory::new(bytes)
    }

    fn write(&self, memory: &mut Memory, to: Span, values: HostValues<'_>) -> Result<()> {
        write::<T>(memory, to, values)
    }

    fn read_f32(&self, memory: &Memory, from: Span, values: &mut [f32]) -> Result<()> {
        read::<T, f32>(memory, from, values)
    }

    fn read_f64(&self, memory: &Memory, from: Span, values: &mut [f64]) -> Result<()> {
        read::<T, f64>(memory, from, values)
    }

    fn read_i32(&self, memory: &Memory, from: Span, values: &mut [i32]) -> Result<()> {
        read_integers(memory, from, values)
    }

    type Reading = Vec<f64>;

    fn begin_read(&self, memory: &Memory, from: Span) -> Result<Vec<f64>> {
        let mut values = vec![0.0; from.elements];
        self.read_f64(memory, from, &mut values)?;
        Ok(values)
    }

    fn finish_read(&self, reading: Vec<f64>) -> Result<Vec<f64>> {
        Ok(reading)
    }

    fn finish_read_f32(&self, reading: Vec<f64>) -> Result<Vec<f32>> {
        Ok(reading.into_iter().map(|value| value as f32).collect())
    }

    type Captured = Infallible;

    fn capture(&self, _: &mut Memory, _: Record<'_>) -> Result<Option<Infallible>> {
        Ok(None)
    }

    fn replay(&self, _: &mut Memory, captured: &Infallible) -> Result<()> {
        match *captured {}
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn hardware(&self) -> Hardware {
        let name = format!("{}, {} threads", processor(), self.threads());
        Hardware { kind: HardwareKind::Cpu, name, versions: String::new() }
    }

    type Moment = Instant;

    fn moment(&self) -> Result<Instant> {
        Ok(Instant::now())
    }

    fn seconds_between(&self, from: &Instant, to: &Instant) -> Result<f64> {
        Ok(to.duration_since(*from).as_secs_f64())
    }
}

/// The processor's name, where the system tells.
fn processor() -> String {
    let model = |text: String| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(model)
        .unwrap_or_else(|| std::env::consts::ARCH.to_string())
}
