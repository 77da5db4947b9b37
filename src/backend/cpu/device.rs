//! [`Device`] for the CPU: its memory, and the host's way in and out.

use std::fs;
use std::time::Instant;

use super::Cpu;
use super::backend::workspace_bytes;
use super::calls::{read, read_integers, write};
use super::element::Element;
use super::memory::Memory;
use crate::error::Result;
use crate::ops::{Call, Device, Event, Graph, Hardware, HardwareKind, Readback};
use crate::tensor::{DType, HostValues, Span};

impl<T: Element> Device for Cpu<T> {
    fn name(&self) -> String {
        self.description()
    }

    fn dtype(&self) -> DType {
        T::DTYPE
    }

    fn hardware(&self) -> Hardware {
        let name = format!("{}, {} threads", processor(), self.threads());
        Hardware { kind: HardwareKind::Cpu, name, versions: String::new() }
    }

    fn workspace_bytes(&self, call: &Call<()>) -> usize {
        workspace_bytes::<T>(call)
    }

    fn allocate(&mut self, bytes: usize) -> Result<()> {
        self.memory = Memory::new(bytes)?;
        Ok(())
    }

    fn run(&mut self, call: &Call<Span>, workspace: Span) -> Result<()> {
        call.dispatch(self, workspace)
    }

    fn write(&mut self, to: Span, values: HostValues<'_>) -> Result<()> {
        write::<T>(&mut self.memory, to, values)
    }

    fn read_f32(&self, from: Span, values: &mut [f32]) -> Result<()> {
        read::<T, f32>(&self.memory, from, values)
    }

    fn read_f64(&self, from: Span, values: &mut [f64]) -> Result<()> {
        read::<T, f64>(&self.memory, from, values)
    }

    fn read_i32(&self, from: Span, values: &mut [i32]) -> Result<()> {
        read_integers(&self.memory, from, values)
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn begin_read(&self, from: Span) -> Result<Readback> {
        let mut values = vec![0.0; from.elements];
        self.read_f64(from, &mut values)?;
        Ok(Readback::new(|| Ok(values)))
    }

    fn capture(&mut self, _: &mut dyn FnMut(&mut dyn Device) -> Result<()>) -> Result<Option<Graph>> {
        Ok(None)
    }

    /// # Panics
    /// Always: the CPU captures nothing, so there is no graph of its own.
    fn replay(&mut self, _: &Graph) -> Result<()> {
        panic!("a graph of another device")
    }

    fn event(&self) -> Result<Event> {
        Ok(Event::new(Instant::now()))
    }

    fn seconds_between(&self, from: &Event, to: &Event) -> Result<f64> {
        Ok(to.inner::<Instant>().duration_since(*from.inner()).as_secs_f64())
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
